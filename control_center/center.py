"""The composition root: builds all parts of one control center, joins them, and owns its start and its end."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

from registry_client.backends.embedded import EmbeddedRegistry
from registry_client.model import Entry
from registry_client.server import RegistryApi
from supervisor.backends import open_registry
from supervisor.core.model import DEFAULT_TTL_SECONDS
from supervisor.errors import ConfigError

from .api.app import make_app
from .api.parts import ApiParts, Leader, RegistryState
from .api.serving import serve
from .channels import Channels
from .closed_loop import ClosedLoop
from .config import CenterConfig
from .delivery import Delivery
from .errors import StoreError
from .executor import Executor
from .following import AWAY_SECONDS, Following
from .heartbeats import Heartbeats
from .leadership import Leadership
from .metrics import Metrics
from .moments import iso
from .store import Store

log = logging.getLogger("unit-center")

YOUNG_TTLS = 1.5  # a registry that lost its memory has everything again after so many ttls
PRUNE_SECONDS = 3600.0
LEAD_AGAIN_SECONDS = 1.0
OPEN_FILES = 65_536  # a kept connection to each node, and those of people and gateways
KEPT_SECONDS = 30 * 86400.0  # ended operations and decisions


def run(path: str, config: CenterConfig) -> None:
    """Run a control center on the configuration of a file until it is stopped.

    Raises ConfigError, CenterError, OSError.
    """
    logging.basicConfig(
        stream=sys.stderr,
        level=config.log_level.upper(),
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
    logging.raiseExceptions = False  # a stderr that is gone must not take the center along
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, OPEN_FILES)), hard))
    asyncio.run(Center(path, config).serve())


class Center:
    """Everything that belongs to one running unit-center."""

    def __init__(self, path: str, config: CenterConfig) -> None:
        self._path, self._config = path, config
        self._epoch: int | None = None
        self._led: tuple[str | None, int] = (None, 0)
        self._is_up = False
        self._stop = asyncio.Event()
        self._metrics = Metrics()

    async def serve(self) -> None:
        """Start, run until a signal, and end; open operations stay in the store."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        os.makedirs(self._config.state_dir, mode=0o750, exist_ok=True)
        async with AsyncExitStack() as stack:
            await self._build(stack)
            async with asyncio.TaskGroup() as group:
                self._group = group
                tasks = [group.create_task(part) for part in self._parts()]
                self._leading = group.create_task(self._leadership.run())
                self._is_up = True
                _tell_manager("READY=1")
                await self._stop.wait()
                _tell_manager("STOPPING=1")
                self._is_up = False
                for task in (*tasks, self._leading):
                    task.cancel()

    # Building.

    async def _build(self, stack: AsyncExitStack) -> None:
        config = self._config
        self._store = await Store.open(config.store_url, config.store_password())
        stack.push_async_callback(self._store.close)
        await self._store.set_mode(config.mode, unless_set=True)
        self._build_registry(stack)
        self._channels = Channels(config.nodes, self._store, self._following.node_entry)
        stack.push_async_callback(self._channels.close)
        self._delivery = Delivery(
            self._channels, self._following, self._store.id, on_accepted=self._metrics.command_accepted
        )
        self._executor = Executor(
            self._store,
            self._following,
            self._channels,
            self._delivery,
            config.rollout,
            name=config.name,
            doubts=self._doubts,
            on_end=self._metrics.operation_ended,
            on_superseded=self._superseded,
        )
        stack.push_async_callback(self._executor.close)
        self._build_watching(stack)
        self._leadership = Leadership(self._store, config.name, self._led_by)
        serving = await self._serve_api()
        stack.push_async_callback(serving.close)
        log.info("control center %s: API and page on %s", config.name, serving.url)

    def _build_registry(self, stack: AsyncExitStack) -> None:
        spec = self._config.registry
        ttl = spec.ttl_seconds or DEFAULT_TTL_SECONDS
        self._embedded = EmbeddedRegistry() if spec.backend == "embedded" else None
        backend = open_registry(self._path, spec, ttl, self._embedded)
        stack.push_async_callback(backend.close)
        self._following = Following(
            backend, YOUNG_TTLS * ttl, self._fleet_changed, begins_empty=self._embedded is not None
        )

    def _build_watching(self, stack: AsyncExitStack) -> None:
        config = self._config
        self._closed_loop = ClosedLoop(
            self._store,
            self._channels,
            self._following.certain,
            config.guard,
            self._executor.order,
            on_decision=self._metrics.decision,
        )
        stack.push_async_callback(self._closed_loop.close)
        self._heartbeats = Heartbeats(
            self._nodes,
            self._channels,
            self._store,
            config.detector,
            config.nodes.heartbeat_seconds,
            leads=lambda: self._epoch is not None,
            parallel=config.nodes.parallel,
        )

    async def _serve_api(self) -> Any:
        parts = ApiParts(
            config=self._config,
            store=self._store,
            fleet=lambda: self._following.fleet,
            registry=self._registry_state,
            leader=self._leader,
            heartbeats=self._heartbeats,
            channels=self._channels,
            executor=self._executor,
            closed_loop=self._closed_loop,
            command_of=self._delivery.command_of,
            metrics=self._metrics,
            started_at=iso(datetime.now(UTC)),
            registry_api=RegistryApi(self._embedded) if self._embedded is not None else None,
            is_ready=lambda: self._is_up,
        )
        try:
            return await serve(make_app(parts), self._config.http)
        except OSError as error:
            host, port = self._config.http.listen
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error.strerror or error}", path=self._path, key="http.listen"
            ) from error

    # Running.

    def _parts(self) -> list[Coroutine[Any, Any, None]]:
        return [
            self._following.run(),
            self._heartbeats.run(),
            self._know_the_leader(),
            self._prune(),
        ]

    def _fleet_changed(self) -> None:
        self._delivery.fleet_changed()
        self._executor.fleet_changed()
        self._closed_loop.wake()

    def _led_by(self, epoch: int | None) -> None:
        """This center leads from now on (an epoch), or does not any more (None)."""
        self._epoch = epoch
        if epoch is None:
            self._executor.give_way()
            self._closed_loop.give_way()
            return
        self._led = (self._config.name, epoch)
        self._executor.lead(epoch)
        self._closed_loop.lead(epoch)

    def _superseded(self) -> None:
        """A higher epoch than ours is known: give the lock back and try again, which makes a new epoch.

        That is another center, or this store was restored from an old copy and the nodes remember more than it does.
        """
        self._leading.cancel()
        self._leading = self._group.create_task(self._lead_again())

    async def _lead_again(self) -> None:
        await asyncio.sleep(LEAD_AGAIN_SECONDS)
        await self._leadership.run()

    async def _know_the_leader(self) -> None:
        """Whoever leads is written down; asked for now and then, for people."""
        while True:
            try:
                self._led = await self._store.leader()
            except StoreError as error:
                log.warning("%s", error)
            await asyncio.sleep(2.0)

    async def _prune(self) -> None:
        while True:
            try:
                await self._store.prune(datetime.now(UTC).timestamp() - KEPT_SECONDS)
            except StoreError as error:
                log.warning("cannot forget what is old: %s", error)
            await asyncio.sleep(PRUNE_SECONDS)

    def _nodes(self) -> Mapping[str, Entry] | None:
        fleet = self._following.fleet
        return None if fleet is None else fleet.nodes

    def _doubts(self) -> frozenset[str]:
        return self._closed_loop.complaints()

    def _leader(self) -> Leader:
        if self._epoch is not None:
            return Leader(True, self._config.name, self._epoch)
        name, epoch = self._led
        return Leader(False, name, epoch)

    def _registry_state(self) -> RegistryState:
        age = self._following.age_seconds
        state = "ok" if age is not None and age <= AWAY_SECONDS else "away"
        return RegistryState(self._config.registry.backend, state, age, self._following.revision)


def _tell_manager(state: str) -> None:
    """sd_notify(3), where a service manager waits for it."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
        try:
            connection.connect("\0" + path[1:] if path.startswith("@") else path)
            connection.sendall(state.encode())
        except OSError as error:
            log.warning("cannot tell the service manager: %s", error)
