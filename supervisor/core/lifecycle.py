"""One unit's life: what may happen (events), what is to be done (actions), and the table that joins them.

Theory of operation
-------------------
A unit is a value (`model.Unit`). `step(unit, event, spec)` answers one event with the next value and the actions to
perform; outcomes of actions come back as events. Nothing here knows a clock, a process or a registry.

*Wanted* says whether the unit should be up, *phase* where it stands, and two facts bind it to the world: `live`
(a process, or something that it left, may exist) and `published` (its registry entry may exist). The rules that
all of the table serves:

- A process is spawned only when nothing of the last attempt is live and its entry is gone (`_up`).
- A live unit is signalled only when its entry is gone, or when its process has ended by itself (`_out`).
- Every way out is one path: withdraw, gone, settle, drain, terminate; a crash enters it further down. Every way in
  is one path: spawn, ready, publish.
- `attempt` grows with each spawn and is the generation in the registry. Events carry the attempt they speak of, "gone"
  also the withdrawal, timers their id: what speaks of something past is stale and changes nothing.
- A unit has one timer. Entering a phase disarms it, arming replaces it.

Every pair of phase and event is either in `TRANSITIONS` or in `IGNORED`, never in both; a test holds that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .events import (
    Action,
    ArmTimer,
    CancelRequested,
    DependenciesReady,
    Drain,
    Drained,
    Event,
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
from .model import Exit, Phase, Unit, UnitSpec
from .restart import judge

CANNOT_KILL_SECONDS = 30.0  # after SIGKILL; then it is reported and repeated


Answer = tuple[Unit, tuple[Action, ...]]
Transition = Callable[[Unit, Any, UnitSpec], Answer]


def step(unit: Unit, event: Event, spec: UnitSpec) -> Answer:
    """Answer one event. Pure: no clock, no I/O; equal inputs give equal answers."""
    if event.is_stale(unit):
        return unit, ()
    key = unit.phase, type(event)
    return (unit, ()) if key in IGNORED else TRANSITIONS[key](unit, event, spec)


# How phases are entered. Each returns a whole answer, so that transitions can end with one of them.


def _enter(unit: Unit, phase: Phase, *actions: Action, seconds: float | None = None, **facts: Any) -> Answer:
    """The unit in another phase, its timer replaced (armed where `seconds` is given)."""
    timer = unit.timer + 1
    if seconds is not None:
        actions = (*actions, ArmTimer(timer, seconds))
    return replace(unit, phase=phase, timer=timer, **facts), actions


def _spawn(unit: Unit, spec: UnitSpec) -> Answer:
    attempt = unit.attempt + 1
    fresh: dict[str, Any] = {"pid": None, "ready_at": None, "crashed": False, "forced": False, "live": True}
    return _enter(unit, Phase.STARTING, Spawn(attempt), seconds=spec.start_timeout, attempt=attempt, reason="", **fresh)


def _up(unit: Unit, spec: UnitSpec) -> Answer:
    """Nothing of it is live: the next attempt, once the entry of the last one is gone."""
    if unit.published:
        return _enter(unit, Phase.BACKOFF, delay_over=True, crashed=False)
    return _spawn(unit, spec)


def _down(unit: Unit, **facts: Any) -> Answer:
    """Nothing of it is live and nobody wants it: rest, once the entry is gone."""
    phase = Phase.EXPIRING if unit.published else Phase.STOPPED
    return _enter(unit, phase, wanted=False, live=False, pid=None, **facts)


def _out(unit: Unit, spec: UnitSpec) -> Answer:
    """The exit path from its top, for a live unit."""
    if unit.published:
        withdrawal = unit.withdrawal + 1
        return _enter(unit, Phase.EXPIRING, Withdraw(unit.attempt, withdrawal), withdrawal=withdrawal)
    return _drain(unit, spec)


def _settle(unit: Unit, spec: UnitSpec) -> Answer:
    if spec.restart.settle_seconds > 0:
        return _enter(unit, Phase.SETTLING, seconds=spec.restart.settle_seconds)
    return _drain(unit, spec)


def _drain(unit: Unit, spec: UnitSpec) -> Answer:
    if spec.service is not None:
        return _enter(unit, Phase.DRAINING, Drain(unit.attempt))
    return _terminate(unit, spec)


def _terminate(unit: Unit, spec: UnitSpec, *before: Action, **facts: Any) -> Answer:
    attempt = unit.attempt
    return _enter(unit, Phase.STOPPING, *before, Terminate(attempt), seconds=spec.stopwaitsecs, **facts)


def _resume(unit: Unit, reason: str) -> Answer:
    """Back into service: nothing was signalled yet, so its heartbeat may go on."""
    return _enter(unit, Phase.RUNNING, Publish(unit.attempt), published=True, wanted=True, forced=False, reason=reason)


def _ended(unit: Unit, spec: UnitSpec, at: float, jitter: float) -> Answer:
    """The tree is empty: what follows."""
    unit = replace(unit, live=False, pid=None)
    if unit.crashed:
        return _after_crash(unit, spec, at, jitter)
    return _up(unit, spec) if unit.wanted else _down(unit)


def _after_crash(unit: Unit, spec: UnitSpec, at: float, jitter: float) -> Answer:
    policy, was_ready = spec.restart, unit.ready_at is not None
    stable = unit.ready_at is not None and at - unit.ready_at >= policy.stable_seconds
    failures = 1 if stable else unit.failures + 1
    failed_starts = 0 if was_ready else unit.failed_starts + 1
    exit_ = unit.last_exit or Exit("ended")
    verdict = judge(policy, exit_, failures=failures, failed_starts=failed_starts, was_ready=was_ready, jitter=jitter)
    unit = replace(unit, failures=failures, failed_starts=failed_starts, reason=verdict.reason)
    if verdict.follow == "rest":
        return _down(unit)
    if verdict.follow == "give up":
        return _enter(unit, Phase.FATAL)
    unit, _ = _enter(unit, Phase.BACKOFF, delay_over=False, restarts=unit.restarts + 1)
    return unit, (ArmTimer(unit.timer, verdict.delay, automatic=True),)


# Transitions, in the order of the phases.


def _start(unit: Unit, event: StartRequested | RestartRequested, spec: UnitSpec) -> Answer:
    unit = replace(unit, wanted=True, failures=0, failed_starts=0)
    if event.waits_for:
        return _enter(unit, Phase.WAITING, crashed=False, reason=f"waits for {event.waits_for} to be ready")
    return _up(unit, spec)


def _stop_resting(unit: Unit, event: StopRequested, spec: UnitSpec) -> Answer:
    return replace(unit, wanted=False, crashed=False, reason=""), ()


def _stop_dead(unit: Unit, event: StopRequested | CancelRequested, spec: UnitSpec) -> Answer:
    return _down(unit, crashed=False, reason="")


def _start_waiting(unit: Unit, event: DependenciesReady, spec: UnitSpec) -> Answer:
    return _up(unit, spec)


def _start_now(unit: Unit, event: StartRequested | RestartRequested, spec: UnitSpec) -> Answer:
    return _up(replace(unit, wanted=True), spec)


def _backoff_over(unit: Unit, event: TimerFired, spec: UnitSpec) -> Answer:
    return _up(unit, spec)


def _backoff_gone(unit: Unit, event: Gone | Unconfirmed, spec: UnitSpec) -> Answer:
    unit = replace(unit, published=False)
    return _spawn(unit, spec) if unit.delay_over else (unit, ())


def _spawned(unit: Unit, event: Spawned, spec: UnitSpec) -> Answer:
    return replace(unit, pid=event.pid), ()


def _ready(unit: Unit, event: Ready, spec: UnitSpec) -> Answer:
    facts: dict[str, Any] = {"ready_at": event.at, "failed_starts": 0}
    if spec.service is None:
        return _enter(unit, Phase.RUNNING, **facts)
    return _enter(unit, Phase.RUNNING, Publish(unit.attempt), published=True, **facts)


def _stop_starting(unit: Unit, event: StopRequested | CancelRequested, spec: UnitSpec) -> Answer:
    return _terminate(unit, spec, wanted=False)


def _restart_starting(unit: Unit, event: RestartRequested, spec: UnitSpec) -> Answer:
    return _terminate(unit, spec, wanted=True)


def _start_timed_out(unit: Unit, event: TimerFired, spec: UnitSpec) -> Answer:
    reason = f"was not ready within {spec.start_timeout:g} s"
    return _terminate(unit, spec, crashed=True, reason=reason, last_exit=Exit(reason))


def _crashed(unit: Unit, event: Exited, spec: UnitSpec) -> Answer:
    """It ended by itself: its heartbeat ends too, and what it left behind is stopped."""
    actions: tuple[Action, ...] = ()
    if unit.published:
        unit = replace(unit, withdrawal=unit.withdrawal + 1)
        actions = (Withdraw(unit.attempt, unit.withdrawal),)
    unit = replace(unit, crashed=True, pid=None, last_exit=event.exit, reason=event.exit.reason)
    if event.leftovers:
        return _terminate(unit, spec, *actions)
    unit, more = _ended(unit, spec, event.at, event.jitter)
    return unit, (*actions, *more)


def _stop_running(unit: Unit, event: StopRequested, spec: UnitSpec) -> Answer:
    return _out(replace(unit, wanted=False, forced=event.force, reason=""), spec)


def _restart_running(unit: Unit, event: RestartRequested, spec: UnitSpec) -> Answer:
    return _out(replace(unit, wanted=True, forced=event.force, reason=""), spec)


def _want(unit: Unit, event: StartRequested | RestartRequested, spec: UnitSpec) -> Answer:
    """On its way out: start it again at the end, at once even if the policy would have waited."""
    return replace(unit, wanted=True, crashed=False), ()


def _unwant(unit: Unit, event: StopRequested, spec: UnitSpec) -> Answer:
    return replace(unit, wanted=False, crashed=False, forced=unit.forced or event.force), ()


def _want_expiring(unit: Unit, event: StartRequested | RestartRequested, spec: UnitSpec) -> Answer:
    if unit.live:
        return _want(unit, event, spec)
    return _enter(unit, Phase.BACKOFF, wanted=True, delay_over=True, crashed=False)


def _cancel(unit: Unit, event: CancelRequested, spec: UnitSpec) -> Answer:
    """Too late for a unit whose process ended meanwhile; else nothing was signalled yet and it goes on."""
    return _resume(unit, "") if unit.live else (unit, ())


def _gone(unit: Unit, event: Gone | Unconfirmed, spec: UnitSpec) -> Answer:
    unit = replace(unit, published=False)
    if unit.live:
        return _settle(unit, spec)
    return _down(unit)


def _unconfirmed(unit: Unit, event: Unconfirmed, spec: UnitSpec) -> Answer:
    """A live unit is held, not stopped: it serves well, and others may still send to it."""
    if unit.live and not unit.forced:
        return _resume(unit, f"not stopped: {event.reason}")
    return _gone(unit, event, spec)


def _ended_on_the_way(unit: Unit, event: Exited, spec: UnitSpec) -> Answer:
    """It ended while it was being taken out: what was to come next is needless, what was wanted stands."""
    unit = replace(unit, pid=None, last_exit=event.exit)
    if event.leftovers:
        return _terminate(unit, spec)
    return _ended(unit, spec, event.at, event.jitter)


def _settled(unit: Unit, event: TimerFired, spec: UnitSpec) -> Answer:
    return _drain(unit, spec)


def _drained(unit: Unit, event: Drained, spec: UnitSpec) -> Answer:
    return _terminate(unit, spec)


def _exited_stopping(unit: Unit, event: Exited, spec: UnitSpec) -> Answer:
    exit_ = event.exit
    if unit.crashed and unit.last_exit is not None:  # it was ended for a reason of ours, which explains more
        exit_ = replace(exit_, reason=unit.last_exit.reason)
    unit = replace(unit, pid=None, last_exit=exit_)
    if event.leftovers:
        return unit, ()
    return _ended(unit, spec, event.at, event.jitter)


def _tree_empty(unit: Unit, event: TreeEmpty, spec: UnitSpec) -> Answer:
    return _ended(unit, spec, event.at, event.jitter)


def _forget_entry(unit: Unit, event: Gone | Unconfirmed, spec: UnitSpec) -> Answer:
    return replace(unit, published=False), ()


def _kill(unit: Unit, event: TimerFired, spec: UnitSpec) -> Answer:
    return _enter(unit, Phase.KILLING, Kill(unit.attempt), seconds=CANNOT_KILL_SECONDS)


def _kill_again(unit: Unit, event: TimerFired, spec: UnitSpec) -> Answer:
    unit = replace(unit, reason="cannot kill it: a process is stuck in the kernel; tried again every 30 s")
    return _kill(unit, event, spec)


_P = Phase
_ON_THE_WAY_OUT: dict[type[Event], Transition] = {
    StartRequested: _want, RestartRequested: _want, StopRequested: _unwant,
}  # fmt: skip
_SIGNALLED: dict[type[Event], Transition] = {
    **_ON_THE_WAY_OUT, Exited: _exited_stopping, TreeEmpty: _tree_empty, Gone: _forget_entry,
    Unconfirmed: _forget_entry,
}  # fmt: skip

_TABLE: dict[Phase, dict[type[Event], Transition]] = {
    _P.STOPPED: {StartRequested: _start, RestartRequested: _start, StopRequested: _stop_resting},
    _P.WAITING: {
        StartRequested: _start, RestartRequested: _start, StopRequested: _stop_dead, CancelRequested: _stop_dead,
        DependenciesReady: _start_waiting, Gone: _forget_entry, Unconfirmed: _forget_entry,
    },
    _P.BACKOFF: {
        StartRequested: _start_now, RestartRequested: _start_now, StopRequested: _stop_dead,
        CancelRequested: _stop_dead, TimerFired: _backoff_over, Gone: _backoff_gone, Unconfirmed: _backoff_gone,
    },
    _P.STARTING: {
        StopRequested: _stop_starting, CancelRequested: _stop_starting, RestartRequested: _restart_starting,
        Spawned: _spawned, Ready: _ready, Exited: _crashed, TimerFired: _start_timed_out,
    },
    _P.RUNNING: {StopRequested: _stop_running, RestartRequested: _restart_running, Exited: _crashed},
    _P.EXPIRING: {
        StartRequested: _want_expiring, RestartRequested: _want_expiring, StopRequested: _unwant,
        CancelRequested: _cancel, Gone: _gone, Unconfirmed: _unconfirmed, Exited: _ended_on_the_way,
    },
    _P.SETTLING: {
        **_ON_THE_WAY_OUT, CancelRequested: _cancel, TimerFired: _settled, Exited: _ended_on_the_way,
    },
    _P.DRAINING: {**_ON_THE_WAY_OUT, Drained: _drained, Exited: _ended_on_the_way},
    _P.STOPPING: {**_SIGNALLED, TimerFired: _kill},
    _P.KILLING: {**_SIGNALLED, TimerFired: _kill_again},
    _P.FATAL: {
        StartRequested: _start, RestartRequested: _start, StopRequested: _stop_dead, Gone: _forget_entry,
        Unconfirmed: _forget_entry,
    },
}  # fmt: skip

TRANSITIONS: dict[tuple[Phase, type[Event]], Transition] = {
    (phase, event): transition for phase, row in _TABLE.items() for event, transition in row.items()
}

# What cannot happen in a phase, or happens there without meaning anything: each with the reason.
_NO_PROCESS = (
    Spawned,
    Ready,
    Exited,
    TreeEmpty,
    Drained,
)  # a doubled or late word of an attempt that has ended
_IGNORED_BY_PHASE: dict[Phase, tuple[type[Event], ...]] = {
    # Nothing is under way, so there is nothing to cancel; it has no entry and no timer.
    _P.STOPPED: (*_NO_PROCESS, CancelRequested, DependenciesReady, Gone, Unconfirmed, TimerFired),
    # It waits for other units, not for time.
    _P.WAITING: (*_NO_PROCESS, TimerFired),
    # A restart after a crash does not wait for others: they were ready, and may be restarting for the same reason.
    _P.BACKOFF: (*_NO_PROCESS, DependenciesReady),
    # It is already on its way up; the tree cannot be empty before the exit; nothing is published yet.
    _P.STARTING: (StartRequested, DependenciesReady, TreeEmpty, Gone, Unconfirmed, Drained),
    # It is up; a "gone" belongs to a withdrawal that was taken back.
    _P.RUNNING: (
        StartRequested, CancelRequested, DependenciesReady, Spawned, Ready, TreeEmpty, Gone, Unconfirmed, Drained,
        TimerFired,
    ),
    # Waiting for the registry has no timer of its own: whoever looks for the entry answers in time.
    _P.EXPIRING: (DependenciesReady, Spawned, Ready, TreeEmpty, Drained, TimerFired),
    _P.SETTLING: (DependenciesReady, Spawned, Ready, TreeEmpty, Gone, Unconfirmed, Drained),
    # The unit was told to finish and may refuse work already: too late to cancel.
    _P.DRAINING: (
        CancelRequested, DependenciesReady, Spawned, Ready, TreeEmpty, Gone, Unconfirmed, TimerFired,
    ),
    # The signal cannot be called back. A process that had just been spawned says so late.
    _P.STOPPING: (CancelRequested, DependenciesReady, Spawned, Ready, Drained),
    _P.KILLING: (CancelRequested, DependenciesReady, Spawned, Ready, Drained),
    _P.FATAL: (*_NO_PROCESS, CancelRequested, DependenciesReady, TimerFired),
}  # fmt: skip
IGNORED: frozenset[tuple[Phase, type[Event]]] = frozenset(
    (phase, event) for phase, events in _IGNORED_BY_PHASE.items() for event in events
)

_STATE_WORDS = {
    _P.STOPPED: "STOPPED", _P.WAITING: "STARTING", _P.BACKOFF: "BACKOFF", _P.STARTING: "STARTING",
    _P.RUNNING: "RUNNING", _P.EXPIRING: "EXPIRING", _P.SETTLING: "EXPIRING", _P.DRAINING: "DRAINING",
    _P.STOPPING: "STOPPING", _P.KILLING: "STOPPING", _P.FATAL: "FATAL",
}  # fmt: skip


def state_word(unit: Unit) -> str:
    """The one word that people see for a unit's state."""
    if unit.phase is Phase.STOPPED and unit.crashed:
        return "EXITED"
    return _STATE_WORDS[unit.phase]
