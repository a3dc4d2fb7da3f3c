"""How a unit is asked or told something, from TOML to `HttpCall` and `Hook`; placeholders were replaced before.

Knows shapes and spellings. Whether a call has a port to go to is `drain.py`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..core.model import Hook, HttpCall, InFlight
from . import values
from .values import Converter, Invalid, describe
from .words import unknown

MAX_CALLS = 100

_CALL = re.compile(r"(?:([A-Z]{1,20}) +)?(/\S*)", re.ASCII)
_PATH = values.matching(r'/[!"$-~]*', 'a path such as "/drain", of printable ASCII without spaces and "#"')
_METHOD = values.matching(r"[A-Z]{1,20}", 'a method such as "POST"')
_HEADERS = values.texts(
    r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", "names of headers hold letters, digits and dashes", '{ X-Warmup = "1" }'
)
_FRAMING = ("content-length", "transfer-encoding", "connection", "upgrade", "expect", "te", "trailer")
_SOME_TIME = values.duration(low=0.001, high=3600.0)


def http_call(value: Any) -> HttpCall:
    """A request: "METHOD /path", "/path" (GET), or a table of method, path, port and headers."""
    if isinstance(value, dict):
        members = _members(value, _CALL_KEYS, '{ path = "/drain", port = 8080 }')
        if "path" not in value:
            raise Invalid("missing: a request needs a path", "path")
        return HttpCall(**{"method": "GET", **members})
    match = _CALL.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Invalid(f'must be a request such as "POST /drain", or a table with its path, not {describe(value)}')
    return HttpCall(match[1] or "GET", _PATH(match[2]))


def http_calls(value: Any) -> tuple[HttpCall, ...]:
    """A list of requests; one may be in it more than once."""
    if not isinstance(value, list):
        raise Invalid(f'must be a list such as ["GET /warm"], not {describe(value)}')
    if len(value) > MAX_CALLS:
        raise Invalid(f"has {len(value)} requests; there may be {MAX_CALLS}")
    return tuple(values.each(http_call, value))


def hook(value: Any) -> Hook:
    """One way to tell a unit something: http, signal or exec; and how long that may take."""
    members = _members(value, _HOOK_KEYS, '{ http = "POST /drain" } or { signal = "USR1" }')
    ways = [key for key in value if key in _WAYS]
    if len(ways) != 1:
        found = f"not {' and '.join(ways)}" if ways else "none is given"
        raise Invalid(f"must have exactly one of {', '.join(_WAYS)}: {found}", *ways[1:2])
    if "signal" in members and "timeout" in members:
        raise Invalid("a signal takes no time", "timeout")
    return Hook(**{_WAYS.get(key, key): item for key, item in members.items()})


def in_flight(value: Any) -> tuple[InFlight, HttpCall | None]:
    """ "connections", "gateways", "none", or a table with the request that tells."""
    if isinstance(value, dict):
        members = _members(value, {"http": http_call}, '{ http = "/inflight" }')
        if not members:
            raise Invalid(f"must be {_IN_FLIGHT}: it is empty")
        return InFlight.HTTP, members["http"]
    words = {each.value: each for each in (InFlight.CONNECTIONS, InFlight.GATEWAYS, InFlight.NONE)}
    if not isinstance(value, str) or value not in words:
        raise Invalid(f"must be {_IN_FLIGHT}, not {describe(value)}")
    return words[value], None


def _members(value: Any, known: Mapping[str, Converter], example: str) -> dict[str, Any]:
    """The converted values of a table within a value."""
    if not isinstance(value, dict):
        raise Invalid(f"must be a table such as {example}, not {describe(value)}")
    read = {}
    for name, item in value.items():
        if name not in known:
            raise Invalid(unknown(name, known), name)
        try:
            read[name] = known[name](item)
        except Invalid as error:
            raise Invalid(str(error), name, *error.inside) from None
    return read


def _port(value: Any) -> int:
    """A port; text too, for what stood there may have been a placeholder."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,5}", value, re.ASCII):
        value = int(value)
    return int(values.integer(1, 65535)(value))


def _headers(value: Any) -> tuple[tuple[str, str], ...]:
    pairs = _HEADERS(value)
    for name, text in pairs:
        if name.lower() in _FRAMING:
            raise Invalid("cannot be chosen: it is part of how requests are sent", name)
        if not text.isprintable():
            raise Invalid("must be printable, on one line", name)
    return tuple(sorted(pairs))


def _signal(value: Any) -> int:
    number = values.signal_number(value)
    if number in (9, 19):
        raise Invalid("must be a signal that a program can answer; KILL and STOP it cannot")
    return number


def _argv(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise Invalid(f'must be a list of strings such as ["/bin/drain-it", "{{unit}}"], not {describe(value)}')
    return values.command(value)


_IN_FLIGHT = '"connections", "gateways", "none", or a table such as { http = "/inflight" }'
_CALL_KEYS: Mapping[str, Converter] = {"method": _METHOD, "path": _PATH, "port": _port, "headers": _headers}
_HOOK_KEYS: Mapping[str, Converter] = {"http": http_call, "signal": _signal, "exec": _argv, "timeout": _SOME_TIME}
_WAYS = {"http": "http", "signal": "signal", "exec": "argv"}  # key -> field of Hook
