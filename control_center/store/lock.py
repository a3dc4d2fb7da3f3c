"""The lock that the leading center holds."""

from __future__ import annotations

import asyncio
from typing import Protocol


class LeaderLock(Protocol):
    """Held by one center at a time, and by none that is dead."""

    async def acquire(self) -> bool:
        """Try once to get it; False: another center has it. Raises StoreError when the database is away."""

    async def lost(self) -> None:
        """Return as soon as it is not held any more, or that cannot be told."""

    async def release(self) -> None:
        """Give it back."""


class NoLock:
    """For a store that one center alone can open."""

    async def acquire(self) -> bool:
        """Always."""
        return True

    async def lost(self) -> None:
        """Never."""
        await asyncio.Event().wait()

    async def release(self) -> None:
        """There is nothing to give back."""
