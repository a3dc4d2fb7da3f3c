"""The one way in and the one way out: in which order, with which actions and timers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor.core.events import (
    ArmTimer,
    CancelRequested,
    Drain,
    Drained,
    DrainRequested,
    Exited,
    Gone,
    Kill,
    LivenessLost,
    Prewarm,
    Prewarmed,
    Publish,
    ReadinessLost,
    ReadinessRegained,
    Ready,
    RestartRequested,
    Resume,
    Spawn,
    StartRequested,
    StopRequested,
    Terminate,
    TimerFired,
    TreeEmpty,
    UndrainRequested,
    Withdraw,
)
from supervisor.core.model import Phase, RestartPolicy, Unit, UnitSpec
from supervisor.core.paths import CANNOT_KILL_SECONDS, SPARE_SECONDS
from tests.supervisor.core.lives import (
    BAD,
    CLEAN,
    MISSING,
    PLAIN,
    PREWARMED,
    RAMPED,
    SERVICE,
    SETTLING,
    TOLD,
    TOLD_AND_BACK,
    WORKER,
    after,
    facts,
    kinds,
    running,
    starting,
    timer,
)

# The entry path.


def test_a_start_spawns_the_next_attempt_and_waits_for_readiness() -> None:
    unit, actions = after(Unit(attempt=6), PLAIN, StartRequested())
    assert facts(unit, "phase", "attempt", "wanted") == (Phase.STARTING, 7, True)
    assert actions == (Spawn(7), ArmTimer(unit.timer, PLAIN.start_timeout))


def test_a_ready_unit_without_a_service_runs_unpublished() -> None:
    unit, actions = after(starting(PLAIN), PLAIN, Ready(1, 5.0))
    assert (*facts(unit, "phase", "pid", "published"), actions) == (Phase.RUNNING, 4242, False, ())


@pytest.mark.parametrize("spec", [SERVICE, RAMPED])
def test_a_ready_unit_with_a_service_is_published_then_and_not_before(spec: UnitSpec) -> None:
    unit = starting(spec)
    assert not unit.published
    unit, actions = after(unit, spec, Ready(1, 5.0))
    assert unit.published
    assert actions == (Publish(1),)


@pytest.mark.parametrize("late", [False, True])
def test_the_first_requests_come_before_the_entry(late: bool) -> None:
    unit, actions = after(starting(PREWARMED), PREWARMED, Ready(1, 5.0))
    assert (unit.phase, unit.published) == (Phase.PREWARMING, False)
    assert actions == (Prewarm(1), ArmTimer(unit.timer, 7.0 + SPARE_SECONDS))
    unit, actions = after(unit, PREWARMED, TimerFired(unit.timer) if late else Prewarmed(1))
    assert (unit.phase, actions) == (Phase.RUNNING, (Publish(1),))


def test_without_a_service_there_is_nobody_else_whose_requests_could_come_first() -> None:
    spec = replace(PREWARMED, service=None)
    unit, actions = after(starting(spec), spec, Ready(1, 5.0))
    assert (unit.phase, actions) == (Phase.RUNNING, ())


def test_what_was_lost_while_the_first_requests_ran_keeps_it_out_until_it_is_back() -> None:
    unit, _ = after(starting(PREWARMED), PREWARMED, Ready(1, 5.0), ReadinessLost(1, "full"), Prewarmed(1))
    assert facts(unit, "phase", "published", "healthy") == (Phase.RUNNING, False, False)
    unit, actions = after(unit, PREWARMED, ReadinessRegained(1, 9.0))
    assert actions == (Publish(1),)
    back, actions = after(
        starting(PREWARMED), PREWARMED, Ready(1, 5.0), ReadinessLost(1, "full"), ReadinessRegained(1, 6.0), Prewarmed(1)
    )
    assert (back.ready_at, actions) == (6.0, (Publish(1),))


def test_a_drained_unit_starts_and_stays_out() -> None:
    unit, actions = after(Unit(drained=True), SERVICE, StartRequested(), Ready(1, 5.0))
    assert (*facts(unit, "phase", "published", "drained"), actions) == (Phase.RUNNING, False, True, ())
    unit, actions = after(unit, SERVICE, UndrainRequested())
    assert (unit.published, actions) == (True, (Publish(1),))


def test_each_attempt_begins_with_nothing_of_the_last_one() -> None:
    unit, _ = after(running(TOLD), TOLD, RestartRequested(force=True), ReadinessLost(1, "x"), Gone(1, 1))
    assert facts(unit, "told", "leaving", "healthy", "forced") == (True, True, False, True)
    unit, _ = after(unit, TOLD, LivenessLost(1, "deaf"), Exited(1, BAD, 9.0, 0.5))
    fresh = facts(unit, "told", "leaving", "healthy", "forced", "dead", "crashed", "withdrawn", "ready_at", "pid")
    assert fresh == (False, False, True, False, False, False, False, None, None)


# The exit path.


def test_what_all_gateways_have_acknowledged_has_settled() -> None:
    unit, _ = after(running(SETTLING), SETTLING, StopRequested())
    unit, actions = after(unit, SETTLING, Gone(1, 1, settled=True))
    assert (unit.phase, kinds(actions), unit.published) == (Phase.DRAINING, [Drain, ArmTimer], False)
    dead, _ = after(running(SETTLING), SETTLING, LivenessLost(1, "deaf"), Gone(1, 1, settled=True))
    assert dead.phase is Phase.STOPPING, "nothing is awaited of one that does not answer"
    ended, _ = after(running(SETTLING), SETTLING, StopRequested(), Exited(1, CLEAN, 9.0, 0.5), Gone(1, 1, settled=True))
    assert ended.phase is Phase.STOPPED


def test_a_stop_goes_through_withdraw_gone_settle_drain_terminate_in_this_order() -> None:
    unit, actions = after(running(SETTLING), SETTLING, StopRequested())
    assert (unit.phase, actions) == (Phase.EXPIRING, (Withdraw(1, 1),))
    unit, actions = after(unit, SETTLING, Gone(1, 1))
    assert (unit.phase, actions) == (Phase.SETTLING, (ArmTimer(unit.timer, 2.0),))
    unit, actions = after(unit, SETTLING, TimerFired(unit.timer))
    assert (unit.phase, kinds(actions)) == (Phase.DRAINING, [Drain, ArmTimer])
    unit, actions = after(unit, SETTLING, Drained(1))
    assert (unit.phase, actions) == (Phase.STOPPING, (Terminate(1), ArmTimer(unit.timer, 10.0)))
    unit, actions = after(unit, SETTLING, Exited(1, CLEAN, 200.0, 0.5))
    assert (unit.phase, unit.live, actions) == (Phase.STOPPED, False, ())


def test_a_restart_is_the_exit_path_and_then_the_entry_path() -> None:
    unit, actions = after(running(SERVICE), SERVICE, RestartRequested(), Gone(1, 1), Drained(1))
    assert kinds(actions) == [Terminate, ArmTimer]
    unit, actions = after(unit, SERVICE, Exited(1, CLEAN, 200.0, 0.5))
    assert (unit.phase, unit.attempt, kinds(actions)) == (Phase.STARTING, 2, [Spawn, ArmTimer])


@pytest.mark.parametrize(
    ("spec", "notify", "seconds"), [(SERVICE, False, 30.0), (TOLD, True, 20.0 + 5.0), (TOLD_AND_BACK, True, 25.0)]
)
def test_work_in_flight_gets_its_time_and_its_hook_too_and_no_more_than_a_little_beyond(
    spec: UnitSpec, notify: bool, seconds: float
) -> None:
    unit, actions = after(running(spec), spec, StopRequested(), Gone(1, 1))
    assert actions == (Drain(1, notify), ArmTimer(unit.timer, seconds + SPARE_SECONDS))
    assert unit.told is notify
    late, actions = after(unit, spec, TimerFired(unit.timer))
    assert (late.phase, kinds(actions)) == (Phase.STOPPING, [Terminate, ArmTimer])


def test_a_unit_without_a_service_is_terminated_at_once() -> None:
    unit, actions = after(running(PLAIN), PLAIN, StopRequested())
    assert (unit.phase, kinds(actions)) == (Phase.STOPPING, [Terminate, ArmTimer])


def test_a_unit_without_a_service_that_can_be_told_to_finish_is_told() -> None:
    unit, actions = after(running(WORKER), WORKER, StopRequested())
    assert (unit.phase, actions[0]) == (Phase.DRAINING, Drain(1, notify=True))
    unit, actions = after(unit, WORKER, Drained(1))
    assert kinds(actions) == [Terminate, ArmTimer]


def test_what_ignores_its_stop_signal_is_killed_and_killed_again() -> None:
    unit, _ = after(running(PLAIN), PLAIN, StopRequested())
    unit, actions = after(unit, PLAIN, TimerFired(unit.timer))
    assert (unit.phase, kinds(actions), timer(actions)) == (Phase.KILLING, [Kill, ArmTimer], CANNOT_KILL_SECONDS)
    unit, actions = after(unit, PLAIN, TimerFired(unit.timer))
    assert (unit.phase, kinds(actions)) == (Phase.KILLING, [Kill, ArmTimer])
    assert "cannot kill" in unit.reason


def test_a_stop_ends_only_when_the_whole_tree_has() -> None:
    unit, _ = after(running(PLAIN), PLAIN, StopRequested())
    unit, _ = after(unit, PLAIN, Exited(1, CLEAN, 200.0, 0.5, leftovers=True))
    assert facts(unit, "phase", "live", "pid") == (Phase.STOPPING, True, None)
    unit, _ = after(unit, PLAIN, TreeEmpty(1, 201.0, 0.5))
    assert facts(unit, "phase", "live") == (Phase.STOPPED, False)


def test_a_unit_that_is_out_of_the_registry_already_goes_on_from_there() -> None:
    unit, _ = after(running(SERVICE), SERVICE, ReadinessLost(1, "full"), Gone(1, 1))
    unit, actions = after(unit, SERVICE, StopRequested())
    assert (unit.phase, kinds(actions)) == (Phase.DRAINING, [Drain, ArmTimer])


def test_a_withdrawal_that_is_under_way_is_not_begun_twice() -> None:
    unit, _ = after(running(SERVICE), SERVICE, ReadinessLost(1, "full"))
    unit, actions = after(unit, SERVICE, StopRequested())
    assert (unit.phase, actions) == (Phase.EXPIRING, ())
    unit, actions = after(unit, SERVICE, Gone(1, 1))
    assert kinds(actions) == [Drain, ArmTimer]


# Drains that last.


def test_a_drain_goes_the_way_out_and_stops_before_its_end() -> None:
    unit, actions = after(running(SETTLING), SETTLING, DrainRequested())
    assert (unit.phase, actions) == (Phase.EXPIRING, (Withdraw(1, 1),))
    unit, _ = after(unit, SETTLING, Gone(1, 1), TimerFired(unit.timer + 1))
    assert unit.phase is Phase.DRAINING
    unit, actions = after(unit, SETTLING, Drained(1))
    assert (*facts(unit, "phase", "live", "drained", "published"), actions) == (Phase.RUNNING, True, True, False, ())
    unit, actions = after(unit, SETTLING, UndrainRequested())
    assert actions == (Publish(1),)


def test_who_stays_is_told_only_what_can_be_taken_back() -> None:
    _, actions = after(running(TOLD), TOLD, DrainRequested(), Gone(1, 1))
    assert actions[0] == Drain(1, notify=False)
    unit, actions = after(running(TOLD_AND_BACK), TOLD_AND_BACK, DrainRequested(), Gone(1, 1))
    assert actions[0] == Drain(1, notify=True)
    for back in (unit, after(unit, TOLD_AND_BACK, Drained(1))[0]):
        served, actions = after(back, TOLD_AND_BACK, UndrainRequested())
        assert (served.told, actions) == (False, (Resume(1), Publish(1)))


def test_whoever_was_told_already_is_not_told_twice() -> None:
    unit, _ = after(running(TOLD_AND_BACK), TOLD_AND_BACK, DrainRequested(), Gone(1, 1), Drained(1))
    unit, actions = after(unit, TOLD_AND_BACK, StopRequested())
    assert actions == (Drain(1, notify=False), ArmTimer(unit.timer, 20.0 + SPARE_SECONDS))
    assert unit.told


def test_a_stop_tells_a_draining_unit_what_the_drain_had_not() -> None:
    unit, _ = after(running(TOLD), TOLD, DrainRequested(), Gone(1, 1))
    unit, actions = after(unit, TOLD, StopRequested())
    assert (unit.phase, actions[0]) == (Phase.DRAINING, Drain(1, notify=True))
    unit, actions = after(unit, TOLD, Drained(1))
    assert (*facts(unit, "phase", "drained"), kinds(actions)) == (Phase.STOPPING, True, [Terminate, ArmTimer])


def test_a_plain_unit_has_nothing_to_drain() -> None:
    unit, actions = after(running(PLAIN), PLAIN, DrainRequested())
    assert (*facts(unit, "phase", "drained"), actions) == (Phase.RUNNING, True, ())


def test_a_withdrawal_that_was_called_off_leaves_nobody_told() -> None:
    unit, actions = after(running(SERVICE), SERVICE, DrainRequested(), CancelRequested())
    assert (*facts(unit, "phase", "drained"), actions) == (Phase.RUNNING, False, (Publish(1),))


# Ends.


def test_a_crash_without_a_service_restarts_at_once() -> None:
    unit, actions = after(running(PLAIN), PLAIN, Exited(1, BAD, 200.0, 0.5))
    assert facts(unit, "phase", "restarts") == (Phase.BACKOFF, 1)
    assert actions == (ArmTimer(unit.timer, 0.0, automatic=True),)
    unit, actions = after(unit, PLAIN, TimerFired(unit.timer))
    assert kinds(actions) == [Spawn, ArmTimer]


def test_an_exit_that_the_policy_accepts_is_a_rest_once_the_entry_is_gone() -> None:
    unit, _ = after(running(PLAIN), PLAIN, Exited(1, CLEAN, 200.0, 0.5))
    assert facts(unit, "phase", "crashed", "wanted") == (Phase.STOPPED, True, False)
    unit, _ = after(running(SERVICE), SERVICE, Exited(1, CLEAN, 200.0, 0.5))
    assert unit.phase is Phase.EXPIRING
    unit, _ = after(unit, SERVICE, Gone(1, 1))
    assert facts(unit, "phase", "crashed") == (Phase.STOPPED, True)


def test_how_a_dead_unit_answers_our_signal_is_no_reason_to_let_it_rest() -> None:
    unit, _ = after(running(SERVICE), SERVICE, LivenessLost(1, "deaf for a minute"), Gone(1, 1))
    unit, actions = after(unit, SERVICE, Exited(1, CLEAN, 200.0, 0.5))
    assert (unit.phase, kinds(actions)) == (Phase.BACKOFF, [ArmTimer])
    assert unit.last_exit is not None
    assert (unit.last_exit.code, unit.last_exit.reason) == (0, "deaf for a minute")


def test_a_spawn_that_cannot_heal_is_fatal_until_somebody_asks() -> None:
    unit, _ = after(Unit(), PLAIN, StartRequested(), Exited(1, MISSING, 1.0, 0.5))
    assert unit.phase is Phase.FATAL
    assert "no such file: /x" in unit.reason
    again, _ = after(unit, PLAIN, StartRequested())
    assert facts(again, "phase", "failed_starts") == (Phase.STARTING, 0)
    stopped, _ = after(unit, PLAIN, StopRequested())
    assert stopped.phase is Phase.STOPPED


def test_failed_starts_end_in_fatal_and_readiness_forgets_them() -> None:
    spec = replace(PLAIN, restart=RestartPolicy(startretries=1))
    unit, _ = after(Unit(), spec, StartRequested(), Exited(1, BAD, 1.0, 0.5))
    assert unit.phase is Phase.BACKOFF
    unit, _ = after(unit, spec, TimerFired(unit.timer), Exited(2, BAD, 2.0, 0.5))
    assert unit.phase is Phase.FATAL
    unit, _ = after(unit, spec, StartRequested(), Ready(3, 3.0))
    assert unit.failed_starts == 0


def test_a_stable_time_forgets_earlier_failures() -> None:
    def crash(unit: Unit, ready_at: float, exit_at: float) -> Unit:
        attempt = unit.attempt
        unit, _ = after(unit, PLAIN, Ready(attempt, ready_at), Exited(attempt, BAD, exit_at, 0.5))
        return after(unit, PLAIN, TimerFired(unit.timer))[0]

    unit, _ = after(Unit(), PLAIN, StartRequested())
    unit = crash(crash(unit, 0.0, 1.0), 2.0, 3.0)
    assert unit.failures == 2
    assert crash(unit, 5.0, 100.0).failures == 1


def test_an_end_without_a_known_exit_counts_as_a_crash() -> None:
    adopted = Unit(phase=Phase.STOPPING, wanted=True, attempt=1, live=True, crashed=True, ready_at=0.0)
    unit, actions = after(adopted, PLAIN, TreeEmpty(1, 5.0, 0.5))
    assert (unit.phase, unit.reason, kinds(actions)) == (Phase.BACKOFF, "ended", [ArmTimer])
