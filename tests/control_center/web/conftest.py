"""One browser, and two fleets: one that is commanded, and one with access entries and many services."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.control_center.web.browser import CHROMIUM, DRIVER, Browser
from tests.end_to_end.fleet.center import Center
from tests.end_to_end.host import SERVE, Host
from tests.end_to_end.machine import until

TOKENS = {"reader": "token-of-reader", "keeper": "token-of-keeper", "chief": "token-of-chief", "host": "token-of-host"}
ROLES = {"reader": "read", "keeper": "operate", "chief": "admin", "host": "node"}
QUICK = """
[unit.{name}.restart]
settle_seconds = 0.05
removal = "deregister"
[unit.{name}.drain]
timeout = 0.1
quiet = 0.05
[unit.{name}.warmup]
initial = 50
step = 50
period = 0.3
"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One for all tests."""
    if not (Path(CHROMIUM).exists() and Path(DRIVER).exists()):
        reason = "chromium and chromedriver are not installed (Debian packages chromium and chromium-driver)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    made = Browser()
    yield made
    made.close()


@pytest.fixture(scope="session")
def center() -> Iterator[Center]:
    """A control center without access entries: whoever is root here may do everything."""
    made = Center("north", ttl_seconds=1.0)
    made.configure(more="[nodes]\nheartbeat_seconds = 0.5\n[rollout]\nbake_seconds = 0.5\nfloor_percent = 50\n")
    made.run()
    yield made
    made.close()


@pytest.fixture(scope="session")
def host(center: Center) -> Iterator[Host]:
    """Its node: three instances of cart, one of pay, and two units that write."""
    made = Host()
    made.configure(
        "\n".join(
            [*(_served(made, f"cart-{zone}", "cart", zone) for zone in "abc"), _served(made, "pay", "pay", "a"),
             _writer("talker", "i=0; while :; do i=$((i+1)); echo line $i of talker; echo trouble $i >&2; sleep 0.1; done"),
             _writer("flood", "seq 1 6000; exec sleep 1000")]
        ),
        registry=f'backend = "http", url = "{center.url}", ttl_seconds = 1',
        http=f"127.0.0.1:{made.port()}",
        node="web-1",
    )  # fmt: skip
    made.run()
    until("all are registered", lambda: len(center.entries("cart")) == 3 and center.entries("pay"))
    until("the node is known", lambda: [node["state"] for node in center.get("/v1/nodes")["nodes"]] == ["up"])
    yield made
    made.close()


def _served(host: Host, name: str, service: str, zone: str) -> str:
    port = host.port()
    head = f'[unit.{name}]\ncommand = "{SERVE} {port}"\nstartsecs = 0.05\n'
    return f'{head}[unit.{name}.service]\nname = "{service}"\nport = {port}\nzone = "{zone}"\nversion = "2.4"\n{QUICK.format(name=name)}'


def _writer(name: str, script: str) -> str:
    return f"[unit.{name}]\ncommand = '/bin/sh -c \"{script}\"'\n"


@pytest.fixture
def page(browser: Browser, center: Center, host: Host) -> Iterator[Browser]:
    """The page of the fleet that is commanded. Afterwards: no complaint in the console, nobody else was asked."""
    browser.fresh(center.url)
    yield browser
    _check(browser, center)


@pytest.fixture(scope="session")
def locked() -> Iterator[Center]:
    """A control center that wants to know who calls; it has no nodes, only entries that tests write."""
    made = Center("south", ttl_seconds=1.0)
    entries = []
    for name, role in ROLES.items():
        digest = sha256(TOKENS[name].encode()).hexdigest()
        entries.append(f'[http.access.{name}]\nrole = "{role}"\ntoken_sha256 = "{digest}"')
    entries[1] += '\nservices = ["cart*"]'
    made.configure(more="\n".join(entries))
    made.run()
    made.token = TOKENS["chief"]
    yield made
    made.close()


@pytest.fixture
def locked_page(browser: Browser, locked: Center) -> Iterator[Browser]:
    """The page of the fleet with access entries. That it says 401 to those who have no token is no complaint."""
    browser.fresh(locked.url)
    yield browser
    _check(browser, locked, "401 (Unauthorized)")


def _check(browser: Browser, center: Center, *expected: str) -> None:
    browser.listen()
    messages = [message for message in browser.messages if not any(each in message for each in expected)]
    browser.go("about:blank")
    assert messages == []
    assert browser.hosts <= {f"127.0.0.1:{center.port}", ""}
