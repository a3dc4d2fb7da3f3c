"""What the agents count: removals, drains, renewals, and how long operations take."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from registry_client.errors import RegistryRejected
from registry_client.testing import FakeBackend
from supervisor.agents import restart
from supervisor.agents.drain import Load
from supervisor.agents.heartbeat import Heartbeats
from supervisor.agents.ledger import Ledger
from supervisor.agents.operations import Operations
from supervisor.core.events import Drain
from supervisor.core.measures import Measures
from supervisor.core.model import DrainSpec, InFlight
from supervisor.wire import Command
from tests.supervisor.agents import test_drain as draining
from tests.supervisor.agents import test_restart as leaving
from tests.supervisor.agents.fleet import Fleet, service
from tests.supervisor.agents.test_heartbeat import TTL, entry
from tests.supervisor.fake_time import run_fake
from tests.supervisor.running import run, until


def _counts(histograms: object) -> dict[tuple[str, ...], int]:
    return {key: histograms.cumulative(key)[0][-1] for key in histograms.values}  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart, "MARGIN_SECONDS", 0.3)
    monkeypatch.setattr(restart, "UNREACHABLE_SECONDS", 0.1)


def test_a_removal_counts_with_its_outcome_and_its_share_of_what_was_promised() -> None:
    async def scenario() -> None:
        async with leaving.host() as host:
            await host.publish()
            host.agents.take_out(leaving.SPEC, 1, 1)
            await host.answer()
            measures = host.agents._measures
            assert _counts(measures.removals) == {("gone",): 1}
            counts, total = measures.removal_ratios.cumulative(())
            assert counts[-1] == 1 and 0 < total <= 1, "in time"

    run(scenario())


def test_a_removal_that_nobody_can_confirm_counts_as_that_and_was_late() -> None:
    async def scenario() -> None:
        async with leaving.host() as host:
            await host.publish()
            host.backend.fail_next(10_000)
            host.agents.take_out(leaving.SPEC, 1, 1)
            await host.answer()
            measures = host.agents._measures
            assert _counts(measures.removals) == {("unconfirmed",): 1}
            assert measures.removal_ratios.cumulative(())[1] > 1

    run(scenario())


def test_a_removal_that_was_called_off_says_nothing_about_the_registry() -> None:
    async def scenario() -> None:
        async with leaving.host() as host:
            await host.publish()
            host.agents.take_out(leaving.SPEC, 1, 1)
            host.agents.call_off("cart")
            measures = host.agents._measures
            assert _counts(measures.removals) == {("called_off",): 1}
            assert _counts(measures.removal_ratios) == {(): 0}

    run(scenario())


@pytest.mark.parametrize(
    ("load", "how", "outcome"),
    [
        (Load(0, quiet=True), DrainSpec(timeout=1.0), "quiet"),
        (Load(3, quiet=False), DrainSpec(timeout=1.0), "timeout"),
        (None, DrainSpec(timeout=1.0, in_flight=InFlight.NONE), "unseen"),
    ],
)
def test_a_drain_counts_with_its_outcome(
    load: Load | None, how: DrainSpec, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.agents.drain.monotonic", lambda: asyncio.get_running_loop().time())

    async def scenario() -> None:
        host = draining.Host(draining.Source(load))
        host.drains.drain(draining.replace(draining.SPEC, drain=how), 1, notify=False)
        await host.end()
        measures = host.drains._measures
        assert _counts(measures.drains) == {("cart", outcome): 1}
        assert measures.drains.cumulative(("cart", outcome))[1] <= 1.5
        await host.drains.close()

    run_fake(scenario())


def test_renewals_count_by_what_came_of_them() -> None:
    async def scenario() -> None:
        backend, confirmed = FakeBackend(timeout_seconds=0.2), list[str]()
        beats = Heartbeats(backend, confirmed.append)
        beats.publish("cart", entry(), TTL)
        await until(lambda: confirmed, "registered")
        assert beats.outcomes == {"confirmed": 1, "unanswered": 0, "lost": 0, "rejected": 0}
        backend.fail_next()
        await until(lambda: beats.outcomes["unanswered"], "a renewal that was not answered")
        backend.forget()
        await until(lambda: beats.outcomes["lost"], "a renewal of what the registry has lost")
        beats.forget("cart")
        backend.fail_next(error=RegistryRejected("no", code="bad_entry"))
        beats.publish("shop", entry("shop"), TTL)
        await until(lambda: beats.outcomes["rejected"], "a registration that was refused")
        await beats.close()

    run(scenario())


def test_operations_count_from_acceptance_with_all_their_steps(tmp_path: Path) -> None:
    async def scenario() -> None:
        fleet, measures = Fleet(tmp_path, [service("cart:0")]), Measures()
        fleet.operations._measures = measures
        fleet.up("cart:0")
        fleet.held.add(Drain)
        fleet.restart("cart:0")
        assert fleet.operations.open_count == 1
        assert {verb: count for verb, (count, _) in fleet.operations.oldest_open().items()} == {"restart": 1}
        fleet.release(Drain)
        assert fleet.operations.open_count == 0 and fleet.operations.oldest_open() == {}
        fleet.close()
        assert _counts(measures.operations) == {("restart", "succeeded"): 1}
        assert _counts(measures.latencies) == {("restart",): 1}
        assert ("drain",) in measures.steps.values and ("spawn",) in measures.steps.values

    run(scenario())


def test_an_operation_of_an_earlier_daemon_counts_from_when_it_was_accepted(tmp_path: Path) -> None:
    async def scenario() -> None:
        ledger = Ledger(None, "abcdef")
        operations = Operations(lambda name: None, lambda name: "", ledger)
        made = operations.add("cart", "restart", Command())
        made.created = "2026-01-01T00:00:00.000Z"
        tracked = ledger.tracked(made.id)
        assert tracked is not None
        again = type(tracked).from_json(tracked.to_json())
        assert again.age_seconds > 86400

    run(scenario())
