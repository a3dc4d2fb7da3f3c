"""Follows the registry: what the center knows of services and nodes, and how sure it may be of it.

It owns one watch of all services, and now and then asks for what it cannot miss: whether the registry still answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from time import monotonic

from registry_client.backend import Backend
from registry_client.errors import RegistryError
from registry_client.model import Entry, Snapshot

from .fleet import Fleet
from .model import NODE_SERVICE

log = logging.getLogger("unit-center.registry")

ASK_SECONDS = 5.0
AWAY_SECONDS = 15.0  # without an answer, what was last heard says nothing of now
RETRY_SECONDS = 1.0
PAUSES = 9  # times as long as it took to take in a snapshot, the next one may wait; what comes meanwhile comes at once


class Following:
    """The last complete snapshot of the registry, as a `Fleet`."""

    def __init__(
        self, backend: Backend, young_seconds: float, on_change: Callable[[], None], *, begins_empty: bool = False
    ) -> None:
        """`young_seconds`: a registry that has lost its memory has everything again after that.

        `begins_empty`: it begins together with this center, since it is hosted here.
        """
        self._backend, self._young_seconds, self._on_change = backend, young_seconds, on_change
        self._begins_empty = begins_empty
        self._fleet: Fleet | None = None
        self._snapshot: Snapshot | None = None
        self._answered_at: float | None = None
        self._complete_at: float | None = None  # None: since we can think of
        self._waiters: set[asyncio.Future[None]] = set()

    # What is known.

    @property
    def fleet(self) -> Fleet | None:
        """What was last heard, however long ago; None: nothing yet. For showing, not for deciding."""
        return self._fleet

    def certain(self) -> Fleet | None:
        """What may be decided on; None while the registry is away, or has come back empty and is filling again."""
        return None if self.doubt() else self._fleet

    def doubt(self) -> str:
        """Why nothing may be decided now; "" if it may."""
        age = self.age_seconds
        if self._fleet is None or age is None:
            return "the registry has not answered yet"
        if age > AWAY_SECONDS:
            return f"the registry has not answered for {age:.0f} s"
        if self._complete_at is not None and (left := self._complete_at - monotonic()) > 0:
            return f"the registry has begun anew: units get {left:.0f} s more to register again"
        return ""

    @property
    def age_seconds(self) -> float | None:
        """Seconds since the registry's last answer; None: there was none."""
        return None if self._answered_at is None else monotonic() - self._answered_at

    @property
    def revision(self) -> int:
        """Of the last snapshot."""
        return self._snapshot.revision if self._snapshot else 0

    def node_entry(self, node: str) -> Entry | None:
        """Where a node's API listens, as far as is known."""
        return self._fleet.node(node) if self._fleet else None

    # Keeping it.

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._ask())

    async def refresh(self) -> Fleet | None:
        """Read all of it now, past whatever a watch may still be about to tell; None: nothing may be decided."""
        try:
            self._take(await self._backend.list(None))
        except RegistryError as error:
            log.debug("cannot read the registry: %s", error)
            return None
        return self.certain()

    async def changed(self, seconds: float) -> None:
        """Until something has changed, or the time is over."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            pass
        finally:
            self._waiters.discard(waiter)

    async def _watch(self) -> None:
        told = ""
        while True:
            try:
                async with aclosing(self._backend.watch(None)) as snapshots:
                    async for snapshot in snapshots:
                        began = monotonic()
                        self._take(snapshot)
                        # A large fleet that changes all the time must not leave time for nothing else.
                        await asyncio.sleep(PAUSES * (monotonic() - began))
            except RegistryError as error:
                if getattr(error, "code", "") == "closed":
                    return
                if told != str(error):  # it is tried each second
                    log.warning("cannot watch the registry: %s; trying again every %g s", error, RETRY_SECONDS)
                told = str(error)
            await asyncio.sleep(RETRY_SECONDS)

    async def _ask(self) -> None:
        """The watch of a registry that is away says nothing at all, like that of one where nothing happens."""
        was_away = False
        while True:
            try:
                await self._backend.get(NODE_SERVICE, NODE_SERVICE)
                self._answered_at = monotonic()
                if was_away:
                    log.info("the registry answers again")
                was_away = False
            except RegistryError as error:
                if not was_away:
                    log.warning("the registry does not answer: %s", error)
                was_away = True
                self._tell()
            await asyncio.sleep(ASK_SECONDS)

    def _take(self, snapshot: Snapshot) -> None:
        old = self._snapshot
        self._answered_at = monotonic()
        if old is not None and old.epoch == snapshot.epoch and snapshot.revision < old.revision:
            return  # overtaken on its way
        if old is None or old.epoch != snapshot.epoch:
            self._begin(is_first=old is None)
        elif old.revision == snapshot.revision:
            return
        self._snapshot = snapshot
        self._fleet = Fleet.of(snapshot, self._fleet)
        self._tell()

    def _begin(self, *, is_first: bool) -> None:
        """Another life of the registry: it may have lost its memory, and what is not there yet may still come."""
        if self._begins_empty or not is_first:
            self._complete_at = monotonic() + self._young_seconds
            asyncio.get_running_loop().call_later(self._young_seconds + 0.01, self._tell)
        if not is_first:
            log.warning("the registry has begun anew; nothing is decided for %g s", self._young_seconds)

    def _tell(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._on_change()
