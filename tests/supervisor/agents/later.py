"""A daemon that comes after another one on the same folder, and what that one may have left there."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from registry_client.model import Entry
from supervisor.agents.record import Recorder
from supervisor.agents.recovery import Recovery
from supervisor.core.events import Action
from supervisor.core.model import Exit, UnitSpec
from supervisor.host import tree
from supervisor.host.journal import Journal, ProcessRecord
from tests.supervisor.agents.fleet import FakeProcesses, Fleet
from tests.supervisor.running import run

TTL = 10.0


class Agents:
    """The heartbeat and restart agents, as far as a new daemon tells them of what there was."""

    def __init__(self) -> None:
        self.entries = dict[str, Entry]()
        self.adopted, self.taken_out = list[str](), list[tuple[str, int]]()

    def adopt(self, unit: str, entry: Entry | None = None, ttl_seconds: float = 0.0) -> None:
        if entry is None:
            self.adopted.append(unit)
        else:
            self.entries[unit] = entry

    def entry(self, unit: str) -> Entry | None:
        return self.entries.get(unit)

    def take_out(self, spec: UnitSpec, attempt: int, withdrawal: int) -> None:
        self.taken_out.append((spec.name, attempt))


class Adopting(FakeProcesses):
    """Notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.adopted = dict[str, tuple[int, int | None, tuple[int, ...]]]()

    def adopt(
        self,
        spec: UnitSpec,
        attempt: int,
        leader: int | None,
        others: Sequence[int],
        known: Exit | None = None,
        ticks: int | None = None,
    ) -> None:
        self.adopted[spec.name] = attempt, leader, tuple(others)


class Later(Fleet):
    """A daemon that comes after another one on the same folder."""

    def __init__(self, folder: Path, specs: Sequence[UnitSpec], *, registry_forgot: bool = False) -> None:
        super().__init__(folder)
        self.agents, self.adopting = Agents(), Adopting()
        agents = cast(Any, self.agents)
        self.recovery = Recovery(
            self.journal, self.runners, cast(Any, self.adopting), Recorder(self.journal), self.maintenances, agents,
            agents,
        )  # fmt: skip
        named = {spec.name: spec for spec in specs}
        self.recovery.add_units(named, self.journal.attempts(), registry_forgot=registry_forgot)
        self.applier.leave(self.recovery.removed)

    def go_on(self) -> None:
        self.recovery.go_on(self.journal.wishes(), self.ledger, self.operations, self.orders)

    def order(self, verb: str) -> Any:
        """The only operation of that verb."""
        [found] = [each for each in self.operations.latest(100) if each.verb == verb]
        return found


class Left:
    """A process that an earlier daemon has started, with its marks."""

    def __init__(self, state_id: str, unit: str, attempt: int) -> None:
        marks = {"UNITD_UNIT": unit, "UNITD_GENERATION": str(attempt), "UNITD_STATE": state_id}
        self.process = subprocess.Popen(["/bin/sleep", "1000"], env=marks, start_new_session=True)
        self.pid = self.process.pid

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def journal_of(folder: Path) -> Journal:
    return Journal(str(folder / "state"))


def record(journal: Journal, unit: str, attempt: int, pid: int, *, ticks: int | None = None, boot: str = "") -> None:
    ticks = tree.start_ticks(pid) if ticks is None else ticks
    assert ticks is not None
    journal.record_process(ProcessRecord(unit, attempt, pid, ticks, boot or tree.boot_id()))


def entry_of(unit: str, generation: int) -> Entry:
    return Entry(
        service=unit.partition(":")[0], instance=f"here/{unit}", node="here", unit=unit, address="127.0.0.1", port=9080,
        generation=generation, started_at="2026-11-24T08:00:00.000Z",
    )  # fmt: skip


def leave_entry(folder: Path, unit: str, generation: int) -> None:
    journal = journal_of(folder)
    journal.record_attempts([(unit, generation)])
    journal.record_entry(unit, json.dumps(entry_of(unit, generation).to_json()), TTL)
    journal.close()


def give_and_die(folder: Path, specs: Sequence[UnitSpec], give: Callable[[Fleet], object], *held: type[Action]) -> None:
    """An order that an earlier daemon was in the middle of: what `held` names was not answered any more."""

    async def main() -> None:
        fleet = Fleet(folder, specs)
        fleet.up(*(spec.name for spec in specs))
        fleet.held = set(held)
        give(fleet)
        await turns()
        fleet.close()

    run(main())


async def turns() -> None:
    """A few turns of the loop: what was planned for the next one is done, and what that has planned."""
    for _ in range(5):
        await asyncio.sleep(0)
