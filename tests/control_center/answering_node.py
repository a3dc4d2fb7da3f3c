"""Whatever may answer at a node's address, and channels to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from control_center.channels import Channels, NodeCommand
from control_center.config import NodesSpec
from registry_client.model import Entry

COMMAND = NodeCommand("c-1", "POST", "/v1/units/web/restart", {"command_id": "c-1"}, 7)
ACCEPTED = {"operations": [{"id": "op-1", "state": "running"}]}
Serve = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


def node_entry_at(port: int, address: str = "127.0.0.1", **metadata: str) -> Entry:
    """A node's own entry, with that port."""
    return Entry(service="unitd", instance="n", node="n", unit="unitd", address=address, port=port, generation=1,
                 started_at="2026-11-24T03:41:46.123Z", metadata=metadata)  # fmt: skip


def http_answer(status: int, value: Any = None, *, body: bytes | None = None, **headers: str) -> bytes:
    """The bytes of an answer."""
    body = json.dumps(value).encode() if body is None else body
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Node:
    """A server that answers each request on a connection as it is told, and keeps what it was asked."""

    def __init__(self, *answers: bytes | Serve) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.ended = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
                )
                request = head + await reader.readexactly(length)
                self.requests.append(request)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                else:
                    await answer(request, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.ended += 1
            writer.close()


async def hang_up(request: bytes, writer: asyncio.StreamWriter) -> None:
    """Instead of an answer."""
    writer.transport.abort()


async def say_nothing(request: bytes, writer: asyncio.StreamWriter) -> None:
    """Instead of an answer."""
    return


async def stop_in_the_middle(request: bytes, writer: asyncio.StreamWriter) -> None:
    """Instead of a whole answer."""
    writer.write(http_answer(202, ACCEPTED)[:-3])
    await writer.drain()
    writer.transport.abort()


class NoStore:
    """For nodes that commands are pushed to."""


@asynccontextmanager
async def channels_to(entry: Callable[[], Entry | None], store: Any = None, **spec: Any) -> AsyncIterator[Channels]:
    """Channels that find every node at that entry."""
    made = Channels(NodesSpec(**{"timeout_seconds": 5.0, **spec}), store or NoStore(), lambda name: entry())
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def answering_node(*answers: bytes | Serve, **spec: Any) -> AsyncIterator[tuple[Node, Channels]]:
    """A node that answers so (the last answer again and again), and channels to it."""
    node = Node(*answers)
    server = await asyncio.start_server(node.serve, "127.0.0.1", 0)
    node.port = server.sockets[0].getsockname()[1]
    async with server, channels_to(lambda: node_entry_at(node.port), **spec) as channels:
        yield node, channels
