"""What the registry says becomes pools, and its silence changes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.following import Following, Pace
from gateway.model import Pool
from gateway.pool import PoolPolicy
from registry_client import Entry
from registry_client.backends.http import HttpBackend
from registry_client.errors import RegistryRejected, RegistryUnavailable
from registry_client.testing import FakeBackend
from tests.gateway.fakes import pool, server, until
from tests.registry_client.serving import ServedRegistry, make_entry

FAST = Pace(ask_seconds=0.02, retry_seconds=0.02, again_seconds=0.02)
POLICY = PoolPolicy(confirm_seconds=0.1, hold_percent=50.0, young_seconds=0.3)


def entry(number: int, **changes: Any) -> Entry:
    """Each one on a port of its own."""
    return make_entry(f"n/{number}", "cart", port=9000 + number, **changes)


class Told:
    """What `on_pools` was called with."""

    def __init__(self) -> None:
        self.all: list[dict[str, Pool]] = []

    def __call__(self, pools: Mapping[str, Pool]) -> None:
        self.all.append(dict(pools))

    def instances(self, service: str = "cart") -> list[str]:
        last = self.all[-1] if self.all else {}
        return [each.instance for each in last[service].servers] if service in last else []


@asynccontextmanager
async def following(
    backend: FakeBackend | HttpBackend,
    told: Told,
    last_good: Iterable[Pool] = (),
    pace: Pace = FAST,
    policy: PoolPolicy = POLICY,
) -> AsyncIterator[Following]:
    """It runs."""
    followed = Following(backend, policy, told, last_good, pace)
    task = asyncio.create_task(followed.run())
    try:
        yield followed
    finally:
        task.cancel()
        await asyncio.wait([task])
        await backend.close()
    assert task.cancelled(), "nothing has ended it before"


def run(scene: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(15):
            await scene()

    asyncio.run(bounded())


def test_pools_follow_the_registry() -> None:
    async def scene() -> None:
        backend, told = FakeBackend(), Told()
        await backend.register(entry(1, weight=40), 60)
        async with following(backend, told) as followed:
            await followed.tried()
            assert followed.has_heard and followed.pools["cart"].servers[0].weight == 40
            await backend.register(entry(2), 60)
            await until("the second", lambda: told.instances() == ["n/1", "n/2"])
            assert followed.state.state == "ok" and followed.state.revision == followed.pools["cart"].revision

    run(scene)


def test_changes_that_concern_no_pool_are_not_told() -> None:
    async def scene() -> None:
        backend, told = FakeBackend(), Told()
        async with following(backend, told) as followed:
            await followed.tried()
            count = len(told.all)
            await backend.register(make_entry("n", "unitd"), 60)
            await backend.register(make_entry("gw.edge/cart", "unit-gateway"), 60)
            revision = (await backend.list()).revision
            await until("they were seen", lambda: followed.state.revision == revision)
            assert len(told.all) == count and followed.pools == {}

    run(scene)


def test_what_was_last_known_is_told_at_once_while_the_registry_is_away() -> None:
    async def scene() -> None:
        backend, told = HttpBackend("http://127.0.0.1:1", timeout_seconds=0.5), Told()
        async with following(backend, told, [pool(7, server("n/1"))]) as followed:
            await until("it was told", lambda: told.all)
            assert told.instances() == ["n/1"] and not followed.has_heard
            await followed.tried()
            assert followed.state.state == "unknown" and "127.0.0.1:1" in followed.state.detail

    run(scene)


def test_without_a_last_good_set_nothing_is_told_while_the_registry_is_away(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        backend, told = HttpBackend("http://127.0.0.1:1", timeout_seconds=0.5), Told()
        async with following(backend, told) as followed:
            await followed.tried()
            await until("it was asked", lambda: followed.state.detail)
            assert told.all == [] and followed.pools == {} and not followed.has_heard

    run(scene)
    assert caplog.text.count("the registry does not answer, gateways keep what they have") == 1


def test_a_registry_that_falls_silent_and_comes_back_is_followed_on(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        with ServedRegistry() as registry:
            registry.register(entry(1))
            backend, told = HttpBackend(registry.url, timeout_seconds=0.5), Told()
            async with following(backend, told) as followed:
                await until("the first", lambda: told.instances() == ["n/1"])
                await asyncio.to_thread(registry.deafen)
                await until("it is away", lambda: followed.state.state == "away")
                registry.register(entry(2))
                assert told.instances() == ["n/1"]
                await asyncio.to_thread(registry.listen)
                await until("both", lambda: told.instances() == ["n/1", "n/2"])
                await until("it answers", lambda: followed.state.state == "ok")

    with caplog.at_level(logging.INFO):
        run(scene)
    assert caplog.text.count("the registry answers again") == 1


def test_a_registry_that_begins_anew_and_empty_takes_nothing_away_before_it_is_grown() -> None:
    async def scene() -> None:
        backend, told = FakeBackend(), Told()
        for number in (1, 2):
            await backend.register(entry(number), 60)
        async with following(backend, told, policy=PoolPolicy(confirm_seconds=0.05, young_seconds=0.4)) as followed:
            await until("both", lambda: told.instances() == ["n/1", "n/2"])
            before = followed.state.epoch
            backend.forget()
            await backend.register(entry(1), 60)
            await until("the new life", lambda: followed.state.epoch != before)
            assert told.instances() == ["n/1", "n/2"], "n/2 may still come back"
            held = next(each.held for each in followed.pools["cart"].servers if each.instance == "n/2")
            assert held
            await until("it did not", lambda: told.instances() == ["n/1"])

    run(scene)


def test_a_mass_disappearance_is_believed_when_the_registry_insists() -> None:
    """The watch says it once and then nothing more: the registry is read again when the time has come."""

    async def scene() -> None:
        backend, told = FakeBackend(), Told()
        only = entry(1)
        await backend.register(only, 60)
        async with following(backend, told) as followed:
            await until("it is there", lambda: told.instances() == ["n/1"])
            await backend.deregister(only.key)
            await until("it is held", lambda: followed.pools["cart"].servers[0].held)
            await until("it is gone", lambda: told.instances() == [] and "cart" in followed.pools)
            assert ("list", None) in backend.calls

    run(scene)


def test_as_long_as_the_registry_is_away_nothing_that_is_held_goes() -> None:
    async def scene() -> None:
        backend, told = FakeBackend(), Told()
        only = entry(1)
        await backend.register(only, 60)
        async with following(backend, told) as followed:
            await until("it is there", lambda: told.instances() == ["n/1"])
            backend.fail_next(10_000)
            await until("it is away", lambda: followed.state.state == "away")
            backend._failures.clear()
            await backend.deregister(only.key)
            backend.fail_next(10_000)
            await until("it is held", lambda: followed.pools["cart"].servers[0].held)
            lists = backend.calls.count(("list", None))
            await until("it was asked in vain", lambda: backend.calls.count(("list", None)) > lists)
            assert told.instances() == ["n/1"]
            backend._failures.clear()
            await until("it is gone", lambda: told.instances() == [])

    run(scene)


def test_a_watch_that_is_refused_is_tried_again_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    class Refusing(FakeBackend):
        refusals = 5

        def watch(self, service=None, since=0, epoch=None):  # type: ignore[no-untyped-def]
            if self.refusals:
                self.refusals -= 1
                raise RegistryRejected("cannot watch: not allowed", code="permission_denied")
            return super().watch(service, since, epoch)

    async def scene() -> None:
        backend, told = Refusing(), Told()
        await backend.register(entry(1), 60)
        async with following(backend, told):
            await until("in the end", lambda: told.instances() == ["n/1"])

    run(scene)
    assert caplog.text.count("cannot watch the registry: cannot watch: not allowed") == 1


def test_what_a_watch_has_lost_is_read_now_and_then() -> None:
    class Deaf(FakeBackend):
        async def watch(self, service=None, since=0, epoch=None):  # type: ignore[no-untyped-def]
            yield await self.list(service)
            await asyncio.Event().wait()

    async def scene() -> None:
        backend, told = Deaf(), Told()
        await backend.register(entry(1), 60)
        pace = Pace(ask_seconds=0.01, read_seconds=0.05)
        async with following(backend, told, pace=pace):
            await until("the first", lambda: told.instances() == ["n/1"])
            await backend.register(entry(2), 60)
            await until("the second", lambda: told.instances() == ["n/1", "n/2"])

    run(scene)


def test_an_answer_that_was_overtaken_changes_nothing() -> None:
    async def scene() -> None:
        backend, told = FakeBackend(), Told()
        await backend.register(entry(1), 60)
        old = await backend.list()
        await backend.register(entry(2), 60)
        async with following(backend, told) as followed:
            await until("both", lambda: told.instances() == ["n/1", "n/2"])
            followed._take(old)
            assert told.instances() == ["n/1", "n/2"]

    run(scene)


def test_why_it_is_away_is_what_the_last_question_got() -> None:
    async def scene() -> None:
        backend, told = FakeBackend(), Told()
        async with following(backend, told) as followed:
            await followed.tried()
            backend.fail_next(10_000, RegistryUnavailable("cannot ask: told to fail"))
            await until("it is away", lambda: followed.state.state == "away")
            assert followed.state.detail == "cannot ask: told to fail" and followed.state.seconds_ago is not None
            assert (followed.state.backend, followed.pools) == ("fake", {})

    run(scene)
