"""Coalescing: what is asked for within a moment is done in one round, and no round begins before the last has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from ..errors import GatewayError

Refusals = Mapping[str, GatewayError]  # by service

_URGENT = 10  # times sooner than what can wait
_APART = 4  # of the time to coalesce is between two rounds at least


class Rounds:
    """`perform` does all that has been asked for until it is called; what it returns, or raises, all get who asked."""

    def __init__(self, perform: Callable[[], Awaitable[Refusals]], coalesce_seconds: float) -> None:
        self._perform, self._coalesce_seconds = perform, coalesce_seconds
        self._performing = asyncio.Lock()
        self._next: asyncio.Task[Refusals] | None = None
        self._due, self._ended = 0.0, float("-inf")
        self._sooner = asyncio.Event()
        self._tasks: set[asyncio.Task[Refusals]] = set()

    async def join(self, *, urgent: bool) -> Refusals:
        """Take part in the round that begins next; returns when it has ended."""
        now = asyncio.get_running_loop().time()
        due = now + self._coalesce_seconds / (_URGENT if urgent else 1)
        if self._next is None:
            self._due = due
            self._next = self._begin()
        elif due < self._due:
            self._due = due
            self._sooner.set()
        return await asyncio.shield(self._next)

    async def close(self) -> None:
        """Give up what has not been done."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self) -> asyncio.Task[Refusals]:
        task = asyncio.create_task(self._run())
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Refusals]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen, though all who asked may have been cancelled

    async def _run(self) -> Refusals:
        await self._wait()
        async with self._performing:
            await asyncio.sleep(self._ended + self._coalesce_seconds / _APART - asyncio.get_running_loop().time())
            self._next = None
            try:
                return await self._perform()
            finally:
                self._ended = asyncio.get_running_loop().time()

    async def _wait(self) -> None:
        while (left := self._due - asyncio.get_running_loop().time()) > 0:
            self._sooner.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._sooner.wait()
