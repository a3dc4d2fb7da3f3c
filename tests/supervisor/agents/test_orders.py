"""Orders: which units a verb touches, in which order, and what can be called off."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from supervisor.core.events import Drain, Drained, Publish, Resume, Spawn, StartRequested, Terminate, Withdraw
from supervisor.core.model import DrainSpec, Hook, Phase, UnitSpec
from supervisor.errors import UnknownUnit, WireError
from supervisor.host.clock import iso, wall
from supervisor.wire import Command
from tests.supervisor.agents.fleet import Fleet, plain, service, steps
from tests.supervisor.running import run, until

SHOP = (
    service("cart:0", "database"),
    service("cart:1", "database"),
    plain("database", "disk"),
    plain("disk"),
    plain("clock"),
)


@asynccontextmanager
async def shop(folder: Path, *specs: UnitSpec) -> AsyncIterator[Fleet]:
    made = Fleet(folder, specs or SHOP)
    try:
        yield made
    finally:
        made.close()


def all_up(it: Fleet) -> None:
    it.up("disk", "database", "cart:0", "cart:1", "clock")


# Choosing.


def test_names_groups_patterns_and_all_choose_units_in_the_order_of_the_configuration(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            assert it.orders.select(["disk", "cart"]) == ["cart:0", "cart:1", "disk"]
            assert it.orders.select(["cart:*"]) == ["cart:0", "cart:1"]
            assert it.orders.select(["d*"]) == ["database", "disk"]
            assert it.orders.select(["all"]) == [spec.name for spec in SHOP]
            with pytest.raises(UnknownUnit) as caught:
                it.orders.select(["dissk"])
            assert caught.value.nearest == "disk"

    run(scenario())


# Starting.


def test_a_start_pulls_in_what_the_unit_depends_on_and_waits_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.held = {Spawn}
            operations = it.start("cart:0")
            assert [operation.unit for operation in operations] == ["disk", "database", "cart:0"]
            assert it.ordered(Spawn) == ["disk"]
            assert it.phase("cart:0") is it.phase("database") is Phase.WAITING
            assert steps(operations[2]) == [("wait", "running")]
            it.held = set()
            it.answer("disk", Spawn(1))
            assert it.ordered(Spawn) == ["disk", "database", "cart:0"]
            assert {operation.state for operation in operations} == {"succeeded"}
            assert it.phase("cart:1") is Phase.STOPPED, "nobody asked for it"

    run(scenario())


def test_dependencies_that_run_are_left_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("disk", "database")
            assert [operation.unit for operation in it.start("cart:0")] == ["cart:0"]
            assert it.ordered(Spawn) == ["cart:0"]

    run(scenario())


def test_a_unit_waits_for_every_process_of_the_group_that_it_depends_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path, plain("web", "cart"), service("cart:0"), service("cart:1")) as it:
            it.held = {Spawn}
            it.start("web")
            it.answer("cart:0", Spawn(1))
            assert it.phase("web") is Phase.WAITING
            it.held = set()
            it.answer("cart:1", Spawn(1))
            assert it.phase("web") is Phase.RUNNING

    run(scenario())


def test_who_waits_for_a_unit_that_is_given_up_is_told_so_and_still_starts_when_it_comes(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("disk")
            it.held = {Spawn}
            database, cart = it.start("cart:0")
            it.exits("database", stage="exec", errno=2, can_heal=False, reason="no such file: /db")
            assert database.state == cart.state == "failed"
            assert cart.error is not None
            assert cart.error.startswith("cannot start: database is not ready: no such file: /db")
            it.held = set()
            it.start("database")
            assert it.phase("cart:0") is Phase.RUNNING

    run(scenario())


def test_what_a_unit_waits_for_is_looked_at_when_its_start_begins(tmp_path: Path) -> None:
    """It waited for another operation, and its dependency came up meanwhile."""

    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("clock")
            it.held = {Terminate}
            (stop,) = it.stop("clock")
            operations = it.orders.start(["database"], Command(), after=[stop.id])
            it.runners.post("disk", StartRequested())
            assert it.phase("disk") is Phase.RUNNING
            it.release(Terminate)
            await until(lambda: all(operation.done for operation in operations))
            assert it.phase("database") is Phase.RUNNING

    run(scenario())


def test_a_start_is_remembered_with_its_dependencies(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.start("database")
            assert it.journal.wishes() == {"database": True, "disk": True}
            it.orders.start(["clock"], Command(), remember=False)
            assert "clock" not in it.journal.wishes()

    run(scenario())


# Stopping.


def test_a_stop_takes_along_what_depends_on_the_unit_and_that_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            all_up(it)
            it.held = {Withdraw}
            operations = {operation.unit: operation for operation in it.stop("disk")}
            assert list(operations) == ["cart:1", "cart:0", "database", "disk"]
            assert it.ordered(Withdraw) == ["cart:1", "cart:0"]
            assert it.ordered(Terminate) == []
            assert operations["disk"].state == operations["database"].state == "pending"
            it.release(Withdraw)
            await until(lambda: operations["disk"].done)
            assert it.ordered(Terminate) == ["cart:1", "cart:0", "database", "disk"]
            assert {operation.state for operation in operations.values()} == {"succeeded"}
            assert it.phase("clock") is Phase.RUNNING
            assert it.journal.wishes() == {"cart:0": False, "cart:1": False, "database": False, "disk": False}

    run(scenario())


def test_dependents_that_are_down_are_not_touched(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("disk", "database", "cart:0")
            assert [operation.unit for operation in it.stop("database")] == ["cart:0", "database"]
            assert "cart:1" not in it.journal.wishes()

    run(scenario())


def test_stopping_several_units_some_of_which_are_down_already_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("disk", "database")
            operations = it.stop("cart:0", "cart:1", "database", "disk", "clock")
            await until(lambda: all(operation.done for operation in operations))
            assert {operation.state for operation in operations} == {"succeeded"}
            assert it.phase("database") is it.phase("disk") is Phase.STOPPED
            assert [steps(item) for item in operations if item.unit == "cart:0"] == [[("none", "skipped")]]

    run(scenario())


def test_a_stop_of_these_units_only_leaves_what_depends_on_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            all_up(it)
            operations = it.orders.stop(["disk"], Command(), remember=False, only=True)
            assert [operation.unit for operation in operations] == ["disk"]
            assert it.phase("database") is Phase.RUNNING
            assert it.journal.wishes() == {}

    run(scenario())


def test_when_a_dependent_cannot_be_stopped_what_it_depends_on_is_stopped_all_the_same(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("disk", "database", "cart:0")
            it.held = {Withdraw}
            cart, database = it.stop("database")
            it.unconfirm("cart:0")
            assert cart.state == "failed"
            await until(lambda: database.done)
            assert database.state == "succeeded"

    run(scenario())


# Restarting.


def test_only_processes_of_one_service_wait_for_each_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        specs = (service("cart:0"), service("cart:1"), service("pay"), plain("job:0"), plain("job:1"))
        async with shop(tmp_path, *specs) as it:
            it.up(*(spec.name for spec in specs))
            it.held = {Withdraw, Terminate}
            it.restart(*(spec.name for spec in specs))
            assert it.ordered(Withdraw) == ["cart:0", "pay"]
            assert it.ordered(Terminate) == ["job:0", "job:1"]
            assert it.journal.wishes() == {}

    run(scenario())


def test_a_restart_leaves_what_depends_on_the_unit_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            all_up(it)
            assert [operation.unit for operation in it.restart("database")] == ["database"]
            assert it.ordered(Terminate) == ["database"]

    run(scenario())


# Signals.


def test_a_signal_goes_to_each_running_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("clock")
            sent, failed = it.orders.signal(["clock", "disk"], Command(command_id="x", parameters={"signal": "HUP"}))
            assert it.processes.sent == [("clock", signal.SIGHUP)]
            assert (sent.state, sent.steps[0].detail) == ("succeeded", "sent SIGHUP")
            assert (failed.state, failed.error) == ("failed", "cannot send SIGHUP: it has no running process")
            assert it.operations.known("x") == [sent, failed]

    run(scenario())


def test_a_signal_aborts_no_operation_under_way(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.held = {Spawn}
            (start,) = it.start("clock")
            it.orders.signal(["clock"], Command(parameters={"signal": 1}))
            assert start.state == "running"
            it.release(Spawn)
            assert start.state == "succeeded"

    run(scenario())


# Deadlines.


@pytest.mark.parametrize(
    ("deadline", "words"), [("tomorrow", "must be ISO 8601"), ("2027-01-01T00:00:00", "names no time zone")]
)
def test_a_command_that_is_refused_changes_nothing_and_is_not_remembered(
    tmp_path: Path, deadline: str, words: str
) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            all_up(it)
            for order in (it.start, it.stop, it.restart):
                with pytest.raises(WireError, match=words):
                    order("clock", "database", deadline=deadline, command_id="late")
            assert it.journal.wishes() == {}
            assert it.operations.known("late") is None
            assert it.operations.latest(10) == []
            assert it.done == []

    run(scenario())


# Calling off.


def test_what_has_not_begun_can_be_called_off(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("disk", "database", "cart:0", "cart:1")
            it.held = {Publish}
            _, second = it.restart("cart:0", "cart:1")
            assert it.orders.abort(second) is None
            assert (second.state, second.error) == ("aborted", "aborted")
            assert it.phase("cart:1") is Phase.RUNNING

    run(scenario())


def test_a_start_that_waits_for_its_dependencies_can_be_called_off(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.held = {Spawn}
            _, database = it.start("database")
            assert it.phase("database") is Phase.WAITING
            assert it.orders.abort(database) is None
            assert database.state == "aborted"
            assert it.phase("database") is Phase.STOPPED
            it.release(Spawn)
            assert it.phase("database") is Phase.STOPPED

    run(scenario())


def test_a_start_under_way_can_be_called_off_and_is_stopped(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.held = {Spawn}
            (start,) = it.start("clock")
            assert it.orders.abort(start) is None
            assert start.state == "aborted"
            assert it.phase("clock") is Phase.STOPPED

    run(scenario())


def test_a_withdrawal_can_be_called_off_and_the_unit_serves_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("disk", "database", "cart:0")
            it.held = {Withdraw}
            (restart,) = it.restart("cart:0")
            assert it.orders.abort(restart) is None
            assert restart.state == "aborted"
            assert it.phase("cart:0") is Phase.RUNNING
            assert it.ordered(Publish) == ["cart:0"]
            assert it.ordered(Drain) == it.ordered(Terminate) == []

    run(scenario())


def test_a_start_that_lacks_only_the_registrys_word_is_ended_and_the_unit_runs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path, service("cart")) as it:
            it.held = {Publish}
            (start,) = it.start("cart")
            assert it.orders.abort(start) is None
            assert (start.state, start.error) == ("aborted", "aborted; the unit runs")
            assert it.phase("cart") is Phase.RUNNING

    run(scenario())


def test_who_drains_and_was_told_nothing_can_be_called_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path, service("cart")) as it:
            it.up("cart")
            it.held = {Drain}
            (stop,) = it.stop("cart")
            assert it.orders.abort(stop) is None
            assert stop.state == "aborted"
            assert it.phase("cart") is Phase.RUNNING
            assert it.ordered(Publish) == ["cart"]

    run(scenario())


@pytest.mark.parametrize("held", [Drain, Terminate])
def test_what_was_told_to_stop_cannot_be_called_back(tmp_path: Path, held: type[Drain | Terminate]) -> None:
    async def scenario() -> None:
        async with shop(tmp_path, service("cart", drain=DrainSpec(notify=Hook(signal=10)))) as it:
            it.up("cart")
            it.held = {held}
            (stop,) = it.stop("cart")
            refused = it.orders.abort(stop)
            assert refused == "its unit was told to stop already; that cannot be called back"
            assert stop.state == "running"
            it.release(held)
            assert stop.state == "succeeded"

    run(scenario())


def test_what_has_ended_cannot_be_called_off(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            (start,) = it.start("clock")
            assert it.orders.abort(start) == "it has succeeded already"

    run(scenario())


# Out of traffic and back.


def test_a_drain_takes_a_unit_out_of_traffic_and_remembers_why(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path, service("cart")) as it:
            it.up("cart")
            it.held = {Drain}
            (drain,) = it.drain("cart", reason="disk swap", issued_by="ann", parameters={"owner": "ops"})
            assert (drain.state, it.phase("cart")) == ("running", Phase.DRAINING)
            kept = it.maintenances.of("cart")
            assert kept is not None
            assert (kept.owner, kept.reason, kept.until) == ("ops", "disk swap", None)
            it.release(Drain)
            assert drain.state == "succeeded"
            assert it.runners.by_name["cart"].unit.drained
            assert it.ordered(Terminate) == []

    run(scenario())


def test_an_undrain_brings_it_back_and_ends_when_the_registry_has_confirmed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path, service("cart", drain=DrainSpec(Hook(signal=10), Hook(signal=12)))) as it:
            it.up("cart")
            it.drain("cart")
            it.held = {Publish}
            (undrain,) = it.undrain("cart")
            assert it.ordered(Resume) == it.ordered(Publish) == ["cart"]
            assert (undrain.state, it.maintenances.of("cart")) == ("running", None)
            it.release(Publish)
            assert undrain.state == "succeeded"
            (again,) = it.undrain("cart")
            assert (again.state, again.steps[0].detail) == ("succeeded", "it is not drained")

    run(scenario())


def test_what_is_wrong_with_a_drain_is_said_before_anything_is_done(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            all_up(it)
            for names, parameters, words in (
                (["cart:0", "disk"], {}, "cannot drain disk: it has neither a service nor a drain table"),
                (["cart:0"], {"for_seconds": -1}, "for_seconds must be a number"),
                (["cart:0"], {"until": "2001-01-01T00:00:00Z"}, "that is past"),
            ):
                with pytest.raises(WireError, match=words):
                    it.orders.drain(names, Command(parameters=parameters))
            assert (it.done, it.operations.latest(9)) == ([], [])

    run(scenario())


def test_a_drain_with_an_end_ends_by_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path, service("cart")) as it:
            it.up("cart")
            (drain,) = it.drain("cart", parameters={"for_seconds": 0.05})
            assert drain.state == "succeeded"
            await until(lambda: it.ordered(Publish) == ["cart"])
            assert [item.verb for item in it.operations.latest(9)] == ["drain", "undrain"]
            assert it.maintenances.of("cart") is None

    run(scenario())


def test_an_end_is_a_moment_and_not_counted_from_whenever_the_drain_begins(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path, service("cart")) as it:
            it.up("cart")
            before = wall()
            it.drain("cart", parameters={"for_seconds": 600})
            kept = it.maintenances.of("cart")
            assert kept is not None and kept.until is not None
            assert before + 599 < kept.until < wall() + 600.1
            it.drain("cart", parameters={"until": iso(before + 1000)})
            kept = it.maintenances.of("cart")
            assert kept is not None and kept.until == pytest.approx(before + 1000, abs=0.01)

    run(scenario())


def test_a_drain_that_is_called_off_or_held_is_no_maintenance(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path, service("cart")) as it:
            it.up("cart")
            it.held = {Withdraw}
            (drain,) = it.drain("cart")
            assert it.orders.abort(drain) is None
            assert (drain.state, it.maintenances.of("cart")) == ("aborted", None)
            (drain,) = it.drain("cart")
            it.unconfirm("cart")
            assert (drain.state, drain.error) == ("failed", "not drained: the registry is away")
            assert it.maintenances.of("cart") is None
            assert it.phase("cart") is Phase.RUNNING

    run(scenario())


def test_drain_and_undrain_take_each_others_place_and_leave_others_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path, service("cart")) as it:
            it.up("cart")
            it.held = {Withdraw, Terminate}
            (drain,) = it.drain("cart")
            (undrain,) = it.undrain("cart")
            assert (drain.state, drain.error) == ("aborted", "a later undrain took its place")
            assert undrain.state == "succeeded", "its entry had never gone"
            (drain,) = it.drain("cart")
            (stop,) = it.stop("cart")
            assert (drain.state, stop.state) == ("running", "running")
            it.release(Withdraw)
            assert drain.state == "succeeded"
            it.release(Terminate)
            assert stop.state == "succeeded"
            assert it.runners.by_name["cart"].unit.drained

    run(scenario())


def test_what_was_cut_short_is_counted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path, service("cart")) as it:
            it.up("cart")
            it.held = {Drain}
            (stop,) = it.stop("cart")
            it.runners.post("cart", Drained(1, 3))
            assert (stop.state, stop.cut) == ("succeeded", 3)
            drained = next(step for step in stop.steps if step.name == "drain")
            assert drained.detail == "3 requests were still open when the time for draining was over"

    run(scenario())


# Weights.


def test_a_weight_is_fixed_and_given_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path, service("cart")) as it:
            it.up("cart")
            (fixed,) = it.orders.give("weight", ["cart"], Command(parameters={"weight": 30}))
            assert fixed.state == "succeeded"
            assert it.warmups.weight("cart", 100) == 30
            it.orders.give("weight", ["cart"], Command(parameters={"weight": "auto"}))
            assert it.warmups.weight("cart", 100) == 100

    run(scenario())


def test_an_order_about_weights_that_nobody_can_obey_is_refused_and_a_mixed_one_fails_in_part(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path, service("cart"), plain("disk")) as it:
            it.up("cart", "disk")
            with pytest.raises(WireError):
                it.orders.give("weight", ["disk"], Command(parameters={"weight": 3}))
            assert it.operations.latest(9) == []
            done, failed = it.orders.give("weight", ["cart", "disk"], Command(parameters={"weight": 3}))
            assert (done.state, failed.state) == ("succeeded", "failed")
            assert failed.error

    run(scenario())


# Remembering.


def test_wishes_can_be_changed_without_touching_units(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("clock")
            it.orders.remember(["clock", "disk"], up=False)
            it.orders.remember(["disk"], up=True)
            assert it.journal.wishes() == {"clock": False, "disk": True}
            assert it.phase("clock") is Phase.RUNNING
            assert it.done == []

    run(scenario())


@pytest.mark.parametrize(
    ("verb", "parameters"), [("signal", {"signal": "HUP"}), ("weight", {"weight": 40}), ("warm", {"pause": True})]
)
def test_what_is_done_at_once_is_not_begun_after_its_deadline_either(
    tmp_path: Path, verb: str, parameters: dict[str, object]
) -> None:
    async def scenario() -> None:
        async with shop(tmp_path, service("cart")) as it:
            it.up("cart")
            late = Command(deadline="2020-01-01T00:00:00Z", parameters=parameters)
            [operation] = it.orders.give(verb, ["cart"], late)
            assert operation.state == "expired" and "deadline passed" in str(operation.error)
            with pytest.raises(WireError, match="cannot read the deadline"):
                it.orders.give(verb, ["cart"], Command(deadline="soon", parameters=parameters))

    run(scenario())
