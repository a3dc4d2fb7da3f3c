"""Operations: commands on their way, each for one unit, with the steps they went through and how they ended.

An operation orders nothing itself after it has begun; it watches its unit's life go by and says what that means for
what was asked. It may have to wait for others first (`after`): dependents stop before what they depend on, and the
processes of one service are restarted one after another.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from uuid import uuid4

from ..core.events import Spawned
from ..core.model import Phase, Unit
from ..host.clock import iso, monotonic, wall
from ..wire import Command, Operation, Step

KEPT = 256  # finished operations that are kept whatever their age
KEPT_SECONDS = 600.0  # and those beyond, so long: who asked may still be waiting for the answer

_STEP_OF_PHASE = {
    Phase.WAITING: ("wait", "waiting for the units it depends on"),
    Phase.BACKOFF: ("backoff", "waiting to be started again"),
    Phase.STARTING: ("spawn", "starting its process"),
    Phase.EXPIRING: ("withdraw", "stopping the heartbeat"),
    Phase.SETTLING: ("settle", "gateways act on the removal"),
    Phase.DRAINING: ("drain", "work in flight finishes"),
    Phase.STOPPING: ("terminate", "waiting for the process tree to end"),
    Phase.KILLING: ("kill", "waiting for the killed process tree to end"),
}
_STEP_WORDS = {
    "gone": "waiting for the registry entry to go",
    "ready": "waiting until it is ready",
    "register": "waiting for the registry to confirm",
}


class Tracked:
    """An operation and what is needed to go on with it."""

    __slots__ = (
        "after",
        "attempt",
        "begin",
        "begun",
        "created_at",
        "deadline",
        "finished_at",
        "operation",
        "registers",
    )

    def __init__(self, operation: Operation, begin: Callable[[], None], after: set[str]) -> None:
        self.operation, self.begin, self.after = operation, begin, after
        self.begun = False
        self.attempt = 0  # the unit's when it began
        self.registers = False  # done only when the registry has confirmed
        self.deadline: float | None = None  # unix time; not begun after it
        self.finished_at = 0.0


class Operations:
    """The operations of this host, newest last."""

    def __init__(self, unit_of: Callable[[str], Unit | None], describe: Callable[[str], str]) -> None:
        """`unit_of` gives a unit as it is now; `describe` what it waits for right now, with its time, or ""."""
        self._unit_of, self._describe = unit_of, describe
        self._all: dict[str, Tracked] = {}
        self._open: dict[str, list[Tracked]] = {}  # unit -> its unfinished ones
        self._by_command: dict[str, list[str]] = {}  # command id -> operation ids
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}  # operation id -> who waits for its end
        self._numbers = itertools.count(1)
        self._life = uuid4().hex[:6]
        self._blocked: list[Tracked] = []  # those that wait for others

    # Making.

    def known(self, command_id: str | None) -> list[Operation] | None:
        """The operations that this command has made already; None: it is new."""
        ids = self._by_command.get(command_id or "")
        return None if ids is None else [self._all[id_].operation for id_ in ids if id_ in self._all]

    def add(
        self,
        unit: str,
        verb: str,
        command: Command,
        begin: Callable[[], None],
        *,
        after: Iterable[str] = (),
        deadline: float | None = None,
        registers: bool = False,
    ) -> Operation:
        """A new operation; `launch` begins it. What is open for the same unit and contradicts it is aborted."""
        command_id = command.command_id or uuid4().hex
        id_ = f"op-{self._life}-{next(self._numbers)}"
        operation = Operation(
            id_,
            command_id,
            unit,
            verb,
            "pending",
            reason=command.reason,
            issued_by=command.issued_by,
            created=iso(),
        )
        tracked = Tracked(operation, begin, set(after))
        tracked.deadline, tracked.registers = deadline, registers
        self._all[id_] = tracked
        self._by_command.setdefault(command_id, []).append(id_)
        for older in self._open.get(unit, ()):
            if older.operation.verb != verb and "signal" not in (verb, older.operation.verb):
                self._finish(older, "aborted", f"a later {verb} took its place")
        self._open.setdefault(unit, []).append(tracked)
        return operation

    def launch(self, operations: Sequence[Operation]) -> None:
        """Begin those that need not wait."""
        self._prune()
        for operation in operations:
            tracked = self._all[operation.id]
            if operation.done:
                continue
            if not tracked.after:
                self._begin(tracked)
                continue
            open_ = [item for id_ in tracked.after if not (item := self._all[id_].operation).done]
            if open_:
                first = min(open_, key=lambda item: item.id)
                self._step(tracked, "wait", f"waits for the {first.verb} of {first.unit}")
            self._blocked.append(tracked)
        self._release()  # those that wait for what had ended already

    def _begin(self, tracked: Tracked) -> None:
        operation, unit = tracked.operation, self._unit_of(tracked.operation.unit)
        if tracked.begun or operation.done:
            return
        if unit is None:
            self._finish(tracked, "failed", "the unit was removed from the configuration")
            return
        if tracked.deadline is not None and wall() > tracked.deadline:
            self._finish(tracked, "expired", "its deadline passed before it could be started")
            return
        tracked.begun, operation.state = True, "running"
        tracked.attempt = unit.attempt
        tracked.begin()
        now = self._unit_of(operation.unit)
        if not operation.done and now is not None:
            self._consider(tracked, now, None)

    # Watching.

    def on_change(self, name: str, before: Unit, after: Unit, event: object) -> None:
        """A unit has changed."""
        for tracked in list(self._open.get(name, ())):
            if not tracked.begun:
                continue
            if after.phase is not before.phase:
                self._enter(tracked, after)
            elif isinstance(event, Spawned):
                self._step(tracked, "ready", _STEP_WORDS["ready"])
            self._consider(tracked, after, before)

    def on_step(self, unit: str, name: str) -> None:
        """An agent of the unit has got to this step."""
        for tracked in self._open.get(unit, ()):
            if tracked.begun:
                self._step(tracked, name, _STEP_WORDS[name])

    def on_registered(self, name: str, unit: Unit) -> None:
        """The registry has confirmed the unit's entry."""
        if unit.phase is not Phase.RUNNING:
            return
        for tracked in list(self._open.get(name, ())):
            if tracked.begun:
                tracked.registers = False
                self._consider(tracked, unit, None)
            elif tracked.operation.verb == "start":
                tracked.registers = False  # when it begins there is nothing left to wait for

    def _enter(self, tracked: Tracked, unit: Unit) -> None:
        if unit.phase is Phase.RUNNING and tracked.registers:
            self._step(tracked, "register", _STEP_WORDS["register"])
        elif unit.phase in _STEP_OF_PHASE:
            self._step(tracked, *_STEP_OF_PHASE[unit.phase])

    def _consider(self, tracked: Tracked, unit: Unit, before: Unit | None) -> None:
        """Has what was asked for come true, or become impossible?"""
        verdict = _VERDICTS[tracked.operation.verb](tracked, unit, before)
        if verdict is not None:
            self._finish(tracked, *verdict)

    def _release(self) -> None:
        """Begin what waited for operations that have ended; call off restarts that waited for one that failed."""
        blocked, self._blocked = self._blocked, []
        for tracked in blocked:
            ended = [self._all[id_].operation for id_ in tracked.after if self._all[id_].operation.done]
            tracked.after -= {operation.id for operation in ended}
            failed = next((operation for operation in ended if operation.state != "succeeded"), None)
            if failed is not None and tracked.operation.verb == "restart" and not tracked.operation.done:
                self._finish(tracked, "aborted", f"not begun: the {failed.verb} of {failed.unit} {failed.state}")
            elif not tracked.after:
                self._begin(tracked)
            else:
                self._blocked.append(tracked)

    # Steps and ends.

    def _step(self, tracked: Tracked, name: str, detail: str) -> None:
        steps, now = tracked.operation.steps, iso()
        if steps and steps[-1].state == "running":
            if steps[-1].name == name:
                return
            steps[-1].state, steps[-1].finished = "succeeded", now
        steps.append(Step(name, "running", started=now, detail=detail))

    def _finish(self, tracked: Tracked, state: str, error: str | None = None) -> None:
        operation = tracked.operation
        operation.state, operation.error, operation.finished = state, error, iso()
        tracked.finished_at = monotonic()
        if operation.steps and operation.steps[-1].state == "running":
            last = operation.steps[-1]
            last.state = "succeeded" if state == "succeeded" else "failed"
            last.finished = operation.finished
        remaining = [item for item in self._open.get(operation.unit, ()) if item is not tracked]
        if remaining:
            self._open[operation.unit] = remaining
        else:
            self._open.pop(operation.unit, None)
        for waiter in self._waiters.pop(operation.id, ()):
            if not waiter.done():
                waiter.set_result(None)
        if self._blocked:
            asyncio.get_running_loop().call_soon(self._release)

    def skip(self, operation: Operation, detail: str) -> None:
        """Done before it began: the unit is as wanted."""
        tracked = self._all[operation.id]
        operation.steps.append(Step("none", "skipped", started=iso(), finished=iso(), detail=detail))
        tracked.begun = True
        self._finish(tracked, "succeeded")

    def fail(self, operation: Operation, error: str) -> None:
        """It cannot come true."""
        self._finish(self._all[operation.id], "failed", error)

    def abort(self, operation: Operation, error: str) -> None:
        """It was called off."""
        if not operation.done:
            self._finish(self._all[operation.id], "aborted", error)

    # Asking.

    def get(self, id_: str) -> Operation | None:
        """An operation with the words of this moment; None: unknown, or long finished."""
        tracked = self._all.get(id_)
        return None if tracked is None else self._refresh(tracked.operation)

    def latest(self, count: int) -> list[Operation]:
        """The newest ones, newest last."""
        return [self._refresh(item.operation) for item in list(self._all.values())[-count:]]

    def of_command(self, command_id: str) -> list[Operation]:
        """All that a command has made; [] if it is unknown."""
        return [self._refresh(item) for item in self.known(command_id) or ()]

    def open_of(self, unit: str) -> Operation | None:
        """The unit's oldest unfinished operation."""
        items = self._open.get(unit)
        return items[0].operation if items else None

    async def wait(self, operations: Sequence[Operation], seconds: float) -> None:
        """Until all of them have ended, or the time is over."""
        loop = asyncio.get_running_loop()
        waiters = []
        for operation in operations:
            if not operation.done:
                waiter = loop.create_future()
                self._waiters.setdefault(operation.id, []).append(waiter)
                waiters.append(waiter)
        if waiters:
            await asyncio.wait(waiters, timeout=seconds)
            for waiter in waiters:
                waiter.cancel()

    def _refresh(self, operation: Operation) -> Operation:
        if operation.steps and operation.steps[-1].state == "running" and operation.steps[-1].name != "wait":
            words = self._describe(operation.unit)
            if words:
                operation.steps[-1].detail = words
        return operation

    def _prune(self) -> None:
        surplus = len(self._all) - KEPT
        if surplus <= 0:
            return
        oldest = itertools.islice(self._all.items(), surplus)
        old = [id_ for id_, item in oldest if item.operation.done and monotonic() - item.finished_at > KEPT_SECONDS]
        for id_ in old:
            operation = self._all.pop(id_).operation
            ids = self._by_command.get(operation.command_id, [])
            if id_ in ids:
                ids.remove(id_)
            if not ids:
                self._by_command.pop(operation.command_id, None)


# What a unit's state means for a verb: (state, error) when that ends the operation, else None.

Verdict = tuple[str, str | None] | None


def _start_verdict(tracked: Tracked, unit: Unit, before: Unit | None) -> Verdict:
    if unit.phase is Phase.RUNNING:
        return None if tracked.registers else ("succeeded", None)
    if unit.phase is Phase.FATAL:
        return "failed", f"cannot start: {unit.reason}"
    if unit.phase is Phase.STOPPED and before is not None:
        if unit.crashed:
            return "failed", f"it did not stay up: {unit.reason}"
        return "aborted", "it was stopped again"
    return None


def _stop_verdict(tracked: Tracked, unit: Unit, before: Unit | None) -> Verdict:
    if unit.phase is Phase.RUNNING and before is not None and before.phase is not Phase.STARTING:
        return "failed", unit.reason or "it was wanted again before it was stopped"
    ended = unit.phase is Phase.STOPPED or unit.attempt != tracked.attempt
    return ("succeeded", None) if ended else None


def _restart_verdict(tracked: Tracked, unit: Unit, before: Unit | None) -> Verdict:
    if unit.attempt != tracked.attempt:
        return _start_verdict(tracked, unit, before)
    if before is not None and unit.phase is Phase.RUNNING:
        return "failed", unit.reason or "it was called off"
    return _start_verdict(tracked, unit, before) if unit.phase in (Phase.FATAL, Phase.STOPPED) else None


def _signal_verdict(tracked: Tracked, unit: Unit, before: Unit | None) -> Verdict:
    return "succeeded", None


_VERDICTS = {
    "start": _start_verdict, "stop": _stop_verdict, "restart": _restart_verdict, "signal": _signal_verdict,
}  # fmt: skip
