"""Who waits for a change of the store, and wakes them. Knows topics, not what they stand for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

ALL = "*"
_MOST_TOPICS = 10_000  # that are remembered one by one


class Changes:
    """Numbers changes, and knows the last one of each topic; "" is all of them."""

    __slots__ = ("_floor", "_last", "_number", "_waiters")

    def __init__(self) -> None:
        self._number = self._floor = 0
        self._last: dict[str, int] = {}
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}

    def count(self, topic: str = "") -> int:
        """The number of the last change of a topic; only good for comparison with itself."""
        return self._last.get(topic, self._floor) if topic else self._number

    def tell(self, topics: Iterable[str]) -> None:
        """These have changed; ALL stands for every topic there is."""
        changed = set(topics)
        if not changed:
            return
        self._number += 1
        if ALL in changed or len(self._last) > _MOST_TOPICS:  # topics of commands come and go for ever
            changed = set(self._waiters)
            self._floor = self._number
            self._last.clear()
        else:
            self._last.update(dict.fromkeys(changed, self._number))
            changed.add("")
        for topic in changed:
            for waiter in self._waiters.pop(topic, ()):
                if not waiter.done():
                    waiter.set_result(None)

    async def wait(self, seen: int, seconds: float, topic: str = "") -> int:
        """The count, as soon as it is not `seen` any more or the time is over."""
        if self.count(topic) == seen:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(topic, set()).add(waiter)
            try:
                async with asyncio.timeout(seconds):
                    await waiter
            except TimeoutError:
                pass
            finally:
                self._forget(topic, waiter)
        return self.count(topic)

    def _forget(self, topic: str, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiters.get(topic)
        if waiters is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[topic]
