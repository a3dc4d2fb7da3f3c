"""Writes down what a unit's life leaves in the world, before it does: its living process and its registry entry."""

from __future__ import annotations

import json

from registry_client.model import Entry

from ..core.events import Event, Spawned
from ..core.model import Unit
from ..host import tree
from ..host.journal import Journal, ProcessRecord
from ..host.runner import Runner


class Recorder:
    """Told of every step of every unit before the step's actions are performed."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._boot = tree.boot_id()
        self._processes: set[str] = set()  # units with a process on record
        self._entries: set[str] = set()  # units with an entry on record

    def adopted(self, unit: str, *, process: bool, entry: bool) -> None:
        """These are on record since an earlier daemon."""
        if process:
            self._processes.add(unit)
        if entry:
            self._entries.add(unit)

    def step(self, runner: Runner, before: Unit, event: Event) -> None:
        """A unit has changed, and its actions follow."""
        name, unit = runner.spec.name, runner.unit
        if isinstance(event, Spawned):
            record = ProcessRecord(name, event.attempt, event.pid, tree.start_ticks(event.pid) or 0, self._boot)
            self._journal.record_process(record)
            self._processes.add(name)
        elif before.live and not unit.live and name in self._processes:
            self._journal.forget_process(name)
            self._processes.discard(name)
        if unit.withdrawal != before.withdrawal and name in self._entries:
            self._journal.record_fence(name)
        if before.published and not unit.published and name in self._entries:
            self._journal.forget_entry(name)
            self._entries.discard(name)

    def entry(self, unit: str, entry: Entry, ttl_seconds: float) -> None:
        """It is about to be registered."""
        self._journal.record_entry(unit, json.dumps(entry.to_json(), separators=(",", ":")), ttl_seconds)
        self._entries.add(unit)
