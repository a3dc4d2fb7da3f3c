"""What each event does to a unit, one function for each answer; `lifecycle.py` says in which phase each of them counts.

They are told apart by what they are about: `..._running` of a unit that is up, `..._leaving` of one that is being
taken out, `note_...` where only a fact is kept.
"""

from __future__ import annotations

from dataclasses import replace

from . import paths
from .events import (
    CancelRequested,
    DependenciesReady,
    Drained,
    DrainRequested,
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
from .model import Exit, Phase, Unit, UnitSpec
from .paths import Answer


def start(unit: Unit, event: StartRequested | RestartRequested, spec: UnitSpec) -> Answer:
    unit = replace(unit, wanted=True, failures=0, failed_starts=0)
    if event.waits_for:
        return paths.enter(unit, Phase.WAITING, crashed=False, reason=f"waits for {event.waits_for} to be ready")
    return paths.up(unit, spec)


def stop_resting(unit: Unit, event: StopRequested, spec: UnitSpec) -> Answer:
    return replace(unit, wanted=False, crashed=False, reason=""), ()


def stop_dead(unit: Unit, event: StopRequested | CancelRequested, spec: UnitSpec) -> Answer:
    return paths.down(unit, crashed=False, reason="")


def note_drain(unit: Unit, event: DrainRequested, spec: UnitSpec) -> Answer:
    """It is not in traffic, or on its way out of it: it will stay out."""
    return (unit if unit.drained else replace(unit, drained=True)), ()


def note_undrain(unit: Unit, event: UndrainRequested, spec: UnitSpec) -> Answer:
    return (replace(unit, drained=False) if unit.drained else unit), ()


def note_unready(unit: Unit, event: ReadinessLost, spec: UnitSpec) -> Answer:
    return replace(unit, healthy=False), ()


def note_ready(unit: Unit, event: ReadinessRegained, spec: UnitSpec) -> Answer:
    return replace(unit, healthy=True, ready_at=event.at), ()


def start_waiting(unit: Unit, event: DependenciesReady, spec: UnitSpec) -> Answer:
    return paths.up(unit, spec)


def start_now(unit: Unit, event: StartRequested | RestartRequested, spec: UnitSpec) -> Answer:
    return paths.up(replace(unit, wanted=True), spec)


def backoff_over(unit: Unit, event: TimerFired, spec: UnitSpec) -> Answer:
    return paths.up(unit, spec)


def backoff_gone(unit: Unit, event: Gone | Unconfirmed, spec: UnitSpec) -> Answer:
    unit = replace(unit, published=False)
    return paths.spawn(unit, spec) if unit.delay_over else (unit, ())


def spawned(unit: Unit, event: Spawned, spec: UnitSpec) -> Answer:
    return replace(unit, pid=event.pid), ()


def ready(unit: Unit, event: Ready, spec: UnitSpec) -> Answer:
    return paths.ready(replace(unit, ready_at=event.at, failed_starts=0), spec)


def prewarmed(unit: Unit, event: Prewarmed | TimerFired, spec: UnitSpec) -> Answer:
    return paths.serve(unit, spec)


def stop_starting(unit: Unit, event: StopRequested | CancelRequested, spec: UnitSpec) -> Answer:
    return paths.terminate(unit, spec, wanted=False)


def restart_starting(unit: Unit, event: RestartRequested, spec: UnitSpec) -> Answer:
    return paths.terminate(unit, spec, wanted=True)


def start_failed(unit: Unit, event: TimerFired | LivenessLost, spec: UnitSpec) -> Answer:
    if isinstance(event, LivenessLost):
        reason = event.reason
    else:
        reason = f"was not ready within {spec.start_timeout:g} s" + (f": {event.awaited}" if event.awaited else "")
    return paths.terminate(unit, spec, crashed=True, dead=True, reason=reason, last_exit=Exit(reason))


def crashed(unit: Unit, event: Exited, spec: UnitSpec) -> Answer:
    """It ended by itself: its heartbeat ends too, and what it left behind is stopped."""
    unit, actions = paths.withdraw(unit)
    unit = replace(unit, crashed=True, pid=None, last_exit=event.exit, reason=event.exit.reason)
    if event.leftovers:
        return paths.terminate(unit, spec, *actions)
    unit, more = paths.ended(unit, spec, event.at, event.jitter)
    return unit, (*actions, *more)


def stop_running(unit: Unit, event: StopRequested, spec: UnitSpec) -> Answer:
    return paths.out(replace(unit, wanted=False, forced=event.force, reason=""), spec)


def restart_running(unit: Unit, event: RestartRequested, spec: UnitSpec) -> Answer:
    dead = unit.dead or event.no_drain
    return paths.out(replace(unit, wanted=True, forced=event.force, dead=dead, reason=""), spec)


def drain_running(unit: Unit, event: DrainRequested, spec: UnitSpec) -> Answer:
    if unit.drained:
        return unit, ()
    return paths.out(replace(unit, drained=True, forced=False, reason=""), spec, leaving=False)


def undrain_running(unit: Unit, event: UndrainRequested, spec: UnitSpec) -> Answer:
    if not unit.drained:
        return unit, ()
    return paths.resume(replace(unit, drained=False), spec, unit.reason)


def unready(unit: Unit, event: ReadinessLost, spec: UnitSpec) -> Answer:
    unit, actions = paths.withdraw(unit)
    return replace(unit, healthy=False, reason=event.reason), actions


def ready_again(unit: Unit, event: ReadinessRegained, spec: UnitSpec) -> Answer:
    if unit.healthy:
        return unit, ()
    return paths.serve(replace(unit, healthy=True, ready_at=event.at, reason=""), spec)


def dead(unit: Unit, event: LivenessLost, spec: UnitSpec) -> Answer:
    """It seems alive and is not: out of the registry first, for it still holds its port."""
    unit = replace(unit, crashed=True, dead=True, reason=event.reason, last_exit=Exit(event.reason))
    return paths.out(unit, spec)


def gone_running(unit: Unit, event: Gone, spec: UnitSpec) -> Answer:
    """Unless that withdrawal was taken back, for it can serve again."""
    return (replace(unit, published=False) if paths.is_withdrawn(unit) else unit), ()


def unconfirmed_running(unit: Unit, event: Unconfirmed, spec: UnitSpec) -> Answer:
    return paths.withdraw_anew(unit) if paths.is_withdrawn(unit) else (unit, ())


def want(unit: Unit, event: StartRequested | RestartRequested, spec: UnitSpec) -> Answer:
    """On its way out: start it again at the end, at once even if the policy would have waited."""
    return replace(unit, wanted=True, crashed=False), ()


def unwant(unit: Unit, event: StopRequested, spec: UnitSpec) -> Answer:
    return replace(unit, wanted=False, crashed=False, forced=unit.forced or event.force), ()


def start_leaving(unit: Unit, event: StartRequested, spec: UnitSpec) -> Answer:
    """On the way to a stop: start it again at the end. On the way to a lasting drain: it is up."""
    if unit.live:
        return want(unit, event, spec) if unit.leaving else (unit, ())
    return paths.enter(unit, Phase.BACKOFF, wanted=True, delay_over=True, crashed=False)


def restart_leaving(unit: Unit, event: RestartRequested, spec: UnitSpec) -> Answer:
    if not unit.live:
        return paths.enter(unit, Phase.BACKOFF, wanted=True, delay_over=True, crashed=False)
    unit = replace(unit, wanted=True, crashed=False, forced=unit.forced or event.force)
    if event.no_drain:
        unit = replace(unit, dead=True, leaving=True)
        return paths.drained(unit, spec) if unit.phase is Phase.DRAINING else (unit, ())
    return _leave(unit, spec)


def stop_leaving(unit: Unit, event: StopRequested, spec: UnitSpec) -> Answer:
    return _leave(unwant(unit, event, spec)[0], spec)


def _leave(unit: Unit, spec: UnitSpec) -> Answer:
    """From now on its process is stopped at the end. One that is draining to stay has not been told to refuse work."""
    if unit.leaving or unit.phase is not Phase.DRAINING:
        return replace(unit, leaving=True), ()
    return paths.drain(replace(unit, leaving=True), spec)


def undrain_leaving(unit: Unit, event: UndrainRequested, spec: UnitSpec) -> Answer:
    """What was under way for the drain's sake alone is over."""
    unit = replace(unit, drained=False)
    return (unit, ()) if unit.leaving or not unit.live else paths.resume(unit, spec, "")


def cancel(unit: Unit, event: CancelRequested, spec: UnitSpec) -> Answer:
    """Too late for a unit whose process has ended meanwhile; else nothing was signalled yet and it goes on."""
    if not can_resume(unit):
        return unit, ()
    return paths.resume(replace(unit, drained=unit.drained and unit.leaving), spec, "")


def dead_leaving(unit: Unit, event: LivenessLost, spec: UnitSpec) -> Answer:
    """Nothing is awaited of it any more; what it was taken out for goes on."""
    if not unit.live or unit.dead:
        return unit, ()
    unit = replace(unit, dead=True, reason=event.reason)
    if not unit.leaving:
        unit = replace(unit, crashed=True, leaving=True, last_exit=Exit(event.reason))
    return paths.drained(unit, spec) if unit.phase is Phase.DRAINING else (unit, ())


def gone(unit: Unit, event: Gone | Unconfirmed, spec: UnitSpec) -> Answer:
    unit = replace(unit, published=False)
    if not unit.live:
        return paths.down(unit)
    settled = isinstance(event, Gone) and event.settled
    return paths.drain(unit, spec) if settled else paths.settle(unit, spec)


def unconfirmed(unit: Unit, event: Unconfirmed, spec: UnitSpec) -> Answer:
    """A live unit is held, not stopped: it serves well, and others may still send to it. A dead one goes on."""
    if not unit.live or unit.forced or unit.crashed or unit.dead:
        return gone(unit, event, spec)
    what = "stopped" if unit.leaving else "drained"
    unit, actions = paths.resume(
        replace(unit, drained=unit.drained and unit.leaving), spec, f"not {what}: {event.reason}"
    )
    if unit.healthy and not unit.drained:
        return unit, actions
    unit, more = paths.withdraw_anew(unit)  # it was out of traffic before, and is to be
    return unit, (*actions, *more)


def ended_on_the_way(unit: Unit, event: Exited, spec: UnitSpec) -> Answer:
    """It ended while it was being taken out: what was to come next is needless, what was wanted stands."""
    if not unit.leaving:
        return crashed(unit, event, spec)
    unit = replace(unit, pid=None, last_exit=_explained(unit, event.exit))
    if event.leftovers:
        return paths.terminate(unit, spec)
    return paths.ended(unit, spec, event.at, event.jitter)


def _explained(unit: Unit, exit_: Exit) -> Exit:
    """How it ended; where it was ended for a reason of ours, that explains more."""
    if unit.crashed and unit.last_exit is not None:
        return replace(exit_, reason=unit.last_exit.reason)
    return exit_


def settled(unit: Unit, event: TimerFired, spec: UnitSpec) -> Answer:
    return paths.drain(unit, spec)


def drained(unit: Unit, event: Drained | TimerFired, spec: UnitSpec) -> Answer:
    return paths.drained(unit, spec)


def exited_stopping(unit: Unit, event: Exited, spec: UnitSpec) -> Answer:
    unit = replace(unit, pid=None, last_exit=_explained(unit, event.exit))
    if event.leftovers:
        return unit, ()
    return paths.ended(unit, spec, event.at, event.jitter)


def tree_empty(unit: Unit, event: TreeEmpty, spec: UnitSpec) -> Answer:
    return paths.ended(unit, spec, event.at, event.jitter)


def forget_entry(unit: Unit, event: Gone | Unconfirmed, spec: UnitSpec) -> Answer:
    return replace(unit, published=False), ()


def kill(unit: Unit, event: TimerFired, spec: UnitSpec) -> Answer:
    return paths.kill(unit)


def kill_again(unit: Unit, event: TimerFired, spec: UnitSpec) -> Answer:
    return paths.kill(replace(unit, reason="cannot kill it: a process is stuck in the kernel; tried again every 30 s"))


def can_resume(unit: Unit) -> bool:
    """Being taken out, and still able to go on: nothing was signalled, and nobody told it to refuse work for good."""
    return unit.live and not unit.crashed and not unit.dead and not (unit.told and unit.leaving)
