"""Questions to a Consul agent, and changes: requests, answers and what errors mean. It knows no entries, only records.

Changes go to the agent, which answers without asking the servers; questions about what is there go through it to the
servers. Consul's errors are plain text; a page of somebody in between is none of its answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from ...errors import RegistryError, RegistryRejected, RegistryUnavailable
from ...model import LeaseKey
from ...options import Secret, Tls
from ..connection import HttpAddress, HttpAnswer, HttpConnection
from .entries import Reader, Record, id_pattern

MAX_ANSWER_BYTES = 256 * 1024 * 1024

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Checks:
    """Checks of the servers, and the index of the state that they show."""

    value: list[Any]
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What all connections of a backend have in common."""

    address: HttpAddress
    timeout_seconds: float
    token: Secret | None
    tls: Tls | None
    prefix: str
    datacenter: str | None


class ConsulAgent:
    """One connection to the agent. Methods raise RegistryUnavailable and RegistryRejected ("cannot <verb>: ...")."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._closed = settings, False
        self._connection = HttpConnection(
            settings.address,
            max_answer_bytes=MAX_ANSWER_BYTES,
            headers=self._headers,
            tls=settings.tls,
            backend="consul",
        )

    def _headers(self) -> Iterable[tuple[str, str]]:
        if self._settings.token is None:
            return ()
        token = self._settings.token.read()
        if not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError("the token is no word of ASCII")
        return (("X-Consul-Token", token),)

    def close(self) -> None:
        """Close the connection for good; later calls raise RegistryRejected (`closed`)."""
        self._closed = True
        self._connection.close()

    async def ask(
        self,
        verb: str,
        method: str,
        path: str,
        value: Mapping[str, object] | None = None,
        timeout_seconds: float | None = None,
        *,
        resend: bool = True,
    ) -> HttpAnswer:
        """Any answer."""
        if self._closed:
            raise RegistryRejected(f"cannot {verb}: this client of the registry is closed", code="closed")
        body = b"" if method == "PUT" else None
        if value is not None:
            body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        limit = timeout_seconds or self._settings.timeout_seconds
        return await self._connection.request(verb, method, path, body, limit, resend=resend)

    async def change(
        self, verb: str, path: str, value: Mapping[str, object] | None = None, *, lenient: bool = False
    ) -> None:
        """Tell the agent something; `lenient` when it may not know what it is about."""
        answer = await self.ask(verb, "PUT", path, value)
        if not is_done(answer) and not (lenient and answer.status == 404 and not is_foreign(answer)):
            raise failure(verb, answer)

    async def remove(self, verb: str, identifier: str) -> None:
        """Delete a service, if the agent knows it. In the catalog it would come back."""
        await self.change(verb, f"/v1/agent/service/deregister/{identifier}", lenient=True)

    async def told(self, verb: str, path: str) -> dict[str, Any]:
        """A JSON object that the agent knows itself."""
        value = _json(verb, await self.ask(verb, "GET", path))
        if not isinstance(value, dict):
            raise RegistryUnavailable(f"cannot {verb}: the answer makes no sense (it is no object)")
        return value

    async def local(self, verb: str, what: str, condition: str) -> dict[str, Any]:
        """The `checks` or `services` of the agent, by id, for which the condition is true."""
        value = await self.told(verb, f"/v1/agent/{what}?{urlencode({'filter': condition})}")
        name = "CheckID" if what == "checks" else "ID"
        if not all(isinstance(item, dict) and item.get(name) == key for key, item in value.items()):
            raise RegistryUnavailable(f"cannot {verb}: the answer makes no sense (these are no {what})")
        return value

    async def itself(self, verb: str) -> dict[str, Any]:
        """The agent's configuration: Datacenter, NodeName, Version."""
        value = await self.told(verb, "/v1/agent/self")
        return read(verb, lambda: dict(value["Config"]))

    async def query(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str],
        timeout_seconds: float | None = None,
        *,
        resend: bool = True,
    ) -> Checks:
        """A list that the servers know."""
        if self._settings.datacenter is not None:
            query = {**query, "dc": self._settings.datacenter}
        answer = await self.ask(verb, "GET", f"{path}?{urlencode(query)}", None, timeout_seconds, resend=resend)
        value = _json(verb, answer)
        if not isinstance(value, list):
            raise RegistryUnavailable(f"cannot {verb}: the answer makes no sense (it is no list)")
        index = read(verb, lambda: int(answer.headers["x-consul-index"]))
        if index <= 0:
            raise RegistryUnavailable(f"cannot {verb}: the servers of the registry have no state yet")
        return Checks(value, index)

    async def held(self, verb: str, key: LeaseKey, reader: Reader) -> tuple[list[Record], int]:
        """All generations of the instance that the servers know, and the index of that state."""
        condition = f'ServiceID matches "{id_pattern(self._settings.prefix, key.service, key.instance)}"'
        checks = await self.query(
            verb, f"/v1/health/checks/{quoted(key.service)}", {"consistent": "", "filter": condition}
        )
        return read(verb, lambda: reader.records(checks.value)), checks.index

    async def epoch(self, verb: str) -> str:
        """Names this life of the servers: the oldest of them, whose id goes with its data."""
        answer = await self.query(verb, "/v1/catalog/service/consul", {})
        servers = read(verb, lambda: [(int(item["CreateIndex"]), str(item["ID"])) for item in answer.value])
        if not servers:
            raise RegistryUnavailable(
                f"cannot {verb}: Consul does not show its servers (it has just started, or the token lacks "
                "service:read for the service consul, or node:read)"
            )
        index, identifier = min(servers)
        return f"{identifier}-{index}"


def quoted(name: str) -> str:
    """A name as part of a path."""
    return quote(name, safe="", errors="replace")  # no entry's name has anything that must be replaced


def _json(verb: str, answer: HttpAnswer) -> Any:
    if answer.status != 200:
        raise failure(verb, answer)
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise RegistryUnavailable(f"cannot {verb}: the answer is not JSON") from error


def read(verb: str, reader: Callable[[], _T]) -> _T:
    """What a good status promised; anything else is not the answer of Consul."""
    try:
        return reader()
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise RegistryUnavailable(f"cannot {verb}: the answer makes no sense ({error!r})") from error


def is_done(answer: HttpAnswer) -> bool:
    """Whether the agent has done what it was told to: it says nothing then."""
    return answer.status == 200 and answer.body.strip() in (b"", b"null", b"true")


def is_foreign(answer: HttpAnswer) -> bool:
    """Whether an error is a page of somebody in between."""
    text = answer.body[:300].decode(errors="replace").strip()
    return text.startswith("<") or not text.isprintable() or not text


def failure(verb: str, answer: HttpAnswer) -> RegistryError:
    """The exception for an answer that is an error."""
    if is_foreign(answer) or answer.status == 200:
        return RegistryUnavailable(f"cannot {verb}: HTTP status {answer.status}, not from Consul")
    text = answer.body[:300].decode(errors="replace").strip()
    if "Permission denied" in text or "ACL not found" in text:  # 403, or 500 when it comes from another server
        return RegistryRejected(f"cannot {verb}: {text}", code="permission_denied")
    if answer.status in (400, 413):
        return RegistryRejected(f"cannot {verb}: {text}", code="bad_request")
    return RegistryUnavailable(f"cannot {verb}: {text}")
