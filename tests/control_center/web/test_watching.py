"""A fleet watched and commanded in the page: nothing is loaded anew, and all of it is what the center says."""

from __future__ import annotations

from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.control_center.web.browser import Browser
from tests.end_to_end.fleet.center import Center
from tests.end_to_end.host import Host
from tests.end_to_end.machine import until

pytestmark = pytest.mark.real

# Keeps every text that elements of a kind ever show, and what is read out.
RECORD = """
window.isTheSamePage = true;
window.seen = new Set();
window.said = [];
const look = () => {
  for (const each of document.querySelectorAll(".stage > summary .badge, .stage tbody .badge, h1 .badge")) {
    const stage = each.closest(".stage")?.dataset.batch ?? "operation";
    seen.add(`${stage}: ${each.textContent.replace(/^\\W+/u, "")}`);
  }
};
new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
const announcer = document.getElementById("announcer");
new MutationObserver(() => said.push(announcer.textContent)).observe(announcer, { childList: true, characterData: true });
"""


def _settled(center: Center) -> bool:
    entries = center.entries("cart")
    return len(entries) == 3 and all(entry["status"] == "up" for entry in entries)


@pytest.fixture(autouse=True)
def _whole(center: Center, host: Host) -> None:
    """Each test finds all instances up."""
    until("all of cart is up", lambda: _settled(center))


def test_services_show_their_instances_with_weights(page: Browser, center: Center) -> None:
    page.go(center.url)
    page.sees("web-1/cart-a")
    assert "2 services, 4 instances" in page.text()
    row = page.wait("tr", "web-1/cart-b").text.split()
    entry = next(entry for entry in center.entries("cart") if entry["unit"] == "cart-b")
    assert (
        row[1] == "100/100" and "up" in row and str(entry["generation"]) in row and f"127.0.0.1:{entry['port']}" in row
    )
    meters = page.driver.find_elements(By.CSS_SELECTOR, ".under [role=meter]")
    assert [meter.get_attribute("aria-valuetext") for meter in meters] == ["100/100"] * 4
    assert page.run("return document.title") == "Services · north"


def test_a_rolling_restart_is_watched_from_its_plan_to_its_end(page: Browser, center: Center) -> None:
    before = {entry["unit"]: entry["generation"] for entry in center.entries("cart")}
    page.go(f"{center.url}/#/services/cart")
    page.wait("h1", "cart")
    page.run(RECORD)
    page.press("Restart…")
    page.sees("Plan: 3 units in 3 batches", "dialog")
    page.write("dialog [name=floor_percent]", "60")
    page.sees("At least 60 % of the weight of cart stays; the canary must be well for 0.5 s", "dialog")
    page.write("dialog [name=reason]", "new certificates")
    page.press("Restart 3 units")
    page.wait("h1", "Restart cart")
    page.sees("✓ succeeded", "h1")
    states = set(page.run("return [...seen]"))
    assert {
        "operation: running",
        "operation: succeeded",
        "canary: running",
        "canary: baking",
        "canary: succeeded",
    } <= states
    assert {
        "zone b: pending",
        "zone b: running",
        "zone b: succeeded",
        "zone c: succeeded",
        "zone c: confirming",
    } & states
    assert any("succeeded" in each for each in page.run("return said"))
    assert page.run("return isTheSamePage") is True
    assert {entry["unit"]: entry["generation"] for entry in center.entries("cart")} == {
        u: g + 1 for u, g in before.items()
    }
    ended = center.get(f"/v1/operations/{page.run('return location.hash').split('/')[-1]}")
    assert (ended["reason"], ended["strategy"]["floor_percent"]) == ("new certificates", 60)
    assert "new certificates" in page.text()


def test_an_operation_is_paused_resumed_and_aborted(page: Browser, center: Center) -> None:
    begun = center.begin("restart", {"services": ["cart"]}, strategy={"bake_seconds": 60, "floor_percent": 50})
    page.go(f"{center.url}/#/operations/{begun['id']}")
    page.press("Pause…")
    page.write("dialog [name=reason]", "to have a look")
    page.press("Pause", "dialog button[type=submit]")
    page.sees("paused", "h1")
    assert center.operation(begun["id"])["wish"] == "pause"
    page.press("Resume…")
    page.press("Resume", "dialog button[type=submit]")
    page.wait(".note", "The canary must be well")
    page.press("Abort…")
    page.press("Abort", "dialog button[type=submit]")
    page.sees("■ aborted", "h1")
    assert "aborted when 1 of 3 were done" in page.text().lower()
    assert page.find("button", "Pause…") is None


def test_a_plan_that_breaks_the_floor_cannot_be_begun(page: Browser, center: Center) -> None:
    page.go(f"{center.url}/#/services/pay")
    page.press("Restart…")
    page.sees("it has a single instance", "dialog")
    assert page.wait("[data-confirm]").is_enabled() is False
    page.write("dialog [name=floor_percent]", "0")
    page.sees("No floor.", "dialog")
    assert page.wait("[data-confirm]").is_enabled() is False
    page.press("", "dialog input[name=sure]")
    assert page.wait("[data-confirm]").is_enabled() is True
    page.press("Cancel")
    until("the dialog is gone", lambda: page.find("dialog") is None)
    assert center.get("/v1/operations?open=1")["operations"] == []
    page.listen()
    refused = [message for message in page.messages if "422" in message]
    page.messages = [message for message in page.messages if message not in refused]
    assert refused  # the browser itself notes each refusal


def test_a_service_that_is_drained_altogether_is_put_back_into_traffic(page: Browser, center: Center) -> None:
    page.go(f"{center.url}/#/services/pay")
    page.press("Drain…")
    page.press("", "dialog input[name=sure]")
    page.press("Drain 1 unit")
    page.sees("✓ succeeded", "h1")
    until("it has left the registry", lambda: not center.entries("pay"))
    page.run("location.hash = '#/services'")
    page.press("Command pay")
    page.sees("Start pay", "dialog")
    page.choose("What", "Undrain")
    page.press("Undrain 1 unit")
    page.sees("✓ succeeded", "h1")
    until("it is back", lambda: center.entries("pay"))
    page.listen()  # that a service has left the registry is a 404, and the browser notes each
    page.messages = [message for message in page.messages if "404" not in message]


def test_a_nodes_units_are_shown_and_commanded(page: Browser, center: Center, host: Host) -> None:
    page.go(f"{center.url}/#/nodes")
    page.wait("tr", "web-1")
    assert "all up" in page.text()
    page.press("web-1", "a")
    page.sees("talker")
    before = host.unit("talker")["generation"]
    page.press("Command talker")
    page.press("Restart 1 unit")
    page.sees("✓ succeeded", "h1")
    assert host.unit("talker")["generation"] == before + 1


def test_a_log_is_followed_live_and_held_on_demand(page: Browser, center: Center) -> None:
    page.go(f"{center.url}/#/nodes/web-1/units/talker/logs")
    page.sees("of talker", "[data-log]")

    def last() -> int:
        return int(page.run("return document.querySelector('[data-log]').lastChild.textContent.split(' ')[1]"))

    first = last()
    until("more comes", lambda: last() > first + 3)
    page.press("Pause")
    held = last()
    until("lines are held back", lambda: "paused; 0 " not in page.text(".tools") and "held back" in page.text(".tools"))
    assert last() == held
    page.press("Continue")
    until("they are shown", lambda: last() > held)
    page.choose("Stream", "stderr")
    page.sees("trouble", "[data-log]")
    assert "of talker" not in page.text("[data-log]")


def test_a_log_keeps_so_many_lines_and_no_more(page: Browser, center: Center) -> None:
    page.go(f"{center.url}/#/nodes/web-1/units/flood/logs")
    page.sees("6000", "[data-log]")
    assert page.run("return document.querySelector('[data-log]').childElementCount") <= 2000


def test_events_are_told_newest_first(page: Browser, center: Center) -> None:
    page.go(f"{center.url}/#/events")
    answer = center.ask("PUT", "/v1/center/mode", {"mode": "observe", "reason": "a <b>test</b>"})
    assert answer.status == 200
    page.sees("assist → observe")
    center.ask("PUT", "/v1/center/mode", {"mode": "assist", "reason": ""})
    page.sees("observe → assist")
    assert "a <b>test</b>" in page.text()
    newest = page.driver.find_element(By.CSS_SELECTOR, ".events li").text
    assert "observe → assist" in newest
    page.sees("Mode: assist", "header")


def test_the_mode_is_switched_in_the_page(page: Browser, center: Center) -> None:
    page.go(center.url)
    page.press("Mode: assist…")
    page.choose("Mode", "full")
    page.write("dialog [name=reason]", "one gateway only")
    page.press("Set the mode")
    page.sees("Mode: full", "header")
    assert center.get("/v1/center")["mode"] == "full"
    center.ask("PUT", "/v1/center/mode", {"mode": "assist", "reason": ""})
    page.sees("Mode: assist", "header")  # told by an event


def test_all_of_it_goes_without_a_mouse(page: Browser, center: Center) -> None:
    page.go(center.url)
    page.sees("web-1/cart-a")
    page.run("document.activeElement.blur()")
    page.keys(Keys.TAB)
    assert page.driver.switch_to.active_element.text == "Skip to the content"
    page.keys(Keys.ENTER)
    assert page.run("return document.activeElement.id") == "main"
    page.keys("?")
    page.sees("Keys", "dialog")
    page.keys(Keys.ESCAPE)
    until("the help is closed", lambda: page.find("dialog") is None)
    page.keys("g", "n")
    page.wait("h1", "Nodes")
    assert page.run("return document.activeElement.tagName") == "H1"
    page.tab_to("web-1")
    page.keys(Keys.ENTER)
    page.sees("talker")
    button = page.tab_to("Command talker")
    outline = page.run("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keys(Keys.ENTER)
    page.sees("Plan: 1 unit in 1 batch", "dialog")
    for _ in range(12):  # the focus stays in the dialog, however far one goes
        page.keys(Keys.TAB)
        assert page.run("return document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.keys(Keys.ESCAPE)
    until("the dialog is closed", lambda: page.find("dialog") is None)
    assert page.driver.switch_to.active_element == button
    page.keys("/")


def test_what_a_person_does_survives_what_is_loaded(page: Browser, center: Center) -> None:
    page.go(center.url)
    page.sees("web-1/cart-a")
    page.run("window.field = document.querySelector('[data-filter]'); field.focus();")
    page.keys("car")
    page.run("field.setSelectionRange(1, 2); window.row = document.querySelector('tbody tr');")
    loads = "return performance.getEntriesByName(location.origin + '/v1/services').length"
    before = int(page.run(loads))
    until("it was loaded twice more", lambda: page.run(loads) > before + 1)
    state: dict[str, Any] = page.run(
        "return {field: document.activeElement === field, value: field.value, at: field.selectionStart,"
        " row: document.querySelector('tbody tr') === row}"
    )
    assert state == {"field": True, "value": "car", "at": 1, "row": True}


def test_a_lost_connection_is_said_and_found_again(page: Browser, center: Center) -> None:
    page.go(center.url)
    page.sees("Live", "header")
    page.sees("web-1/cart-a")
    page.online(False)
    page.run("document.dispatchEvent(new Event('visibilitychange'))")  # a quick look, as when one comes back to the tab
    page.sees("Not connected", "#banner")
    page.sees("Not connected", "header")
    assert "web-1/cart-a" in page.text()
    page.press("Try now")
    page.sees("Not connected", "#banner")
    page.run("location.hash = '#/nodes'")
    page.sees("Not connected", "#banner")  # also where nothing was shown yet
    assert "web-1" not in page.text()
    page.run("location.hash = '#/services'")
    page.online(True)
    page.sees("Live", "header", 30.0)
    until("the banner is gone", lambda: page.text("#banner") == "")
    page.listen()
    page.messages = [message for message in page.messages if "ERR_INTERNET_DISCONNECTED" not in message]
