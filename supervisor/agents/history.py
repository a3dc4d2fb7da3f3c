"""The newest events of all units, for people who look back and for streams that resume."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ..host.clock import iso

KEPT = 512
LIFE_BITS = 32  # of `seq` are for one life of the daemon


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One thing that happened; `seq` grows by one."""

    seq: int
    at: str
    unit: str
    type: str  # the state's word in lower case, or what was reported
    text: str


class History:
    """A ring of events."""

    def __init__(self, life: int = 0) -> None:
        """`life` is how often a daemon has begun here: later ones continue the numbers of earlier ones."""
        self._events: deque[HistoryEvent] = deque(maxlen=KEPT)
        self._seq = life << LIFE_BITS
        self._changed: asyncio.Event | None = None  # only while somebody waits

    def add(self, unit: str, kind: str, text: str) -> None:
        """Note an event."""
        self._seq += 1
        self._events.append(HistoryEvent(self._seq, iso(), unit, kind, text))
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def since(self, seq: int) -> list[HistoryEvent]:
        """Those after `seq` that are still kept, oldest first; all, if `seq` is of an earlier life of the daemon."""
        if seq > self._seq:
            seq = 0
        return [event for event in self._events if event.seq > seq]

    async def follow(self, seq: int) -> AsyncIterator[HistoryEvent]:
        """Those after `seq`, then new ones as they come. Who reads too slowly misses some: `seq` tells."""
        while True:
            for event in self.since(seq):
                seq = event.seq
                yield event
            if self._seq > seq:
                continue  # they came while the last one was being read
            if self._changed is None:
                self._changed = asyncio.Event()
            await self._changed.wait()
