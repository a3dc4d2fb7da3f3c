"""The composition root: builds all parts of one unit-gateway, joins them, and owns its start and its end."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, suppress
from importlib import import_module
from typing import Any, cast

from supervisor.backends import open_registry
from supervisor.errors import ConfigError

from . import api
from .acknowledging import Acknowledgements
from .config import EMBEDDED, FedGateway, GatewayConfig
from .fed import Hearers, Timing
from .feeder import Feeder
from .feeding import Feeding
from .following import Following
from .memory import Memory
from .metrics import Metrics
from .model import Finding, Pool
from .reporting import Reporting
from .reports import Reports

log = logging.getLogger("unit-gateway")

OPEN_FILES = 65_536  # the embedded gateway has one for each client, and one for each request
START_SECONDS = 10.0  # the service manager is told after so long, whatever a registry or a gateway does

MakeFeeder = Callable[[FedGateway], Feeder]


def make_feeder(gateway: FedGateway) -> Feeder:
    """What feeds a gateway of the configuration; only the code of kinds that are used is loaded."""
    name = ".proxy" if gateway.kind == EMBEDDED else f".feeders.{gateway.kind}"
    return cast(Feeder, import_module(name, __package__).make(gateway.spec))


def run(path: str, config: GatewayConfig, make: MakeFeeder = make_feeder) -> None:
    """Run unit-gateway on a configuration, which the file at `path` holds, until it is stopped.

    Raises ConfigError, GatewayError, OSError.
    """
    logging.basicConfig(
        stream=sys.stderr,
        level=config.log_level.upper(),
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
    logging.raiseExceptions = False  # a stderr that is gone must not take a gateway along
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, OPEN_FILES)), hard))
    asyncio.run(Agent(path, config, make).serve())


class Agent:
    """Everything that belongs to one running unit-gateway."""

    def __init__(self, path: str, config: GatewayConfig, make: MakeFeeder = make_feeder) -> None:
        """`path` is where mistakes that show only now are said to stand."""
        self._path, self._config, self._make = path, config, make
        self._stop = asyncio.Event()

    async def serve(self) -> None:
        """Start, run until a signal, and end; gateways keep what they were told last."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        async with AsyncExitStack() as stack:
            self._build(stack)
            await self._feeding.start()
            await self._serve_api(stack)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(part) for part in self._parts()]
                await self._stop.wait()
                _tell_manager("STOPPING=1")
                log.info("ending; gateways keep what they have")
                for task in tasks:
                    task.cancel()

    # Building; what is built last ends first.

    def _build(self, stack: AsyncExitStack) -> None:
        config = self._config
        self._memory = Memory(config.state_dir)
        stack.callback(self._memory.close)
        backend = open_registry(self._path, config.registry, config.ttl_seconds, None)
        stack.push_async_callback(backend.close)
        self._reporting = Reporting(config.name, config.center, Reports(config.reports), self._pools)
        stack.push_async_callback(self._reporting.close)
        self._acknowledgements = Acknowledgements(backend, config.name, config.listen, config.ttl_seconds)
        on_their_own = [gateway.spec.name for gateway in config.feeders if gateway.kind != EMBEDDED]
        stack.push_async_callback(self._acknowledgements.close, on_their_own=on_their_own)
        feeders = [self._make(gateway) for gateway in config.feeders]
        self._metrics = Metrics(feeders)
        self._feeding = Feeding(
            feeders,
            self._acknowledgements,
            Hearers(self._found, self._metrics.applied, self._reporting.lose),
            Timing(resync=config.resync_seconds),
        )
        stack.push_async_callback(self._feeding.close)
        self._following = Following(backend, config.pools, self._decided, self._memory.load())

    async def _serve_api(self, stack: AsyncExitStack) -> None:
        if self._config.listen is None:
            return
        parts = api.ApiParts(
            name=self._config.name,
            pools=self._pools,
            views=self._feeding.views,
            registry=lambda: self._following.state,
            feeders=self._feeding.states,
            unsaid=lambda: self._acknowledgements.error,
            reports=self._reporting.current,
            unreported=lambda: self._reporting.error,
            metrics=self._render,
            content_type=self._metrics.content_type,
            unready=self._unready,
        )
        host, port = self._config.listen
        try:
            serving = await api.serve(parts, self._config.listen)
        except OSError as error:
            reason = f"cannot listen on {host}:{port}: {os.strerror(error.errno) if error.errno else error}"
            raise ConfigError(reason, path=self._path, key="http.listen") from error
        stack.push_async_callback(serving.close)
        log.info("unit-gateway %s: API on http://%s:%d", self._config.name, f"[{host}]" if ":" in host else host, port)

    # Running.

    def _parts(self) -> list[Coroutine[Any, Any, None]]:
        return [
            self._feeding.run(),
            self._following.run(),
            self._reporting.run(),
            self._memory.run(),
            self._announce(),
        ]

    async def _announce(self) -> None:
        """The service manager is told when gateways have been told what is known; whether they took it is /readyz's."""
        with suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                await self._following.tried()
                if self._following.pools or self._following.has_heard:
                    await self._feeding.attempted()
        _tell_manager("READY=1")
        log.info("started%s", f"; not ready yet: {why}" if (why := self._unready()) else "")

    def _pools(self) -> Mapping[str, Pool]:
        return self._following.pools

    def _decided(self, pools: Mapping[str, Pool]) -> None:
        self._feeding.offer(pools)
        if self._following.has_heard:  # what comes from the disk is there already
            self._memory.note(pools)

    def _found(self, gateway: str, finding: Finding) -> None:
        self._metrics.finding(gateway, finding)
        self._reporting.note(finding, gateway)

    def _unready(self) -> str:
        if self._feeding.is_ready:
            return ""
        if not self._following.pools and not self._following.has_heard:
            return f"the registry has not answered yet, and nothing is known from before: {self._registry_detail()}"
        behind = [f"{each.name} ({each.error or 'being told'})" for each in self._feeding.states() if each.behind]
        return f"not everything has been taken over: {', '.join(behind) or 'starting'}"

    def _registry_detail(self) -> str:
        return self._following.state.detail or "it is being asked"

    def _render(self) -> bytes:
        states = self._feeding.states()
        return self._metrics.render(
            pools=self._pools().values(),
            gateways=[(each.name, each.kind, bool(each.reachable), each.behind) for each in states],
            registry_age=self._following.state.seconds_ago,
        )


def _tell_manager(state: str) -> None:
    """sd_notify(3), where a service manager waits for it."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as connection:
        try:
            connection.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)
        except OSError as error:
            log.warning("cannot tell the service manager: %s", error)
