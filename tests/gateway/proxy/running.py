"""The proxy, its units and its clients in one event loop, over real sockets; units say just what a test lets them say."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.model import Finding, Pool, Server, Standing
from gateway.proxy import EmbeddedGateway, make
from gateway.settings.proxy import alone

SERVICE = "cart"
DEADLINE_SECONDS = 12.0


def asynchronous(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The test runs in an event loop of its own, and must end."""

    @functools.wraps(test)
    def run(*args: Any, **options: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **options), DEADLINE_SECONDS))
        gc.collect()  # what was left open warns now, in the test that left it

    return run


async def until(what: str, look: Callable[[], Any], seconds: float = 8.0) -> Any:
    """The first true value that `look` gives."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (value := look()):
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.005)
    return value


@dataclass(slots=True)
class Answer:
    """What a client got. `fields`: names in lower case; `raw`: the head as it came."""

    status: int
    fields: dict[str, str]
    body: bytes
    raw: bytes


class Client:
    """A connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> tuple[int, dict[str, str], bytes]:
        raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(first.split()[1]), fields, raw

    async def answer(self, method: str = "GET") -> Answer:
        """The next answer, as it is framed."""
        status, fields, raw = await self.head()
        if method == "HEAD" or status in (204, 304) or status < 200:
            return Answer(status, fields, b"", raw)
        if fields.get("transfer-encoding") == "chunked":
            return Answer(status, fields, await self._chunks(), raw)
        if "content-length" in fields:
            return Answer(status, fields, await self.reader.readexactly(int(fields["content-length"])), raw)
        return Answer(status, fields, await self.reader.read(), raw)

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        assert await self.reader.readline() == b"\r\n"
        return body

    async def ask(self, request: bytes) -> Answer:
        self.send(request)
        return await self.answer(request.split(b" ")[0].decode())

    async def rest(self) -> bytes:
        """All until the proxy closes; b"RESET" when it does so without a word."""
        try:
            return await self.reader.read()
        except ConnectionResetError:
            return b"RESET"

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def reset(client: Client) -> None:
    """Close it so that the other end learns that nobody is there (a plain close looks like a half-closed one)."""
    own = client.writer.get_extra_info("socket")
    own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


def get(path: str = "/", *fields: str, method: str = "GET") -> bytes:
    """A request without a body."""
    return "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/1.1", "Host: shop.example", *fields, "")).encode()


def post(body: bytes, path: str = "/", *fields: str, method: str = "POST") -> bytes:
    """A request with one."""
    return get(path, f"Content-Length: {len(body)}", *fields, method=method) + body


def ok(body: bytes = b"ok", *fields: bytes) -> bytes:
    """A plain answer."""
    return b"\r\n".join((b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *fields, b"", body))


Talk = Callable[["Visit"], Awaitable[None]]


class Visit(Client):
    """A connection from the proxy, as a unit has it."""

    async def request(self) -> tuple[str, dict[str, str], bytes]:
        """First line, fields and body of the next request."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "transfer-encoding" in fields:
            return first, fields, await self._chunks()
        return first, fields, await self.reader.readexactly(int(fields.get("content-length", 0)))


@dataclass
class Unit:
    """A server that talks as the test says; it counts connections and keeps requests' first lines."""

    talk: Talk
    port: int = 0
    connections: int = 0
    open: int = 0
    probed: int = 0
    lines: list[str] = field(default_factory=list)
    server: asyncio.Server | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> Unit:
        self.server = await asyncio.start_server(self._visit, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            await self.talk(Visit(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def stop_listening(self) -> None:
        """No more connections; those that there are stay as they are."""
        assert self.server is not None
        self.server.close()
        self.server = None

    async def stop(self) -> None:
        """No more connections, and those that there are end."""
        if self.server is not None:
            self.server.close()
            self.server = None
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class Clogged:
    """A port whose listener accepts nobody: connecting to it takes until `clear`, and a second more."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port: int = self._listener.getsockname()[1]
        self._waiting = [socket.create_connection(("127.0.0.1", self.port))]

    def clear(self) -> None:
        """Accept whoever waits."""
        self._waiting.append(self._listener.accept()[0])

    def close(self) -> None:
        for each in (self._listener, *self._waiting):
            each.close()


def echoing(unit_name: bytes = b"") -> Talk:
    """Answers every request with its first line, or with the unit's name."""

    async def talk(visit: Visit) -> None:
        while True:
            first, _, body = await visit.request()
            visit.send(ok(unit_name or first.encode() + b"|" + body))

    return talk


@dataclass
class Place:
    """A proxy that runs, with its units."""

    gateway: EmbeddedGateway
    units: list[Unit]
    revision: int = 0
    found: list[Finding] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.gateway.address[1]

    def server(self, number: int, **changes: Any) -> Server:
        """The unit as the registry would say."""
        server = Server(
            service=SERVICE, instance=f"n/{number}", generation=1, address="127.0.0.1", port=self.units[number].port, weight=100, full_weight=100
        )  # fmt: skip
        return replace(server, **changes)

    def draining(self, number: int) -> Server:
        return self.server(number, weight=0, standing=Standing.DRAINING)

    async def apply(self, *servers: Server) -> None:
        self.revision += 1
        applied = await self.gateway.apply(Pool(SERVICE, self.revision, "e", servers))
        serving = {server.key for server in servers if server.standing is Standing.SERVING}
        assert (applied.service, applied.revision, applied.serving) == (SERVICE, self.revision, serving)

    async def client(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))

    async def ask(self, request: bytes) -> Answer:
        """One request over a connection of its own."""
        client = await self.client()
        try:
            return await client.ask(request)
        finally:
            await client.close()

    async def say(self, request: bytes) -> bytes:
        """Everything that comes back until the proxy closes."""
        client = await self.client()
        try:
            client.send(request)
            return await client.rest()
        finally:
            await client.close()

    async def look(self) -> dict[str, Any]:
        """instance -> view; findings are collected."""
        look = await self.gateway.look()
        self.found += look.findings
        return {view.instance: view for view in look.views}

    def count(self, name: str, **labels: str) -> float:
        return self.gateway.counts().get((name, tuple(labels.items())), 0)


@contextlib.asynccontextmanager
async def running(*talks: Talk | Unit, **spec: Any) -> AsyncIterator[Place]:
    """A proxy with such units, all of which serve."""
    units = [await (talk if isinstance(talk, Unit) else Unit(talk)).start() for talk in talks]
    defaults = {
        "unit_idle_seconds": 4.0,
        "connect_seconds": 2.0,
        "shutdown_seconds": 5.0,
        "eject_failures": 1000,
        "eject_errors": 1000,
    }
    gateway = make(replace(alone(("127.0.0.1", 0), SERVICE), **{**defaults, **spec}))
    place = Place(gateway, units)
    try:
        await gateway.start()
        await place.apply(*(place.server(number) for number in range(len(units))))
        yield place
    finally:
        await gateway.close()
        for unit in units:
            await unit.stop()
