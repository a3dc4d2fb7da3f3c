"""A TCP proxy on a free port of 127.0.0.1 that does to connections what networks do to them.

One thread of its own does all the work, so that neither a test's event loop nor a blocked client can hold it up. What is
asked of it has happened when the call returns.
"""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Self

from .processes import free_port
from .server import Server

CHUNK_BYTES = 65536
BUFFER_BYTES = 1 << 20
# So that no call of a test waits for ever if the thread is gone.
CALL_SECONDS = 5.0
CONNECT_SECONDS = 1.0


class Proxy:
    """A way to `target` (a server, or a port of 127.0.0.1); a context manager, opened on the way in.

    `accepted` counts connections since the start, `calls_cut` the calls that `cut_after_request` has cut.
    """

    def __init__(self, target: Server | int) -> None:
        self._server = target if isinstance(target, Server) else None
        self._target_port = target if isinstance(target, int) else 0
        self.port = free_port()
        self.accepted = 0
        self.calls_cut = 0
        self._links: list[_Link] = []
        self._listener: socket.socket | None = None
        self._orders: queue.SimpleQueue[tuple[Callable[[], None], threading.Event]] = queue.SimpleQueue()
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"proxy {self.port}", daemon=True)
        self._closing = False
        self._stalled = False
        self._rubbish: bytes | None = None
        self._cut_pattern: bytes | None = None
        self._request_seconds = 0.0
        self._answer_seconds = 0.0

    @property
    def url(self) -> str:
        """The server's url with the port of the proxy; `127.0.0.1:port` when the target is a port."""
        if self._server is None:
            return f"127.0.0.1:{self.port}"
        return self._server.url.replace(f":{self._server.port}", f":{self.port}")

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._links)

    def open(self) -> None:
        """Start to listen."""
        self._listen()
        self._thread.start()

    def close(self) -> None:
        """Reset what is open and end the thread."""
        if not self._thread.is_alive():
            return
        self._do(self._end)
        self._thread.join(CALL_SECONDS)
        self._wake.close()
        self._woken.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # The faults. Each lasts until mend(), but for cut_after_request.

    def cut(self) -> None:
        """Reset all connections, and refuse new ones."""
        self._do(self._cut)

    def reset_connections(self) -> None:
        """Reset all connections; new ones are welcome."""
        self._do(self._reset_all)

    def stall(self) -> None:
        """Accept, swallow what comes from either side, answer nothing. mend() resets connections that lost something."""
        self._do(lambda: setattr(self, "_stalled", True))

    def answer_with(self, answer: bytes) -> None:
        """Swallow every request and answer it with these bytes. mend() resets connections that got them."""
        self._do(lambda: setattr(self, "_rubbish", answer))

    def delay(self, seconds: float) -> None:
        """Let answers arrive so much later; what is on its way when this changes keeps its time."""
        self._do(lambda: setattr(self, "_answer_seconds", seconds))

    def delay_requests(self, seconds: float) -> None:
        """Let requests arrive so much later, even if their client has closed its connection by then."""
        self._do(lambda: setattr(self, "_request_seconds", seconds))

    def cut_after_request(self, containing: bytes = b"") -> None:
        """Cut the next call in its middle: the request reaches the server, the answer is dropped, the connection reset.

        Only a piece of a request that has `containing` in it counts; `calls_cut` grows when it has happened.
        """
        self._do(lambda: setattr(self, "_cut_pattern", containing))

    def mend(self) -> None:
        """End every fault."""
        self._do(self._mend)

    # Below, everything runs in the thread of the proxy.

    def _run(self) -> None:
        while not self._closing:
            ready = self._wait()
            self._obey(ready)
            if self._listener is not None and self._listener.fileno() in ready:
                self._accept(self._listener)
            now = time.monotonic()
            for link in list(self._links):
                self._serve(link, ready, now)
            self._links = [link for link in self._links if not link.closed]

    def _wait(self) -> set[int]:
        """Sleep until a socket can be read or written, or until something delayed is due."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        if self._listener is not None:
            poll.register(self._listener, select.POLLIN)
        now = time.monotonic()
        dues = []
        for link in self._links:
            for descriptor, interest in link.interests(now).items():
                poll.register(descriptor, interest)
            dues += link.dues()
        timeout = max(0.0, min(dues) - now) * 1000 + 1 if dues else None
        return {descriptor for descriptor, _ in poll.poll(timeout)}

    def _obey(self, ready: set[int]) -> None:
        if self._woken.fileno() in ready:
            self._woken.recv(4096)
        while not self._orders.empty():
            order, done = self._orders.get()
            order()
            done.set()

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:  # the client is gone already, or the descriptor was another one's when it became ready
            return
        self.accepted += 1
        server = None
        if not self._stalled and self._rubbish is None:
            try:
                port = self._target_port or (self._server.port if self._server else 0)
                server = socket.create_connection(("127.0.0.1", port), CONNECT_SECONDS)
            except OSError:
                _reset(client)
                return
        self._links.append(_Link(client, server))

    def _serve(self, link: _Link, ready: set[int], now: float) -> None:
        try:
            if link.client.fileno() in ready:
                self._from_client(link, now)
            if not link.closed and link.server is not None and link.server.fileno() in ready:
                self._from_server(link, now)
            if not link.closed:
                link.deliver(now)
        except BlockingIOError:
            return
        except OSError:
            link.reset()

    def _from_client(self, link: _Link, now: float) -> None:
        data = link.requests.read()
        if data is None:
            return
        if self._rubbish is not None and data:
            link.spoiled = True
            link.answers.chunks.append((now + self._answer_seconds, self._rubbish))
        elif self._stalled or self._rubbish is not None or link.server is None:
            link.swallow(data)
        else:
            if self._cut_pattern is not None and data and self._cut_pattern in data:
                self._cut_pattern = None
                link.doomed = True
            link.requests.chunks.append((now + self._request_seconds, data))

    def _from_server(self, link: _Link, now: float) -> None:
        data = link.answers.read()
        if data is None:
            return
        if self._stalled or self._rubbish is not None:
            link.swallow(data)
        elif link.doomed:
            self.calls_cut += 1
            link.reset()
        else:
            link.answers.chunks.append((now + self._answer_seconds, data))

    def _cut(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._reset_all()

    def _reset_all(self) -> None:
        for link in self._links:
            link.reset()
        self._links = []

    def _mend(self) -> None:
        self._stalled = False
        self._rubbish = self._cut_pattern = None
        self._request_seconds = self._answer_seconds = 0.0
        for link in self._links:
            if link.spoiled or link.server is None:
                link.reset()
        self._links = [link for link in self._links if not link.closed]
        if self._listener is None:
            self._listen()

    def _end(self) -> None:
        self._cut()
        self._closing = True

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(1024)
        listener.setblocking(False)
        self._listener = listener

    def _do(self, order: Callable[[], None]) -> None:
        """Have the thread do something, and wait until it is done."""
        done = threading.Event()
        self._orders.put((order, done))
        with contextlib.suppress(BlockingIOError):  # it has been told often enough to wake up
            self._wake.send(b"x")
        if not done.wait(CALL_SECONDS):
            raise RuntimeError("the proxy is not open")


class _Way:
    """One direction of a connection: what was read from `source` and is not yet written to `sink`."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.chunks: deque[tuple[float, bytes]] = deque()  # when to deliver it, and what; b"" is the end of the stream
        self.ended = False
        self.shut = False

    def read(self) -> bytes | None:
        """The next bytes of the source, b"" once at its end, None when there is nothing to be read."""
        if self.ended or self.full:
            return None
        try:
            data = self.source.recv(CHUNK_BYTES)
        except BlockingIOError:
            return None
        self.ended = not data
        return data

    @property
    def full(self) -> bool:
        """So much is waiting that the source has to wait too."""
        return sum(len(data) for _, data in self.chunks) >= BUFFER_BYTES

    def due(self, now: float) -> bool:
        """Something can be written now."""
        return bool(self.chunks) and self.chunks[0][0] <= now

    def deliver(self, now: float) -> None:
        """Write what is due, as far as the sink takes it."""
        while self.due(now):
            when, data = self.chunks[0]
            if not data:
                self.sink.shutdown(socket.SHUT_WR)
                self.shut = True
                self.chunks.popleft()
                return
            sent = self.sink.send(data)
            if sent < len(data):
                self.chunks[0] = (when, data[sent:])
                return
            self.chunks.popleft()


class _Link:
    """A client's connection and, but for those that came in a stall, the one to the server that belongs to it."""

    def __init__(self, client: socket.socket, server: socket.socket | None) -> None:
        self.client = client
        self.server = server
        for end in (client, server):
            if end is not None:
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.requests = _Way(client, server or client)
        self.answers = _Way(server or client, client)
        self.spoiled = False
        self.doomed = False
        self.closed = False

    def interests(self, now: float) -> dict[int, int]:
        """What to poll for, by descriptor; one that waits for nothing is left out, for its end would wake us for ever."""
        wanted: dict[int, int] = {}
        for way in self._ways():
            if not way.ended and not way.full:
                wanted[way.source.fileno()] = wanted.get(way.source.fileno(), 0) | select.POLLIN
        for way in (self.requests, self.answers):
            if way.due(now):
                wanted[way.sink.fileno()] = wanted.get(way.sink.fileno(), 0) | select.POLLOUT
        return wanted

    def dues(self) -> list[float]:
        """When the next delayed piece of each direction is to be delivered."""
        return [way.chunks[0][0] for way in (self.requests, self.answers) if way.chunks]

    def swallow(self, data: bytes) -> None:
        """Lose something; a side that closes its connection is not kept from that."""
        self.spoiled = True
        if not data:
            self.reset()

    def deliver(self, now: float) -> None:
        """Write what is due in both directions; close when both have ended."""
        for way in (self.requests, self.answers):
            try:
                way.deliver(now)
            except BlockingIOError:
                continue
        if self.requests.shut and self.answers.shut:
            self.reset(hard=False)

    def reset(self, *, hard: bool = True) -> None:
        """Close both connections, with RST if `hard`."""
        self.closed = True
        for end in (self.client, self.server):
            if end is not None and hard:
                _reset(end)
            elif end is not None:
                end.close()

    def _ways(self) -> tuple[_Way, ...]:
        return (self.requests,) if self.server is None else (self.requests, self.answers)


def _reset(end: socket.socket) -> None:
    """Close with RST instead of FIN: what is in the buffers is lost."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
