"""Operations: what they go through, how they end, and who may wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.agents import ledger
from supervisor.agents import operations as module
from supervisor.core.events import (
    CancelRequested,
    Drain,
    Prewarm,
    Publish,
    Spawn,
    StartRequested,
    StopRequested,
    Terminate,
    Withdraw,
)  # fmt: skip
from supervisor.core.model import HttpCall, Phase, RestartPolicy, UnitSpec, WarmupSpec
from supervisor.host.clock import iso, monotonic
from supervisor.wire import Command
from tests.supervisor.agents.fleet import Fleet, plain, service, steps
from tests.supervisor.running import run, until


@asynccontextmanager
async def fleet(folder: Path, *specs: UnitSpec) -> AsyncIterator[Fleet]:
    made = Fleet(folder, specs or (plain("web"), service("cart:0"), service("cart:1")))
    try:
        yield made
    finally:
        made.close()


# Ends, by verb.


def test_what_has_come_of_a_step_is_its_detail_and_stays(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path, service("cart:0")) as it:
            it.up("cart:0")
            it.held.add(Withdraw)
            (operation,) = it.stop("cart:0")
            it.operations.on_step("cart:0", "gateways")
            assert operation.steps[-1].detail == "waiting for gateways to send to it no more"
            it.operations.on_detail("cart:0", "gateways", "gw-1 has not said so")
            it.operations.on_detail("cart:0", "settle", "not this one")
            it.operations.on_detail("nobody", "gateways", "not this one")
            it.release(Withdraw)
            assert steps(operation)[:2] == [("withdraw", "succeeded"), ("gateways", "succeeded")]
            assert operation.steps[1].detail == "gw-1 has not said so"

    run(scenario())


def test_a_start_goes_through_spawn_and_ready(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            (operation,) = it.start("web", reason="deploy", issued_by="ann")
            assert operation.state == "succeeded" and operation.done and operation.error is None
            assert steps(operation) == [("spawn", "succeeded"), ("ready", "succeeded")]
            assert (operation.unit, operation.verb) == ("web", "start")
            assert (operation.reason, operation.issued_by) == ("deploy", "ann")
            assert operation.created <= (operation.finished or "")

    run(scenario())


def test_the_start_of_a_registered_unit_ends_when_the_registry_has_confirmed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.held = {Publish}
            (operation,) = it.start("cart:0")
            assert it.phase("cart:0") is Phase.RUNNING
            assert operation.state == "running"
            assert steps(operation)[-1] == ("register", "running")
            it.release(Publish)
            assert operation.state == "succeeded"
            assert steps(operation) == [
                ("spawn", "succeeded"), ("ready", "succeeded"), ("register", "succeeded"),
            ]  # fmt: skip

    run(scenario())


def test_a_start_that_is_given_up_fails_with_the_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.held = {Spawn}
            (operation,) = it.start("web")
            it.exits("web", stage="exec", errno=2, can_heal=False, reason="no such file: /no/such")
            assert it.phase("web") is Phase.FATAL
            assert operation.state == "failed"
            assert operation.error == "cannot start: no such file: /no/such; not retried until that changes"
            assert steps(operation) == [("spawn", "failed")]

    run(scenario())


def test_a_start_that_needs_a_second_try_goes_on_until_it_is_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        spec = replace(
            plain("web"), restart=RestartPolicy(settle_seconds=0.0, backoff_initial=0.02, backoff_jitter=0.0)
        )
        async with fleet(tmp_path, spec) as it:
            it.held = {Spawn}
            (operation,) = it.start("web")
            it.exits("web", code=1)
            assert operation.state == "running"
            assert steps(operation) == [("spawn", "failed"), ("backoff", "running")]
            it.held = set()
            await until(lambda: operation.done)
            assert operation.state == "succeeded"
            assert [name for name, _ in steps(operation)] == ["spawn", "backoff", "spawn", "ready"]

    run(scenario())


def test_a_start_that_is_superseded_by_a_stop_is_aborted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.held = {Spawn}
            (start,) = it.start("web")
            (stop,) = it.stop("web")
            assert (start.state, start.error) == ("aborted", "a later stop took its place")
            assert stop.state == "succeeded"

    run(scenario())


def test_a_start_whose_unit_is_stopped_by_somebody_else_is_aborted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.held = {Spawn}
            (start,) = it.start("web")
            it.runners.post("web", StopRequested())
            assert (start.state, start.error) == ("aborted", "it was stopped again")

    run(scenario())


def test_starting_a_running_unit_is_done_before_it_begins(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("web")
            (operation,) = it.start("web")
            assert operation.state == "succeeded"
            assert steps(operation) == [("none", "skipped")]
            assert operation.steps[0].detail == "already running (pid 4001)"
            assert it.done == []

    run(scenario())


def test_a_stop_goes_through_the_whole_way_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("cart:0")
            it.held = {Withdraw, Drain, Terminate}
            (operation,) = it.stop("cart:0")
            for kind, step in ((Withdraw, "withdraw"), (Drain, "drain"), (Terminate, "terminate")):
                assert steps(operation)[-1] == (step, "running")
                it.release(kind)
            assert operation.state == "succeeded"
            assert [name for name, _ in steps(operation)] == ["withdraw", "gone", "drain", "terminate"]
            assert {state for _, state in steps(operation)} == {"succeeded"}
            assert all(step.started and step.finished and step.detail for step in operation.steps)

    run(scenario())


def test_stopping_a_stopped_unit_is_done_before_it_begins(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            (operation,) = it.stop("web")
            assert operation.state == "succeeded"
            assert operation.steps[0].detail == "already stopped"

    run(scenario())


def test_a_stop_that_the_registry_cannot_confirm_fails_and_the_unit_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("cart:0")
            it.held = {Withdraw}
            (operation,) = it.stop("cart:0")
            it.unconfirm("cart:0")
            assert it.phase("cart:0") is Phase.RUNNING
            assert (operation.state, operation.error) == ("failed", "not stopped: the registry is away")
            assert steps(operation)[-1][1] == "failed"

    run(scenario())


def test_a_forced_stop_goes_on_without_the_registry(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("cart:0")
            it.held = {Withdraw}
            (operation,) = it.stop("cart:0", parameters={"force": True})
            it.unconfirm("cart:0")
            assert it.phase("cart:0") is Phase.STOPPED
            assert operation.state == "succeeded"

    run(scenario())


def test_a_stop_that_is_superseded_by_a_start_is_aborted_and_both_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("cart:0")
            it.held = {Terminate}
            (stop,) = it.stop("cart:0")
            (start,) = it.start("cart:0")
            assert (stop.state, stop.error) == ("aborted", "a later start took its place")
            assert start.state == "running"
            it.release(Terminate)
            assert start.state == "succeeded"
            assert it.phase("cart:0") is Phase.RUNNING

    run(scenario())


def test_a_restart_ends_when_the_next_generation_is_registered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("cart:0")
            it.held = {Withdraw, Publish}
            (operation,) = it.restart("cart:0")
            it.release(Withdraw)
            assert it.runners.by_name["cart:0"].unit.attempt == 2
            assert operation.state == "running"
            it.release(Publish)
            assert operation.state == "succeeded"
            assert [name for name, _ in steps(operation)] == [
                "withdraw", "gone", "drain", "terminate", "spawn", "ready", "register",
            ]  # fmt: skip

    run(scenario())


def test_a_restart_whose_new_process_does_not_come_up_fails(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path, plain("web", restart=RestartPolicy(settle_seconds=0.0, startretries=0))) as it:
            it.up("web")
            it.held = {Spawn}
            (operation,) = it.restart("web")
            it.exits("web", code=1)
            assert operation.state == "failed"
            assert operation.error is not None and "gave up after 1 failed starts" in operation.error

    run(scenario())


def test_a_restart_that_is_called_off_before_the_signal_fails(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("cart:0")
            it.held = {Withdraw}
            (operation,) = it.restart("cart:0")
            it.runners.post("cart:0", CancelRequested())
            assert (operation.state, operation.error) == ("failed", "it was called off")

    run(scenario())


def test_a_restart_of_a_unit_that_is_down_starts_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            (operation,) = it.restart("web")
            assert operation.state == "succeeded"
            assert it.phase("web") is Phase.RUNNING

    run(scenario())


def test_equal_orders_for_one_unit_end_together(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("cart:0")
            it.held = {Withdraw}
            (first,) = it.restart("cart:0")
            (second,) = it.restart("cart:0")
            assert it.operations.open_of("cart:0") is first
            it.release(Withdraw)
            assert (first.state, second.state) == ("succeeded", "succeeded")
            assert it.runners.by_name["cart:0"].unit.attempt == 2, "one restart answers both"
            assert it.operations.open_of("cart:0") is None

    run(scenario())


def test_a_unit_that_crashes_while_it_is_stopped_is_stopped(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("cart:0")
            it.held = {Withdraw}
            (operation,) = it.stop("cart:0")
            it.exits("cart:0", signal=9)
            assert operation.state == "running", "its entry is still there"
            it.release(Withdraw)
            assert operation.state == "succeeded"

    run(scenario())


# Chains.


def test_the_processes_of_a_service_are_restarted_one_after_another(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("cart:0", "cart:1")
            it.held = {Publish}
            first, second = it.restart("cart:0", "cart:1")
            assert (first.state, second.state) == ("running", "pending")
            assert steps(second) == [("wait", "running")]
            assert second.steps[0].detail == "waits for the restart of cart:0"
            assert it.phase("cart:1") is Phase.RUNNING
            it.release(Publish)
            await until(lambda: second.done)
            assert (first.state, second.state) == ("succeeded", "succeeded")
            assert it.ordered(Spawn) == ["cart:0", "cart:1"]

    run(scenario())


def test_a_rolling_restart_stops_at_the_first_failure(tmp_path: Path) -> None:
    async def scenario() -> None:
        specs = [
            service(f"cart:{number}", restart=RestartPolicy(settle_seconds=0.0, startretries=0)) for number in range(3)
        ]
        async with fleet(tmp_path, *specs) as it:
            it.up("cart:0", "cart:1", "cart:2")
            it.held = {Spawn}
            first, second, third = it.restart("cart:0", "cart:1", "cart:2")
            it.exits("cart:0", code=1)
            await until(lambda: third.done)
            assert first.state == "failed"
            assert (second.state, second.error) == ("aborted", "not begun: the restart of cart:0 failed")
            assert (third.state, third.error) == ("aborted", "not begun: the restart of cart:1 aborted")
            assert it.phase("cart:1") is it.phase("cart:2") is Phase.RUNNING
            assert it.ordered(Withdraw) == ["cart:0"]

    run(scenario())


def test_a_rolling_restart_goes_on_only_when_the_last_process_has_its_full_weight(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("cart:0", "cart:1")
            it.warming["cart:0"] = "warming: 10 %"
            first, second = it.restart("cart:0", "cart:1")
            await until(lambda: second.steps and "full weight" in second.steps[0].detail)
            assert (first.state, second.state) == ("succeeded", "pending")
            assert second.steps[0].detail == "waits for the full weight of cart:0: warming: 10 %"
            it.warming.clear()
            it.operations.on_full("cart:0")
            await until(lambda: second.done)
            assert second.state == "succeeded"
            assert it.ordered(Spawn) == ["cart:0", "cart:1"]

    run(scenario())


def test_a_rolling_restart_ends_when_the_new_process_falls_while_it_warms_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("cart:0", "cart:1")
            it.warming["cart:0"] = "warming: 10 %"
            _, second = it.restart("cart:0", "cart:1")
            await until(lambda: second.steps and "full weight" in second.steps[0].detail)
            it.held = {Spawn}
            it.exits("cart:0", code=1)
            await until(lambda: second.done)
            assert second.state == "aborted"
            assert "not begun: the new process of cart:0 did not stay up" in str(second.error)
            assert it.phase("cart:1") is Phase.RUNNING

    run(scenario())


def test_the_first_requests_and_the_registry_are_steps_of_a_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        warm = WarmupSpec(requests=(HttpCall("GET", "/"),))
        async with fleet(tmp_path, service("cart", warmup=warm)) as it:
            it.held = {Prewarm, Publish}
            (start,) = it.start("cart")
            assert steps(start)[-1] == ("prewarm", "running")
            it.release(Prewarm)
            assert steps(start)[-1] == ("register", "running")
            it.release(Publish)
            assert start.state == "succeeded"
            assert [name for name, _ in steps(start)] == ["spawn", "ready", "prewarm", "register"]

    run(scenario())


def test_what_waits_for_something_that_has_ended_already_begins_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("web")
            begun = list[str]()
            it.operations.carry_out = lambda operation, command: begun.append(operation.unit)
            first = it.operations.add("cart:0", "start", Command())
            it.operations.skip(first, "already running")
            second = it.operations.add("web", "stop", Command(), after=[first.id])
            it.operations.launch([first, second])
            assert begun == ["web"]
            assert second.state == "running"
            assert steps(first) == [("none", "skipped")], "what has ended gets no further steps"

    run(scenario())


def test_what_waits_can_be_aborted_and_never_begins(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("cart:0", "cart:1")
            it.held = {Publish}
            _, second = it.restart("cart:0", "cart:1")
            it.operations.abort(second, "aborted")
            it.operations.abort(second, "aborted twice")
            it.release(Publish)
            await asyncio.sleep(0.02)
            assert (second.state, second.error) == ("aborted", "aborted")
            assert it.runners.by_name["cart:1"].unit.attempt == 1

    run(scenario())


def test_a_start_that_had_to_wait_ends_though_its_unit_was_registered_meanwhile(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("web")
            it.held = {Terminate}
            (stop,) = it.stop("web")
            (waiting,) = it.orders.start(["cart:0"], Command(), after=[stop.id])
            (other,) = it.start("cart:0")
            assert other.state == "succeeded"
            it.release(Terminate)
            await until(lambda: waiting.done)
            assert waiting.state == "succeeded"

    run(scenario())


def test_an_operation_on_a_unit_that_was_removed_while_it_waited_fails(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("web")
            it.held = {Terminate}
            (stop,) = it.stop("web")
            (waiting,) = it.orders.start(["cart:0"], Command(), after=[stop.id])
            it.runners.remove("cart:0")
            it.release(Terminate)
            await until(lambda: waiting.done)
            assert (waiting.state, waiting.error) == ("failed", "the unit was removed from the configuration")

    run(scenario())


# Commands.


def test_a_command_id_gives_the_same_operations_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            made = it.start("web", "cart:0", command_id="deploy-7")
            assert it.operations.known("deploy-7") == made
            assert it.operations.of_command("deploy-7") == made
            assert it.operations.known("other") is None
            assert it.operations.known(None) is None
            assert it.operations.of_command("other") == []

    run(scenario())


def test_a_command_without_an_id_gets_one_and_ids_never_repeat(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            made = [*it.start("web"), *it.stop("web"), *it.start("web")]
            assert len({operation.id for operation in made}) == 3
            assert len({operation.command_id for operation in made}) == 3
            for operation in made:
                assert it.operations.known(operation.command_id) == [operation]
                assert it.operations.get(operation.id) is operation
            assert it.operations.get("op-unknown") is None
            assert it.operations.latest(2) == made[1:]

    run(scenario())


def test_nothing_begins_after_its_deadline(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            (late,) = it.start("web", deadline="2001-01-01T00:00:00Z")
            (early,) = it.start("cart:0", deadline=iso(4_000_000_000))
            assert (late.state, late.error) == ("expired", "its deadline passed before it could be started")
            assert it.phase("web") is Phase.STOPPED
            assert early.state == "succeeded"

    run(scenario())


def test_a_deadline_that_passes_while_it_waits_expires_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("cart:0", "cart:1")
            it.held = {Publish}
            _, second = it.restart("cart:0", "cart:1", deadline=iso(4_000_000_000))
            monkeypatch.setattr(module, "wall", lambda: 4_000_000_001.0)
            it.release(Publish)
            await until(lambda: second.done)
            assert second.state == "expired"
            assert it.phase("cart:1") is Phase.RUNNING

    run(scenario())


# Waiting.


def test_waiting_ends_with_the_last_of_the_operations(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.held = {Spawn}
            made = it.start("web", "cart:0")
            waiting = asyncio.ensure_future(it.operations.wait(made, 10))
            it.release(Spawn)
            await asyncio.wait_for(waiting, 5)
            assert all(operation.done for operation in made)
            await asyncio.wait_for(it.operations.wait(made, 10), 1)

    run(scenario())


def test_waiting_ends_after_its_time_and_others_go_on_waiting(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.held = {Spawn}
            made = it.start("web")
            patient = asyncio.ensure_future(it.operations.wait(made, 10))
            began = monotonic()
            await it.operations.wait(made, 0.05)
            assert 0.04 < monotonic() - began < 5
            assert not made[0].done and not patient.done()
            it.release(Spawn)
            await asyncio.wait_for(patient, 5)

    run(scenario())


# Keeping.


def test_old_operations_are_forgotten_but_open_ones_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "KEPT", 5)
    monkeypatch.setattr(ledger, "KEPT_SECONDS", 0.0)
    monkeypatch.setattr(ledger, "REMEMBERED", 0)

    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.held = {Spawn}
            (open_one,) = it.start("web", command_id="open")
            made = [it.start("cart:0", command_id=f"c{number}")[0] for number in range(20)]
            for operation in made:
                it.operations.abort(operation, "test")
            await asyncio.sleep(0.001)
            (last,) = it.start("cart:1")
            assert it.operations.get(open_one.id) is open_one
            assert it.operations.get(made[0].id) is None
            assert it.operations.known("c0") is None
            assert it.operations.of_command("c0") == []
            assert it.operations.get(last.id) is last
            assert len(it.operations.latest(100)) <= 6

    run(scenario())


def test_young_operations_are_kept_whatever_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "KEPT", 5)

    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("web")
            made = [it.start("web")[0] for _ in range(20)]
            assert all(it.operations.get(operation.id) for operation in made)

    run(scenario())


# Words.


def test_the_step_under_way_says_what_the_agent_says(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.up("cart:0")
            it.held = {Withdraw}
            (operation,) = it.stop("cart:0")
            it.words["cart:0"] = "waiting for the registry entry to go: 6.2 s of 10.0 s"
            shown = it.operations.get(operation.id)
            assert shown is not None
            assert shown.steps[-1].detail == "waiting for the registry entry to go: 6.2 s of 10.0 s"

    run(scenario())


def test_an_operation_fails_when_it_is_told_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fleet(tmp_path) as it:
            it.held = {Spawn}
            (operation,) = it.start("web")
            it.operations.fail(operation, "cannot: no reason")
            assert (operation.state, operation.error) == ("failed", "cannot: no reason")
            it.runners.post("web", StartRequested())
            assert it.operations.open_of("web") is None

    run(scenario())
