"""What may be next for an operation, and how it is carried into it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ..model import Batch, Operation, OperationState, Target, TargetState
from ..moments import iso


@dataclass(frozen=True, slots=True)
class Mark:
    """What becomes of one target without a command; `state` None leaves that as it is."""

    target: Target
    state: TargetState | None = None
    detail: str = ""
    generation_after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What every step brings besides: it holds already, whatever comes of the step itself."""

    marks: tuple[Mark, ...] = ()
    batches: tuple[tuple[int, str], ...] = ()  # number and new state of those that changed
    stopped: str | None = None  # why nothing more is begun, for good


@dataclass(frozen=True, slots=True)
class Start(Changes):
    """Send these now. `generations` are those that the registry shows, of which the commands will speak."""

    targets: tuple[Target, ...]
    generations: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Wait(Changes):
    """Nothing to do until something changes, or for so many seconds. `reason` is one sentence."""

    reason: str
    seconds: float
    state: OperationState = OperationState.RUNNING


@dataclass(frozen=True, slots=True)
class Finish(Changes):
    """It is over."""

    state: OperationState
    error: str | None = None


Step = Start | Wait | Finish


def record(operation: Operation, step: Step, now: datetime) -> list[Target]:
    """Carry a step into its operation; the targets that were touched.

    Those of a `Start` are SENT from then on, before any of them is on its way.
    """
    moment = iso(now)
    touched = [_mark(mark, moment) for mark in step.marks]
    if step.stopped is not None:
        operation.error = step.stopped
    states = dict(step.batches)
    for batch in operation.batches:
        if batch.number in states:
            _move(batch, states[batch.number], moment)
    if isinstance(step, Start):
        touched += _begin(operation, step, moment)
    elif isinstance(step, Wait):
        operation.state, operation.waiting_for = step.state, step.reason
    elif not operation.state.done:
        operation.state, operation.error, operation.waiting_for = step.state, step.error, ""
        operation.finished = moment
    return touched


def _begin(operation: Operation, step: Start, moment: str) -> list[Target]:
    operation.state, operation.waiting_for = OperationState.RUNNING, ""
    operation.started = operation.started or moment
    for target, generation in zip(step.targets, step.generations, strict=True):
        target.state, target.started, target.generation = TargetState.SENT, moment, generation
    return list(step.targets)


def _mark(mark: Mark, moment: str) -> Target:
    target = mark.target
    if mark.state is not None:
        target.state, target.detail, target.steps, target.finished = mark.state, mark.detail, "", moment
    if mark.generation_after is not None:
        target.generation_after = mark.generation_after
    return target


def _move(batch: Batch, state: str, moment: str) -> None:
    batch.state = state
    if state in ("running", "baking"):
        batch.started = batch.started or moment
    else:
        batch.finished = moment
