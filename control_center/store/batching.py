"""Many small writes become few larger ones: what comes while one is under way waits for the next, together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Row = TypeVar("Row")


class Batching(Generic[Key, Row]):
    """Saves rows by key: the last one of a key counts."""

    def __init__(self, save: Callable[[list[Row]], Awaitable[None]]) -> None:
        self._save = save
        self._waiting: dict[Key, Row] = {}
        self._next: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def put(self, key: Key, row: Row) -> None:
        """Returns when this row, or a later one of its key, is saved; raises what `save` raises."""
        self._waiting[key] = row
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._run())
        await asyncio.shield(self._next)

    async def _run(self) -> None:
        async with self._turn:
            rows, self._waiting, self._next = list(self._waiting.values()), {}, None
            await self._save(rows)
