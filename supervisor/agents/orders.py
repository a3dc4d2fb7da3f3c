"""What people and programs may order, for many units at once: which units that touches, and what must wait for what.

- start: also starts what a unit depends on; each waits until that is ready.
- stop: also stops what depends on a unit, and that first.
- restart: the processes of one service go one after another, each at full weight before the next, so that there is
  always one to send to; a failure ends it. Units without a service, and different services, are restarted side by side.
- drain and undrain: out of traffic and back, with the process alive. warm and weight: how much of it a unit gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from ..core import order
from ..core.events import (
    CancelRequested,
    DependenciesReady,
    DrainRequested,
    Event,
    RestartRequested,
    StartRequested,
    StopRequested,
    UndrainRequested,
)
from ..core.lifecycle import can_cancel
from ..core.model import Phase, Unit, UnitSpec
from ..core.parameters import check_parameters
from ..errors import WireError
from ..host.clock import iso, wall
from ..host.journal import Journal
from ..host.process import Processes
from ..host.runner import Runner, Runners
from ..host.signals import signal_name, signal_number
from ..wire import Command, Operation
from .maintenance import Maintenance, Maintenances, moment_of, until_of
from .operations import Operations
from .warmup import Warmups


class Orders:
    """The daemon's verbs."""

    def __init__(
        self,
        runners: Runners,
        operations: Operations,
        processes: Processes,
        journal: Journal,
        maintenances: Maintenances,
        warmups: Warmups,
    ) -> None:
        self._runners, self._operations = runners, operations
        self._processes, self._journal = processes, journal
        self._maintenances, self._warmups = maintenances, warmups
        operations.carry_out = self._carry_out
        self._request = ""  # of the command that is being given
        self._verbs: dict[str, Callable[[Sequence[str], Command], list[Operation]]] = {
            "start": self.start, "stop": self.stop, "restart": self.restart, "signal": self.signal,
            "drain": self.drain, "undrain": self.undrain, "warm": self.warm, "weight": self.weight,
        }  # fmt: skip
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

    def give(self, verb: str, names: Sequence[str], command: Command, request: str = "") -> list[Operation]:
        """Any of them; `request` is what the same command must say when it comes again."""
        check_parameters(verb, command.parameters)
        with self.asked(request):
            return self._verbs[verb](names, command)

    @contextmanager
    def asked(self, request: str) -> Iterator[None]:
        """What is ordered meanwhile is remembered under these words."""
        self._request = request
        try:
            yield
        finally:
            self._request = ""

    def stopped_with(self, names: Sequence[str]) -> list[str]:
        """What stops when these do, because it depends on them."""
        return [name for name in order.dependents_of(names, self.specs) if self._is_up(name)]

    def start(
        self, names: Sequence[str], command: Command, *, remember: bool = True, after: Sequence[str] = ()
    ) -> list[Operation]:
        """Bring units up, and first what they depend on; `after` are operations that must have ended before."""
        deadline_of(command)  # nothing is written down for a command that is refused
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
        deadline_of(command)
        specs = self.specs
        touched = [*names, *(() if only else self.stopped_with(names))]
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
        """Give units a new process; who restarts what is down wants it up."""
        deadline_of(command)
        if down := [name for name in names if not self._runners.by_name[name].unit.wanted]:
            self._journal.record_wishes(down, up=True)
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

    def signal(self, names: Sequence[str], command: Command) -> list[Operation]:
        """Send a signal to units' leading processes."""
        number = signal_number(command.parameters.get("signal"))
        if _is_late(command):
            return self._expired(names, "signal", command)
        operations = [self._add(name, "signal", command) for name in names]
        self._operations.note()
        for operation in operations:
            if self._processes.signal(operation.unit, number):
                self._operations.done(operation, f"sent {signal_name(number)}")
            else:
                self._operations.fail(operation, f"cannot send {signal_name(number)}: it has no running process")
        return operations

    def drain(self, names: Sequence[str], command: Command) -> list[Operation]:
        """Take units out of traffic, and keep them out until somebody, or the time that was given, says otherwise."""
        deadline_of(command)
        until = until_of(command.parameters)
        if until is not None:  # a moment: it ends when it was to, however late it begins
            others = {key: value for key, value in command.parameters.items() if key != "for_seconds"}
            command = replace(command, parameters={**others, "until": iso(until)})
        for name in names:
            spec = self.specs[name]
            if spec.service is None and spec.drain is None:
                raise WireError(f"cannot drain {name}: it has neither a service nor a drain table")
        operations = [self._add(name, "drain", command) for name in names]
        self._operations.launch(operations)
        return operations

    def undrain(self, names: Sequence[str], command: Command) -> list[Operation]:
        """Let units into traffic again; their weight grows from the start."""
        deadline_of(command)
        operations = []
        for name in names:
            operation = self._add(name, "undrain", command, registers=self.specs[name].service is not None)
            if not self._runners.by_name[name].unit.drained:
                self._operations.skip(operation, "it is not drained")
            operations.append(operation)
        self._operations.launch(operations)
        return operations

    def warm(self, names: Sequence[str], command: Command) -> list[Operation]:
        """Start a ramp, or pause, resume or jump on it."""
        return self._weigh("warm", names, command)

    def weight(self, names: Sequence[str], command: Command) -> list[Operation]:
        """Fix a weight, or give it back to the ramp."""
        return self._weigh("weight", names, command)

    def _weigh(self, verb: str, names: Sequence[str], command: Command) -> list[Operation]:
        if _is_late(command):
            return self._expired(names, verb, command)
        specs, operations = self.specs, []
        words: dict[str, tuple[bool, str]] = {}
        for name in names:
            try:
                words[name] = True, self._warmups.command(specs[name], verb, command.parameters)
            except WireError as error:
                if not any(ok for ok, _ in words.values()):
                    raise  # nothing was changed for anybody
                words[name] = False, str(error)
        for name, (ok, text) in words.items():
            operation = self._add(name, verb, command)
            (self._operations.done if ok else self._operations.fail)(operation, text)
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
        if runner.unit.dead:
            return f"its unit must go: {runner.unit.reason}"
        if not can_cancel(runner.unit):
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

    def _expired(self, names: Sequence[str], verb: str, command: Command) -> list[Operation]:
        """What would be carried out at once, but its deadline has passed."""
        operations = [self._add(name, verb, command) for name in names]
        for operation in operations:
            self._operations.expire(operation, "its deadline passed before it could be started")
        return operations

    def _add(
        self, name: str, verb: str, command: Command, after: Sequence[str] = (), *, registers: bool = False
    ) -> Operation:
        return self._operations.add(
            name, verb, command, after=after, deadline=deadline_of(command), registers=registers, request=self._request
        )

    def _operation(self, name: str, verb: str, command: Command, after: Sequence[str] = ()) -> Operation:
        runner = self._runners.by_name[name]
        idle = _idle(verb, runner.unit)
        registers = verb != "stop" and (runner.next_spec or runner.spec).service is not None
        operation = self._add(name, verb, command, after, registers=registers)
        if idle:
            self._operations.skip(operation, idle)
        return operation

    def _carry_out(self, operation: Operation, command: Command) -> None:
        """An operation begins: post what it asks for."""
        name, runner = operation.unit, self._runners.by_name[operation.unit]
        if operation.verb == "drain":
            parameters = dict(command.parameters)
            owner = str(parameters.get("owner") or command.issued_by)
            until = moment_of(parameters)
            if until is not None and until <= wall():
                self._operations.expire(operation, "the time for which it was to be drained is over")
                return
            known = self._maintenances.of(name)
            if known is None or (known.owner, known.reason, known.until) != (owner, command.reason, until):
                self._maintenances.begin(name, Maintenance(owner, command.reason, wall(), until))
        elif operation.verb == "undrain":
            self._maintenances.end(name)
        self._runners.post(name, self._event(operation.verb, runner, command))

    def _event(self, verb: str, runner: Runner, command: Command) -> Event:
        force = bool(command.parameters.get("force", False))
        if verb in _PLAIN:
            return _PLAIN[verb]
        if verb == "stop":
            return StopRequested(force)
        waits_for = self.waits_for(runner.next_spec or runner.spec)
        if verb == "start":
            return StartRequested(waits_for)
        return RestartRequested(force, waits_for, bool(command.parameters.get("no_drain", False)))

    def _is_up(self, name: str) -> bool:
        return self._runners.by_name[name].unit.phase not in (Phase.STOPPED, Phase.FATAL)

    def _on_change(self, runner: Runner, before: Unit, event: Event) -> None:
        """Units that wait for this one go on, or learn that they wait in vain; a drain that was called off is over."""
        unit = runner.unit
        if before.drained and not unit.drained:
            self._maintenances.end(runner.spec.name)
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


_PLAIN: dict[str, Event] = {"drain": DrainRequested(), "undrain": UndrainRequested()}


def _idle(verb: str, unit: Unit) -> str:
    """Why there is nothing to do; "" if there is."""
    if verb == "start" and unit.phase is Phase.RUNNING:
        return f"already running (pid {unit.pid})"
    if verb == "stop" and unit.phase is Phase.STOPPED and not unit.crashed:
        return "already stopped"
    return ""


def _flat(waves: Sequence[Sequence[str]]) -> list[str]:
    return [name for wave in waves for name in wave]


def _is_late(command: Command) -> bool:
    deadline = deadline_of(command)
    return deadline is not None and wall() > deadline


def deadline_of(command: Command) -> float | None:
    """The unix time after which it is not begun any more. Raises WireError."""
    if command.deadline is None:
        return None
    try:
        moment = datetime.fromisoformat(command.deadline)
    except ValueError:
        raise WireError(f"cannot read the deadline {command.deadline!r}: it must be ISO 8601 in UTC") from None
    if moment.tzinfo is None:
        raise WireError(f"cannot read the deadline {command.deadline!r}: it names no time zone; end it with Z")
    return moment.timestamp()
