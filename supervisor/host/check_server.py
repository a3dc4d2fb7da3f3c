"""The port on which load balancers check units: short questions, short answers, and bounds for everything.

An agent-check is one connection for each unit, gateway and second, so a connection is a socket and no more: no task, no
transport, and one timer for all.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from ..core.checking import Question, Reader
from .listener import Listener, bind_tcp

log = logging.getLogger("unitd.checks")

MAX_CONNECTIONS = 256
LIMIT_SECONDS = 5.0  # for a question to come, the first one and the next
_SWEEP_SECONDS = 1.0
_CHUNK = 4096

Answer = Callable[[Question, str], bytes]


class _Connection:
    __slots__ = ("deadline", "peer", "reader", "socket")

    def __init__(self, connected: socket.socket, peer: str, deadline: float) -> None:
        self.socket, self.peer, self.deadline = connected, peer, deadline
        self.reader = Reader()


class CheckServer:
    """Bound at once, so that a port that is taken is told at the start; answers from `start` on."""

    def __init__(self, host: str, port: int) -> None:
        """Raises OSError."""
        self._listening = bind_tcp(host, port)
        self._listener: Listener | None = None
        self._connections: dict[int, _Connection] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._listening.getsockname()[:2]
        return host, port

    def start(self, answer: Answer) -> None:
        """Answer questions, also of those who have connected before; `answer` gets the asker's IP address too."""
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._listener = Listener(self._listening, self._accepted)

    def close(self) -> None:
        """Stop listening, and cut what is open. May be called twice."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._listening.close()
        for connection in list(self._connections.values()):
            self._end(connection)
        if self._timer is not None:
            self._timer.cancel()

    def _accepted(self, connected: socket.socket) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            connected.close()  # to an agent-check this is no answer, and changes nothing
            return
        try:
            peer = connected.getpeername()[0]
        except OSError:  # gone already
            connected.close()
            return
        connection = _Connection(connected, peer, self._loop.time() + LIMIT_SECONDS)
        self._connections[connected.fileno()] = connection
        self._loop.add_reader(connected, self._readable, connection)
        if self._timer is None:
            self._timer = self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    def _readable(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data or not self._answered(connection, data):
            self._end(connection)

    def _answered(self, connection: _Connection, data: bytes) -> bool:
        """Whether the connection goes on."""
        try:
            for question in connection.reader.feed(data):
                # An answer is shorter than any send buffer; who does not read what was sent before is cut.
                connection.socket.sendall(self._answer(question, connection.peer))
                connection.deadline = self._loop.time() + LIMIT_SECONDS
        except OSError:
            return False
        except Exception:
            log.exception("cannot answer a check")
            return False
        return not connection.reader.ended

    def _end(self, connection: _Connection) -> None:
        number = connection.socket.fileno()
        if self._connections.pop(number, None) is not None:
            self._loop.remove_reader(number)
            connection.socket.close()

    def _sweep(self) -> None:
        """Cut those whose time is over."""
        now = self._loop.time()
        for connection in list(self._connections.values()):
            if connection.deadline <= now:
                self._end(connection)
        self._timer = self._loop.call_later(_SWEEP_SECONDS, self._sweep) if self._connections else None
