"""The table: it answers everything once, knows what is past, and has a word for people."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from supervisor.core import events
from supervisor.core.events import (
    EVENTS,
    CancelRequested,
    Drained,
    DrainRequested,
    Event,
    Exited,
    Gone,
    LivenessLost,
    Prewarmed,
    ReadinessLost,
    ReadinessRegained,
    Ready,
    RestartRequested,
    Spawned,
    StartRequested,
    StopRequested,
    TimerFired,
    TreeEmpty,
    Unconfirmed,
)
from supervisor.core.lifecycle import IGNORED, TRANSITIONS, can_cancel, state_word, step
from supervisor.core.model import Phase, Unit, UnitSpec
from tests.supervisor.core.lives import BAD, PLAIN, SERVICE, SETTLING, TOLD, TOLD_AND_BACK, after, running, starting


def test_every_phase_answers_every_event_exactly_once() -> None:
    pairs = {(phase, event) for phase in Phase for event in EVENTS}
    assert set(TRANSITIONS) | IGNORED == pairs
    assert not set(TRANSITIONS) & IGNORED


def test_all_kinds_of_events_are_in_the_table() -> None:
    words = vars(events).values()
    assert set(EVENTS) == {word for word in words if isinstance(word, type) and issubclass(word, Event)} - {Event}


def test_what_is_ignored_changes_nothing() -> None:
    unit = running(SERVICE)
    assert step(unit, StartRequested(), SERVICE) == (unit, ())


@pytest.mark.parametrize(
    "stale",
    [
        Exited(1, BAD, 1.0, 0.5),
        Ready(1, 1.0),
        Spawned(1, 7),
        TreeEmpty(1, 1.0, 0.5),
        Gone(1, 1),
        Unconfirmed(1, 1, "late"),
        TimerFired(1),
        Drained(1, 3),
        Prewarmed(1),
        ReadinessLost(1, "late"),
        ReadinessRegained(1, 1.0),
        LivenessLost(1, "late"),
    ],
)
def test_what_speaks_of_another_attempt_or_timer_changes_nothing(stale: Event) -> None:
    unit, _ = after(running(SERVICE), SERVICE, RestartRequested(), Gone(1, 1), Drained(1), Exited(1, BAD, 9.0, 0.5))
    assert unit.attempt == 2
    assert step(unit, stale, SERVICE) == (unit, ())


def test_a_timer_or_a_withdrawal_of_the_same_attempt_can_be_past_too() -> None:
    unit, _ = after(running(SETTLING), SETTLING, StopRequested(), CancelRequested(), StopRequested())
    assert unit.withdrawal == 2
    for late in (Gone(1, 1), Unconfirmed(1, 1, "late"), TimerFired(unit.timer - 1)):
        assert step(unit, late, SETTLING) == (unit, ())


def test_equal_inputs_give_equal_answers() -> None:
    unit, event = running(SERVICE), Exited(1, BAD, 200.0, 0.25)
    answers = [step(unit, event, SERVICE) for _ in range(3)]
    assert all(one == other for one, other in pairwise(answers))


# What can be called off.


@pytest.mark.parametrize(
    ("spec", "before", "can"),
    [
        (SERVICE, (StopRequested(),), True),
        (SETTLING, (StopRequested(), Gone(1, 1)), True),
        (SERVICE, (StopRequested(), Gone(1, 1)), True),
        (TOLD, (StopRequested(), Gone(1, 1)), False),
        (TOLD, (DrainRequested(), Gone(1, 1)), True),
        (TOLD_AND_BACK, (DrainRequested(), Gone(1, 1)), True),
        (TOLD_AND_BACK, (StopRequested(), Gone(1, 1)), False),
        (SERVICE, (StopRequested(), Gone(1, 1), Drained(1)), False),
        (SERVICE, (StopRequested(), Exited(1, BAD, 9.0, 0.5)), False),
        (SERVICE, (LivenessLost(1, "deaf"),), False),
        (SERVICE, (StopRequested(), LivenessLost(1, "deaf")), False),
        (SERVICE, (), False),
        (SERVICE, (Exited(1, BAD, 9.0, 0.5),), True),
    ],
)
def test_something_can_be_called_off_until_a_signal_or_the_shutdown_flag(
    spec: UnitSpec, before: tuple[Event, ...], can: bool
) -> None:
    unit, _ = after(running(spec), spec, *before)
    assert can_cancel(unit) is can
    cancelled, _ = after(unit, spec, CancelRequested())
    assert (cancelled != unit) is can


def test_a_start_can_be_called_off_and_a_rest_cannot() -> None:
    assert can_cancel(starting(PLAIN))
    assert not can_cancel(Unit())


# Words for people.


def test_every_phase_has_a_word_for_people() -> None:
    assert {state_word(Unit(phase=phase)) for phase in Phase} == {
        "STOPPED", "STARTING", "BACKOFF", "RUNNING", "EXPIRING", "DRAINING", "STOPPING", "FATAL",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("unit", "warming", "word"),
    [
        (Unit(phase=Phase.RUNNING), False, "RUNNING"),
        (Unit(phase=Phase.RUNNING), True, "WARMING"),
        (Unit(phase=Phase.RUNNING, healthy=False), True, "UNHEALTHY"),
        (Unit(phase=Phase.RUNNING, drained=True, healthy=False), True, "DRAINED"),
        (Unit(phase=Phase.STOPPED, crashed=True), False, "EXITED"),
        (Unit(phase=Phase.STOPPED, drained=True), False, "STOPPED"),
        (Unit(phase=Phase.STARTING, drained=True), True, "STARTING"),
    ],
)
def test_what_keeps_a_unit_out_of_traffic_is_in_its_word(unit: Unit, warming: bool, word: str) -> None:
    assert state_word(unit, warming=warming) == word
    assert state_word(replace(unit, attempt=7), warming=warming) == word
