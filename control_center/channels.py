"""How the center's words reach a node: pushed to its HTTP API, or fetched by it from ours. The same words both ways.

A channel tries once and says what became of it; trying again is for those who know until when. Which way a node has
is looked up for each call, in the registry as it is then: a node that has moved is found at its new address.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp

from registry_client.model import Entry

from .config import NodesSpec
from .errors import NodeRefused, NodeUnreachable
from .node_client import NodeClient, refusal
from .pulled import Pulled, all_finished
from .store import Store

PUSH, PULL = "push", "pull"
FRESH_HEARTBEATS = 3.0  # a node that has missed so many is not heard of any more
MIN_FRESH_SECONDS = 10.0
PULL_SECONDS = 20.0  # for a command to be fetched and answered


@dataclass(frozen=True, slots=True)
class NodeCommand:
    """One request to a node, the same on either way. A node takes it once, however often it comes."""

    command_id: str
    method: str  # "POST"
    path: str  # "/v1/units/cart:0/restart"
    body: dict[str, Any] = field(default_factory=dict)
    seq: int = 0


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """What a node answered to it."""

    status: int
    body: dict[str, Any]


class Channels:
    """Asks nodes. At most `parallel` calls at a time, and as many heartbeats besides, so that neither waits for the
    other; calls that wait for something to end hold none of these places."""

    def __init__(self, spec: NodesSpec, store: Store, entry_of: Callable[[str], Entry | None]) -> None:
        """`entry_of` gives a node's own entry in the registry (of the service unitd) as it is now. Needs a loop."""
        self._seconds, self._entry_of = spec.timeout_seconds, entry_of
        self._client = NodeClient(spec.token_file, spec.tls)
        self._pulled = Pulled(store, max(MIN_FRESH_SECONDS, FRESH_HEARTBEATS * spec.heartbeat_seconds))
        self._calls, self._heartbeats = asyncio.Semaphore(spec.parallel), asyncio.Semaphore(spec.parallel)

    def via(self, node: str) -> str:
        """push or pull, as the node's entry says."""
        entry = self._entry_of(node)
        return PULL if entry is not None and entry.metadata.get("via") == PULL else PUSH

    async def send(self, node: str, command: NodeCommand) -> NodeAnswer:
        """Have a node take a command, and give its 202. Raises NodeRefused, NodeUnreachable.

        A node that fetches its commands is given longer, for waiting costs nothing: it may be away for a moment. If it
        does not answer, it may still fetch the command later.
        """
        if self.via(node) == PULL:
            seconds = max(self._seconds, PULL_SECONDS)
            return _answer(node, await self._pulled.result(command.command_id, seconds), seconds)
        async with self._calls:
            status, body = await self._ask(node, command.method, command.path, command.body)
        if not isinstance(body, dict):
            raise NodeUnreachable(node, f"it answered {status} with something that is no JSON object")
        return NodeAnswer(status, body)

    async def operations(self, node: str, command_id: str, wait_seconds: float = 0.0) -> list[dict[str, Any]]:
        """A node's operations of a command, once all have ended or the time is over.

        Raises NodeUnreachable, and NodeRefused (404) when the node does not know the command.
        """
        if self.via(node) == PULL:
            found = await self._pulled.result(command_id, wait_seconds, all_finished)
            return _operations(node, _answer(node, found, wait_seconds).body)
        path = f"/v1/operations?command_id={quote(command_id, safe='')}"
        if wait_seconds > 0:
            _, body = await self._ask(node, "GET", f"{path}&wait={wait_seconds:g}", longer_seconds=wait_seconds)
            return _operations(node, body)
        async with self._calls:
            _, body = await self._ask(node, "GET", path)
        return _operations(node, body)

    async def abort(self, node: str, operation_id: str) -> None:
        """Call off an operation of a node. Raises NodeRefused (409: it has ended), NodeUnreachable."""
        self._must_be_asked(node, "cannot be told to abort")
        async with self._calls:
            await self._ask(node, "POST", f"/v1/operations/{quote(operation_id, safe='')}/abort")

    async def get(self, node: str, path: str) -> Any:
        """What a node answers to a GET (with its query), from JSON. Raises NodeRefused, NodeUnreachable.

        Of a node that fetches its commands: what its last heartbeat says of itself and its units, with `as_of`.
        """
        if self.via(node) == PULL:
            return await self._pulled.get(node, path)
        async with self._calls:
            return (await self._ask(node, "GET", path))[1]

    async def heartbeat(self, node: str) -> dict[str, Any]:
        """How a node is, in its own words (GET /v1/node). Raises NodeRefused, NodeUnreachable."""
        if self.via(node) == PULL:
            return await self._pulled.heartbeat(node)
        async with self._heartbeats:
            _, body = await self._ask(node, "GET", "/v1/node")
        if not isinstance(body, dict):
            raise NodeUnreachable(node, "it told nothing of itself")
        return body

    def stream(self, node: str, path: str) -> NodeStream:
        """An answer as it comes, such as a log that is followed; asked for with `open`, or with the first chunk."""
        return NodeStream(self, node, path)

    async def open(self, node: str, path: str) -> aiohttp.ClientResponse:
        """An answer whose body is read, and closed, by the caller. Raises NodeRefused, NodeUnreachable."""
        self._must_be_asked(node, "shows no logs")
        return await self._client.open(node, self._entry(node), path, seconds=self._seconds)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    def _entry(self, node: str) -> Entry:
        entry = self._entry_of(node)
        if entry is None:
            raise NodeUnreachable(node, "it has no entry in the registry", may_have_counted=False)
        return entry

    def _must_be_asked(self, node: str, what: str) -> None:
        if self.via(node) == PULL:
            raise NodeUnreachable(node, f"it fetches its commands, and {what}", may_have_counted=False)

    async def _ask(
        self, node: str, method: str, path: str, body: Any = None, *, longer_seconds: float = 0.0
    ) -> tuple[int, Any]:
        # The entry is looked up only now: there may have been a while to wait for a place.
        return await self._client.ask(
            node, self._entry(node), method, path, body, seconds=self._seconds + longer_seconds
        )


class NodeStream(AsyncIterator[bytes]):
    """The body of an answer, chunk by chunk. `aclose` ends it, whether or not it was read to its end."""

    __slots__ = ("_channels", "_node", "_path", "_response")

    def __init__(self, channels: Channels, node: str, path: str) -> None:
        self._channels, self._node, self._path = channels, node, path
        self._response: aiohttp.ClientResponse | None = None

    async def open(self) -> None:
        """Wait until the node has begun to answer. Raises NodeRefused, NodeUnreachable."""
        if self._response is None:
            self._response = await self._channels.open(self._node, self._path)

    async def __anext__(self) -> bytes:
        await self.open()
        assert self._response is not None
        try:
            chunk = await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            await self.aclose()
            raise NodeUnreachable(self._node, "it closed the connection in the middle of its answer") from error
        if not chunk:
            await self.aclose()
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """Close its connection."""
        if self._response is not None:
            self._response.close()


def _answer(node: str, found: tuple[int, dict[str, Any]] | None, seconds: float) -> NodeAnswer:
    """What a node has posted as its answer. Raises as if it had been asked."""
    if found is None:
        raise NodeUnreachable(node, f"it fetches its commands, and has not answered within {seconds:g} s")
    status, body = found
    if status >= 300:
        raise refusal(node, status, body)
    return NodeAnswer(status, body)


def _operations(node: str, body: Any) -> list[dict[str, Any]]:
    operations = body.get("operations") if isinstance(body, dict) else None
    if not isinstance(operations, list) or not all(isinstance(item, dict) for item in operations):
        raise NodeUnreachable(node, "it told of no operations")
    return operations


__all__ = ["PULL", "PUSH", "Channels", "NodeAnswer", "NodeCommand", "NodeRefused", "NodeStream", "NodeUnreachable"]
