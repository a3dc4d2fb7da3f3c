"""The mailbox of all units: order, timers, the budget, and mistakes that stay where they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from supervisor.core.events import (
    Action,
    Drain,
    Event,
    Exited,
    Kill,
    Publish,
    Ready,
    Spawn,
    Spawned,
    StartRequested,
    StopRequested,
    Terminate,
    TimerFired,
    Withdraw,
)  # fmt: skip
from supervisor.core.model import Exit, Phase, RestartPolicy, Unit, UnitSpec
from supervisor.core.restart import TokenBucket
from supervisor.host.clock import monotonic, wall
from supervisor.host.runner import Runner, Runners
from tests.supervisor.running import run, until

KINDS: tuple[type[Action], ...] = (Spawn, Publish, Withdraw, Drain, Terminate, Kill)
WEB = UnitSpec("web", "web", 0, ("web",))


class Units:
    """Runners whose actions are noted, and done by what a test gives for them."""

    def __init__(
        self, *specs: UnitSpec, budget: TokenBucket | None = None, **doing: Callable[[str, Any], None]
    ) -> None:
        self.told = list[tuple[str, Action]]()
        self.seen = list[tuple[str, Event]]()
        self.doing = doing
        full = budget or TokenBucket.full(60_000, 1000, monotonic())
        self.runners = Runners(dict.fromkeys(KINDS, self.perform), full)
        for spec in specs or (WEB,):
            self.runners.add(spec, 0)
        self.runners.observe(self.observe)

    def perform(self, runner: Runner, action: Action) -> None:
        self.told.append((runner.spec.name, action))
        do = self.doing.get(type(action).__name__.lower())
        if do is not None:
            do(runner.spec.name, action)

    def observe(self, runner: Runner, before: Unit, event: Event) -> None:
        self.seen.append((runner.spec.name, event))

    def post(self, event: Event, name: str = "web") -> None:
        self.runners.post(name, event)

    def unit(self, name: str = "web") -> Unit:
        return self.runners.by_name[name].unit

    def up(self, name: str = "web") -> None:
        self.post(StartRequested(), name)
        self.post(Spawned(1, 42), name)
        self.post(Ready(1, monotonic()), name)
        assert self.unit(name).phase is Phase.RUNNING


def crash(attempt: int = 1) -> Exited:
    return Exited(attempt, Exit("exited with code 1", code=1), monotonic(), 0.5)


def test_an_event_is_answered_with_actions_then_observers_are_told() -> None:
    async def scenario() -> None:
        units = Units()
        units.post(StartRequested())
        assert units.told == [("web", Spawn(1))]
        assert units.seen == [("web", StartRequested())]
        units.runners.by_name["web"].timer.cancel()  # type: ignore[union-attr]

    run(scenario())


def test_what_changes_nothing_is_not_told() -> None:
    async def scenario() -> None:
        units = Units()
        units.post(Ready(1, 0.0))
        units.post(TimerFired(99))
        assert units.seen == [] and units.told == []

    run(scenario())


def test_what_is_posted_for_a_unit_that_is_not_there_is_dropped() -> None:
    async def scenario() -> None:
        units = Units()
        units.post(StartRequested(), "unknown")
        units.runners.remove("web")
        units.post(StartRequested())
        assert units.seen == [] and units.told == []

    run(scenario())


def test_events_posted_while_one_is_answered_follow_in_their_order() -> None:
    async def scenario() -> None:
        def spawn(name: str, action: Spawn) -> None:
            units.post(Spawned(action.attempt, 42), name)
            units.post(Ready(action.attempt, 1.0), name)
            assert units.unit(name).phase is Phase.STARTING, "answered after this step, not within it"

        units = Units(spawn=spawn)
        units.post(StartRequested())
        assert units.unit().phase is Phase.RUNNING
        assert [event for _, event in units.seen] == [StartRequested(), Spawned(1, 42), Ready(1, 1.0)]

    run(scenario())


def test_observers_that_post_are_answered_after_all_observers_were_told() -> None:
    async def scenario() -> None:
        units = Units(WEB, replace(WEB, name="cart"))
        order = list[tuple[str, str]]()

        def first(runner: Runner, before: Unit, event: Event) -> None:
            order.append(("first", runner.spec.name))
            if runner.spec.name == "web" and isinstance(event, StartRequested):
                units.post(StartRequested(), "cart")

        units.runners.observe(first)
        units.runners.observe(lambda runner, before, event: order.append(("second", runner.spec.name)))
        units.post(StartRequested())
        assert order == [("first", "web"), ("second", "web"), ("first", "cart"), ("second", "cart")]
        for runner in units.runners.by_name.values():
            runner.timer.cancel()  # type: ignore[union-attr]

    run(scenario())


# Mistakes.


def test_a_performer_that_fails_does_not_keep_the_other_actions_from_being_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        def fail(name: str, action: Action) -> None:
            raise ZeroDivisionError("a mistake")

        units = Units(WEB, replace(WEB, name="cart"), spawn=fail)
        units.post(StartRequested())
        runner = units.runners.by_name["web"]
        assert runner.timer is not None, "its start timeout is armed all the same"
        assert units.seen == [("web", StartRequested())]
        units.doing.clear()
        units.up("cart")
        units.post(StopRequested())
        assert units.unit().phase is Phase.STOPPING
        for one in units.runners.by_name.values():
            if one.timer is not None:
                one.timer.cancel()

    run(scenario())
    assert "web: cannot carry out Spawn(attempt=1)" in caplog.text
    assert "ZeroDivisionError: a mistake" in caplog.text


def test_an_observer_that_fails_does_not_keep_the_others_from_being_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        def fail(runner: Runner, before: Unit, event: Event) -> None:
            raise ZeroDivisionError("a mistake")

        units = Units()
        told = list[Event]()
        units.runners.observe(fail)
        units.runners.observe(lambda runner, before, event: told.append(event))
        units.up()
        assert len(told) == 3

    run(scenario())
    assert caplog.text.count("ZeroDivisionError: a mistake") == 3


# Timers.


def test_a_timer_fires_once_its_time_is_over() -> None:
    async def scenario() -> None:
        units = Units(replace(WEB, start_timeout=0.05))
        units.post(StartRequested())
        runner, began = units.runners.by_name["web"], monotonic()
        assert runner.retry_at is not None and 0.0 < runner.retry_at - began <= 0.05
        await until(lambda: units.unit().phase is Phase.STOPPING)
        assert monotonic() - began >= 0.045
        assert units.told[-1] == ("web", Terminate(1))
        runner.timer.cancel()  # type: ignore[union-attr]

    run(scenario())


def test_entering_a_phase_disarms_its_timer() -> None:
    async def scenario() -> None:
        units = Units(replace(WEB, start_timeout=0.05))
        units.up()
        runner, began = units.runners.by_name["web"], monotonic()
        assert runner.timer is None and runner.retry_at is None
        await until(lambda: monotonic() - began > 0.1)
        assert units.unit().phase is Phase.RUNNING

    run(scenario())


def test_the_next_timer_replaces_the_last() -> None:
    async def scenario() -> None:
        units = Units(replace(WEB, start_timeout=0.05, stopwaitsecs=0.2))
        units.post(StartRequested())
        units.post(StopRequested())
        began = monotonic()
        await until(lambda: units.unit().phase is Phase.KILLING)
        assert monotonic() - began >= 0.19
        units.runners.by_name["web"].timer.cancel()  # type: ignore[union-attr]

    run(scenario())


def test_a_removed_units_timer_does_not_fire() -> None:
    async def scenario() -> None:
        units = Units(replace(WEB, start_timeout=0.02))
        units.post(StartRequested())
        units.runners.remove("web")
        units.runners.add(WEB, 5)
        began = monotonic()
        await until(lambda: monotonic() - began > 0.06)
        assert units.unit() == Unit(attempt=5)

    run(scenario())


def test_a_timer_of_no_time_is_answered_at_once() -> None:
    async def scenario() -> None:
        units = Units()
        units.up()
        units.post(crash())  # the first crash of a unit that was ready is answered without delay
        assert units.unit().phase is Phase.STARTING
        assert units.unit().attempt == 2
        units.runners.by_name["web"].timer.cancel()  # type: ignore[union-attr]

    run(scenario())


# The budget.


def test_the_hosts_budget_prolongs_automatic_restarts(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        specs = [replace(WEB, name=f"web:{number}") for number in range(3)]
        units = Units(*specs, budget=TokenBucket.full(per_minute=300, burst=1, now=monotonic()))
        for spec in specs:
            units.up(spec.name)
        began = monotonic()
        for spec in specs:
            units.post(crash(), spec.name)
        assert units.unit("web:0").phase is Phase.STARTING, "paid from what was there"
        assert units.unit("web:1").phase is units.unit("web:2").phase is Phase.BACKOFF
        await until(lambda: units.unit("web:2").phase is Phase.STARTING)
        assert units.unit("web:1").phase is Phase.STARTING
        assert monotonic() - began >= 0.38, "two tokens at five a second"
        for runner in units.runners.by_name.values():
            runner.timer.cancel()  # type: ignore[union-attr]

    run(scenario())
    assert "web:1: restarted only in 0.2 s: the host's budget of restarts is used up" in caplog.text


def test_the_budget_does_not_shorten_a_backoff_and_orders_do_not_pay() -> None:
    async def scenario() -> None:
        policy = RestartPolicy(backoff_initial=30.0, backoff_jitter=0.0)
        units = Units(replace(WEB, restart=policy), budget=TokenBucket.full(60, 1, monotonic()))
        units.post(StartRequested())
        units.post(crash())
        runner = units.runners.by_name["web"]
        assert runner.retry_at is not None and runner.retry_at - monotonic() > 29
        for attempt in range(2, 6):
            units.post(StartRequested())
            assert units.unit().attempt == attempt, "a person's order is not delayed"
            units.post(StopRequested())
            units.post(crash(attempt))
        if runner.timer is not None:
            runner.timer.cancel()

    run(scenario())


# Specs.


def test_a_new_spec_takes_over_with_the_next_attempt() -> None:
    async def scenario() -> None:
        units = Units()
        units.up()
        runner, later = units.runners.by_name["web"], replace(WEB, argv=("later",))
        runner.next_spec = later
        units.post(StopRequested())
        assert runner.spec == WEB
        units.post(crash())
        assert runner.spec == WEB and units.unit().phase is Phase.STOPPED
        seen = list[UnitSpec]()
        units.doing["spawn"] = lambda name, action: seen.append(runner.spec)
        units.post(StartRequested())
        assert runner.spec == later and runner.next_spec is None
        assert seen == [later], "the process is started as the new spec says"
        runner.timer.cancel()

    run(scenario())


def test_it_is_noted_when_a_unit_was_started_and_changed() -> None:
    async def scenario() -> None:
        units = Units()
        runner = units.runners.by_name["web"]
        assert runner.started_at == 0.0
        before = monotonic()
        units.up()
        assert before <= runner.started_at <= runner.changed_at <= monotonic()
        assert runner.started_wall > 1_600_000_000

    run(scenario())


# What is written down, and what was there before.


def test_every_step_is_recorded_before_its_actions_and_told_after_them() -> None:
    async def scenario() -> None:
        order = list[str]()
        runners = Runners(
            dict.fromkeys(KINDS, lambda runner, action: order.append(type(action).__name__)),
            TokenBucket.full(600, 100, monotonic()),
            lambda runner, before, event, actions: order.append(
                f"record {before.phase.value} to {runner.unit.phase.value} with {len(actions)}"
            ),
        )
        runners.observe(lambda runner, before, event: order.append("observe"))
        runners.add(WEB, 0)
        runners.post("web", StartRequested())
        assert order == ["record stopped to starting with 2", "Spawn", "observe"]
        runners.post("web", TimerFired(99))
        assert len(order) == 3
        runners.remove("web")

    run(scenario())


def test_a_record_that_cannot_be_written_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        def fail(*_: object) -> None:
            raise OSError("the disk is full")

        told = list[Action]()
        performers = dict.fromkeys(KINDS, lambda runner, action: told.append(action))
        runners = Runners(performers, TokenBucket.full(600, 100, monotonic()), fail)
        runners.add(WEB, 0)
        runners.post("web", StartRequested())
        assert told == [Spawn(1)]
        assert "the disk is full" in caplog.text
        runners.remove("web")

    run(scenario())


def test_a_unit_begins_with_its_last_generation_and_out_of_traffic_if_it_is_to_be() -> None:
    async def scenario() -> None:
        units = Units()
        runner = units.runners.add(replace(WEB, name="cart"), 41, drained=True)
        assert runner.unit == Unit(attempt=41, drained=True)
        units.post(StartRequested(), "cart")
        assert units.told == [("cart", Spawn(42))]
        units.runners.remove("cart")

    run(scenario())


def test_a_unit_of_an_earlier_daemon_goes_on_from_where_it_was() -> None:
    async def scenario() -> None:
        units = Units()
        left = Unit(phase=Phase.RUNNING, wanted=True, attempt=3, live=True, pid=42, ready_at=0.0)
        units.runners.adopt("web", left, wall() - 100.0)
        runner = units.runners.by_name["web"]
        assert runner.unit is left
        assert 99 < monotonic() - runner.started_at < 115
        assert (units.told, units.seen) == ([], []), "nothing has happened"
        units.post(StopRequested())
        assert units.told == [("web", Terminate(3))]
        units.runners.adopt("web", left, wall() + 3600.0)
        assert runner.started_at <= monotonic(), "the wall clock was set back meanwhile"
        units.runners.remove("web")

    run(scenario())


def test_a_timer_that_fires_says_what_was_awaited_when_it_did() -> None:
    async def scenario() -> None:
        seen = list[Event]()
        runners = Runners(
            dict.fromkeys(KINDS, lambda runner, action: None),
            TokenBucket.full(600, 100, monotonic()),
            awaited=lambda name: f"{name} does not answer",
        )
        runners.observe(lambda runner, before, event: seen.append(event))
        runners.add(replace(WEB, start_timeout=0.01), 0)
        runners.post("web", StartRequested())
        await until(lambda: len(seen) > 1)
        assert seen[1] == TimerFired(1, "web does not answer")
        assert runners.by_name["web"].unit.reason == "was not ready within 0.01 s: web does not answer"
        runners.remove("web")

    run(scenario())
