"""What is next for an operation: it looks at everything anew each time and remembers nothing.

The order of questions is the rule: what took too long has failed; a reason to stop ends what was not begun; what was
begun is followed to its end; then the canary must be well, the batch before must be done, the registry must be there,
and the floor must hold. What people may expect of it:

- A pause holds at once: the operation is PAUSED while what was begun goes on to its end.
- An abort begins nothing more; the operation is ABORTED when what was begun has ended.
- A canary that fails stops the operation, whatever `max_failures` says: that is what it is for.
- An instance that was started again by itself before its turn is restarted all the same: every target is restarted
  once, by this operation. One that has left the registry by then is skipped where the command needs it there.
- An `error` that stands in an open operation stops it.
"""

from __future__ import annotations

from collections.abc import Set
from datetime import datetime, timedelta

from ..fleet import Fleet
from ..model import Batch, Operation, OperationState, Strategy, Target, TargetState, Wish
from .floor import Floors
from .proof import unwell
from .steps import Changes, Finish, Mark, Start, Step, Wait

MAX_WAIT_SECONDS = 60.0
MIN_WAIT_SECONDS = 0.01
_NEEDS_ENTRY = frozenset(("restart", "warm", "weight", "signal"))  # mean nothing for a unit that is out of traffic
_SHOWN = 3  # targets that a sentence names


def advance(operation: Operation, fleet: Fleet | None, now: datetime, doubts: Set[str] = frozenset()) -> Step:
    """What is next. Changes nothing: `record` does. `now` is aware of its zone.

    `fleet` is None while the registry cannot be asked: nothing is begun then, unless everything goes at once anyway.
    `doubts` are instances that gateways complain of now.
    """
    if operation.state.done:
        return Finish(operation.state, operation.error)
    return _Look(operation, fleet, now, doubts).step()


def limit_of(operation: Operation, target: Target) -> datetime:
    """When a target that is in work counts as failed.

    Where all go at once, nobody waits for it before the deadline is over.
    """
    seconds = timedelta(seconds=(operation.strategy or Strategy()).target_seconds)
    begun = _moment(target.started or operation.created)
    return (begun if operation.strategy is not None else max(begun, _moment(operation.deadline))) + seconds


class _Look:
    """One look at an operation; its targets' states are as they will be after the step."""

    def __init__(self, operation: Operation, fleet: Fleet | None, now: datetime, doubts: Set[str]) -> None:
        self._operation, self._fleet, self._now, self._doubts = operation, fleet, now, doubts
        self._strategy = operation.strategy
        self._marks: dict[int, Mark] = {}
        self._limits: dict[str | None, datetime] = {}  # when a target began -> when it counts as failed
        self._stopped: str | None = None
        self._bakes, self._bake_left = False, 0.0
        self._is_spoiled = False  # the canary is not well
        self._canary = self._find_canary()

    def step(self) -> Step:
        """What is next."""
        self._fail_late()
        while True:
            if self._pending():
                self._stop()
            if not self._pending():
                return self._wait_for_busy() if self._busy() else self._finish()
            if (step := self._hold()) is not None:
                return step
            if self._strategy is None:
                return self._start(self._pending())
            if self._fleet is None:
                return self._wait("waiting for the registry: nothing is begun before it answers")
            turn = self._turn()
            if not self._skip_gone(turn):
                return self._start_what_fits(self._strategy, self._fleet, turn)

    # Targets as they will be.

    def _state(self, target: Target) -> TargetState:
        mark = self._marks.get(id(target))
        return target.state if mark is None or mark.state is None else mark.state

    def _in(self, *states: TargetState) -> list[Target]:
        return [target for target in self._operation.targets if self._state(target) in states]

    def _limit(self, target: Target) -> datetime:
        if target.started not in self._limits:  # most began together
            self._limits[target.started] = limit_of(self._operation, target)
        return self._limits[target.started]

    def _pending(self) -> list[Target]:
        return self._in(TargetState.PENDING)

    def _busy(self) -> list[Target]:
        return [target for target in self._operation.targets if self._state(target).busy]

    def _mark(self, target: Target, state: TargetState, detail: str) -> None:
        self._marks[id(target)] = Mark(target, state, detail)

    def _turn(self) -> list[Target]:
        """Those whose turn it is: not begun, of the first batch that is not through."""
        number = min(target.batch for target in self._operation.targets if not self._state(target).done)
        return [target for target in self._pending() if target.batch == number]

    # What ends targets without a command.

    def _fail_late(self) -> None:
        for target in self._operation.targets:
            if target.state.busy and self._limit(target) <= self._now:
                self._mark(target, TargetState.FAILED, _too_late(self._operation, target))

    def _stop(self) -> None:
        """End what was not begun if there is a reason to."""
        state, detail = TargetState.SKIPPED, ""
        if self._operation.wish is Wish.ABORT:
            detail = "the operation was aborted before its turn"
        elif stopped := self._operation.error or self._failures() or self._canary_failure():
            self._stopped, detail = stopped, f"not begun: {stopped}"
        elif _moment(self._operation.deadline) <= self._now:
            state, detail = TargetState.EXPIRED, "the deadline came before its turn"
        if detail:
            for target in self._pending():
                self._mark(target, state, detail)

    def _failures(self) -> str:
        failed = self._in(TargetState.FAILED)
        if self._strategy is None or len(failed) <= self._strategy.max_failures:
            return ""
        return f"stopped after {_counted(len(failed), 'failure')}: {self._names(failed)}"

    def _skip_gone(self, turn: list[Target]) -> bool:
        if self._fleet is None or self._operation.verb not in _NEEDS_ENTRY:
            return False
        gone = [each for each in turn if each.service and self._fleet.entry(each.instance, each.service) is None]
        for target in gone:
            self._mark(target, TargetState.SKIPPED, "it had left the registry before its turn")
        return bool(gone)

    # The canary.

    def _find_canary(self) -> Batch | None:
        """The batch that must be well before the rest follows, while that is open."""
        if self._strategy is None or not self._strategy.canary:
            return None
        first = next((batch for batch in self._operation.batches if batch.number == 0), None)
        return None if first is None or first.state in ("succeeded", "failed", "skipped") else first

    def _canary_failure(self) -> str:
        """Why the canary says no; "" while it does not. Begins its bake time when it is through."""
        self._bakes, self._bake_left = False, 0.0
        targets = [target for target in self._operation.targets if target.batch == 0]
        if self._strategy is None or self._canary is None or not all(self._state(target).done for target in targets):
            return ""
        self._is_spoiled = True
        good = [target for target in targets if self._state(target) is TargetState.SUCCEEDED]
        if failed := [target for target in targets if self._state(target) is TargetState.FAILED]:
            return f"the canary failed: {self._names(failed)}"
        if not good:
            return f"no canary was left: {self._names(targets)}"
        if wrong := self._unwell(good):
            return f"the canary did not stay well: {wrong}"
        self._is_spoiled = False
        self._bake(good, self._strategy.bake_seconds)
        return ""

    def _unwell(self, canaries: list[Target]) -> str:
        if self._fleet is None:
            return ""
        for target in canaries:
            entry = self._fleet.entry(target.instance, target.service)
            if wrong := unwell(target, self._operation.verb, entry, self._doubts):
                return wrong
            if target.generation_after is None and entry is not None:
                self._marks[id(target)] = Mark(target, generation_after=entry.generation)
        return ""

    def _bake(self, canaries: list[Target], bake_seconds: float) -> None:
        began = max(_moment(target.finished or self._operation.created) for target in canaries)
        self._bake_left = max(0.0, bake_seconds - (self._now - began).total_seconds())
        self._bakes = self._bake_left > 0 or self._fleet is None  # nobody can say that it is well

    # Steps.

    def _hold(self) -> Wait | None:
        """Why nothing is begun now, though there is something to begin."""
        if self._operation.wish is Wish.PAUSE:
            busy = len(self._busy())
            more = f"; {_counted(busy, 'target')} in work {'goes' if busy == 1 else 'go'} on" if busy else ""
            return self._wait(f"paused, until somebody resumes or aborts it{more}", OperationState.PAUSED)
        if self._bake_left > 0:
            return self._wait(f"the canary must be well for {self._bake_left:.0f} s more")
        return None

    def _start_what_fits(self, strategy: Strategy, fleet: Fleet, turn: list[Target]) -> Start | Wait:
        if not turn:
            return self._wait_for_busy()
        operation = self._operation
        floors = Floors(operation.verb, strategy.floor_percent, fleet, operation.baseline, self._busy())
        fitting = [target for target in turn if floors.admit(target)]
        return self._start(fitting) if fitting else self._wait(floors.reason(turn[0]))

    def _start(self, targets: list[Target]) -> Start:
        generations = tuple(map(self._generation, targets))
        for target in targets:  # as they will be, for the batches; it is `record` that makes them so
            self._mark(target, TargetState.SENT, "")
        batches = self._moves()
        for target in targets:
            del self._marks[id(target)]
        return Start(tuple(targets), generations, marks=self._all_marks(), batches=batches, stopped=self._stopped)

    def _generation(self, target: Target) -> int | None:
        """Of the life that the command is to end; what was demanded of its generation stays as it was."""
        entry = self._fleet.entry(target.instance, target.service) if self._fleet and target.service else None
        return target.generation if entry is None or self._operation.checks_generation else entry.generation

    def _wait_for_busy(self) -> Wait:
        busy = self._busy()
        names = [f"{target.instance}{f' ({target.steps})' if target.steps else ''}" for target in busy[:_SHOWN]]
        more = f" and {len(busy) - _SHOWN} more" if len(busy) > _SHOWN else ""
        return self._wait(f"waiting for {', '.join(names)}{more}")

    def _wait(self, reason: str, state: OperationState | None = None) -> Wait:
        began = self._operation.started is not None
        state = state or (OperationState.RUNNING if began else OperationState.PENDING)
        changes = self._changes()
        return Wait(
            reason, self._seconds(), state, marks=changes.marks, batches=changes.batches, stopped=changes.stopped
        )

    def _seconds(self) -> float:
        """Until time alone can change the answer."""
        moments = [self._limit(target) for target in self._busy()]
        if self._pending():
            moments.append(_moment(self._operation.deadline))
        left = [(moment - self._now).total_seconds() for moment in moments]
        if self._bake_left > 0:
            left.append(self._bake_left)
        return min(MAX_WAIT_SECONDS, max(MIN_WAIT_SECONDS, min(left)))

    def _finish(self) -> Finish:
        state, error = self._verdict()
        changes = self._changes()
        return Finish(state, error, marks=changes.marks, batches=changes.batches, stopped=changes.stopped)

    def _verdict(self) -> tuple[OperationState, str | None]:
        total, failed = len(self._operation.targets), self._in(TargetState.FAILED)
        done, expired = len(self._in(TargetState.SUCCEEDED)), len(self._in(TargetState.EXPIRED))
        allowed = self._strategy.max_failures if self._strategy else 0
        if self._operation.wish is Wish.ABORT:
            return OperationState.ABORTED, f"aborted when {done} of {total} were done"
        if error := self._stopped or self._operation.error:
            return OperationState.FAILED, error
        if len(failed) > allowed:
            return OperationState.FAILED, f"{len(failed)} of {total} failed: {self._names(failed)}"
        if expired and not done and not failed:
            return OperationState.EXPIRED, "the deadline came before anything was begun"
        if expired:
            return OperationState.FAILED, f"the deadline came before {expired} of {total}"
        if not done:
            names = self._names(self._operation.targets) if total else "it has no targets"
            return OperationState.FAILED, f"nothing was done: {names}"
        return OperationState.SUCCEEDED, None

    # What every step brings besides.

    def _changes(self) -> Changes:
        return Changes(marks=self._all_marks(), batches=self._moves(), stopped=self._stopped)

    def _all_marks(self) -> tuple[Mark, ...]:
        return tuple(self._marks.values())

    def _moves(self) -> tuple[tuple[int, str], ...]:
        states: dict[int, set[TargetState]] = {}
        for target in self._operation.targets:
            states.setdefault(target.batch, set()).add(self._state(target))
        now = [(batch, self._batch_state(batch, states.get(batch.number, set()))) for batch in self._operation.batches]
        return tuple((batch.number, state) for batch, state in now if state != batch.state)

    def _batch_state(self, batch: Batch, states: set[TargetState]) -> str:
        if not all(state.done for state in states):
            return "pending" if states == {TargetState.PENDING} else "running"
        if TargetState.FAILED in states or (batch is self._canary and self._is_spoiled):
            return "failed"
        if batch is self._canary and self._bakes and self._pending():
            return "baking"
        return "succeeded" if TargetState.SUCCEEDED in states else "skipped"

    def _names(self, targets: list[Target]) -> str:
        """Who, and why."""
        shown = []
        for target in targets[:_SHOWN]:
            mark = self._marks.get(id(target))
            detail = target.detail if mark is None or mark.state is None else mark.detail
            shown.append(f"{target.instance}: {detail}" if detail else target.instance)
        return "; ".join(shown) + (f"; and {len(targets) - _SHOWN} more" if len(targets) > _SHOWN else "")


def _too_late(operation: Operation, target: Target) -> str:
    seconds = (operation.strategy or Strategy()).target_seconds
    if target.state is TargetState.SENT:
        return f"{target.node} has not answered for {seconds:g} s: {target.detail or 'it may have the command'}"
    return f"not done within {seconds:g} s: {target.steps or target.detail or 'no news'}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
