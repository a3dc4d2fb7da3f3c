"""A small HTTP/1.1 client: one request, one connection, one deadline for all of it.

It asks what runs on this host: redirects are answers, there are no proxies, cookies or retries. h11 knows the
protocol; sockets are used directly, so that nothing stays open when a request is late or cancelled.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import h11

from ..errors import SupervisorError
from ..installation import version
from .connect import OnConnected, connect, reason_of
from .tls import TlsFailed, TlsOptions, encrypt

MAX_BODY_BYTES = 64 * 1024
_READ_BYTES = 16 * 1024
_MAX_HEAD_BYTES = 64 * 1024
_FRAMING = frozenset(("connection", "content-length", "transfer-encoding"))  # ours alone: they say where a request ends
_CLOSED = "it closed the connection before it answered"
_CLOSED_WITHIN = "it closed the connection in the middle of its answer"
_NOT_HTTP = "answered something that is not HTTP"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A final answer. Names of headers are in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes  # at most as many bytes as were asked for
    truncated: bool  # there was more of it


class HttpFailed(SupervisorError):
    """There was no answer; `reason` says why in one sentence without an end."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def request(
    address: str,
    port: int,
    method: str,
    target: str,
    *,
    host: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    tls: TlsOptions | None = None,
    timeout_seconds: float,
    max_body_bytes: int = MAX_BODY_BYTES,
    on_connected: OnConnected | None = None,
) -> HttpAnswer:
    """Ask once, over https if `tls` is given, and close the connection. Raises HttpFailed.

    `target` is a path with its query, percent-encoded. `host` is what the Host header says (and, with TLS, the name
    that is asked for), the address if it is None. `headers` replace those that would be sent without them, except for
    Connection, Content-Length and Transfer-Encoding. Of a longer body than `max_body_bytes` the rest is not awaited.
    """
    named = [(name, value) for name, value in headers if name.lower() not in _FRAMING]
    host = next((value for name, value in named if name.lower() == "host"), host)
    exchange = _Exchange(max_body_bytes)
    data = exchange.encode(method, target, _all_headers(_host(host, address, port, tls), named, method, body), body)
    try:
        async with asyncio.timeout(timeout_seconds) as deadline:
            with await connect(address, port, on_connected) as connection:
                stream = await _stream(connection, tls, host or address, exchange)
                return await exchange.run(stream, data)
    except TlsFailed as error:
        raise HttpFailed(error.reason) from error
    except OSError as error:  # TimeoutError is one, the kernel's as well as ours
        late = isinstance(error, TimeoutError) and deadline.expired()
        raise HttpFailed(f"{exchange.awaited} within {timeout_seconds:g} s" if late else reason_of(error)) from error


class _Stream(Protocol):
    async def send(self, data: bytes) -> None: ...
    async def receive(self) -> bytes: ...


class _Plain:
    """An unencrypted connection."""

    __slots__ = ("_connection",)

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._connection, data)

    async def receive(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self._connection, _READ_BYTES)


async def _stream(connection: socket.socket, tls: TlsOptions | None, host: str, exchange: _Exchange) -> _Stream:
    if tls is None:
        stream: _Stream = _Plain(connection)
    else:
        exchange.awaited = "no TLS handshake"
        stream = await encrypt(connection, tls, _without_port(host))
    exchange.awaited = "no answer"
    return stream


class _Exchange:
    """The one request and the one answer of a connection."""

    __slots__ = ("_at_end", "_max_body_bytes", "_start", "_state", "awaited")

    def __init__(self, max_body_bytes: int) -> None:
        self._state = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self._max_body_bytes = max_body_bytes
        self._start = b""  # of the answer, as much as tells whether it is HTTP
        self._at_end = False
        self.awaited = "no connection"  # what did not come when the time is over

    def encode(self, method: str, target: str, headers: list[tuple[str, str]], body: bytes) -> bytes:
        """The whole request. Raises HttpFailed where it cannot be put into HTTP."""
        try:
            events = (h11.Request(method=method, target=target, headers=headers), h11.Data(data=body))
            return b"".join(self._state.send(event) or b"" for event in (*events, h11.EndOfMessage()))
        except (h11.LocalProtocolError, UnicodeError) as error:
            raise HttpFailed(f"the request cannot be sent as HTTP: {error}") from error

    async def run(self, stream: _Stream, data: bytes) -> HttpAnswer:
        """Send the request, read the answer."""
        with suppress(ConnectionError, EOFError):  # it may have answered before it has read all
            await stream.send(data)
        while not isinstance(event := await self._next_event(stream), h11.Response):
            pass  # 1xx
        self.awaited = "its answer did not end"
        status, headers = event.status_code, tuple(event.headers)
        body, truncated = await self._body(stream)
        text = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
        return HttpAnswer(status, text, body, truncated)

    async def _body(self, stream: _Stream) -> tuple[bytes, bool]:
        body = bytearray()
        while isinstance(event := await self._next_event(stream), h11.Data):
            body += event.data
            if len(body) > self._max_body_bytes:
                return bytes(body[: self._max_body_bytes]), True
        return bytes(body), False

    async def _next_event(self, stream: _Stream) -> object:
        while True:
            try:
                event = self._state.next_event()
            except h11.RemoteProtocolError as error:
                raise HttpFailed(self._fault()) from error
            if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                raise HttpFailed(self._fault())
            if event is not h11.NEED_DATA:
                return event
            self._state.receive_data(await self._receive(stream))

    async def _receive(self, stream: _Stream) -> bytes:
        try:
            data = await stream.receive()
        except ConnectionError:
            data = b""
        await asyncio.sleep(0)  # a server that always has more must not keep the others from their turn
        self._at_end = not data
        self._start += data[: 5 - len(self._start)]
        if not b"HTTP/".startswith(self._start):  # an SSH server, say, would let us wait for the end of the line
            raise HttpFailed(f"{_NOT_HTTP} but TLS" if self._start[:2] in (b"\x15\x03", b"\x16\x03") else _NOT_HTTP)
        return data

    def _fault(self) -> str:
        if not self._at_end:
            return _NOT_HTTP
        return _CLOSED_WITHIN if self._start else _CLOSED


def _all_headers(host: str, named: list[tuple[str, str]], method: str, body: bytes) -> list[tuple[str, str]]:
    given = {name.lower() for name, _ in named}
    ours = [("Host", host), ("User-Agent", f"unitd/{version()}"), ("Accept", "*/*")]
    headers = [(name, value) for name, value in ours if name.lower() not in given] + named
    if body or method in ("POST", "PUT", "PATCH"):
        headers.append(("Content-Length", str(len(body))))
    return [*headers, ("Connection", "close")]


def _host(host: str | None, address: str, port: int, tls: TlsOptions | None) -> str:
    """What the Host header says (RFC 9110, 7.2)."""
    if host is not None:
        return host
    name = address.partition("%")[0]
    name = f"[{name}]" if ":" in name else name
    return name if port == (80 if tls is None else 443) else f"{name}:{port}"


def _without_port(host: str) -> str:
    """The name or address in a Host header, or an address itself."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition("%")[0] if host.count(":") > 1 else host.partition(":")[0]
