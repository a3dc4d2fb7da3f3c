"""backends/embedded.py: what the contract suite cannot see from outside (clock, timers, memory)."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from typing import Any

import pytest

from registry_client import Entry, LeaseKey, RegistryRejected, RegistryUnavailable
from registry_client.backends.embedded import EmbeddedBackend, EmbeddedRegistry


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def entry(instance: str = "n/1", service: str = "s", **changes: Any) -> Entry:
    values: dict[str, Any] = {"node": "n", "unit": "u", "address": "127.0.0.1", "port": 1, "generation": 1}
    values |= {"started_at": "2026-11-23T06:29:10.123Z"} | changes
    return Entry(service=service, instance=instance, **values)


async def test_an_entry_is_never_read_after_its_ttl_though_no_timer_came() -> None:
    clock = Clock()
    registry = EmbeddedRegistry(clock=clock)
    registry.register(entry(), 10)
    clock.now += 9.999
    assert registry.get("s", "n/1") == entry()
    clock.now += 0.001
    assert registry.get("s", "n/1") is None
    assert registry.list().entries == ()
    assert registry.renew([entry().key]) == {entry().key}


async def test_each_reader_and_holder_call_looks_at_the_clock_first() -> None:
    clock = Clock()
    for look in (
        lambda registry: registry.list().entries,
        lambda registry: registry.deregister(entry().key) or (),
        lambda registry: () if registry.is_newer("s", 2, None) else ("unchanged",),
        lambda registry: () if registry.revision == 3 else ("unchanged",),
    ):
        registry = EmbeddedRegistry(clock=clock)
        registry.register(entry(), 10)
        clock.now += 10
        assert look(registry) == ()


async def test_the_ttl_is_kept_within_its_bounds() -> None:
    registry = EmbeddedRegistry()
    assert registry.register(entry(), 0.001).ttl_seconds == 0.5
    assert registry.register(entry(), 1e9).ttl_seconds == 3600
    for wrong in ("10", None, True, -1):
        with pytest.raises(RegistryRejected) as caught:
            registry.register(entry(), wrong)  # type: ignore[arg-type]
        assert caught.value.code == "bad_ttl"
    registry.close()


async def test_a_full_registry_refuses_new_entries_and_keeps_the_old_ones() -> None:
    registry = EmbeddedRegistry(max_entries=2)
    registry.register(entry("n/1"), 10)
    registry.register(entry("n/2"), 10)
    with pytest.raises(RegistryUnavailable, match="full"):
        registry.register(entry("n/3"), 10)
    registry.register(entry("n/1", weight=5), 10)
    registry.deregister(entry("n/2").key)
    registry.register(entry("n/3"), 10)
    assert [item.instance for item in registry.list().entries] == ["n/1", "n/3"]
    registry.close()


async def test_expiry_comes_within_fifty_milliseconds_for_many_entries() -> None:
    registry, late = EmbeddedRegistry(), []
    due = {}
    for number in range(200):
        item = entry(f"n/{number}")
        due[item.instance] = time.monotonic() + registry.register(item, 0.5 + number / 1000).ttl_seconds
    while due:
        await registry.wait("s")
        now, left = time.monotonic(), {item.instance for item in registry.list().entries}
        for instance in set(due) - left:
            late.append(now - due.pop(instance))
    assert len(late) == 200
    assert sorted(late)[100] < 0.05  # a busy machine may be late, but not most of the time
    assert min(late) > -0.01


async def test_there_is_no_timer_without_entries() -> None:
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []
    real, loop.call_later = loop.call_later, lambda *a, **k: timers.append(real(*a, **k)) or timers[-1]  # type: ignore
    registry = EmbeddedRegistry()
    assert not timers
    registry.register(entry(), 3600)
    registry.register(entry(), 100)
    assert [timer.cancelled() for timer in timers] == [True, False]
    registry.deregister(entry().key)
    assert all(timer.cancelled() for timer in timers)
    registry.register(entry(), 100)
    registry.forget()
    assert all(timer.cancelled() for timer in timers)


async def test_renewing_and_removing_often_does_not_grow_the_memory() -> None:
    registry = EmbeddedRegistry()
    keys = []
    for number in range(1000):
        registry.register(entry(f"n/{number}"), 3600)
        keys.append(LeaseKey("s", f"n/{number}", 1))
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(20):
        registry.renew(keys)
    for number in range(10_000):
        registry.register(entry("n/x"), 3600 - number % 7)
        registry.register(entry("n/x"), 1 + number % 7)
        registry.deregister(LeaseKey("s", "n/x", 1))
        registry.is_newer(f"nobody {number}", 1, None)
        registry.list(f"nobody {number}")
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 1_000_000
    assert len(registry.list().entries) == 1000
    registry.close()


async def test_five_thousand_renewals_take_a_moment() -> None:
    registry = EmbeddedRegistry()
    keys = [LeaseKey("s", f"n/{number}", 1) for number in range(5000)]
    for key in keys:
        registry.register(entry(key.instance), 3600)
    start = time.process_time()
    assert registry.renew(keys) == frozenset()
    assert time.process_time() - start < 0.1
    registry.close()


async def test_a_waiter_that_gives_up_leaves_nothing_behind() -> None:
    registry = EmbeddedRegistry()
    for _ in range(3):
        waiting = [asyncio.ensure_future(registry.changed("s", 1, None, 60)) for _ in range(10)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
    assert registry._waiters == {}


async def test_a_long_poll_ends_after_its_wait_with_the_present_state() -> None:
    registry = EmbeddedRegistry()
    registry.register(entry(), 10)
    start = time.monotonic()
    snapshot = await registry.changed("s", registry.revision, registry.epoch, 0.1)
    assert snapshot.entries == (entry(),)
    assert time.monotonic() - start >= 0.09
    registry.close()


async def test_waiters_learn_that_the_registry_closes() -> None:
    registry = EmbeddedRegistry()
    backend, other = EmbeddedBackend(registry), EmbeddedBackend(registry)
    watch = backend.watch()
    await anext(watch)
    following = asyncio.ensure_future(anext(watch, None))
    await asyncio.sleep(0)
    await other.close()  # somebody else's
    await asyncio.sleep(0)
    assert not following.done()
    registry.close()
    assert await following is None
    with pytest.raises(RegistryRejected) as caught:
        await backend.get("s", "n/1")
    assert caught.value.code == "closed"


async def test_a_backend_without_a_registry_has_one_of_its_own() -> None:
    one, two = EmbeddedBackend(), EmbeddedBackend()
    await one.register(entry(), 10)
    assert (await two.list()).entries == ()
    await one.close()
    await two.close()
