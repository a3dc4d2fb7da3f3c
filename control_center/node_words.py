"""Asks a node what it says of its own unit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from registry_client.model import Entry

from .channels import Channels
from .errors import NodeRefused, NodeUnreachable
from .guard import Word

ASK_SECONDS = 2.0
KEPT_SECONDS = 3.0  # an answer is good for so long
_UP = ("RUNNING", "WARMING", "UNHEALTHY")


@dataclass(frozen=True, slots=True)
class NodeSays:
    """A node's word on its unit, and when it was asked (unix time)."""

    word: Word
    detail: str
    at: float


class NodeWords:
    """What nodes have said lately."""

    def __init__(self, channels: Channels, wall: Callable[[], float]) -> None:
        self._channels, self._wall = channels, wall
        self._said: dict[tuple[str, int], NodeSays] = {}  # (instance, generation) -> answer

    def latest(self, entry: Entry) -> NodeSays | None:
        """What the node said a moment ago; None: it must be asked."""
        says = self._said.get((entry.instance, entry.generation))
        return says if says is not None and 0 <= self._wall() - says.at <= KEPT_SECONDS else None

    async def ask(self, entries: Iterable[Entry]) -> None:
        """Ask the nodes of these; who has not answered within ASK_SECONDS counts as unreachable for now."""
        now = self._wall()
        self._said = {key: says for key, says in self._said.items() if 0 <= now - says.at <= KEPT_SECONDS}
        by_node: dict[str, list[Entry]] = {}
        for entry in entries:
            by_node.setdefault(entry.node, []).append(entry)
        async with asyncio.TaskGroup() as group:
            for asked in by_node.values():
                group.create_task(self._ask_node(asked))

    async def _ask_node(self, entries: Sequence[Entry]) -> None:
        """One question after the other, and none more once it cannot be reached."""
        left = list(entries)
        detail = f"{entries[0].node} does not answer within {ASK_SECONDS:g} s"
        try:
            async with asyncio.timeout(ASK_SECONDS):
                while left:
                    self._put(left[0], *await self._word(left[0]))
                    del left[0]
        except TimeoutError:
            pass
        except NodeUnreachable as error:
            detail = error.reason
        for entry in left:
            self._put(entry, Word.UNREACHABLE, detail)

    def _put(self, entry: Entry, word: Word, detail: str) -> None:
        self._said[entry.instance, entry.generation] = NodeSays(word, detail, self._wall())

    async def _word(self, entry: Entry) -> tuple[Word, str]:
        try:
            status = await self._channels.get(entry.node, f"/v1/units/{quote(entry.unit, safe=':')}")
        except NodeRefused as error:
            return Word.UNCLEAR, f"{entry.node} does not tell: {error.detail}"
        return word_of(status, entry.generation)


def word_of(status: Any, generation: int) -> tuple[Word, str]:
    """What a unit's status (as the node's API gives it) says of that generation, and in which words."""
    if not isinstance(status, Mapping) or not isinstance(status.get("generation"), int):
        return Word.UNCLEAR, "its node does not know the unit"
    state, why = str(status.get("state")), str(status.get("why") or status.get("state"))
    if status["generation"] > generation:
        return Word.NEWER, f"generation {status['generation']}, {state}"
    if status.get("operation") or state not in _UP:
        return Word.BUSY, why
    if state == "UNHEALTHY" or not status.get("live") or not status.get("ready") or _failing(status):
        return Word.UNHEALTHY, why
    return Word.HEALTHY, why


def _failing(status: Mapping[str, Any]) -> bool:
    """A probe of the node's has failed, even if not yet often enough to be believed."""
    probes = status.get("probes") or ()
    return any(probe.get("ok") is False or (probe.get("streak") or 0) < 0 for probe in probes)
