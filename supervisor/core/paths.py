"""The steps of the one entry path and the one exit path: how each phase is entered, and with which actions.

`lifecycle.py` decides which of them answers an event; each returns a whole answer, so that a transition can end with
one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .events import Action, ArmTimer, Drain, Kill, Prewarm, Publish, Resume, Spawn, Terminate, Withdraw
from .model import DrainSpec, Exit, Phase, Unit, UnitSpec
from .restart import judge

CANNOT_KILL_SECONDS = 30.0  # after SIGKILL; then it is reported and repeated
SPARE_SECONDS = 5.0  # beyond the time that an agent was given: it is late, and is not waited for any longer

Answer = tuple[Unit, tuple[Action, ...]]
Transition = Callable[[Unit, Any, UnitSpec], Answer]


def enter(unit: Unit, phase: Phase, *actions: Action, seconds: float | None = None, **facts: Any) -> Answer:
    """The unit in another phase, its timer replaced (armed where `seconds` is given)."""
    timer = unit.timer + 1
    if seconds is not None:
        actions = (*actions, ArmTimer(timer, seconds))
    return replace(unit, phase=phase, timer=timer, **facts), actions


# The entry path.


def spawn(unit: Unit, spec: UnitSpec) -> Answer:
    """The next attempt."""
    attempt = unit.attempt + 1
    fresh: dict[str, Any] = {
        "pid": None, "ready_at": None, "crashed": False, "forced": False, "live": True, "healthy": True,
        "leaving": False, "told": False, "dead": False, "withdrawn": False,
    }  # fmt: skip
    return enter(unit, Phase.STARTING, Spawn(attempt), seconds=spec.start_timeout, attempt=attempt, reason="", **fresh)


def up(unit: Unit, spec: UnitSpec) -> Answer:
    """Nothing of it is live: the next attempt, once the entry of the last one is gone."""
    if unit.published:
        return enter(unit, Phase.BACKOFF, delay_over=True, crashed=False)
    return spawn(unit, spec)


def ready(unit: Unit, spec: UnitSpec) -> Answer:
    """It can serve: first our own requests, then everybody's."""
    if spec.service is not None and spec.warmup is not None and spec.warmup.requests:
        return enter(
            unit, Phase.PREWARMING, Prewarm(unit.attempt), seconds=spec.warmup.requests_timeout + SPARE_SECONDS
        )
    return serve(unit, spec)


def serve(unit: Unit, spec: UnitSpec, *actions: Action, **facts: Any) -> Answer:
    """Into traffic, if it is to have any. Whether its entry is there already makes no difference."""
    if spec.service is None or unit.drained or not unit.healthy:
        return enter(unit, Phase.RUNNING, *actions, **facts)
    return enter(unit, Phase.RUNNING, *actions, Publish(unit.attempt), published=True, withdrawn=False, **facts)


# The exit path.


def withdraw(unit: Unit) -> tuple[Unit, tuple[Action, ...]]:
    """Its heartbeat ends, if that has not happened yet."""
    if not unit.published or is_withdrawn(unit):
        return unit, ()
    return withdraw_anew(unit)


def withdraw_anew(unit: Unit) -> tuple[Unit, tuple[Action, ...]]:
    """Another withdrawal; what is said of earlier ones does not count any more."""
    unit = replace(unit, withdrawal=unit.withdrawal + 1, withdrawn=True)
    return unit, (Withdraw(unit.attempt, unit.withdrawal),)


def is_withdrawn(unit: Unit) -> bool:
    """A withdrawal is under way: whoever takes the entry out will answer."""
    return unit.published and unit.withdrawn


def out(unit: Unit, spec: UnitSpec, *, leaving: bool = True) -> Answer:
    """The exit path from its top, for a live unit; unless it is `leaving`, its process stays at the end."""
    unit = replace(unit, leaving=leaving)
    if not unit.published:
        return drain(unit, spec)
    unit, actions = withdraw(unit)
    return enter(unit, Phase.EXPIRING, *actions)


def settle(unit: Unit, spec: UnitSpec) -> Answer:
    """Nobody finds it any more; whoever has found it before gets time to notice."""
    if spec.restart.settle_seconds > 0:
        return enter(unit, Phase.SETTLING, seconds=spec.restart.settle_seconds)
    return drain(unit, spec)


def drain(unit: Unit, spec: UnitSpec) -> Answer:
    """Nobody sends to it any more: what it has may finish. Nothing is awaited of one that does not answer."""
    if unit.dead or (spec.service is None and spec.drain is None):
        return drained(unit, spec)
    how = spec.drain or DrainSpec()
    # A unit that stays is told only what can be taken back.
    notify = how.notify is not None and not unit.told and (unit.leaving or how.resume is not None)
    seconds = how.timeout + (how.notify.timeout if how.notify and notify else 0) + SPARE_SECONDS
    told = unit.told or notify
    return enter(unit, Phase.DRAINING, Drain(unit.attempt, notify), seconds=seconds, told=told)


def drained(unit: Unit, spec: UnitSpec) -> Answer:
    """It has finished."""
    if unit.leaving:
        return terminate(unit, spec)
    return enter(unit, Phase.RUNNING)


def terminate(unit: Unit, spec: UnitSpec, *before: Action, **facts: Any) -> Answer:
    """The stop signal."""
    return enter(unit, Phase.STOPPING, *before, Terminate(unit.attempt), seconds=spec.stopwaitsecs, **facts)


def kill(unit: Unit) -> Answer:
    """SIGKILL; again and again, if need be."""
    return enter(unit, Phase.KILLING, Kill(unit.attempt), seconds=CANNOT_KILL_SECONDS)


def resume(unit: Unit, spec: UnitSpec, reason: str) -> Answer:
    """Back to where it was: nothing was signalled yet. Its heartbeat goes on, if it may have traffic."""
    actions = (Resume(unit.attempt),) if unit.told else ()
    return serve(unit, spec, *actions, wanted=True, forced=False, leaving=False, told=False, reason=reason)


# Ends.


def down(unit: Unit, **facts: Any) -> Answer:
    """Nothing of it is live and nobody wants it: rest, once the entry is gone."""
    phase = Phase.EXPIRING if unit.published else Phase.STOPPED
    return enter(unit, phase, wanted=False, live=False, pid=None, **facts)


def ended(unit: Unit, spec: UnitSpec, at: float, jitter: float) -> Answer:
    """The tree is empty: what follows."""
    unit = replace(unit, live=False, pid=None)
    if unit.crashed:
        return _after_crash(unit, spec, at, jitter)
    return up(unit, spec) if unit.wanted else down(unit)


def _after_crash(unit: Unit, spec: UnitSpec, at: float, jitter: float) -> Answer:
    policy, was_ready = spec.restart, unit.ready_at is not None
    stable = unit.ready_at is not None and at - unit.ready_at >= policy.stable_seconds
    failures = 1 if stable else unit.failures + 1
    failed_starts = 0 if was_ready else unit.failed_starts + 1
    exit_ = unit.last_exit or Exit("ended")
    if unit.dead:  # how it answered our signal says nothing about why it had to go
        exit_ = replace(exit_, code=None)
    verdict = judge(policy, exit_, failures=failures, failed_starts=failed_starts, was_ready=was_ready, jitter=jitter)
    unit = replace(unit, failures=failures, failed_starts=failed_starts, reason=verdict.reason)
    if verdict.follow == "rest":
        return down(unit)
    if verdict.follow == "give up":
        return enter(unit, Phase.FATAL)
    unit, _ = enter(unit, Phase.BACKOFF, delay_over=False, restarts=unit.restarts + 1)
    return unit, (ArmTimer(unit.timer, verdict.delay, automatic=True),)
