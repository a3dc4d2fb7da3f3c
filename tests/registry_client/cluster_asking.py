"""What the tests of clusters share: an entry, a client that is closed, and questions that are asked until they are answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from registry_client import Entry, RegistryUnavailable, Snapshot, open_backend
from registry_client.backend import Backend

DEADLINE = 12.0
OUTAGE_SECONDS = 18.0  # a whole test with a fault in it
GOOD_IN_A_ROW = 10


def entry(service: str, instance: str = "n/1", **changes: Any) -> Entry:
    values: dict[str, Any] = {"node": "n", "unit": "cart", "address": "10.0.0.1", "port": 80, "generation": 3}
    return Entry(service=service, instance=instance, started_at="2026-11-23T06:29:10.123Z", **{**values, **changes})


@asynccontextmanager
async def client(name: str, url: str, **options: Any) -> AsyncIterator[Backend]:
    """A client, closed at the end."""
    backend = open_backend(name, url=url, **{"timeout_seconds": 1.0, **options})
    try:
        yield backend
    finally:
        await backend.close()


async def stays_held(backend: Backend, item: Entry) -> None:
    """Renew and read an entry until that has gone well for a while; it is neither lost nor absent in between."""
    began, good = time.monotonic(), 0
    async with asyncio.timeout(DEADLINE):
        while good < GOOD_IN_A_ROW:
            try:
                assert await backend.renew([item.key]) == frozenset()
                assert await backend.get(item.service, item.instance) is not None
                good += 1
            except RegistryUnavailable:
                good = 0
                await asyncio.sleep(0.02)
    print(f"{backend.name}: answers again {time.monotonic() - began:.1f} s after the fault")


async def eventually(attempt: Callable[[], Awaitable[object]]) -> None:
    """Return when the attempt answers something true; an unavailable registry does not count."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                if await attempt():
                    return
            except RegistryUnavailable:
                pass
            await asyncio.sleep(0.02)


async def updated(backend: Backend, item: Entry) -> None:
    """Write it, as soon as there is somebody to write it."""

    async def attempt() -> bool:
        await backend.update(item)
        return True

    await eventually(attempt)


async def next_with(watch: AsyncGenerator[Snapshot, None], weight: int, within_seconds: float = DEADLINE) -> Snapshot:
    """The next snapshot whose only entry has this weight; it is never empty before that."""
    async with asyncio.timeout(within_seconds):
        while True:
            snapshot = await anext(watch)
            assert len(snapshot.entries) == 1
            if snapshot.entries[0].weight == weight:
                return snapshot


async def refused(*calls: Awaitable[object]) -> None:
    """Each says that there is no answer, and says it soon."""
    for call in calls:
        began = time.monotonic()
        with pytest.raises(RegistryUnavailable):
            await call
        assert time.monotonic() - began < DEADLINE / 2
