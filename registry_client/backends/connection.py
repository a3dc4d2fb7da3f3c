"""One HTTP/1.1 keep-alive connection for one request at a time: h11 over asyncio streams, plain text only.

It knows addresses, deadlines and sizes, nothing of registries. A request that fails, is too late or is cancelled
closes the connection, so that the server gets no more of it and its late answer is nobody else's.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import h11

from ..errors import RegistryRejected, RegistryUnavailable, Unsupported

_READ_BYTES = 64 * 1024
_MAX_HEAD_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class HttpAddress:
    """Where a server listens: `host` and `port`, or the unix `socket`; `prefix` comes before every path."""

    url: str
    host: str
    port: int
    socket: str | None
    prefix: str

    @classmethod
    def parse(cls, url: str) -> HttpAddress:
        """From `http://host[:port][/prefix]` or `unix:///path/of.sock`. Raises Unsupported."""
        if not url.isascii() or not url.isprintable() or " " in url:
            raise Unsupported(f"cannot use the url {url!r}: it must be percent-encoded")
        if "@" in url:  # before any message could show it
            raise Unsupported("cannot use the url: it must have no user and password")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise Unsupported(f"cannot use the url {url}: {error}") from error
        if parts.scheme == "https":
            raise Unsupported(
                f"cannot use the url {url}: TLS is not supported; use http:// on a trusted network or unix://"
            )
        if parts.query or parts.fragment:
            raise Unsupported(f"cannot use the url {url}: it must have no query or fragment")
        if parts.scheme == "unix" and not host and len(parts.path) > 1:
            return cls(url, "localhost", 0, unquote(parts.path), "")
        if parts.scheme == "http" and host:
            return cls(url, host, 80 if port is None else port, None, parts.path.rstrip("/"))
        raise Unsupported(f"cannot use the url {url}: it must be like http://host:port or unix:///path/of.sock")


class _Broken(Exception):
    """This connection failed; `before_answer` when it did so before the first byte of an answer."""

    def __init__(self, reason: str, before_answer: bool) -> None:
        self.before_answer = before_answer
        super().__init__(reason)


class HttpConnection:
    """Requests to one address, one after the other."""

    def __init__(self, address: HttpAddress, *, max_answer_bytes: int) -> None:
        self._address, self._max_answer_bytes = address, max_answer_bytes
        self._turn = asyncio.Lock()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._state = h11.Connection(h11.CLIENT)
        self._sent = False  # the present request may have reached the server
        self._closed = False

    async def request(
        self, verb: str, method: str, path: str, body: bytes | None, timeout_seconds: float
    ) -> tuple[int, bytes]:
        """Status and body of the answer. `timeout_seconds` is for all: the wait for the turn, connecting, answering.

        Only for idempotent requests: one that finds a kept connection closed is sent once more on a new one.
        Raises RegistryUnavailable ("cannot <verb>: ..."), or RegistryRejected (`answer_too_large`).
        """
        sent = False
        try:
            async with asyncio.timeout(timeout_seconds), self._turn:
                self._sent = False
                try:
                    return await self._attempts(verb, method, path, body)
                finally:
                    sent = self._sent
        except TimeoutError as error:
            reason = f"no answer within {timeout_seconds:g} s"
            raise self._unavailable(verb, reason, sent) from error
        except (_Broken, OSError) as error:
            raise self._unavailable(verb, _reason(error), sent) from error

    def close(self) -> None:
        """Close the connection at once and for good; a request under way fails."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            writer.transport.abort()

    def _unavailable(self, verb: str, reason: str, sent: bool) -> RegistryUnavailable:
        message = f"cannot {verb}: the registry at {self._address.url} does not answer ({reason})"
        return RegistryUnavailable(message, may_have_counted=sent)

    async def _attempts(self, verb: str, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        if self._is_usable():
            try:
                status, answer = await self._attempt(verb, method, path, body)
            except _Broken as error:
                if not error.before_answer:
                    raise
            else:
                if status != 408:  # else the server's farewell to an idle connection, sent before the request came
                    return status, answer
        self._drop()
        if self._closed:
            raise _Broken("this client of it was closed", False)
        await self._connect()
        return await self._attempt(verb, method, path, body)

    def _is_usable(self) -> bool:
        reader, writer = self._reader, self._writer
        return not (reader is None or writer is None or reader.at_eof() or writer.transport.is_closing())

    async def _connect(self) -> None:
        if self._address.socket is not None:
            streams = await asyncio.open_unix_connection(self._address.socket)
        else:
            streams = await asyncio.open_connection(self._address.host, self._address.port)
        self._reader, self._writer = streams
        if self._closed:
            self._drop()
        self._state = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)

    async def _attempt(self, verb: str, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        reusable = False
        try:
            await self._send(method, path, body)
            status, answer = await self._receive(verb)
            reusable = self._state.our_state is self._state.their_state is h11.DONE
            reusable = reusable and not self._state.trailing_data[0]
            if reusable:
                self._state.start_next_cycle()
            return status, answer
        finally:
            if not reusable:
                self._drop()

    async def _send(self, method: str, path: str, body: bytes | None) -> None:
        writer = self._writer
        if writer is None:
            raise _Broken("the connection was closed", True)
        headers = [("Host", _host_header(self._address)), ("Accept", "application/json")]
        if body is not None:
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        target = self._address.prefix + path
        data = self._state.send(h11.Request(method=method, target=target, headers=headers)) or b""
        if body:
            data += self._state.send(h11.Data(data=body)) or b""
        data += self._state.send(h11.EndOfMessage()) or b""
        self._sent = True
        try:
            writer.write(data)
            await writer.drain()
        except OSError as error:
            raise _Broken(_reason(error), True) from error

    async def _receive(self, verb: str) -> tuple[int, bytes]:
        status, chunks, size = 0, [], 0
        while True:
            event = await self._next_event(started=status > 0)
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                chunks.append(bytes(event.data))
                size += len(event.data)
                self._check_size(verb, size)
            elif isinstance(event, h11.EndOfMessage):
                return status, b"".join(chunks)

    def _check_size(self, verb: str, size: int) -> None:
        if size > self._max_answer_bytes:
            raise RegistryRejected(
                f"cannot {verb}: the answer of {self._address.url} is larger than {self._max_answer_bytes} bytes",
                code="answer_too_large",
            )

    async def _next_event(self, started: bool) -> object:
        while True:
            try:
                event = self._state.next_event()
            except h11.RemoteProtocolError as error:
                raise _Broken(f"its answer is no good HTTP: {error}", False) from error
            if event is not h11.NEED_DATA:
                return event
            self._state.receive_data(await self._read(started))

    async def _read(self, started: bool) -> bytes:
        before_answer = not started and not self._state.trailing_data[0]
        try:
            data = b"" if self._reader is None else await self._reader.read(_READ_BYTES)
        except OSError as error:
            raise _Broken(_reason(error), before_answer) from error
        if not data and before_answer:
            raise _Broken("it closed the connection", True)
        return data


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _host_header(address: HttpAddress) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}" if address.port not in (0, 80) else host
