"""How a unit goes on in another daemon: in its phase, with the actions that may not have been performed."""

from __future__ import annotations

import pytest

from supervisor.core.adoption import resume
from supervisor.core.events import (
    Action,
    ArmTimer,
    Drain,
    Kill,
    Prewarm,
    Publish,
    Spawn,
    Terminate,
    Withdraw,
)
from supervisor.core.model import DrainSpec, Hook, HttpCall, Phase, ServiceSpec, Unit, UnitSpec, WarmupSpec
from supervisor.core.paths import CANNOT_KILL_SECONDS, SPARE_SECONDS

PLAIN = UnitSpec("job", "job", 0, ("x",), start_timeout=60, stopwaitsecs=10)
WEB = UnitSpec(
    "web", "web", 0, ("x",), service=ServiceSpec("web", "127.0.0.1", 80), stopwaitsecs=10,
    drain=DrainSpec(notify=Hook(http=HttpCall("POST", "/drain"), timeout=4), timeout=30),
    warmup=WarmupSpec(requests=(HttpCall("GET", "/"),), requests_timeout=20),
)  # fmt: skip


def on(
    unit: Unit, spec: UnitSpec = WEB, *, spawned: bool = True, left: float | None = None, elapsed: float = 4.0
) -> tuple[Unit, tuple[Action, ...]]:
    return resume(unit, spec, spawned=spawned, left_seconds=left, elapsed=elapsed)


def live(phase: Phase, **facts: object) -> Unit:
    values: dict[str, object] = {"wanted": True, "attempt": 3, "timer": 8, "withdrawal": 2, "live": True, "pid": 42}
    return Unit(phase=phase, **{**values, **facts})  # type: ignore[arg-type]


def test_a_start_that_may_not_have_happened_happens_in_the_same_generation() -> None:
    unit, actions = on(live(Phase.STARTING, pid=None), PLAIN, spawned=False)
    assert actions == (Spawn(3), ArmTimer(9, 60.0))
    assert (unit.phase, unit.attempt) == (Phase.STARTING, 3)


def test_a_start_that_has_happened_gets_what_is_left_of_its_time() -> None:
    assert on(live(Phase.STARTING), PLAIN)[1] == (ArmTimer(9, 56.0),)
    assert on(live(Phase.STARTING), PLAIN, elapsed=100)[1] == (ArmTimer(9, 0.0),)


def test_the_first_requests_are_sent_again() -> None:
    assert on(live(Phase.PREWARMING))[1] == (Prewarm(3), ArmTimer(9, 20 + SPARE_SECONDS))


@pytest.mark.parametrize("published", [True, False])
def test_a_unit_that_serves_is_registered_again_in_its_generation(published: bool) -> None:
    unit, actions = on(live(Phase.RUNNING, published=published))
    assert actions == (Publish(3),)
    assert (unit.published, unit.withdrawn, unit.attempt) == (True, False, 3)


@pytest.mark.parametrize("facts", [{"healthy": False}, {"drained": True}])
def test_one_that_does_not_serve_stays_out_and_what_is_left_of_its_entry_goes(facts: dict[str, object]) -> None:
    unit, actions = on(live(Phase.RUNNING, published=True, withdrawn=True, **facts))
    assert actions == (Withdraw(3, 3),) and unit.withdrawn
    assert on(live(Phase.RUNNING, **facts))[1] == ()


def test_a_unit_without_a_service_just_runs_on() -> None:
    assert on(live(Phase.RUNNING), PLAIN) == (live(Phase.RUNNING), ())


def test_a_withdrawal_begins_again_under_another_number() -> None:
    unit, actions = on(live(Phase.EXPIRING, published=True, withdrawn=True, leaving=True))
    assert actions == (Withdraw(3, 3),)
    assert (unit.phase, unit.withdrawal, unit.leaving) == (Phase.EXPIRING, 3, True)


def test_settling_takes_what_is_left_of_it() -> None:
    assert on(live(Phase.SETTLING), elapsed=0.2)[1] == (ArmTimer(9, 0.5 - 0.2),)
    assert on(live(Phase.SETTLING), elapsed=9)[1] == (ArmTimer(9, 0.0),)


def test_a_drain_goes_on_and_one_that_was_told_is_told_again() -> None:
    assert on(live(Phase.DRAINING, told=True))[1] == (Drain(3, True), ArmTimer(9, 30 + 4 + SPARE_SECONDS - 4))
    assert on(live(Phase.DRAINING))[1] == (Drain(3, False), ArmTimer(9, 30 + SPARE_SECONDS - 4))


def test_a_drain_without_a_table_has_the_defaults() -> None:
    _, actions = on(live(Phase.DRAINING, told=True), PLAIN)
    assert actions == (Drain(3, False), ArmTimer(9, DrainSpec().timeout + SPARE_SECONDS - 4))


def test_the_stop_signal_is_sent_again_and_the_grace_counts_on() -> None:
    assert on(live(Phase.STOPPING))[1] == (Terminate(3), ArmTimer(9, 6.0))
    assert on(live(Phase.KILLING))[1] == (Kill(3), ArmTimer(9, CANNOT_KILL_SECONDS))


@pytest.mark.parametrize("phase", [Phase.STOPPED, Phase.FATAL, Phase.WAITING])
def test_what_rests_goes_on_resting(phase: Phase) -> None:
    unit = Unit(phase=phase, attempt=3, crashed=True)
    assert on(unit, PLAIN) == (unit, ())


def test_an_entry_of_what_rests_goes() -> None:
    unit, actions = on(Unit(phase=Phase.FATAL, attempt=3, withdrawal=1, published=True))
    assert actions == (Withdraw(3, 2),) and unit.withdrawn


def test_a_delay_goes_on_with_what_is_left_of_it() -> None:
    unit = Unit(phase=Phase.BACKOFF, wanted=True, attempt=3, timer=8, delay_over=False)
    assert on(unit, PLAIN, left=2.5)[1] == (ArmTimer(9, 2.5),)
    assert on(unit, PLAIN)[1] == (ArmTimer(9, 0.0),)


def test_what_waits_for_its_entry_alone_starts_when_that_has_gone() -> None:
    unit = Unit(phase=Phase.BACKOFF, wanted=True, attempt=3, timer=8, delay_over=True, published=True)
    assert on(unit)[1] == (Withdraw(3, 1),)
    assert on(Unit(phase=Phase.BACKOFF, wanted=True, attempt=3, timer=8))[1] == (ArmTimer(9, 0.0),)
