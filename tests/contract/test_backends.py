"""What every registry backend must do; runs over each one of conftest.SITES."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from registry_client import Backend, Capability, Entry, LeaseKey, LeaseLost, RegistryRejected, Snapshot

DEADLINE = 8.0  # for what must happen, some time


def entry(instance: str = "web-7/cart:0", service: str = "cart", **changes: Any) -> Entry:
    values: dict[str, Any] = {
        "service": service,
        "instance": instance,
        "node": "web-7",
        "unit": "cart:0",
        "address": "192.168.1.2",
        "port": 9080,
        "generation": 42,
        "started_at": "2026-11-23T06:29:10.123Z",
        "version": "1.4.2",
        "metadata": {"team": "ä/b"},
    }
    return Entry(**{**values, **changes})


def names(snapshot: Snapshot) -> list[str]:
    return [item.instance for item in snapshot.entries]


async def next_of(watch: AsyncGenerator[Snapshot, None]) -> Snapshot:
    async with asyncio.timeout(DEADLINE):
        return await anext(watch)


async def next_where(watch: AsyncGenerator[Snapshot, None], wanted: Callable[[Snapshot], bool]) -> Snapshot:
    """The first snapshot of that kind; others may come before it."""
    while True:
        snapshot = await next_of(watch)
        if wanted(snapshot):
            return snapshot


async def seconds_until_gone(backend: Backend, key: LeaseKey) -> tuple[float, float]:
    """When it was read for the last time and when it was first not there, in seconds from now."""
    start, last_seen = time.monotonic(), 0.0
    while time.monotonic() - start < DEADLINE:
        asked_at = time.monotonic() - start
        if await backend.get(key.service, key.instance) is None:
            return last_seen, time.monotonic() - start
        last_seen = asked_at
        await asyncio.sleep(0.01)
    raise AssertionError(f"it was still there after {DEADLINE} s")


async def rejected(call: Awaitable[object]) -> RegistryRejected:
    with pytest.raises(RegistryRejected) as caught:
        await call
    return caught.value


async def test_a_registered_entry_is_read_back_as_it_was(site: Any) -> None:
    backend = site.open()
    written = entry(zone="a", weight=10, status="warming", warmup_seconds=12.5)
    grant = await backend.register(written, 10)
    assert grant.ttl_seconds >= 10
    assert await backend.get("cart", "web-7/cart:0") == written
    assert (await backend.list("cart")).entries == (written,)
    assert (await site.open().list()).entries == (written,)


async def test_what_is_not_registered_is_not_there(site: Any) -> None:
    backend = site.open()
    assert await backend.get("cart", "web-7/cart:0") is None
    await backend.register(entry(), 10)
    assert await backend.get("cart", "web-7/cart:1") is None
    assert await backend.get("stock", "web-7/cart:0") is None
    assert await backend.get("cart", "\ud800") is None
    assert (await backend.list("stock")).entries == ()


async def test_lists_are_sorted_and_of_one_service_or_of_all(site: Any) -> None:
    backend = site.open()
    for service, instance in (("b", "n/2"), ("b", "n/1"), ("a", "n/9"), ("c", "n:%20?&#/ü x")):
        await backend.register(entry(instance, service), 10)
    assert names(await backend.list("b")) == ["n/1", "n/2"]
    snapshot = await backend.list()
    assert names(snapshot) == ["n/9", "n/1", "n/2", "n:%20?&#/ü x"]
    assert snapshot.service is None
    odd = await backend.get("c", "n:%20?&#/ü x")
    assert odd is not None and odd.service == "c"


async def test_an_entry_stays_for_its_ttl_and_goes_soon_after(site: Any) -> None:
    backend, ttl = site.open(), site.min_ttl_seconds + 0.2
    sent_at = time.monotonic()
    grant = await backend.register(entry(), ttl)
    spent = time.monotonic() - sent_at
    last_seen, gone = await seconds_until_gone(backend, entry().key)
    assert spent + gone >= grant.ttl_seconds - 0.01
    assert last_seen <= grant.ttl_seconds + site.lateness_seconds
    assert backend.removal_bound(grant.ttl_seconds) >= grant.ttl_seconds
    assert (await backend.list()).entries == ()


async def test_a_watch_sees_the_expiry(site: Any) -> None:
    backend, ttl = site.open(), site.min_ttl_seconds
    grant = await backend.register(entry(), ttl)
    registered_at = time.monotonic()
    async with aclosing(backend.watch("cart")) as watch:
        assert names(await next_of(watch)) == ["web-7/cart:0"]
        assert names(await next_of(watch)) == []
    assert time.monotonic() - registered_at <= grant.ttl_seconds + site.lateness_seconds


async def test_renewals_keep_an_entry_beyond_its_ttl(site: Any) -> None:
    backend, ttl = site.open(), max(1.0, site.min_ttl_seconds)
    grant = await backend.register(entry(), ttl)
    end = time.monotonic() + 2 * grant.ttl_seconds
    while time.monotonic() < end:
        assert await backend.renew([entry().key]) == frozenset()
        assert await backend.get("cart", "web-7/cart:0") is not None
        await asyncio.sleep(grant.ttl_seconds / 10)
    last_seen, _ = await seconds_until_gone(backend, entry().key)
    assert last_seen <= grant.ttl_seconds + site.lateness_seconds


async def test_renewing_answers_exactly_the_lost_ones(site: Any) -> None:
    backend = site.open()
    held = [entry(f"n/{number}") for number in range(30)]
    for item in held:
        await backend.register(item, 10)
    unknown, other = LeaseKey("cart", "n/99", 42), LeaseKey("cart", "n/3", 41)
    newer = LeaseKey("cart", "n/4", 43)
    keys = [item.key for item in held]
    assert await backend.renew([*keys, unknown, other, newer]) == {unknown, other, newer}
    assert await backend.renew([]) == frozenset()
    assert len((await backend.list()).entries) == 30


async def test_after_expiry_a_renewal_is_lost_and_creates_nothing(site: Any) -> None:
    backend = site.open()
    await backend.register(entry(), site.min_ttl_seconds)
    await seconds_until_gone(backend, entry().key)
    assert await backend.renew([entry().key]) == {entry().key}
    with pytest.raises(LeaseLost):
        await backend.update(entry(weight=1))
    assert await backend.get("cart", "web-7/cart:0") is None
    await backend.register(entry(), 10)
    assert await backend.renew([entry().key]) == frozenset()


async def test_a_newer_generation_replaces_an_older_one(site: Any) -> None:
    backend = site.open()
    await backend.register(entry(generation=1), 10)
    await backend.register(entry(generation=2, port=9081), 10)
    assert await backend.get("cart", "web-7/cart:0") == entry(generation=2, port=9081)
    assert await backend.renew([entry(generation=1).key]) == {entry(generation=1).key}


async def test_an_older_generation_changes_nothing(site: Any) -> None:
    backend, old, new = site.open(), entry(generation=1), entry(generation=2)
    await backend.register(new, 10)
    for call in (backend.register(old, 10), backend.update(old), backend.deregister(old.key)):
        error = await rejected(call)
        assert (error.code, error.held_generation) == ("stale_generation", 2)
    assert await backend.get("cart", "web-7/cart:0") == new


async def test_an_update_of_a_generation_that_is_not_registered_yet_is_lost(site: Any) -> None:
    backend = site.open()
    await backend.register(entry(generation=1), 10)
    with pytest.raises(LeaseLost):
        await backend.update(entry(generation=2))
    assert await backend.get("cart", "web-7/cart:0") == entry(generation=1)


async def test_an_update_changes_the_value_and_does_not_prolong(site: Any) -> None:
    backend = site.open()
    if Capability.UPDATE_WITHOUT_RENEWAL not in backend.capabilities:
        pytest.skip("updates prolong here")
    grant = await backend.register(entry(), max(1.0, site.min_ttl_seconds))
    registered_at = time.monotonic()
    while time.monotonic() - registered_at < grant.ttl_seconds / 2:
        await backend.update(entry(weight=3, status="draining"))
        await asyncio.sleep(0.05)
    assert await backend.get("cart", "web-7/cart:0") == entry(weight=3, status="draining")
    await seconds_until_gone(backend, entry().key)
    assert time.monotonic() - registered_at <= grant.ttl_seconds + site.lateness_seconds


async def test_registering_again_refreshes_value_and_ttl(site: Any) -> None:
    backend = site.open()
    grant = await backend.register(entry(), site.min_ttl_seconds)
    await backend.register(entry(weight=7), 10)
    await asyncio.sleep(grant.ttl_seconds + site.lateness_seconds)
    assert await backend.get("cart", "web-7/cart:0") == entry(weight=7)


async def test_a_shorter_ttl_counts_from_its_registration(site: Any) -> None:
    backend = site.open()
    await backend.register(entry(), 30)
    grant = await backend.register(entry(), site.min_ttl_seconds)
    last_seen, _ = await seconds_until_gone(backend, entry().key)
    assert last_seen <= grant.ttl_seconds + site.lateness_seconds


async def test_deregistering_removes_once(site: Any) -> None:
    backend = site.open()
    if Capability.DEREGISTER not in backend.capabilities:
        pytest.skip("entries can only expire here")
    await backend.register(entry(), 10)
    assert await backend.deregister(entry().key) is True
    assert await backend.get("cart", "web-7/cart:0") is None
    assert await backend.deregister(entry().key) is False
    assert await backend.renew([entry().key]) == {entry().key}


async def test_a_newer_generation_may_remove_an_older_one(site: Any) -> None:
    backend = site.open()
    await backend.register(entry(generation=1), 10)
    assert await backend.deregister(entry(generation=2).key) is True
    assert (await backend.list()).entries == ()


async def test_a_ttl_that_is_none_is_rejected(site: Any) -> None:
    backend = site.open()
    for ttl in (0, -1, float("nan"), float("inf")):
        assert (await rejected(backend.register(entry(), ttl))).code == "bad_ttl"
    assert (await backend.list()).entries == ()


async def test_a_watch_gives_the_complete_set_at_once_and_after_each_change(site: Any) -> None:
    backend, writer = site.open(), site.open()
    await writer.register(entry("n/1"), 10)
    async with aclosing(backend.watch("cart")) as watch:
        seen = [await next_of(watch)]
        await writer.register(entry("n/2"), 10)
        seen.append(await next_of(watch))
        await writer.update(entry("n/2", weight=5))
        seen.append(await next_of(watch))
        await writer.deregister(entry("n/1").key)
        seen.append(await next_of(watch))
    assert [names(item) for item in seen] == [["n/1"], ["n/1", "n/2"], ["n/1", "n/2"], ["n/2"]]
    assert seen[2].entries[1].weight == 5
    revisions = [item.revision for item in seen]
    assert revisions == sorted(set(revisions))
    assert {item.epoch for item in seen} == {seen[0].epoch}


async def test_a_watch_of_an_empty_registry_says_so_at_once(site: Any) -> None:
    async with aclosing(site.open().watch()) as watch:
        assert (await next_of(watch)).entries == ()


async def test_a_watch_of_all_services_sees_every_service(site: Any) -> None:
    backend = site.open()
    async with aclosing(backend.watch()) as watch:
        await next_of(watch)
        await backend.register(entry("n/1", "a"), 10)
        await backend.register(entry("n/2", "b"), 10)
        snapshot = await next_where(watch, lambda snapshot: len(snapshot.entries) == 2)
    assert [(item.service, item.instance) for item in snapshot.entries] == [("a", "n/1"), ("b", "n/2")]


async def test_a_watch_of_one_service_sleeps_while_others_change(site: Any) -> None:
    backend, writer = site.open(), site.open()
    async with aclosing(backend.watch("cart")) as watch:
        await next_of(watch)
        for number in range(5):
            await writer.register(entry(f"n/{number}", "stock"), 10)
        following = asyncio.ensure_future(next_of(watch))
        await asyncio.sleep(0.3)
        assert not following.done()
        await writer.register(entry("n/1"), 10)
        assert names(await following) == ["n/1"]


async def test_renewals_and_refreshes_wake_nobody(site: Any) -> None:
    backend, writer = site.open(), site.open()
    await writer.register(entry(), 10)
    async with aclosing(backend.watch()) as watch:
        first = await next_of(watch)
        following = asyncio.ensure_future(next_of(watch))
        for _ in range(5):
            await writer.renew([entry().key])
            await writer.register(entry(), 10)
        await asyncio.sleep(0.3)
        assert not following.done()
        await writer.register(entry(weight=1), 10)
        assert (await following).revision > first.revision


async def test_a_watch_resumes_where_another_ended(site: Any) -> None:
    backend, writer = site.open(), site.open()
    await writer.register(entry("n/1"), 10)
    last = await backend.list("cart")
    async with aclosing(backend.watch("cart", last.revision, last.epoch)) as watch:
        following = asyncio.ensure_future(next_of(watch))
        await asyncio.sleep(0.3)
        assert not following.done()
        await writer.register(entry("n/2"), 10)
        assert names(await following) == ["n/1", "n/2"]
    await writer.deregister(entry("n/1").key)
    async with aclosing(backend.watch("cart", last.revision, last.epoch)) as watch:
        assert names(await next_of(watch)) == ["n/2"]


async def test_a_resumed_watch_learns_that_a_service_became_empty(site: Any) -> None:
    backend = site.open()
    await backend.register(entry(), 10)
    last = await backend.list("cart")
    await backend.deregister(entry().key)
    await backend.register(entry("n/1", "stock"), 10)
    async with aclosing(backend.watch("cart", last.revision, last.epoch)) as watch:
        assert (await next_of(watch)).entries == ()


async def test_a_restarted_registry_is_a_new_epoch_with_a_fresh_snapshot(site: Any) -> None:
    if not site.restarts_empty:
        pytest.skip("it remembers what it held")
    backend, writer = site.open(), site.open()
    for number in range(5):
        await writer.register(entry(f"n/{number}"), 10)
    async with aclosing(backend.watch("cart")) as watch:
        before = await next_of(watch)
        assert len(before.entries) == 5
        await site.restart_empty()
        after = await next_where(watch, lambda snapshot: snapshot.epoch != before.epoch)
        assert after.revision <= before.revision  # of another life, yet delivered
        assert await writer.renew([entry("n/0").key]) == {entry("n/0").key}
        await writer.register(entry("n/0"), 10)
        again = await next_where(watch, lambda snapshot: names(snapshot) == ["n/0"])
        assert again.epoch == after.epoch


async def test_a_watch_from_a_revision_of_another_life_answers_at_once(site: Any) -> None:
    backend = site.open()
    await backend.register(entry(), 10)
    for since, epoch in ((10**6, None), (1, "another"), (10**6, "another")):
        async with aclosing(backend.watch("cart", since, epoch)) as watch:
            assert names(await next_of(watch)) == ["web-7/cart:0"]


async def test_many_clients_at_once_do_not_disturb_each_other(site: Any) -> None:
    async def one(number: int) -> None:
        backend, own = site.open(), entry(f"n/{number:02}", f"s{number % 3}")
        for weight in range(5):
            await backend.register(replace(own, weight=weight), 10)
            await backend.update(replace(own, weight=weight + 100))
            assert await backend.renew([own.key]) == frozenset()
            assert await backend.get(own.service, own.instance) == replace(own, weight=weight + 100)

    async with aclosing(site.open().watch()) as watch:
        await next_of(watch)
        await asyncio.gather(*map(one, range(20)))
        complete = await next_where(watch, lambda snapshot: [item.weight for item in snapshot.entries] == [104] * 20)
    assert complete.entries == (await site.open().list()).entries


async def test_one_client_may_be_used_by_many_tasks(site: Any) -> None:
    backend = site.open()
    entries = [entry(f"n/{number}") for number in range(50)]
    await asyncio.gather(*(backend.register(item, 10) for item in entries))
    assert len((await backend.list()).entries) == 50
    removed = await asyncio.gather(*(backend.deregister(item.key) for item in entries))
    assert removed == [True] * 50


async def test_two_generations_racing_leave_the_newer_one(site: Any) -> None:
    async def put(generation: int) -> None:
        try:
            await site.open().register(entry(generation=generation), 10)
        except RegistryRejected as error:
            assert error.code == "stale_generation"

    await asyncio.gather(*(put(generation) for generation in (3, 9, 1, 8, 2, 7)))
    winner = await site.open().get("cart", "web-7/cart:0")
    assert winner is not None and winner.generation == 9


async def test_closing_a_client_ends_its_watches_and_refuses_calls(site: Any) -> None:
    backend = site.open()
    watch = backend.watch("cart")
    await next_of(watch)
    following = asyncio.ensure_future(anext(watch, None))
    await asyncio.sleep(0)
    await backend.close()
    await backend.close()
    async with asyncio.timeout(DEADLINE):
        assert await following is None
    assert (await rejected(backend.list())).code == "closed"
