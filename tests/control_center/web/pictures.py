"""Makes the pictures of the documentation: python -m tests.control_center.web.pictures

A control center with four nodes in two zones, restarted and reported on; each view as Chromium draws it.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

from tests.control_center.web.browser import Browser
from tests.end_to_end.fleet.center import Center
from tests.end_to_end.fleet.nodes import Fleet
from tests.end_to_end.machine import until

FOLDER = Path(__file__).parents[3] / "docs" / "pictures"
SLOW = """
startsecs = 0.1
restart = { removal = "deregister", settle_seconds = 0.3 }
warmup = { initial = 20, step = 20, period = 1.0 }
drain = { timeout = 10, quiet = 0.2 }
"""
SERVICES = ("cart", "pay", "search", "stock")


def shoot(browser: Browser, name: str) -> None:
    """What the window shows now."""
    picture = browser.command("Page.captureScreenshot", format="png", captureBeyondViewport=False)
    (FOLDER / f"{name}.png").write_bytes(base64.b64decode(picture["data"]))


def report(center: Center, gateway: str, instance: str, generation: int) -> None:
    """As a gateway that gets no answer from an instance."""
    said = {
        "service": instance.split("/")[1], "instance": instance, "generation": generation, "symptom": "response_timeout",
        "count": 5, "first_seen": datetime.now(UTC).isoformat(), "backends": 16, "service_backends": 4,
    }  # fmt: skip
    answer = center.ask("POST", "/v1/reports", {"gateway": gateway, "reports": [said]})
    assert answer.status == 202, answer


def play(browser: Browser, center: Center, fleet: Fleet) -> None:
    """One picture after the other."""
    browser.fresh(center.url)
    begun = center.begin("restart", {"services": ["cart"]}, reason="new certificates", strategy={"bake_seconds": 1})
    browser.scheme("dark")
    browser.go(f"{center.url}/#/operations/{begun['id']}")
    center.until_operation(begun["id"], "the second batch warms up", lambda each: each["counts"].get("succeeded") == 2)
    browser.sees("weight 60")
    shoot(browser, "operation")
    browser.scheme("light")
    browser.size(1280, 760)
    browser.go(f"{center.url}/#/services")
    browser.sees("n0/cart")
    until("one of cart is warming", lambda: any(each["status"] == "warming" for each in center.entries("cart")))
    browser.sees("warming")
    shoot(browser, "services")
    browser.size(360, 700)
    shoot(browser, "narrow")
    browser.size(1280, 560)
    center.follow(begun["id"])
    for gateway in ("gateway-1", "gateway-2"):
        report(center, gateway, "n2/pay", 1)
    report(center, "gateway-1", "n1/stock", 1)
    until("it is decided", lambda: len(center.decisions()) >= 2)
    browser.go(f"{center.url}/#/decisions")
    browser.sees("n2/pay")
    shoot(browser, "decisions")
    browser.go(f"{center.url}/#/nodes")
    browser.sees("n3")
    shoot(browser, "nodes")


def main() -> None:
    """All of them."""
    FOLDER.mkdir(exist_ok=True)
    center = Center("north", ttl_seconds=1.0)
    center.configure(more="[nodes]\nheartbeat_seconds = 0.5\n")
    center.run()
    fleet, browser = Fleet(center, 4), Browser()
    fleet.configure(SERVICES, settings=SLOW)
    try:
        fleet.run(SERVICES)
        play(browser, center, fleet)
    finally:
        browser.close()
        fleet.close()
        center.close()


if __name__ == "__main__":
    main()
