"""One Envoy as a reader of files: which version it has, by which rules it treats a service, and when it acts on a file.

What its admin interface shows is what its main thread knows. Its other threads are told of a new or removed server at
once, and of a changed state or weight after `update_merge_window` at the latest ("common_lb_config"). What drains is
therefore watched until nothing new has gone there for a moment.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Set
from dataclasses import dataclass

from ..errors import GatewayRefused, GatewayUnreachable
from .envoy_admin import Admin, Cluster, Rules
from .envoy_file import Place

log = logging.getLogger("unit-gateway.envoy")

STILL_SECONDS = 0.05  # without a new request: threads look at what they are told far more often
FIRST_POLL_SECONDS, LAST_POLL_SECONDS = 0.005, 0.25


NO_RULES = Rules()


@dataclass(frozen=True, slots=True)
class State:
    """What an Envoy has of a service before it is told anything. `cluster` None: it knows no such service."""

    cluster: Cluster | None
    version: str | None = None
    rejected: int = 0
    rules: Rules = NO_RULES

    @property
    def places(self) -> Set[Place]:
        """The servers that it knows."""
        return self.cluster.hosts.keys() if self.cluster is not None else frozenset()

    @property
    def ejected(self) -> Set[Place]:
        """Those that it has taken out for what they did."""
        hosts = self.cluster.hosts if self.cluster is not None else {}
        return {place for place, host in hosts.items() if host.ejected}


@dataclass(frozen=True, slots=True)
class Order:
    """What an Envoy should act on. `places`: all that the file names; `draining`: those that get nothing new."""

    cluster: str
    path: str
    version: str
    places: Set[Place]
    draining: Set[Place]
    new: bool  # not all have acted on it before
    deadline: float  # monotonic


class Reader:
    """Asks through one admin interface. All raise GatewayUnreachable and GatewayRefused."""

    def __init__(self, admin: Admin) -> None:
        self.admin = admin
        self._rules: dict[str, Rules] = {}
        self._said: set[str] = set()
        self._connect_timeouts: dict[str, int] = {}

    async def state(self, cluster: str, *, anew: bool) -> State:
        """What it has. `anew`: it may have been told other rules meanwhile."""
        try:
            found = (await self.admin.clusters([cluster])).get(cluster)
            if found is None:
                self._say(logging.INFO, cluster, "has no cluster of that name: it sends nothing there")
                return State(None)
            if anew or cluster not in self._rules:
                self._rules[cluster] = await self.admin.rules(cluster)
            subscription = await self.admin.subscription(found.stat_name)
        except GatewayUnreachable:
            self._rules.clear()  # it may come back with another configuration
            raise
        if subscription.version is None:
            where = self.admin.where
            reason = f"Envoy at {where} reads it from no file: it must be of type EDS, with path_config_source"
            raise GatewayRefused(f"cannot feed cluster {cluster}: {reason}")
        rules = self._rules[cluster]
        if rules.panic_percent > 0:
            reason = f"sends to all servers when fewer than {rules.panic_percent:g} % are well, also to draining ones;"
            self._say(
                logging.WARNING, cluster, f"{reason} those are left out therefore: set healthy_panic_threshold to 0"
            )
        return State(found, subscription.version, subscription.rejected, rules)

    async def acts_on(self, order: Order, before: State) -> None:
        """Return when all of its threads act on the order."""
        if before.cluster is None:
            return
        await self.has(order, before)
        cluster = await self._cluster(order)
        if left := sorted(set(cluster.hosts) - order.places):
            reason = "set ignore_health_on_host_removal, for it goes on with them while they pass its health checks"
            names = ", ".join(f"{address}:{port}" for address, port in left)
            raise GatewayRefused(f"cannot take {names} out of Envoy at {self.admin.where}: {reason}")
        if order.draining:
            await asyncio.sleep(before.rules.merge_seconds)
            await self._still(order)
        elif order.new:
            await asyncio.sleep(STILL_SECONDS)

    async def timed_out(self, cluster: Cluster) -> bool:
        """Whether connections to servers of the cluster got no answer at all, since this was asked before."""
        now = await self.admin.connect_timeouts(cluster.stat_name)
        before = self._connect_timeouts.get(cluster.stat_name, 0)
        self._connect_timeouts[cluster.stat_name] = now
        return now > before or 0 < now < before

    async def has(self, order: Order, before: State) -> None:
        """Return when its main thread has that version."""
        if before.cluster is None:
            return
        pause = FIRST_POLL_SECONDS
        while True:
            now = await self.admin.subscription(before.cluster.stat_name)
            if now.version == order.version:
                return
            if now.rejected > before.rejected:
                reason = f"Envoy at {self.admin.where} does not accept {order.path}: its log says why"
                raise GatewayRefused(f"cannot feed cluster {order.cluster}: {reason}")
            if time.monotonic() >= order.deadline:
                reason = f"Envoy at {self.admin.where} has not taken {order.path} over; is that the file it reads?"
                raise GatewayUnreachable(f"cannot feed cluster {order.cluster}: {reason}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_POLL_SECONDS)

    async def _still(self, order: Order) -> None:
        """Return when nothing new has gone to what drains for a moment."""
        while True:
            before = _totals(await self._cluster(order), order.draining)
            await asyncio.sleep(STILL_SECONDS)
            now = _totals(await self._cluster(order), order.draining)
            busy = sorted(place for place, total in now.items() if total > before.get(place, total))
            if not busy:
                return
            if time.monotonic() >= order.deadline:
                names = ", ".join(f"{address}:{port}" for address, port in busy)
                reason = f"Envoy at {self.admin.where} still sends requests to {names}"
                raise GatewayUnreachable(f"cannot drain servers of cluster {order.cluster}: {reason}")

    async def _cluster(self, order: Order) -> Cluster:
        found = (await self.admin.clusters([order.cluster])).get(order.cluster)
        return found if found is not None else Cluster("", {})

    def _say(self, level: int, cluster: str, what: str) -> None:
        """Once for each cluster."""
        if cluster not in self._said:
            self._said.add(cluster)
            log.log(level, "cluster %s: Envoy at %s %s", cluster, self.admin.where, what)


def _totals(cluster: Cluster, places: Set[Place]) -> dict[Place, int]:
    return {place: host.counters.get("rq_total", 0) for place, host in cluster.hosts.items() if place in places}
