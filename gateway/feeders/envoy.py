"""Keeps Envoys in step: one EDS file a service, renamed into place, and taken for applied when each Envoy acts on it.

Several Envoys may read the same files. One that is away is told of by GatewayUnreachable, and finds the file when it is
back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os.path
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TypeVar

from ..errors import GatewayError, GatewayRefused, GatewayUnreachable
from ..model import Applied, Look, Pool
from ..settings.envoy import KIND, PLACEHOLDER, EnvoySpec
from . import envoy_file
from .envoy_addresses import Addresses
from .envoy_admin import Admin, Cluster
from .envoy_events import Ejection, EventLog
from .envoy_evidence import Evidence
from .envoy_file import Endpoint, Written
from .envoy_reader import Order, Reader, State
from .envoy_told import Told, reborn

log = logging.getLogger("unit-gateway.envoy")

Answer = TypeVar("Answer")


def make(spec: EnvoySpec) -> EnvoyFeeder:
    """The feeder of a table `[envoy.NAME]`."""
    return EnvoyFeeder(spec)


class EnvoyFeeder:
    """A Feeder (gateway.feeder) for the Envoys of one table."""

    def __init__(self, spec: EnvoySpec) -> None:
        self._spec = spec
        self._readers: list[Reader] = []
        self._told: dict[str, Told] = {}
        self._addresses = Addresses()
        self._logs = [EventLog(path) for path in spec.event_log]
        self._evidence = Evidence()

    @property
    def name(self) -> str:
        """The name in the configuration."""
        return self._spec.name

    @property
    def kind(self) -> str:
        """`envoy`."""
        return KIND

    @property
    def look_seconds(self) -> float:
        """How often it wants to be looked at."""
        return self._spec.look_seconds

    def wants(self, service: str) -> bool:
        """A service that is meant, and whose name can be that of a file."""
        if "/" in service or "\0" in service or len(service) > 200:
            return False
        return any(fnmatchcase(service, pattern) for pattern in self._spec.services)

    async def start(self) -> None:
        """Open nothing yet: an Envoy that is away is no error."""
        self._readers = [Reader(Admin(where, self._spec.apply_seconds)) for where in self._spec.admin]
        for each in self._logs:
            await asyncio.to_thread(each.read)  # what stands there is history

    async def close(self) -> None:
        """The files stay as they are, and Envoy goes on with them."""
        for reader in self._readers:
            await reader.admin.close()

    async def apply(self, pool: Pool, *, full: bool = False) -> Applied:
        """Write the file, and wait until all Envoys act on it."""
        told = self._told.setdefault(pool.service, Told(pool))
        async with told.lock:
            cluster = self._cluster_of(pool.service)
            asked = await _all(self._readers, lambda reader: reader.state(cluster, anew=full))
            states = {reader: state for reader, state in asked.items() if isinstance(state, State)}
            known = {place for state in states.values() for place in state.places}
            told.take(pool, await self._addresses.of(pool.servers), known, time.monotonic())
            order = await self._order(told, states, full)
            done = await _all(states, lambda reader: reader.acts_on(order, states[reader]))
            _raise_worst([*asked.values(), *done.values()])
            told.confirmed = order.version
            return Applied(pool.service, pool.revision, told.serving())

    async def look(self) -> Look:
        """What those Envoys see that answer. Who has left a pool, and has nothing open any more, leaves the file."""
        names = {self._cluster_of(service): service for service in self._told}
        asked = await _all(self._readers, lambda reader: reader.admin.clusters(names))
        seen = {
            reader.admin.where: {names[cluster]: found for cluster, found in answer.items()}
            for reader, answer in asked.items()
            if isinstance(answer, dict)
        }
        if not seen:
            self._evidence.lose()
            _raise_worst(asked.values())
        timed_out = await self._timed_out(seen)
        ejections = [
            replace(event, cluster=names[event.cluster]) for event in await self._ejections() if event.cluster in names
        ]
        sights = [sight for told in self._told.values() for sight in told.sights()]
        found = self._evidence.look(seen, sights, ejections, now=time.monotonic(), timed_out=timed_out)
        for service, told in self._told.items():
            if told.leaving and not told.lock.locked():
                await self._let_go(told, [clusters[service] for clusters in seen.values() if service in clusters])
        return found

    async def _order(self, told: Told, states: dict[Reader, State], full: bool) -> Order:
        """The file is as it should be; what is to be seen of it."""
        if states:
            told.drains = all(state.rules.panic_percent == 0 for state in states.values())
        endpoints = told.endpoints()
        if full or told.written is None:
            told.written = await asyncio.to_thread(envoy_file.read, self._path(told))
        await self._forget_ejections(told, endpoints, states)
        versions = {state.version for state in states.values() if state.cluster is not None}
        written = told.written
        if written is None or written.resources != self._resources(told, endpoints) or versions - {written.version}:
            written = await self._write(told, endpoints)
        return self._expected(told, endpoints, written)

    def _expected(self, told: Told, endpoints: list[Endpoint], written: Written) -> Order:
        new = told.confirmed != written.version
        return Order(
            cluster=self._cluster_of(told.pool.service),
            path=self._path(told),
            version=written.version,
            places={each.place for each in endpoints},
            draining={each.place for each in endpoints if each.draining} if new else frozenset(),
            new=new,
            deadline=time.monotonic() + self._spec.apply_seconds,
        )

    async def _forget_ejections(self, told: Told, endpoints: list[Endpoint], states: dict[Reader, State]) -> None:
        """A new life of a server that Envoy had ejected: taken out and in again, it is no longer ejected."""
        ejected = {place for state in states.values() for place in state.ejected}
        if ejected:
            ejected &= reborn(told.written, endpoints)
        if not ejected:
            return
        others = [each for each in endpoints if each.place not in ejected]
        order = self._expected(told, others, await self._write(told, others))
        await _all(states, lambda reader: reader.has(order, states[reader]))  # if not, they wait until it is over

    async def _let_go(self, told: Told, clusters: list[Cluster]) -> None:
        async with told.lock:
            if told.let_go(clusters) and told.drains:
                with contextlib.suppress(GatewayError):  # the next `apply` says so
                    await self._write(told, told.endpoints())

    async def _write(self, told: Told, endpoints: list[Endpoint]) -> Written:
        """Versions grow, also over restarts."""
        before = told.written.version if told.written is not None else ""
        last = int(before) if before.isascii() and before.isdigit() and len(before) < 20 else 0
        version = str(max(last + 1, time.time_ns() // 1_000_000))
        written = Written(version, self._resources(told, endpoints))
        await asyncio.to_thread(envoy_file.write, self._path(told), written)
        told.written = written
        return written

    def _resources(self, told: Told, endpoints: list[Endpoint]) -> list[dict[str, object]]:
        return envoy_file.resources(self._cluster_of(told.pool.service), endpoints, zones=self._spec.zones)

    async def _timed_out(self, seen: dict[str, dict[str, Cluster]]) -> frozenset[str]:
        """The services whose servers did not even refuse a connection, where some have failed since the last look."""
        found = set()
        for reader in self._readers:
            where = reader.admin.where
            for service, cluster in seen.get(where, {}).items():
                if self._evidence.connect_failures(where, service, cluster) and await reader.timed_out(cluster):
                    found.add(service)
        return frozenset(found)

    async def _ejections(self) -> list[Ejection]:
        read = [await asyncio.to_thread(each.read) for each in self._logs]
        return [event for events in read for event in events]

    def _cluster_of(self, service: str) -> str:
        return self._spec.cluster.replace(PLACEHOLDER, service)

    def _path(self, told: Told) -> str:
        return os.path.join(self._spec.folder, self._spec.file.replace(PLACEHOLDER, told.pool.service))


async def _all(
    readers: Iterable[Reader], ask: Callable[[Reader], Awaitable[Answer]]
) -> dict[Reader, Answer | GatewayError]:
    """Ask all of them at once; what one cannot is its answer."""
    chosen = list(readers)

    async def one(reader: Reader) -> Answer | GatewayError:
        try:
            return await ask(reader)
        except GatewayError as error:
            return error

    answers = await asyncio.gather(*map(one, chosen))
    return dict(zip(chosen, answers, strict=True))


def _raise_worst(answers: Iterable[object]) -> None:
    """What an operator must act on comes first."""
    errors = [answer for answer in answers if isinstance(answer, GatewayError)]
    for kind in (GatewayRefused, GatewayUnreachable):
        for error in errors:
            if isinstance(error, kind):
                raise error
