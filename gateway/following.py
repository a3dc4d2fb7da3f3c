"""Follows the registry: every snapshot goes through pool.py, and whoever feeds gateways is told the pools.

It owns one watch of all services. As long as pool.py holds something back, it reads the registry itself when the time
has come: a watch that says nothing proves nothing. Now and then it asks whether the registry still answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from time import monotonic

from registry_client.backend import Backend
from registry_client.errors import RegistryError
from registry_client.model import Snapshot

from .model import NODE_SERVICE, Pool
from .pool import PoolPolicy, Pools, decide, restored

log = logging.getLogger("unit-gateway.registry")

AWAY_SECONDS = 15.0  # without an answer it is called away
PAUSES = 4  # times as long as it took to take in a snapshot, the next one may wait; what comes meanwhile comes at once


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the registry is asked. `again_seconds`: the least time between two decisions for the time's sake.

    `read_seconds`: so often all of it is read, whatever the watch says.
    """

    ask_seconds: float = 5.0
    retry_seconds: float = 1.0
    again_seconds: float = 0.5
    read_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class RegistryState:
    """How the registry is, for people. `state`: "ok", "away", or "unknown" when it has never answered."""

    backend: str
    state: str
    seconds_ago: float | None
    revision: int | None
    epoch: str | None
    detail: str = ""


class Following:
    """What gateways should know, as decided from what the registry says and has said."""

    def __init__(
        self,
        backend: Backend,
        policy: PoolPolicy,
        on_pools: Callable[[Mapping[str, Pool]], None],
        last_good: Iterable[Pool] = (),
        pace: Pace | None = None,
    ) -> None:
        """`on_pools` is called with all pools, by service, whenever one of them has changed."""
        self._backend, self._policy, self._on_pools, self._pace = backend, policy, on_pools, pace or Pace()
        self._pools = restored(last_good)
        self._snapshot: Snapshot | None = None
        self._answered_at: float | None = None
        self._error = ""
        self._decided = asyncio.Event()  # anew: the time to decide again may have changed
        self._tried = asyncio.Event()

    # What is known.

    @property
    def pools(self) -> Mapping[str, Pool]:
        """The pools as last decided; before the first snapshot, those of the last good set."""
        return self._pools.by_service

    @property
    def has_heard(self) -> bool:
        """Whether the registry has told anything since the start."""
        return self._snapshot is not None

    @property
    def state(self) -> RegistryState:
        """How the registry is."""
        age = None if self._answered_at is None else monotonic() - self._answered_at
        word = "unknown" if age is None else "ok" if age <= AWAY_SECONDS and not self._error else "away"
        last = self._snapshot
        return RegistryState(
            self._backend.name, word, age, last.revision if last else None, last.epoch if last else None, self._error
        )

    async def tried(self) -> None:
        """Until the registry has told its first snapshot, or has been found away."""
        await self._tried.wait()

    # Keeping it.

    async def run(self) -> None:
        """For ever."""
        if self._pools.by_service:
            count = len(self._pools.by_service)
            log.info("beginning with what was last known of %d service(s), until the registry answers", count)
            self._on_pools(self._pools.by_service)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._ask())
            group.create_task(self._decide_in_time())

    async def _watch(self) -> None:
        told = ""
        while True:
            try:
                async with aclosing(self._backend.watch(None)) as snapshots:
                    async for snapshot in snapshots:
                        began = monotonic()
                        self._take(snapshot)
                        # A large registry that changes all the time must leave time for feeding.
                        await asyncio.sleep(PAUSES * (monotonic() - began))
            except RegistryError as error:
                if getattr(error, "code", "") == "closed":
                    return
                if told != str(error):  # it is tried again and again
                    log.warning("cannot watch the registry: %s; trying again and again", error)
                told = str(error)
            await asyncio.sleep(self._pace.retry_seconds)

    async def _ask(self) -> None:
        """The watch of a registry that is away says nothing at all, like that of one where nothing happens."""
        read_at = monotonic() + self._pace.read_seconds
        while True:
            if monotonic() >= read_at:  # nothing that a watch has lost stays lost
                self._take(await self._read())
                read_at = monotonic() + self._pace.read_seconds
            else:
                await self._ask_once()
            await asyncio.sleep(self._pace.ask_seconds)

    async def _ask_once(self) -> None:
        try:
            await self._backend.get(NODE_SERVICE, NODE_SERVICE)
            self._answered()
        except RegistryError as error:
            self._silent(error)

    async def _decide_in_time(self) -> None:
        """What is held back is decided when its time has come, on what the registry says then, if it says anything."""
        while True:
            self._decided.clear()
            if not await self._until(self._pools.next_at):
                continue  # there was a decision meanwhile
            self._take(await self._read())
            await asyncio.sleep(self._pace.again_seconds)

    async def _until(self, at: float | None) -> bool:
        try:
            async with asyncio.timeout(None if at is None else max(0.0, at - monotonic())):
                await self._decided.wait()
        except TimeoutError:
            return True
        return False

    async def _read(self) -> Snapshot | None:
        try:
            return await self._backend.list(None)
        except RegistryError as error:
            self._silent(error)
            return None

    def _answered(self) -> None:
        self._answered_at = monotonic()
        if self._error:
            log.info("the registry answers again")
        self._error = ""

    def _silent(self, error: RegistryError) -> None:
        if getattr(error, "code", "") == "closed":
            return
        if not self._error:
            log.warning("the registry does not answer, gateways keep what they have: %s", error)
        self._error = str(error)
        self._tried.set()

    def _take(self, snapshot: Snapshot | None) -> None:
        """Decide on a snapshot; None: only time has passed."""
        old = self._snapshot
        if snapshot is not None:
            self._answered()
            if old is not None and old.epoch == snapshot.epoch and snapshot.revision < old.revision:
                return  # overtaken on its way
            if old is not None and old.epoch != snapshot.epoch:
                log.warning("the registry has begun anew: what it does not list is kept for a while")
            self._snapshot = snapshot
        before, self._pools = self._pools, decide(self._pools, snapshot, monotonic(), self._policy)
        self._decided.set()
        self._tried.set()
        if old is None or _differ(before, self._pools):
            self._on_pools(self._pools.by_service)


def _differ(before: Pools, after: Pools) -> bool:
    """Whether any pool is another one; unchanged ones are the same objects."""
    old, new = before.by_service, after.by_service
    return old is not new and (len(old) != len(new) or any(old.get(name) is not pool for name, pool in new.items()))
