"""A registry in the memory of this process, and the backend that talks to it directly.

`EmbeddedRegistry` owns entries, expiry and revisions; it knows nothing of HTTP (see server.py). It belongs to one
event loop and is not safe to call from another thread. It forgets all when the process ends: a new one has a new
`epoch`, and whoever holds a lease registers again within a third of its ttl.

Expiry is one loop timer for a heap of records. A record has one live place in the heap, renewals only move its
`expires_at`; the timer that finds it renewed puts it back. So a renewal costs a dictionary look-up, an idle
registry has no timer, and reads first drop what is due, whether the timer came or not.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import os
import time
from collections.abc import AsyncGenerator, Callable, Sequence

from ..backend import LATENESS_SECONDS, MIN_TTL_SECONDS, Capability, Inspection, granted_ttl, stale_generation
from ..errors import LeaseLost, RegistryRejected, RegistryUnavailable
from ..model import Entry, Grant, LeaseKey, Snapshot

_TIMER_PAUSE = 0.02  # between two expiry runs, so that many renewed records do not mean as many wake-ups
_HEAP_SLACK = 64


class _Record:
    """An entry, when it expires, and at which place (instant) of the heap it stands."""

    __slots__ = ("entry", "expires_at", "queued_at", "ttl_seconds")

    def __init__(self, entry: Entry, ttl_seconds: float, expires_at: float) -> None:
        self.entry, self.ttl_seconds, self.expires_at = entry, ttl_seconds, expires_at
        self.queued_at = math.inf


class EmbeddedRegistry:
    """The store. Methods answer as `backend.Backend` says, without waiting."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, max_entries: int = 50_000) -> None:
        self._clock, self._max_entries = clock, max_entries
        self._services: dict[str, dict[str, _Record]] = {}
        self._count = 0
        self._heap: list[tuple[float, int, _Record]] = []
        self._pushes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._waiters: dict[str | None, set[asyncio.Future[None]]] = {}
        self._snapshots: dict[str | None, Snapshot] = {}
        self._closed = False
        self._start_epoch()

    def _start_epoch(self) -> None:
        self._epoch = os.urandom(8).hex()
        self._revision = 1  # so that since=0 means "whatever there is"
        self._revisions: dict[str, int] = {}  # of services that have entries
        self._emptied_at = 1  # the revision at which a service last became empty

    @property
    def revision(self) -> int:
        """Grows with each change that a reader can see."""
        self._expire()
        return self._revision

    @property
    def epoch(self) -> str:
        """Names this life of the registry."""
        return self._epoch

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    # -- holders -------------------------------------------------------------------------------------------------

    def register(self, entry: Entry, ttl_seconds: float) -> Grant:
        """See `Backend.register`. The ttl is kept within MIN_TTL_SECONDS and MAX_TTL_SECONDS."""
        self._begin("register", entry.key)
        ttl = granted_ttl(ttl_seconds)
        record = self._find(entry.service, entry.instance)
        if record is None:
            record = self._add(entry, ttl)
        else:
            _refuse_older("register", entry.key, record.entry)
            self._replace(record, entry)
        record.ttl_seconds, record.expires_at = ttl, self._clock() + ttl
        self._queue(record)
        return Grant(ttl, self._revision)

    def renew(self, keys: Sequence[LeaseKey]) -> frozenset[LeaseKey]:
        """See `Backend.renew`."""
        self._begin("renew", None)
        now, lost = self._clock(), []
        for key in keys:
            record = self._find(key.service, key.instance)
            if record is None or record.entry.generation != key.generation:
                lost.append(key)
            else:
                record.expires_at = now + record.ttl_seconds
        return frozenset(lost)

    def update(self, entry: Entry) -> None:
        """See `Backend.update`. Never prolongs."""
        self._begin("update", entry.key)
        record = self._find(entry.service, entry.instance)
        if record is not None:
            _refuse_older("update", entry.key, record.entry)
        if record is None or record.entry.generation != entry.generation:
            raise LeaseLost(f"cannot update {entry.key}: it is not registered")
        self._replace(record, entry)

    def deregister(self, key: LeaseKey) -> bool:
        """See `Backend.deregister`."""
        self._begin("deregister", key)
        record = self._find(key.service, key.instance)
        if record is None:
            return False
        _refuse_older("deregister", key, record.entry)
        self._remove(record)
        return True

    # -- readers -------------------------------------------------------------------------------------------------

    def get(self, service: str, instance: str) -> Entry | None:
        """See `Backend.get`."""
        self._begin("read", None)
        record = self._find(service, instance)
        return None if record is None else record.entry

    def list(self, service: str | None = None) -> Snapshot:
        """See `Backend.list`. The same object as long as nothing changes at all."""
        self._begin("list", None)
        snapshot = self._snapshots.get(service)
        if snapshot is None:
            names = [service] if service is not None else sorted(self._services)
            entries = (record.entry for name in names for _, record in sorted(self._services.get(name, {}).items()))
            snapshot = Snapshot(self._revision, self._epoch, service, tuple(entries))
            if service is None or service in self._services:  # other names are anybody's invention
                self._snapshots[service] = snapshot
        return snapshot

    def is_newer(self, service: str | None, since: int, epoch: str | None) -> bool:
        """Whether somebody who saw `service` at `since` (of `epoch`, None: unknown) has something to learn."""
        if self._closed:
            return True
        self._expire()
        if epoch not in (None, self._epoch) or since > self._revision:
            return True
        latest = self._revision if service is None else self._revisions.get(service, self._emptied_at)
        return latest > since

    async def wait(self, service: str | None) -> None:
        """Return after the next change of `service` (None: of any), or for no reason."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiters.setdefault(service, set())
        waiting.add(future)
        try:
            await future
        finally:
            waiting.discard(future)
            if not waiting and self._waiters.get(service) is waiting:
                del self._waiters[service]

    async def changed(self, service: str | None, since: int, epoch: str | None, wait_seconds: float) -> Snapshot:
        """The snapshot as soon as it `is_newer`, or as it is after `wait_seconds`."""
        try:
            async with asyncio.timeout(wait_seconds):
                while not self.is_newer(service, since, epoch):
                    await self.wait(service)
        except TimeoutError:
            pass
        return self.list(service)

    def wake(self) -> None:
        """Let everybody who waits look again."""
        waiters, self._waiters = self._waiters, {}
        for waiting in waiters.values():
            _release(waiting)

    # -- life ----------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Lose everything and start a new epoch, as a restart of the process does."""
        self._services, self._snapshots, self._heap, self._count = {}, {}, [], 0
        self._start_epoch()
        self._arm()
        self.wake()

    def close(self) -> None:
        """Drop everything; later calls raise RegistryRejected (`closed`)."""
        self._closed = True
        self.forget()

    def _begin(self, verb: str, key: LeaseKey | None) -> None:
        if self._closed:
            thing = "entries" if key is None else str(key)
            raise RegistryRejected(f"cannot {verb} {thing}: the registry is closed", code="closed")
        self._expire()

    # -- records -------------------------------------------------------------------------------------------------

    def _find(self, service: str, instance: str) -> _Record | None:
        return self._services.get(service, {}).get(instance)

    def _add(self, entry: Entry, ttl: float) -> _Record:
        if self._count >= self._max_entries:
            raise RegistryUnavailable(
                f"cannot register {entry.key}: the registry is full ({self._max_entries} entries)"
            )
        record = _Record(entry, ttl, math.inf)
        self._services.setdefault(entry.service, {})[entry.instance] = record
        self._count += 1
        self._note_change(entry.service)
        return record

    def _replace(self, record: _Record, entry: Entry) -> None:
        if record.entry != entry:
            record.entry = entry
            self._note_change(entry.service)

    def _remove(self, record: _Record) -> None:
        service, record.queued_at = record.entry.service, math.inf
        instances = self._services[service]
        del instances[record.entry.instance]
        self._count -= 1
        self._note_change(service)
        if not instances:
            del self._services[service], self._revisions[service]
            self._emptied_at = self._revision
        if len(self._heap) > 2 * self._count + _HEAP_SLACK or not self._count:
            self._rebuild_heap()

    def _note_change(self, service: str) -> None:
        self._revision += 1
        self._revisions[service] = self._revision
        self._snapshots.clear()
        for name in (service, None):
            _release(self._waiters.pop(name, ()))

    # -- expiry --------------------------------------------------------------------------------------------------

    def _queue(self, record: _Record) -> None:
        if record.expires_at < record.queued_at:  # else the place it has comes first, and will put it back
            record.queued_at = record.expires_at
            self._pushes += 1
            heapq.heappush(self._heap, (record.queued_at, self._pushes, record))
            self._arm()

    def _expire(self) -> None:
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            queued_at, _, record = heapq.heappop(self._heap)
            if record.queued_at != queued_at:
                continue  # removed since, or queued earlier
            record.queued_at = math.inf
            if record.expires_at <= now:
                self._remove(record)
            else:
                self._queue(record)

    def _rebuild_heap(self) -> None:
        """Throw out places of records that were removed: else removing often would grow the heap for a whole ttl."""
        self._heap = [item for item in self._heap if item[2].queued_at == item[0]]
        heapq.heapify(self._heap)
        self._arm()

    def _arm(self, not_before: float = -math.inf) -> None:
        due = max(self._heap[0][0], not_before) if self._heap else math.inf
        if self._timer is not None and (due < self._timer_at or not self._heap):
            self._timer.cancel()
            self._timer = None
        if self._timer is None and self._heap:
            delay = max(0.0, due - self._clock())
            self._timer, self._timer_at = asyncio.get_running_loop().call_later(delay, self._on_timer), due

    def _on_timer(self) -> None:
        self._timer_at = -math.inf  # no record queued below arms one: it is armed once, after all of them
        self._expire()
        self._timer = None
        self._arm(self._clock() + _TIMER_PAUSE)


class EmbeddedBackend:
    """The Backend over a registry in this process: the given one, or its own (which then ends with it)."""

    name = "embedded"
    capabilities = frozenset(Capability)

    def __init__(self, registry: EmbeddedRegistry | None = None, *, timeout_seconds: float = 2.0) -> None:
        self.timeout_seconds = timeout_seconds  # nothing here waits; accepted because every backend has it
        self._owned = registry is None
        self._registry = registry if registry is not None else EmbeddedRegistry()
        self._closed = False

    async def register(self, entry: Entry, ttl_seconds: float) -> Grant:
        """See `Backend.register`."""
        return self._open().register(entry, ttl_seconds)

    async def renew(self, keys: Sequence[LeaseKey]) -> frozenset[LeaseKey]:
        """See `Backend.renew`."""
        return self._open().renew(keys)

    async def update(self, entry: Entry) -> None:
        """See `Backend.update`."""
        self._open().update(entry)

    async def deregister(self, key: LeaseKey) -> bool:
        """See `Backend.deregister`."""
        return self._open().deregister(key)

    async def get(self, service: str, instance: str) -> Entry | None:
        """See `Backend.get`."""
        return self._open().get(service, instance)

    async def list(self, service: str | None = None) -> Snapshot:
        """See `Backend.list`."""
        return self._open().list(service)

    async def watch(
        self, service: str | None = None, since: int = 0, epoch: str | None = None
    ) -> AsyncGenerator[Snapshot, None]:
        """See `Backend.watch`."""
        registry = self._open()
        while True:
            while not self._closed and not registry.is_newer(service, since, epoch):
                await registry.wait(service)
            if self._closed or registry.closed:
                return
            snapshot = registry.list(service)
            since, epoch = snapshot.revision, snapshot.epoch
            yield snapshot

    async def inspect(self, ttl_seconds: float) -> Inspection:
        """See `Backend.inspect`."""
        self._open()
        return Inspection(granted_ttl(ttl_seconds), clock=time.time())

    def removal_bound(self, ttl_seconds: float) -> float:
        """See `Backend.removal_bound`."""
        return max(ttl_seconds, MIN_TTL_SECONDS) + LATENESS_SECONDS

    async def close(self) -> None:
        """See `Backend.close`."""
        self._closed = True
        if self._owned:
            self._registry.close()
        else:
            self._registry.wake()

    def _open(self) -> EmbeddedRegistry:
        if self._closed:
            raise RegistryRejected("cannot use the registry: this client of it is closed", code="closed")
        return self._registry


def _refuse_older(verb: str, key: LeaseKey, held: Entry) -> None:
    if held.generation > key.generation:
        raise stale_generation(verb, key, held.generation)


def _release(waiting: set[asyncio.Future[None]] | tuple[()]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)
