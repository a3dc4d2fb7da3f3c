"""One unit's life: what may happen (events), what is to be done (actions), and the table that joins them.

Theory of operation
-------------------
A unit is a value (`model.Unit`). `step(unit, event, spec)` answers one event with the next value and the actions to
perform; outcomes of actions come back as events. Nothing here knows a clock, a process or a registry.

*Wanted* says whether the unit should be up, *phase* where it stands; *healthy* whether it could serve, *drained*
whether somebody wants it out of traffic; and two facts bind it to the world: `live` (a process, or something that it
left, may exist) and `published` (its registry entry may exist). The rules that all of the table serves:

- A process is spawned only when nothing of the last attempt is live and its entry is gone (`paths.up`).
- A live unit is signalled only when its entry is gone and its work is over, or when its process has ended by itself
  (`paths.out`).
- Every way out is one path: withdraw, gone, settle, drain, terminate; a crash enters it further down, and a drain that
  lasts stops before its end. Every way in is one path: spawn, ready, prewarm, publish.
- Lost readiness withdraws and leaves the process alone; lost liveness takes the way out, and counts as a crash.
- `attempt` grows with each spawn and is the generation in the registry. Events carry the attempt they speak of, "gone"
  also the withdrawal, timers their id: what speaks of something past is stale and changes nothing.
- A unit has one timer. Entering a phase disarms it, arming replaces it.

Every pair of phase and event is either in `TRANSITIONS` or in `IGNORED`, never in both; a test holds that.
"""

from __future__ import annotations

from . import transitions as t
from .events import (
    CancelRequested,
    DependenciesReady,
    Drained,
    DrainRequested,
    Event,
    Exited,
    Gone,
    LivenessLost,
    Prewarmed,
    ReadinessLost,
    ReadinessRegained,
    Ready,
    RestartRequested,
    Spawned,
    StartRequested,
    StopRequested,
    TimerFired,
    TreeEmpty,
    Unconfirmed,
    UndrainRequested,
)  # fmt: skip
from .model import Phase, Unit, UnitSpec
from .paths import Answer, Transition


def step(unit: Unit, event: Event, spec: UnitSpec) -> Answer:
    """Answer one event. Pure: no clock, no I/O; equal inputs give equal answers."""
    if event.is_stale(unit):
        return unit, ()
    key = unit.phase, type(event)
    return (unit, ()) if key in IGNORED else TRANSITIONS[key](unit, event, spec)


def can_cancel(unit: Unit) -> bool:
    """What is under way can be called off."""
    if unit.phase in (Phase.EXPIRING, Phase.SETTLING, Phase.DRAINING):
        return t.can_resume(unit)
    return (unit.phase, CancelRequested) not in IGNORED


_P = Phase
_Row = dict[type[Event], Transition]
_NOTES: _Row = {DrainRequested: t.note_drain, UndrainRequested: t.note_undrain}
_COMING: _Row = {
    **_NOTES, StopRequested: t.stop_starting, CancelRequested: t.stop_starting, RestartRequested: t.restart_starting,
    LivenessLost: t.start_failed, Exited: t.crashed,
}  # fmt: skip
_LEAVING: _Row = {
    StartRequested: t.start_leaving, RestartRequested: t.restart_leaving, StopRequested: t.stop_leaving,
    DrainRequested: t.note_drain, UndrainRequested: t.undrain_leaving, CancelRequested: t.cancel,
    ReadinessLost: t.note_unready, ReadinessRegained: t.note_ready, LivenessLost: t.dead_leaving,
    Exited: t.ended_on_the_way,
}  # fmt: skip
_SIGNALLED: _Row = {
    **_NOTES, StartRequested: t.want, RestartRequested: t.want, StopRequested: t.unwant, Exited: t.exited_stopping,
    TreeEmpty: t.tree_empty, Gone: t.forget_entry, Unconfirmed: t.forget_entry,
}  # fmt: skip

_TABLE: dict[Phase, _Row] = {
    _P.STOPPED: {
        **_NOTES, StartRequested: t.start, RestartRequested: t.start, StopRequested: t.stop_resting,
    },
    _P.WAITING: {
        **_NOTES, StartRequested: t.start, RestartRequested: t.start, StopRequested: t.stop_dead,
        CancelRequested: t.stop_dead, DependenciesReady: t.start_waiting, Gone: t.forget_entry,
        Unconfirmed: t.forget_entry,
    },
    _P.BACKOFF: {
        **_NOTES, StartRequested: t.start_now, RestartRequested: t.start_now, StopRequested: t.stop_dead,
        CancelRequested: t.stop_dead, TimerFired: t.backoff_over, Gone: t.backoff_gone, Unconfirmed: t.backoff_gone,
    },
    _P.STARTING: {**_COMING, Spawned: t.spawned, Ready: t.ready, TimerFired: t.start_failed},
    _P.PREWARMING: {
        **_COMING, ReadinessLost: t.note_unready, ReadinessRegained: t.note_ready, Prewarmed: t.prewarmed,
        TimerFired: t.prewarmed,
    },
    _P.RUNNING: {
        StopRequested: t.stop_running, RestartRequested: t.restart_running, DrainRequested: t.drain_running,
        UndrainRequested: t.undrain_running, ReadinessLost: t.unready, ReadinessRegained: t.ready_again,
        LivenessLost: t.dead, Gone: t.gone_running, Unconfirmed: t.unconfirmed_running, Exited: t.crashed,
    },
    _P.EXPIRING: {**_LEAVING, Gone: t.gone, Unconfirmed: t.unconfirmed},
    _P.SETTLING: {**_LEAVING, TimerFired: t.settled},
    _P.DRAINING: {**_LEAVING, Drained: t.drained, TimerFired: t.drained},
    _P.STOPPING: {**_SIGNALLED, TimerFired: t.kill},
    _P.KILLING: {**_SIGNALLED, TimerFired: t.kill_again},
    _P.FATAL: {
        **_NOTES, StartRequested: t.start, RestartRequested: t.start, StopRequested: t.stop_dead, Gone: t.forget_entry,
        Unconfirmed: t.forget_entry,
    },
}  # fmt: skip

TRANSITIONS: dict[tuple[Phase, type[Event]], Transition] = {
    (phase, event): transition for phase, row in _TABLE.items() for event, transition in row.items()
}

# What cannot happen in a phase, or happens there without meaning anything: each with the reason.
_HEALTH: tuple[type[Event], ...] = (ReadinessLost, ReadinessRegained, LivenessLost)
_NO_PROCESS: tuple[type[Event], ...] = (
    Spawned,
    Ready,
    Prewarmed,
    *_HEALTH,
    Exited,
    TreeEmpty,
    Drained,
)  # a doubled or late word of an attempt that has ended
_WAS_SPAWNED: tuple[type[Event], ...] = (DependenciesReady, Spawned, Ready, Prewarmed, TreeEmpty)
_IGNORED_BY_PHASE: dict[Phase, tuple[type[Event], ...]] = {
    # Nothing is under way, so there is nothing to cancel; it has no entry and no timer.
    _P.STOPPED: (*_NO_PROCESS, CancelRequested, DependenciesReady, Gone, Unconfirmed, TimerFired),
    # It waits for other units, not for time.
    _P.WAITING: (*_NO_PROCESS, TimerFired),
    # A restart after a crash does not wait for others: they were ready, and may be restarting for the same reason.
    _P.BACKOFF: (*_NO_PROCESS, DependenciesReady),
    # It is already on its way up; the tree cannot be empty before the exit; nothing is published yet; readiness that
    # was never there cannot be lost.
    _P.STARTING: (
        StartRequested, DependenciesReady, TreeEmpty, Gone, Unconfirmed, Drained, Prewarmed, ReadinessLost,
        ReadinessRegained,
    ),
    _P.PREWARMING: (StartRequested, DependenciesReady, Spawned, Ready, TreeEmpty, Gone, Unconfirmed, Drained),
    # It is up, and has no timer.
    _P.RUNNING: (StartRequested, CancelRequested, *_WAS_SPAWNED, Drained, TimerFired),
    # Waiting for the registry has no timer of its own: whoever looks for the entry answers in time.
    _P.EXPIRING: (*_WAS_SPAWNED, Drained, TimerFired),
    _P.SETTLING: (*_WAS_SPAWNED, Gone, Unconfirmed, Drained),
    _P.DRAINING: (*_WAS_SPAWNED, Gone, Unconfirmed),
    # The signal cannot be called back. A process that had just been spawned says so late.
    _P.STOPPING: (CancelRequested, DependenciesReady, Spawned, Ready, Prewarmed, *_HEALTH, Drained),
    _P.KILLING: (CancelRequested, DependenciesReady, Spawned, Ready, Prewarmed, *_HEALTH, Drained),
    _P.FATAL: (*_NO_PROCESS, CancelRequested, DependenciesReady, TimerFired),
}  # fmt: skip
IGNORED: frozenset[tuple[Phase, type[Event]]] = frozenset(
    (phase, event) for phase, events in _IGNORED_BY_PHASE.items() for event in events
)

_STATE_WORDS = {
    _P.STOPPED: "STOPPED", _P.WAITING: "STARTING", _P.BACKOFF: "BACKOFF", _P.STARTING: "STARTING",
    _P.PREWARMING: "STARTING", _P.RUNNING: "RUNNING", _P.EXPIRING: "EXPIRING", _P.SETTLING: "EXPIRING",
    _P.DRAINING: "DRAINING", _P.STOPPING: "STOPPING", _P.KILLING: "STOPPING", _P.FATAL: "FATAL",
}  # fmt: skip


def state_word(unit: Unit, *, warming: bool = False) -> str:
    """The one word that people see for a unit's state; `warming`: its weight is still growing."""
    if unit.phase is Phase.STOPPED and unit.crashed:
        return "EXITED"
    if unit.phase is Phase.RUNNING:
        if unit.drained:
            return "DRAINED"
        if not unit.healthy:
            return "UNHEALTHY"
        if warming:
            return "WARMING"
    return _STATE_WORDS[unit.phase]
