"""Applying a configuration: what has not changed is not touched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from supervisor.core.events import Publish, Spawn, Terminate, Withdraw
from supervisor.core.model import Phase, RestartPolicy, ServiceSpec, UnitSpec
from supervisor.core.plan import Effect
from supervisor.wire import Command, Operation
from tests.supervisor.agents.fleet import Fleet, plain, service
from tests.supervisor.running import run, until

WEB, CART, JOB = plain("web"), service("cart"), plain("job")


class Shop(Fleet):
    """A fleet with a configuration."""

    def apply(self, *specs: UnitSpec) -> tuple[dict[str, Effect], list[Operation]]:
        changes, operations = self.applier.apply({spec.name: spec for spec in specs}, Command())
        return {change.unit: change.effect for change in changes}, operations


@asynccontextmanager
async def shop(folder: Path, *specs: UnitSpec) -> AsyncIterator[Shop]:
    made = Shop(folder, specs or (WEB, CART, JOB))
    try:
        yield made
    finally:
        made.close()


def test_an_unchanged_configuration_touches_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("web", "cart")
            effects, operations = it.apply(WEB, CART, JOB)
            assert set(effects.values()) == {Effect.NONE}
            assert operations == [] and it.done == [] and it.reregistered == []
            assert it.phase("job") is Phase.STOPPED, "it is not started because it is mentioned"

    run(scenario())


def test_only_the_unit_whose_process_must_change_is_restarted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("web", "cart")
            changed = replace(WEB, argv=("sleep", "2000"))
            it.held = {Terminate}
            effects, operations = it.apply(changed, CART, JOB)
            assert effects == {"web": Effect.RESTART, "cart": Effect.NONE, "job": Effect.NONE}
            assert [(item.unit, item.verb) for item in operations] == [("web", "restart")]
            assert it.runners.by_name["web"].spec == WEB, "the old process is stopped as it was configured"
            assert it.orders.specs["web"] == changed
            it.release(Terminate)
            assert it.runners.by_name["web"].spec == changed
            assert operations[0].state == "succeeded"
            assert it.ordered(Spawn) == ["web"]
            assert it.apply(changed, CART, JOB)[1] == []

    run(scenario())


def test_what_counts_from_the_next_decision_is_changed_in_place(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("web")
            changed = replace(WEB, stopwaitsecs=99.0, restart=RestartPolicy(startretries=9))
            effects, operations = it.apply(changed, CART, JOB)
            assert effects["web"] is Effect.LIVE
            assert operations == [] and it.done == []
            assert it.runners.by_name["web"].spec == changed

    run(scenario())


def test_a_changed_entry_is_registered_anew_without_touching_the_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("cart")
            changed = replace(CART, service=ServiceSpec("cart", "127.0.0.1", 9080, weight=30))
            effects, operations = it.apply(WEB, changed, JOB)
            assert effects["cart"] is Effect.REREGISTER
            assert operations == [] and it.done == []
            assert it.reregistered == ["cart"]
            assert it.runners.by_name["cart"].spec == changed

    run(scenario())


def test_a_removed_unit_leaves_by_the_usual_way_and_is_forgotten_when_it_is_down(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("cart")
            it.held = {Withdraw}
            effects, operations = it.apply(WEB, JOB)
            assert effects["cart"] is Effect.REMOVED
            assert [(item.unit, item.verb) for item in operations] == [("cart", "stop")]
            assert "cart" in it.runners.by_name
            it.release(Withdraw)
            assert "cart" not in it.runners.by_name
            assert operations[0].state == "succeeded"
            assert it.journal.wishes() == {}, "it was not told to stay down"

    run(scenario())


def test_a_removed_unit_that_is_down_is_forgotten_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            _, operations = it.apply(WEB, CART)
            assert "job" not in it.runners.by_name
            assert operations[0].state == "succeeded"

    run(scenario())


def test_a_removed_unit_that_waits_or_was_given_up_is_forgotten_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path, WEB, CART, JOB, plain("late", "web")) as it:
            it.held = {Spawn}
            it.start("job", "late")
            it.exits("job", code=1)
            assert it.phase("job") is Phase.BACKOFF and it.phase("late") is Phase.WAITING
            it.start("cart")
            it.exits("cart", stage="exec", errno=2, can_heal=False, reason="no such file: /cart")
            assert it.phase("cart") is Phase.FATAL
            _, operations = it.apply(WEB)
            assert list(it.runners.by_name) == ["web"]
            assert {operation.state for operation in operations} == {"succeeded"}

    run(scenario())


def test_new_units_wait_until_removed_ones_are_down(tmp_path: Path) -> None:
    """They may use the same port."""

    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("cart")
            it.held = {Withdraw}
            effects, operations = it.apply(WEB, JOB, service("basket"))
            assert effects == {
                "web": Effect.NONE,
                "job": Effect.NONE,
                "basket": Effect.NEW,
                "cart": Effect.REMOVED,
            }
            start = next(item for item in operations if item.unit == "basket")
            assert start.steps[0].detail == "waits for the stop of cart"
            assert it.phase("basket") is Phase.STOPPED
            it.release(Withdraw)
            await until(lambda: start.done)
            assert start.state == "succeeded"
            assert it.phase("basket") is Phase.RUNNING

    run(scenario())


def test_new_units_that_start_by_hand_are_known_but_not_started(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            _, operations = it.apply(WEB, CART, JOB, plain("by_hand", autostart=False))
            assert operations == []
            assert it.phase("by_hand") is Phase.STOPPED

    run(scenario())


def test_new_units_start_with_their_dependencies(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.apply(WEB, CART, JOB, plain("one", "two"), plain("two"))
            assert it.ordered(Spawn) == ["two", "one"]
            assert it.phase("one") is Phase.RUNNING

    run(scenario())


def test_a_unit_that_comes_back_goes_on_counting_its_generations(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("web")
            it.restart("web")
            it.apply(CART, JOB)
            assert "web" not in it.runners.by_name
            it.apply(WEB, CART, JOB)
            assert it.runners.by_name["web"].unit.attempt == 3

    run(scenario())


def test_a_unit_that_is_removed_and_comes_back_before_it_was_down_stays(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("cart")
            it.held = {Withdraw}
            it.apply(WEB, JOB)
            changed = replace(CART, argv=("sleep", "2000"))
            effects, operations = it.apply(WEB, changed, JOB)
            assert effects["cart"] is Effect.NEW
            it.release(Withdraw)
            await until(lambda: all(operation.done for operation in operations))
            assert it.phase("cart") is Phase.RUNNING
            assert it.runners.by_name["cart"].spec == changed
            assert it.orders.specs["cart"] == changed

    run(scenario())


def test_removing_a_unit_twice_is_one_removal(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("cart")
            it.held = {Withdraw}
            it.apply(WEB, JOB)
            effects, operations = it.apply(WEB, JOB)
            assert "cart" not in effects and operations == []
            it.release(Withdraw)
            assert "cart" not in it.runners.by_name

    run(scenario())


def test_a_unit_that_was_given_up_for_something_outside_is_tried_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.held = {Spawn}
            it.start("web")
            it.exits("web", stage="exec", errno=2, can_heal=False, reason="no such file: /web")
            assert it.phase("web") is Phase.FATAL
            it.held = set()
            _, operations = it.apply(WEB, CART, JOB)
            assert [(item.unit, item.verb, item.state) for item in operations] == [("web", "start", "succeeded")]
            assert it.phase("web") is Phase.RUNNING

    run(scenario())


def test_a_unit_that_was_given_up_after_crashes_is_left_alone_unless_it_has_changed(tmp_path: Path) -> None:
    async def scenario() -> None:
        spec = replace(WEB, restart=RestartPolicy(startretries=0))
        async with shop(tmp_path, spec) as it:
            it.held = {Spawn}
            it.start("web")
            it.exits("web", code=1)
            assert it.phase("web") is Phase.FATAL
            assert it.apply(spec)[1] == []
            it.held = set()
            it.apply(replace(spec, argv=("sleep", "2000")))
            assert it.phase("web") is Phase.RUNNING

    run(scenario())


def test_a_changed_unit_that_is_down_stays_down(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            changed = replace(JOB, argv=("sleep", "2000"))
            _, operations = it.apply(WEB, CART, changed)
            assert operations == []
            assert it.phase("job") is Phase.STOPPED
            assert it.runners.by_name["job"].spec == changed

    run(scenario())


def test_a_changed_unit_on_its_way_out_takes_the_new_values_for_its_next_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("cart")
            it.held = {Withdraw}
            it.stop("cart")
            changed = replace(CART, argv=("sleep", "2000"))
            _, operations = it.apply(WEB, changed, JOB)
            assert operations == []
            it.release(Withdraw)
            assert it.phase("cart") is Phase.STOPPED
            it.start("cart")
            assert it.runners.by_name["cart"].spec == changed

    run(scenario())


def test_changing_a_unit_twice_before_it_was_restarted_takes_the_last_values(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(tmp_path) as it:
            it.up("cart")
            it.held = {Withdraw}
            it.apply(WEB, replace(CART, argv=("sleep", "2000")), JOB)
            last = replace(CART, argv=("sleep", "3000"), stopwaitsecs=3.0)
            it.apply(WEB, last, JOB)
            it.release(Withdraw)
            assert it.runners.by_name["cart"].spec == last
            assert it.runners.by_name["cart"].unit.attempt == 2
            assert it.ordered(Publish) == ["cart"]

    run(scenario())


def test_a_unit_that_need_not_wait_any_more_is_started(tmp_path: Path) -> None:
    async def scenario() -> None:
        waiting = plain("late", "web")
        async with shop(tmp_path, WEB, waiting) as it:
            it.held = {Spawn}
            it.start("late")
            assert it.phase("late") is Phase.WAITING
            effects, _ = it.apply(WEB, replace(waiting, depends_on=()))
            assert effects["late"] is Effect.LIVE
            assert it.phase("late") is Phase.STARTING

    run(scenario())
