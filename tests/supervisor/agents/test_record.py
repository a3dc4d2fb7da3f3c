"""What a killed daemon leaves on record: written before it is done, forgotten when it is over."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry_client.model import Entry
from supervisor.agents.entry import unit_entry
from supervisor.agents.record import Recorder
from supervisor.core.events import (
    Action,
    CancelRequested,
    Drain,
    Drained,
    Event,
    Exited,
    Gone,
    Publish,
    Ready,
    Spawn,
    Spawned,
    StartRequested,
    StopRequested,
    Terminate,
    TreeEmpty,
    Withdraw,
)
from supervisor.core.model import Exit
from supervisor.core.restart import TokenBucket
from supervisor.core.warmup import Share
from supervisor.host import tree
from supervisor.host.journal import EntryRecord, Journal, ProcessRecord
from supervisor.host.runner import Runner, Runners
from tests.supervisor.agents.fleet import plain, service
from tests.supervisor.running import run

CART, DISK = service("cart"), plain("disk")
PID = os.getpid()
DOWN = Exit("killed by SIGTERM", signal=15)


class Book:
    """Units whose steps are recorded, and what the journal said when they were withdrawn."""

    def __init__(self, journal: Journal) -> None:
        self.journal, self.recorder = journal, Recorder(journal)
        performers = dict.fromkeys((Spawn, Publish, Withdraw, Drain, Terminate), self.perform)
        self.runners = Runners(performers, TokenBucket.full(600, 100, 0.0), self.recorder.step)
        self.at_withdrawal = list[list[EntryRecord]]()
        for spec in (CART, DISK):
            self.runners.add(spec, 0)

    def perform(self, runner: Runner, action: Action) -> None:
        if isinstance(action, Publish):
            self.recorder.entry(runner.spec.name, entry(action.attempt), 10.0)
        if isinstance(action, Withdraw):
            self.at_withdrawal.append(self.journal.entries())

    def post(self, name: str, *events: Event) -> None:
        for event in events:
            self.runners.post(name, event)

    def fenced(self) -> list[tuple[str, bool]]:
        return [(record.unit, record.fenced) for record in self.journal.entries()]


def entry(attempt: int) -> Entry:
    assert CART.service is not None
    return unit_entry("host-1", CART, CART.service, attempt, "2026-11-24T03:41:46.123Z", Share(100))


@contextmanager
def book(folder: Path) -> Iterator[Book]:
    made = Book(Journal(str(folder)))
    try:
        yield made
    finally:
        for runner in made.runners.by_name.values():
            if runner.timer is not None:
                runner.timer.cancel()
        made.journal.close()


def test_a_process_is_on_record_from_its_spawn_to_the_end_of_its_tree(tmp_path: Path) -> None:
    async def scenario() -> None:
        with book(tmp_path) as it:
            it.post("disk", StartRequested())
            assert it.journal.processes() == []
            it.post("disk", Spawned(1, PID))
            record = ProcessRecord("disk", 1, PID, tree.start_ticks(PID) or 0, tree.boot_id())
            assert it.journal.processes() == [record]
            it.post("disk", Ready(1, 1.0), StopRequested(), Exited(1, DOWN, 2.0, 0.5, leftovers=True))
            assert it.journal.processes() == [record], "something of it may live"
            it.post("disk", TreeEmpty(1, 3.0, 0.5))
            assert it.journal.processes() == []

    run(scenario())


def test_a_restart_has_only_its_new_process_on_record(tmp_path: Path) -> None:
    async def scenario() -> None:
        with book(tmp_path) as it:
            it.post("disk", StartRequested(), Spawned(1, PID), Ready(1, 1.0))
            it.post("disk", StopRequested(), StartRequested(), Exited(1, DOWN, 2.0, 0.5), Spawned(2, PID))
            assert [record.attempt for record in it.journal.processes()] == [2]

    run(scenario())


def test_an_entry_is_on_record_before_it_is_registered_and_until_it_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        with book(tmp_path) as it:
            it.post("cart", StartRequested(), Spawned(1, PID), Ready(1, 1.0))
            (record,) = it.journal.entries()
            assert (record.unit, record.ttl_seconds, record.fenced) == ("cart", 10.0, False)
            assert Entry.from_json(json.loads(record.value)) == entry(1)
            it.post("cart", StopRequested())
            assert [item.fenced for item in it.at_withdrawal[0]] == [True], "before anything was done to remove it"
            it.post("cart", Gone(1, 1))
            assert it.journal.entries() == []

    run(scenario())


def test_a_withdrawal_that_is_taken_back_is_renewed_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        with book(tmp_path) as it:
            it.post("cart", StartRequested(), Spawned(1, PID), Ready(1, 1.0), StopRequested())
            assert it.fenced() == [("cart", True)]
            it.post("cart", CancelRequested())
            assert it.fenced() == [("cart", False)]
            it.post("cart", StopRequested(), Gone(1, 1))
            assert it.fenced() == [("cart", True)]
            it.post("cart", Gone(1, 2), Drained(1), Exited(1, DOWN, 2.0, 0.5))
            assert (it.fenced(), it.journal.processes()) == ([], [])

    run(scenario())


def test_an_entry_outlives_its_process_on_record(tmp_path: Path) -> None:
    async def scenario() -> None:
        with book(tmp_path) as it:
            it.post("cart", StartRequested(), Spawned(1, PID), Ready(1, 1.0), Exited(1, DOWN, 2.0, 0.5))
            assert (it.journal.processes(), it.fenced()) == ([], [("cart", True)])
            it.post("cart", Gone(1, 1))
            assert it.fenced() == []

    run(scenario())


def test_what_an_earlier_daemon_has_recorded_is_forgotten_as_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        with book(tmp_path) as it:
            it.journal.record_process(ProcessRecord("cart", 1, PID, 1, "boot"))
            it.journal.record_entry("cart", "{}", 10.0)
            it.post("cart", StartRequested(), Ready(1, 1.0))
            it.recorder.adopted("cart", process=True, entry=True)
            it.recorder.adopted("disk", process=False, entry=False)
            it.post("cart", StopRequested(), Gone(1, 1), Drained(1), Exited(1, DOWN, 2.0, 0.5))
            assert (it.journal.processes(), it.journal.entries()) == ([], [])

    run(scenario())


def test_units_with_nothing_on_record_write_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        with book(tmp_path) as it:
            it.post("disk", StartRequested(), Exited(1, Exit("no such file", stage="exec", errno=2), 1.0, 0.5))
            it.post("disk", StopRequested())
            assert (it.journal.processes(), it.journal.entries()) == ([], [])

    run(scenario())
