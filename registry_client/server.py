"""The embedded registry over HTTP, without a transport: a request's parts in, a response out.

Whoever serves it (unitd, the control center, a test) reads requests of at most MAX_BODY_BYTES, hands them to
`RegistryApi.handle`, and cancels the call when the client goes away. Errors are RFC 9457 problems with one more
member, `code`, which names the cause for programs: a client must take `no_such_entry`, not any 404, for "not there".

    GET    /v1/registry/services[/{service}]                 snapshot; ?since=, &epoch= and &wait= long-poll
    GET    /v1/registry/services/{service}/{instance}        the entry
    PUT    /v1/registry/services/{service}/{instance}        {"entry": {...}, "ttl_seconds": 10}
    PATCH  /v1/registry/services/{service}/{instance}        {"entry": {...}}, does not prolong the lease
    DELETE /v1/registry/services/{service}/{instance}        ?generation=
    POST   /v1/registry/renew                                {"leases": [{"service", "instance", "generation"}, ...]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from .backends.embedded import EmbeddedRegistry
from .errors import LeaseLost, RegistryRejected, RegistryUnavailable
from .model import Entry, LeaseKey, Snapshot

PREFIX = "/v1/registry"
MAX_BODY_BYTES = 1024 * 1024
MAX_LEASES = 5000
MAX_WAIT_SECONDS = 60.0

_TITLES = {400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 409: "Conflict", 413: "Content Too Large",
           503: "Service Unavailable"}  # fmt: skip
_STATUS_BY_CODE = {"stale_generation": 409, "closed": 503}


@dataclass(frozen=True, slots=True)
class Response:
    """What to send; `headers` are (name, value) besides Content-Type and Content-Length."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class _Refused(Exception):
    """The request is wrong in a way that only HTTP knows."""

    def __init__(self, status: int, code: str, detail: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self.status, self.code, self.headers = status, code, headers
        super().__init__(detail)


class RegistryApi:
    """Answers requests about one registry."""

    def __init__(self, registry: EmbeddedRegistry) -> None:
        self._registry = registry
        self._bodies: dict[str | None, tuple[Snapshot, bytes]] = {}  # of the latest revision only

    async def handle(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> Response:
        """The response to one request; `path` as it was received (percent-encoded), `query` decoded."""
        try:
            return await self._route(method, path, query, body)
        except _Refused as error:
            return _problem(error.status, error.code, str(error), headers=error.headers)
        except RegistryRejected as error:
            more = {"key": error.key, "held_generation": error.held_generation}
            return _problem(_STATUS_BY_CODE.get(error.code, 400), error.code, str(error), more)
        except LeaseLost as error:
            return _problem(404, "lease_lost", f"{error}; register it again")
        except RegistryUnavailable as error:
            return _problem(503, "unavailable", str(error), headers=(("Retry-After", "1"),))

    async def _route(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> Response:
        if len(body) > MAX_BODY_BYTES:
            raise _Refused(413, "too_large", f"send at most {MAX_BODY_BYTES} bytes at once")
        match _parts(path):
            case ["renew"]:
                _allow(method, "POST")
                return self._renew(body)
            case ["services"]:
                _allow(method, "GET")
                return await self._list(None, query)
            case ["services", service] if service:
                _allow(method, "GET")
                return await self._list(service, query)
            case ["services", service, *rest] if service and "/".join(rest):
                return self._entry(method, service, "/".join(rest), query, body)
        raise _Refused(404, "no_such_path", f"there is no {path[:200]}; see {PREFIX}/services")

    async def _list(self, service: str | None, query: Mapping[str, str]) -> Response:
        since = _integer(query.get("since", "0"), "since")
        wait = min(_seconds(query.get("wait", "0")), MAX_WAIT_SECONDS)
        if wait and "since" in query:
            snapshot = await self._registry.changed(service, since, query.get("epoch"), wait)
        else:
            snapshot = self._registry.list(service)
        return Response(200, self._encoded(snapshot))

    def _encoded(self, snapshot: Snapshot) -> bytes:
        """The body, made once for all who wait for the same change."""
        known = self._bodies.get(snapshot.service)
        if known is not None and known[0] is snapshot:
            return known[1]
        if any(other.revision != snapshot.revision for other, _ in self._bodies.values()):
            self._bodies.clear()
        body = _encode(snapshot.to_json())
        if snapshot.entries:  # names without entries are anybody's invention and would fill the memory
            self._bodies[snapshot.service] = snapshot, body
        return body

    def _entry(self, method: str, service: str, instance: str, query: Mapping[str, str], body: bytes) -> Response:
        _allow(method, "GET", "PUT", "PATCH", "DELETE")
        if method == "GET":
            return self._get(service, instance)
        if method == "DELETE":
            return self._deregister(service, instance, query)
        value = _object(body)
        entry = Entry.from_json(value.get("entry"))
        if (entry.service, entry.instance) != (service, instance):
            raise _Refused(400, "bad_request", "the entry's service and instance must be those of the path")
        if method == "PATCH":
            self._registry.update(entry)
            return self._done({})
        grant = self._registry.register(entry, value.get("ttl_seconds"))  # type: ignore[arg-type]  # it looks
        return self._done({"ttl_seconds": grant.ttl_seconds})

    def _get(self, service: str, instance: str) -> Response:
        entry = self._registry.get(service, instance)
        if entry is None:
            detail = f"{instance} of {service} is not registered; {PREFIX}/services lists what is"
            raise _Refused(404, "no_such_entry", detail)
        return Response(200, _encode(entry.to_json()))

    def _deregister(self, service: str, instance: str, query: Mapping[str, str]) -> Response:
        if "generation" not in query:
            raise _Refused(400, "bad_request", "say ?generation=, the one of the entry that you mean")
        key = LeaseKey(service, instance, _integer(query["generation"], "generation"))
        return self._done({"removed": self._registry.deregister(key)})

    def _renew(self, body: bytes) -> Response:
        leases = _object(body).get("leases")
        if not isinstance(leases, list):
            raise _Refused(400, "bad_request", "'leases' must be a list")
        if len(leases) > MAX_LEASES:
            raise _Refused(413, "too_large", f"renew at most {MAX_LEASES} leases at once")
        lost = self._registry.renew([LeaseKey.from_json(lease) for lease in leases])
        return self._done({"lost": [key.to_json() for key in lost]})

    def _done(self, value: dict[str, object]) -> Response:
        value["epoch"], value["revision"] = self._registry.epoch, self._registry.revision
        return Response(200, _encode(value))


def _parts(path: str) -> list[str]:
    if not path.startswith(PREFIX + "/"):
        return []
    try:
        return [unquote(part, errors="strict") for part in path[len(PREFIX) + 1 :].split("/")]
    except UnicodeDecodeError as error:
        raise _Refused(400, "bad_request", "the path must be percent-encoded UTF-8") from error


def _allow(method: str, *allowed: str) -> None:
    if method not in allowed:
        names = ", ".join(allowed)
        raise _Refused(405, "bad_method", f"use {names} here, not {method[:20]}", (("Allow", names),))


def _integer(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise _Refused(400, "bad_request", f"{name!r} must be a whole number, not {text[:40]!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:  # this way round for the sake of NaN
        raise _Refused(400, "bad_request", f"'wait' must be a number of seconds, not {text[:40]!r}")
    return seconds


def _object(body: bytes) -> dict[str, object]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _Refused(400, "bad_request", f"the body must be JSON ({error})") from error
    if not isinstance(value, dict):
        raise _Refused(400, "bad_request", "the body must be a JSON object")
    return value


def _encode(value: Mapping[str, object]) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="backslashreplace") + b"\n"  # a lone surrogate of a request becomes its JSON escape


def _problem(
    status: int,
    code: str,
    detail: str,
    more: Mapping[str, object] | None = None,
    headers: tuple[tuple[str, str], ...] = (),
) -> Response:
    value = {
        "type": "about:blank",
        "title": _TITLES[status],
        "status": status,
        "detail": detail,
        "code": code,
    }
    return Response(status, _encode(value | dict(more or {})), "application/problem+json", headers)
