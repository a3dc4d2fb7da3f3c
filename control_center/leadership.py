"""Which of several centers acts: the one that holds the store's lock.

Holding it is not enough, for a center may be frozen, lose the lock without knowing, and wake up again. So each leader
has an epoch, and the store refuses writes with a lower one than the last that led: what the watch here notices too
late, that refuses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from .errors import StoreError
from .store import LeaderLock, Store

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0


class Leadership:
    """Tries for ever to lead, and tells when this center does (its epoch) and when it does not any more (None)."""

    def __init__(self, store: Store, name: str, on_change: Callable[[int | None], None]) -> None:
        self._store, self._name, self._on_change = store, name, on_change
        self._trouble = ""

    async def run(self) -> None:
        """Until it is cancelled; then the lock is given back, and `on_change` is told."""
        lock = self._store.leader_lock()
        try:
            while True:
                await self._try(lock)
                await asyncio.sleep(_AGAIN_SECONDS)
        finally:
            await lock.release()

    async def _try(self, lock: LeaderLock) -> None:
        try:
            if await lock.acquire():
                epoch = await self._store.lead(self._name)
                await self._lead(lock, epoch)
                await lock.release()
            self._trouble = ""
        except StoreError as error:
            await lock.release()
            self._complain(str(error))

    async def _lead(self, lock: LeaderLock, epoch: int) -> None:
        log.info("this control center leads (epoch %d)", epoch)
        try:
            self._on_change(epoch)
            await lock.lost()
            log.warning("the leader's lock is lost: this control center does not lead any more")
        finally:
            self._on_change(None)

    def _complain(self, trouble: str) -> None:
        """Once: it is tried each second."""
        if trouble != self._trouble:
            log.warning("cannot find out who leads: %s; trying again", trouble)
        self._trouble = trouble
