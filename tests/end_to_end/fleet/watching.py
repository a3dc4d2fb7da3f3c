"""What an outsider sees of a fleet: requests to its services, and every snapshot of the registry's watch."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager

from bench.load import Load, Mix, following
from registry_client import Entry, Snapshot, open_backend

READY_SECONDS = 15.0
MIX = Mix(slow=0.05, echo=0.2, kept=0.5, slow_seconds=0.5)


class Outside:
    """Loads on services, and what the registry showed meanwhile."""

    def __init__(self, url: str, services: Iterable[str], rate: float) -> None:
        self._url, self._rate = url, rate
        self.loads = {service: Load(rate, MIX, seed=number) for number, service in enumerate(services)}
        self.snapshots: list[Snapshot] = []
        self.broken: BaseException | None = None
        self._ready, self._enough = threading.Event(), threading.Event()

    def run(self) -> None:
        """In a thread of its own."""
        try:
            asyncio.run(self._run())
        except BaseException as error:
            self.broken = error
            self._ready.set()

    async def _run(self) -> None:
        async with AsyncExitStack() as stack:
            for service, load in self.loads.items():
                await stack.enter_async_context(following(load, open_backend("http", url=self._url), service))
                await load.until(bool, READY_SECONDS)
            watching = asyncio.create_task(self._watch())
            enough = asyncio.Event()
            running = [asyncio.create_task(load.run(enough)) for load in self.loads.values()]
            for load in self.loads.values():
                async with asyncio.timeout(READY_SECONDS):
                    await load.steady.wait()
            self._ready.set()
            await asyncio.to_thread(self._enough.wait)
            enough.set()
            await asyncio.gather(*running)
            watching.cancel()
            await asyncio.wait([watching])

    async def _watch(self) -> None:
        backend = open_backend("http", url=self._url)
        try:
            async with aclosing(backend.watch(None)) as snapshots:
                async for snapshot in snapshots:
                    self.snapshots.append(snapshot)
        finally:
            await backend.close()

    # What came of it.

    def failures(self) -> dict[str, int]:
        """Why requests failed, and how many."""
        return Counter(
            f"{service}: {request.kind}: {request.failure}"
            for service, load in self.loads.items()
            for request in load.requests
            if request.failure
        )

    def count(self) -> int:
        """All requests."""
        return sum(len(load.requests) for load in self.loads.values())

    def lowest(self, service: str, epoch: str | None = None) -> int:
        """The least weight that a snapshot showed of a service; draining instances have none."""
        shown = [snapshot for snapshot in self.snapshots if epoch is None or snapshot.epoch == epoch]
        return min(sum(map(_weight, _of(snapshot, service))) for snapshot in shown)

    def weights(self, instance: str) -> list[int]:
        """What snapshots showed of an instance, one after the other; equal ones once."""
        shown = [
            entry.weight for snapshot in self.snapshots for entry in snapshot.entries if entry.instance == instance
        ]
        return [weight for weight, before in zip(shown, [None, *shown], strict=False) if weight != before]


def _of(snapshot: Snapshot, service: str) -> list[Entry]:
    return [entry for entry in snapshot.entries if entry.service == service]


def _weight(entry: Entry) -> int:
    return 0 if entry.status == "draining" else entry.weight


@contextmanager
def watched(url: str, services: Iterable[str], rate: float = 40.0) -> Iterator[Outside]:
    """Within it each service gets so many requests a second, and the registry is watched; figures are there after it."""
    outside = Outside(url, services, rate)
    thread = threading.Thread(target=outside.run)
    thread.start()
    try:
        assert outside._ready.wait(READY_SECONDS * 2), "the load has not begun"
        yield outside
    finally:
        outside._enough.set()
        thread.join()
    if outside.broken is not None:
        raise outside.broken
