"""[proxy.NAME] in the configuration, and every mistake with its key."""

from __future__ import annotations

import pytest

from gateway.proxy.routes import Routes
from gateway.settings import proxy
from gateway.settings.proxy import ProxySpec, Route
from supervisor.config.document import Document
from supervisor.config.table import Problems

PLAIN = '[proxy.shop]\nlisten = "127.0.0.1:8080"\n'
ROUTE = '[[proxy.shop.routes]]\nservice = "cart"\n'


def read(text: str) -> tuple[ProxySpec, list[str]]:
    problems = Problems()
    spec = proxy.read(Document("g.toml", text.encode()), "shop", problems)
    return spec, [str(error) for error in problems.errors]


def test_a_listener_and_a_route_are_enough() -> None:
    spec, errors = read(PLAIN + ROUTE)
    assert errors == []
    assert spec == ProxySpec(
        name="shop", listen=("127.0.0.1", 8080), routes=(Route("cart", "/", "*"),), services=("cart",)
    )


def test_all_keys_are_read() -> None:
    spec, errors = read(PLAIN + 'connect_seconds = "200ms"\nmax_head_bytes = "64KB"\nprobe = "/healthz"\neject_percent = 0\n'
                        + '[[proxy.shop.routes]]\nhost = "*.Shop.example"\nprefix = "/a"\nservice = "a"\n' + ROUTE + ROUTE.replace("cart", "a") + 'prefix = "/b"\n')  # fmt: skip
    assert errors == []
    assert (spec.connect_seconds, spec.max_head_bytes, spec.probe, spec.eject_percent) == (0.2, 65536, "/healthz", 0)
    assert spec.routes == (Route("a", "/a", "*.shop.example"), Route("cart"), Route("a", "/b"))
    assert spec.services == ("a", "cart")


def test_the_defaults_of_the_reference_are_those_that_count() -> None:
    spec = proxy.alone(("127.0.0.1", 1), "cart")
    for name, key in proxy.KEYS.items():
        if key.default != "required":
            assert key.convert(_value(key.default)) == getattr(spec, key.field), name


def _value(text: str) -> object:
    return Document("d", f"x = {text}".encode()).tables["x"]


@pytest.mark.parametrize(("text", "error"), [
    ("[proxy.shop]\n" + ROUTE, "proxy.shop.listen: missing"),
    (PLAIN, "proxy.shop.routes: missing"),
    (PLAIN + "routes = []\n", "proxy.shop.routes: must be tables"),
    (PLAIN + "[proxy.shop.routes]\n", "proxy.shop.routes: must be tables"),
    (PLAIN + "[[proxy.shop.routes]]\n", "item 1 cannot be used: it names no service"),
    (PLAIN + ROUTE + 'prefix = "a"\n', "item 1 cannot be used: prefix must be a path"),
    (PLAIN + ROUTE + 'host = "a:80"\n', "item 1 cannot be used: host must be a host name without a port"),
    (PLAIN + ROUTE + 'path = "/"\n', "item 1 cannot be used: path"),
    (PLAIN + ROUTE + ROUTE, "item 2 is for the same requests as item 1"),
    (PLAIN + "routes = [1]\n", "item 1 must be a table"),
    (PLAIN + "eject_seconds = 90\n" + ROUTE, "proxy.shop.eject_seconds: is above eject_max_seconds"),
    (PLAIN + "eject_percent = 51\n" + ROUTE, "proxy.shop.eject_percent: must be a whole number from 0 to 50"),
    (PLAIN + "shutdown_seconds = 51\n" + ROUTE, "proxy.shop.shutdown_seconds: must be from 0 to 50 seconds"),
    (PLAIN + "retry = 1\n" + ROUTE, "proxy.shop.retry"),
    (PLAIN.replace("8080", "0") + ROUTE, "proxy.shop.listen: must be an IP address and a port"),
])  # fmt: skip
def test_mistakes_are_told_with_their_place(text: str, error: str) -> None:
    _, errors = read(text)
    assert len(errors) == 1, errors
    assert error in errors[0]


def test_the_narrowest_route_wins() -> None:
    routes = Routes((Route("all"), Route("cart", "/cart"), Route("deep", "/cart/deep/"), Route("sub", "/", "*.a.example"), Route("subsub", "/", "*.b.a.example"), Route("exact", "/x", "c.a.example")))  # fmt: skip
    found = [routes.find(host, path) for host, path in (
        (b"z", b"/"), (b"z", b"/cart"), (b"z", b"/cart/deep"), (b"z", b"/cart/deep/1"), (b"q.a.example", b"/cart"),
        (b"q.b.a.example", b"/"), (b"c.a.example", b"/x/1"), (b"c.a.example", b"/y"), (b"a.example", b"/"), (b"", b"*"),
    )]  # fmt: skip
    assert found == ["all", "cart", "cart", "deep", "sub", "subsub", "exact", "sub", "all", "all"]
    assert Routes(()).find(b"a", b"/") is None
