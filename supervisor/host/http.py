"""A small HTTP/1.1 server for the unix socket and for TCP; knows nothing of units.

It owns the listeners, counts connections and running requests, and ends them. What happens on one connection is
`http_connection`'s.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial

from .http_connection import Connection
from .http_message import Request, Response, internal_error, refusal
from .listener import Listener, Peer, bind_tcp, bind_unix, peer_of

__all__ = ["MAX_CONNECTIONS", "Handler", "HttpServer", "Peer", "Request", "Response"]

log = logging.getLogger("unitd.http")

MAX_CONNECTIONS = 256
Handler = Callable[[Request], Awaitable[Response]]
Encrypt = Callable[[Connection], asyncio.Protocol]

_EXTRA_CONNECTIONS = 32  # beyond the maximum, only to be told so
_AFTER_CANCEL_SECONDS = 1.0


class HttpServer:
    """Answers the requests of any number of listeners with one handler.

    `authorize` is asked once the headers of a request are there; what it answers is sent instead of asking the handler,
    and the connection ends: nobody sends a body who may not.
    A handler that fails is answered with 500 and logged.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        max_body_bytes: int,
        authorize: Callable[[Request], Response | None] | None = None,
        max_connections: int = MAX_CONNECTIONS,  # over unix sockets, and as many over TCP
    ) -> None:
        self.max_body_bytes = max_body_bytes
        self.closing = self._held = False
        self._handler, self._authorize, self._max_connections = handler, authorize, max_connections
        self._listeners: list[Listener] = []
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def addresses(self) -> list[str | tuple[str, int]]:
        """Where it listens: paths and (host, port)."""
        return [listener.address for listener in self._listeners]

    def hold(self) -> None:
        """Let whoever connects from now on wait, in the kernel's backlog, until `begin`."""
        self._held = True

    def begin(self) -> None:
        """Answer what was held."""
        self._held = False
        for listener in self._listeners:
            listener.begin()

    async def listen_unix(self, path: str, *, mode: int = 0o660, gid: int | None = None) -> None:
        """Listen on a unix socket; its folder must exist. Raises OSError, EADDRINUSE when somebody answers there."""
        listening = bind_unix(path, mode=mode, gid=gid)
        self._listeners.append(Listener(listening, self._accepted, accepts=not self._held))

    async def listen_tcp(self, host: str, port: int, encrypt: Encrypt | None = None) -> None:
        """Listen on a TCP port; 0 takes a free one. `encrypt` puts TLS before each connection. Raises OSError."""
        accepted = partial(self._accepted, encrypt=encrypt)
        self._listeners.append(Listener(bind_tcp(host, port), accepted, accepts=not self._held))

    async def close(self, grace_seconds: float) -> None:
        """Stop listening, end streams, give running requests `grace_seconds`, then cancel them."""
        self.closing = True
        while self._listeners:
            self._listeners.pop().close()
        for connection in tuple(self._connections):
            connection.finish()
        await self._until_idle(grace_seconds)
        for connection in tuple(self._connections):
            connection.abort()
        for task in tuple(self._tasks):
            task.cancel()
        await self._until_idle(_AFTER_CANCEL_SECONDS)

    # what connections ask for

    def start(self, work: asyncio.Task[None]) -> None:
        """Count a request's task among those that `close` waits for."""
        self._tasks.add(work)
        work.add_done_callback(self._tasks.discard)

    def forget(self, connection: Connection) -> None:
        """A connection is over."""
        self._connections.discard(connection)

    def refusal(self, head: Request) -> Response | None:
        """What to answer instead of asking the handler, or None; the body is not there yet."""
        try:
            return self._authorize(head) if self._authorize else None
        except Exception:
            log.exception("cannot tell what %s may do", head.peer)
            return internal_error()

    async def answer(self, request: Request) -> Response:
        """The handler's answer, or that it failed."""
        try:
            return await self._handler(request)
        except Exception:
            log.exception("cannot answer %s %s", request.method, request.path)
            return internal_error()

    # accepting

    def _accepted(self, connected: socket.socket, encrypt: Encrypt | None = None) -> None:
        try:
            peer = peer_of(connected)
        except OSError:  # gone already
            connected.close()
            return
        crowd = self._count_like(peer)
        if crowd >= self._max_connections + _EXTRA_CONNECTIONS:
            connected.close()
            return
        refused = None
        if crowd >= self._max_connections:
            refused = refusal(503, "too many connections: close some, or try again later")
        connection = Connection(self, peer, refused)
        self._connections.add(connection)
        self.start(asyncio.get_running_loop().create_task(self._adopt(connection, connected, encrypt)))

    def _count_like(self, peer: Peer) -> int:
        """How many connections of that kind there are: TCP ones must not keep people off the unix socket."""
        return sum((connection.peer.uid is None) == (peer.uid is None) for connection in self._connections)

    async def _adopt(self, connection: Connection, connected: socket.socket, encrypt: Encrypt | None) -> None:
        protocol = connection if encrypt is None else encrypt(connection)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, connected)
        except BaseException as error:
            self.forget(connection)
            connected.close()
            if not isinstance(error, OSError):
                raise
            log.warning("cannot serve a connection: %s", error)

    async def _until_idle(self, seconds: float) -> None:
        """Until no task and no connection is left, or the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (self._tasks or self._connections) and (left := deadline - loop.time()) > 0:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(min(left, 0.01))  # last bytes on their way
