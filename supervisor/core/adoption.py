"""How a unit goes on in another daemon: the same phase, and the actions that may not have been performed. Pure.

Every step of a unit is written down before its actions are performed, so the actions of the last one may have been
performed or not, or to the half. They are ordered again: a registration, a withdrawal, a stop signal and a kill mean
the same when they come twice. The time that a phase has taken counts on.
"""

from __future__ import annotations

from dataclasses import replace

from .events import Action, ArmTimer, Drain, Kill, Prewarm, Publish, Spawn, Terminate
from .model import DrainSpec, Phase, Unit, UnitSpec
from .paths import CANNOT_KILL_SECONDS, SPARE_SECONDS, Answer, withdraw_anew

_NO_PROCESS = frozenset((Phase.STOPPED, Phase.WAITING, Phase.BACKOFF, Phase.FATAL))


def resume(unit: Unit, spec: UnitSpec, *, spawned: bool, left_seconds: float | None, elapsed: float) -> Answer:
    """Go on where another daemon has ended.

    `spawned`: something of the attempt was seen to exist, or is on record. `left_seconds`: how long the timer had to go
    when it ended (None: there was none), as it is now; `elapsed`: how long it has been in this phase.
    """
    if unit.phase in _NO_PROCESS:
        return _resting(unit, left_seconds)
    match unit.phase:
        case Phase.STARTING:
            actions: tuple[Action, ...] = () if spawned else (Spawn(unit.attempt),)
            return _timed(unit, actions, spec.start_timeout - (elapsed if spawned else 0.0))
        case Phase.PREWARMING:
            seconds = spec.warmup.requests_timeout if spec.warmup is not None else 0.0
            return _timed(unit, (Prewarm(unit.attempt),), seconds + SPARE_SECONDS)
        case Phase.RUNNING:
            return _running(unit, spec)
        case Phase.EXPIRING:
            return withdraw_anew(replace(unit, published=True))
        case Phase.SETTLING:
            return _timed(unit, (), spec.restart.settle_seconds - elapsed)
        case Phase.DRAINING:
            return _draining(unit, spec, elapsed)
        case Phase.STOPPING:
            return _timed(unit, (Terminate(unit.attempt),), spec.stopwaitsecs - elapsed)
        case _:
            return _timed(unit, (Kill(unit.attempt),), CANNOT_KILL_SECONDS)


def _timed(unit: Unit, actions: tuple[Action, ...], seconds: float) -> Answer:
    """With a timer of its own; whatever the daemon before has armed is nobody's any more."""
    timer = unit.timer + 1
    return replace(unit, timer=timer), (*actions, ArmTimer(timer, max(0.0, seconds)))


def _resting(unit: Unit, left_seconds: float | None) -> Answer:
    """Nothing of it is live. An entry that may be there still has to go."""
    actions: tuple[Action, ...] = ()
    if unit.published:
        unit, actions = withdraw_anew(unit)
    if unit.phase is Phase.BACKOFF and not unit.delay_over:
        return _timed(unit, actions, left_seconds or 0.0)
    if unit.phase is Phase.BACKOFF and not unit.published:
        return _timed(unit, actions, 0.0)
    return unit, actions


def _running(unit: Unit, spec: UnitSpec) -> Answer:
    if spec.service is not None and unit.healthy and not unit.drained:
        return replace(unit, published=True, withdrawn=False), (Publish(unit.attempt),)
    return withdraw_anew(unit) if unit.published else (unit, ())


def _draining(unit: Unit, spec: UnitSpec, elapsed: float) -> Answer:
    """It is told once more to refuse new work, if it was told: nobody knows whether it has heard it."""
    how = spec.drain or DrainSpec()
    notify = unit.told and how.notify is not None
    seconds = how.timeout + (how.notify.timeout if how.notify is not None and notify else 0.0) + SPARE_SECONDS
    return _timed(unit, (Drain(unit.attempt, notify),), seconds - elapsed)
