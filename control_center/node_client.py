"""Asks nodes over HTTP: one session for all of them, the center's credentials, and bounds for whatever they answer.

It knows addresses, TLS and what can go wrong on the way; what is asked for is its caller's business. An answer counts
only if it comes from the very address that was asked, whole, and in the shape that unitd gives to answers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Generic, TypeVar

import aiohttp
from yarl import URL

from registry_client.errors import BadOption
from registry_client.model import Entry
from registry_client.options import Secret, Tls
from supervisor.core.model import TlsSpec

from .errors import NodeRefused, NodeUnreachable

log = logging.getLogger("unit-center.nodes")

MAX_ANSWER_BYTES = 8 * 1024 * 1024
MAX_PROBLEM_BYTES = 64 * 1024
KEEP_ALIVE_SECONDS = 45.0  # unitd closes an idle connection after a minute
_TRANSIENT = frozenset((408, 425, 429))  # said of the moment, not of the request
_CODES = {400: "bad_request", 401: "unauthenticated", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
          409: "busy", 410: "deadline_passed", 412: "generation_moved", 422: "replayed"}  # fmt: skip

Value = TypeVar("Value")


@dataclass(slots=True)
class _Sending:
    """How far a request has come."""

    sent: bool = False  # at least a part of it may have arrived
    reused: bool = False  # on a connection that the node may just have closed


class NodeClient:
    """Asks nodes at the addresses of their registry entries. Needs a running loop."""

    def __init__(self, token_file: str | None, tls: TlsSpec | None) -> None:
        spec = tls or TlsSpec()
        options = Tls(spec.verify, spec.ca, spec.cert, spec.key, spec.server_name)
        files = tuple(path for path in (spec.ca, spec.cert, spec.key) if path)
        self._server_name = spec.server_name
        self._context: _Fresh[ssl.SSLContext] = _Fresh(files, lambda: options.context("nodes"))
        self._token: _Fresh[str] | None = None
        if token_file is not None:
            self._token = _Fresh((token_file,), Secret(path=token_file).read)
        self._session = _session()

    async def ask(
        self, node: str, entry: Entry, method: str, path: str, body: Any = None, *, seconds: float
    ) -> tuple[int, Any]:
        """The status (2xx) and the JSON value that a node answers. Raises NodeRefused, NodeUnreachable.

        A request whose connection the node had closed while nothing was asked is sent once more: whatever is asked
        of nodes may come twice.
        """
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        sending = _Sending()
        try:
            async with asyncio.timeout(seconds):
                try:
                    return await self._ask(node, entry, method, path, data, sending)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                    if not sending.reused:
                        raise
                sending.reused = False
                return await self._ask(node, entry, method, path, data, sending)
        except TimeoutError as error:
            what = "it has not answered" if sending.sent else "no connection"
            raise NodeUnreachable(node, f"{what} within {seconds:g} s", may_have_counted=sending.sent) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NodeUnreachable(node, _reason(error), may_have_counted=sending.sent) from error

    async def open(self, node: str, entry: Entry, path: str, *, seconds: float) -> aiohttp.ClientResponse:
        """An answer (2xx) whose body the caller reads as it comes, and closes. Raises NodeRefused, NodeUnreachable."""
        sending = _Sending()
        try:
            async with asyncio.timeout(seconds):
                response = await self._request(node, entry, "GET", path, None, sending)
                if response.status < 300:
                    return response
                async with response:
                    raise _failure(node, response, await _read(node, response, MAX_PROBLEM_BYTES))
        except TimeoutError as error:
            raise NodeUnreachable(node, f"it has not answered within {seconds:g} s", may_have_counted=False) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NodeUnreachable(node, _reason(error), may_have_counted=False) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def _ask(
        self, node: str, entry: Entry, method: str, path: str, data: bytes | None, sending: _Sending
    ) -> tuple[int, Any]:
        async with await self._request(node, entry, method, path, data, sending) as response:
            body = await _read(node, response, MAX_ANSWER_BYTES)
            if response.status >= 300:
                raise _failure(node, response, body)
        try:
            return response.status, json.loads(body)
        except (ValueError, RecursionError) as error:
            reason = f"it answered {response.status} with something that is not JSON"
            raise NodeUnreachable(node, reason) from error

    async def _request(
        self, node: str, entry: Entry, method: str, path: str, data: bytes | None, sending: _Sending
    ) -> aiohttp.ClientResponse:
        secure = entry.metadata.get("scheme") == "https"
        if not secure and not _is_loopback(entry.address):
            # Whoever can write to the registry, or listens on the way, must not be told our token.
            reason = f"its entry says http://{entry.address}; beyond loopback only https is spoken"
            raise NodeUnreachable(node, reason, may_have_counted=False)
        return await self._session.request(
            method,
            _url(entry, secure, path),
            data=data,
            headers=self._headers(data),
            ssl=self._context.value() if secure else True,
            server_hostname=self._server_name if secure else None,
            allow_redirects=False,
            trace_request_ctx=sending,
        )

    def _headers(self, data: bytes | None) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.value()}"
        return headers


class _Fresh(Generic[Value]):
    """What files hold, made anew when one of them has changed; if that fails, the last good one stays."""

    __slots__ = ("_make", "_paths", "_stamps", "_value")

    def __init__(self, paths: tuple[str, ...], make: Callable[[], Value]) -> None:
        self._paths, self._make = paths, make
        self._stamps: object = None
        self._value: Value | None = None

    def value(self) -> Value:
        """Raises ValueError when there has never been a good one."""
        stamps = tuple(map(_stamp, self._paths))
        if self._value is None or stamps != self._stamps:
            self._stamps = stamps
            self._renew()
        assert self._value is not None
        return self._value

    def _renew(self) -> None:
        try:
            self._value = self._make()
        except (OSError, ValueError, BadOption) as error:
            reason = f"cannot read {self._paths[0]}: {error.strerror}" if isinstance(error, OSError) else str(error)
            if self._value is None:
                raise ValueError(reason) from error
            log.error("%s; what it held before is still used", reason)


def _session() -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig(trace_config_ctx_factory=lambda trace_request_ctx=None: trace_request_ctx)  # type: ignore[arg-type]
    trace.on_request_headers_sent.append(_on_sent)  # type: ignore[arg-type]
    trace.on_connection_reuseconn.append(_on_reused)  # type: ignore[arg-type]
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),  # callers bound their number
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        trace_configs=[trace],
        auto_decompress=False,
        headers={"User-Agent": "unit-center"},
    )


async def _on_sent(session: object, sending: _Sending, params: object) -> None:
    sending.sent = True


async def _on_reused(session: object, sending: _Sending, params: object) -> None:
    sending.reused = True


async def _read(node: str, response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body. Raises NodeUnreachable when it is longer."""
    chunks, size = [], 0
    while chunk := await response.content.readany():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            response.close()
            raise NodeUnreachable(node, f"it answered more than {limit} bytes")
    return b"".join(chunks)


def _failure(node: str, response: aiohttp.ClientResponse, body: bytes) -> NodeRefused | NodeUnreachable:
    """What an answer means that is no success."""
    status = response.status
    if status < 400:
        where = response.headers.get("Location", "nowhere")
        return NodeUnreachable(node, f"it answered with a redirect to {where[:200]}, which is not followed")
    return refusal(node, status, _object(body))


def refusal(node: str, status: int, problem: dict[str, Any]) -> NodeRefused | NodeUnreachable:
    """What a node's answer of 400 and more means: its own no, or that it (or something in its place) cannot answer."""
    detail = problem.get("detail")
    code = problem.get("code")
    if not isinstance(detail, str):
        return NodeUnreachable(node, f"it answered {status} without saying why, which unitd does not do")
    if status >= 500 or status in _TRANSIENT:
        return NodeUnreachable(node, f"it answered {status}: {detail}", may_have_counted=code != "shutting_down")
    return NodeRefused(node, status, code if isinstance(code, str) else _CODES.get(status, "bad_request"), detail)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _url(entry: Entry, secure: bool, path: str) -> URL:
    address = f"[{entry.address}]" if ":" in entry.address else entry.address
    return URL(f"{'https' if secure else 'http'}://{address}:{entry.port}{path}", encoded=True)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _reason(error: Exception) -> str:
    """What went wrong, as one sentence without an end."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not accepted: {_certificate_words(error.certificate_error)}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"cannot find the host {error.host}"
    if isinstance(error, aiohttp.ClientOSError) and isinstance(found := error.__cause__, ssl.SSLError):
        return f"TLS failed: {(found.reason or str(found)).replace('_', ' ').lower()}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return (os.strerror(error.os_error.errno) if error.os_error.errno else str(error.os_error)).lower()
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection before it answered"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "it closed the connection in the middle of its answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return "it answered something that is not HTTP"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


def _certificate_words(error: Exception) -> str:
    words = str(getattr(error, "verify_message", "") or error)
    return words[:1].lower() + words[1:].removesuffix(".")
