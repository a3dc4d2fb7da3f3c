"""A unit's entry while it serves: what it says, with which weight, and how much of it the world may see."""

from __future__ import annotations

from registry_client.model import Entry

from ..core.events import Event
from ..core.model import Phase, Unit
from ..host.clock import iso
from ..host.runner import Runner, Runners
from .entry import unit_entry
from .registries import Registries
from .restart import RestartAgents
from .warmup import Warmups


class Publisher:
    """Keeps entries and weights in step with the units."""

    def __init__(
        self, node: str, runners: Runners, registries: Registries, warmups: Warmups, restart_agents: RestartAgents
    ) -> None:
        self._node, self._runners, self._registries = node, runners, registries
        self._warmups, self._restart_agents = warmups, restart_agents

    def publish(self, runner: Runner) -> None:
        """Register the unit's attempt and keep it; its weight begins to grow, or goes on where it was."""
        spec = runner.spec
        assert spec.service is not None
        self._restart_agents.call_off(spec.name)
        self._warmups.begin(spec, runner.unit.attempt)
        self._registries.publish(spec.name, self._entry(runner), spec.service.ttl_seconds)

    def change(self, name: str) -> None:
        """The weight has changed, or something else that only the entry holds."""
        runner = self._runners.by_name.get(name)
        if runner is not None and is_published(runner.unit) and runner.spec.service is not None:
            self._registries.change(name, self._entry(runner), runner.spec.service.ttl_seconds)

    def on_change(self, runner: Runner, before: Unit, event: Event) -> None:
        """A unit that is out of traffic does not warm up."""
        if is_published(before) and not is_published(runner.unit):
            self._warmups.lost(runner.spec.name)

    def weight(self, runner: Runner) -> int | None:
        """Its weight in the registry now; None: it has no service."""
        service = runner.spec.service
        if service is None:
            return None
        return self._warmups.weight(runner.spec.name, service.weight) if is_published(runner.unit) else 0

    def warming(self, name: str) -> str:
        """How far a unit is from its full weight; "" if it is there, or not to be in traffic."""
        runner = self._runners.by_name.get(name)
        if runner is None or runner.spec.service is None:
            return ""
        if runner.unit.phase is Phase.RUNNING and not runner.unit.healthy and not runner.unit.drained:
            return f"it does not serve: {runner.unit.reason}"
        if not is_published(runner.unit):
            return ""
        return "" if self._warmups.is_full(name) else self._warmups.describe(name)

    def words(self, name: str) -> str:
        """Why its weight is not the full one, or how it grows; "" if there is nothing to say."""
        runner = self._runners.by_name.get(name)
        return self._warmups.describe(name) if runner is not None and is_published(runner.unit) else ""

    def _entry(self, runner: Runner) -> Entry:
        spec = runner.spec
        assert spec.service is not None
        share = self._warmups.share(spec.name, spec.service.weight)
        return unit_entry(self._node, spec, spec.service, runner.unit.attempt, iso(runner.started_wall), share)


def can_answer(unit: Unit | None) -> bool:
    """It has a process that has not been given up, so that whoever sends to it may get an answer."""
    return unit is not None and unit.live and not unit.crashed and not unit.dead


def is_published(unit: Unit) -> bool:
    """It is in the registry, and nobody takes it out."""
    return unit.phase is Phase.RUNNING and unit.published and unit.healthy and not unit.drained
