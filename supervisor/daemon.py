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
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

from registry_client.server import RegistryApi

from .assembly import Parts
from .config import load
from .control import Auditor, Control, open_audit
from .core import events
from .core.access import Principal, Role
from .core.model import Config, DaemonSpec, HttpSpec, Phase, Unit
from .core.plan import Change, Effect, plan
from .errors import ConfigError
from .host.access import Access
from .host.http import HttpServer, Peer, Request
from .host.notify import tell_manager
from .host.runner import Runner
from .host.setup import become_subreaper, default_signals, keep_descriptors_private
from .host.watchdog import Watchdog
from .starting import start_units, until_registered_again
from .wire import MAX_BODY_BYTES, Command, NodeInfo, Operation, PlanItem

log = logging.getLogger("unitd")

CLOSE_GRACE_SECONDS = 2.0
_CENTER = Principal("center", Role.ADMIN)  # whose commands this daemon fetches
_CENTER_PEER = Peer(None, None, None, "center")
KILL_SECONDS = 2.0  # for what was killed in a hurry; a process that is stuck in the kernel is left


def run(path: str, config: Config) -> None:
    """Run the daemon on the configuration of a file until it is stopped. Raises ConfigError and OSError."""
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
        self._leaving = False  # and units, to the next daemon
        self._is_up = False
        self._watcher: Any = None
        self._center: Any = None
        self._metrics: Any = None  # loaded for who asks
        self._checks: Any = None

    async def serve(self) -> None:
        """Start, run, and shut down."""
        self._finished = asyncio.Event()
        self._parts = Parts(self._path, self._config.daemon)
        self._watchdog = Watchdog(self._parts.overdue)
        self._parts.runners.observe(self._on_change)
        self._audit = open_audit(self._config.daemon.audit_log, self._parts.journal)
        control = self._make_control()
        server = HttpServer(control.handle, max_body_bytes=MAX_BODY_BYTES, authorize=control.admit)
        server.hold()  # nobody may read a registry that the units which go on are not in yet
        try:
            await self._listen(server)
            self._handle_signals()
            start_units(self._parts, self._config.units)
            await until_registered_again(self._parts)
            server.begin()
            self._answer_checks()  # before that nobody could say how a unit stands
            self._watch_files()
            self._ask_center(control)
            self._watchdog.start()
            tell_manager("READY=1")
            self._is_up = True
            await self._finished.wait()
        finally:
            if self._watcher is not None:
                self._watcher.close()
            if self._center is not None:
                await self._center.close()
            await self._parts.close(lambda: server.close(CLOSE_GRACE_SECONDS), leave=self._leaving)
            self._watchdog.close()
            if self._checks is not None:
                self._checks.close()

    def _make_control(self) -> Control:
        parts, spec = self._parts, self._config.daemon
        return Control(
            self,
            parts.orders,
            parts.operations,
            parts.view,
            parts.history,
            parts.pump,
            Access(_gid(spec.socket_group), spec.http.principals if spec.http else ()),
            RegistryApi(parts.registry) if parts.registry else None,
            parts.examine,
            journal=parts.journal,
            auditor=Auditor(self._audit),
            measures=parts.measures,
        )

    async def _listen(self, server: HttpServer) -> None:
        spec = self._config.daemon
        try:
            await server.listen_unix(spec.socket, mode=0o660, gid=_gid(spec.socket_group))
        except OSError as error:
            raise ConfigError(f"cannot listen on {spec.socket}: {error.strerror}", key="daemon.socket") from error
        if spec.http is not None:
            await self._listen_tcp(server, spec.http)
        if spec.checks is not None:
            self._bind_checks(*spec.checks)
        self._parts.register_node()
        log.info("node %s: control API on %s", spec.node, ", ".join(map(str, server.addresses)))

    async def _listen_tcp(self, server: HttpServer, spec: HttpSpec) -> None:
        host, port = spec.listen
        encrypt = None
        if spec.tls is not None:
            tls = import_module(".host.tls_server", __package__)  # maps OpenSSL, which others need not
            try:
                encrypt = tls.ServerTls(spec.tls).encrypt
            except tls.TlsFailed as error:
                raise ConfigError(error.reason, key="http.tls") from error
        try:
            await server.listen_tcp(host, port, encrypt)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}", key="http.listen") from error

    def _bind_checks(self, host: str, port: int) -> None:
        server = import_module(".host.check_server", __package__)  # for hosts that are asked
        try:
            self._checks = server.CheckServer(host, port)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}", key="checks.listen") from error

    def _answer_checks(self) -> None:
        if self._checks is not None:
            parts = self._parts
            agents = import_module(".agents.checks", __package__)
            checks = agents.Checks(parts.runners, parts.registries, parts.publisher, parts.gateways.sightings)
            self._checks.start(checks.answer)

    def _on_change(self, runner: Runner, before: Unit, event: events.Event) -> None:
        if self._stopping:
            self._end_if_all_down()

    # Running.

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._terminated)
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        loop.add_signal_handler(signal.SIGQUIT, self._quit)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        loop.add_signal_handler(signal.SIGUSR1, self._dump)
        loop.add_signal_handler(signal.SIGUSR2, self._reopen)

    def _watch_files(self) -> None:
        if self._config.daemon.watch:
            self._watcher = import_module(".host.watch", __package__).Folders(self._reload)
            self._watcher.watch(_watched(self._config))

    def _ask_center(self, control: Control) -> None:
        """Fetch commands, where the configuration says so; hosts that are commanded load nothing of it."""
        spec = self._config.daemon
        if spec.center is not None and spec.center.pull:
            center = import_module(".agents.center", __package__)
            self._center = center.CenterAgent(spec.node, spec.center, partial(_ask, control))
            self._center.start()

    def _reopen(self) -> None:
        """Logs were moved away."""
        self._parts.pump.reopen()
        self._audit.reopen()

    @property
    def is_stopping(self) -> bool:
        """It is shutting down."""
        return self._stopping

    @property
    def is_ready(self) -> bool:
        """It has started what it was to start, and is not shutting down."""
        return self._is_up and not self._stopping

    def node(self) -> NodeInfo:
        """Who and how it is."""
        return self._parts.node.info()

    async def metrics(self) -> tuple[str, bytes]:
        """The media type of what is measured, and all of that."""
        if self._metrics is None:
            module, parts = import_module(".agents.metrics", __package__), self._parts
            sources = module.Sources(
                parts.node, parts.runners, parts.registries, parts.publisher, parts.operations, parts.measures,
                parts.pump, lambda: self.is_ready, parts.journal.size_bytes,
            )  # fmt: skip
            self._metrics = module.Metrics(sources)
        return await self._metrics.scrape()  # type: ignore[no-any-return]

    def plan(self) -> list[PlanItem]:
        """What applying the files would do. Raises ConfigError."""
        config = load(self._path)
        return _items(plan(self._parts.orders.specs, config.units), self._config.daemon, config.daemon)

    def apply(self, command: Command) -> tuple[list[PlanItem], list[Operation]]:
        """Apply the files. Raises ConfigError; then nothing has changed."""
        if self._stopping:
            raise ConfigError("cannot apply: unitd is shutting down")
        config = load(self._path)
        changes, operations = self._parts.applier.apply(config.units, command)
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
        for name in self._parts.runners.by_name:
            status = self._parts.view.status(name)
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
        names = [name for name, runner in self._parts.runners.by_name.items() if runner.unit.phase is not Phase.STOPPED]
        command = Command(reason=reason, issued_by="unitd", parameters={"force": True})
        self._parts.orders.stop(names, command, remember=False)
        self._end_if_all_down()

    def _terminated(self) -> None:
        if self._config.daemon.sigterm == "leave":
            self.leave("SIGTERM")
        else:
            self.shut_down("SIGTERM")

    def leave(self, reason: str) -> None:
        """End, and let the units go on: the next daemon takes them over. A shutdown that has begun goes on."""
        if self._stopping:
            return
        log.info("ending: %s; units go on without unitd", reason)
        tell_manager("STOPPING=1")
        self._stopping = self._leaving = True
        self._finished.set()

    def _interrupted(self) -> None:
        if not self._stopping:
            self.shut_down("SIGINT")
            return
        log.warning("second SIGINT: killing what is left")
        self._hurried = True
        for name, runner in list(self._parts.runners.by_name.items()):
            self._parts.runners.post(
                name, events.StopRequested(force=True)
            )  # none may be started again when it was killed
            self._parts.processes.kill(name, runner.unit.attempt)
        self._end_if_all_down()
        asyncio.get_running_loop().call_later(KILL_SECONDS, self._finished.set)

    def _quit(self) -> None:
        log.warning("SIGQUIT: ending at once; units go on without unitd")
        logging.shutdown()
        os._exit(0)

    def _end_if_all_down(self) -> None:
        units = [runner.unit for runner in self._parts.runners.by_name.values()]
        if not any(unit.live or (unit.published and not self._hurried) for unit in units):
            self._finished.set()


async def _ask(control: Control, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, bytes]:
    """What the control API answers to the control center, wherever its requests come from."""
    request = Request(method, path, query, {"content-type": "application/json"}, body, _CENTER_PEER)
    response = await control.handle_as(request, _CENTER)
    return response.status, response.body


def _watched(config: Config) -> list[str]:
    """The files whose folders are watched: those that were read, and those that an include might find one day."""
    patterns = [pattern for pattern in config.patterns if os.path.isdir(os.path.dirname(pattern))]
    return [*config.files, *patterns]


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
