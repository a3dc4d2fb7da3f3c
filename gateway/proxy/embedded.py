"""The embedded gateway as unit-gateway feeds it: its listener, its services, its clock, and its end.

A pool is in force when `apply` returns: from then on nobody outside of it is sent a new request.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any

from ..balancing import OutlierPolicy
from ..errors import GatewayRefused
from ..model import Applied, Key, Look, Pool
from ..settings.proxy import ProxySpec
from .client_connection import ClientConnection
from .members import Member, Service
from .probing import ask
from .routes import Routes

log = logging.getLogger("unit-gateway.proxy")

BACKLOG = 1024
LOOK_SECONDS = 0.5
PROBE_SECONDS = 1.0
_SPARE = 100  # connections beyond the limit that are still told so
_TICK_SECONDS = 0.25

Count = tuple[str, tuple[tuple[str, str], ...]]  # name and labels


def make(spec: ProxySpec) -> EmbeddedGateway:
    """The gateway of that configuration; it listens from `start` on."""
    return EmbeddedGateway(spec)


class EmbeddedGateway:
    """A Feeder that is its own gateway."""

    def __init__(self, spec: ProxySpec) -> None:
        self.spec = spec
        self.closing = False
        policy = OutlierPolicy(
            failures=spec.eject_failures,
            errors=spec.eject_errors,
            eject_seconds=spec.eject_seconds,
            max_seconds=spec.eject_max_seconds,
            percent=spec.eject_percent,
        )
        self._services = {name: Service(name, policy, spec.unit_idle_seconds) for name in spec.services}
        self._routes = Routes(spec.routes)
        self._unrouted: Counter[int] = Counter()  # status -> answers to what belongs to no service
        self._connections: set[ClientConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._all_gone = asyncio.Event()
        patience = (spec.head_seconds, spec.idle_seconds, spec.response_seconds, spec.stall_seconds, spec.eject_seconds)
        self._tick_seconds = min(_TICK_SECONDS, min(patience) / 4)

    # as a Feeder

    @property
    def name(self) -> str:
        """The name in the configuration."""
        return self.spec.name

    @property
    def kind(self) -> str:
        """`embedded`."""
        return "embedded"

    @property
    def look_seconds(self) -> float:
        """How often it wants to be looked at."""
        return LOOK_SECONDS

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, once it does."""
        if self._server is None or not self._server.sockets:
            return self.spec.listen
        host, port = self._server.sockets[0].getsockname()[:2]
        return str(host), int(port)

    def wants(self, service: str) -> bool:
        """Whether a route leads to the service."""
        return service in self._services

    async def start(self) -> None:
        """Listen. Raises GatewayRefused."""
        host, port = self.spec.listen
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._connection, host, port, backlog=BACKLOG)
        except OSError as error:
            raise GatewayRefused(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        self._tick()

    async def apply(self, pool: Pool, *, full: bool = False) -> Applied:
        """Take over the pool, at once; there is nothing to be compared."""
        lost = self._services[pool.service].apply(pool, _now())
        for member in lost:
            if member.requests:
                self._spawn(self._see_whether_dead(member))
        return Applied(pool.service, pool.revision, frozenset(server.key for server in pool.serving))

    async def look(self) -> Look:
        """How the servers do."""
        now = _now()
        services = self._services.values()
        views = [view for service in services for view in service.views(now)]
        return Look(tuple(views), tuple(finding for service in services for finding in service.findings()))

    def counts(self) -> Mapping[Count, float]:
        """What has been answered, tried again and left out, and how much is open: metric name and labels -> number."""
        return dict(self._counts())

    def _counts(self) -> Iterator[tuple[Count, float]]:
        yield ("proxy_connections", ()), len(self._connections)
        for status, number in self._unrouted.items():
            yield ("proxy_requests_total", (("service", ""), ("code", str(status)))), number
        for name, service in self._services.items():
            label = ("service", name)
            for status, number in service.answered.items():
                yield ("proxy_requests_total", (label, ("code", str(status)))), number
            yield ("proxy_retries_total", (label,)), service.retries
            yield ("proxy_ejections_total", (label,)), service.ejections
            yield ("proxy_in_flight", (label,)), service.in_flight

    async def close(self) -> None:
        """Accept nothing more, let what is being answered finish (within shutdown_seconds), and end."""
        if self.closing:
            return
        self.closing = True
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.finish()
        await self._wait_for_connections()
        for connection in tuple(self._connections):
            connection.abort()
        if self._ticker is not None:
            self._ticker.cancel()
        for task in self._tasks:
            task.cancel()
        for member in self._members():
            member.leave()
        await asyncio.sleep(0)  # aborted transports let go of their sockets

    async def _wait_for_connections(self) -> None:
        if not self._connections:
            return
        try:
            async with asyncio.timeout(self.spec.shutdown_seconds):
                await self._all_gone.wait()
        except TimeoutError:
            log.warning("%s: %d connections were cut at the end", self.name, len(self._connections))

    # for its connections

    def service_for(self, host: bytes, path: bytes) -> Service | None:
        """Whose a request is; None: nobody's."""
        name = self._routes.find(host, path)
        return None if name is None else self._services[name]

    def count_refused(self, status: int) -> None:
        """A request that belongs to no service has been answered."""
        self._unrouted[status] += 1

    def forget(self, connection: ClientConnection) -> None:
        """It is closed."""
        self._connections.discard(connection)
        if self.closing and not self._connections:
            self._all_gone.set()

    def _connection(self) -> asyncio.Protocol:
        if len(self._connections) >= self.spec.max_connections + _SPARE:
            return _Unwelcome()
        connection = ClientConnection(self, len(self._connections) < self.spec.max_connections)
        self._connections.add(connection)
        return connection

    # the clock

    def _tick(self) -> None:
        """One timer for all deadlines: most of them are moved many times before one is over."""
        self._ticker = asyncio.get_running_loop().call_later(self._tick_seconds, self._tick)
        now = _now()
        for connection in tuple(self._connections):
            if connection.deadline <= now:
                connection.late()
        for member in self._members():
            member.close_idle(now - self.spec.unit_idle_seconds)
        for service in self._services.values():
            for key in service.outliers.probes(now):
                self._spawn(self._probe(service, key))

    def _members(self) -> Iterator[Member]:
        return (member for service in self._services.values() for member in service.members)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _probe(self, service: Service, key: Key) -> None:
        """Half open: before any client's request goes there again, the gateway's own does."""
        member = service.member(key)
        if member is None:
            return
        reason = await ask(member.server, self.spec.probe, PROBE_SECONDS)
        if service.member(key) is member and service.probed(key, not reason, reason, _now()):
            log.info("%s: %s answers again", service.name, member.server.instance)

    async def _see_whether_dead(self, member: Member) -> None:
        """It has gone without draining: whoever has died without a word will not answer those who wait for it."""
        reason = await ask(member.server, self.spec.probe, PROBE_SECONDS)
        if reason and not member.is_open:
            for request in tuple(member.requests):
                request.member_is_dead(cut=True)


class _Unwelcome(asyncio.Protocol):
    """A connection that not even a refusal can be afforded for."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it at once."""
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def _now() -> float:
    return asyncio.get_running_loop().time()
