"""The restart agents: an entry is gone when a read says so, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from registry_client.backend import LATENESS_SECONDS
from registry_client.errors import RegistryRejected
from registry_client.model import Entry, LeaseKey
from registry_client.testing import FakeBackend
from supervisor.agents import restart
from supervisor.agents.entry import unit_entry
from supervisor.agents.restart import RestartAgents
from supervisor.core.events import Event, Gone, Unconfirmed
from supervisor.core.model import Removal, RestartPolicy, ServiceSpec, UnitSpec
from supervisor.host.clock import monotonic
from tests.supervisor.agents.registries import one_registry
from tests.supervisor.running import run, until

TTL = 0.6
SPEC = UnitSpec("cart", "cart", 0, ("cart",), service=ServiceSpec("shop", "127.0.0.1", 9080, ttl_seconds=TTL))
AT_ONCE = replace(SPEC, restart=RestartPolicy(removal=Removal.DEREGISTER))


class Host:
    """One published unit, its agents, and what they post."""

    def __init__(self, backend: FakeBackend) -> None:
        self.backend = backend
        self.posted = list[tuple[str, Event]]()
        self.steps = list[tuple[str, str]]()
        self.confirmed = list[str]()
        self.beats = one_registry(backend, self.confirmed.append)
        self.agents = RestartAgents(
            self.beats,
            lambda unit, event: self.posted.append((unit, event)),
            lambda unit, step: self.steps.append((unit, step)),
        )

    async def publish(self, attempt: int = 1) -> None:
        assert SPEC.service is not None
        made = unit_entry("n", SPEC, SPEC.service, attempt, "2026-11-24T03:41:46.123Z")
        self.confirmed.clear()
        self.beats.publish("cart", made, TTL)
        await until(lambda: self.confirmed, "registered")

    def held(self) -> Entry | None:
        return self.backend._store.get("shop", "n/cart")

    async def answer(self) -> Event:
        await until(lambda: self.posted, "an answer")
        assert len(self.posted) == 1
        unit, event = self.posted[0]
        assert unit == "cart"
        return event


@asynccontextmanager
async def host(backend: FakeBackend | None = None) -> AsyncIterator[Host]:
    made = Host(backend or FakeBackend(timeout_seconds=0.1))
    try:
        yield made
    finally:
        await made.agents.close()
        await made.beats.close()


@pytest.fixture(autouse=True)
def _short_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart, "MARGIN_SECONDS", 0.3)
    monkeypatch.setattr(restart, "UNREACHABLE_SECONDS", 0.3)


def test_an_expiring_entry_is_gone_when_a_read_no_longer_finds_it() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.publish()
            began = monotonic()
            it.agents.take_out(SPEC, 1, 4)
            assert await it.answer() == Gone(1, 4)
            assert it.held() is None
            assert [method for method, _ in it.backend.calls][-1] == "get"
            assert TTL * 0.9 < monotonic() - began < TTL + LATENESS_SECONDS + 0.5
            assert it.beats.lease("cart") is None, "the heartbeat agent is forgotten"

    run(scenario())


def test_a_deregistered_entry_is_gone_at_once() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.publish()
            began = monotonic()
            it.agents.take_out(AT_ONCE, 1, 1)
            assert await it.answer() == Gone(1, 1)
            assert monotonic() - began < TTL / 2
            assert [method for method, _ in it.backend.calls] == ["register", "deregister", "get"]

    run(scenario())


def test_gone_is_not_said_while_the_registry_still_lists_the_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lingering(FakeBackend):
        lingers = True

        async def get(self, service: str, instance: str) -> Entry | None:
            await super().get(service, instance)
            assert SPEC.service is not None
            old = unit_entry("n", SPEC, SPEC.service, 1, "2026-11-24T03:41:46.123Z")
            return old if self.lingers else None

    async def scenario() -> None:
        monkeypatch.setattr(restart, "MARGIN_SECONDS", 30.0)
        backend = Lingering()
        async with host(backend) as it:
            await it.publish()
            it.agents.take_out(SPEC, 1, 1)
            await until(lambda: len([method for method, _ in backend.calls if method == "get"]) >= 3)
            assert it.posted == []
            backend.lingers = False
            assert await it.answer() == Gone(1, 1)

    run(scenario())


def test_an_entry_that_is_still_listed_past_every_bound_is_deleted(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.publish()
            it.agents.take_out(SPEC, 1, 1)
            await until(lambda: ("cart", "gone") in it.steps)
            entry = it.held()
            assert entry is not None
            await it.backend.register(entry, 60.0)  # as a new leader of a registry gives it its whole ttl again
            began, event = monotonic(), await it.answer()
            assert event == Gone(1, 1)
            assert monotonic() - began > TTL + LATENESS_SECONDS
            assert it.held() is None
            assert ("deregister", LeaseKey("shop", "n/cart", 1)) in it.backend.calls

    run(scenario())
    assert "the registry still listed n/cart of shop (generation 1) after its ttl: it was deleted" in caplog.text


def test_an_entry_that_cannot_be_deleted_either_is_unconfirmed(caplog: pytest.LogCaptureFixture) -> None:
    class Forbidding(FakeBackend):
        async def deregister(self, key: LeaseKey) -> bool:
            raise RegistryRejected("cannot deregister: forbidden", code="permission_denied")

    async def scenario() -> None:
        async with host(Forbidding()) as it:
            await it.publish()
            it.agents.take_out(SPEC, 1, 1)
            await until(lambda: ("cart", "gone") in it.steps)
            entry = it.held()
            assert entry is not None
            await it.backend.register(entry, 60.0)
            began, event = monotonic(), await it.answer()
            assert event == Unconfirmed(1, 1, "the registry still lists the entry, although its ttl is over")
            assert monotonic() - began > 2 * TTL
            assert it.held() is not None

    run(scenario())
    assert caplog.text.count("it cannot be deleted either (cannot deregister: forbidden)") == 1


def test_while_a_registry_elects_a_leader_nobody_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says "there", then nothing for a while, then "not there": the silence was shorter than what gives up."""

    class Electing(FakeBackend):
        looks = 0

        async def get(self, service: str, instance: str) -> Entry | None:
            self.looks += 1
            if self.looks < 30:
                self.fail_next()
            return await super().get(service, instance)

    async def scenario() -> None:
        monkeypatch.setattr(restart, "UNREACHABLE_SECONDS", 30.0)
        monkeypatch.setattr(restart, "LAST_LOOK_SECONDS", 0.05)
        monkeypatch.setattr(restart, "MARGIN_SECONDS", 0.05)
        backend = Electing()
        async with host(backend) as it:
            await it.publish()
            it.agents.take_out(SPEC, 1, 1)
            assert await it.answer() == Gone(1, 1)
            assert backend.looks == 30

    run(scenario())


@pytest.mark.parametrize("spec", [SPEC, AT_ONCE], ids=["expire", "deregister"])
def test_with_a_registry_that_is_away_nothing_is_said_before_ttl_bound_and_margin(spec: UnitSpec) -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.publish()
            lease = it.beats.lease("cart")
            assert lease is not None and lease.last_possible_at is not None
            it.backend.fail_next(10_000)
            it.agents.take_out(spec, 1, 1)
            event = await it.answer()
            assert isinstance(event, Unconfirmed)
            assert "the registry cannot say whether the entry is gone (cannot reach the registry" in event.reason
            assert monotonic() - lease.last_possible_at >= TTL + LATENESS_SECONDS + restart.MARGIN_SECONDS
            assert monotonic() - lease.last_possible_at < TTL + LATENESS_SECONDS + restart.MARGIN_SECONDS + 1.5

    run(scenario())


def test_a_registry_that_comes_back_before_the_bound_confirms() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.publish()
            it.backend.fail_next(10_000)
            it.agents.take_out(SPEC, 1, 1)
            await until(lambda: any(method == "get" for method, _ in it.backend.calls), "a first look")
            assert it.posted == []
            it.backend._failures.clear()
            assert await it.answer() == Gone(1, 1)

    run(scenario())


@pytest.mark.parametrize("error", [RegistryRejected("cannot read: forbidden", code="http_403"), KeyError("a mistake")])
def test_a_read_that_fails_in_any_way_is_no_answer(error: Exception) -> None:
    class Broken(FakeBackend):
        async def get(self, service: str, instance: str) -> Entry | None:
            raise error

    async def scenario() -> None:
        async with host(Broken()) as it:
            await it.publish()
            it.agents.take_out(AT_ONCE, 1, 1)
            event = await it.answer()
            assert isinstance(event, Unconfirmed)
            assert "cannot say whether the entry is gone" in event.reason

    run(scenario())


def test_another_generation_in_its_place_means_that_this_one_is_gone() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.publish()
            it.agents.take_out(SPEC, 1, 1)
            await until(lambda: it.steps)
            entry = it.held()
            assert entry is not None
            await it.backend.register(replace(entry, generation=2), 60.0)
            assert await it.answer() == Gone(1, 1)
            assert it.held() is not None

    run(scenario())


def test_an_entry_that_was_lost_before_is_gone_without_waiting() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.publish()
            it.backend.forget()
            began = monotonic()
            it.agents.take_out(SPEC, 1, 1)
            assert await it.answer() == Gone(1, 1)
            assert monotonic() - began < TTL / 2

    run(scenario())


def test_a_unit_that_was_never_registered_is_gone() -> None:
    async def scenario() -> None:
        async with host() as it:
            it.agents.take_out(SPEC, 1, 1)
            assert await it.answer() == Gone(1, 1)

    run(scenario())


def test_a_withdrawal_that_is_called_off_says_nothing_and_the_unit_beats_again() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.publish()
            it.agents.take_out(SPEC, 1, 1)
            await until(lambda: it.steps, "waiting for gone")
            it.agents.call_off("cart")
            it.agents.call_off("cart")
            await it.publish()
            began = monotonic()
            await until(lambda: monotonic() - began > 1.5 * TTL)
            assert it.posted == []
            entry = it.held()
            assert entry is not None and (entry.status, entry.weight) == ("up", 100)
            assert it.agents.describe("cart") == ""

    run(scenario())


def test_calling_off_before_the_withdrawal_has_even_begun_leaves_the_heartbeat_alone() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.publish()
            it.agents.take_out(SPEC, 1, 1)
            it.agents.call_off("cart")
            began = monotonic()
            await until(lambda: monotonic() - began > 1.5 * TTL)
            entry = it.held()
            assert entry is not None and entry.status == "up"
            assert [method for method, _ in it.backend.calls if method == "update"] == []

    run(scenario())


def test_calling_off_while_the_fence_waits_leaves_the_unit_published() -> None:
    async def scenario() -> None:
        async with host(FakeBackend(timeout_seconds=0.3)) as it:
            await it.publish()
            it.backend.hang()
            mark = len(it.backend.calls)
            await until(lambda: len(it.backend.calls) > mark, "a renewal under way")
            it.agents.take_out(AT_ONCE, 1, 1)
            await asyncio.sleep(0.02)
            it.agents.call_off("cart")
            it.backend.release()
            await it.publish()
            assert [method for method, _ in it.backend.calls if method == "deregister"] == []
            assert it.held() is not None

    run(scenario())


def test_the_steps_and_the_words_follow_what_is_waited_for() -> None:
    async def scenario() -> None:
        async with host(FakeBackend(timeout_seconds=0.5)) as it:
            await it.publish()
            assert it.agents.describe("cart") == ""
            it.backend.hang()
            it.agents.take_out(SPEC, 1, 1)
            assert it.agents.describe("cart") == "stopping the heartbeat"
            assert it.steps == []
            it.backend.release()
            await until(lambda: it.steps)
            words = it.agents.describe("cart")
            assert words.startswith("waiting for the registry entry to go: 0.")
            assert words.endswith((" s of 0.5 s", " s of 0.6 s")), words  # rounded, and counted from the last renewal
            await it.answer()
            assert it.steps == [("cart", "gone")]
            assert it.agents.describe("cart") == ""

    run(scenario())


def test_close_ends_the_waiting_without_an_answer() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.publish()
            it.agents.take_out(SPEC, 1, 1)
            await until(lambda: it.steps)
            await it.agents.close()
            closed = monotonic()
            await until(lambda: monotonic() - closed > TTL + 0.3)
            assert it.posted == []

    run(scenario())
