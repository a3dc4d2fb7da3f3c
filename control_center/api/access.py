"""Who calls, and whether that is enough.

With access entries: whoever shows a token or a client certificate that one of them names. Without (then the API listens
on loopback only): everybody on this host may read, and root and the center's own user may do everything; the kernel
tells whose a connection is. A web page of another origin commands nothing either way, however well its browser is known
here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import os
import pwd
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from aiohttp import web

from supervisor.core.access import Principal, Role, by_certificate, by_token
from supervisor.peer import LOOPBACK_HOSTS, host_of, owner_of

from .problems import Refusal

log = logging.getLogger("unit-center.access")

QUIET_SECONDS = 60.0  # between two lines about the same peer
MAX_PEERS = 1024  # whose failures are counted apart
MAX_TOLD = 60  # lines within QUIET_SECONDS, from however many addresses they come
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="unit-center"'}
_SAFE = ("GET", "HEAD")


class Gate:
    """Recognises callers."""

    def __init__(self, principals: Sequence[Principal]) -> None:
        self._principals = tuple(principals)
        self._owners: WeakKeyDictionary[asyncio.BaseTransport, Principal] = WeakKeyDictionary()

    def admit(self, request: web.Request) -> Principal:
        """Who calls. Raises Refusal (401 `unauthenticated`, 403 `forbidden`)."""
        principal = self._known(request) if self._principals else self._local(request)
        if request.method not in _SAFE:
            _check_origin(request)
        return principal

    def _known(self, request: web.Request) -> Principal:
        header = request.headers.getall("Authorization", [])
        if header:
            scheme, _, token = header[0].partition(" ")
            if len(header) > 1 or scheme.lower() != "bearer" or not token.strip():
                raise _unauthenticated("send exactly one header of the form Authorization: Bearer TOKEN")
            principal = by_token(self._principals, token.strip())
            if principal is None:
                raise _unauthenticated("no access entry has this token")
            return principal
        names = certificate_names(_peer_certificate(request))
        if names and (principal := by_certificate(self._principals, names)):
            return principal
        if names:
            raise _unauthenticated(f"no access entry names the certificate of {', '.join(sorted(names))[:200]}")
        raise _unauthenticated("send Authorization: Bearer TOKEN, or show a client certificate that an entry names")

    def _local(self, request: web.Request) -> Principal:
        host = host_of(request.headers.get("Host", ""))
        if host and host not in LOOPBACK_HOSTS:  # or a page of that name reads what its own name was pointed at
            raise Refusal(403, "forbidden", f"this API is not served under the name {host[:100]}; use 127.0.0.1")
        transport = request.transport
        if transport is None:
            raise Refusal(408, "bad_request", "the connection is gone")
        known = self._owners.get(transport)
        if known is None:
            known = self._owners[transport] = _owner(transport)
        return known


def _owner(transport: asyncio.BaseTransport) -> Principal:
    theirs, ours = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    if not isinstance(theirs, tuple) or not ipaddress.ip_address(theirs[0]).is_loopback:
        raise Refusal(403, "forbidden", "without access entries this API answers to loopback only")
    uid = owner_of(f"{theirs[0]}:{theirs[1]}", f"{ours[0]}:{ours[1]}")
    if uid is None:
        return Principal("somebody", Role.READ)
    return Principal(_user(uid), Role.ADMIN if uid in (0, os.geteuid()) else Role.READ)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _check_origin(request: web.Request) -> None:
    """Browsers say of which page a request comes; the only one that may command is the one that is served here."""
    origin = request.headers.get("Origin")
    if origin is None:
        return
    try:
        place = urlsplit(origin).netloc.lower()
    except ValueError:
        place = ""
    if not place or place != request.headers.get("Host", "").lower():
        raise Refusal(403, "forbidden", "this API takes no commands from web pages of another origin")


def _unauthenticated(detail: str) -> Refusal:
    return Refusal(401, "unauthenticated", detail, _CHALLENGE)


def _peer_certificate(request: web.Request) -> Mapping[str, Any]:
    transport = request.transport
    return (transport.get_extra_info("peercert") if transport is not None else None) or {}


def certificate_names(certificate: Mapping[str, Any]) -> set[str]:
    """DNS and URI names and the common name of a verified certificate, in the form of `ssl.getpeercert`."""
    names = {value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "URI")}
    subject: Iterable[Any] = certificate.get("subject", ())
    names.update(value for part in subject for key, value in part if key == "commonName")
    return names


class Failures:
    """Counts what a peer failed to prove, and says when it is time to tell of it again."""

    def __init__(self) -> None:
        self._peers: OrderedDict[str, tuple[int, float]] = OrderedDict()  # -> untold, told at
        self._told: deque[float] = deque(maxlen=MAX_TOLD)  # when, of all of them

    def count(self, peer: str) -> int:
        """How many there were since it was last told; 0: not yet."""
        now = monotonic()
        untold, told_at = self._peers.pop(peer, (0, -math.inf))
        is_calm = len(self._told) < MAX_TOLD or now - self._told[0] >= QUIET_SECONDS
        is_time = is_calm and now - told_at >= QUIET_SECONDS
        if is_time:
            self._told.append(now)
        self._peers[peer] = (0, now) if is_time else (untold + 1, told_at)
        while len(self._peers) > MAX_PEERS:
            self._peers.popitem(last=False)
        return untold + 1 if is_time else 0
