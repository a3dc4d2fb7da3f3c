"""Several registries at once: an entry is in all of them, and has gone when it has gone from all."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from registry_client.backend import Backend, Inspection
from registry_client.errors import RegistryRejected, RegistryUnavailable
from registry_client.lease import LeaseState, state_at
from registry_client.model import Entry
from registry_client.testing import FakeBackend
from supervisor.agents import registries, restart
from supervisor.agents.entry import unit_entry
from supervisor.agents.restart import RestartAgents
from supervisor.core.events import Event, Gone, Unconfirmed
from supervisor.core.model import ServiceSpec, UnitSpec
from supervisor.host.clock import monotonic
from tests.supervisor.agents.registries import some_registries
from tests.supervisor.running import run, until

TTL = 0.6
SPEC = UnitSpec("cart", "cart", 0, ("cart",), service=ServiceSpec("shop", "127.0.0.1", 9080, ttl_seconds=TTL))


class Host:
    """A unit in an old and in a new registry."""

    def __init__(self, ttl_seconds: dict[str, float] | None = None) -> None:
        self.old, self.new = FakeBackend(timeout_seconds=0.1), FakeBackend(timeout_seconds=0.1)
        backends: dict[str, Backend] = {"main": self.new, "old": self.old}
        self.confirmed, self.posted = list[str](), list[Event]()
        self.registries = some_registries(backends, self.confirmed.append, ttl_seconds=ttl_seconds)
        self.agents = RestartAgents(
            self.registries, lambda unit, event: self.posted.append(event), lambda unit, step: None
        )

    def publish(self, attempt: int = 1) -> None:
        assert SPEC.service is not None
        self.registries.publish("cart", unit_entry("n", SPEC, SPEC.service, attempt, "2026-11-24T03:41:46.123Z"), TTL)

    @property
    def held(self) -> tuple[Entry | None, Entry | None]:
        """What the old and the new one have."""
        return self.old._store.get("shop", "n/cart"), self.new._store.get("shop", "n/cart")


@asynccontextmanager
async def host(ttl_seconds: dict[str, float] | None = None) -> AsyncIterator[Host]:
    made = Host(ttl_seconds)
    try:
        yield made
    finally:
        await made.agents.close()
        await made.registries.close()


@pytest.fixture(autouse=True)
def _short_margins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart, "MARGIN_SECONDS", 0.2)
    monkeypatch.setattr(restart, "UNREACHABLE_SECONDS", 0.2)


def test_an_entry_is_in_every_registry_and_confirmed_when_the_last_one_has_it() -> None:
    async def scenario() -> None:
        async with host() as it:
            it.old.hang()
            it.publish()
            await until(lambda: it.held[1] is not None)
            assert it.held[0] is None and it.confirmed == []
            it.old.release()
            await until(lambda: it.confirmed == ["cart"])
            assert None not in it.held

    run(scenario())


def test_gone_is_said_when_the_entry_has_gone_from_every_registry() -> None:
    async def scenario() -> None:
        async with host(ttl_seconds={"old": 3 * TTL}) as it:
            it.publish()
            await until(lambda: it.confirmed)
            it.agents.take_out(SPEC, 1, 7)
            await until(lambda: it.held[1] is None)
            assert it.held[0] is not None and it.posted == []
            await until(lambda: it.posted)
            assert it.posted == [Gone(1, 7)] and it.held == (None, None)
            assert it.registries.lease("cart") is None

    run(scenario())


def test_one_registry_that_is_away_leaves_it_unconfirmed_and_is_named() -> None:
    async def scenario() -> None:
        async with host() as it:
            it.publish()
            await until(lambda: it.confirmed)
            it.old.fail_next(10_000)
            it.agents.take_out(SPEC, 1, 1)
            await until(lambda: it.posted)
            (answer,) = it.posted
            assert isinstance(answer, Unconfirmed)
            assert answer.reason.startswith("registry old: the registry cannot say whether the entry is gone")
            assert "main" not in answer.reason

    run(scenario())


def test_a_registry_that_is_away_does_not_disturb_the_lease_in_the_other() -> None:
    async def scenario() -> None:
        async with host() as it:
            it.publish()
            await until(lambda: it.confirmed)
            it.old.fail_next(10_000)

            def states() -> dict[str, LeaseState]:
                return {name: state_at(lease, monotonic()) for name, lease in it.registries.leases("cart").items()}

            await until(lambda: states()["old"] is LeaseState.LOST)
            assert states()["main"] in (LeaseState.HELD, LeaseState.SUSPENDED)
            worst = it.registries.lease("cart")
            assert worst is not None and state_at(worst, monotonic()) is LeaseState.LOST
            assert it.registries.trouble("cart").startswith("registry old: ")
            it.old._failures.clear()
            await until(lambda: states()["old"] is LeaseState.HELD)
            assert None not in it.held and it.registries.trouble("cart") == ""

    run(scenario())


def test_changed_values_reach_all_of_them() -> None:
    async def scenario() -> None:
        async with host() as it:
            it.publish()
            await until(lambda: it.confirmed)
            entry = it.registries.entry("cart")
            assert entry is not None
            it.registries.change("cart", replace(entry, weight=7), TTL)
            await until(lambda: [each.weight for each in it.held if each] == [7, 7])

    run(scenario())


def test_a_withdrawal_that_is_called_off_registers_everywhere_again() -> None:
    async def scenario() -> None:
        async with host() as it:
            it.publish()
            await until(lambda: it.confirmed)
            it.agents.take_out(SPEC, 1, 1)
            await until(lambda: all(each is not None and each.status == "draining" for each in it.held))
            it.agents.call_off("cart")
            it.publish()
            await until(lambda: [each.status for each in it.held if each] == ["up", "up"])
            await until(lambda: it.confirmed == ["cart", "cart"])

    run(scenario())


def test_what_cannot_work_is_logged_when_the_registry_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(FakeBackend):
        asked = 0

        async def inspect(self, ttl_seconds: float) -> Inspection:
            self.asked += 1
            if self.asked < 3:
                raise RegistryUnavailable("cannot inspect: away")
            return Inspection(ttl_seconds, warnings=("its clock stands still",))

    class Broken(FakeBackend):
        async def inspect(self, ttl_seconds: float) -> Inspection:
            raise KeyError("a mistake")

    async def scenario() -> None:
        monkeypatch.setattr(registries, "INSPECT_RETRY_SECONDS", 0.01)
        made = some_registries({"main": Odd(), "old": Broken()}, lambda unit: None)
        made.inspect(5.0)
        await until(lambda: "registry main: its clock stands still" in caplog.text)
        await until(lambda: "registry old: cannot be inspected" in caplog.text)
        await made.close()

    with caplog.at_level(logging.WARNING):
        run(scenario())


def test_a_registry_that_refuses_to_tell_of_itself_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Silent(FakeBackend):
        asked = 0

        async def inspect(self, ttl_seconds: float) -> Inspection:
            self.asked += 1
            raise RegistryRejected("cannot inspect: no right", code="permission_denied")

    async def scenario() -> None:
        monkeypatch.setattr(registries, "INSPECT_RETRY_SECONDS", 0.001)
        backend = Silent()
        made = some_registries({"main": backend}, lambda unit: None)
        made.inspect(5.0)
        await until(lambda: "registry main: cannot inspect: no right" in caplog.text)
        await until(lambda: not made._tasks, "nobody asks again")
        assert backend.asked == 1
        await made.close()

    run(scenario())
