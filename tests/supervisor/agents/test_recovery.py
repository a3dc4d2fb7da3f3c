"""What an earlier daemon has left is taken up: processes by who they are, entries before anything starts, and orders
until they have ended."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.core.events import (
    Publish,
    Spawn,
    Terminate,
    Withdraw,
)
from supervisor.core.model import Phase
from supervisor.host import tree
from supervisor.wire import Command
from tests.supervisor.agents.fleet import Fleet, plain, service, steps
from tests.supervisor.agents.later import (
    TTL,
    Later,
    Left,
    give_and_die,
    journal_of,
    leave_entry,
    record,
    turns,
)
from tests.supervisor.running import run


@pytest.fixture
def leave(tmp_path: Path) -> Iterator[Callable[..., Left]]:
    made = list[Left]()

    def start(unit: str, attempt: int, *, recorded: bool = True) -> Left:
        journal = journal_of(tmp_path)
        left = Left(journal.state_id(), unit, attempt)
        made.append(left)
        journal.record_attempts([(unit, attempt)])
        if recorded:
            record(journal, unit, attempt, left.pid)
        journal.close()
        return left

    yield start
    for left in made:
        left.end()


# Processes.


def test_a_living_process_is_taken_over_and_replaced_by_the_usual_way(
    tmp_path: Path, leave: Callable[..., Left]
) -> None:
    left = leave("web", 4)

    async def main() -> None:
        later = Later(tmp_path, [plain("web")])
        unit = later.unit("web")
        assert unit is not None
        assert (unit.phase, unit.live, unit.attempt, unit.pid) == (Phase.RUNNING, True, 4, left.pid)
        assert later.adopting.adopted == {"web": (4, left.pid, ())}
        later.go_on()
        assert (later.phase("web"), later.ordered(Spawn)) == (Phase.RUNNING, ["web"])
        unit = later.unit("web")
        assert unit is not None and unit.attempt == 5
        later.close()

    run(main())


def test_a_living_process_that_is_to_be_down_is_stopped(tmp_path: Path, leave: Callable[..., Left]) -> None:
    leave("web", 1)
    journal = journal_of(tmp_path)
    journal.record_wishes(["web"], up=False)
    journal.close()

    async def main() -> None:
        later = Later(tmp_path, [plain("web")])
        later.go_on()
        assert (later.phase("web"), later.ordered(Spawn)) == (Phase.STOPPED, [])
        later.close()

    run(main())


def test_a_process_that_was_not_written_down_is_found_by_its_marks(tmp_path: Path, leave: Callable[..., Left]) -> None:
    left = leave("web", 2, recorded=False)

    async def main() -> None:
        later = Later(tmp_path, [plain("web")])
        assert later.adopting.adopted == {"web": (2, left.pid, ())}
        later.close()

    run(main())


def test_all_attempts_that_live_are_taken_over_the_newest_leads(tmp_path: Path, leave: Callable[..., Left]) -> None:
    older, newer = leave("web", 2), leave("web", 3, recorded=False)

    async def main() -> None:
        later = Later(tmp_path, [plain("web")])
        assert later.adopting.adopted == {"web": (3, newer.pid, (older.pid,))}
        later.close()

    run(main())


@pytest.mark.parametrize("how", ["ticks", "boot", "zombie"])
def test_what_only_has_the_pid_of_a_recorded_process_is_not_taken_for_it(tmp_path: Path, how: str) -> None:
    other = subprocess.Popen(["/bin/sleep", "1000"], env={})
    journal = journal_of(tmp_path)
    journal.record_attempts([("web", 1)])
    ticks = tree.start_ticks(other.pid) or 0
    if how == "zombie":
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    record(journal, "web", 1, other.pid, ticks=ticks - (how == "ticks"), boot="b" if how == "boot" else "")
    journal.close()

    async def main() -> None:
        later = Later(tmp_path, [plain("web")])
        assert (later.adopting.adopted, later.journal.processes()) == ({}, [])
        later.go_on()
        assert later.ordered(Spawn) == ["web"]
        later.close()

    run(main())
    assert how == "zombie" or other.poll() is None
    other.kill()
    other.wait()


@pytest.mark.parametrize("name", ["web", "web:1", "odd:name:7x", "web:"])
def test_a_process_of_a_unit_that_is_not_configured_is_stopped_and_the_unit_forgotten(
    tmp_path: Path, leave: Callable[..., Left], name: str
) -> None:
    leave(name, 1)

    async def main() -> None:
        later = Later(tmp_path, [plain("other")])
        assert later.recovery.removed == [name]
        later.go_on()
        assert list(later.runners.by_name) == ["other"]
        later.close()

    run(main())


# Entries.


@pytest.mark.parametrize("order", ["", "start", "restart"])
def test_a_unit_is_started_only_when_the_entry_of_its_dead_process_has_gone(tmp_path: Path, order: str) -> None:
    async def earlier() -> None:
        fleet = Fleet(tmp_path, [service("web")])
        fleet.held = {Spawn}
        if order:
            getattr(fleet, order)("web")
        fleet.close()

    run(earlier())
    leave_entry(tmp_path, "web", 1)

    async def main() -> None:
        later = Later(tmp_path, [service("web")])
        assert (later.agents.adopted, list(later.agents.entries)) == (["web"], ["web"])
        later.go_on()
        assert (later.phase("web"), later.ordered(Spawn)) == (Phase.BACKOFF, [])
        assert later.agents.taken_out == [("web", 1)]
        later.answer("web", Withdraw(1, 1))
        assert (later.phase("web"), later.ordered(Spawn)) == (Phase.RUNNING, ["web"])
        later.close()

    run(main())


def test_a_unit_that_is_to_be_down_is_down_when_the_entry_of_its_dead_process_has_gone(tmp_path: Path) -> None:
    leave_entry(tmp_path, "web", 1)

    async def main() -> None:
        later = Later(tmp_path, [service("web", autostart=False)])
        later.go_on()
        assert later.phase("web") is Phase.EXPIRING
        later.answer("web", Withdraw(1, 1))
        assert (later.phase("web"), later.ordered(Spawn)) == (Phase.STOPPED, [])
        later.close()

    run(main())


def test_entries_of_a_registry_that_has_ended_with_the_daemon_are_not_waited_for(tmp_path: Path) -> None:
    leave_entry(tmp_path, "web", 1)

    async def main() -> None:
        later = Later(tmp_path, [service("web")], registry_forgot=True)
        assert (later.agents.entries, later.journal.entries()) == ({}, [])
        later.go_on()
        assert later.ordered(Spawn) == ["web"]
        later.close()

    run(main())


def test_a_recorded_entry_that_cannot_be_read_is_reported_and_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = journal_of(tmp_path)
    for name, value in {"a": "no JSON", "b": "[]", "c": '{"service": 1}'}.items():
        journal.record_entry(name, value, TTL)
    journal.close()

    async def main() -> None:
        later = Later(tmp_path, [])
        assert (later.agents.entries, later.journal.entries()) == ({}, [])
        later.close()

    run(main())
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 3


# Operations.


def test_an_open_restart_goes_on_and_says_so(tmp_path: Path) -> None:
    give_and_die(tmp_path, [service("web")], lambda fleet: fleet.restart("web"), Withdraw)

    async def main() -> None:
        later = Later(tmp_path, [service("web")])
        later.held = {Publish}
        later.go_on()
        restart = later.order("restart")
        assert (restart.state, "resume" in dict(steps(restart))) == ("running", True)
        later.release(Publish)
        assert restart.state == "succeeded"
        later.close()

    run(main())


def test_an_order_is_judged_by_what_happens_after_it_was_taken_up(tmp_path: Path, leave: Callable[..., Left]) -> None:
    def drain(fleet: Fleet) -> None:
        fleet.orders.drain(["web"], Command())
        fleet.maintenances.end("web")  # as if there had been no time to write it down

    give_and_die(tmp_path, [service("web")], drain, Withdraw)
    leave("web", 1)

    async def main() -> None:
        later = Later(tmp_path, [service("web")])
        later.go_on()
        drain = later.order("drain")
        assert (drain.state, drain.error) == ("succeeded", None)
        unit = later.unit("web")
        assert unit is not None and unit.drained and later.maintenances.of("web") is not None
        later.close()

    run(main())


def test_a_restart_ends_though_the_generation_that_it_began_with_was_never_written_down(tmp_path: Path) -> None:
    give_and_die(tmp_path, [plain("web")], lambda fleet: fleet.restart("web"), Spawn)

    async def main() -> None:
        later = Later(tmp_path, [plain("web")])
        later.go_on()
        unit = later.unit("web")
        assert unit is not None and unit.attempt == 1
        assert later.order("restart").state == "succeeded"
        later.close()

    run(main())


def test_a_rolling_restart_waits_for_what_the_new_daemon_replaces(tmp_path: Path, leave: Callable[..., Left]) -> None:
    specs = [service("web:0"), service("web:1")]

    def restart(fleet: Fleet) -> None:
        fleet.warming["web:0"] = "half of it"
        fleet.restart("web:0", "web:1")

    give_and_die(tmp_path, specs, restart)
    leave("web:0", 2)

    async def main() -> None:
        later = Later(tmp_path, specs)
        later.held = {Terminate}
        later.go_on()
        first, second = later.operations.latest(10)
        await turns()
        assert (first.state, second.state, later.phase("web:0")) == ("succeeded", "pending", Phase.STOPPING)
        later.release(Terminate)
        await turns()
        assert second.state == "succeeded"
        later.close()

    run(main())


@pytest.mark.parametrize(("wish", "ends"), [(True, "aborted"), (False, "succeeded")])
def test_only_a_stop_that_was_to_last_is_gone_on_with(
    tmp_path: Path, leave: Callable[..., Left], wish: bool, ends: str
) -> None:
    def stop(fleet: Fleet) -> None:
        fleet.orders.stop(["web"], Command(), remember=not wish)

    give_and_die(tmp_path, [service("web")], stop, Withdraw)
    leave("web", 1)

    async def main() -> None:
        later = Later(tmp_path, [service("web")])
        later.go_on()
        assert later.order("stop").state == ends
        assert later.phase("web") is (Phase.RUNNING if wish else Phase.STOPPED)
        later.close()

    run(main())


@pytest.mark.parametrize(("verb", "ends"), [("restart", "failed"), ("drain", "failed"), ("stop", "succeeded")])
@pytest.mark.parametrize("alive", [True, False], ids=["alive", "gone"])
def test_of_a_unit_that_is_not_configured_any_more_only_the_stop_comes_true(
    tmp_path: Path, leave: Callable[..., Left], verb: str, ends: str, alive: bool
) -> None:
    def give(fleet: Fleet) -> None:
        fleet.operations.launch([fleet.operations.add("web", verb, Command())])

    give_and_die(tmp_path, [service("web"), service("other")], give, Withdraw, Publish, Spawn)
    if alive:
        leave("web", 1)

    async def main() -> None:
        later = Later(tmp_path, [service("other")])
        later.go_on()
        assert (later.order(verb).state, list(later.runners.by_name)) == (ends, ["other"])
        later.close()

    run(main())


@pytest.mark.parametrize("verb", ["signal", "warm", "weight"])
def test_what_may_have_been_done_at_once_is_not_done_again(tmp_path: Path, verb: str) -> None:
    def give(fleet: Fleet) -> None:
        fleet.operations.add("web", verb, Command())
        fleet.operations.note()

    give_and_die(tmp_path, [service("web")], give)

    async def main() -> None:
        later = Later(tmp_path, [service("web")])
        later.go_on()
        operation = later.order(verb)
        assert operation.state == "failed" and "order it again" in operation.error
        later.close()

    run(main())
