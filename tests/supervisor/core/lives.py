"""Units to begin with, and words for walking them through their lives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from supervisor.core.events import Action, ArmTimer, Event, Ready, Spawned, StartRequested
from supervisor.core.lifecycle import step
from supervisor.core.model import (
    DrainSpec,
    Exit,
    Hook,
    HttpCall,
    Phase,
    RestartPolicy,
    ServiceSpec,
    Unit,
    UnitSpec,
    WarmupSpec,
)
from supervisor.core.paths import Answer

QUICK = RestartPolicy(settle_seconds=0.0)
FLAG, FLAG_BACK = Hook(signal=10, timeout=5.0), Hook(signal=12)
PLAIN = UnitSpec("web", "web", 0, ("web",), restart=QUICK)
SERVICE = replace(PLAIN, service=ServiceSpec("web", "127.0.0.1", 9080))
SETTLING = replace(SERVICE, restart=RestartPolicy(settle_seconds=2.0))
WORKER = replace(PLAIN, drain=DrainSpec(notify=FLAG, timeout=20.0))
TOLD = replace(SERVICE, drain=DrainSpec(notify=FLAG, timeout=20.0))
TOLD_AND_BACK = replace(SERVICE, drain=DrainSpec(notify=FLAG, resume=FLAG_BACK, timeout=20.0))
PREWARMED = replace(SERVICE, warmup=WarmupSpec(requests=(HttpCall("GET", "/warm"),), requests_timeout=7.0))
RAMPED = replace(SERVICE, warmup=WarmupSpec())
BAD, CLEAN = Exit("exited with code 1", code=1), Exit("exited with code 0", code=0)
MISSING = Exit("no such file: /x", stage="exec", errno=2, can_heal=False)


def after(unit: Unit, spec: UnitSpec, *events: Event) -> Answer:
    """The unit after these events, and the actions of the last one."""
    actions: tuple[Action, ...] = ()
    for event in events:
        unit, actions = step(unit, event, spec)
    return unit, actions


def starting(spec: UnitSpec) -> Unit:
    return after(Unit(), spec, StartRequested(), Spawned(1, 4242))[0]


def running(spec: UnitSpec, at: float = 100.0) -> Unit:
    """Up, ready since `at`, and published if it has a service."""
    unit, _ = after(starting(spec), spec, Ready(1, at))
    assert (unit.phase, unit.published) == (Phase.RUNNING, spec.service is not None)
    return unit


def kinds(actions: Sequence[Action]) -> list[type[Action]]:
    return [type(action) for action in actions]


def timer(actions: Sequence[Action]) -> float:
    """The seconds of the one timer that was armed."""
    (armed,) = [action for action in actions if isinstance(action, ArmTimer)]
    return armed.seconds


def facts(unit: Unit, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(unit, name) for name in names)
