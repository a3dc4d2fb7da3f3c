"""One daemon for all tests of this folder that leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.host import SERVE, Host
from tests.end_to_end.secure.scene import SLEEP, Secure

UNITS = """
unit.plain = { command = "SLEEP", startsecs = 0.05 }
[unit.cart]
command = "SERVE {port}"
startsecs = 0.05
service = { name = "cart", port = CART }
restart = { removal = "deregister", settle_seconds = 0 }
drain = { timeout = 0 }
[unit.search]
command = "SERVE {port}"
startsecs = 0.05
depends_on = ["cart"]
service = { name = "search", port = SEARCH }
restart = { removal = "deregister", settle_seconds = 0 }
drain = { timeout = 0 }
"""


@pytest.fixture(scope="module")
def secure() -> Iterator[Secure]:
    host = Host()
    ports = host.port(2)
    words = {"SLEEP": SLEEP, "SERVE": SERVE, "CART": str(ports), "SEARCH": str(ports + 1)}
    text = UNITS
    for word, value in words.items():
        text = text.replace(word, value)
    made = Secure(host, text)
    try:
        host.run()
        for name in ("plain", "cart", "search"):
            host.until_state(name, "RUNNING")
        yield made
    finally:
        host.close()
