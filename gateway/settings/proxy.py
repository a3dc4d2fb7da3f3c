"""[proxy.NAME]: the embedded gateway, where it listens, which requests go to which service, and how patient it is."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any

from supervisor.config import network, values
from supervisor.config.document import Document
from supervisor.config.schema import SERVICE, Key
from supervisor.config.table import Problems, read_table
from supervisor.config.values import Invalid, describe
from supervisor.config.words import unknown

ANY_HOST = "*"
MAX_ROUTES = 1000


@dataclass(frozen=True, slots=True)
class Route:
    """Which requests go to a service. `host`: in lower case, `*`, or `*.example.com` for all names below."""

    service: str
    prefix: str = "/"
    host: str = ANY_HOST


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySpec:
    """One embedded gateway. `services` are those of its routes."""

    name: str
    listen: tuple[str, int]
    routes: tuple[Route, ...]
    services: tuple[str, ...]
    connect_seconds: float = 1.0  # to a unit
    response_seconds: float = 60.0  # from the end of the request to the first byte of the answer
    stall_seconds: float = 300.0  # silence of a unit within its answer
    head_seconds: float = 10.0  # for a request's head
    idle_seconds: float = 60.0  # of a client: between requests, and silence within one
    unit_idle_seconds: float = 4.0  # of kept-alive connections to units: shorter than theirs
    shutdown_seconds: float = 30.0  # for what is being answered when the gateway ends
    retries: int = 2  # on other servers
    max_connections: int = 10_000  # of clients
    max_head_bytes: int = 32 * 1024
    max_headers: int = 100
    trust_forwarded: bool = False  # clients are proxies whose X-Forwarded-For is believed
    eject_failures: int = 3  # in a row: no connection, no answer in time
    eject_errors: int = 5  # in a row, answers 502, 503, 504 and broken ones among them; 0: these do not count
    eject_seconds: float = 1.0  # the first time; then twice as long each time
    eject_max_seconds: float = 60.0
    eject_percent: int = 50  # of a service's servers, at most
    probe: str = "*"  # what an ejected server is asked before it comes back: OPTIONS *, or GET of a path


_HOST = re.compile(r"(?:\*|(?:\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\])", re.ASCII)
_SOME_TIME = values.duration(low=0.01, high=86400.0)


def _host(value: Any) -> str:
    """A host name in lower case, without a port."""
    text = value.lower() if isinstance(value, str) else ""
    if not _HOST.fullmatch(text):
        wanted = 'must be a host name without a port, "*", or such as "*.example.com"'
        raise Invalid(f"{wanted}, not {describe(value)}")
    return text


_PREFIX = values.matching(r'/[!"$->@-~]*', 'a path such as "/cart", of printable ASCII without spaces, "#" and "?"')
_PROBE = values.matching(r'\*|/[!"$-~]*', '"*" or a path such as "/healthz"')

ROUTE = {
    "service": Key("name of a service", "required", SERVICE["name"].convert, "service"),
    "prefix": Key("path", '"/"', _PREFIX, "prefix"),
    "host": Key("host name or pattern", '"*"', _host, "host"),
}


def _route(value: Any) -> Route:
    if not isinstance(value, dict):
        raise Invalid(f'must be a table such as {{ service = "cart" }}, not {describe(value)}')
    members = {}
    for name, member in value.items():
        if name not in ROUTE:
            raise Invalid(f"cannot be used: {name}: {unknown(name, [*ROUTE])}")
        try:
            members[name] = ROUTE[name].convert(member)
        except Invalid as error:
            raise Invalid(f"cannot be used: {name} {error}") from None
    if "service" not in members:
        raise Invalid("cannot be used: it names no service")
    return Route(**members)


def _routes(value: Any) -> tuple[Route, ...]:
    """All routes; two for the same requests are a mistake."""
    if not isinstance(value, list) or not value:
        raise Invalid(f"must be tables [[proxy.NAME.routes]], at least one, not {describe(value)}")
    if len(value) > MAX_ROUTES:
        raise Invalid(f"has {len(value)} routes; there may be {MAX_ROUTES}")
    routes = values.each(_route, value)
    seen: dict[tuple[str, str], int] = {}
    for position, route in enumerate(routes, 1):
        before = seen.setdefault((route.host, route.prefix), position)
        if before != position:
            raise Invalid(f"item {position} is for the same requests as item {before}")
    return tuple(routes)


_COUNT = values.integer(1, 1_000_000)
KEYS = {
    "listen": Key("address:port", "required", network.listen, "listen"),
    "routes": Key("list of tables", "required", _routes, "routes"),
    "connect_seconds": Key("duration", "1", _SOME_TIME, "connect_seconds"),
    "response_seconds": Key("duration", "60", _SOME_TIME, "response_seconds"),
    "stall_seconds": Key("duration", "300", _SOME_TIME, "stall_seconds"),
    "head_seconds": Key("duration", "10", _SOME_TIME, "head_seconds"),
    "idle_seconds": Key("duration", "60", _SOME_TIME, "idle_seconds"),
    "unit_idle_seconds": Key("duration", "4", values.duration(high=3600.0), "unit_idle_seconds"),
    "shutdown_seconds": Key("duration", "30", values.duration(high=50.0), "shutdown_seconds"),
    "retries": Key("integer", "2", values.integer(0, 100), "retries"),
    "max_connections": Key("integer", "10000", _COUNT, "max_connections"),
    "max_head_bytes": Key("size", '"32KB"', values.size(low=1024, high=1024 * 1024), "max_head_bytes"),
    "max_headers": Key("integer", "100", values.integer(1, 10_000), "max_headers"),
    "trust_forwarded": Key("boolean", "false", values.boolean, "trust_forwarded"),
    "eject_failures": Key("integer", "3", _COUNT, "eject_failures"),
    "eject_errors": Key("integer", "5", values.integer(0, 1_000_000), "eject_errors"),
    "eject_seconds": Key("duration", "1", _SOME_TIME, "eject_seconds"),
    "eject_max_seconds": Key("duration", "60", _SOME_TIME, "eject_max_seconds"),
    "eject_percent": Key("integer", "50", values.integer(0, 50), "eject_percent"),
    "probe": Key('"*" or path', '"*"', _PROBE, "probe"),
}
TABLES = {"routes": ROUTE}

_PLAIN = frozenset(field.name for field in fields(ProxySpec)) - {"name", "listen", "routes", "services"}


def read(document: Document, name: str, problems: Problems) -> ProxySpec:
    """What the table [proxy.NAME] says; what is missing or wrong goes to `problems`, and a harmless value stands in."""
    at = ("proxy", name)
    before = len(problems.errors)
    found = read_table(document, at, KEYS, problems)
    for key in ("listen", "routes"):
        if key not in found and len(problems.errors) == before:
            problems.add(document.error((*at, key), f"missing: an embedded gateway needs {key}"))
    routes = found.get("routes", ())
    spec = ProxySpec(
        name=name,
        listen=found.get("listen", ("127.0.0.1", 1)),
        routes=routes,
        services=_services(routes),
        **{key: value for key, value in found.items() if key in _PLAIN},
    )
    if spec.eject_seconds > spec.eject_max_seconds:
        reason = f"is above eject_max_seconds ({spec.eject_max_seconds:g} s)"
        problems.add(document.error((*at, "eject_seconds"), reason))
    return spec


def alone(listen: tuple[str, int], service: str) -> ProxySpec:
    """A gateway of one service, without a file."""
    return ProxySpec(name="serve", listen=listen, routes=(Route(service),), services=(service,))


def _services(routes: tuple[Route, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(route.service for route in routes))
