"""Units as people see them: the status object, and the one sentence that says why a unit is where it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from registry_client import lease as leases
from registry_client.lease import Lease

from ..core.lifecycle import state_word
from ..core.model import Exit, Phase, Unit
from ..host.clock import iso, monotonic
from ..host.runner import Runner, Runners
from ..host.signals import signal_name
from ..wire import ExitStatus, LeaseStatus, ProbeStatus, UnitStatus
from .drain import Drains
from .health import Health
from .maintenance import Maintenances
from .operations import Operations
from .prewarm import Prewarms
from .publisher import Publisher
from .registries import Registries
from .restart import RestartAgents


@dataclass(frozen=True, slots=True)
class Agents:
    """All who know something of a unit."""

    registries: Registries
    restart: RestartAgents
    drains: Drains
    health: Health
    publisher: Publisher
    prewarms: Prewarms
    maintenances: Maintenances


class View:
    """Reads everything, changes nothing."""

    def __init__(self, runners: Runners, operations: Operations, agents: Callable[[], Agents | None]) -> None:
        """`agents` answers None where there are none, as for units without a service in tests."""
        self._runners, self._operations, self._agents = runners, operations, agents

    def statuses(self, names: Sequence[str]) -> list[UnitStatus]:
        """Many units. Raises KeyError."""
        agents = self._agents()
        if agents is not None and len(names) > 1:
            agents.drains.look(self._runners.by_name[name].spec for name in names)
        return [self.status(name) for name in names]

    def status(self, name: str) -> UnitStatus:
        """The unit as it is now. Raises KeyError."""
        runner = self._runners.by_name[name]
        unit, spec = runner.unit, runner.spec
        service = spec.service
        shown = unit.pid is not None
        operation = self._operations.open_of(name)
        agents = self._agents()
        lease, leases_ = self._leases(name, agents) if service is not None else (None, [])
        warming = agents.publisher.warming(name) if agents else ""
        maintenance = agents.maintenances.of(name) if agents else None
        return UnitStatus(
            unit=name,
            service=service.name if service else None,
            state=state_word(unit, warming=bool(warming)),
            wanted="up" if unit.wanted else "down",
            phase=unit.phase.value,
            ready=unit.phase is Phase.RUNNING and unit.healthy,
            live=shown,
            pid=unit.pid,
            generation=unit.attempt,
            uptime_seconds=round(monotonic() - runner.started_at, 3) if shown else None,
            weight=self._weight(runner, agents),
            full_weight=service.weight if service else None,
            lease=lease,
            in_flight=agents.drains.in_flight(spec) if agents and shown else None,
            restarts=unit.restarts,
            last_exit=_exit(unit.last_exit),
            operation=operation.id if operation else None,
            why=self.why(name),
            warmup=(agents.publisher.words(name) if agents else "") or None,
            probes=self._probes(name, agents),
            maintenance=maintenance.status() if maintenance else None,
            leases=leases_,
        )

    def _weight(self, runner: Runner, agents: Agents | None) -> int | None:
        service = runner.spec.service
        if agents is not None or service is None:
            return agents.publisher.weight(runner) if agents else None
        return service.weight if runner.unit.phase is Phase.RUNNING else 0

    def _probes(self, name: str, agents: Agents | None) -> list[ProbeStatus]:
        health = agents.health.status(name) if agents else None
        if health is None:
            return []
        now = monotonic()
        return [
            ProbeStatus(item.role, item.kind, item.holds, item.streak, item.detail,
                        None if item.at is None else round(now - item.at, 1))
            for item in health.probes
        ]  # fmt: skip

    def _leases(self, name: str, agents: Agents | None) -> tuple[LeaseStatus, list[LeaseStatus]]:
        """The lease that is worst off, and where there are several registries, the one in each."""
        service = self._runners.by_name[name].spec.service
        absent = LeaseStatus("absent", service.ttl_seconds if service else 0.0, None)
        if agents is None or (worst := agents.registries.lease(name)) is None:
            return absent, []
        known = agents.registries.leases(name)
        several = [_lease(lease, registry) for registry, lease in known.items()] if len(known) > 1 else []
        return _lease(worst), several

    def why(self, name: str) -> str:
        """One sentence: where the unit stands, what it waits for, and until when."""
        runner = self._runners.by_name[name]
        return _SENTENCES[runner.unit.phase](self, runner)

    def waits_for(self, name: str) -> str:
        """What the unit's agents wait for, with its time; "" if for nothing."""
        agents = self._agents()
        return agents.restart.describe(name) or agents.drains.describe(name) if agents else ""

    def _stopped(self, runner: Runner) -> str:
        unit = runner.unit
        if unit.crashed:
            return f"{unit.reason}; its autorestart setting leaves it so"
        if unit.attempt and unit.last_exit:
            return f"stopped; last time it {unit.last_exit.reason}"
        return "not started"

    def _waiting(self, runner: Runner) -> str:
        return runner.unit.reason

    def _backoff(self, runner: Runner) -> str:
        unit = runner.unit
        parts = [unit.reason or "to be started again"]
        if unit.published:
            parts.append(self.waits_for(runner.spec.name) or "waiting for the registry entry to go")
        if runner.retry_at is not None:
            parts.append(f"next start in {max(0.0, runner.retry_at - monotonic()):.1f} s (failure {unit.failures})")
        return "; ".join(parts)

    def _starting(self, runner: Runner) -> str:
        spec, passed = runner.spec, monotonic() - runner.changed_at
        if runner.unit.pid is None:
            return "its process is being started"
        agents = self._agents()
        health = agents.health.status(spec.name) if agents else None
        waits = health.why if health is not None and health.why else "it is being looked at"
        return f"started {passed:.1f} s ago; {waits}; given up after {spec.start_timeout:g} s"

    def _prewarming(self, runner: Runner) -> str:
        requests = runner.spec.warmup.requests if runner.spec.warmup else ()
        return f"ready; it gets its first {len(requests)} requests before anybody else may send to it"

    def _running(self, runner: Runner) -> str:
        agents, unit, name = self._agents(), runner.unit, runner.spec.name
        if agents is None or runner.spec.service is None:
            words = ["running", unit.reason]
        elif unit.drained:
            words = [self._kept_out(name, agents), unit.reason]
        elif not unit.healthy:
            health = agents.health.status(name)  # its readiness may have been lost on the way to something else
            words = ["not serving", unit.reason or (health.why if health else ""), self.waits_for(name)]
        else:
            health = agents.health.status(name)
            words = [
                "serving", agents.publisher.words(name), unit.reason, agents.registries.trouble(name),
                health.why if health is not None else "", agents.prewarms.trouble(name),
            ]  # fmt: skip
        return "; ".join(dict.fromkeys(filter(None, words)))

    def _kept_out(self, name: str, agents: Agents) -> str:
        maintenance = agents.maintenances.of(name)
        if maintenance is None:
            return "kept out of traffic"
        by = f" by {maintenance.owner}" if maintenance.owner else ""
        reason = f": {maintenance.reason}" if maintenance.reason else ""
        until = "until it is undrained" if maintenance.until is None else f"until {iso(maintenance.until)}"
        return f"kept out of traffic{by}{reason}; {until}"

    def _expiring(self, runner: Runner) -> str:
        words = self.waits_for(runner.spec.name) or "waiting for the registry entry to go"
        return f"{words}; it serves until then" if runner.unit.live else words

    def _settling(self, runner: Runner) -> str:
        return f"its entry is gone; gateways get {_left(runner)} more to act on that"

    def _draining(self, runner: Runner) -> str:
        return self.waits_for(runner.spec.name) or "work in flight finishes"

    def _stopping(self, runner: Runner) -> str:
        sent = f"{signal_name(runner.spec.stopsignal)} was sent {monotonic() - runner.changed_at:.1f} s ago"
        return f"{sent}; SIGKILL follows in {_left(runner)} if its process tree has not ended"

    def _killing(self, runner: Runner) -> str:
        return runner.unit.reason or "SIGKILL was sent to its whole process tree"

    def _fatal(self, runner: Runner) -> str:
        return f"given up: {runner.unit.reason}"


_SENTENCES: dict[Phase, Callable[[View, Runner], str]] = {
    Phase.STOPPED: View._stopped, Phase.WAITING: View._waiting, Phase.BACKOFF: View._backoff,
    Phase.STARTING: View._starting, Phase.PREWARMING: View._prewarming, Phase.RUNNING: View._running,
    Phase.EXPIRING: View._expiring, Phase.SETTLING: View._settling, Phase.DRAINING: View._draining,
    Phase.STOPPING: View._stopping, Phase.KILLING: View._killing, Phase.FATAL: View._fatal,
}  # fmt: skip


def _left(runner: Runner) -> str:
    return f"{max(0.0, (runner.retry_at or 0.0) - monotonic()):.1f} s"


def _lease(lease: Lease, registry: str | None = None) -> LeaseStatus:
    now = monotonic()
    renewed = None if lease.sent_at is None else round(now - lease.sent_at, 3)
    return LeaseStatus(leases.state_at(lease, now).value, lease.ttl_seconds, renewed, registry)


def _exit(exit_: Exit | None) -> ExitStatus | None:
    if exit_ is None:
        return None
    if exit_.code is None and exit_.signal is None and exit_.stage is None and not exit_.wall:
        return None  # it is being ended, and has not ended yet; one that nobody knows more of has its time
    name = None if exit_.signal is None else signal_name(exit_.signal)
    return ExitStatus(exit_.code, name, iso(exit_.wall), exit_.reason)


def summary(unit: Unit) -> str:
    """A transition in a few words, for the log and the event stream."""
    pid = f", pid {unit.pid}" if unit.pid else ""
    return f"{state_word(unit)} (generation {unit.attempt}{pid})" + (f": {unit.reason}" if unit.reason else "")
