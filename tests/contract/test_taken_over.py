"""An entry whose holder has died and is held by another one: readers never miss it. Over each backend of conftest.SITES."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from registry_client import LeaseKey
from tests.contract.test_backends import entry


async def test_an_entry_that_another_client_registers_again_is_there_at_every_moment(site: Any) -> None:
    """The first client is not closed: its connection, or session, is that of a process that was killed."""
    first, second, reader = site.open(), site.open(), site.open()
    held = entry(weight=50)
    await first.register(held, 10)
    missing, looks, enough = [], 0, asyncio.Event()

    async def watch() -> None:
        async with aclosing(reader.watch("cart")) as snapshots:
            async for snapshot in snapshots:
                if not snapshot.entries:
                    missing.append("watch")

    async def look() -> None:
        nonlocal looks
        while not enough.is_set():
            if await reader.get("cart", held.instance) is None:
                missing.append("get")
            looks += 1
            await asyncio.sleep(0)

    watching, looking = asyncio.create_task(watch()), asyncio.create_task(look())
    for _ in range(5):
        await second.register(held, 10)
        await asyncio.sleep(0.05)
    assert await second.renew([LeaseKey("cart", held.instance, held.generation)]) == frozenset()
    enough.set()
    watching.cancel()
    await asyncio.wait([watching, looking])
    looking.result()

    assert (missing, await reader.get("cart", held.instance)) == ([], held)
    assert looks > 5


async def test_an_entry_outlives_the_client_that_registered_it_first(site: Any) -> None:
    """What the first one leaves behind (a lease, a session) ends, and takes nothing along."""
    first, second = site.open(), site.open()
    held = entry()
    await first.register(held, 1)
    grant = await second.register(held, 1)
    if first is not second:  # the fake is one for all
        await first.close()
    key = LeaseKey("cart", held.instance, held.generation)
    ends = asyncio.get_running_loop().time() + 2.5 * grant.ttl_seconds
    while asyncio.get_running_loop().time() < ends:
        assert await second.renew([key]) == frozenset()
        assert await second.get("cart", held.instance) == held
        await asyncio.sleep(0.1)
