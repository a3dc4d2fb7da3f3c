"""Servers that answer every request in one way, most of them badly, and count what they get."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable

from registry_client import Entry

RIGHT = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1\n"


class Server:
    """Reads a request (GET only), waits, and sends an answer; `ends` says how the connection goes on afterwards."""

    def __init__(self, answer: bytes, ends: str = "kept", delay: float = 0.0) -> None:
        self._answer, self._ends, self._delay = answer, ends, delay
        self.port = 0
        self.requests = self.connections = self.closed_by_client = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._closing = asyncio.Event()

    def fresh(self) -> Server:
        """Another one of the kind."""
        return Server(self._answer, self._ends, self._delay)

    async def until(self, look: Callable[[], bool]) -> None:
        """Wait until it is so."""
        while not look():
            await asyncio.sleep(0.005)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            await self._answer_all(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed_by_client += 1
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            if self._delay:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), self._delay)
            writer.write(self._answer)
            if self._ends == "reset":
                now = struct.pack("ii", 1, 0)  # socket(7), SO_LINGER: close sends a reset
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
                writer.transport.abort()
            if self._ends != "kept":
                return

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        """Listening on a free port of its own."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self._closing.set()
            for writer in list(self._writers):
                writer.transport.abort()
            await server.wait_closed()
            while self._writers:
                await asyncio.sleep(0)

    def entry(self, instance: str = "a", generation: int = 1, weight: int = 100, status: str = "up") -> Entry:
        """What a registry would list."""
        return Entry(
            service="web", instance=instance, node="here", unit=instance, address="127.0.0.1", port=self.port,
            generation=generation, weight=weight, status=status, started_at="2026-11-24T00:00:00Z",
        )  # fmt: skip
