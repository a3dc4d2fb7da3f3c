"""Units as people see them: the status object, and the one sentence that says why a unit is where it is."""

from __future__ import annotations

from collections.abc import Callable

from registry_client import lease as leases

from ..core.lifecycle import state_word
from ..core.model import Exit, Phase, Unit
from ..host.clock import iso, monotonic
from ..host.runner import Runner, Runners
from ..host.signals import signal_name
from ..wire import ExitStatus, LeaseStatus, UnitStatus
from .heartbeat import Heartbeats
from .operations import Operations
from .restart import RestartAgents


class View:
    """Reads everything, changes nothing. `heartbeats` and `agents` are None where no unit is registered."""

    def __init__(
        self,
        runners: Runners,
        operations: Operations,
        agents: Callable[[], tuple[Heartbeats, RestartAgents] | None],
    ) -> None:
        self._runners, self._operations, self._agents = runners, operations, agents

    def status(self, name: str) -> UnitStatus:
        """The unit as it is now. Raises KeyError."""
        runner = self._runners.by_name[name]
        unit, spec = runner.unit, runner.spec
        service = spec.service
        lease = self._lease(name) if service is not None else None
        shown = unit.pid is not None
        operation = self._operations.open_of(name)
        return UnitStatus(
            unit=name,
            service=service.name if service else None,
            state=state_word(unit),
            wanted="up" if unit.wanted else "down",
            phase=unit.phase.value,
            ready=unit.phase is Phase.RUNNING,
            live=shown,
            pid=unit.pid,
            generation=unit.attempt,
            uptime_seconds=round(monotonic() - runner.started_at, 3) if shown else None,
            weight=(service.weight if unit.phase is Phase.RUNNING else 0) if service else None,
            full_weight=service.weight if service else None,
            lease=lease,
            in_flight=None,
            restarts=unit.restarts,
            last_exit=_exit(unit.last_exit),
            operation=operation.id if operation else None,
            why=self.why(name),
        )

    def _lease(self, name: str) -> LeaseStatus:
        agents = self._agents()
        lease = agents[0].lease(name) if agents else None
        service = self._runners.by_name[name].spec.service
        if lease is None:
            return LeaseStatus("absent", service.ttl_seconds if service else 0.0, None)
        now = monotonic()
        renewed = None if lease.sent_at is None else round(now - lease.sent_at, 3)
        return LeaseStatus(leases.state_at(lease, now).value, lease.ttl_seconds, renewed)

    def why(self, name: str) -> str:
        """One sentence: where the unit stands, what it waits for, and until when."""
        runner = self._runners.by_name[name]
        return _SENTENCES[runner.unit.phase](self, runner)

    def waits_for(self, name: str) -> str:
        """What the unit's restart agent waits for, with its time; "" if for nothing."""
        agents = self._agents()
        return agents[1].describe(name) if agents else ""

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
        waits = f"it has been alive for {spec.startsecs:g} s"
        if spec.service is not None:
            waits += f" and port {spec.service.port} accepts connections"
        return f"started {passed:.1f} s ago; ready when {waits}; given up after {spec.start_timeout:g} s"

    def _running(self, runner: Runner) -> str:
        agents, unit = self._agents(), runner.unit
        trouble = agents[0].trouble(runner.spec.name) if agents and runner.spec.service else ""
        return "; ".join(filter(None, ("serving" if runner.spec.service else "running", unit.reason, trouble)))

    def _expiring(self, runner: Runner) -> str:
        words = self.waits_for(runner.spec.name) or "waiting for the registry entry to go"
        return f"{words}; it serves until then" if runner.unit.live else words

    def _settling(self, runner: Runner) -> str:
        return f"its entry is gone; gateways get {_left(runner)} more to act on that"

    def _draining(self, runner: Runner) -> str:
        return "work in flight finishes"

    def _stopping(self, runner: Runner) -> str:
        sent = f"{signal_name(runner.spec.stopsignal)} was sent {monotonic() - runner.changed_at:.1f} s ago"
        return f"{sent}; SIGKILL follows in {_left(runner)} if its process tree has not ended"

    def _killing(self, runner: Runner) -> str:
        return runner.unit.reason or "SIGKILL was sent to its whole process tree"

    def _fatal(self, runner: Runner) -> str:
        return f"given up: {runner.unit.reason}"


_SENTENCES: dict[Phase, Callable[[View, Runner], str]] = {
    Phase.STOPPED: View._stopped, Phase.WAITING: View._waiting, Phase.BACKOFF: View._backoff,
    Phase.STARTING: View._starting, Phase.RUNNING: View._running, Phase.EXPIRING: View._expiring,
    Phase.SETTLING: View._settling, Phase.DRAINING: View._draining, Phase.STOPPING: View._stopping,
    Phase.KILLING: View._killing, Phase.FATAL: View._fatal,
}  # fmt: skip


def _left(runner: Runner) -> str:
    return f"{max(0.0, (runner.retry_at or 0.0) - monotonic()):.1f} s"


def _exit(exit_: Exit | None) -> ExitStatus | None:
    if exit_ is None or (exit_.code is None and exit_.signal is None and exit_.stage is None):
        return None  # the last of these: it is being ended, but has not ended yet
    name = None if exit_.signal is None else signal_name(exit_.signal)
    return ExitStatus(exit_.code, name, iso(exit_.wall), exit_.reason)


def summary(unit: Unit) -> str:
    """A transition in a few words, for the log and the event stream."""
    pid = f", pid {unit.pid}" if unit.pid else ""
    return f"{state_word(unit)} (generation {unit.attempt}{pid})" + (f": {unit.reason}" if unit.reason else "")
