"""What answers add up to."""

from dataclasses import replace

import pytest

from supervisor.core.health import (
    IMPLICIT_LIVENESS,
    Hysteresis,
    implicit_readiness,
    liveness_of,
    observe,
    readiness_of,
)
from supervisor.core.model import ProbeSpec, ServiceSpec, UnitSpec

SPEC = ProbeSpec("http", success_threshold=2, failure_threshold=3)
PLAIN = UnitSpec("web", "web", 0, ("web",))
SERVICE = replace(PLAIN, service=ServiceSpec("shop", "127.0.0.1", 9080, ttl_seconds=9))


def after(answers: str, state: Hysteresis | None = None, *, due: bool = True) -> Hysteresis:
    """`+` is a success, `-` a failure."""
    state = state or Hysteresis()
    for answer in answers:
        state = observe(state, answer == "+", SPEC, due=due)
    return state


@pytest.mark.parametrize(
    ("answers", "holds", "streak"),
    [
        ("", None, 0),
        ("+", None, 1),
        ("++", True, 2),
        ("-", None, -1),
        ("--", None, -2),
        ("---", False, -3),
        ("+-+-+-", None, -1),
        ("--+--", None, -2),
        ("++--", True, -2),
        ("++--+--", True, -2),
        ("++---", False, -3),
        ("++----", False, -4),
        ("---+", False, 1),
        ("---+-+", False, 1),
        ("---++", True, 2),
        ("---+++", True, 3),
    ],
)
def test_only_enough_answers_in_a_row_make_an_edge(answers: str, holds: bool | None, streak: int) -> None:
    assert after(answers) == Hysteresis(holds, streak)


def test_failures_are_counted_for_people() -> None:
    assert [after(answers).failures for answers in ("", "++", "--")] == [0, 0, 2]


@pytest.mark.parametrize(
    ("before", "between", "streak"),
    [
        ("", "---", 0),
        ("-", "---", -1),
        ("+", "---", -1),
        ("++", "-", -1),
        ("", "+++", 1),
        ("--", "+++", 1),
        ("+", "+", 1),
    ],
)
def test_answers_between_due_ones_only_turn_the_row(before: str, between: str, streak: int) -> None:
    assert after(between, after(before), due=False).streak == streak


def test_one_success_between_due_answers_is_enough_where_one_is_asked_for() -> None:
    spec = replace(SPEC, success_threshold=1)
    assert observe(Hysteresis(False, -7), True, spec, due=False).holds is True


def test_a_registered_unit_without_probes_gets_implicit_ones() -> None:
    readiness = readiness_of(SERVICE)
    assert readiness == implicit_readiness(ServiceSpec("x", "::1", 1, ttl_seconds=9))
    assert readiness is not None
    assert (readiness.kind, readiness.period, readiness.failure_threshold) == ("kernel", pytest.approx(3), 2)
    assert liveness_of(SERVICE) is IMPLICIT_LIVENESS
    assert IMPLICIT_LIVENESS.period * IMPLICIT_LIVENESS.failure_threshold == 60


def test_probes_that_are_written_stand_and_others_are_not_invented() -> None:
    mine = replace(SERVICE, readiness=SPEC, liveness=SPEC)
    assert (readiness_of(mine), liveness_of(mine)) == (SPEC, SPEC)
    assert (readiness_of(PLAIN), liveness_of(PLAIN)) == (None, None)
