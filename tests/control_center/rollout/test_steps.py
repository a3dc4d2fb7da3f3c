"""steps.py: how a step is carried into its operation."""

from __future__ import annotations

from datetime import timedelta, timezone

from control_center.model import OperationState, TargetState
from control_center.rollout import Finish, Mark, Start, Wait, record
from tests.control_center.rollout.world import BEGIN, World, carts

LATER = BEGIN + timedelta(seconds=5)


def test_what_is_started_is_sent_and_the_operation_runs() -> None:
    world = World(carts(2))
    operation = world.operation
    operation.waiting_for = "something"
    first = operation.targets[0]
    touched = record(operation, Start((first,), (9,), batches=((0, "running"),)), BEGIN)
    assert touched == [first]
    assert (first.state, first.started, first.generation) == (TargetState.SENT, "2026-11-24T12:00:00.000Z", 9)
    assert (operation.state, operation.waiting_for) == (OperationState.RUNNING, "")
    assert (operation.batches[0].state, operation.batches[0].started) == ("running", operation.started)
    record(operation, Start((operation.targets[1],), (None,)), LATER)
    assert operation.started == "2026-11-24T12:00:00.000Z"


def test_marks_end_targets_and_are_told() -> None:
    world = World(carts(3))
    one, two, three = world.operation.targets
    one.steps = "weight 40 of 100"
    two.detail = "2 requests were cut"
    marks = (Mark(one, TargetState.FAILED, "too late"), Mark(two, generation_after=8), Mark(three, TargetState.SKIPPED))
    touched = record(world.operation, Wait("so", 1, marks=marks, stopped="too late"), BEGIN)
    assert touched == [one, two, three]
    assert (one.state, one.detail, one.steps, one.finished) == (
        TargetState.FAILED, "too late", "", "2026-11-24T12:00:00.000Z",
    )  # fmt: skip
    assert (two.state, two.detail, two.generation_after, two.finished) == (
        TargetState.PENDING, "2 requests were cut", 8, None,
    )  # fmt: skip
    assert world.operation.error == "too late"
    assert world.operation.waiting_for == "so"


def test_an_end_is_recorded_once() -> None:
    operation = World(carts(1)).operation
    operation.waiting_for = "something"
    record(operation, Finish(OperationState.FAILED, "it broke"), BEGIN.astimezone(timezone(timedelta(hours=2))))
    assert (operation.state, operation.error, operation.waiting_for) == (OperationState.FAILED, "it broke", "")
    record(operation, Finish(OperationState.FAILED, "it broke"), LATER)
    assert operation.finished == "2026-11-24T12:00:00.000Z"


def test_batches_keep_when_they_began_and_get_when_they_ended() -> None:
    operation = World(carts(2)).operation
    for moment, state in ((BEGIN, "running"), (LATER, "baking"), (LATER, "succeeded")):
        record(operation, Wait("so", 1, batches=((0, state),)), moment)
    batch = operation.batches[0]
    assert (batch.started, batch.finished) == ("2026-11-24T12:00:00.000Z", "2026-11-24T12:00:05.000Z")
    assert operation.batches[1].state == "pending"
