"""Each answer on its own: what an event does to a unit where it stands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor.core.events import (
    ArmTimer,
    CancelRequested,
    DependenciesReady,
    Drain,
    Drained,
    DrainRequested,
    Event,
    Exited,
    Gone,
    LivenessLost,
    Publish,
    ReadinessLost,
    ReadinessRegained,
    Ready,
    RestartRequested,
    Spawn,
    Spawned,
    StartRequested,
    StopRequested,
    Terminate,
    TimerFired,
    TreeEmpty,
    Unconfirmed,
    UndrainRequested,
    Withdraw,
)
from supervisor.core.model import Exit, Phase, Unit, UnitSpec
from tests.supervisor.core.lives import (
    BAD,
    CLEAN,
    PLAIN,
    PREWARMED,
    SERVICE,
    SETTLING,
    TOLD,
    TOLD_AND_BACK,
    after,
    facts,
    kinds,
    running,
    starting,
)

AWAY = "the registry is away"

# Waiting, starting, backing off.


def test_a_unit_waits_for_what_it_depends_on() -> None:
    unit, actions = after(Unit(), PLAIN, StartRequested("database"))
    assert (unit.phase, unit.reason, actions) == (Phase.WAITING, "waits for database to be ready", ())
    unit, actions = after(unit, PLAIN, DependenciesReady())
    assert (unit.phase, kinds(actions)) == (Phase.STARTING, [Spawn, ArmTimer])


@pytest.mark.parametrize("event", [StopRequested(), CancelRequested()])
def test_a_waiting_unit_can_be_stopped(event: Event) -> None:
    unit, actions = after(Unit(), PLAIN, StartRequested("database"), event)
    assert (*facts(unit, "phase", "wanted"), actions) == (Phase.STOPPED, False, ())


@pytest.mark.parametrize("answer", [Gone(1, 1), Unconfirmed(1, 1, AWAY)])
def test_a_unit_that_waits_for_others_learns_meanwhile_that_its_entry_is_gone(answer: Event) -> None:
    given_up = replace(running(SERVICE), phase=Phase.FATAL, live=False, withdrawal=1, withdrawn=True)
    unit, _ = after(given_up, SERVICE, StartRequested("database"), answer)
    assert facts(unit, "phase", "published") == (Phase.WAITING, False)
    unit, _ = after(unit, SERVICE, DependenciesReady())
    assert unit.phase is Phase.STARTING


def test_what_waited_for_others_still_waits_for_its_entry() -> None:
    given_up = replace(running(SERVICE), phase=Phase.FATAL, live=False, withdrawal=1, withdrawn=True)
    unit, _ = after(given_up, SERVICE, StartRequested("database"), DependenciesReady())
    assert facts(unit, "phase", "delay_over") == (Phase.BACKOFF, True)
    unit, actions = after(unit, SERVICE, Gone(1, 1))
    assert (unit.phase, kinds(actions)) == (Phase.STARTING, [Spawn, ArmTimer])


def test_a_start_that_takes_too_long_is_terminated_and_tried_again() -> None:
    unit = starting(PLAIN)
    unit, actions = after(unit, PLAIN, TimerFired(unit.timer))
    assert (unit.phase, kinds(actions)) == (Phase.STOPPING, [Terminate, ArmTimer])
    unit, actions = after(unit, PLAIN, Exited(1, Exit("killed by SIGTERM", signal=15), 170.0, 0.5))
    assert facts(unit, "phase", "failed_starts") == (Phase.BACKOFF, 1)
    assert unit.last_exit is not None
    assert unit.last_exit.reason == "was not ready within 60 s"
    assert isinstance(actions[0], ArmTimer) and actions[0].automatic


def test_a_start_that_takes_too_long_says_what_it_waited_for_where_that_is_known() -> None:
    unit = starting(PLAIN)
    unit, _ = after(unit, PLAIN, TimerFired(unit.timer, "GET /ready: connection refused"))
    assert unit.reason == "was not ready within 60 s: GET /ready: connection refused"


@pytest.mark.parametrize("spec", [PLAIN, PREWARMED])
def test_a_startup_probe_that_fails_for_good_ends_the_attempt(spec: UnitSpec) -> None:
    unit = starting(spec) if spec is PLAIN else after(starting(spec), spec, Ready(1, 1.0))[0]
    unit, actions = after(unit, spec, LivenessLost(1, "its startup probe failed"))
    assert (unit.phase, kinds(actions)) == (Phase.STOPPING, [Terminate, ArmTimer])
    unit, _ = after(unit, spec, Exited(1, CLEAN, 170.0, 0.5))
    assert (unit.phase, unit.reason) == (Phase.BACKOFF, "its startup probe failed")


@pytest.mark.parametrize("ready", [(), (Ready(1, 1.0),)])
def test_a_restart_on_the_way_up_terminates_first(ready: tuple[Event, ...]) -> None:
    unit, actions = after(Unit(), PREWARMED, StartRequested(), *ready, RestartRequested())
    assert kinds(actions) == [Terminate, ArmTimer]
    unit, _ = after(unit, PREWARMED, Exited(1, BAD, 1.0, 0.5))
    assert facts(unit, "phase", "attempt") == (Phase.STARTING, 2)


@pytest.mark.parametrize("event", [StopRequested(), CancelRequested()])
def test_a_stop_on_the_way_up_terminates(event: Event) -> None:
    unit, actions = after(Unit(), PLAIN, StartRequested(), event)
    assert kinds(actions) == [Terminate, ArmTimer]
    unit, _ = after(unit, PLAIN, Exited(1, BAD, 1.0, 0.5))
    assert unit.phase is Phase.STOPPED


def test_backoff_can_be_cut_short_or_ended() -> None:
    unit, _ = after(Unit(), PLAIN, StartRequested(), Exited(1, BAD, 1.0, 0.5))
    assert unit.phase is Phase.BACKOFF
    for event in (StartRequested(), RestartRequested()):
        started, _ = after(unit, PLAIN, event)
        assert facts(started, "phase", "attempt") == (Phase.STARTING, 2)
    for event in (StopRequested(), CancelRequested()):
        stopped, _ = after(unit, PLAIN, event)
        assert facts(stopped, "phase", "wanted") == (Phase.STOPPED, False)


def test_a_stop_of_what_rests_is_a_word_only() -> None:
    unit, _ = after(running(PLAIN), PLAIN, Exited(1, CLEAN, 200.0, 0.5))
    unit, actions = after(unit, PLAIN, StopRequested())
    assert (*facts(unit, "phase", "crashed", "reason"), actions) == (Phase.STOPPED, False, "", ())


# Readiness and liveness.


def test_lost_readiness_withdraws_and_leaves_the_process_alone() -> None:
    unit, actions = after(running(SERVICE), SERVICE, ReadinessLost(1, "its readiness probe fails"))
    assert actions == (Withdraw(1, 1),)
    expected = (Phase.RUNNING, True, True, "its readiness probe fails")
    assert facts(unit, "phase", "live", "published", "reason") == expected
    again, actions = after(unit, SERVICE, ReadinessLost(1, "its readiness probe fails"))
    assert (again.withdrawal, actions) == (1, ())
    unit, _ = after(unit, SERVICE, Gone(1, 1))
    assert not unit.published


@pytest.mark.parametrize("gone", [(), (Gone(1, 1),)])
def test_regained_readiness_publishes_again(gone: tuple[Event, ...]) -> None:
    unit, _ = after(running(SERVICE), SERVICE, ReadinessLost(1, "full"), *gone)
    unit, actions = after(unit, SERVICE, ReadinessRegained(1, 7.0))
    assert (*facts(unit, "healthy", "ready_at", "reason"), actions) == (True, 7.0, "", (Publish(1),))
    late, actions = after(unit, SERVICE, Gone(1, 1))
    assert (late.published, actions) == (True, ()), "that withdrawal was taken back"
    late, actions = after(unit, SERVICE, Unconfirmed(1, 1, AWAY))
    assert (late, actions) == (unit, ())
    same, actions = after(unit, SERVICE, ReadinessRegained(1, 8.0))
    assert (same, actions) == (unit, ())


def test_a_withdrawal_of_an_unready_unit_is_tried_until_it_is_confirmed() -> None:
    unit, actions = after(running(SERVICE), SERVICE, ReadinessLost(1, "full"), Unconfirmed(1, 1, AWAY))
    assert (unit.published, actions) == (True, (Withdraw(1, 2),))
    unit, _ = after(unit, SERVICE, Gone(1, 2))
    assert not unit.published


def test_a_dead_unit_leaves_the_registry_first_and_is_not_drained() -> None:
    unit, actions = after(running(TOLD), TOLD, LivenessLost(1, "deaf"))
    assert (unit.phase, actions) == (Phase.EXPIRING, (Withdraw(1, 1),))
    for answer in (Gone(1, 1), Unconfirmed(1, 1, AWAY)):
        out, actions = after(unit, TOLD, answer)
        assert (out.phase, kinds(actions)) == (Phase.STOPPING, [Terminate, ArmTimer])
    unit, _ = after(out, TOLD, Exited(1, BAD, 200.0, 0.5))
    assert facts(unit, "phase", "reason", "restarts") == (Phase.BACKOFF, "deaf", 1)


@pytest.mark.parametrize("asked", [StopRequested(), DrainRequested(), RestartRequested()])
def test_nothing_is_awaited_of_a_unit_that_dies_on_its_way_out(asked: Event) -> None:
    unit, _ = after(running(SERVICE), SERVICE, asked, Gone(1, 1))
    assert unit.phase is Phase.DRAINING
    unit, actions = after(unit, SERVICE, LivenessLost(1, "deaf"))
    assert (unit.phase, kinds(actions)) == (Phase.STOPPING, [Terminate, ArmTimer])
    unit, _ = after(unit, SERVICE, Exited(1, BAD, 200.0, 0.5))
    wanted = {StopRequested: Phase.STOPPED, DrainRequested: Phase.BACKOFF, RestartRequested: Phase.STARTING}
    assert unit.phase is wanted[type(asked)]
    assert unit.drained is isinstance(asked, DrainRequested)


def test_a_unit_dies_only_once() -> None:
    unit, _ = after(running(SERVICE), SERVICE, StopRequested(), LivenessLost(1, "deaf"))
    assert after(unit, SERVICE, LivenessLost(1, "still deaf")) == (unit, ())
    ended, _ = after(running(SERVICE), SERVICE, StopRequested(), Exited(1, BAD, 9.0, 0.5))
    assert after(ended, SERVICE, LivenessLost(1, "deaf")) == (ended, ())


def test_what_happens_to_readiness_on_the_way_out_counts_if_it_is_called_off() -> None:
    unit, _ = after(running(SERVICE), SERVICE, StopRequested(), ReadinessLost(1, "full"))
    held, actions = after(unit, SERVICE, CancelRequested())
    assert (*facts(held, "phase", "healthy"), actions) == (Phase.RUNNING, False, ())
    held, _ = after(held, SERVICE, Gone(1, 1))
    assert not held.published
    back, actions = after(unit, SERVICE, ReadinessRegained(1, 9.0), CancelRequested())
    assert (back.healthy, actions) == (True, (Publish(1),))


# The registry does not answer.


def test_a_healthy_unit_is_held_when_the_registry_cannot_confirm() -> None:
    unit, actions = after(running(SERVICE), SERVICE, StopRequested(), Unconfirmed(1, 1, AWAY))
    assert (*facts(unit, "phase", "wanted"), actions) == (Phase.RUNNING, True, (Publish(1),))
    assert unit.reason == f"not stopped: {AWAY}"


def test_a_held_drain_is_over() -> None:
    unit, actions = after(running(SERVICE), SERVICE, DrainRequested(), Unconfirmed(1, 1, AWAY))
    assert (*facts(unit, "phase", "drained"), actions) == (Phase.RUNNING, False, (Publish(1),))
    assert unit.reason == f"not drained: {AWAY}"


def test_a_unit_that_was_out_of_traffic_before_is_held_out_of_it() -> None:
    unit, _ = after(running(SERVICE), SERVICE, ReadinessLost(1, "full"), StopRequested())
    unit, actions = after(unit, SERVICE, Unconfirmed(1, 1, AWAY))
    assert (*facts(unit, "phase", "published"), actions) == (Phase.RUNNING, True, (Withdraw(1, 2),))


def test_a_drain_that_a_held_stop_had_overtaken_goes_on_being_withdrawn() -> None:
    unit, _ = after(running(SERVICE), SERVICE, DrainRequested(), StopRequested())
    unit, actions = after(unit, SERVICE, Unconfirmed(1, 1, AWAY))
    assert (*facts(unit, "phase", "drained"), actions) == (Phase.RUNNING, True, (Withdraw(1, 2),))
    unit, _ = after(unit, SERVICE, StopRequested())
    unit, actions = after(unit, SERVICE, Gone(1, 2))
    assert (unit.phase, kinds(actions)) == (Phase.DRAINING, [Drain, ArmTimer])


def test_a_forced_stop_goes_on_without_the_registry() -> None:
    unit, actions = after(running(SERVICE), SERVICE, StopRequested(force=True), Unconfirmed(1, 1, AWAY))
    assert (unit.phase, kinds(actions)) == (Phase.DRAINING, [Drain, ArmTimer])


@pytest.mark.parametrize("late", [StopRequested(force=True), RestartRequested(force=True)])
def test_force_may_come_later(late: Event) -> None:
    unit, _ = after(running(SERVICE), SERVICE, StopRequested(), late, Unconfirmed(1, 1, AWAY))
    assert unit.phase is Phase.DRAINING


# Changes of mind on the way out.


@pytest.mark.parametrize(("spec", "before"), [(SERVICE, ()), (SETTLING, (Gone(1, 1),)), (SERVICE, (Gone(1, 1),))])
def test_before_anything_was_signalled_a_stop_can_be_called_off(spec: UnitSpec, before: tuple[Event, ...]) -> None:
    unit, actions = after(running(spec), spec, StopRequested(), *before, CancelRequested())
    assert (*facts(unit, "phase", "wanted", "leaving"), actions) == (Phase.RUNNING, True, False, (Publish(1),))


def test_a_gone_of_a_withdrawal_that_was_called_off_opens_no_gate() -> None:
    unit, _ = after(running(SERVICE), SERVICE, StopRequested(), CancelRequested(), StopRequested(), Gone(1, 1))
    assert unit.phase is Phase.EXPIRING
    unit, _ = after(unit, SERVICE, Gone(1, 2))
    assert unit.phase is Phase.DRAINING


@pytest.mark.parametrize("late", [StartRequested(), RestartRequested()])
def test_whoever_wants_it_again_on_its_way_out_gets_it_afterwards(late: Event) -> None:
    unit, _ = after(running(SERVICE), SERVICE, StopRequested(), late, Gone(1, 1), Drained(1))
    unit, actions = after(unit, SERVICE, Exited(1, CLEAN, 200.0, 0.5))
    assert (unit.phase, kinds(actions)) == (Phase.STARTING, [Spawn, ArmTimer])
    signalled, _ = after(running(SERVICE), SERVICE, StopRequested(), Gone(1, 1), Drained(1), late)
    assert signalled.wanted


def test_a_stop_during_a_restart_wins() -> None:
    for events in ((StopRequested(), Gone(1, 1), Drained(1)), (Gone(1, 1), Drained(1), StopRequested())):
        unit, _ = after(running(SERVICE), SERVICE, RestartRequested(), *events)
        unit, _ = after(unit, SERVICE, Exited(1, CLEAN, 200.0, 0.5))
        assert unit.phase is Phase.STOPPED


def test_a_start_does_not_end_a_drain() -> None:
    unit, _ = after(running(SERVICE), SERVICE, DrainRequested())
    same, actions = after(unit, SERVICE, StartRequested())
    assert (same, actions) == (unit, ())


@pytest.mark.parametrize("spec", [TOLD, TOLD_AND_BACK])
@pytest.mark.parametrize("asked", [StopRequested(), RestartRequested()])
def test_a_stop_overtakes_a_drain_and_the_drain_stays(spec: UnitSpec, asked: Event) -> None:
    unit, _ = after(running(spec), spec, DrainRequested(), asked)
    assert facts(unit, "phase", "leaving", "drained") == (Phase.EXPIRING, True, True)
    unit, _ = after(unit, spec, UndrainRequested())
    assert facts(unit, "phase", "leaving", "drained") == (Phase.EXPIRING, True, False)


def test_a_drain_during_a_stop_is_remembered_for_the_next_start() -> None:
    unit, _ = after(running(SERVICE), SERVICE, RestartRequested(), DrainRequested(), Gone(1, 1), Drained(1))
    unit, actions = after(unit, SERVICE, Exited(1, CLEAN, 9.0, 0.5), Ready(2, 10.0))
    assert (*facts(unit, "phase", "drained"), actions) == (Phase.RUNNING, True, ())


def test_a_drain_that_is_there_already_is_no_news() -> None:
    unit, _ = after(running(SERVICE), SERVICE, DrainRequested(), Gone(1, 1), Drained(1))
    assert after(unit, SERVICE, DrainRequested()) == (unit, ())
    assert after(running(SERVICE), SERVICE, UndrainRequested()) == (running(SERVICE), ())
    for noted in (Unit(), Unit(drained=True)):
        assert after(noted, SERVICE, DrainRequested())[0].drained
        assert not after(noted, SERVICE, UndrainRequested())[0].drained


# It ends by itself on the way out.


def test_a_unit_that_ends_by_itself_while_expiring_still_waits_for_its_entry() -> None:
    unit, actions = after(running(SERVICE), SERVICE, RestartRequested(), Exited(1, BAD, 200.0, 0.5))
    assert (*facts(unit, "phase", "published"), actions) == (Phase.BACKOFF, True, ())
    unit, actions = after(unit, SERVICE, Gone(1, 1))
    assert (unit.phase, kinds(actions)) == (Phase.STARTING, [Spawn, ArmTimer])


def test_a_unit_that_ends_by_itself_before_its_stop_is_stopped_when_its_entry_is_gone() -> None:
    unit, _ = after(running(SERVICE), SERVICE, StopRequested(), Exited(1, BAD, 200.0, 0.5))
    assert facts(unit, "phase", "live") == (Phase.EXPIRING, False)
    for event in (StartRequested(), RestartRequested()):
        assert after(unit, SERVICE, event)[0].phase is Phase.BACKOFF
    assert after(unit, SERVICE, CancelRequested()) == (unit, ())
    undrained, _ = after(unit, SERVICE, DrainRequested(), UndrainRequested())
    assert undrained == unit
    for answer in (Gone(1, 1), Unconfirmed(1, 1, AWAY)):
        assert after(unit, SERVICE, answer)[0].phase is Phase.STOPPED


def test_leftovers_of_a_unit_that_ended_while_expiring_are_terminated() -> None:
    unit, actions = after(running(SERVICE), SERVICE, StopRequested(), Exited(1, BAD, 200.0, 0.5, leftovers=True))
    assert (unit.phase, kinds(actions)) == (Phase.STOPPING, [Terminate, ArmTimer])
    unit, _ = after(unit, SERVICE, TreeEmpty(1, 201.0, 0.5))
    assert facts(unit, "phase", "published") == (Phase.EXPIRING, True)


def test_a_unit_that_crashes_while_it_is_drained_comes_back_drained() -> None:
    unit, actions = after(running(SERVICE), SERVICE, DrainRequested(), Exited(1, BAD, 200.0, 0.5))
    assert (*facts(unit, "phase", "restarts"), kinds(actions)) == (Phase.BACKOFF, 1, [ArmTimer])
    unit, _ = after(unit, SERVICE, Gone(1, 1), TimerFired(unit.timer))
    unit, actions = after(unit, SERVICE, Ready(2, 9.0))
    assert (*facts(unit, "phase", "drained"), actions) == (Phase.RUNNING, True, ())


def test_after_a_crash_of_a_registered_unit_backoff_and_removal_run_at_the_same_time() -> None:
    unit, actions = after(running(SERVICE), SERVICE, Exited(1, BAD, 200.0, 0.5))
    assert kinds(actions) == [Withdraw, ArmTimer]
    timer_first, actions = after(unit, SERVICE, TimerFired(unit.timer))
    assert (timer_first.phase, actions) == (Phase.BACKOFF, ())
    for answer in (Gone(1, 1), Unconfirmed(1, 1, AWAY)):
        assert kinds(after(timer_first, SERVICE, answer)[1]) == [Spawn, ArmTimer]
    gone_first, actions = after(unit, SERVICE, Gone(1, 1))
    assert (gone_first.phase, actions) == (Phase.BACKOFF, ())
    _, actions = after(gone_first, SERVICE, TimerFired(gone_first.timer))
    assert kinds(actions) == [Spawn, ArmTimer]


def test_what_a_crashed_unit_left_behind_is_terminated_before_it_starts_again() -> None:
    unit, actions = after(running(SERVICE), SERVICE, Exited(1, BAD, 200.0, 0.5, leftovers=True))
    assert (unit.phase, kinds(actions)) == (Phase.STOPPING, [Withdraw, Terminate, ArmTimer])
    unit, _ = after(unit, SERVICE, Gone(1, 1))
    unit, actions = after(unit, SERVICE, TreeEmpty(1, 201.0, 0.5))
    assert (*facts(unit, "phase", "last_exit"), kinds(actions)) == (Phase.BACKOFF, BAD, [ArmTimer])


def test_a_process_says_late_that_it_was_spawned() -> None:
    unit, actions = after(Unit(), PLAIN, StartRequested(), Spawned(1, 77))
    assert (unit.pid, actions) == (77, ())
