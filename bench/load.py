"""A steady load of HTTP requests on the instances of a service, and what became of every one of them.

Open loop: requests are sent at a fixed rate whatever the answers do, and each is timed from the instant at which it was
meant to be sent, so a slow generator shows in its own figures. Nothing is tried twice: a client that tries again hides
what is counted here. HTTP/1.1 is spoken by hand, because the generator must not be what limits the rate.

Whom the load knows is either told once or follows a registry (`following`). It knows nothing of supervisors.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import select
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

from registry_client import Backend, Entry, RegistryClient
from registry_client import select as choose

PATIENCE_SECONDS = 10.0  # from the intended start to the whole answer
_HEAD_LIMIT = 16 * 1024

Key = tuple[str, int]  # an instance in one generation


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of the requests that take long, that bring a body, and that go over kept-alive connections."""

    slow: float = 0.1
    echo: float = 0.1
    kept: float = 0.5
    slow_seconds: float = 2.0
    body_bytes: int = 2000


@dataclass(slots=True)
class Request:
    """One request. `failure` is "" when the whole and right answer came; instants are wall time."""

    kind: str  # fast | slow | echo
    kept: bool  # over a connection that is kept alive, else over one of its own
    known: tuple[Entry, ...]  # whom the client knew when it chose
    chosen: Entry | None
    intended: float
    late_seconds: float  # how much later than intended it was begun
    took_seconds: float = 0.0  # from the intended start to the end of the answer, or to the failure
    failure: str = ""
    pid: int = 0  # of the process that answered; 0: it does not say

    @property
    def ended(self) -> float:
        """When the answer was complete, or the failure was seen."""
        return self.intended + self.took_seconds


class Broken(Exception):
    """No whole answer came; the message is the symptom in a word or two. `silent`: not a byte of one came."""

    def __init__(self, symptom: str, *, silent: bool = False) -> None:
        super().__init__(symptom)
        self.silent = silent


class Connection(asyncio.Protocol):
    """A connection for one request at a time. An answer must have a Content-Length."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._buffer = b""
        self.reusable = True

    @property
    def is_open(self) -> bool:
        """Neither side has closed it, as far as this one knows."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_stale(self) -> bool:
        """The other side has closed it, and the loop has not come to see that yet."""
        if self._transport is None:
            return True
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer. Raises Broken; then, or when cancelled, the connection must be closed."""
        if self._transport is None:
            raise Broken("closed", silent=True)
        self._buffer = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._answer = None

    def close(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail("truncated" if self._buffer else "closed" if exc is None else "reset")

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # nobody has asked
            self.close()
            return
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if found:
            self._read(head.lower(), body)
        elif len(self._buffer) > _HEAD_LIMIT:
            self._fail("no HTTP")

    def _read(self, head: bytes, body: bytes) -> None:
        status, length = head[9:12], head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0].strip()
        if not head.startswith(b"http/1.1 ") or not status.isdigit() or not length.isdigit():
            self._fail("no HTTP")
        elif len(body) > int(length):
            self._fail("too long")
        elif len(body) == int(length) and self._answer is not None and not self._answer.done():
            self.reusable = b"\r\nconnection: close" not in head
            self._answer.set_result((int(status), body))

    def _fail(self, symptom: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Broken(symptom, silent=not self._buffer))


class Pools:
    """Idle connections, a pool for each instance in one generation."""

    def __init__(self) -> None:
        self._idle: dict[Key, list[Connection]] = {}

    def keep_only(self, keys: Iterable[Key]) -> None:
        """Close the connections to everybody else, also those that come back later."""
        pools = {key: self._idle.pop(key, []) for key in keys}
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle = pools

    def take(self, key: Key) -> Connection | None:
        """One that is open, the last used first."""
        connections = self._idle.get(key, [])
        while connections:
            connection = connections.pop()
            if connection.is_open:
                return connection
        return None

    def put(self, key: Key, connection: Connection) -> None:
        """Keep it for the next request, if it can have one."""
        if key in self._idle and connection.reusable and connection.is_open:
            self._idle[key].append(connection)
        else:
            connection.close()


class Load:
    """Requests at a fixed rate to the instances that are known, chosen by weight.

    `requests`: all that were begun. `steady`: the first slow one (any one, if there are none) has ended, so as many end
    as are sent.
    """

    def __init__(self, rate: float, mix: Mix, entries: Iterable[Entry] = (), seed: int = 1) -> None:
        self.requests: list[Request] = []
        self.steady = asyncio.Event()
        self._rate, self._mix = rate, mix
        self._random = random.Random(seed)
        self._body = bytes(self._random.randrange(256) for _ in range(mix.body_bytes))
        self._pools = Pools()
        self._entries: tuple[Entry, ...] = ()
        self._changed = asyncio.Event()
        self.learn(entries)

    def learn(self, entries: Iterable[Entry]) -> None:
        """From now on these are the instances; idle connections to generations that are not among them are closed."""
        self._entries = tuple(entries)
        self._pools.keep_only(key_of(entry) for entry in self._entries)
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, look: Callable[[tuple[Entry, ...]], bool], seconds: float) -> None:
        """Wait until the instances that are known are so. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not look(self._entries):
                await self._changed.wait()

    async def run(self, enough: asyncio.Event) -> None:
        """Send requests until `enough` is set, then wait for the last answers."""
        loop = asyncio.get_running_loop()
        began, number = loop.time(), 0
        wall_offset = time.time() - began
        under_way: set[asyncio.Task[None]] = set()
        while not enough.is_set():
            due = began + number / self._rate
            await asyncio.sleep(max(0.0, due - loop.time()))
            request = self._new(due + wall_offset, loop.time() - due)
            task = loop.create_task(self._send(request, due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            number += 1
        await asyncio.gather(*under_way)
        self._pools.keep_only(())
        await asyncio.sleep(0)  # lets the loop close the sockets

    def _new(self, intended: float, late_seconds: float) -> Request:
        chance, mix = self._random.random(), self._mix
        kind = "slow" if chance < mix.slow else "echo" if chance < mix.slow + mix.echo else "fast"
        kept = self._random.random() < mix.kept
        chosen = choose(self._entries, self._random.random())
        request = Request(kind, kept, self._entries, chosen, intended, late_seconds)
        self.requests.append(request)
        return request

    async def _send(self, request: Request, due: float) -> None:
        try:
            async with asyncio.timeout_at(due + PATIENCE_SECONDS):
                request.failure = await self._exchange(request)
        except TimeoutError:
            request.failure = "timeout"
        except Broken as error:
            request.failure = str(error)
        except ConnectionRefusedError:
            request.failure = "refused"
        except OSError as error:
            request.failure = "reset" if isinstance(error, ConnectionError) else str(error)
        request.took_seconds = asyncio.get_running_loop().time() - due
        if request.kind == "slow" or not self._mix.slow:
            self.steady.set()

    async def _exchange(self, request: Request) -> str:
        """Send it once; "" or what is wrong with the answer."""
        entry = request.chosen
        if entry is None:
            return "nobody known"
        return await self._ask(request, entry, self._pools.take(key_of(entry)) if request.kept else None)

    async def _ask(self, request: Request, entry: Entry, connection: Connection | None) -> str:
        """Over that connection, or over a new one."""
        if connection is None:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(Connection, entry.address, entry.port)
        answered = False
        try:
            status, body = await connection.ask(self._bytes_of(request))
            answered = True
        finally:
            if answered and request.kept:
                self._pools.put(key_of(entry), connection)
            else:
                connection.close()
        if status != 200:
            return f"status {status}"
        if request.kind == "echo":
            return "" if body == self._body else "wrong answer"
        if not body.strip().isdigit():
            return "wrong answer"
        request.pid = int(body)
        return ""

    def _bytes_of(self, request: Request) -> bytes:
        connection = b"keep-alive" if request.kept else b"close"
        head = b" HTTP/1.1\r\nHost: unit\r\nConnection: %s\r\n" % connection
        if request.kind == "echo":
            return b"POST /echo%sContent-Length: %d\r\n\r\n%s" % (head, len(self._body), self._body)
        target = b"/fast" if request.kind == "fast" else b"/slow?seconds=%g" % self._mix.slow_seconds
        return b"GET %s%s\r\n" % (target, head)


@contextlib.asynccontextmanager
async def following(load: Load, backend: Backend, service: str) -> AsyncIterator[None]:
    """Within it the load knows what the registry lists of the service. The backend is closed at the end."""

    async def follow() -> None:
        async with RegistryClient(backend) as client, contextlib.aclosing(client.watch(service)) as snapshots:
            async for snapshot in snapshots:
                load.learn(snapshot.entries)

    task = asyncio.create_task(follow())
    try:
        yield
        if task.done():
            task.result()
            raise RuntimeError("cannot follow the registry: its watch has ended")
    finally:
        task.cancel()
        await asyncio.wait([task])


def listed(service: str, address: str, ports: Iterable[int]) -> list[Entry]:
    """Entries for a client that has nobody to ask: a fixed list, all alike. Instances are called `service:number`."""
    names = ((f"{service}:{number}", port) for number, port in enumerate(ports))
    return [
        Entry(
            service=service, instance=name, node="listed", unit=name, address=address, port=port, generation=0,
            started_at="1970-01-01T00:00:00Z",
        )
        for name, port in names
    ]  # fmt: skip


def key_of(entry: Entry) -> Key:
    """Which life of which instance."""
    return entry.instance, entry.generation
