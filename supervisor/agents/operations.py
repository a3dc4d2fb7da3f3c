"""Operations: commands on their way, each for one unit, with the steps they went through and how they ended.

An operation orders nothing itself after it has begun; it watches its unit's life go by and says what that means for
what was asked. It may have to wait for others first (`after`): dependents stop before what they depend on, and the
processes of one service are restarted one after another, each at full weight before the next.

They are kept in the journal from before they are acknowledged until long after they have ended, so that a command that
comes again finds them, and a daemon that was killed goes on with them (`recovery.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from uuid import uuid4

from ..core.events import Drained, Event, Prewarmed, ReadinessRegained, Spawned, UndrainRequested
from ..core.measures import Measures
from ..core.model import Phase, Unit
from ..host.clock import iso, monotonic, wall
from ..wire import Command, Operation, Step
from .ledger import Ledger, Tracked
from .verdicts import VERDICTS, contradict

_STEP_OF_PHASE = {
    Phase.WAITING: ("wait", "waiting for the units it depends on"),
    Phase.BACKOFF: ("backoff", "waiting to be started again"),
    Phase.STARTING: ("spawn", "starting its process"),
    Phase.PREWARMING: ("prewarm", "the first requests are sent to it"),
    Phase.EXPIRING: ("withdraw", "stopping the heartbeat"),
    Phase.SETTLING: ("settle", "gateways act on the removal"),
    Phase.DRAINING: ("drain", "work in flight finishes"),
    Phase.STOPPING: ("terminate", "waiting for the process tree to end"),
    Phase.KILLING: ("kill", "waiting for the killed process tree to end"),
}
_STEP_WORDS = {
    "gone": "waiting for the registry entry to go",
    "gateways": "waiting for gateways to send to it no more",
    "ready": "waiting until it is ready",
    "register": "waiting for the registry to confirm",
}


class Operations:
    """The operations of this host, newest last."""

    def __init__(
        self,
        unit_of: Callable[[str], Unit | None],
        describe: Callable[[str], str],
        ledger: Ledger | None = None,
        warming: Callable[[str], str] = lambda unit: "",
        measures: Measures | None = None,
    ) -> None:
        """`unit_of` gives a unit as it is now; `describe` what it waits for right now, with its time, or "".

        `warming` says how far a unit is from full weight, "" when it is there.
        """
        self._unit_of, self._describe, self._warming = unit_of, describe, warming
        self._ledger = ledger or Ledger(None, uuid4().hex)
        self._measures = measures or Measures()
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}  # operation id -> who waits for its end
        self._blocked: list[Tracked] = []  # those that wait for others
        self._release_planned = False
        self.carry_out: Callable[[Operation, Command], None] = lambda operation, command: None

    # Making.

    def known(self, command_id: str | None) -> list[Operation] | None:
        """The operations that this command has made already; None: it is new."""
        return self._ledger.of_command(command_id)

    def request_of(self, command_id: str) -> str:
        """What was asked under that id, in the words of `add`."""
        return self._ledger.request_of(command_id)

    def add(
        self,
        unit: str,
        verb: str,
        command: Command,
        *,
        after: Iterable[str] = (),
        deadline: float | None = None,
        registers: bool = False,
        request: str = "",
    ) -> Operation:
        """A new operation; `launch` begins it. What is open for the same unit and contradicts it is aborted.

        It has ended only when the registry has confirmed the unit, if it `registers`. `deadline` is unix time;
        `request` is what the same command must say when it comes again.
        """
        operation = Operation(
            self._ledger.next_id(), command.command_id or uuid4().hex, unit, verb, "pending", reason=command.reason,
            issued_by=command.issued_by, created=iso(), deadline=command.deadline,
        )  # fmt: skip
        tracked = Tracked(operation, command, set(after), request)
        tracked.deadline, tracked.registers = deadline, registers
        for older in self._ledger.open_of(unit):
            if contradict(verb, older.operation.verb):
                self._finish(older, "aborted", f"a later {verb} took its place")
        self._ledger.add(tracked)
        return operation

    def launch(self, operations: Sequence[Operation]) -> None:
        """Write them down, then begin those that need not wait."""
        self._ledger.prune()
        self._ledger.save()
        for operation in operations:
            tracked = self._ledger.tracked(operation.id)
            if tracked is None or operation.done:
                continue
            if not tracked.after:
                self._begin(tracked)
                continue
            self._show_what_it_waits_for(tracked)
            self._blocked.append(tracked)
        self._release()  # those that wait for what had ended already

    def note(self) -> None:
        """Write down what was added, before it is carried out at once."""
        self._ledger.prune()
        self._ledger.save()

    def take_up(self, tracked: Tracked) -> None:
        """Go on with an operation of an earlier daemon; what it had begun is begun again."""
        self._ledger.reopen(tracked)
        self._step(tracked, "resume", "unitd had ended in the middle of it")
        if tracked.after:
            self._blocked.append(tracked)
            self._plan_release()
        else:
            self._begin(tracked)

    def go_on(self, tracked: Tracked) -> None:
        """Watch an operation of an earlier daemon to its end: what it has ordered is what its unit does."""
        self._ledger.reopen(tracked)
        self._step(tracked, "resume", "unitd had ended in the middle of it")
        unit = self._unit_of(tracked.operation.unit)
        if unit is not None:
            self._enter(tracked, unit)
            self._consider(tracked, unit, None)

    def _begin(self, tracked: Tracked) -> None:
        operation, unit = tracked.operation, self._unit_of(tracked.operation.unit)
        if operation.done:
            return
        if unit is None:
            self._finish(tracked, "failed", "the unit was removed from the configuration")
            return
        if not tracked.begun and tracked.deadline is not None and wall() > tracked.deadline:
            self._finish(tracked, "expired", "its deadline passed before it could be started")
            return
        if not tracked.begun:
            tracked.attempt = unit.attempt
            self._measures.latencies.add(tracked.age_seconds, operation.verb)
        tracked.begun, operation.state = True, "running"
        self._ledger.touch(tracked, now=True)
        self.carry_out(operation, tracked.command)
        now = self._unit_of(operation.unit)
        if not operation.done and now is not None:
            self._consider(tracked, now, None)

    # Watching.

    def on_change(self, name: str, before: Unit, after: Unit, event: Event) -> None:
        """A unit has changed."""
        for tracked in self._ledger.open_of(name):
            if not tracked.begun:
                continue
            if isinstance(event, Drained) and event.cut:
                self._count_cut(tracked, event.cut)
            if after.crashed and not before.crashed:
                self._close_step(tracked, "failed")
            if after.phase is not before.phase:
                self._enter(tracked, after)
            elif isinstance(event, Spawned):
                self._step(tracked, "ready", _STEP_WORDS["ready"])
            elif isinstance(event, UndrainRequested | ReadinessRegained) and after.phase is Phase.RUNNING:
                self._come_back(tracked, after)
            self._consider(tracked, after, before)
        if self._blocked and (after.phase is not before.phase or isinstance(event, Prewarmed | ReadinessRegained)):
            self._plan_release()

    def on_step(self, unit: str, name: str) -> None:
        """An agent of the unit has got to this step."""
        for tracked in self._ledger.open_of(unit):
            if tracked.begun:
                self._step(tracked, name, _STEP_WORDS[name])

    def on_detail(self, unit: str, name: str, detail: str) -> None:
        """What has come of the step of that name, before the next one begins."""
        for tracked in self._ledger.open_of(unit):
            steps = tracked.operation.steps
            if steps and steps[-1].name == name:
                steps[-1].detail = detail

    def on_registered(self, name: str, unit: Unit) -> None:
        """The registry has confirmed the unit's entry."""
        if unit.phase is not Phase.RUNNING:
            return
        for tracked in self._ledger.open_of(name):
            if tracked.begun:
                tracked.registers = False
                self._consider(tracked, unit, None)
            elif tracked.operation.verb == "start":
                tracked.registers = False  # when it begins there is nothing left to wait for

    def on_full(self, name: str) -> None:
        """A unit has got to its full weight."""
        self._plan_release()

    def _enter(self, tracked: Tracked, unit: Unit) -> None:
        if unit.phase is Phase.RUNNING and tracked.registers:
            self._step(tracked, "register", _STEP_WORDS["register"])
        elif unit.phase in _STEP_OF_PHASE:
            self._step(tracked, *_STEP_OF_PHASE[unit.phase])

    def _come_back(self, tracked: Tracked, unit: Unit) -> None:
        """It may have traffic again."""
        if tracked.registers and not unit.drained:
            name = "register" if unit.healthy else "ready"
            self._step(tracked, name, _STEP_WORDS[name])

    def _count_cut(self, tracked: Tracked, cut: int) -> None:
        tracked.operation.cut = (tracked.operation.cut or 0) + cut
        if tracked.operation.steps:
            noun = "request was" if cut == 1 else "requests were"
            tracked.operation.steps[-1].detail = f"{cut} {noun} still open when the time for draining was over"

    def _consider(self, tracked: Tracked, unit: Unit, before: Unit | None) -> None:
        """Has what was asked for come true, or become impossible?"""
        judge = VERDICTS[tracked.operation.verb]
        verdict = judge(unit, before, tracked.attempt, tracked.registers)
        if verdict is not None:
            self._finish(tracked, *verdict)

    def _plan_release(self) -> None:
        if self._blocked and not self._release_planned:
            self._release_planned = True
            asyncio.get_running_loop().call_soon(self._release)

    def _release(self) -> None:
        """Begin what waited for operations that have ended; call off restarts that waited for one that failed."""
        self._release_planned = False
        blocked, self._blocked = self._blocked, []
        for tracked in blocked:
            if tracked.operation.done:
                continue
            failure = self._strike_off(tracked)
            if failure and tracked.operation.verb == "restart":
                self._finish(tracked, "aborted", f"not begun: {failure}")
            elif not tracked.after:
                self._begin(tracked)
            else:
                self._blocked.append(tracked)
                self._show_what_it_waits_for(tracked)

    def _strike_off(self, tracked: Tracked) -> str:
        """Take out of what it waits for all that has ended; why that was no success, if it was none."""
        for id_ in list(tracked.after):
            first = self._ledger.tracked(id_)
            if first is not None and not first.operation.done:
                continue
            if first is not None and first.operation.state != "succeeded":
                tracked.after.discard(id_)
                return f"the {first.operation.verb} of {first.operation.unit} {first.operation.state}"
            if first is not None and tracked.operation.verb == "restart":
                unit = self._unit_of(first.operation.unit)
                if unit is not None and unit.wanted and unit.phase is not Phase.RUNNING:
                    if not unit.crashed and not unit.failures:
                        continue  # it is on its way to yet another process because somebody wants that
                    tracked.after.discard(id_)
                    return f"the new process of {first.operation.unit} did not stay up ({unit.reason})"
                if unit is not None and unit.phase is Phase.RUNNING and self._warming(first.operation.unit):
                    continue
            tracked.after.discard(id_)
        return ""

    def _show_what_it_waits_for(self, tracked: Tracked) -> None:
        first = min(filter(None, map(self._ledger.tracked, tracked.after)), key=lambda item: item.number, default=None)
        if first is None:
            return
        if not first.operation.done:
            self._step(tracked, "wait", f"waits for the {first.operation.verb} of {first.operation.unit}")
        elif words := self._warming(first.operation.unit):
            self._step(tracked, "wait", f"waits for the full weight of {first.operation.unit}: {words}", renew=True)

    # Steps and ends.

    def _step(self, tracked: Tracked, name: str, detail: str, *, renew: bool = False) -> None:
        steps = tracked.operation.steps
        if steps and steps[-1].state == "running" and steps[-1].name == name:
            if renew:
                steps[-1].detail = detail
            return
        self._close_step(tracked, "succeeded")
        steps.append(Step(name, "running", started=iso(), detail=detail))
        tracked.step_at = monotonic()
        self._ledger.touch(tracked)

    def _close_step(self, tracked: Tracked, state: str) -> None:
        steps = tracked.operation.steps
        if steps and steps[-1].state == "running":
            steps[-1].state, steps[-1].finished = state, iso()
            self._measures.steps.add(monotonic() - tracked.step_at, steps[-1].name)

    def _finish(self, tracked: Tracked, state: str, error: str | None = None) -> None:
        operation = tracked.operation
        operation.state, operation.error, operation.finished = state, error, iso()
        self._close_step(tracked, "succeeded" if state == "succeeded" else "failed")
        self._measures.operations.add(tracked.age_seconds, operation.verb, state)
        self._ledger.close(tracked)
        for waiter in self._waiters.pop(operation.id, ()):
            if not waiter.done():
                waiter.set_result(None)
        self._plan_release()

    def skip(self, operation: Operation, detail: str) -> None:
        """Done before it began: the unit is as wanted."""
        self._end(operation, "succeeded", None, Step("none", "skipped", started=iso(), finished=iso(), detail=detail))

    def done(self, operation: Operation, detail: str) -> None:
        """It was carried out at once."""
        self._end(operation, "succeeded", None, Step("none", "succeeded", started=iso(), finished=iso(), detail=detail))

    def fail(self, operation: Operation, error: str) -> None:
        """It cannot come true."""
        self._end(operation, "failed", error)

    def expire(self, operation: Operation, error: str) -> None:
        """Its time has passed."""
        self._end(operation, "expired", error)

    def abort(self, operation: Operation, error: str) -> None:
        """It was called off."""
        if not operation.done:
            self._end(operation, "aborted", error)

    def _end(self, operation: Operation, state: str, error: str | None, step: Step | None = None) -> None:
        tracked = self._ledger.tracked(operation.id)
        if tracked is None:
            return
        if step is not None:
            operation.steps.append(step)
        tracked.begun = True
        self._finish(tracked, state, error)

    # Asking.

    def get(self, id_: str) -> Operation | None:
        """An operation with the words of this moment; None: unknown, or long finished."""
        tracked = self._ledger.tracked(id_)
        return None if tracked is None else self._refresh(tracked.operation)

    def latest(self, count: int) -> list[Operation]:
        """The newest ones, newest last."""
        return [self._refresh(item.operation) for item in self._ledger.latest(count)]

    def of_command(self, command_id: str) -> list[Operation]:
        """All that a command has made; [] if it is unknown."""
        return [self._refresh(item) for item in self.known(command_id) or ()]

    def open_of(self, unit: str) -> Operation | None:
        """The unit's oldest unfinished operation."""
        items = self._ledger.open_of(unit)
        return items[0].operation if items else None

    @property
    def open_count(self) -> int:
        """How many have not ended."""
        return self._ledger.open_count

    def oldest_open(self) -> dict[str, tuple[int, float]]:
        """verb -> how many have not ended, and the age of the oldest of them in seconds."""
        found: dict[str, tuple[int, float]] = {}
        for tracked in self._ledger.all_open():
            count, age = found.get(tracked.operation.verb, (0, 0.0))
            found[tracked.operation.verb] = count + 1, max(age, tracked.age_seconds)
        return found

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
