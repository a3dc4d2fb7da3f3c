"""Writes down what a unit's life leaves in the world, before it does: its process, its registry entry, and itself.

What a unit is, and the spec that its process was started with, are for a later daemon that takes it over as it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from registry_client.model import Entry

from ..core.events import Action, ArmTimer, Event, Spawned
from ..core.model import Unit, UnitSpec
from ..core.stored import StoredError, from_plain, to_plain
from ..host import tree
from ..host.clock import monotonic
from ..host.journal import Journal, ProcessRecord
from ..host.runner import Runner

UNIT, SPEC = "unit", "spec"  # kinds of the journal's facts


@dataclass(frozen=True, slots=True)
class Record:
    """A unit as a daemon of this boot has left it. Instants are monotonic, which goes on from daemon to daemon."""

    unit: Unit
    spec: UnitSpec  # of its process
    since: float  # when it entered its phase
    due: float | None  # when its timer was to fire
    started_wall: float  # unix time


class Recorder:
    """Told of every step of every unit before the step's actions are performed."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._boot = tree.boot_id()
        self._processes: set[str] = set()  # units with a process on record
        self._entries: set[str] = set()  # units with an entry on record
        self._specs: dict[str, UnitSpec] = {}  # as they are on record
        self._dues: dict[str, tuple[int, float]] = {}  # unit -> its timer's id, and when that fires

    def adopted(self, unit: str, *, process: bool, entry: bool) -> None:
        """These are on record since an earlier daemon."""
        if process:
            self._processes.add(unit)
        if entry:
            self._entries.add(unit)

    def step(self, runner: Runner, before: Unit, event: Event, actions: Sequence[Action]) -> None:
        """A unit has changed, and its actions follow."""
        name, unit = runner.spec.name, runner.unit
        if isinstance(event, Spawned):
            record = ProcessRecord(name, event.attempt, event.pid, tree.start_ticks(event.pid) or 0, self._boot)
            self._journal.record_process(record)
            self._processes.add(name)
        elif before.live and not unit.live and name in self._processes:
            self._journal.forget_process(name)
            self._processes.discard(name)
        self.unit(runner, actions)  # before the fence: a unit that seems to serve still would be published again
        if unit.withdrawal != before.withdrawal and name in self._entries:
            self._journal.record_fence(name)
        if before.published and not unit.published and name in self._entries:
            self._journal.forget_entry(name)
            self._entries.discard(name)

    def unit(self, runner: Runner, actions: Sequence[Action] = ()) -> None:
        """Write a unit down as it is."""
        name = runner.spec.name
        self.spec(runner.spec)
        for action in actions:
            if isinstance(action, ArmTimer):
                self._dues[name] = action.timer, monotonic() + action.seconds
        timer, due = self._dues.get(name, (0, 0.0))
        value = {
            "unit": to_plain(runner.unit), "since": runner.changed_at, "boot": self._boot,
            "due": due if timer == runner.unit.timer else None, "started_wall": runner.started_wall,
        }  # fmt: skip
        self._journal.record_fact(UNIT, name, json.dumps(value, separators=(",", ":")))

    def spec(self, spec: UnitSpec) -> None:
        """What a unit's process was started with, or what is decided by from now on."""
        if self._specs.get(spec.name) is not spec:
            self._journal.record_fact(SPEC, spec.name, json.dumps(to_plain(spec), separators=(",", ":")))
            self._specs[spec.name] = spec

    def entry(self, unit: str, entry: Entry, ttl_seconds: float) -> None:
        """It is about to be registered."""
        self._journal.record_entry(unit, json.dumps(entry.to_json(), separators=(",", ":")), ttl_seconds)
        self._entries.add(unit)

    def forget(self, unit: str) -> None:
        """It is no unit any more."""
        for kind in (UNIT, SPEC):
            self._journal.record_fact(kind, unit, None)
        self._specs.pop(unit, None)
        self._dues.pop(unit, None)

    def forget_all(self) -> None:
        """All units are down, in order: a later start begins afresh."""
        self._journal.forget_facts(UNIT, SPEC)


def read_records(journal: Journal) -> dict[str, Record]:
    """What is on record of units, of this boot; of what cannot be read, by this version, there is nothing."""
    boot, specs, found = tree.boot_id(), journal.facts(SPEC), {}
    for name, text in journal.facts(UNIT).items():
        try:
            value = json.loads(text)
            if value["boot"] != boot:
                continue
            due = value["due"]
            found[name] = Record(
                from_plain(Unit, value["unit"]), from_plain(UnitSpec, json.loads(specs[name])),
                float(value["since"]), None if due is None else float(due), float(value["started_wall"]),
            )  # fmt: skip
        except (StoredError, ValueError, KeyError, TypeError):
            continue
    return found
