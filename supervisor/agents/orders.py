"""What people and programs may order, for many units at once: which units that touches, and what must wait for what.

- start: also starts what a unit depends on; each waits until that is ready.
- stop: also stops what depends on a unit, and that first.
- restart: the processes of one service go one after another, so that there is always one to send to; a failure ends
  it. Units without a service, and different services, are restarted side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ..core import order
from ..core.events import (
    CancelRequested,
    DependenciesReady,
    Event,
    RestartRequested,
    StartRequested,
    StopRequested,
)
from ..core.lifecycle import IGNORED
from ..core.model import Phase, Unit, UnitSpec
from ..errors import WireError
from ..host.journal import Journal
from ..host.process import Processes
from ..host.runner import Runner, Runners
from ..host.signals import signal_name
from ..wire import Command, Operation
from .operations import Operations


class Orders:
    """The daemon's verbs."""

    def __init__(self, runners: Runners, operations: Operations, processes: Processes, journal: Journal) -> None:
        self._runners, self._operations = runners, operations
        self._processes, self._journal = processes, journal
        self._waiting: dict[str, None] = {}  # units in WAITING
        runners.observe(self._on_change)

    @property
    def specs(self) -> dict[str, UnitSpec]:
        """unit name -> what is wanted of it now."""
        return {name: runner.next_spec or runner.spec for name, runner in self._runners.by_name.items()}

    def select(self, patterns: Sequence[str]) -> list[str]:
        """The units that names, groups, `group:*`, globs or `all` mean. Raises UnknownUnit."""
        return order.select(patterns, self.specs)

    # Verbs. Each returns its operations, one per unit that it touches; all raise UnknownUnit and WireError.

    def start(
        self, names: Sequence[str], command: Command, *, remember: bool = True, after: Sequence[str] = ()
    ) -> list[Operation]:
        """Bring units up, and first what they depend on; `after` are operations that must have ended before."""
        _deadline(command)  # nothing is written down for a command that is refused
        specs = self.specs
        touched = [*order.dependencies_of(names, specs), *names]
        if remember:
            self._journal.record_wishes(touched, up=True)
        operations = []
        wanted = set(names)
        for name in _flat(order.start_order(specs, touched)):
            if name in wanted or self._runners.by_name[name].unit.phase is not Phase.RUNNING:
                operations.append(self._operation(name, "start", command, after=after))
        self._operations.launch(operations)
        return operations

    def stop(
        self, names: Sequence[str], command: Command, *, remember: bool = True, only: bool = False
    ) -> list[Operation]:
        """Take units down, and first what depends on them (not if `only`: then just these, in their order)."""
        _deadline(command)
        specs = self.specs
        dependents = () if only else order.dependents_of(names, specs)
        touched = [*names, *(name for name in dependents if self._is_up(name))]
        if remember:
            self._journal.record_wishes(touched, up=False)
        needed = {group for spec in specs.values() for group in spec.depends_on}
        made: dict[str, Operation] = {}
        for name in _flat(order.stop_order(specs, touched)):
            above = order.dependents_of([name], specs) if specs[name].group in needed else ()
            first = [made[other].id for other in above if other in made]
            made[name] = self._operation(name, "stop", command, after=first)
        self._operations.launch(list(made.values()))
        return list(made.values())

    def restart(self, names: Sequence[str], command: Command) -> list[Operation]:
        """Give units a new process."""
        specs = self.specs
        last: dict[str, str] = {}
        operations = []
        for name in _flat(order.start_order(specs, names)):
            spec = specs[name]
            after = [last[spec.group]] if spec.service is not None and spec.group in last else []
            operation = self._operation(name, "restart", command, after=after)
            last[spec.group] = operation.id
            operations.append(operation)
        self._operations.launch(operations)
        return operations

    def signal(self, names: Sequence[str], command: Command, number: int) -> list[Operation]:
        """Send a signal to units' leading processes."""
        operations = []
        for name in names:
            operation = self._operations.add(name, "signal", command, lambda: None)
            if self._processes.signal(name, number):
                self._operations.skip(operation, f"sent {signal_name(number)}")
            else:
                self._operations.fail(operation, f"cannot send {signal_name(number)}: it has no running process")
            operations.append(operation)
        return operations

    def abort(self, operation: Operation) -> str | None:
        """Call an operation off; a text says why that is not possible any more."""
        if operation.done:
            return f"it has {operation.state} already"
        runner = self._runners.by_name.get(operation.unit)
        if runner is None or operation.steps[-1:] == [] or operation.steps[-1].name == "wait":
            self._operations.abort(operation, "aborted")
            if runner is None or runner.unit.phase is not Phase.WAITING:
                return None
        if runner.unit.phase is Phase.RUNNING:  # only the registry's confirmation is missing
            self._operations.abort(operation, "aborted; the unit runs")
            return None
        if (runner.unit.phase, CancelRequested) in IGNORED:
            return "its unit was told to stop already; that cannot be called back"
        self._operations.abort(operation, "aborted")
        self._runners.post(operation.unit, CancelRequested())
        return None

    def remember(self, names: Sequence[str], *, up: bool) -> None:
        """Whether units should be up after a restart of the daemon; nothing changes now."""
        self._journal.record_wishes(names, up=up)

    def reconsider(self) -> None:
        """Dependencies may have changed: start what has nothing left to wait for."""
        for name in list(self._waiting):
            runner = self._runners.by_name.get(name)
            if runner is not None and not self.waits_for(runner.spec):
                self._runners.post(name, DependenciesReady())

    def waits_for(self, spec: UnitSpec) -> str:
        """The first unit that it depends on and that is not ready; "" if all are."""
        if not spec.depends_on:
            return ""
        ready = {name for name, runner in self._runners.by_name.items() if runner.unit.phase is Phase.RUNNING}
        return order.waits_for(spec, order.groups_of(self.specs), ready)

    # Parts of them.

    def _operation(self, name: str, verb: str, command: Command, after: Sequence[str] = ()) -> Operation:
        runner = self._runners.by_name[name]
        idle = _idle(verb, runner.unit)
        operation = self._operations.add(
            name,
            verb,
            command,
            lambda: self._runners.post(name, self._event(verb, self._runners.by_name[name], command)),
            after=after,
            deadline=_deadline(command),
            registers=verb != "stop" and (runner.next_spec or runner.spec).service is not None,
        )
        if idle:
            self._operations.skip(operation, idle)
        return operation

    def _event(self, verb: str, runner: Runner, command: Command) -> Event:
        """What to post when the operation begins."""
        force = bool(command.parameters.get("force", False))
        if verb == "stop":
            return StopRequested(force)
        waits_for = self.waits_for(runner.next_spec or runner.spec)
        return StartRequested(waits_for) if verb == "start" else RestartRequested(force, waits_for)

    def _is_up(self, name: str) -> bool:
        return self._runners.by_name[name].unit.phase not in (Phase.STOPPED, Phase.FATAL)

    def _on_change(self, runner: Runner, before: Unit, event: Event) -> None:
        """Units that wait for this one go on, or learn that they wait in vain."""
        unit = runner.unit
        if unit.phase is before.phase:
            return
        if unit.phase is Phase.WAITING:
            self._waiting[runner.spec.name] = None
        else:
            self._waiting.pop(runner.spec.name, None)
        if unit.phase in (Phase.RUNNING, Phase.FATAL):
            for name in list(self._waiting):
                self._tell_waiting(name, runner)

    def _tell_waiting(self, name: str, changed: Runner) -> None:
        waiting = self._runners.by_name.get(name)
        if waiting is None or changed.spec.group not in waiting.spec.depends_on:
            return
        operation = self._operations.open_of(name)
        if changed.unit.phase is Phase.RUNNING:
            if not self.waits_for(waiting.spec):
                self._runners.post(name, DependenciesReady())
        elif operation is not None:
            reason = f"{changed.spec.name} is not ready: {changed.unit.reason}"
            self._operations.fail(operation, f"cannot start: {reason}")


def _idle(verb: str, unit: Unit) -> str:
    """Why there is nothing to do; "" if there is."""
    if verb == "start" and unit.phase is Phase.RUNNING:
        return f"already running (pid {unit.pid})"
    if verb == "stop" and unit.phase is Phase.STOPPED and not unit.crashed:
        return "already stopped"
    return ""


def _flat(waves: Sequence[Sequence[str]]) -> list[str]:
    return [name for wave in waves for name in wave]


def _deadline(command: Command) -> float | None:
    if command.deadline is None:
        return None
    try:
        moment = datetime.fromisoformat(command.deadline)
    except ValueError:
        raise WireError(f"cannot read the deadline {command.deadline!r}: it must be ISO 8601 in UTC") from None
    if moment.tzinfo is None:
        raise WireError(f"cannot read the deadline {command.deadline!r}: it names no time zone; end it with Z")
    return moment.timestamp()
