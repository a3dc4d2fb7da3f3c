"""The backend for a registry behind HTTP: unitd's embedded one, or the control center's (see server.py).

Renewals and registrations have a connection of their own, other calls another, each watch one more. An answer
that is no registry's (a proxy's error page, another program on the port) is never taken for "not there".
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from ..backend import LATENESS_SECONDS, MIN_TTL_SECONDS, Capability, Inspection, granted_ttl
from ..errors import LeaseLost, RegistryError, RegistryRejected, RegistryUnavailable, Unsupported
from ..model import Entry, Grant, LeaseKey, Snapshot
from ..options import Secret, Tls
from .connection import HttpAddress, HttpConnection
from .retry import after_failure, is_newer, pause

MAX_ANSWER_BYTES = 32 * 1024 * 1024

_BATCH = 500  # leases in one request: far below the server's limits
_COALESCE_SECONDS = 0.05  # between two answers of a watch; changes in between come as one
_IDLE_PAUSE_SECONDS = 1.0

_log = logging.getLogger("registry_client")
_T = TypeVar("_T")


class HttpBackend:
    """The Backend over `http[s]://host[:port][/prefix]` or `unix:///path/of.sock`. Raises BadOption for other urls."""

    name = "http"
    capabilities = frozenset(Capability)

    def __init__(
        self,
        url: str,
        *,
        token: str | Secret | None = None,
        tls: Tls | None = None,
        timeout_seconds: float = 2.0,
        watch_wait_seconds: float = 30.0,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        if not timeout_seconds > 0 or not watch_wait_seconds > 0:
            raise Unsupported("cannot use the http backend: its timeouts must be above 0")
        self.timeout_seconds, self._watch_wait_seconds = timeout_seconds, watch_wait_seconds
        self._address, self._max_answer_bytes = HttpAddress.parse_all("http", url), max_answer_bytes
        self._token, self._tls = Secret.of(token), tls
        self._connections: set[HttpConnection] = set()
        self._renewals, self._calls = self._new_connection(), self._new_connection()
        self._closed = asyncio.Event()

    async def register(self, entry: Entry, ttl_seconds: float) -> Grant:
        """See `Backend.register`."""
        verb = f"register {entry.instance} of {entry.service}"
        body = {"entry": entry.to_json(), "ttl_seconds": ttl_seconds}
        value = await self._call(self._renewals, verb, "PUT", _path(entry.service, entry.instance), body)
        return _read(verb, lambda: Grant(_number(value["ttl_seconds"]), int(value["revision"])))

    async def renew(self, keys: Sequence[LeaseKey]) -> frozenset[LeaseKey]:
        """See `Backend.renew`. When only some batches of many keys were answered, the whole call fails."""
        lost: set[LeaseKey] = set()
        for start in range(0, len(keys), _BATCH):
            lost |= await self._renew_batch(keys[start : start + _BATCH])
        return frozenset(lost)

    async def _renew_batch(self, keys: Sequence[LeaseKey]) -> frozenset[LeaseKey]:
        verb = f"renew {len(keys)} lease" + "s" * (len(keys) != 1)
        body = {"leases": [key.to_json() for key in keys]}
        value = await self._call(self._renewals, verb, "POST", "/v1/registry/renew", body)
        lost = _read(verb, lambda: frozenset(map(LeaseKey.from_json, value["lost"])))
        if not lost.issubset(keys):
            raise RegistryUnavailable(f"cannot {verb}: the answer names leases that nobody asked about")
        return lost

    async def update(self, entry: Entry) -> None:
        """See `Backend.update`."""
        verb = f"update {entry.instance} of {entry.service}"
        body = {"entry": entry.to_json()}
        await self._call(self._calls, verb, "PATCH", _path(entry.service, entry.instance), body)

    async def deregister(self, key: LeaseKey) -> bool:
        """See `Backend.deregister`. False also when the answer to a first attempt was lost with its connection."""
        verb = f"deregister {key.instance} of {key.service}"
        path = _path(key.service, key.instance) + f"?generation={key.generation}"
        value = await self._call(self._calls, verb, "DELETE", path)
        return _read(verb, lambda: _boolean(value["removed"]))

    async def get(self, service: str, instance: str) -> Entry | None:
        """See `Backend.get`."""
        verb = f"read {instance} of {service}"
        try:
            value = await self._call(self._calls, verb, "GET", _path(service, instance))
        except RegistryRejected as error:
            if error.code == "no_such_entry":
                return None
            raise
        entry = _read(verb, lambda: Entry.from_json(value))
        if (entry.service, entry.instance) != (service, instance):
            raise RegistryUnavailable(f"cannot {verb}: the answer is about {entry.instance} of {entry.service}")
        return entry

    async def list(self, service: str | None = None) -> Snapshot:
        """See `Backend.list`."""
        return await self._snapshot(self._calls, service, {}, self.timeout_seconds)

    async def watch(
        self, service: str | None = None, since: int = 0, epoch: str | None = None
    ) -> AsyncGenerator[Snapshot, None]:
        """See `Backend.watch`."""
        self._check_open("watch the registry")
        connection, failures, answered = self._new_connection(), 0, False
        try:
            while not self._closed.is_set():
                asked_at = time.monotonic()
                try:
                    snapshot = await self._poll(connection, service, since, epoch)
                except RegistryError as error:
                    failures = await after_failure(error, self._closed, answered=answered, failures=failures)
                    continue
                if failures:
                    _log.info("the watch of %s goes on", connection.address.url)
                failures, answered = 0, True
                gap = _COALESCE_SECONDS
                if is_newer(snapshot, since, epoch):
                    since, epoch = snapshot.revision, snapshot.epoch
                    yield snapshot
                elif time.monotonic() - asked_at < self._watch_wait_seconds / 2:
                    gap = _IDLE_PAUSE_SECONDS  # somebody in between does not let it wait
                await pause(gap - (time.monotonic() - asked_at), self._closed)
        finally:
            connection.close()
            self._connections.discard(connection)

    async def inspect(self, ttl_seconds: float) -> Inspection:
        """See `Backend.inspect`."""
        verb, granted = "inspect the registry", granted_ttl(ttl_seconds)
        self._check_open(verb)
        answer = await self._calls.request(verb, "GET", _path("unitd", "-"), None, self.timeout_seconds)
        if answer.status != 200:
            error = _failure(verb, answer.status, answer.body)
            if not isinstance(error, RegistryRejected) or error.code != "no_such_entry":
                raise error
        return Inspection(granted, clock=answer.date, clock_resolution_seconds=1.0)

    def removal_bound(self, ttl_seconds: float) -> float:
        """See `Backend.removal_bound`."""
        return max(ttl_seconds, MIN_TTL_SECONDS) + LATENESS_SECONDS

    async def close(self) -> None:
        """See `Backend.close`."""
        self._closed.set()
        for connection in self._connections:
            connection.close()
        await asyncio.sleep(0)  # lets the loop close the sockets

    # -- requests ------------------------------------------------------------------------------------------------

    def _new_connection(self) -> HttpConnection:
        connection = HttpConnection(
            self._address, max_answer_bytes=self._max_answer_bytes, headers=self._headers, tls=self._tls
        )
        self._connections.add(connection)
        return connection

    def _headers(self) -> Iterable[tuple[str, str]]:
        return () if self._token is None else (("Authorization", f"Bearer {self._token.read()}"),)

    def _check_open(self, verb: str) -> None:
        if self._closed.is_set():
            raise RegistryRejected(f"cannot {verb}: this client of the registry is closed", code="closed")

    async def _call(
        self,
        connection: HttpConnection,
        verb: str,
        method: str,
        path: str,
        value: Mapping[str, object] | None = None,
        timeout_seconds: float | None = None,
    ) -> Any:
        self._check_open(verb)
        body = None if value is None else _encode(value)
        limit = self.timeout_seconds if timeout_seconds is None else timeout_seconds
        answer = await connection.request(verb, method, path, body, limit)
        if not 200 <= answer.status < 300:
            raise _failure(verb, answer.status, answer.body)
        return _decode(verb, answer.body)

    async def _snapshot(
        self, connection: HttpConnection, service: str | None, query: dict[str, str], timeout_seconds: float
    ) -> Snapshot:
        verb = "list all services" if service is None else f"list {service}"
        path = "/v1/registry/services" + ("" if service is None else f"/{_quoted(service)}")
        path += f"?{urlencode(query)}" if query else ""
        value = await self._call(connection, verb, "GET", path, None, timeout_seconds)
        snapshot = _read(verb, lambda: Snapshot.from_json(value))
        if snapshot.service != service:
            raise RegistryUnavailable(f"cannot {verb}: the answer is about {snapshot.service or 'all services'}")
        return snapshot

    async def _poll(self, connection: HttpConnection, service: str | None, since: int, epoch: str | None) -> Snapshot:
        query = {"since": str(since), "wait": f"{self._watch_wait_seconds:g}"}
        if epoch is not None:
            query["epoch"] = epoch
        return await self._snapshot(connection, service, query, self._watch_wait_seconds + self.timeout_seconds)


def _path(service: str, instance: str) -> str:
    return f"/v1/registry/services/{_quoted(service)}/{_quoted(instance)}"


def _quoted(name: str) -> str:
    return quote(name, safe="", errors="replace")  # no entry's name has anything that must be replaced


def _encode(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace")


def _decode(verb: str, answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise RegistryUnavailable(f"cannot {verb}: the answer is not JSON") from error


def _read(verb: str, reader: Callable[[], _T]) -> _T:
    """What a good status promised; anything else is not the answer of a registry."""
    try:
        return reader()
    except (RegistryRejected, KeyError, TypeError, ValueError) as error:
        raise RegistryUnavailable(f"cannot {verb}: the answer makes no sense ({error})") from error


def _number(value: object) -> float:
    if type(value) not in (int, float) or not 0 < value < math.inf:  # type: ignore[operator]  # it is a number here
        raise TypeError("not a number above 0")
    return float(value)  # type: ignore[arg-type]


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("not a boolean")
    return value


def _failure(verb: str, status: int, answer: bytes) -> RegistryError:
    """The exception for an answer that is an error."""
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        value = None
    problem = value if isinstance(value, dict) else {}
    code, detail = problem.get("code"), problem.get("detail")
    reason = detail[:500] if isinstance(detail, str) else f"HTTP status {status}, not from a registry"
    if status >= 500 or status in (408, 429):
        return RegistryUnavailable(f"cannot {verb}: {reason}")
    if (status, code) == (404, "lease_lost"):
        return LeaseLost(f"cannot {verb}: it is not registered")
    return _rejection(verb, status, reason, problem)


def _rejection(verb: str, status: int, reason: str, problem: Mapping[str, Any]) -> RegistryRejected:
    code, key, held = problem.get("code"), problem.get("key"), problem.get("held_generation")
    return RegistryRejected(
        f"cannot {verb}: {reason}",
        code=code if isinstance(code, str) else f"http_{status}",
        key=key if isinstance(key, str) else "",
        held_generation=held if isinstance(held, int) else None,
    )
