"""What an earlier daemon has left is taken over as it is: processes, entries, phases, operations.

Run once, at the start. The rules:

- A unit goes on in the phase in which it is on record, with the same process, generation and weight; what the earlier
  daemon may have been about to do is done (`core/adoption.py`).
- Its processes are found by the journal's record (pid, start time and boot), and by the marks in their environment,
  for one may have been started and not been recorded any more. They are never doubled, and nobody else's is touched.
- A process of a unit of which nothing can be read (another version wrote it) goes the exit path, and the unit is
  started again if it is to be up.
- An entry that may be in the registry is renewed if its unit goes on serving; else it is waited for like any other
  before the unit's next process starts.
- An operation that had not begun begins now, or expires if its deadline has passed. One that had begun goes on where it
  was, or is ordered again, if its order may have been lost.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from registry_client.errors import RegistryError
from registry_client.model import Entry

from ..core import adoption, order
from ..core.events import (
    Action,
    ArmTimer,
    DrainRequested,
    Kill,
    RestartRequested,
    Spawned,
    StartRequested,
    StopRequested,
    Terminate,
    UndrainRequested,
    Withdraw,
)  # fmt: skip
from ..core.model import Exit, Phase, Unit, UnitSpec
from ..host import tree
from ..host.clock import monotonic, wall
from ..host.journal import Journal, ProcessRecord
from ..host.process import Processes
from ..host.runner import Runners
from .ledger import Ledger, Tracked
from .maintenance import Maintenances
from .operations import Operations
from .orders import Orders
from .record import Record, Recorder, read_records
from .registries import Registries
from .restart import RestartAgents

log = logging.getLogger("unitd.recovery")

LEFT = "an earlier unitd has left its process, of which nothing is known: it is taken out of traffic and ended"
ENDED = "its process ended while unitd was not there"
_LIFE = ("start", "stop", "restart")  # verbs that say whether a unit is to be up
_REGISTERS = ("start", "restart", "undrain")  # verbs that have ended when the registry has confirmed the unit
_AT_ONCE = ("signal", "warm", "weight")  # verbs that nobody can say of afterwards whether they were carried out
_RESTING = (Phase.RUNNING, Phase.STOPPED, Phase.FATAL)
_OF_THE_DEAD = (Withdraw, Terminate, Kill, ArmTimer)  # what is to be done for a unit whose process has ended meanwhile


@dataclass(frozen=True, slots=True)
class Tree:
    """What lives of a unit. `leader` is None if that has gone."""

    attempt: int
    leader: int | None
    others: tuple[int, ...] = ()
    ticks: int | None = None  # when the leader began


class Recovery:
    """Brings all units into being, those of an earlier daemon as it has left them."""

    def __init__(
        self,
        journal: Journal,
        runners: Runners,
        processes: Processes,
        recorder: Recorder,
        maintenances: Maintenances,
        registries: Registries,
        restart_agents: RestartAgents,
        on_adopted: Callable[[str], None] = lambda unit: None,
    ) -> None:
        """`on_adopted` is told of each unit that goes on with its process, before anything is done for it."""
        self._journal, self._runners, self._processes, self._recorder = journal, runners, processes, recorder
        self._maintenances, self._registries, self._restart_agents = maintenances, registries, restart_agents
        self._on_adopted = on_adopted
        self._alive: set[str] = set()  # units that were taken over with processes of which nothing is known
        self._resumed: dict[str, tuple[Action, ...]] = {}  # units that go on as they were, and what is done for them
        self._spawned: dict[str, Spawned] = {}  # of which the earlier daemon has not written that they were
        self.removed: list[str] = []  # units that are not in the configuration any more, and still live

    @property
    def adopted(self) -> int:
        """How many units go on with the process that they had."""
        return sum(self._runners.by_name[name].unit.live for name in self._resumed)

    def add_units(self, specs: Mapping[str, UnitSpec], attempts: Mapping[str, int], *, registry_forgot: bool) -> None:
        """Make all units. `registry_forgot`: the registry has ended with the earlier daemon, and its entries too."""
        records, trees = read_records(self._journal), _living_trees(self._journal)
        entries = {} if registry_forgot else self._entries()
        for name, spec in specs.items():
            record = records.get(name)
            bound = record is not None and (record.unit.live or record.unit.published)
            drained = self._maintenances.of(name) is not None
            self._runners.add(record.spec if record and bound else spec, attempts.get(name, 0), drained=drained)
        kept = {name for name, record in records.items() if record.unit.live or record.unit.published}
        for name in sorted((kept | trees.keys() | entries.keys()) - specs.keys()):
            attempt = max(attempts.get(name, 0), trees[name].attempt if name in trees else 0)
            self._add_removed(name, records.get(name), attempt)
        recorded = {record.unit: record.attempt for record in self._journal.processes()}
        for name, record in records.items():
            if name in self._runners.by_name:
                self._resume(name, record, trees.get(name), recorded.get(name), name in entries)
        for name, found in trees.items():
            if name not in self._resumed:
                self._take_over(name, found, published=name in entries)
        self._forget_what_is_over(trees, entries)
        for name, (entry, ttl_seconds) in entries.items():
            self._recorder.adopted(name, process=False, entry=True)
            self._registries.adopt(name, entry, ttl_seconds)
            self._restart_agents.adopt(name)

    def _entries(self) -> dict[str, tuple[Entry, float]]:
        found = {}
        for record in self._journal.entries():
            try:
                found[record.unit] = Entry.from_json(json.loads(record.value)), record.ttl_seconds
            except (ValueError, RegistryError) as error:
                log.error("%s: cannot read what was recorded of its registry entry: %s", record.unit, error)
        return found

    def _forget_what_is_over(self, trees: Mapping[str, Tree], entries: Mapping[str, object]) -> None:
        for process in self._journal.processes():
            if process.unit not in trees and process.unit not in self._resumed:
                self._journal.forget_process(process.unit)
        for entry in self._journal.entries():
            if entry.unit not in entries:
                self._journal.forget_entry(entry.unit)

    def _add_removed(self, name: str, record: Record | None, attempt: int) -> None:
        group, _, number = name.partition(":")
        place = int(number) if number.isdecimal() else 0  # the name is what some process has in its environment
        unknown = UnitSpec(name, group, place, ("(not in the configuration)",))
        self._runners.add(record.spec if record is not None else unknown, attempt)
        self.removed.append(name)

    def _resume(self, name: str, record: Record, found: Tree | None, recorded: int | None, published: bool) -> None:
        """Go on as it was; or not, if that cannot be (then it is taken over, or new)."""
        unit, spec = record.unit, self._runners.by_name[name].spec
        if unit.phase is Phase.WAITING or (found is not None and (not unit.live or found.attempt != unit.attempt)):
            return
        spawned = found is not None or recorded == unit.attempt
        leader = found.leader if found is not None else None
        if unit.live and (spawned or unit.phase is not Phase.STARTING):
            known = unit.last_exit if unit.pid is None and unit.phase is not Phase.STARTING else None
            if leader is None and known is None:
                known = Exit(ENDED, wall=wall())
            others = found.others if found is not None else ()
            self._processes.adopt(spec, unit.attempt, leader, others, known, found.ticks if found is not None else None)
            if unit.phase is Phase.STARTING and unit.pid is None and leader is not None:
                self._spawned[name] = Spawned(unit.attempt, leader)
        now = monotonic()
        left = None if record.due is None else max(0.0, record.due - now)
        unit, actions = adoption.resume(
            unit, spec, spawned=spawned, left_seconds=left, elapsed=max(0.0, now - record.since)
        )
        if unit.live and spawned and leader is None:
            actions = tuple(action for action in actions if isinstance(action, _OF_THE_DEAD))
        started_wall = record.started_wall or wall()
        self._runners.adopt(name, unit, started_wall, record.since)
        self._recorder.adopted(name, process=unit.live, entry=published)
        self._resumed[name] = actions
        if unit.live:
            log.info("%s: goes on (%s, generation %d, pid %s)", name, unit.phase.value, unit.attempt, leader)

    def _take_over(self, name: str, found: Tree, *, published: bool) -> None:
        runner = self._runners.by_name[name]
        attempt = max(found.attempt, runner.unit.attempt)
        age = tree.age_seconds(found.leader) if found.leader is not None else None
        unit = Unit(
            phase=Phase.RUNNING, wanted=True, attempt=attempt, live=True, pid=found.leader, ready_at=monotonic(),
            published=published, drained=runner.unit.drained, reason=LEFT,
        )  # fmt: skip
        self._processes.adopt(runner.spec, attempt, found.leader, found.others, ticks=found.ticks)
        self._runners.adopt(name, unit, wall() - (age or 0.0))
        self._recorder.adopted(name, process=True, entry=published)
        self._alive.add(name)
        log.warning("%s: %s (generation %d, pid %s)", name, LEFT, attempt, found.leader)

    # Going on.

    def go_on(self, wishes: Mapping[str, bool], ledger: Ledger, operations: Operations, orders: Orders) -> None:
        """Order of every unit what is wanted of it, and take up the operations that were open."""
        specs = {name: runner.spec for name, runner in self._runners.by_name.items()}
        to_be_up = {name for name, spec in specs.items() if self._is_to_be_up(spec, wishes)}
        opened = [item for item in ledger.load() if not self._refuse(item, to_be_up, operations)]
        under_way = [item for item in opened if self._is_under_way(item)]
        for tracked in under_way:
            operations.go_on(tracked)
        for name, actions in self._resumed.items():
            if self._runners.by_name[name].unit.live:
                self._on_adopted(name)
            self._runners.perform(name, actions)
            if name in self._spawned:
                self._runners.post(name, self._spawned[name])
        ordered = {item.operation.unit for item in opened if item.operation.verb in _LIFE}
        for wave in order.start_order(specs):
            for name in wave:
                self._order(name, up=name in to_be_up, ordered=name in ordered, orders=orders)
        for tracked in opened:
            if tracked not in under_way:
                self._take_up(tracked, operations)

    def _is_to_be_up(self, spec: UnitSpec, wishes: Mapping[str, bool]) -> bool:
        return wishes.get(spec.name, spec.autostart) and spec.name not in self.removed

    def _is_under_way(self, tracked: Tracked) -> bool:
        """What it has ordered is what its unit does; else that may have been lost, and is ordered again."""
        verb, name = tracked.operation.verb, tracked.operation.unit
        if not tracked.begun or name not in self._resumed:
            return False
        unit = self._runners.by_name[name].unit
        if verb in ("drain", "undrain"):
            return unit.drained is (verb == "drain")
        if verb == "restart":
            return unit.wanted and (unit.attempt != tracked.attempt or unit.phase not in _RESTING)
        return unit.wanted is (verb == "start")

    def _refuse(self, tracked: Tracked, to_be_up: Collection[str], operations: Operations) -> bool:
        """End an operation that cannot be gone on with, or must not be."""
        operation, verb = tracked.operation, tracked.operation.verb
        if verb in _AT_ONCE:
            operations.fail(operation, "unitd ended before it could write down whether this was done; order it again")
        elif verb == "stop" and operation.unit in to_be_up:  # of a shutdown: who orders a stop wants it to last
            operations.abort(operation, "unitd has ended and begun again meanwhile, and the unit is to be up")
        elif verb != "stop" and operation.unit in self.removed:
            operations.fail(operation, "the unit was removed from the configuration")
        return operation.done

    def _order(self, name: str, *, up: bool, ordered: bool, orders: Orders) -> None:
        """What is wanted of a unit. What an open operation orders (`ordered`) comes later, and takes its place."""
        runner = self._runners.by_name[name]
        if name in self._alive:
            self._runners.post(name, RestartRequested() if up else StopRequested())
        elif name in self._resumed:
            self._order_resumed(name, up=up, ordered=ordered, orders=orders)
        elif self._registries.entry(name) is not None:
            self._wait_for_entry(name, up=up)
        elif up and not ordered:
            self._runners.post(name, StartRequested(orders.waits_for(runner.spec)))

    def _order_resumed(self, name: str, *, up: bool, ordered: bool, orders: Orders) -> None:
        """Only what may not have reached it. A unit that has ended, or was given up, stays so."""
        runner = self._runners.by_name[name]
        unit = runner.unit
        drained = self._maintenances.of(name) is not None
        if drained is not unit.drained:
            self._runners.post(name, DrainRequested() if drained else UndrainRequested())
        over = unit.phase is Phase.FATAL or (unit.phase is Phase.STOPPED and unit.crashed)
        if up and not unit.wanted and not ordered and not over:
            self._runners.post(name, StartRequested(orders.waits_for(runner.spec)))
        elif not up and unit.wanted and not ordered:
            self._runners.post(name, StopRequested())

    def _wait_for_entry(self, name: str, *, up: bool) -> None:
        """Its process has ended while nobody looked; the entry must go before the next one may start."""
        runner = self._runners.by_name[name]
        unit = Unit(
            phase=Phase.BACKOFF if up else Phase.EXPIRING, wanted=up, attempt=runner.unit.attempt, withdrawal=1,
            published=True, drained=runner.unit.drained, reason=ENDED,
        )  # fmt: skip
        self._runners.adopt(name, unit, wall())
        self._restart_agents.take_out(runner.spec, unit.attempt, unit.withdrawal)

    def _take_up(self, tracked: Tracked, operations: Operations) -> None:
        operation, runner = tracked.operation, self._runners.by_name.get(tracked.operation.unit)
        if runner is None and operation.verb == "stop":
            operations.skip(operation, "nothing of the unit is there any more")
            return
        if runner is not None:
            # An attempt that it was to see the end of may never have been written down, and its number be used now.
            tracked.attempt = min(tracked.attempt, runner.unit.attempt)
            # Whatever was confirmed to the earlier daemon is not in the registry any more, or is taken out now.
            tracked.registers = operation.verb in _REGISTERS and runner.spec.service is not None
        operations.take_up(tracked)


def _living_trees(journal: Journal) -> dict[str, Tree]:
    """By unit: what lives of its newest attempt, and of older ones."""
    boot = tree.boot_id()
    recorded = {
        record.unit: record
        for record in journal.processes()
        if record.boot == boot and tree.start_ticks(record.pid) == record.ticks and not _is_zombie(record.pid)
    }
    marked: dict[str, dict[int, list[int]]] = {}
    for (unit, attempt), pids in tree.leftovers(journal.state_id()).items():
        marked.setdefault(unit, {})[attempt] = pids
    return {
        name: _tree(marked.get(name, {}), recorded.get(name))
        for name in sorted({*recorded, *marked})
    }  # fmt: skip


def _tree(by_attempt: Mapping[int, list[int]], record: ProcessRecord | None) -> Tree:
    newest = max((*by_attempt, record.attempt if record is not None else 0))
    pids = [pid for pids in by_attempt.values() for pid in pids]
    if record is not None and record.attempt == newest:
        return Tree(newest, record.pid, tuple(pid for pid in pids if pid != record.pid), record.ticks)
    # It was started, and there was no time to write that down.
    places = [place for pid in by_attempt.get(newest, ()) if (place := tree.stat(pid)) is not None]
    leader = next((place.pid for place in places if place.session == place.pid), None)
    ticks = tree.start_ticks(leader) if leader is not None else None
    return Tree(newest, leader, tuple(pid for pid in pids if pid != leader), ticks)


def _is_zombie(pid: int) -> bool:
    place = tree.stat(pid)
    return place is None or place.state in "ZX"
