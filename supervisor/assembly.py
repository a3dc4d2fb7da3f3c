"""All parts of the daemon, made and joined in one place; what any of them does is theirs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from registry_client.backends.embedded import EmbeddedRegistry
from registry_client.model import Entry

from .agents.acknowledgements import Acknowledgements
from .agents.apply import Applier
from .agents.drain import Drains
from .agents.entry import node_address, node_entry
from .agents.heal import Healer
from .agents.health import Health
from .agents.hearing import Hearing
from .agents.heartbeat import Heartbeats
from .agents.history import History
from .agents.ledger import Ledger
from .agents.maintenance import Maintenances
from .agents.measuring import Measuring
from .agents.node import Node
from .agents.operations import Operations
from .agents.orders import Orders
from .agents.prewarm import Prewarms
from .agents.publisher import Publisher, can_answer, is_published
from .agents.record import Recorder
from .agents.registries import Registries, Registry
from .agents.restart import RestartAgents
from .agents.view import Agents, View, summary
from .agents.warmup import Warmups
from .agents.weights import save_weight
from .backends import open_registry
from .core import events
from .core.lifecycle import state_word
from .core.measures import Measures
from .core.model import DaemonSpec, Phase, Unit, UnitSpec
from .core.restart import TokenBucket
from .host import http_client
from .host.cgroup import close_home, open_home
from .host.clock import iso, monotonic, wall
from .host.command import Commands
from .host.connect import OWN_ENDS
from .host.fd_store import FdStore
from .host.journal import Journal
from .host.output import OutputPump
from .host.pipes import Pipes
from .host.port_owner import PortOwners
from .host.probe_tools import ProbeTools
from .host.prober import Prober
from .host.process import Processes
from .host.runner import Runner, Runners
from .host.setup import raise_open_files, units_environment
from .host.spool import open_spool
from .host.traffic import Sockets
from .host.vouch import Voucher
from .plugin_registry import probe_kind
from .wire import Command

log = logging.getLogger("unitd")

BUDGET_BURST = 100  # automatic restarts at once, before the host's budget per minute counts
FLUSH_SECONDS = 5.0
NODE = "unitd"  # the daemon's own name among the heartbeat agents' and the journal's; no unit can be called so
AWAY = (Phase.EXPIRING, Phase.SETTLING, Phase.DRAINING)


class Parts:
    """Everything that belongs to one running unitd, but its API and its signals."""

    def __init__(self, path: str, spec: DaemonSpec) -> None:
        """Raises ConfigError and OSError. Needs a running loop."""
        self.spec = spec
        nofile, environment = raise_open_files(), units_environment()
        self.journal = Journal(spec.state_dir, path)
        self.attempts = self.journal.attempts()
        state_id, life = self.journal.state_id(), self.journal.next_life()
        self.history, self.measures = History(life), Measures()
        self._doctor: Any = None
        self._clocks_apart = wall() - monotonic()
        self.spool = open_spool(f"{spec.socket}.{state_id}.spool")
        self.store = FdStore()
        report = logging.getLogger("unitd.output").warning
        self.pump = OutputPump(report=report, spool=self.spool, on_end=self.store.drop)
        self.pipes = Pipes(self.pump, f"{spec.state_dir}/pipes", self.store)
        self.cgroups = open_home(spec.cgroup)
        self.recorder = Recorder(self.journal)
        budget = TokenBucket.full(spec.restarts_per_minute, BUDGET_BURST, monotonic())
        self.runners = Runners(self._performers(), budget, self.recorder.step, self._awaited)
        self.hearing = Hearing(f"{spec.socket}.notify", self._on_word)
        self.processes = Processes(
            self.runners.post,
            self.pipes,
            base_cgroup=self.cgroups,
            environment=environment,
            nofile=nofile,
            before_spawn=self.journal.record_attempts,
            notify=self.hearing.offer,
            state_id=state_id,
        )
        self.commands = Commands(self.processes.left_alone, environment=environment, nofile=nofile, state_id=state_id)
        self._build_health()
        self._build_registries(path)
        self._build_traffic()
        self._build_orders(state_id)
        self.node = Node(spec.node, state_id, life, self.orders, self.operations)

    def _build_health(self) -> None:
        self.sockets = Sockets()
        owners = PortOwners(self.sockets)
        self._vouch = Voucher(self.processes, owners, self._spec)
        self.tools = ProbeTools(self.commands, owners, self._spec)
        percent = self.spec.mass_failure_percent
        self.health = Health(
            self.runners.post,
            Prober(probe_kind),
            self._vouch,
            mass_failure_percent=percent,
            on_wavering=self._on_wavering,
        )

    def _build_registries(self, path: str) -> None:
        specs = self.spec.registries
        self.registry = EmbeddedRegistry() if any(spec.backend == "embedded" for spec in specs) else None
        self.registries = Registries(self._on_registered, self._before_register)
        for spec in specs:
            ttl = spec.ttl_seconds or self.spec.registry_ttl_seconds
            backend, several = open_registry(path, spec, ttl, self.registry), len(specs) > 1
            heartbeats = Heartbeats(
                backend,
                partial(self.registries.confirmed, spec.name),
                vouch=self._vouch,
                on_doubt=self.health.doubt,
                name=spec.name if several else "",
            )
            own_ttl = None if spec is specs[0] else spec.ttl_seconds  # a service's own says more than the main one
            self.registries.add(Registry(spec.name, backend, heartbeats, own_ttl, spec.url or "", several))

    def _before_register(self, name: str, entry: Entry, ttl_seconds: float) -> None:
        if name != NODE:  # nothing that is started again has to wait for the end of the daemon's own entry
            self.recorder.entry(name, entry, ttl_seconds)

    def _build_traffic(self) -> None:
        self.gateways = Acknowledgements(self.registries)
        self.drains = Drains(
            self.runners.post,
            request=http_client.request,
            run=self._run_hook,
            signal=self.processes.signal,
            sockets=self.sockets,
            ignored=OWN_ENDS,
            sources=(self.gateways,),
            measures=self.measures,
        )
        self.prewarms = Prewarms(self.runners.post, http_client.request)
        self.warmups = Warmups(self._on_weight, partial(save_weight, self.journal), self._on_full)

    def _build_orders(self, state_id: str) -> None:
        self.ledger = Ledger(self.journal, state_id)
        self.operations = Operations(self.unit, self._waits_for, self.ledger, self._warming, self.measures)
        self.measuring = Measuring(self.measures, lambda name: self.operations.open_of(name) is not None)
        self.restart_agents = RestartAgents(
            self.registries,
            self.runners.post,
            self.operations.on_step,
            self.measures,
            gateways=self.gateways,
            serves=lambda name: can_answer(self.unit(name)),
            on_detail=self.operations.on_detail,
        )
        self.publisher = Publisher(self.spec.node, self.runners, self.registries, self.warmups, self.restart_agents)
        self.maintenances = Maintenances(self.journal, self._on_maintenance_over)
        self.runners.observe(self._on_change)
        self.orders = Orders(
            self.runners, self.operations, self.processes, self.journal, self.maintenances, self.warmups
        )
        self.applier = Applier(
            self.runners,
            self.orders,
            self.operations,
            self.attempts,
            self._reregister,
            is_drained=lambda name: self.maintenances.of(name) is not None,
            on_removed=self._forget,
        )
        self.healer = Healer(self.runners, self.runners.post, _watch_folder)
        agents = Agents(
            self.registries, self.restart_agents, self.drains, self.health, self.publisher, self.prewarms,
            self.maintenances,
        )  # fmt: skip
        self.view = View(self.runners, self.operations, lambda: agents)

    def _performers(self) -> dict[type[events.Action], Any]:
        """Who carries out which action; looked up when it happens, for some of them are built after the runners."""
        return {
            events.Spawn: lambda runner, action: self.processes.spawn(runner.spec, action.attempt),
            events.Terminate: lambda runner, action: self.processes.terminate(runner.spec.name, action.attempt),
            events.Kill: lambda runner, action: self.processes.kill(runner.spec.name, action.attempt),
            events.Prewarm: lambda runner, action: self.prewarms.send(runner.spec, action.attempt),
            events.Publish: lambda runner, action: self.drains.when_resumed(
                runner.spec.name, partial(self._publish, runner, action.attempt)
            ),
            events.Withdraw: lambda runner, action: self.restart_agents.take_out(
                runner.spec, action.attempt, action.withdrawal
            ),
            events.Drain: lambda runner, action: self.drains.drain(runner.spec, action.attempt, notify=action.notify),
            events.Resume: lambda runner, action: self._resume(runner.spec, action.attempt),
        }

    # Beginning.

    def register_node(self) -> None:
        """Let others find this daemon, if they can reach it, or it them."""
        if (address := node_address(self.spec)) is None:
            return
        life = self.attempts.get(NODE, 0) + 1
        self.journal.record_attempts([(NODE, life)])
        entry = node_entry(self.spec, address, life, iso())
        self.registries.publish(NODE, entry, self.spec.registry_ttl_seconds)

    def overdue(self) -> str:
        """What should have been done by now, in a few words; "" if nothing."""
        return self.pump.overdue() or self.registries.overdue()

    def examine(self) -> Any:
        """Whether all of this can work: an awaitable of findings and facts."""
        if self._doctor is None:
            # Loaded for who asks: the daemon itself needs none.
            self._doctor = import_module(".agents.doctor", __package__).make_doctor(
                self.spec,
                self.registries,
                self.runners,
                cgroups=self.cgroups,
                notify_sockets=lambda: self.hearing.paths,
                sockets=self.sockets,
                clocks_apart=self._clocks_apart,
            )
        return self._doctor.examine()

    # What joins the parts.

    def unit(self, name: str) -> Unit | None:
        """A unit as it is now."""
        runner = self.runners.by_name.get(name)
        return None if runner is None else runner.unit

    def _spec(self, name: str) -> UnitSpec | None:
        runner = self.runners.by_name.get(name)
        return None if runner is None else runner.spec

    def _awaited(self, name: str) -> str:
        health = self.health.status(name)
        return "" if health is None else health.why

    def _waits_for(self, name: str) -> str:
        return self.restart_agents.describe(name) or self.drains.describe(name)

    def _warming(self, name: str) -> str:
        return self.publisher.warming(name)

    def _reregister(self, name: str) -> None:
        """Its spec has changed: what only its entry holds, and how its health is looked at."""
        runner = self.runners.by_name[name]
        self.recorder.spec(runner.spec)
        self.health.changed(runner.spec)
        self.publisher.change(name)

    def _forget(self, name: str) -> None:
        """It is no unit any more: what people have ordered for it does not wait for another one of its name."""
        self.maintenances.end(name)
        self.measures.forget(name)
        self.measuring.forget(name)
        self.warmups.forget(name)
        self.prewarms.forget(name)
        self.recorder.forget(name)
        self.gateways.remove(name)

    async def _run_hook(self, spec: UnitSpec, attempt: int, argv: Sequence[str], timeout_seconds: float) -> bool:
        return (await self.commands.run(spec, attempt, argv, timeout_seconds)).ok

    def _resume(self, spec: UnitSpec, attempt: int) -> None:
        """It may take new work again; when it knows, it may be ready again."""
        self.drains.resume(spec, attempt)
        self.drains.when_resumed(spec.name, partial(self.health.told_to_serve, spec.name))

    def _publish(self, runner: Runner, attempt: int) -> None:
        """Nobody may send to a unit that still refuses new work; when it knows better it may be wanted out again."""
        if runner.unit.attempt == attempt and is_published(runner.unit):
            self.publisher.publish(runner)

    def _on_registered(self, name: str) -> None:
        unit = self.unit(name)
        if unit is not None:
            self.operations.on_registered(name, unit)

    def _on_weight(self, name: str) -> None:
        self.publisher.change(name)

    def _on_wavering(self, name: str, wavers: bool) -> None:
        """A weight must not grow while the readiness probe does not answer well."""
        (self.warmups.hold if wavers else self.warmups.release)(name)

    def _on_full(self, name: str) -> None:
        self.history.add(name, "warm", "at full weight")
        self.operations.on_full(name)

    def _on_word(self, unit: str) -> None:
        self.health.poke(unit)

    def _on_maintenance_over(self, name: str) -> None:
        if name in self.runners.by_name:
            self.orders.undrain([name], Command(reason="the time of its drain is over", issued_by="unitd"))
        else:
            self.maintenances.end(name)

    def _on_change(self, runner: Runner, before: Unit, event: events.Event) -> None:
        name, unit = runner.spec.name, runner.unit
        self._look_after(runner, before, event)
        self.measuring.on_change(runner, before, event)
        self.publisher.on_change(runner, before, event)
        self.operations.on_change(name, before, unit, event)
        changed = unit.phase is not before.phase or unit.healthy != before.healthy or unit.drained != before.drained
        if changed or isinstance(event, events.Spawned):
            self.history.add(name, state_word(unit).lower(), summary(unit))
            log.info("%s: %s", name, summary(unit))

    def _look_after(self, runner: Runner, before: Unit, event: events.Event) -> None:
        """The agents that belong to an attempt, or to a phase of it, begin and end with it."""
        name, unit = runner.spec.name, runner.unit
        if isinstance(event, events.Spawned) and unit.phase is Phase.STARTING:
            target = self.tools.target(runner.spec, event.attempt, event.pid, self.hearing.said(name))
            self.health.watch(runner.spec, target)
        if unit.told and not before.told:
            self.health.told_to_refuse(name)
        if unit.phase is before.phase:
            return
        if before.phase is Phase.PREWARMING:
            self.prewarms.cancel(name)
        if before.phase is Phase.DRAINING and unit.phase is not Phase.DRAINING:
            self.drains.call_off(name)
        if unit.phase not in AWAY:
            self.gateways.forget(name)
        if unit.phase not in (*AWAY, Phase.STARTING, Phase.PREWARMING, Phase.RUNNING):
            self.health.forget(name, wanted=unit.wanted and unit.phase is not Phase.FATAL)
        if not unit.live:
            self.hearing.close(name)

    # Ending.

    async def close(self, close_api: Callable[[], Any], *, leave: bool = False) -> None:
        """The registry's and the units' ends come first: whoever reads entries over HTTP must see them go.

        `leave`: units live on, and nothing is taken out of the registry.
        """
        self.healer.close()
        self.maintenances.close()
        if not leave and self.registries.entry(NODE) is not None:
            await self.registries.withdraw(NODE, deregister=True)
        await self.health.close()
        await self.prewarms.close()
        await self.drains.close()
        await self.restart_agents.close()
        await self.gateways.close()
        await self.registries.close()
        await close_api()
        self.warmups.close()
        self.commands.close()
        self.hearing.close_all()
        self.processes.close()
        self.sockets.close()
        if self.cgroups is not None:
            close_home(self.cgroups)
        await asyncio.to_thread(self.pump.close, FLUSH_SECONDS, leave=leave)
        self.ledger.save()
        if not leave and not any(runner.unit.live for runner in self.runners.by_name.values()):
            self.recorder.forget_all()
            self.spool.remove()
        self.journal.close()


def _watch_folder(folder: str, changed: Callable[[], None]) -> Any:
    # Brings watchdog and a thread: only where something is to be watched.
    return import_module(".host.watch", __package__).Folder(folder, "", changed)
