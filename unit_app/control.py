"""The paths that `Drainable` answers itself: which they are, who may use them, what they say. No I/O, no asyncio."""

from __future__ import annotations

import hmac
import json
import logging
import os
from collections.abc import Callable
from typing import NamedTuple

from .flag import Flag
from .peer import is_local
from .warmup import WarmUp

logger = logging.getLogger("unit_app")

_METHODS = {
    "drain": "POST", "undrain": "POST", "warm": "POST", "in-flight": "GET", "health/ready": "GET", "health/live": "GET",
}  # fmt: skip
_ORDERS = frozenset(("drain", "undrain", "warm"))
_PROXY_HEADERS = ("x-forwarded-for", "forwarded", "x-real-ip", "x-forwarded-host", "x-forwarded-proto", "via")
_BROWSER_HEADERS = ("origin", "sec-fetch-site")  # a page that somebody on this host looks at
_TITLES = {
    403: "Forbidden", 405: "Method Not Allowed", 500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip
PHRASES = {200: "OK", 202: "Accepted", **_TITLES}


class Answer(NamedTuple):
    """A whole answer; header names are in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def problem(status: int, detail: str, *more: tuple[str, str]) -> Answer:
    """An RFC 9457 body; `detail` says what to do."""
    value = {"type": "about:blank", "title": _TITLES[status], "status": status, "detail": detail}
    return _answer(status, value, "application/problem+json", *more)


def _answer(status: int, value: object, kind: str = "application/json", *more: tuple[str, str]) -> Answer:
    body = json.dumps(value).encode() + b"\n"
    headers = [("content-type", kind), ("content-length", str(len(body))), ("cache-control", "no-store"), *more]
    return Answer(status, headers, body)


# What a request gets after the flag. The connection header is added by those who know the server.
REFUSED = problem(503, "this instance is draining: send the request to another one", ("retry-after", "1"))


class Control:
    """Orders and questions about one flag."""

    def __init__(self, flag: Flag, warm_up: WarmUp, prefix: str, token: str | None) -> None:
        if not (prefix.startswith("/") and prefix.endswith("/")):
            raise ValueError(f"cannot use the prefix {prefix!r}: it must begin and end with a slash")
        self.flag, self.warm_up = flag, warm_up
        self._token = (token or os.environ.get("UNIT_APP_TOKEN", "")).encode()
        self._names = {prefix + name: name for name in _METHODS}

    def name_of(self, path: str) -> str | None:
        """Which of our paths it is: "drain", "health/ready", ...; None: the application's."""
        return self._names.get(path)

    def refusal(self, name: str, method: str, peer: str, header: Callable[[str], str | None]) -> Answer | None:
        """Why this request is not answered; None when it is. `header` gives a value by its name in lower case."""
        allowed = _METHODS[name]
        if method != allowed and not (method == "HEAD" and allowed == "GET"):
            return problem(405, f"use {allowed}", ("allow", "GET, HEAD" if allowed == "GET" else allowed))
        reason = self._suspicion(peer, header) if name in _ORDERS else None
        return problem(403, reason) if reason else None

    def _suspicion(self, peer: str, header: Callable[[str], str | None]) -> str | None:
        if any(header(name) is not None for name in _PROXY_HEADERS):
            return "orders are not taken through a proxy: send them to the unit itself"
        if any(header(name) is not None for name in _BROWSER_HEADERS):
            return "orders are not taken from browsers"
        if self._token:
            right = hmac.compare_digest((header("x-unit-token") or "").encode(), self._token)
            return None if right else "the header X-Unit-Token must hold the token in UNIT_APP_TOKEN"
        return None if is_local(peer) else "orders are taken from this host only, unless UNIT_APP_TOKEN is set"

    def drain(self) -> Answer:
        """Set the flag."""
        self.flag.set()
        return self._state(202)

    def undrain(self) -> Answer:
        """Clear the flag."""
        self.flag.clear()
        return self._state(200)

    def in_flight(self) -> Answer:
        """How much still runs."""
        return self._state(200)

    def _state(self, status: int) -> Answer:
        flag = self.flag
        return _answer(status, {"in_flight": flag.in_flight(), "draining": flag.is_set, "processes": flag.processes()})

    def live(self, healthy: bool) -> Answer:
        """The unit deserves to run, as the application's check found."""
        return _answer(200, {"live": True}) if healthy else problem(503, "the application's check says: not alive")

    def not_ready(self) -> Answer | None:
        """Why the unit is not ready whatever the application's check says. The first question starts the warm-up."""
        if self.flag.is_set:
            return problem(503, "draining")
        if not self.warm_up.is_over():
            self.warm_up.ask()
            failed = self.warm_up.verdict() is False
            return problem(503, "the warm-up failed: see the log" if failed else "warming up")
        return None

    def ready(self, healthy: bool) -> Answer:
        """The unit may get traffic, as the application's check found."""
        return _answer(200, {"ready": True}) if healthy else problem(503, "the application's check says: not ready")

    def warm(self, verdict: bool | None) -> Answer:
        """How the warm-up went: True, False (failed) or None (goes on)."""
        if verdict is False:
            return problem(500, "the warm-up failed: see the log; another POST tries again")
        return _answer(200 if verdict else 202, {"warm": bool(verdict)})
