"""Units in motion: events go in, `lifecycle.step` answers, actions are handed to those who perform them.

All units share one mailbox, and whoever posts first empties it; so there is no task per unit, every unit's events are
answered in their order, and an action that posts at once is answered after the step it came from.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ..core.events import Action, ArmTimer, Event, Spawned, TimerFired
from ..core.lifecycle import step
from ..core.model import Unit, UnitSpec
from ..core.restart import TokenBucket
from .clock import monotonic, wall

log = logging.getLogger("unitd.unit")


class Runner:
    """One unit: its spec, its value, its timer. Only `Runners` writes here."""

    __slots__ = ("changed_at", "next_spec", "retry_at", "spec", "started_at", "started_wall", "timer", "unit")

    def __init__(self, spec: UnitSpec, attempt: int) -> None:
        self.spec = spec
        self.next_spec: UnitSpec | None = None  # takes over with the next attempt
        self.unit = Unit(attempt=attempt)
        self.timer: asyncio.TimerHandle | None = None
        self.changed_at = monotonic()  # when it entered its phase
        self.started_at = 0.0  # its process
        self.started_wall = 0.0
        self.retry_at: float | None = None  # when its timer fires


Performer = Callable[[Runner, Action], None]
Observer = Callable[[Runner, Unit, Event], None]  # the runner after, the unit before, and what happened
Record = Callable[[Runner, Unit, Event, Sequence[Action]], None]  # and what is to be done


class Runners:
    """All units of the host, by name."""

    def __init__(
        self,
        performers: Mapping[type[Action], Performer],
        budget: TokenBucket,
        record: Record | None = None,
        awaited: Callable[[str], str] = lambda name: "",
    ) -> None:
        """`performers` answers every kind of action but ArmTimer; `budget` bounds automatic restarts.

        `record` is told of every step before its actions are performed; `awaited` says what a unit waits for.
        """
        self._record, self._awaited = record, awaited
        self._performers = {**performers, ArmTimer: self._arm}
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self._mailbox: deque[tuple[str, Event]] = deque()
        self._busy = False
        self._observers: list[Observer] = []
        self.by_name: dict[str, Runner] = {}

    def observe(self, observer: Observer) -> None:
        """Be told of every event that changed a unit, in order."""
        self._observers.append(observer)

    def add(self, spec: UnitSpec, attempt: int, *, drained: bool = False) -> Runner:
        """A unit that exists from now on; `attempt` is the last generation it ever had."""
        runner = self.by_name[spec.name] = Runner(spec, attempt)
        runner.unit = replace(runner.unit, drained=drained)
        return runner

    def adopt(self, name: str, unit: Unit, started_wall: float, changed_at: float | None = None) -> None:
        """A unit that an earlier daemon has left in that state; its process began at that unix time.

        `changed_at` is when it entered its phase (None: now).
        """
        runner = self.by_name[name]
        runner.unit = unit
        if changed_at is not None:
            runner.changed_at = changed_at
        runner.started_wall = started_wall
        runner.started_at = monotonic() - max(0.0, wall() - started_wall)

    def perform(self, name: str, actions: Sequence[Action]) -> None:
        """Do for a unit what an earlier daemon may have been about to do."""
        runner = self.by_name[name]
        for action in actions:
            self._contain(runner, action, self._performers[type(action)], runner, action)
        self._empty_mailbox()  # a timer that is over already speaks through it

    def remove(self, name: str) -> None:
        """Forget a unit that is down."""
        runner = self.by_name.pop(name)
        if runner.timer is not None:
            runner.timer.cancel()

    def post(self, name: str, event: Event) -> None:
        """Answer an event; whatever speaks of a unit that was removed is dropped."""
        self._mailbox.append((name, event))
        self._empty_mailbox()

    def _empty_mailbox(self) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            while self._mailbox:
                name, event = self._mailbox.popleft()
                runner = self.by_name.get(name)
                if runner is not None:
                    self._answer(runner, event)
        finally:
            self._busy = False

    def _answer(self, runner: Runner, event: Event) -> None:
        before = runner.unit
        runner.unit, actions = step(before, event, runner.spec)
        if runner.unit is before:
            return
        if runner.unit.timer != before.timer:
            self._disarm(runner)
        if runner.unit.phase is not before.phase:
            runner.changed_at = monotonic()
        if runner.unit.attempt != before.attempt and runner.next_spec is not None:
            runner.spec, runner.next_spec = runner.next_spec, None
        if isinstance(event, Spawned):
            runner.started_at, runner.started_wall = monotonic(), wall()
        if self._record is not None:
            self._contain(runner, event, self._record, runner, before, event, actions)
        for action in actions:
            self._contain(runner, action, self._performers[type(action)], runner, action)
        for observer in self._observers:
            self._contain(runner, event, observer, runner, before, event)

    def _contain(self, runner: Runner, what: object, call: Callable[..., None], *arguments: object) -> None:
        """A mistake in one performer or observer must not keep this unit's others, or other units', from going on."""
        try:
            call(*arguments)
        except Exception:
            log.exception("%s: cannot carry out %s", runner.spec.name, what)

    def _disarm(self, runner: Runner) -> None:
        if runner.timer is not None:
            runner.timer.cancel()
        runner.timer = runner.retry_at = None

    def _arm(self, runner: Runner, action: Action) -> None:
        assert isinstance(action, ArmTimer)
        seconds = action.seconds
        if action.automatic:
            self._budget, wait = self._budget.take(monotonic())
            if wait > seconds:
                log.warning("%s: restarted only in %.1f s: the host's budget of restarts is used up",
                            runner.spec.name, wait)  # fmt: skip
            seconds = max(seconds, wait)
        if seconds <= 0:
            self._mailbox.append((runner.spec.name, TimerFired(action.timer)))
            return
        runner.retry_at = monotonic() + seconds
        runner.timer = self._loop.call_later(seconds, self._fire, runner.spec.name, action.timer)

    def _fire(self, name: str, timer: int) -> None:
        self.post(name, TimerFired(timer, self._awaited(name)))
