"""The composition root: builds everything, joins it, and owns signals, start and shutdown.

It is the one place where objects are made that own other objects. What any of them does is theirs.
"""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

from registry_client.backend import Backend
from registry_client.backends.embedded import EmbeddedBackend, EmbeddedRegistry
from registry_client.client import open_backend
from registry_client.server import RegistryApi

from .agents.apply import Applier
from .agents.entry import node_entry, unit_entry
from .agents.heal import Healer
from .agents.heartbeat import Heartbeats
from .agents.history import History
from .agents.operations import Operations
from .agents.orders import Orders
from .agents.restart import RestartAgents
from .agents.view import View, summary
from .config import load
from .control import Control
from .core import events, order
from .core.lifecycle import state_word
from .core.model import Config, DaemonSpec, Phase, Unit
from .core.plan import Change, Effect, plan
from .core.restart import TokenBucket
from .errors import ConfigError
from .host.access import Access
from .host.cgroup import UnitGroup, find_base, make_home
from .host.clock import iso, monotonic
from .host.http import HttpServer
from .host.journal import Journal
from .host.notify import tell_manager
from .host.output import OutputPump
from .host.pipes import Pipes
from .host.process import Processes
from .host.readiness import Readiness
from .host.runner import Runner, Runners
from .host.setup import become_subreaper, default_signals, keep_descriptors_private, raise_open_files, units_environment
from .wire import MAX_BODY_BYTES, Command, Operation, PlanItem

log = logging.getLogger("unitd")

BUDGET_BURST = 100  # automatic restarts at once, before the host's budget per minute counts
CLOSE_GRACE_SECONDS = 2.0
KILL_SECONDS = 2.0  # for what was killed in a hurry; a process that is stuck in the kernel is left
FLUSH_SECONDS = 5.0
NODE = "unitd"  # the daemon's own name among the heartbeat agents' and the journal's; no unit can be called so


def run(path: str) -> None:
    """Run the daemon on a configuration file until it is stopped. Raises ConfigError and OSError."""
    config = load(path)
    _log_to_stderr(config.daemon.log_level)
    keep_descriptors_private()
    default_signals()
    become_subreaper()
    asyncio.run(Daemon(path, config).serve())


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        stream=sys.stderr, level=level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    logging.raiseExceptions = False  # a stderr that is gone must not take the daemon along


class Daemon:
    """Everything that belongs to one running unitd."""

    def __init__(self, path: str, config: Config) -> None:
        self._path, self._config = path, config
        self._stopping = False
        self._hurried = False  # entries are left to their ttl
        self._is_up = False
        self._watcher: Any = None

    async def serve(self) -> None:
        """Start, run, and shut down."""
        self._build(self._config.daemon)
        server = HttpServer(self._control.handle, max_body_bytes=MAX_BODY_BYTES)
        try:
            await self._listen(server)
            self._handle_signals()
            self._start_units()
            self._watch_files()
            tell_manager("READY=1")
            self._is_up = True
            await self._finished.wait()
        finally:
            await self._close(server)

    # Building.

    def _build(self, spec: DaemonSpec) -> None:
        self._finished = asyncio.Event()
        nofile = raise_open_files()
        self._journal = Journal(spec.state_dir)
        self._attempts = self._journal.attempts()
        self._pump = OutputPump(report=logging.getLogger("unitd.output").warning)
        base = find_base(spec.cgroup)
        self._cgroups = make_home(base) if base else None
        log.info(
            "units get %s",
            f"cgroups below {base}" if base else "process groups: there is no delegated cgroup v2",
        )
        budget = TokenBucket.full(spec.restarts_per_minute, BUDGET_BURST, monotonic())
        self._runners = Runners(self._performers(), budget)
        self._processes = Processes(
            self._runners.post,
            Pipes(self._pump),
            base_cgroup=self._cgroups,
            environment=units_environment(),
            nofile=nofile,
            before_spawn=self._journal.record_attempts,
        )
        self._readiness = Readiness(self._runners.post)
        self._registry = EmbeddedRegistry() if spec.registry_backend == "embedded" else None
        self._backend = self._open_backend(spec)
        self._heartbeats = Heartbeats(self._backend, self._on_registered)
        self._operations = Operations(self._unit, self._waits_for)
        self._restart_agents = RestartAgents(
            self._backend, self._heartbeats, self._runners.post, self._operations.on_step
        )
        self._history = History()
        self._runners.observe(self._on_change)
        self._orders = Orders(self._runners, self._operations, self._processes, self._journal)
        self._applier = Applier(self._runners, self._orders, self._operations, self._attempts, self._reregister)
        self._healer = Healer(self._runners, self._runners.post, _watch_folder)
        self._view = View(self._runners, self._operations, lambda: (self._heartbeats, self._restart_agents))
        self._control = Control(
            self,
            self._orders,
            self._operations,
            self._view,
            self._history,
            self._pump,
            Access(_gid(spec.socket_group)),
            RegistryApi(self._registry) if self._registry else None,
        )

    def _open_backend(self, spec: DaemonSpec) -> Backend:
        timeout = spec.registry_ttl_seconds / 6
        if self._registry is not None:
            return EmbeddedBackend(self._registry, timeout_seconds=timeout)
        return open_backend(spec.registry_backend, url=spec.registry_url, timeout_seconds=timeout)

    async def _listen(self, server: HttpServer) -> None:
        spec = self._config.daemon
        try:
            await server.listen_unix(spec.socket, mode=0o660, gid=_gid(spec.socket_group))
        except OSError as error:
            raise ConfigError(f"cannot listen on {spec.socket}: {error.strerror}", key="daemon.socket") from error
        if spec.http_listen is not None:
            try:
                await server.listen_tcp(*spec.http_listen)
            except OSError as error:
                host, port = spec.http_listen
                raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}", key="http.listen") from error
            self._register_node(*spec.http_listen)
        log.info("node %s: control API on %s", spec.node, ", ".join(map(str, server.addresses)))

    def _register_node(self, host: str, port: int) -> None:
        life = self._attempts.get(NODE, 0) + 1
        self._journal.record_attempts([(NODE, life)])
        entry = node_entry(self._config.daemon.node, host, port, life, iso())
        self._heartbeats.publish(NODE, entry, self._config.daemon.registry_ttl_seconds)

    def _performers(self) -> dict[type[events.Action], Any]:
        """Who carries out which action; looked up when it happens, for some of them are built after the runners."""
        return {
            events.Spawn: lambda runner, action: self._processes.spawn(runner.spec, action.attempt),
            events.Terminate: lambda runner, action: self._processes.terminate(runner.spec.name, action.attempt),
            events.Kill: lambda runner, action: self._processes.kill(runner.spec.name, action.attempt),
            events.Publish: lambda runner, action: self._publish(runner),
            events.Withdraw: lambda runner, action: self._restart_agents.take_out(
                runner.spec, action.attempt, action.withdrawal
            ),
            events.Drain: lambda runner, action: self._restart_agents.drain(runner.spec, action.attempt),
        }

    # What joins the parts.

    def _unit(self, name: str) -> Unit | None:
        runner = self._runners.by_name.get(name)
        return None if runner is None else runner.unit

    def _waits_for(self, name: str) -> str:
        return self._restart_agents.describe(name)

    def _publish(self, runner: Runner) -> None:
        spec = runner.spec
        assert spec.service is not None
        self._restart_agents.call_off(spec.name)
        started = iso(runner.started_wall)
        entry = unit_entry(self._config.daemon.node, spec, spec.service, runner.unit.attempt, started)
        self._heartbeats.publish(spec.name, entry, spec.service.ttl_seconds)

    def _reregister(self, name: str) -> None:
        runner = self._runners.by_name[name]
        if runner.unit.phase is Phase.RUNNING and runner.spec.service is not None:
            self._publish(runner)

    def _on_registered(self, name: str) -> None:
        unit = self._unit(name)
        if unit is not None:
            self._operations.on_registered(name, unit)

    def _on_change(self, runner: Runner, before: Unit, event: events.Event) -> None:
        name, unit = runner.spec.name, runner.unit
        if isinstance(event, events.Spawned):
            self._readiness.watch(runner.spec, event.attempt)
        elif before.phase is Phase.STARTING and unit.phase is not Phase.STARTING:
            self._readiness.forget(name)
        self._operations.on_change(name, before, unit, event)
        if unit.phase is not before.phase or isinstance(event, events.Spawned):
            self._history.add(name, state_word(unit).lower(), summary(unit))
            log.info("%s: %s", name, summary(unit))
        if self._stopping:
            self._end_if_all_down()

    # Running.

    def _start_units(self) -> None:
        wishes = self._journal.wishes()
        for name, spec in self._config.units.items():
            self._runners.add(spec, self._attempts.get(name, 0))
        for wave in order.start_order(self._config.units):
            for name in wave:
                if wishes.get(name, self._config.units[name].autostart):
                    waits_for = self._orders.waits_for(self._config.units[name])
                    self._runners.post(name, events.StartRequested(waits_for))

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.shut_down, "SIGTERM")
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        loop.add_signal_handler(signal.SIGQUIT, self._quit)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        loop.add_signal_handler(signal.SIGUSR1, self._dump)
        loop.add_signal_handler(signal.SIGUSR2, self._pump.reopen)

    def _watch_files(self) -> None:
        if self._config.daemon.watch:
            self._watcher = import_module(".host.watch", __package__).Folders(self._reload)
            self._watcher.watch(_watched(self._config))

    @property
    def is_ready(self) -> bool:
        """It has started what it was to start, and is not shutting down."""
        return self._is_up and not self._stopping

    def plan(self) -> list[PlanItem]:
        """What applying the files would do. Raises ConfigError."""
        config = load(self._path)
        return _items(plan(self._orders.specs, config.units), self._config.daemon, config.daemon)

    def apply(self, command: Command) -> tuple[list[PlanItem], list[Operation]]:
        """Apply the files. Raises ConfigError; then nothing has changed."""
        if self._stopping:
            raise ConfigError("cannot apply: unitd is shutting down")
        config = load(self._path)
        changes, operations = self._applier.apply(config.units, command)
        items = _items(changes, self._config.daemon, config.daemon)
        self._config = replace(config, daemon=self._config.daemon)
        if self._watcher is not None:
            self._watcher.watch(_watched(config))
        log.info("configuration applied: %s", _sum_up(items))
        return items, operations

    def _reload(self) -> None:
        """HUP, or the files have changed."""
        try:
            self.apply(Command(reason="the files have changed", issued_by="unitd"))
        except ConfigError as error:
            for item in getattr(error, "errors", (error,)):
                log.error("not applied, the last good configuration stays: %s", item)

    def _dump(self) -> None:
        for name in self._runners.by_name:
            status = self._view.status(name)
            log.info(
                "%s  %s  pid %s, generation %d: %s",
                name,
                status.state,
                status.pid,
                status.generation,
                status.why,
            )

    # Shutting down.

    def shut_down(self, reason: str) -> None:
        """Stop all units in order, then end. Not remembered: they come up again with the daemon."""
        if self._stopping:
            return
        log.info("shutting down: %s", reason)
        tell_manager("STOPPING=1")
        self._stopping = True
        names = [name for name, runner in self._runners.by_name.items() if runner.unit.phase is not Phase.STOPPED]
        command = Command(reason=reason, issued_by="unitd", parameters={"force": True})
        self._orders.stop(names, command, remember=False)
        self._end_if_all_down()

    def _interrupted(self) -> None:
        if not self._stopping:
            self.shut_down("SIGINT")
            return
        log.warning("second SIGINT: killing what is left")
        self._hurried = True
        for name, runner in list(self._runners.by_name.items()):
            self._runners.post(name, events.StopRequested(force=True))  # none may be started again when it was killed
            self._processes.kill(name, runner.unit.attempt)
        self._end_if_all_down()
        asyncio.get_running_loop().call_later(KILL_SECONDS, self._finished.set)

    def _quit(self) -> None:
        log.warning("SIGQUIT: ending at once; units go on without unitd")
        logging.shutdown()
        os._exit(0)

    def _end_if_all_down(self) -> None:
        units = [runner.unit for runner in self._runners.by_name.values()]
        if not any(unit.live or (unit.published and not self._hurried) for unit in units):
            self._finished.set()

    async def _close(self, server: HttpServer) -> None:
        """The registry's and the units' ends come first: whoever reads entries over HTTP must see them go."""
        if self._watcher is not None:
            self._watcher.close()
        self._healer.close()
        await self._withdraw_node()
        await self._restart_agents.close()
        await self._heartbeats.close()
        await self._backend.close()
        await server.close(CLOSE_GRACE_SECONDS)
        self._processes.close()
        if self._cgroups is not None:
            UnitGroup(str(self._cgroups)).remove()
        await asyncio.to_thread(self._pump.close, FLUSH_SECONDS)
        self._journal.close()

    async def _withdraw_node(self) -> None:
        if self._heartbeats.entry(NODE) is not None:
            await self._heartbeats.withdraw(NODE, deregister=True)


def _watched(config: Config) -> list[str]:
    """The files whose folders are watched: those that were read, and those that an include might find one day."""
    patterns = [pattern for pattern in config.patterns if os.path.isdir(os.path.dirname(pattern))]
    return [*config.files, *patterns]


def _watch_folder(folder: str, changed: Callable[[], None]) -> Any:
    # Brings watchdog and a thread: only where something is to be watched.
    return import_module(".host.watch", __package__).Folder(folder, "", changed)


def _gid(group: str | None) -> int | None:
    if group is None:
        return None
    try:
        return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        return None  # the default group need not exist


def _items(changes: tuple[Change, ...], old: DaemonSpec, new: DaemonSpec) -> list[PlanItem]:
    items = [PlanItem(change.unit, change.effect.value, change.keys) for change in changes]
    keys = tuple(name for name in DaemonSpec.__slots__ if getattr(old, name) != getattr(new, name))
    if keys:
        items.append(PlanItem("unitd", "restart", keys))  # of the daemon itself, by whoever runs it
    return items


def _sum_up(items: list[PlanItem]) -> str:
    touched = [item for item in items if item.effect != Effect.NONE.value]
    return ", ".join(f"{item.unit} ({item.effect})" for item in touched[:20]) or "nothing has changed"
