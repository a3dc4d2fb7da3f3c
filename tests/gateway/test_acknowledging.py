"""acknowledging.py: what the registry is told of gateways, and that it is never told too much.

Against a registry in memory that fails, hangs, forgets and lets writes arrive late; and the real one over HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway import acknowledging, claims
from gateway.acknowledging import CLOSE_SECONDS, Acknowledgements
from gateway.model import Applied, Key
from registry_client.backend import Capability
from registry_client.backends.http import HttpBackend
from registry_client.errors import RegistryError, RegistryRejected, RegistryUnavailable
from registry_client.gateways import GATEWAY_SERVICE, Acknowledgement, from_entry, token
from registry_client.model import Entry, Grant
from registry_client.testing import FakeBackend
from tests.end_to_end.machine import until as until_true
from tests.gateway.fakes import pool, server, until
from tests.registry_client.serving import ServedRegistry

A, B, C = ("n/a", 1), ("n/b", 1), ("n/c", 1)
TTL = 0.9
INSTANCE = "gw-1.edge/cart"


class Registry(FakeBackend):
    """Writes that are held back get no answer, and arrive when `late_ones_arrive`."""

    def __init__(self, timeout_seconds: float = 0.2) -> None:
        super().__init__(timeout_seconds=timeout_seconds)
        self.holds_back = False
        self.late: list[Callable[[], Coroutine[Any, Any, Any]]] = []
        self.refusal: RegistryError | None = None
        self.refused = 0

    async def register(self, entry: Entry, ttl_seconds: float) -> Grant:
        await self._may(lambda: super(Registry, self).register(entry, ttl_seconds))
        return await super().register(entry, ttl_seconds)

    async def update(self, entry: Entry) -> None:
        await self._may(lambda: super(Registry, self).update(entry))
        await super().update(entry)

    async def _may(self, write: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        if self.refusal is not None:
            self.refused += 1
            raise self.refusal
        if self.holds_back:
            self.late.append(write)
            raise RegistryUnavailable("cannot write: no answer")

    async def late_ones_arrive(self) -> list[str]:
        """All of them, in the order in which they were sent; what they are answered."""
        answers, late = [], self.late
        self.late = []
        for write in late:
            try:
                await write()
                answers.append("taken")
            except RegistryError as error:
                answers.append(type(error).__name__)
        return answers

    def entry(self, instance: str = INSTANCE) -> Entry | None:
        found = (each for each in self._store.list(GATEWAY_SERVICE).entries if each.instance == instance)
        return next(found, None)

    def says(self, instance: str = INSTANCE) -> Acknowledgement | None:
        entry = self.entry(instance)
        return None if entry is None else from_entry(entry)

    def serving(self, instance: str = INSTANCE) -> set[str] | None:
        """The names of those whom the entry names; None: there is no entry."""
        said = self.says(instance)
        return None if said is None else {key[0][2:] for key in (A, B, C) if said.sends_to(*key)}

    def writes(self) -> list[str]:
        return [name for name, _ in self.calls if name in ("register", "update")]


class Stage:
    """A gateway `edge`, what it says, and the registry."""

    def __init__(self, registry: Registry, said: Acknowledgements) -> None:
        self.registry, self.said, self.revision = registry, said, 0

    def applied(self, *keys: Key, service: str = "cart", feeder: str = "edge", counted: bool = False) -> None:
        self.revision += 1
        self.said.applied(feeder, "haproxy", Applied(service, self.revision, frozenset(keys)), counted=counted)

    def applying(self, *keys: Key) -> None:
        self.said.applying("edge", pool(self.revision + 1, *(server(name, generation=life) for name, life in keys)))

    async def serves(self, *keys: Key) -> None:
        """The gateway has taken these over, and the registry knows."""
        self.applied(*keys)
        await self.until_serving(*(key[0][2:] for key in keys))

    async def until_serving(self, *names: str) -> None:
        await until(f"it is known who serves ({names})", lambda: self.registry.serving() == set(names))


@asynccontextmanager
async def stage(registry: Registry | None = None, **options: Any) -> AsyncIterator[Stage]:
    registry = registry or Registry()
    said = Acknowledgements(registry, "gw-1", ("127.0.0.1", 9320), options.pop("ttl", TTL), **options)
    try:
        yield Stage(registry, said)
    finally:
        registry.holds_back, registry.refusal = False, None
        registry.release()
        await said.close()
        await registry.close()


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scene())


@contextmanager
def fast() -> Iterator[None]:
    """What is tried again slowly is tried again soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acknowledging, "REFUSED_SECONDS", 0.1)
        patch.setattr(acknowledging, "MAX_RETRY_SECONDS", 0.1)
        patch.setattr(acknowledging, "BUSY_SECONDS", 0.1)
        patch.setattr(claims, "COUNT_SECONDS", 0.3)
        yield


# What is said.


def test_each_gateway_says_of_each_service_whom_it_sends_to() -> None:
    """One entry each, with a lease of its own, which is renewed."""

    async def scene() -> None:
        async with stage() as on:
            on.applied(A, B)
            on.applied(A, service="other")
            on.applied(B, feeder="mesh")
            await on.until_serving("a", "b")
            await until("all of it", lambda: on.registry.serving("gw-1.mesh/cart") == {"b"})
            assert on.registry.serving("gw-1.edge/other") == {"a"}
            entry = on.registry.entry()
            assert entry is not None
            assert (entry.node, entry.unit, entry.address, entry.port) == ("gw-1", "edge", "127.0.0.1", 9320)
            said = on.registry.says()
            assert said is not None
            assert (said.gateway, said.kind, said.revision) == ("gw-1.edge", "haproxy", 1)
            renewals = [name for name, _ in on.registry.calls].count("renew")
            await until("renewals", lambda: [name for name, _ in on.registry.calls].count("renew") > renewals + 5)
            assert on.registry.entry() == entry
            assert on.said.error == ""

    play(scene)


def test_a_change_is_said_and_what_is_the_same_is_not_said_again() -> None:
    """A revision alone is no news: weights change all the time."""

    async def scene() -> None:
        async with stage() as on:
            await on.serves(A, B)
            await on.serves(A)
            writes = on.registry.writes()
            assert writes == ["register", "update"]
            on.applied(A)
            await on.serves(A, C)
            assert on.registry.writes() == [*writes, "update"]

    play(scene)


def test_many_services_are_all_said() -> None:
    """More than are written at a time."""

    async def scene() -> None:
        async with stage() as on:
            for number in range(100):
                on.applied(A, service=f"s{number}")
            await until("all of them", lambda: len(on.registry._store.list(GATEWAY_SERVICE).entries) == 100)
            await on.said.close()
            assert on.registry._store.list(GATEWAY_SERVICE).entries == ()

    play(scene)


def test_at_the_end_nothing_is_said_any_more() -> None:
    """Nor after it: whoever is late is not heard."""

    async def scene() -> None:
        async with stage() as on:
            await on.serves(A)
            await on.said.close()
            assert on.registry.entry() is None
            on.applied(A)
            on.said.unreachable("edge")
            await on.said.close()
            assert on.registry.entry() is None

    play(scene)


def test_what_gateways_do_on_their_own_is_left_to_expire() -> None:
    """They go on sending to whom they know: whoever stops an instance now still has to wait."""

    async def scene() -> None:
        async with stage(ttl=0.5) as on:
            on.applied(B, feeder="shop")
            await on.serves(A)
            await until("both", lambda: on.registry.serving("gw-1.shop/cart") == {"b"})
            await on.said.close(on_their_own=["edge"])
            assert "deregister" in [name for name, _ in on.registry.calls]
            assert on.registry.serving("gw-1.shop/cart") is None
            deregistered = [key for name, key in on.registry.calls if name == "deregister"]
            assert [key.instance for key in deregistered] == ["gw-1.shop/cart"]  # type: ignore[attr-defined]
            await until("it has expired", lambda: on.registry.serving() is None)

    play(scene)


# Never too little.


def test_who_is_about_to_be_added_is_named_before_the_gateway_has_taken_it_over() -> None:
    """And who is about to be removed still is, whatever comes of it."""

    async def scene() -> None:
        async with stage() as on:
            on.applying(A)  # of a gateway that says nothing yet: nothing is claimed
            await on.serves(A)
            on.applying(B)
            await on.until_serving("a", "b")
            on.applying(C)  # the attempt before has failed half-way
            await on.until_serving("a", "b", "c")
            await on.serves(C)

    play(scene)


def test_a_write_that_comes_late_does_not_undo_a_later_one() -> None:
    """It is of an older generation."""

    async def scene() -> None:
        with fast():
            async with stage() as on:
                await on.serves(A, B)
                on.registry.holds_back = True
                on.applied(A)
                await until("it has no answer", lambda: on.registry.late)
                on.applied(A, B)  # B is wanted again
                on.registry.holds_back = False
                await until("the later one", lambda: on.registry.writes() == ["register", "register"])
                assert on.registry.serving() == {"a", "b"}
                assert set(await on.registry.late_ones_arrive()) == {"RegistryRejected"}
                assert on.registry.serving() == {"a", "b"}

    play(scene)


def test_a_write_whose_answer_was_lost_does_no_harm() -> None:
    """It had counted, and the next one follows."""

    async def scene() -> None:
        with fast():
            async with stage() as on:
                await on.serves(A, B)
                on.registry.holds_back = True
                on.applied(A)
                await until("it has no answer", lambda: on.registry.late)
                assert "taken" in await on.registry.late_ones_arrive()
                assert on.registry.serving() == {"a"}
                on.registry.holds_back = False
                await on.serves(A, C)

    play(scene)


def test_an_entry_that_names_too_few_is_not_kept_alive() -> None:
    """Updates do not arrive, renewals do: the old word ends with its lease, and then nobody trusts it."""

    async def scene() -> None:
        with fast():
            async with stage(ttl=0.5) as on:
                await on.serves(A)
                on.registry.holds_back = True
                on.applied(A, B)
                await until("it is gone", lambda: on.registry.serving() is None)
                on.registry.late.clear()
                on.registry.holds_back = False
                await on.until_serving("a", "b")

    play(scene)


def test_an_entry_that_may_name_too_few_is_not_kept_alive_either() -> None:
    """A removal had no answer, but has counted; the one who was removed is back, and that cannot be written."""

    async def scene() -> None:
        with fast():
            async with stage(ttl=0.5) as on:
                await on.serves(A, B)
                on.registry.holds_back = True
                on.applied(A)
                await until("it has no answer", lambda: on.registry.late)
                on.applied(A, B)
                late, on.registry.late = on.registry.late[:1], []
                await late[0]()
                assert on.registry.serving() == {"a"}
                await until("it is gone", lambda: on.registry.serving() is None)

    play(scene)


def test_an_entry_that_names_too_many_is_kept_alive(caplog: pytest.LogCaptureFixture) -> None:
    """That is no lie that hurts: somebody waits in vain. Renewals that work are no end of the complaint."""
    caplog.set_level(logging.INFO)

    async def scene() -> None:
        with fast():
            async with stage(ttl=1.5) as on:
                await on.serves(A, B)
                entry = on.registry.entry()
                assert entry is not None
                on.registry.holds_back = True
                on.applied(A)
                await until("writes in vain", lambda: len(on.registry.late) > 2)
                on.registry.calls.clear()

                def renewals() -> int:
                    return sum(name == "renew" and entry.key in keys for name, keys in on.registry.calls)  # type: ignore[operator]

                await until("renewals", lambda: renewals() >= 2)
                assert on.said.error

    play(scene)
    assert sum("cannot say" in record.message for record in caplog.records) == 1


def test_what_is_refused_is_taken_back(caplog: pytest.LogCaptureFixture) -> None:
    """The old word would be wrong; it is said again when that is possible. Once is enough to complain."""

    async def scene() -> None:
        with fast():
            async with stage() as on:
                await on.serves(A)
                on.registry.refusal = RegistryRejected("cannot write: no right to", code="permission_denied")
                on.applied(A, B)
                await until("it is gone", lambda: on.registry.serving() is None)
                assert "no right" in on.said.error
                on.applied(A, B, C)
                await until("it is refused, too", lambda: on.registry.refused >= 4)
                on.registry.refusal = None
                await on.until_serving("a", "b", "c")
                await until("all is well", lambda: on.said.error == "")

    play(scene)
    assert sum("no right to" in record.message for record in caplog.records) == 1


def test_what_is_too_much_for_one_entry_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    """And said again when it is less."""

    async def scene() -> None:
        with fast():
            async with stage() as on:
                await on.serves(A)
                on.applied(A, *((f"n/{number}", 1) for number in range(3100)))
                await until("it is gone", lambda: on.registry.serving() is None)
                assert "too many" in on.said.error
                calls = len(on.registry.writes())
                on.registry.refused = 0
                await until("a while", lambda: [name for name, _ in on.registry.calls].count("deregister") == 1)
                assert len(on.registry.writes()) == calls
                await on.serves(B)
                assert on.said.error == ""

    play(scene)
    assert sum("too many" in record.message for record in caplog.records) == 1


def test_a_name_that_no_entry_can_have_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    """Other services are."""

    async def scene() -> None:
        async with stage() as on:
            on.applied(A, service="s" * 250)
            await on.serves(A)
            assert "255 bytes" in on.said.error

    play(scene)
    assert sum("255 bytes" in record.message for record in caplog.records) == 1


def test_of_two_gateways_with_one_name_the_older_one_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    """It must not overwrite what the other one says; when that one is gone, it speaks."""

    async def scene() -> None:
        with fast():
            registry = Registry()
            async with stage(registry) as on:
                await on.serves(A)
                other = Acknowledgements(registry, "gw-1", None, TTL)
                await asyncio.sleep(0.002)  # its generation is the time of day
                other.applied("edge", "haproxy", Applied("cart", 1, frozenset((B,))))
                await on.until_serving("b")
                await until("somebody complains", lambda: "another unit-gateway" in on.said.error)
                on.applied(A, C)
                assert registry.serving() == {"b"}
                await other.close()
                await on.until_serving("a", "c")

    play(scene)
    assert any("a name of its own" in record.message for record in caplog.records)


# The registry comes and goes.


def test_a_registry_that_is_away_at_the_start_is_told_when_it_comes(caplog: pytest.LogCaptureFixture) -> None:
    """The newest only; said once each way."""
    caplog.set_level(logging.INFO)

    async def scene() -> None:
        with fast():
            async with stage() as on:
                on.registry.fail_next(20)
                on.applied(A)
                await until("it was tried", lambda: on.said.error)
                on.applied(B)
                await on.until_serving("b")
                await until("all is well", lambda: on.said.error == "")

    play(scene)
    words = [record.message for record in caplog.records if record.name == acknowledging.log.name]
    assert len(words) == 2
    assert words[0].startswith("cannot say") and "takes again" in words[1]


def test_a_registry_that_hangs_holds_up_nobody() -> None:
    """Whoever feeds gateways is not kept waiting, and what was said last is told in the end."""

    async def scene() -> None:
        with fast():
            async with stage() as on:
                await on.serves(A, B)
                on.registry.hang()
                began = time.monotonic()
                for _ in range(100):
                    on.applied(A)
                    on.applied(A, B, C)
                assert time.monotonic() - began < 1
                await until("it was tried", lambda: on.said.error)
                on.registry.release()
                await on.until_serving("a", "b", "c")

    play(scene)


def test_a_registry_that_has_lost_all_is_told_anew() -> None:
    """In another epoch; without waiting for a change."""

    async def scene() -> None:
        async with stage() as on:
            await on.serves(A)
            on.registry.forget()
            assert on.registry.serving() is None
            await on.until_serving("a")
            on.registry.forget()
            await on.serves(B)  # a change finds that out, too

    play(scene)


def test_renewals_that_fail_for_a_while_are_told_and_over(caplog: pytest.LogCaptureFixture) -> None:
    """The lease is not lost by one of them."""

    async def scene() -> None:
        async with stage() as on:
            await on.serves(A)
            on.registry.fail_next(1)
            await until("it is noticed", lambda: on.said.error)
            await until("it is over", lambda: on.said.error == "")
            assert on.registry.writes() == ["register"]

    play(scene)


def test_a_backend_with_a_mistake_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with where it was, and tried again."""

    async def scene() -> None:
        with fast():
            async with stage() as on:
                on.registry.refusal = ZeroDivisionError("a mistake")  # type: ignore[assignment]
                on.applied(A)
                await until("it is noticed", lambda: "a mistake" in on.said.error)
                on.registry.refusal = None
                await on.until_serving("a")

    play(scene)
    assert caplog.records[0].exc_info


def test_closing_does_not_fail_by_one_lost_answer() -> None:
    """The second attempt counts."""

    async def scene() -> None:
        async with stage() as on:
            await on.serves(A)
            on.registry.fail_next(1)
            await on.said.close()
            assert on.registry.serving() is None

    play(scene)


def test_closing_while_the_registry_hangs_is_bounded() -> None:
    """Also in the middle of a write; the entry ends with its lease."""

    async def scene() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(acknowledging, "CLOSE_SECONDS", 0.2)
            registry = Registry(timeout_seconds=30)
            async with stage(registry) as on:
                await on.serves(A)
                registry.hang()
                on.applied(B)
                await until("it is being written", lambda: registry.writes()[-1] == "update")
                async with asyncio.timeout(CLOSE_SECONDS):
                    await on.said.close()

    play(scene)


def test_a_registry_where_nothing_can_be_deleted_lets_it_expire() -> None:
    """Nothing is asked that it cannot do."""

    async def scene() -> None:
        registry = Registry()
        registry.capabilities = frozenset(Capability) - {Capability.DEREGISTER}
        async with stage(registry, ttl=0.5) as on:
            await on.serves(A)
            on.said.withdraw("edge")
            await until("it has expired", lambda: registry.serving() is None)
            assert "deregister" not in [name for name, _ in registry.calls]

    play(scene)


# Gateways come and go.


def test_a_gateway_that_does_not_answer_for_long_says_nothing_until_it_is_fed_again() -> None:
    """Nobody waits for it; the other gateways are not concerned."""

    async def scene() -> None:
        async with stage(unreachable_seconds=0.1) as on:
            on.applied(A, feeder="mesh")
            await on.serves(A, B)
            on.said.unreachable("edge")
            on.said.unreachable("edge")
            await until("it says nothing", lambda: on.registry.serving() is None)
            on.applying(A)
            on.said.reachable("edge")
            assert on.registry.serving() is None
            assert on.registry.serving("gw-1.mesh/cart") == {"a"}
            await on.serves(A)

    play(scene)


def test_a_gateway_that_answers_again_soon_is_not_withdrawn() -> None:
    """A restart of it takes a moment."""

    async def scene() -> None:
        async with stage(unreachable_seconds=0.1) as on:
            await on.serves(A)
            on.said.unreachable("edge")
            on.said.reachable("edge")
            on.said.reachable("edge")
            await on.serves(A, B)
            on.applied(A, B, service="other")
            began = time.monotonic()
            await until("longer than it may be away", lambda: time.monotonic() > began + 0.3)
            assert "deregister" not in [name for name, _ in on.registry.calls]

    play(scene)


# What is open.


def open_at(on: Stage, key: Key) -> int | None:
    said = on.registry.says()
    return None if said is None else said.in_flight(*key)


def test_what_is_open_at_those_that_get_nothing_new_is_told_now_and_then() -> None:
    """Not of those that serve, whose number nobody waits for."""

    async def scene() -> None:
        with fast():
            async with stage() as on:
                await on.serves(A)
                on.said.busy("edge", "cart", {A: 9, B: 5, C: 0})
                await until("it is told", lambda: open_at(on, B) == 5)
                assert (open_at(on, A), open_at(on, C)) == (None, 0)
                said = on.registry.says()
                assert said is not None and set(said.busy) == {token(*B)}
                writes = len(on.registry.writes())
                for number in range(100, 0, -1):
                    on.said.busy("edge", "cart", {B: number})
                await until("the last of them", lambda: open_at(on, B) == 1)
                assert len(on.registry.writes()) <= writes + 2
                on.said.busy("edge", "cart", {})
                await until("it is over", lambda: open_at(on, B) == 0)

    play(scene)


def test_a_gateway_that_never_counted_does_not_claim_to() -> None:
    """Who waits for it must look elsewhere."""

    async def scene() -> None:
        async with stage() as on:
            await on.serves(A, B)
            await on.serves(A)
            assert open_at(on, B) is None

    play(scene)


def test_who_was_left_counts_as_busy_until_somebody_has_counted() -> None:
    """The gateway has taken it out, but what is open there is not known yet. Nobody counts: then it is not claimed."""

    async def scene() -> None:
        with fast():
            async with stage() as on:
                on.said.busy("edge", "cart", {})
                await on.serves(A, B)
                await on.serves(A)
                assert open_at(on, B) == 1
                on.said.busy("edge", "cart", {B: 3})
                await until("it is counted", lambda: open_at(on, B) == 3)
                on.said.busy("edge", "cart", {})
                await until("it is over", lambda: open_at(on, B) == 0)
                await on.serves(C)
                assert open_at(on, A) == 1
                await until("nobody has counted", lambda: open_at(on, A) is None)

    play(scene)


def test_what_was_counted_before_it_is_said_is_said_with_it() -> None:
    """In one write."""

    async def scene() -> None:
        async with stage() as on:
            on.said.busy("edge", "cart", {})
            await on.serves(A, B)
            on.said.busy("edge", "cart", {B: 0})
            on.applied(A, counted=True)
            await on.until_serving("a")
            assert open_at(on, B) == 0

    play(scene)


# Whatever is lost or late.


class Lossy(Registry):
    """Of writes, some are lost, some count without an answer, and some arrive later."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance, self.is_lossy = chance, False

    async def _may(self, write: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        fate = self.chance.random() if self.is_lossy else 1.0
        if fate < 0.2:
            self.late.append(write)
        elif fate < 0.4:
            await write()
        elif fate > 0.6:
            return
        raise RegistryUnavailable("cannot write: no answer")


@pytest.mark.parametrize("seed", range(8))
def test_whoever_is_named_stays_named_while_the_gateway_sends_to_it(seed: int) -> None:
    """Whatever happens to writes. In the end what is said is right, and nothing that is late changes it."""
    chance = random.Random(seed)

    async def scene() -> None:
        with fast(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(acknowledging, "MAX_RETRY_SECONDS", 0.002)
            registry = Lossy(chance)
            async with stage(registry) as on:
                keys: list[Key] = [A]
                for _ in range(12):
                    registry.is_lossy = False
                    await on.serves(*keys)
                    named, registry.is_lossy = set(keys), True
                    for _ in range(chance.randrange(1, 8)):
                        keys = chance.sample((A, B, C), chance.randrange(1, 4))
                        on.applying(*keys)
                        await asyncio.sleep(chance.choice([0, 0.001, 0.004]))
                        if chance.random() < 0.7:
                            on.applied(*keys)
                            named &= set(keys)
                        if chance.random() < 0.3:
                            await registry.late_ones_arrive()
                        await asyncio.sleep(chance.choice([0, 0.001, 0.004]))
                        serving = registry.serving()
                        assert serving is None or {key[0][2:] for key in named} <= serving
                registry.is_lossy = False
                await on.serves(*keys)
                await until("it is quiet", lambda: not on.said.error)
                await registry.late_ones_arrive()
                assert registry.serving() == {key[0][2:] for key in keys}

    play(scene)


# The real thing.

FROZEN = """
import asyncio, sys
from gateway.acknowledging import Acknowledgements
from gateway.model import Applied
from registry_client.backends.http import HttpBackend

async def main():
    backend = HttpBackend(sys.argv[1])
    said = Acknowledgements(backend, "gw-1", None, 0.9)
    said.applied("edge", "haproxy", Applied("cart", 1, frozenset({("n/a", 1)})))
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await said.close()
    await backend.close()

asyncio.run(main())
"""


def test_a_process_that_was_frozen_for_longer_than_its_lease_says_it_anew(tmp_path: Path) -> None:
    """Over HTTP; while it stands still nobody may believe it, and at the end it is gone."""
    with ServedRegistry() as registry:
        probe = _probe()

        def serving() -> bool:
            entry = registry.get(probe)
            said = None if entry is None else from_entry(entry)
            return said is not None and said.serving == {token(*A)}

        command = [sys.executable, "-c", FROZEN, registry.url]
        root = Path(__file__).parents[2]
        process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE)
        try:
            until_true("it is said", serving)
            os.kill(process.pid, signal.SIGSTOP)
            until_true("its lease has ended", lambda: registry.get(probe) is None)
            os.kill(process.pid, signal.SIGCONT)
            until_true("it is said again", serving)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(10) == 0
            assert registry.get(probe) is None
        finally:
            process.kill()
            process.communicate()


def test_over_http_an_outage_in_the_middle_and_another_epoch_are_survived() -> None:
    """What has changed meanwhile is told when the registry is back."""
    with ServedRegistry() as registry:

        def serving() -> frozenset[str]:
            entry = registry.get(_probe())
            said = None if entry is None else from_entry(entry)
            return frozenset() if said is None else said.serving

        async def scene() -> None:
            with fast():
                backend = HttpBackend(registry.url)
                said = Acknowledgements(backend, "gw-1", None, 0.9)
                try:
                    said.applied("edge", "haproxy", Applied("cart", 1, frozenset((A, B))))
                    await until("it is said", serving)
                    await asyncio.to_thread(registry.deafen)
                    said.applied("edge", "haproxy", Applied("cart", 2, frozenset((B,))))
                    await until("it is noticed", lambda: said.error)
                    await asyncio.to_thread(registry.forget)
                    await asyncio.to_thread(registry.listen)
                    await until("the newest is said", lambda: serving() == {token(*B)})
                finally:
                    await said.close()
                    await backend.close()

        asyncio.run(scene())
        assert registry.get(_probe()) is None


def _probe() -> Entry:
    """Where the gateway's entry is."""
    return Entry(
        service=GATEWAY_SERVICE, instance=INSTANCE, node="gw-1", unit="edge", address="127.0.0.1", port=1,
        generation=1, started_at="2026-11-23T06:29:10Z",
    )  # fmt: skip
