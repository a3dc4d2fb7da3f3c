"""The beginning of a daemon's work: what an earlier one has left goes on, and what is to be up is started."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

from .agents.publisher import is_published
from .agents.recovery import Recovery
from .agents.weights import restore_weights
from .assembly import AWAY, Parts
from .core.model import Phase, UnitSpec
from .host.clock import monotonic

log = logging.getLogger("unitd")

REGISTER_AGAIN_SECONDS = 2.0  # of units that go on; a registry in this process answers at once
_WATCHED = (*AWAY, Phase.STARTING, Phase.PREWARMING, Phase.RUNNING)


def start_units(parts: Parts, units: Mapping[str, UnitSpec]) -> None:
    """Take up what an earlier daemon has left, and start what is to be up."""
    recovery = Recovery(
        parts.journal, parts.runners, parts.processes, parts.recorder, parts.maintenances, parts.registries,
        parts.restart_agents, partial(_adopted, parts),
    )  # fmt: skip
    forgot = all(spec.backend == "embedded" for spec in parts.spec.registries)
    recovery.add_units(units, parts.attempts, registry_forgot=forgot)
    runners = parts.runners.by_name
    restore_weights(parts.journal, parts.warmups, runners)
    parts.applier.leave(recovery.removed)
    parts.registries.inspect(parts.spec.registry_ttl_seconds)
    specs = {name: runner.spec for name, runner in runners.items()}
    parts.pipes.sweep({(name, runner.unit.attempt) for name, runner in runners.items() if runner.unit.live})
    parts.pipes.settle(specs)
    recovery.go_on(parts.journal.wishes(), parts.ledger, parts.operations, parts.orders)
    parts.pipes.finish(specs)
    parts.store.settle()
    parts.applier.catch_up(units)
    parts.maintenances.watch()
    if recovery.adopted:
        log.info("%d units go on with the processes that they had", recovery.adopted)


async def until_registered_again(parts: Parts) -> None:
    """Wait until the registry that ended with the earlier daemon holds again what goes on serving."""
    if parts.registry is not None:
        kept = [name for name, runner in parts.runners.by_name.items() if is_published(runner.unit)]
        await parts.registries.until_confirmed(kept, REGISTER_AGAIN_SECONDS)


def _adopted(parts: Parts, name: str) -> None:
    """A unit goes on with the process that an earlier daemon has started."""
    runner = parts.runners.by_name[name]
    spec, unit = runner.spec, runner.unit
    parts.pipes.resume(spec, unit.attempt)
    pid = parts.processes.living(name)
    if pid is None or unit.phase not in _WATCHED:
        return
    target = parts.tools.target(spec, unit.attempt, pid, parts.hearing.offer_again(spec, unit))
    age = max(0.0, monotonic() - runner.started_at)
    parts.health.resume(spec, target, age, unit.ready_at, unit.healthy)
    if unit.told:
        parts.health.told_to_refuse(name)
