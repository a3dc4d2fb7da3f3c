"""What a unit's state means for what was asked of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from supervisor.agents.verdicts import VERDICTS, contradict
from supervisor.core.model import Phase, Unit
from supervisor.wire import VERBS

DONE, GOES_ON = ("succeeded", None), None
ATTEMPT = 3
SERVES = Unit(phase=Phase.RUNNING, wanted=True, attempt=ATTEMPT, live=True, published=True)
ALONE = replace(SERVES, published=False)
UNHEALTHY = replace(SERVES, healthy=False, published=False)
DRAINED = replace(SERVES, drained=True, published=False)
EXPIRING = replace(SERVES, phase=Phase.EXPIRING, wanted=False, leaving=True)
STOPPING = replace(ALONE, phase=Phase.STOPPING, wanted=False)
STOPPED = Unit(attempt=ATTEMPT, reason="it ended")
CRASHED = replace(STOPPED, crashed=True, reason="exited with code 0")
FATAL = replace(STOPPED, phase=Phase.FATAL, reason="no such file")
STARTING = replace(ALONE, phase=Phase.STARTING)
NEXT = replace(SERVES, attempt=ATTEMPT + 1)
HELD = replace(SERVES, reason="not stopped: no answer")

# verb, the unit now, the unit before, whether the registry must still confirm, the verdict
CASES = [
    ("start", STARTING, STOPPED, False, GOES_ON),
    ("start", SERVES, STARTING, False, DONE),
    ("start", SERVES, STARTING, True, GOES_ON),
    ("start", UNHEALTHY, STARTING, True, DONE),
    ("start", DRAINED, STARTING, True, DONE),
    ("start", FATAL, STARTING, False, ("failed", "cannot start: no such file")),
    ("start", CRASHED, SERVES, True, ("failed", "it did not stay up: exited with code 0")),
    ("start", STOPPED, STARTING, False, ("aborted", "it was stopped again")),
    ("start", STOPPED, None, False, GOES_ON),
    ("start", replace(STARTING, phase=Phase.BACKOFF), STARTING, False, GOES_ON),
    ("stop", SERVES, None, False, GOES_ON),
    ("stop", EXPIRING, SERVES, False, GOES_ON),
    ("stop", STOPPING, EXPIRING, False, GOES_ON),
    ("stop", STOPPED, STOPPING, False, DONE),
    ("stop", STOPPED, None, False, DONE),
    ("stop", CRASHED, EXPIRING, False, DONE),
    ("stop", NEXT, STOPPING, False, DONE),
    ("stop", HELD, EXPIRING, False, ("failed", "not stopped: no answer")),
    ("stop", SERVES, EXPIRING, False, ("failed", "it was wanted again before it was stopped")),
    ("stop", DRAINED, replace(EXPIRING, leaving=False, drained=True), False, GOES_ON),
    ("restart", SERVES, None, True, GOES_ON),
    ("restart", EXPIRING, SERVES, True, GOES_ON),
    ("restart", NEXT, STARTING, True, GOES_ON),
    ("restart", NEXT, STARTING, False, DONE),
    ("restart", replace(FATAL, attempt=ATTEMPT + 1), STARTING, True, ("failed", "cannot start: no such file")),
    ("restart", replace(STARTING, attempt=ATTEMPT + 1), STOPPING, True, GOES_ON),
    ("restart", HELD, EXPIRING, True, ("failed", "not stopped: no answer")),
    ("restart", SERVES, EXPIRING, True, ("failed", "it was called off")),
    ("restart", STOPPED, STOPPING, True, ("aborted", "it was stopped again")),
    ("restart", CRASHED, SERVES, True, ("failed", "it did not stay up: exited with code 0")),
    ("restart", STOPPED, None, True, GOES_ON),
    ("drain", SERVES, None, False, GOES_ON),
    ("drain", replace(EXPIRING, leaving=False, drained=True), SERVES, False, GOES_ON),
    ("drain", replace(ALONE, phase=Phase.DRAINING, drained=True), SERVES, False, GOES_ON),
    ("drain", DRAINED, replace(ALONE, phase=Phase.DRAINING, drained=True), False, DONE),
    ("drain", DRAINED, None, False, DONE),
    ("drain", replace(STOPPED, drained=True), None, False, DONE),
    ("drain", replace(EXPIRING, drained=True), SERVES, False, GOES_ON),
    ("drain", replace(STOPPING, drained=True), EXPIRING, False, DONE),
    ("drain", replace(SERVES, drained=True), EXPIRING, False, GOES_ON),
    (
        "drain", replace(HELD, reason="not drained: no answer"), replace(EXPIRING, drained=True), False,
        ("failed", "not drained: no answer"),
    ),
    ("drain", SERVES, SERVES, False, GOES_ON),
    ("drain", SERVES, DRAINED, False, ("failed", "it was taken back")),
    ("undrain", DRAINED, None, True, GOES_ON),
    ("undrain", SERVES, DRAINED, True, GOES_ON),
    ("undrain", SERVES, DRAINED, False, DONE),
    ("undrain", UNHEALTHY, replace(UNHEALTHY, drained=True), True, GOES_ON),
    ("undrain", STOPPED, replace(STOPPED, drained=True), True, DONE),
    ("undrain", FATAL, replace(FATAL, drained=True), True, DONE),
    ("undrain", DRAINED, SERVES, True, ("aborted", "it was drained again")),
    ("undrain", DRAINED, replace(EXPIRING, drained=True), True, GOES_ON),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "now", "before", "registers", "verdict"), CASES)
def test_what_was_asked_has_come_true_or_become_impossible_or_goes_on(
    verb: str, now: Unit, before: Unit | None, registers: bool, verdict: tuple[str, str | None] | None
) -> None:
    assert VERDICTS[verb](now, before, ATTEMPT, registers) == verdict


@pytest.mark.parametrize("verb", ["signal", "warm", "weight"])
def test_what_is_done_at_once_is_done(verb: str) -> None:
    assert VERDICTS[verb](STOPPED, None, ATTEMPT, True) == DONE


def test_every_verb_has_its_verdict() -> None:
    assert set(VERDICTS) == set(VERBS)


def test_only_what_cannot_both_come_true_contradicts() -> None:
    pairs = {(one, other) for one, other in product(VERBS, VERBS) if contradict(one, other)}
    assert pairs == {
        ("start", "stop"), ("stop", "start"), ("start", "restart"), ("restart", "start"), ("stop", "restart"),
        ("restart", "stop"), ("drain", "undrain"), ("undrain", "drain"),
    }  # fmt: skip
