"""The unit's life: the table answers everything, and no order of events breaks its promises."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from supervisor.core import lifecycle
from supervisor.core.events import (
    EVENTS,
    ArmTimer,
    CancelRequested,
    DependenciesReady,
    Drain,
    Drained,
    Exited,
    Gone,
    Kill,
    Publish,
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
    Withdraw,
)  # fmt: skip
from supervisor.core.lifecycle import IGNORED, TRANSITIONS, state_word, step
from supervisor.core.model import Autorestart, Exit, Phase, RestartPolicy, ServiceSpec, Unit, UnitSpec

PLAIN = UnitSpec(name="web", group="web", number=0, argv=("web",))
SERVICE = replace(PLAIN, service=ServiceSpec("web", "127.0.0.1", 9080))
SETTLING = replace(SERVICE, restart=RestartPolicy(settle_seconds=2))
BAD, CLEAN = Exit("exited with code 1", code=1), Exit("exited with code 0", code=0)


def after(unit, spec, *events):
    """The unit after these events, and the actions of the last one."""
    actions = ()
    for event in events:
        unit, actions = step(unit, event, spec)
    return unit, actions


def running(spec, at=100.0):
    unit, _ = after(Unit(), spec, StartRequested(), Spawned(1, 4242), Ready(1, at))
    assert unit.phase is Phase.RUNNING
    return unit


def kinds(actions):
    return [type(action) for action in actions]


def test_every_phase_answers_every_event_exactly_once():
    pairs = {(phase, event) for phase in Phase for event in EVENTS}
    assert set(TRANSITIONS) | IGNORED == pairs
    assert not set(TRANSITIONS) & IGNORED


# The entry path.


def test_a_start_spawns_the_next_attempt_and_waits_for_readiness():
    unit, actions = after(Unit(attempt=6), PLAIN, StartRequested())
    assert (unit.phase, unit.attempt, unit.wanted) == (Phase.STARTING, 7, True)
    assert actions == (Spawn(7), ArmTimer(unit.timer, PLAIN.start_timeout))


def test_a_ready_unit_without_a_service_runs_unpublished():
    unit, actions = after(Unit(), PLAIN, StartRequested(), Spawned(1, 4242), Ready(1, 5.0))
    assert (unit.phase, unit.pid, unit.published, actions) == (Phase.RUNNING, 4242, False, ())


def test_a_ready_unit_with_a_service_is_published_then_and_not_before():
    unit, actions = after(Unit(), SERVICE, StartRequested(), Spawned(1, 4242))
    assert not unit.published
    unit, actions = after(unit, SERVICE, Ready(1, 5.0))
    assert unit.published
    assert actions == (Publish(1),)


def test_a_unit_waits_for_what_it_depends_on():
    unit, actions = after(Unit(), PLAIN, StartRequested("database"))
    assert (unit.phase, actions) == (Phase.WAITING, ())
    assert "database" in unit.reason
    unit, actions = after(unit, PLAIN, DependenciesReady())
    assert (unit.phase, kinds(actions)) == (Phase.STARTING, [Spawn, ArmTimer])


def test_a_waiting_unit_can_be_stopped():
    unit, actions = after(Unit(), PLAIN, StartRequested("database"), StopRequested())
    assert (unit.phase, unit.wanted, actions) == (Phase.STOPPED, False, ())


def test_a_start_that_takes_too_long_is_terminated_and_tried_again():
    unit, _ = after(Unit(), PLAIN, StartRequested(), Spawned(1, 4242))
    unit, actions = after(unit, PLAIN, TimerFired(unit.timer))
    assert (unit.phase, kinds(actions)) == (Phase.STOPPING, [Terminate, ArmTimer])
    unit, actions = after(unit, PLAIN, Exited(1, Exit("killed by SIGTERM", signal=15), 170.0, 0.5))
    assert (unit.phase, unit.failed_starts) == (Phase.BACKOFF, 1)
    assert "was not ready within 60 s" in unit.last_exit.reason
    assert actions[0].automatic


# The exit path.


def test_a_stop_goes_through_withdraw_gone_settle_drain_terminate_in_this_order():
    unit = running(SETTLING)
    unit, actions = after(unit, SETTLING, StopRequested())
    assert (unit.phase, actions) == (Phase.EXPIRING, (Withdraw(1, 1),))
    unit, actions = after(unit, SETTLING, Gone(1, 1))
    assert (unit.phase, actions) == (Phase.SETTLING, (ArmTimer(unit.timer, 2),))
    unit, actions = after(unit, SETTLING, TimerFired(unit.timer))
    assert (unit.phase, actions) == (Phase.DRAINING, (Drain(1),))
    unit, actions = after(unit, SETTLING, Drained(1))
    assert (unit.phase, actions) == (Phase.STOPPING, (Terminate(1), ArmTimer(unit.timer, 10)))
    unit, actions = after(unit, SETTLING, Exited(1, CLEAN, 200.0, 0.5))
    assert (unit.phase, unit.live, actions) == (Phase.STOPPED, False, ())


def test_a_restart_is_the_exit_path_and_then_the_entry_path():
    unit, actions = after(running(SERVICE), SERVICE, RestartRequested(), Gone(1, 1), Drained(1))
    assert kinds(actions) == [Terminate, ArmTimer]
    unit, actions = after(unit, SERVICE, Exited(1, CLEAN, 200.0, 0.5))
    assert (unit.phase, unit.attempt, kinds(actions)) == (Phase.STARTING, 2, [Spawn, ArmTimer])


def test_a_unit_without_a_service_is_terminated_at_once():
    unit, actions = after(running(PLAIN), PLAIN, StopRequested())
    assert (unit.phase, kinds(actions)) == (Phase.STOPPING, [Terminate, ArmTimer])


def test_what_ignores_its_stop_signal_is_killed_and_killed_again():
    unit, _ = after(running(PLAIN), PLAIN, StopRequested())
    unit, actions = after(unit, PLAIN, TimerFired(unit.timer))
    assert (unit.phase, kinds(actions)) == (Phase.KILLING, [Kill, ArmTimer])
    unit, actions = after(unit, PLAIN, TimerFired(unit.timer))
    assert (unit.phase, kinds(actions)) == (Phase.KILLING, [Kill, ArmTimer])
    assert "cannot kill" in unit.reason


def test_a_stop_ends_only_when_the_whole_tree_has():
    unit, _ = after(running(PLAIN), PLAIN, StopRequested())
    unit, _ = after(unit, PLAIN, Exited(1, CLEAN, 200.0, 0.5, leftovers=True))
    assert (unit.phase, unit.live, unit.pid) == (Phase.STOPPING, True, None)
    unit, _ = after(unit, PLAIN, TreeEmpty(1, 201.0, 0.5))
    assert (unit.phase, unit.live) == (Phase.STOPPED, False)


def test_a_healthy_unit_is_held_when_the_registry_cannot_confirm():
    unit, actions = after(running(SERVICE), SERVICE, StopRequested(), Unconfirmed(1, 1, "no answer"))
    assert (unit.phase, unit.wanted, actions) == (Phase.RUNNING, True, (Publish(1),))
    assert "no answer" in unit.reason


def test_a_forced_stop_goes_on_without_the_registry():
    unit, actions = after(running(SERVICE), SERVICE, StopRequested(force=True), Unconfirmed(1, 1, "no answer"))
    assert (unit.phase, actions) == (Phase.DRAINING, (Drain(1),))


def test_force_may_come_later():
    unit, _ = after(running(SERVICE), SERVICE, StopRequested(), StopRequested(force=True))
    unit, _ = after(unit, SERVICE, Unconfirmed(1, 1, "no answer"))
    assert unit.phase is Phase.DRAINING


@pytest.mark.parametrize("spec", [SERVICE, SETTLING])
def test_before_a_signal_was_sent_a_stop_can_be_called_off(spec):
    unit, _ = after(running(spec), spec, StopRequested())
    if spec is SETTLING:
        unit, _ = after(unit, spec, Gone(1, 1))
        assert unit.phase is Phase.SETTLING
    unit, actions = after(unit, spec, CancelRequested())
    assert (unit.phase, unit.wanted, actions) == (Phase.RUNNING, True, (Publish(1),))


def test_a_gone_of_a_withdrawal_that_was_called_off_opens_no_gate():
    unit, _ = after(running(SERVICE), SERVICE, StopRequested(), CancelRequested(), StopRequested(), Gone(1, 1))
    assert unit.phase is Phase.EXPIRING
    unit, _ = after(unit, SERVICE, Gone(1, 2))
    assert unit.phase is Phase.DRAINING


@pytest.mark.parametrize("late", [StartRequested(), RestartRequested()])
def test_whoever_wants_it_again_on_its_way_out_gets_it_afterwards(late):
    unit, _ = after(running(SERVICE), SERVICE, StopRequested(), late, Gone(1, 1), Drained(1))
    unit, actions = after(unit, SERVICE, Exited(1, CLEAN, 200.0, 0.5))
    assert (unit.phase, kinds(actions)) == (Phase.STARTING, [Spawn, ArmTimer])


def test_a_stop_during_a_restart_wins():
    unit, _ = after(running(SERVICE), SERVICE, RestartRequested(), StopRequested(), Gone(1, 1), Drained(1))
    unit, _ = after(unit, SERVICE, Exited(1, CLEAN, 200.0, 0.5))
    assert unit.phase is Phase.STOPPED


def test_a_unit_that_ends_by_itself_while_expiring_still_waits_for_its_entry():
    unit, actions = after(running(SERVICE), SERVICE, RestartRequested(), Exited(1, BAD, 200.0, 0.5))
    assert (unit.phase, unit.published, actions) == (Phase.BACKOFF, True, ())
    unit, actions = after(unit, SERVICE, Gone(1, 1))
    assert (unit.phase, kinds(actions)) == (Phase.STARTING, [Spawn, ArmTimer])
    unit, _ = after(running(SERVICE), SERVICE, StopRequested(), Exited(1, BAD, 200.0, 0.5))
    assert (unit.phase, unit.live) == (Phase.EXPIRING, False)
    again, _ = after(unit, SERVICE, StartRequested())
    assert again.phase is Phase.BACKOFF
    cancelled, _ = after(unit, SERVICE, CancelRequested())
    assert cancelled == unit
    unit, _ = after(unit, SERVICE, Unconfirmed(1, 1, "no answer"))
    assert unit.phase is Phase.STOPPED


def test_leftovers_of_a_unit_that_ended_while_expiring_are_terminated():
    unit, actions = after(running(SERVICE), SERVICE, StopRequested(), Exited(1, BAD, 200.0, 0.5, leftovers=True))
    assert (unit.phase, kinds(actions)) == (Phase.STOPPING, [Terminate, ArmTimer])
    unit, _ = after(unit, SERVICE, TreeEmpty(1, 201.0, 0.5))
    assert (unit.phase, unit.published) == (Phase.EXPIRING, True)


# Crashes.


def test_a_crash_without_a_service_restarts_at_once():
    unit, actions = after(running(PLAIN), PLAIN, Exited(1, BAD, 200.0, 0.5))
    assert (unit.phase, unit.restarts) == (Phase.BACKOFF, 1)
    assert actions == (ArmTimer(unit.timer, 0.0, automatic=True),)
    unit, actions = after(unit, PLAIN, TimerFired(unit.timer))
    assert kinds(actions) == [Spawn, ArmTimer]


def test_after_a_crash_of_a_registered_unit_backoff_and_removal_run_at_the_same_time():
    unit, actions = after(running(SERVICE), SERVICE, Exited(1, BAD, 200.0, 0.5))
    assert kinds(actions) == [Withdraw, ArmTimer]
    timer_first, actions = after(unit, SERVICE, TimerFired(unit.timer))
    assert (timer_first.phase, actions) == (Phase.BACKOFF, ())
    _, actions = after(timer_first, SERVICE, Gone(1, 1))
    assert kinds(actions) == [Spawn, ArmTimer]
    gone_first, actions = after(unit, SERVICE, Gone(1, 1))
    assert (gone_first.phase, actions) == (Phase.BACKOFF, ())
    _, actions = after(gone_first, SERVICE, TimerFired(gone_first.timer))
    assert kinds(actions) == [Spawn, ArmTimer]


def test_what_a_crashed_unit_left_behind_is_terminated_before_it_starts_again():
    unit, actions = after(running(SERVICE), SERVICE, Exited(1, BAD, 200.0, 0.5, leftovers=True))
    assert (unit.phase, kinds(actions)) == (Phase.STOPPING, [Withdraw, Terminate, ArmTimer])
    unit, _ = after(unit, SERVICE, Gone(1, 1))
    unit, actions = after(unit, SERVICE, TreeEmpty(1, 201.0, 0.5))
    assert (unit.phase, kinds(actions)) == (Phase.BACKOFF, [ArmTimer])
    assert unit.last_exit == BAD


def test_an_exit_that_the_policy_accepts_is_shown_as_exited():
    unit, _ = after(running(PLAIN), PLAIN, Exited(1, CLEAN, 200.0, 0.5))
    assert (unit.phase, state_word(unit)) == (Phase.STOPPED, "EXITED")
    unit, _ = after(unit, PLAIN, StopRequested())
    assert state_word(unit) == "STOPPED"


def test_a_registered_unit_that_may_rest_rests_when_its_entry_is_gone():
    unit, _ = after(running(SERVICE), SERVICE, Exited(1, CLEAN, 200.0, 0.5))
    assert unit.phase is Phase.EXPIRING
    unit, _ = after(unit, SERVICE, Gone(1, 1))
    assert state_word(unit) == "EXITED"


def test_a_spawn_that_cannot_heal_is_fatal_until_somebody_asks():
    missing = Exit("no such file: /x", stage="exec", errno=2, can_heal=False)
    unit, _ = after(Unit(), PLAIN, StartRequested(), Exited(1, missing, 1.0, 0.5))
    assert (unit.phase, state_word(unit)) == (Phase.FATAL, "FATAL")
    assert "no such file: /x" in unit.reason
    again, _ = after(unit, PLAIN, StartRequested())
    assert (again.phase, again.failed_starts) == (Phase.STARTING, 0)
    stopped, _ = after(unit, PLAIN, StopRequested())
    assert stopped.phase is Phase.STOPPED


def test_failed_starts_end_in_fatal_and_readiness_forgets_them():
    spec = replace(PLAIN, restart=RestartPolicy(startretries=1))
    unit, _ = after(Unit(), spec, StartRequested(), Exited(1, BAD, 1.0, 0.5))
    assert unit.phase is Phase.BACKOFF
    unit, _ = after(unit, spec, TimerFired(unit.timer), Exited(2, BAD, 2.0, 0.5))
    assert unit.phase is Phase.FATAL
    unit, _ = after(unit, spec, StartRequested(), Spawned(3, 1), Ready(3, 3.0))
    assert unit.failed_starts == 0


def test_a_stable_time_forgets_earlier_failures():
    def crash(unit, ready_at, exit_at):
        attempt = unit.attempt
        unit, _ = after(unit, PLAIN, Spawned(attempt, 1), Ready(attempt, ready_at), Exited(attempt, BAD, exit_at, 0.5))
        unit, actions = after(unit, PLAIN, TimerFired(unit.timer))
        return unit

    unit, _ = after(Unit(), PLAIN, StartRequested())
    unit = crash(unit, 0.0, 1.0)
    unit = crash(unit, 2.0, 3.0)
    assert unit.failures == 2
    unit = crash(unit, 5.0, 100.0)
    assert unit.failures == 1


def test_backoff_can_be_cut_short_or_ended():
    unit, _ = after(Unit(), PLAIN, StartRequested(), Exited(1, BAD, 1.0, 0.5))
    assert unit.phase is Phase.BACKOFF
    started, _ = after(unit, PLAIN, RestartRequested())
    assert (started.phase, started.attempt) == (Phase.STARTING, 2)
    for event in (StopRequested(), CancelRequested()):
        stopped, _ = after(unit, PLAIN, event)
        assert (stopped.phase, stopped.wanted) == (Phase.STOPPED, False)


def test_a_restart_while_starting_terminates_first():
    unit, actions = after(Unit(), PLAIN, StartRequested(), RestartRequested())
    assert kinds(actions) == [Terminate, ArmTimer]
    unit, _ = after(unit, PLAIN, Exited(1, BAD, 1.0, 0.5))
    assert (unit.phase, unit.attempt) == (Phase.STARTING, 2)


def test_a_stop_while_starting_terminates():
    unit, _ = after(Unit(), PLAIN, StartRequested(), StopRequested(), Exited(1, BAD, 1.0, 0.5))
    assert unit.phase is Phase.STOPPED


@pytest.mark.parametrize(
    "stale",
    [
        Exited(1, BAD, 1.0, 0.5),
        Ready(1, 1.0),
        Spawned(1, 7),
        TreeEmpty(1, 1.0, 0.5),
        Gone(1, 1),
        TimerFired(1),
    ],
)
def test_what_speaks_of_another_attempt_or_timer_changes_nothing(stale):
    unit, _ = after(running(SERVICE), SERVICE, RestartRequested(), Gone(1, 1), Drained(1), Exited(1, BAD, 9.0, 0.5))
    assert unit.attempt == 2
    assert step(unit, stale, SERVICE) == (unit, ())


# The random walk: a small world that answers actions in any order, late and more than once.


class World:
    """A process table and a registry of one unit, with the promises checked at every action."""

    def __init__(self, rng, spec):
        self.rng, self.spec = rng, spec
        self.unit = Unit()
        self.process = None  # the attempt that has a process
        self.leader_lives = False
        self.entry = None  # the attempt that has an entry
        self.beating = False
        self.truths = []  # events that will come true
        self.past = []  # events to be repeated late
        self.excused = set()  # withdrawals that the registry could not confirm
        self.now = 0.0

    def post(self, event):
        before = self.unit
        self.unit, actions = step(self.unit, event, self.spec)
        assert self.unit.attempt in (before.attempt, before.attempt + 1)
        for action in actions:
            getattr(self, f"on_{type(action).__name__.lower()}")(action)
        assert self.beating == (self.unit.phase is Phase.RUNNING and self.spec.service is not None)
        if self.unit.phase is Phase.STOPPED:
            assert self.process is None
            assert self.entry is None or self.excused
        self.past.append(event)

    def on_spawn(self, action):
        assert self.process is None, "two lives at once"
        assert self.entry is None or self.excused, "started while its old entry was there"
        self.process, self.leader_lives = action.attempt, True
        if self.rng.random() < 0.2:
            self.truths.append(self.exit())
        else:
            self.truths += [Spawned(action.attempt, 4242), Ready(action.attempt, self.now)]

    def exit(self, leftovers=False):
        exit_ = self.rng.choice([BAD, CLEAN, Exit("no such file", stage="exec", errno=2, can_heal=False)])
        return Exited(self.unit.attempt, exit_, self.now, self.rng.random(), leftovers=leftovers)

    def on_publish(self, action):
        assert self.process == action.attempt
        self.entry, self.beating = action.attempt, True

    def on_withdraw(self, action):
        assert self.beating
        self.beating = False
        if self.rng.random() < 0.2:
            self.excused.add(action.withdrawal)
            self.truths.append(Unconfirmed(action.attempt, action.withdrawal, "no answer"))
        else:
            self.truths.append(Gone(action.attempt, action.withdrawal))

    def on_drain(self, action):
        self.truths.append(Drained(action.attempt))

    def on_terminate(self, action):
        assert self.entry is None or self.excused or not self.leader_lives, "signalled while it could be found"
        if self.rng.random() < 0.6:
            self.end_tree()

    def on_kill(self, action):
        self.end_tree()

    def end_tree(self):
        if self.process is not None and not any(isinstance(event, Exited | TreeEmpty) for event in self.truths):
            empty = TreeEmpty(self.unit.attempt, self.now, self.rng.random())
            self.truths.append(self.exit() if self.leader_lives else empty)

    def on_armtimer(self, action):
        self.truths = [event for event in self.truths if not isinstance(event, TimerFired)]
        self.truths.append(TimerFired(action.timer))

    def deliver(self, event):
        """Something that was to come true does; the world changes before the unit is told."""
        self.truths.remove(event)
        if isinstance(event, Exited | TreeEmpty) and event.attempt == self.process:
            self.leader_lives = False
            if isinstance(event, TreeEmpty) or not event.leftovers:
                self.process = None
        if isinstance(event, Gone) and self.unit.withdrawal == event.withdrawal and not self.beating:
            self.entry = None
        self.post(event)

    def crash(self):
        if self.leader_lives and self.unit.pid and not any(isinstance(event, Exited) for event in self.truths):
            leftovers = self.rng.random() < 0.3
            self.truths.append(self.exit(leftovers))

    def turn(self):
        self.now += self.rng.choice([0.01, 1.0, 20.0])
        choice = self.rng.random()
        if choice < 0.5 and self.truths:
            self.deliver(self.rng.choice(self.truths))
        elif choice < 0.6:
            self.crash()
        elif choice < 0.75 and self.past:
            self.post(self.doubled(self.rng.choice(self.past)))
        else:
            requests = [StartRequested(), StartRequested("db"), StopRequested(), StopRequested(True), RestartRequested(),
                        CancelRequested(), DependenciesReady()]  # fmt: skip
            self.post(self.rng.choice(requests))

    def doubled(self, event):
        """Requests are new ones; of facts, only what is past can be repeated: the present has its own truth."""
        current = isinstance(event, Exited | TreeEmpty | Ready | Drained) and event.attempt == self.process
        pending = isinstance(event, TimerFired | Gone | Unconfirmed) and event in self.truths
        return StopRequested() if current or pending else event

    def finish(self):
        """Nobody asks for anything but a stop; everything that must come true does."""
        self.post(StopRequested(force=True))
        for _ in range(60):
            if self.unit.phase is Phase.STOPPED:
                return
            self.now += 1
            if self.process is not None and self.unit.phase in (Phase.STOPPING, Phase.KILLING):
                timers = [event for event in self.truths if isinstance(event, TimerFired)]
                others = [event for event in self.truths if not isinstance(event, TimerFired)]
                self.deliver((others or timers)[0])
            elif self.truths:
                self.deliver(self.truths[0])
        raise AssertionError(f"never stopped: {self.unit}, {self.truths}")


@pytest.mark.parametrize(
    "spec", [PLAIN, SERVICE, SETTLING, replace(SERVICE, restart=RestartPolicy(Autorestart.ALWAYS))]
)
def test_no_order_of_events_breaks_the_promises_and_a_stop_always_ends(spec):
    for seed in range(25):
        world = World(random.Random(seed), spec)
        for _ in range(120):
            world.turn()
        world.finish()


def test_equal_inputs_give_equal_answers():
    unit, event = running(SERVICE), Exited(1, BAD, 200.0, 0.25)
    answers = [step(unit, event, SERVICE) for _ in range(3)]
    assert all(one == other for one, other in pairwise(answers))


def test_every_phase_has_a_word_for_people():
    assert {state_word(Unit(phase=phase)) for phase in Phase} <= {
        "STOPPED", "STARTING", "BACKOFF", "RUNNING", "EXPIRING", "DRAINING", "STOPPING", "FATAL",
    }  # fmt: skip
    assert lifecycle.CANNOT_KILL_SECONDS > 0
