"""Who uses the page: a token is asked for, and what the caller's role lacks is not offered."""

from __future__ import annotations

import pytest

from tests.control_center.web.browser import Browser
from tests.control_center.web.conftest import TOKENS
from tests.end_to_end.fleet.center import Center
from tests.end_to_end.machine import until

pytestmark = pytest.mark.real

STARTED = "2026-11-23T06:29:10.123Z"


def _register(center: Center, service: str, instance: str, **more: object) -> None:
    """As a node would, with a ttl that outlives the test."""
    entry = {
        "schema": 1, "service": service, "instance": instance, "node": instance.split("/")[0],
        "unit": instance.split("/")[1], "address": "10.0.0.1", "port": 9080, "generation": 1, "status": "up",
        "weight": 100, "full_weight": 100, "started_at": STARTED, "warmup_seconds": 0, "version": None, "zone": None,
        "metadata": {}, **more,
    }  # fmt: skip
    path = f"/v1/registry/services/{service}/{instance.replace('<', '%3C').replace('>', '%3E').replace(' ', '%20')}"
    token, center.token = center.token, TOKENS["host"]
    answer = center.ask("PUT", path, {"entry": entry, "ttl_seconds": 600})
    center.token = token
    assert answer.status in (200, 201), answer


def _log_in(page: Browser, center: Center, name: str, place: str = "") -> None:
    page.go(f"{center.url}/{place}")
    page.write("dialog input", TOKENS[name])
    page.press("Sign in", "dialog button")
    page.sees(name, "header")


def test_a_wrong_token_is_asked_for_again_and_the_right_one_lasts_as_long_as_the_tab(
    locked_page: Browser, locked: Center
) -> None:
    page = locked_page
    page.go(locked.url)
    page.write("dialog input", "not-a-token")
    page.press("Sign in", "dialog button")
    page.sees("no access entry has this token", "dialog")
    page.write("dialog input", TOKENS["chief"])
    page.press("Sign in", "dialog button")
    page.sees("chief (admin)", "header")
    page.driver.refresh()
    page.sees("chief (admin)", "header")
    assert page.run("return localStorage.length") <= 1, "only the theme may outlive the tab"
    assert TOKENS["chief"] not in page.run("return JSON.stringify(localStorage)")


def test_a_token_that_may_not_read_is_refused_and_signing_out_forgets_a_good_one(
    locked_page: Browser, locked: Center
) -> None:
    page = locked_page
    page.go(locked.url)
    page.write("dialog input", TOKENS["host"])
    page.press("Sign in", "dialog button")
    page.sees("host has the role node, which may not read this", "dialog")
    page.write("dialog input", TOKENS["reader"])
    page.press("Sign in", "dialog button")
    page.sees("reader (read)", "header")
    page.press("Sign out")
    page.sees("Sign in", "dialog")
    assert page.run("return sessionStorage.length") == 0
    assert page.text("main") == ""
    page.listen()
    page.messages = [message for message in page.messages if "403 (Forbidden)" not in message]


def test_decisions_show_their_reason_and_unfold_their_evidence(locked_page: Browser, locked: Center) -> None:
    page = locked_page
    _register(locked, "mail", "web-1/mail")
    _register(locked, "mail", "web-2/mail")
    report = {
        "service": "mail", "instance": "web-1/mail", "generation": 1, "symptom": "connect_refused", "count": 3,
        "first_seen": STARTED, "detail": "<i>refused</i>", "backends": 10, "service_backends": 2,
    }  # fmt: skip
    answer = locked.ask("POST", "/v1/reports", {"gateway": "gw-1", "reports": [report]})
    assert answer.status == 202, answer
    decision = until("it is decided", lambda: locked.decisions(service="mail"))[0]
    _log_in(page, locked, "reader", "#/services/mail")
    page.press("Decisions about mail")
    page.sees(decision["reason"])
    assert page.find("dl.tree") is None, "evidence is shown on demand"
    page.press("Evidence", "summary")
    page.sees("<i>refused</i>", "article")
    page.press("", "article time")
    page.wait("h1", f"Decision {decision['id']}")
    page.wait("dl.tree")


def test_what_a_role_may_not_do_is_not_offered(locked_page: Browser, locked: Center) -> None:
    page = locked_page
    _register(locked, "cart", "web-1/cart")
    _register(locked, "pay", "web-1/pay")
    _log_in(page, locked, "reader")
    page.sees("web-1/cart")
    assert page.find("button", "Command") is None and page.find("button", "Mode:") is None
    page.run("sessionStorage.clear()")
    _log_in(page, locked, "keeper", "?again")
    page.sees("web-1/pay")
    page.wait("button", "Command cart")
    assert page.find("button", "Command pay") is None, "a keeper of cart does not command pay"
    assert page.find("button", "Mode:") is None


def test_names_are_text_whatever_they_look_like(locked_page: Browser, locked: Center) -> None:
    page = locked_page
    hostile = "<img src=x onerror=document.title=1>"
    _register(locked, "evil", f"web-1/{hostile}", version="<script>document.title=2</script>", zone="<b>z</b>")
    _log_in(page, locked, "chief", "#/services/evil")
    page.sees(f"web-1/{hostile}")
    page.sees("<b>z</b>")
    assert page.run("return document.querySelectorAll('main img, main script, main b').length") == 0
    assert page.run("return document.title") == "evil · south"


def test_two_thousand_instances_stay_usable(locked_page: Browser, locked: Center) -> None:
    page = locked_page
    for number in range(2000):
        _register(locked, f"s{number % 200:03}", f"n{number}/u")
    _log_in(page, locked, "chief")
    until("all are counted", lambda: "20" in page.text(".sum"), 30.0)
    page.sees("s000")
    page.write("[data-filter]", "s199")
    until("one is left", lambda: "s199" in page.text("tbody") and "s000" not in page.text("tbody"))
    assert page.run("return document.querySelectorAll('main *').length") < 5000
