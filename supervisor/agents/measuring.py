"""Counts what becomes of units: new processes by what they were started for, and requests that were cut.

The reason for a new process is known when the old one's end begins, and is kept until the new one is spawned.
"""

from __future__ import annotations

from collections.abc import Callable

from ..core import events
from ..core.measures import Measures
from ..core.model import Phase, Unit
from ..host.runner import Runner

_AT_REST = (Phase.STOPPED, Phase.WAITING, Phase.FATAL)


class Measuring:
    """An observer of all units."""

    def __init__(self, measures: Measures, is_ordered: Callable[[str], bool]) -> None:
        """`is_ordered`: an operation is under way for that unit."""
        self._measures, self._is_ordered = measures, is_ordered
        self._causes: dict[str, str] = {}  # of units whose next process is to come

    def on_change(self, runner: Runner, before: Unit, event: events.Event) -> None:
        """A unit has changed."""
        name, unit = runner.spec.name, runner.unit
        if isinstance(event, events.Drained) and event.cut:
            self._measures.requests_cut.add(name, by=event.cut)
        if unit.attempt != before.attempt:
            self._count(name, before)
        elif unit.crashed and not before.crashed:
            self._causes[name] = _cause_of(before, event)
        elif isinstance(event, events.RestartRequested):
            self._causes[name] = self._ordered(runner)
        elif isinstance(event, events.StartRequested):
            self._causes[name] = "command"
        elif unit.phase in _AT_REST:
            self.forget(name)

    def forget(self, unit: str) -> None:
        """Its next process, if there is one, will be a start."""
        self._causes.pop(unit, None)

    def _count(self, name: str, before: Unit) -> None:
        cause = self._causes.pop(name, "recovery")
        if before.phase not in _AT_REST:  # else it is a start
            self._measures.restarts.add(name, cause)

    def _ordered(self, runner: Runner) -> str:
        if runner.next_spec is not None:
            return "config"
        return "command" if self._is_ordered(runner.spec.name) else "recovery"


def _cause_of(before: Unit, event: events.Event) -> str:
    """What made a unit end that nobody had asked to."""
    if isinstance(event, events.Exited):
        return "spawn" if event.exit.stage is not None else "crash"
    return "start" if before.phase is Phase.STARTING else "liveness"
