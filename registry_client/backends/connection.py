"""One HTTP/1.1 keep-alive connection for one request at a time: h11 over asyncio streams, with TLS for https.

It knows addresses, deadlines and sizes, nothing of registries. A request that fails, is too late or is cancelled
closes the connection, so that the server gets no more of it and its late answer is nobody else's. Of several
addresses (members of one cluster) the connection stays with one until that fails, and then tries the next.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import h11

from ..errors import BadOption, RegistryRejected, RegistryUnavailable, Unsupported
from ..options import Tls

if TYPE_CHECKING:
    from ssl import SSLContext

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
    encrypted: bool = False

    @classmethod
    def parse(cls, url: str) -> HttpAddress:
        """From `http[s]://host[:port][/prefix]` or `unix:///path/of.sock`. Raises Unsupported."""
        if not url.isascii() or not url.isprintable() or " " in url:
            raise Unsupported(f"cannot use the url {url!r}: it must be percent-encoded")
        if "@" in url:  # before any message could show it
            raise Unsupported("cannot use the url: it must have no user and password; give them as options")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise Unsupported(f"cannot use the url {url}: {error}") from error
        if parts.query or parts.fragment:
            raise Unsupported(f"cannot use the url {url}: it must have no query or fragment")
        if parts.scheme == "unix" and not host and len(parts.path) > 1:
            return cls(url, "localhost", 0, unquote(parts.path), "")
        if parts.scheme in ("http", "https") and host:
            usual = 443 if parts.scheme == "https" else 80
            return cls(url, host, port or usual, None, parts.path.rstrip("/"), parts.scheme == "https")
        raise Unsupported(f"cannot use the url {url}: it must be like https://host:port or unix:///path/of.sock")

    @classmethod
    def parse_all(cls, backend: str, urls: str) -> tuple[HttpAddress, ...]:
        """From one url, or several separated by commas. Raises BadOption (`url`, naming `backend`)."""
        try:
            addresses = tuple(cls.parse(url.strip()) for url in urls.split(","))
        except Unsupported as error:
            raise BadOption(backend, "url", str(error)) from error
        if len({address.encrypted for address in addresses}) > 1:
            raise BadOption(backend, "url", "all of its urls must be http, or all https")
        return addresses


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status, headers (lower-case names; the last one of several) and the whole body of an answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def date(self) -> float | None:
        """The server's clock, unix seconds cut to whole ones; None: it tells none."""
        from email.utils import parsedate_to_datetime  # only who inspects a registry needs it

        try:
            return parsedate_to_datetime(self.headers["date"]).timestamp()
        except (KeyError, ValueError):
            return None


Headers = Callable[[], Iterable[tuple[str, str]]]


class _Broken(Exception):
    """This connection failed; `before_answer` when it did so before the first byte of an answer."""

    def __init__(self, reason: str, before_answer: bool) -> None:
        self.before_answer = before_answer
        super().__init__(reason)


class HttpConnection:
    """Requests to one address (or to the members of one cluster), one after the other."""

    def __init__(
        self,
        address: HttpAddress | Sequence[HttpAddress],
        *,
        max_answer_bytes: int,
        headers: Headers = tuple,
        tls: Tls | None = None,
        backend: str = "http",
    ) -> None:
        """`headers` is asked at each request, for tokens change. `tls` is for https; errors name the `backend`."""
        self._addresses = (address,) if isinstance(address, HttpAddress) else tuple(address)
        self._max_answer_bytes, self._headers, self._tls, self._backend = max_answer_bytes, headers, tls, backend
        self._address = self._addresses[0]
        self._turn = asyncio.Lock()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._state = h11.Connection(h11.CLIENT)
        self._sent = False  # the present request may have reached the server
        self._closed = False

    @property
    def address(self) -> HttpAddress:
        """Whom it talks to at present."""
        return self._address

    def next_address(self) -> None:
        """Leave this member of the cluster for the next: it answers, but to no purpose (it has lost its leader)."""
        self._drop()
        self._address = self._addresses[(self._addresses.index(self._address) + 1) % len(self._addresses)]

    async def request(
        self, verb: str, method: str, path: str, body: bytes | None, timeout_seconds: float, *, resend: bool = True
    ) -> HttpAnswer:
        """The whole answer. `timeout_seconds` is for all: the wait for the turn, connecting, answering.

        Only for idempotent requests: one that finds a kept connection closed is sent once more on a new one, unless
        `resend` is false, for a question that has no answer in another life of the server.
        Raises RegistryUnavailable ("cannot <verb>: ..."), or RegistryRejected (`answer_too_large`).
        """
        sent = False
        try:
            async with asyncio.timeout(timeout_seconds), self._turn:
                self._sent = False
                try:
                    return await self._attempts(verb, method, path, body, timeout_seconds, resend)
                finally:
                    sent = self._sent
        except TimeoutError as error:
            reason = f"no answer within {timeout_seconds:g} s"
            raise self._unavailable(verb, reason, sent) from error
        except (_Broken, OSError) as error:
            raise self._unavailable(verb, _reason(error), sent) from error

    async def stream(
        self, verb: str, method: str, path: str, body: bytes | None, timeout_seconds: float
    ) -> AsyncGenerator[HttpAnswer, None]:
        """An answer without end: first its head (with an empty body), then each piece of its body as it comes.

        `timeout_seconds` is for the connection and the head; silence after that is the caller's to judge. The
        connection is used by nobody else meanwhile and closed at the end. Raises RegistryUnavailable.
        """
        try:
            async with self._turn:
                try:
                    async with asyncio.timeout(timeout_seconds):
                        await self._connect(timeout_seconds)
                        await self._send(method, path, body)
                        head = await self._head()
                    yield head
                    while isinstance(event := await self._next_event(started=True), h11.Data):
                        yield HttpAnswer(head.status, bytes(event.data), head.headers)
                finally:
                    self._drop()
        except TimeoutError as error:
            self.next_address()
            raise self._unavailable(verb, f"no answer within {timeout_seconds:g} s", True) from error
        except (_Broken, OSError) as error:
            self.next_address()
            raise self._unavailable(verb, _reason(error), True) from error

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

    async def _attempts(
        self, verb: str, method: str, path: str, body: bytes | None, timeout_seconds: float, resend: bool
    ) -> HttpAnswer:
        if not resend and self._reader is not None and not self._is_usable():
            raise _Broken("it closed the connection", True)
        if self._is_usable():
            try:
                answer = await self._attempt(verb, method, path, body)
            except _Broken as error:
                if not (error.before_answer and resend):
                    raise
            else:
                # 408 is the server's farewell to an idle connection, sent before the request came.
                if answer.status != 408 or not resend:
                    return answer
        await self._connect(timeout_seconds)
        return await self._attempt(verb, method, path, body)

    def _is_usable(self) -> bool:
        reader, writer = self._reader, self._writer
        return not (reader is None or writer is None or reader.at_eof() or writer.transport.is_closing())

    async def _connect(self, timeout_seconds: float) -> None:
        """A new connection to the present address, or else to the first of the others that takes it."""
        self._drop()
        for left in range(len(self._addresses) - 1, -1, -1):
            if self._closed:
                raise _Broken("this client of it was closed", False)
            try:  # each gets its share of the time: a host that is down answers nothing at all
                async with asyncio.timeout(timeout_seconds / len(self._addresses) if left else None):
                    self._reader, self._writer = await self._open()
                break
            except OSError:  # TimeoutError is one
                if not left:
                    raise
                self.next_address()
        if self._closed:
            self._drop()
        self._state = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = self._address
        if address.socket is not None:
            return await asyncio.open_unix_connection(address.socket)
        if not address.encrypted:
            return await asyncio.open_connection(address.host, address.port)
        tls = self._tls or Tls()
        context = self._context(tls)
        return await asyncio.open_connection(
            address.host, address.port, ssl=context, server_hostname=tls.server_name or address.host
        )

    def _context(self, tls: Tls) -> SSLContext:
        try:
            return tls.context(self._backend)
        except BadOption as error:  # files that were there at the start
            raise _Broken(f"{error.option}: {error.reason}", False) from error

    async def _attempt(self, verb: str, method: str, path: str, body: bytes | None) -> HttpAnswer:
        reusable = False
        try:
            await self._send(method, path, body)
            answer = await self._receive(verb)
            reusable = self._state.our_state is self._state.their_state is h11.DONE
            reusable = reusable and not self._state.trailing_data[0]
            if reusable:
                self._state.start_next_cycle()
            return answer
        finally:
            if not reusable:
                self._drop()
                if len(self._addresses) > 1:
                    self.next_address()

    async def _send(self, method: str, path: str, body: bytes | None) -> None:
        writer = self._writer
        if writer is None:
            raise _Broken("the connection was closed", True)
        headers = [("Host", _host_header(self._address)), ("Accept", "application/json")]
        headers += self._own_headers()
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

    def _own_headers(self) -> list[tuple[str, str]]:
        try:
            return list(self._headers())
        except (OSError, ValueError) as error:  # a file with a token
            raise _Broken(f"the credentials for it cannot be read: {_reason(error)}", False) from error

    async def _receive(self, verb: str) -> HttpAnswer:
        head, chunks, size = await self._head(), [], 0
        while isinstance(event := await self._next_event(started=True), h11.Data):
            chunks.append(bytes(event.data))
            size += len(event.data)
            self._check_size(verb, size)
        return HttpAnswer(head.status, b"".join(chunks), head.headers)

    async def _head(self) -> HttpAnswer:
        while not isinstance(event := await self._next_event(started=False), h11.Response):
            pass  # 1xx
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in event.headers}
        return HttpAnswer(event.status_code, b"", headers)

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
    if isinstance(error, ConnectionError) and error.errno:  # asyncio's own words name the address in its way
        return os.strerror(error.errno).lower()
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _host_header(address: HttpAddress) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}" if address.port not in (0, 80) else host
