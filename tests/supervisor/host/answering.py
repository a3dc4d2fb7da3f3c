"""Servers for tests of those who ask: they say what a test tells them to say, and remember what they heard."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from tests.supervisor.running import until

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """A server on loopback; `heard` holds the head of every request, `clients` who connected."""

    def __init__(self, speak: Speak | bytes) -> None:
        self._speak = speak
        self.port = 0
        self.heard: list[bytes] = []
        self.clients: list[tuple[str, int]] = []
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients.append(writer.get_extra_info("peername")[:2])
        self.open += 1
        try:
            if isinstance(self._speak, bytes):
                self.heard.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(self._speak)
                await writer.drain()
            else:
                await self._speak(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()
            with suppress(OSError):  # it was reset
                await writer.wait_closed()
            self.open -= 1

    async def all_gone(self) -> None:
        """Every client has hung up and been let go."""
        await until(lambda: self.open == 0, "the connections end")


@asynccontextmanager
async def answering(
    speak: Speak | bytes = OK, host: str = "127.0.0.1", context: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """A server in this loop that writes these bytes after each request's head, or does whatever `speak` does."""
    made = Server(speak)
    server = await asyncio.start_server(made.serve, host, 0, ssl=context)
    try:
        made.port = server.sockets[0].getsockname()[1]
        yield made
    finally:
        server.close()
        await made.all_gone()
        await server.wait_closed()


async def until_it_hangs_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Never answer."""
    while await reader.read(65536):
        pass


def saying(*parts: bytes, pause_seconds: float = 0.0, for_ever: bytes = b"") -> Speak:
    """Read a head, say all parts, then one thing again and again until nobody listens."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
        await writer.drain()
        while for_ever:
            writer.write(for_ever)
            await writer.drain()
            await asyncio.sleep(pause_seconds)

    return speak


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


@contextmanager
def listening(backlog: int = 16, host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A listening socket that nobody accepts from, unless the test does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as made:
        made.bind((host, 0))
        made.listen(backlog)
        yield made


@contextmanager
def process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that is there once it has printed a line, and is killed at the end."""
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True) as made:
        try:
            assert made.stdout is not None and made.stdout.readline()
            yield made
        finally:
            made.send_signal(signal.SIGCONT)
            made.kill()


def open_sockets() -> set[str]:
    """The sockets of this process."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        if link.startswith("socket:"):
            found.add(link)
    return found
