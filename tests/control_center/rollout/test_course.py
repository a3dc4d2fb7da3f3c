"""course.py: what is next for an operation."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from control_center.model import Batch, OperationState, Strategy, Target, TargetState, Wish
from control_center.rollout import Finish, Start, Wait, limit_of
from tests.control_center.entries import entry
from tests.control_center.rollout.world import BEGIN, PLAIN, World, carts

CANARY = Strategy(batch="2", canary=1, bake_seconds=30, floor_percent=0, by_zone=False)
FAILED = TargetState.FAILED


def canary_world(count: int = 3, strategy: Strategy = CANARY) -> World:
    """The canary is done, and bakes since second 10."""
    world = World(carts(count), strategy)
    assert world.starts() == ["web-1/cart"]
    world.now = 10
    world.end("web-1/cart")
    return world


# The way through.


def test_batches_go_one_after_another_until_all_are_done() -> None:
    world = World(carts(3), replace(PLAIN, batch="2"))
    assert world.starts() == ["web-1/cart", "web-2/cart"]
    assert world.operation.state is OperationState.RUNNING
    assert world.batch_states() == "running pending"
    world.end("web-1/cart")
    assert world.waits() == "waiting for web-2/cart"
    world.end("web-2/cart")
    assert world.starts() == ["web-3/cart"]
    assert world.batch_states() == "succeeded running"
    world.end("web-3/cart")
    assert world.finishes() == ("succeeded", None)
    assert world.batch_states() == "succeeded succeeded"


def test_an_operation_that_has_ended_stays_as_it_ended() -> None:
    world = World(carts(1), None)
    world.operation.state, world.operation.error = OperationState.FAILED, "so it was"
    assert world.finishes() == ("failed", "so it was")
    assert world.operation.finished is None


def test_a_look_changes_nothing() -> None:
    world = World(carts(2))
    before = repr(world.operation)
    assert world.look() == world.look()
    assert repr(world.operation) == before


def test_without_a_strategy_all_go_at_once_even_while_the_registry_is_away() -> None:
    world = World(carts(5), None)
    world.is_away = True
    assert len(world.starts()) == 5
    for number in range(5):
        world.end(f"web-{number + 1}/cart", FAILED if number == 4 else TargetState.SUCCEEDED, "it broke")
    assert world.finishes() == ("failed", "1 of 5 failed: web-5/cart: it broke")


def test_without_a_strategy_a_failure_keeps_nobody_from_being_sent() -> None:
    world = World(carts(2), None)
    world.operation.targets[0].state = FAILED
    assert world.starts() == ["web-2/cart"]


def test_an_operation_without_targets_has_failed() -> None:
    world = World(carts(1))
    world.operation.targets = []
    assert world.finishes() == ("failed", "nothing was done: it has no targets")


def test_targets_of_a_batch_that_nobody_wrote_down_go_all_the_same() -> None:
    world = World(carts(1))
    world.operation.batches = []
    assert world.starts() == ["web-1/cart"]


def test_commands_speak_of_the_generation_that_is_there_when_they_go() -> None:
    world = World(carts(1, generation=7))
    world.show("web-1/cart", generation=9)
    assert world.starts() == ["web-1/cart"]
    assert world.target("web-1/cart").generation == 9


def test_a_generation_that_was_demanded_stays() -> None:
    world = World(carts(1, generation=7), checks_generation=True)
    world.show("web-1/cart", generation=9)
    world.step()
    assert world.target("web-1/cart").generation == 7


def test_a_unit_without_a_service_keeps_what_it_has() -> None:
    world = World(carts(1), targets=[Target("web-9", "batch", "web-9/batch")])
    assert world.starts() == ["web-9/batch"]
    assert world.target("web-9/batch").generation is None


@pytest.mark.parametrize("verb", ["restart", "warm", "weight", "signal"])
def test_who_has_left_the_registry_before_its_turn_is_skipped(verb: str) -> None:
    world = World(carts(3), verb=verb)
    del world.entries["web-1/cart"], world.entries["web-2/cart"]
    assert world.starts() == ["web-3/cart"]
    assert world.states() == "skipped skipped sent"
    assert world.target("web-1/cart").detail == "it had left the registry before its turn"
    assert world.batch_states() == "skipped skipped running"
    world.end("web-3/cart")
    assert world.finishes() == ("succeeded", None)


@pytest.mark.parametrize("verb", ["stop", "drain", "start", "undrain"])
def test_some_commands_make_sense_for_who_is_not_there(verb: str) -> None:
    world = World(carts(1), verb=verb)
    world.entries.clear()
    assert world.starts() == ["web-1/cart"]


def test_when_all_have_left_nothing_was_done() -> None:
    world = World(carts(1))
    world.entries.clear()
    assert world.finishes() == ("failed", "nothing was done: web-1/cart: it had left the registry before its turn")
    assert world.states() == "skipped"


def test_a_wait_for_many_names_some_and_what_they_do() -> None:
    world = World(carts(5), None)
    world.step()
    world.operation.targets[0].steps = "drain: 3 in flight"
    assert world.waits() == "waiting for web-1/cart (drain: 3 in flight), web-2/cart, web-3/cart and 2 more"


# The registry.


def test_nothing_is_begun_while_the_registry_is_away() -> None:
    world = World(carts(2))
    world.is_away = True
    assert world.waits() == "waiting for the registry: nothing is begun before it answers"
    assert world.operation.state is OperationState.PENDING
    world.is_away = False
    assert world.starts() == ["web-1/cart"]


def test_a_part_of_a_batch_that_fits_goes_and_the_rest_waits_for_weight() -> None:
    world = World(carts(4), replace(PLAIN, batch="2", floor_percent=75))
    assert world.starts() == ["web-1/cart"]
    assert world.waits() == (
        "cart has 75 % of its weight, 50 % without web-2/cart, 75 % must stay: waiting for web-1/cart (100/100)"
    )
    world.end("web-1/cart")
    world.show("web-1/cart", status="warming", weight=40)  # it lost its weight again
    assert "cart has 85 % of its weight, 60 % without web-2/cart" in world.waits()
    world.show("web-1/cart", status="up", weight=100)
    assert world.starts() == ["web-2/cart"]


# Failures.


def test_the_first_failure_too_many_skips_the_rest() -> None:
    world = World(carts(4), replace(PLAIN, batch="2"))
    world.step()
    world.end("web-1/cart", FAILED, "it broke")
    assert world.waits() == "waiting for web-2/cart"
    assert world.states() == "failed sent skipped skipped"
    assert world.target("web-3/cart").detail == "not begun: stopped after 1 failure: web-1/cart: it broke"
    world.end("web-2/cart")
    assert world.finishes() == ("failed", "stopped after 1 failure: web-1/cart: it broke")
    assert world.batch_states() == "failed skipped"


def test_as_many_as_were_allowed_may_fail() -> None:
    world = World(carts(5), replace(PLAIN, max_failures=1))
    world.starts()
    world.end("web-1/cart", FAILED)
    assert world.starts() == ["web-2/cart"]
    world.end("web-2/cart")
    world.starts()
    world.end("web-3/cart", FAILED)
    assert world.finishes() == ("failed", "stopped after 2 failures: web-1/cart; web-3/cart")


def test_allowed_failures_do_not_fail_the_operation_unless_nothing_was_done() -> None:
    world = World(carts(2), replace(PLAIN, batch="2", max_failures=2))
    world.step()
    world.end("web-1/cart", FAILED)
    world.end("web-2/cart")
    assert isinstance(world.look(), Finish)
    world.target("web-2/cart").state = FAILED
    assert world.finishes() == ("failed", "nothing was done: web-1/cart; web-2/cart")


def test_a_failure_at_the_very_end_counts() -> None:
    world = World(carts(1))
    world.step()
    world.end("web-1/cart", FAILED, "it broke")
    assert world.finishes() == ("failed", "1 of 1 failed: web-1/cart: it broke")


def test_many_failures_are_counted_and_some_named() -> None:
    world = World(carts(5), None)
    world.step()
    for target in world.operation.targets:
        target.state = FAILED
    assert world.finishes()[1] == "5 of 5 failed: web-1/cart; web-2/cart; web-3/cart; and 2 more"


def test_an_error_from_elsewhere_stops_the_operation() -> None:
    world = World(carts(1))
    world.operation.error = "somebody said no"
    assert world.finishes() == ("failed", "somebody said no")
    assert world.states() == "skipped"


def test_a_target_that_takes_too_long_has_failed() -> None:
    world = World(carts(2), replace(PLAIN, target_seconds=50))
    world.step()
    step = world.look()
    assert isinstance(step, Wait)
    assert step.seconds == 50
    world.target("web-1/cart").state = TargetState.CONFIRMING
    world.target("web-1/cart").steps = "weight 40 of 100"
    world.now = 50
    assert world.finishes()[0] == "failed"
    assert world.target("web-1/cart").detail == "not done within 50 s: weight 40 of 100"
    assert world.states() == "failed skipped"


def test_it_says_of_one_that_never_answered_what_the_last_try_said() -> None:
    world = World(carts(2), replace(PLAIN, target_seconds=50, batch="2"))
    world.step()
    world.target("web-2/cart").detail = "connection refused"
    world.now = 51
    world.step()
    assert world.target("web-1/cart").detail == "web-1 has not answered for 50 s: it may have the command"
    assert world.target("web-2/cart").detail == "web-2 has not answered for 50 s: connection refused"


def test_where_all_go_at_once_nobody_fails_before_the_deadline() -> None:
    world = World(carts(1), None)
    world.step()
    target = world.target("web-1/cart")
    assert limit_of(world.operation, target) == BEGIN + timedelta(seconds=1000 + 900)
    target.state, world.now = TargetState.RUNNING, 1899
    assert world.waits() == "waiting for web-1/cart"
    world.now = 1900
    assert world.finishes() == ("failed", "1 of 1 failed: web-1/cart: not done within 900 s: no news")


# The canary.


def test_the_canary_must_be_well_for_its_time_before_the_rest_follows() -> None:
    world = canary_world()
    assert world.waits() == "the canary must be well for 30 s more"
    assert world.batch_states() == "baking pending"
    assert world.target("web-1/cart").generation_after == 2
    world.now = 39.5
    step = world.step()
    assert isinstance(step, Wait)
    assert step.seconds == pytest.approx(0.5)
    world.now = 40
    assert world.starts() == ["web-2/cart", "web-3/cart"]
    assert world.batch_states() == "succeeded running"
    world.show("web-1/cart", weight=10)  # from now on it is one of many
    assert world.waits() == "waiting for web-2/cart, web-3/cart"


def test_without_a_bake_time_the_rest_follows_at_once() -> None:
    assert canary_world(strategy=replace(CANARY, bake_seconds=0)).starts() == ["web-2/cart", "web-3/cart"]


def test_nothing_bakes_where_nothing_follows() -> None:
    assert canary_world(1).finishes() == ("succeeded", None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weight": 60}, "web-1/cart: weight 60 of 100"),
        ({"generation": 3}, "web-1/cart was started again (generation 3, not 2)"),
        ({"status": "draining"}, "web-1/cart: it is draining"),
    ],
)
def test_a_canary_that_does_not_stay_well_fails_the_operation(change: dict[str, object], reason: str) -> None:
    world = canary_world()
    world.waits()
    world.show("web-1/cart", **change)
    error = f"the canary did not stay well: {reason}"
    assert world.finishes() == ("failed", error)
    assert world.batch_states() == "failed skipped"
    assert world.target("web-2/cart").detail == f"not begun: {error}"


def test_a_canary_that_gateways_complain_of_fails_the_operation() -> None:
    world = canary_world()
    world.doubts = frozenset(("web-1/cart",))
    assert world.finishes() == ("failed", "the canary did not stay well: gateways complain of web-1/cart")


def test_a_canary_that_leaves_the_registry_fails_the_operation() -> None:
    world = canary_world()
    world.waits()
    del world.entries["web-1/cart"]
    assert world.finishes() == ("failed", "the canary did not stay well: web-1/cart has left the registry")


def test_a_canary_that_fails_stops_though_failures_are_allowed() -> None:
    world = World(carts(3), replace(CANARY, max_failures=2))
    world.step()
    world.end("web-1/cart", FAILED, "it broke")
    assert world.finishes() == ("failed", "the canary failed: web-1/cart: it broke")
    assert world.batch_states() == "failed skipped"


def test_without_any_canary_left_the_rest_does_not_follow() -> None:
    world = World(carts(3), CANARY)
    del world.entries["web-1/cart"]
    error = "no canary was left: web-1/cart: it had left the registry before its turn"
    assert world.finishes() == ("failed", error)
    assert world.states() == "skipped skipped skipped"


def test_nobody_says_that_a_canary_is_well_while_the_registry_is_away() -> None:
    world = canary_world()
    world.is_away = True
    assert world.waits() == "the canary must be well for 30 s more"
    assert world.target("web-1/cart").generation_after is None
    world.now = 60
    assert world.waits() == "waiting for the registry: nothing is begun before it answers"
    assert world.batch_states() == "baking pending"
    world.is_away = False
    assert world.starts() == ["web-2/cart", "web-3/cart"]


def test_a_drained_canary_is_well_while_it_is_away() -> None:
    world = World(carts(3), CANARY, "drain")
    world.step()
    world.target("web-1/cart").state = TargetState.SUCCEEDED
    del world.entries["web-1/cart"]
    assert (
        world.waits() == "the canary must be well for 30 s more"
    )  # counted from the beginning, if nothing else is known
    world.now = 30
    assert world.starts() == ["web-2/cart", "web-3/cart"]


# What people wish.


def test_a_pause_holds_at_once_and_lets_what_was_begun_go_on() -> None:
    world = World(carts(3), replace(PLAIN, batch="2"))
    world.step()
    world.operation.wish = Wish.PAUSE
    assert world.waits() == "paused, until somebody resumes or aborts it; 2 targets in work go on"
    assert world.operation.state is OperationState.PAUSED
    world.end("web-1/cart")
    assert world.waits() == "paused, until somebody resumes or aborts it; 1 target in work goes on"
    world.end("web-2/cart")
    assert world.waits() == "paused, until somebody resumes or aborts it"
    world.operation.wish = Wish.RUN
    assert world.starts() == ["web-3/cart"]
    assert world.operation.state is OperationState.RUNNING


def test_a_pause_of_what_only_waits_for_its_last_targets_does_not_matter() -> None:
    world = World(carts(1))
    world.step()
    world.operation.wish = Wish.PAUSE
    assert world.waits() == "waiting for web-1/cart"
    world.end("web-1/cart")
    assert world.finishes() == ("succeeded", None)


def test_an_abort_begins_nothing_more_and_follows_what_was_begun() -> None:
    world = World(carts(4), replace(PLAIN, batch="2"))
    world.step()
    world.operation.wish = Wish.ABORT
    assert world.waits() == "waiting for web-1/cart, web-2/cart"
    assert world.states() == "sent sent skipped skipped"
    assert world.target("web-3/cart").detail == "the operation was aborted before its turn"
    world.end("web-1/cart")
    world.end("web-2/cart", FAILED)
    assert world.finishes() == ("aborted", "aborted when 1 of 4 were done")
    assert world.batch_states() == "failed skipped"


def test_an_abort_before_the_beginning_ends_it_at_once() -> None:
    world = World(carts(2), CANARY)
    world.operation.wish = Wish.ABORT
    assert world.finishes() == ("aborted", "aborted when 0 of 2 were done")
    assert world.batch_states() == "skipped skipped"


def test_an_abort_while_the_canary_bakes_ends_it() -> None:
    world = canary_world()
    world.waits()
    world.operation.wish = Wish.ABORT
    assert world.finishes()[0] == "aborted"
    assert world.batch_states() == "succeeded skipped"


# The deadline.


def test_nothing_is_begun_after_the_deadline() -> None:
    world = World(carts(2))
    world.now = 1000
    assert world.finishes() == ("expired", "the deadline came before anything was begun")
    assert world.states() == "expired expired"
    assert world.batch_states() == "skipped skipped"


def test_what_was_begun_before_the_deadline_is_followed_to_its_end() -> None:
    world = World(carts(2), replace(PLAIN, target_seconds=2000))
    world.now = 999
    assert world.starts() == ["web-1/cart"]
    step = world.look()
    assert isinstance(step, Wait)
    assert step.seconds == 1
    world.now = 1000
    assert world.waits() == "waiting for web-1/cart"
    assert world.states() == "sent expired"
    world.end("web-1/cart")
    assert world.finishes() == ("failed", "the deadline came before 1 of 2")


def test_what_is_paused_expires_too() -> None:
    world = World(carts(2))
    world.operation.wish = Wish.PAUSE
    assert world.waits().startswith("paused")
    world.now = 1001
    assert world.finishes()[0] == "expired"


def test_a_deadline_while_the_canary_bakes_ends_it() -> None:
    world = canary_world()
    world.operation.deadline = world.operation.created
    assert world.finishes() == ("failed", "the deadline came before 2 of 3")
    assert world.batch_states() == "succeeded skipped"


def test_an_allowed_failure_before_the_deadline_is_no_reason_to_say_that_nothing_began() -> None:
    world = World(carts(2), replace(PLAIN, max_failures=1))
    world.step()
    world.end("web-1/cart", FAILED)
    world.now = 1000
    assert world.finishes() == ("failed", "the deadline came before 1 of 2")


def test_all_was_begun_in_time_so_the_deadline_does_not_matter() -> None:
    world = World(carts(1))
    world.step()
    world.now = 1001
    world.target("web-1/cart").started = world.operation.deadline
    assert world.waits() == "waiting for web-1/cart"
    world.end("web-1/cart")
    assert world.finishes() == ("succeeded", None)


def test_nobody_waits_longer_than_a_minute_without_a_look() -> None:
    world = World(carts(1))
    world.step()
    step = world.look()
    assert isinstance(step, Wait)
    assert step.seconds == 60


def test_batches_that_a_canary_is_not_among_are_no_canaries() -> None:
    world = World(carts(2), CANARY)
    world.operation.batches = [Batch(1, "rest")]
    assert world.starts() == ["web-1/cart"]
    world.end("web-1/cart")
    assert isinstance(world.step(), Start)


def test_several_services_wait_for_each_other_and_each_keeps_its_floor() -> None:
    entries = [*carts(4), *(entry(f"web-{number}", "pay") for number in (1, 2))]
    world = World(entries, replace(PLAIN, batch="50%", floor_percent=50))
    assert world.starts() == ["web-1/cart", "web-2/cart", "web-1/pay"]
    world.end("web-1/cart")
    world.end("web-2/cart")
    assert world.waits() == "waiting for web-1/pay"
    world.end("web-1/pay")
    world.show("web-1/pay", status="warming", weight=50)
    assert world.starts() == ["web-3/cart", "web-4/cart"]
    assert "pay has 75 % of its weight, 25 % without web-2/pay, 50 % must stay" in world.waits()
