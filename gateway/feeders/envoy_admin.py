"""Asks one Envoy's admin interface what it has taken over, and how its servers are.

It only reads. What is asked for is told by Envoy's "Administration interface": /clusters, /stats and /config_dump.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from ..errors import GatewayRefused, GatewayUnreachable
from .envoy_file import Place

MAX_ANSWER_BYTES = 64 * 1024 * 1024
LARGE_BYTES = 256 * 1024  # parsed in a thread: the loop has others to serve
MOST_NAMED = 50  # clusters in one filter; more, and all are asked for
DEFAULT_PANIC_PERCENT = 50.0  # Envoy's own, common_lb_config.healthy_panic_threshold
DEFAULT_MERGE_SECONDS = 1.0  # Envoy's own, common_lb_config.update_merge_window


@dataclass(frozen=True, slots=True)
class Host:
    """One server as Envoy shows it; `counters` are dict[name, value] of Envoy's own names."""

    place: Place
    weight: int
    eds_health: str
    failed_check: bool
    unchecked: bool  # it gets nothing before its first health check has passed
    ejected: bool
    counters: Mapping[str, int] = field(hash=False)

    @property
    def in_flight(self) -> int:
        """Requests that are open, and those that wait for a connection to it."""
        return self.counters.get("rq_active", 0) + self.counters.get("rq_pending_active", 0)

    @property
    def draining(self) -> bool:
        """It gets no new requests."""
        return self.eds_health == "DRAINING"


@dataclass(frozen=True, slots=True)
class Cluster:
    """What Envoy has of a service. `stat_name`: what its statistics begin with."""

    stat_name: str
    hosts: dict[Place, Host]


@dataclass(frozen=True, slots=True)
class Subscription:
    """How the reading of a cluster's file goes. `version` None: it reads none."""

    version: str | None
    rejected: int


@dataclass(frozen=True, slots=True)
class Rules:
    """How Envoy was told to treat a cluster."""

    panic_percent: float = 0.0
    merge_seconds: float = 0.0


class Admin:
    """One admin interface. Needs a running loop. All raise GatewayUnreachable; a wrong answer is GatewayRefused."""

    def __init__(self, where: str, timeout_seconds: float) -> None:
        self.where = where
        connector: aiohttp.BaseConnector = aiohttp.TCPConnector(limit=8)
        if where.startswith("/"):
            connector = aiohttp.UnixConnector(where, limit=8)
        self._base = "http://envoy" if where.startswith("/") else f"http://{where}"
        timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def clusters(self, names: Iterable[str]) -> dict[str, Cluster]:
        """dict[cluster name, Cluster] of those that Envoy knows."""
        wanted = set(names)
        query = {"format": "json"}
        if len(wanted) <= MOST_NAMED:
            query["filter"] = _any_of(wanted)
        answer = await self._json("/clusters", query)
        try:
            found = answer.get("cluster_statuses", ())
            return {each["name"]: _cluster(each) for each in found if each["name"] in wanted}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._strange("/clusters") from error

    async def subscription(self, stat_name: str) -> Subscription:
        """Which version of the file it has taken over."""
        answer = await self._json("/stats", _stats(stat_name, "(version_text|update_rejected)"))
        try:
            stats = {each["name"].rpartition(".")[2]: each["value"] for each in answer["stats"] if "name" in each}
            return Subscription(stats.get("version_text"), int(stats.get("update_rejected", 0)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._strange("/stats") from error

    async def connect_timeouts(self, stat_name: str) -> int:
        """How many connections to servers of a cluster were given up because nobody answered."""
        answer = await self._json("/stats", _stats(stat_name, "upstream_cx_connect_timeout"))
        try:
            return sum(int(each["value"]) for each in answer["stats"] if "name" in each)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._strange("/stats") from error

    async def rules(self, cluster: str) -> Rules:
        """The rules of a cluster; Envoy's defaults where it does not say."""
        for resource in ("static_clusters", "dynamic_active_clusters"):
            answer = await self._json("/config_dump", {"resource": resource, "name_regex": _any_of([cluster])})
            try:
                for each in answer.get("configs", ()):
                    return _rules(each["cluster"].get("common_lb_config", {}))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise self._strange("/config_dump") from error
        return Rules(DEFAULT_PANIC_PERCENT, DEFAULT_MERGE_SECONDS)

    async def _json(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        try:
            async with self._session.get(URL(self._base + path).with_query(query), allow_redirects=False) as response:
                body = await response.content.read(MAX_ANSWER_BYTES)
                while not response.content.at_eof() and len(body) < MAX_ANSWER_BYTES:
                    body += await response.content.read(MAX_ANSWER_BYTES)
        except TimeoutError as error:
            raise GatewayUnreachable(f"cannot ask Envoy at {self.where}: it does not answer") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise GatewayUnreachable(f"cannot ask Envoy at {self.where}: {error}") from error
        if response.status >= 500:
            raise GatewayUnreachable(f"cannot ask Envoy at {self.where}: it answers {path} with {response.status}")
        if response.status != 200:
            raise self._strange(path, f"it answers {path} with {response.status}")
        try:
            found = await asyncio.to_thread(json.loads, body) if len(body) > LARGE_BYTES else json.loads(body)
        except (ValueError, RecursionError) as error:
            raise self._strange(path) from error
        if not isinstance(found, dict):
            raise self._strange(path)
        return found

    def _strange(self, path: str, reason: str = "") -> GatewayRefused:
        reason = reason or f"what it answers to {path} is not what an admin interface says"
        return GatewayRefused(f"cannot ask Envoy at {self.where}: {reason}")


def _stats(stat_name: str, names: str) -> dict[str, str]:
    return {"format": "json", "filter": f"^cluster\\.{re.escape(stat_name)}\\.{names}$"}


def _any_of(names: Iterable[str]) -> str:
    return f"^({'|'.join(re.escape(name) for name in sorted(names))})$"


def _cluster(status: dict[str, Any]) -> Cluster:
    hosts = [_host(each) for each in status.get("host_statuses", ()) if "socket_address" in each["address"]]
    # Statistics hold no colon, whatever the cluster is called.
    stat_name = str(status.get("observability_name") or status["name"]).replace(":", "_")
    return Cluster(stat_name, {host.place: host for host in hosts})


def _host(status: dict[str, Any]) -> Host:
    address, health = status["address"]["socket_address"], status.get("health_status", {})
    pending = bool(health.get("pending_active_hc", False))
    return Host(
        place=(str(address["address"]), int(address.get("port_value", 0))),
        weight=int(status.get("weight", 1)),
        eds_health=str(health.get("eds_health_status", "HEALTHY")),
        failed_check=bool(health.get("failed_active_health_check", False)) and not pending,
        unchecked=pending,
        ejected=bool(health.get("failed_outlier_check", False)),
        counters={each["name"]: int(each.get("value", 0)) for each in status.get("stats", ())},
    )


def _rules(common: dict[str, Any]) -> Rules:
    panic, merge = DEFAULT_PANIC_PERCENT, DEFAULT_MERGE_SECONDS
    if "healthy_panic_threshold" in common:
        panic = float(common["healthy_panic_threshold"].get("value", 0.0))
    if "update_merge_window" in common:
        merge = float(str(common["update_merge_window"]).removesuffix("s"))
    return Rules(panic, merge)
