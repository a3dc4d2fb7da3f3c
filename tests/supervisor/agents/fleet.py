"""Units that live without processes: real runners, operations and orders, and a host that does what a test says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from supervisor.agents.apply import Applier
from supervisor.agents.history import History
from supervisor.agents.ledger import Ledger
from supervisor.agents.maintenance import Maintenances
from supervisor.agents.operations import Operations
from supervisor.agents.orders import Orders
from supervisor.agents.view import View, summary
from supervisor.agents.warmup import Warmups
from supervisor.core.events import (
    Action,
    Drain,
    Drained,
    Event,
    Exited,
    Gone,
    Kill,
    Prewarm,
    Prewarmed,
    Publish,
    Ready,
    Resume,
    Spawn,
    Spawned,
    StartRequested,
    Terminate,
    Unconfirmed,
    Withdraw,
)
from supervisor.core.lifecycle import state_word
from supervisor.core.model import Exit, Phase, RestartPolicy, ServiceSpec, Unit, UnitSpec
from supervisor.core.restart import TokenBucket
from supervisor.host.clock import monotonic
from supervisor.host.journal import Journal
from supervisor.host.runner import Runner, Runners
from supervisor.wire import Command, Operation


def plain(name: str, *depends_on: str, **more: Any) -> UnitSpec:
    group, _, number = name.partition(":")
    more.setdefault("restart", RestartPolicy(settle_seconds=0.0))
    return replace(
        UnitSpec(name, group, int(number or 0), ("sleep", "1000"), depends_on=depends_on, startsecs=0.0),
        **more,
    )


def service(name: str, *depends_on: str, **more: Any) -> UnitSpec:
    made = plain(name, *depends_on, **more)
    return replace(made, service=ServiceSpec(made.group, "127.0.0.1", 9080 + made.number))


class FakeProcesses:
    """Whom a signal reaches."""

    def __init__(self) -> None:
        self.running, self.sent = set[str](), list[tuple[str, int]]()

    def signal(self, unit: str, number: int) -> bool:
        if unit in self.running:
            self.sent.append((unit, number))
        return unit in self.running


class Fleet:
    """What the daemon joins, without a host. What `held` names is not answered until a test does it."""

    def __init__(
        self,
        folder: Path,
        specs: Iterable[UnitSpec] = (),
        *,
        agents: Callable[[], Any] = lambda: None,
    ) -> None:
        self.done = list[tuple[str, Action]]()  # (unit, action), in the order that they were ordered
        self.held = set[type[Action]]()
        self.words = dict[str, str]()  # what a unit's agent waits for
        self.warming = dict[str, str]()  # how far a unit is from its full weight
        self.reregistered = list[str]()
        self.processes = FakeProcesses()
        self.journal = Journal(str(folder / "state"))
        performers = dict.fromkeys((Spawn, Prewarm, Publish, Withdraw, Drain, Resume, Terminate, Kill), self._perform)
        self.runners = Runners(performers, TokenBucket.full(60_000, 1000, monotonic()))
        self.ledger = Ledger(self.journal, self.journal.state_id())
        self.operations = Operations(
            self.unit, lambda name: self.words.get(name, ""), self.ledger, lambda name: self.warming.get(name, "")
        )
        self.maintenances = Maintenances(self.journal, self._on_maintenance_over)
        self.warmups = Warmups(lambda name: None, lambda name, value: None, self.operations.on_full)
        self.history = History()
        self.runners.observe(self._on_change)
        self.orders = Orders(
            self.runners, self.operations, cast(Any, self.processes), self.journal, self.maintenances, self.warmups
        )
        self.applier = Applier(
            self.runners, self.orders, self.operations, self.journal.attempts(), self.reregistered.append
        )
        self.view = View(self.runners, self.operations, agents)
        for spec in specs:
            self.runners.add(spec, 0)

    def close(self) -> None:
        for runner in self.runners.by_name.values():
            if runner.timer is not None:
                runner.timer.cancel()
        self.maintenances.close()
        self.warmups.close()
        self.ledger.save()
        self.journal.close()

    # The host.

    def _perform(self, runner: Runner, action: Action) -> None:
        self.done.append((runner.spec.name, action))
        if type(action) not in self.held:
            self.answer(runner.spec.name, action)

    def answer(self, name: str, action: Action) -> None:
        """What a healthy host says to an action."""
        attempt = self.runners.by_name[name].unit.attempt
        match action:
            case Spawn(number):
                self.processes.running.add(name)
                self.runners.post(name, Spawned(number, 4000 + number))
                self.runners.post(name, Ready(number, monotonic()))
            case Prewarm(number):
                self.runners.post(name, Prewarmed(number))
            case Resume(_):
                pass
            case Publish(_):
                unit = self.unit(name)
                assert unit is not None
                self.operations.on_registered(name, unit)
            case Withdraw(number, withdrawal):
                self.operations.on_step(name, "gone")
                self.runners.post(name, Gone(number, withdrawal))
            case Drain(number, _):
                self.runners.post(name, Drained(number))
            case _:
                self.exits(name, signal=15, reason="killed by SIGTERM after 1.0 s", attempt=attempt)

    def exits(self, name: str, *, attempt: int | None = None, leftovers: bool = False, **how: Any) -> None:
        """Its process ends."""
        self.processes.running.discard(name)
        number = self.runners.by_name[name].unit.attempt if attempt is None else attempt
        how.setdefault("reason", f"exited with code {how.get('code')} after 1.0 s")
        self.runners.post(name, Exited(number, Exit(wall=1_800_000_000.5, **how), monotonic(), 0.5, leftovers))

    def release(self, *kinds: type[Action]) -> None:
        """Answer what was held back, in its order, and hold no more of it back."""
        self.held -= set(kinds)
        for name, action in [item for item in self.done if isinstance(item[1], kinds)]:
            runner = self.runners.by_name.get(name)
            if runner is not None and getattr(action, "attempt", 0) == runner.unit.attempt:
                self.answer(name, action)

    def unconfirm(self, name: str) -> None:
        """The registry cannot say whether the entry has gone."""
        unit = self.runners.by_name[name].unit
        self.runners.post(name, Unconfirmed(unit.attempt, unit.withdrawal, "the registry is away"))

    # What joins the parts, as the daemon does it.

    def unit(self, name: str) -> Unit | None:
        runner = self.runners.by_name.get(name)
        return None if runner is None else runner.unit

    def _on_maintenance_over(self, name: str) -> None:
        self.orders.undrain([name], Command(reason="the time of its drain is over", issued_by="unitd"))

    def _on_change(self, runner: Runner, before: Unit, event: Event) -> None:
        self.operations.on_change(runner.spec.name, before, runner.unit, event)
        if runner.unit.phase is not before.phase:
            self.history.add(runner.spec.name, state_word(runner.unit).lower(), summary(runner.unit))

    # Words for tests.

    def phase(self, name: str) -> Phase:
        return self.runners.by_name[name].unit.phase

    def up(self, *names: str) -> None:
        """Start them without an operation."""
        for name in names:
            self.runners.post(name, StartRequested())
            assert self.phase(name) is Phase.RUNNING
        self.done.clear()

    def ordered(self, kind: type[Action]) -> list[str]:
        """The units that were told so, in order."""
        return [name for name, action in self.done if isinstance(action, kind)]

    def start(self, *names: str, **command: Any) -> list[Operation]:
        return self.orders.start(names, Command(**command))

    def stop(self, *names: str, **command: Any) -> list[Operation]:
        return self.orders.stop(names, Command(**command))

    def drain(self, *names: str, **command: Any) -> list[Operation]:
        return self.orders.drain(names, Command(**command))

    def undrain(self, *names: str, **command: Any) -> list[Operation]:
        return self.orders.undrain(names, Command(**command))

    def restart(self, *names: str, **command: Any) -> list[Operation]:
        return self.orders.restart(names, Command(**command))


def steps(operation: Operation) -> list[tuple[str, str]]:
    return [(step.name, step.state) for step in operation.steps]
