"""What one service's file should say, and what Envoys have confirmed of it. Pure.

A server that has left its pool stays in the file, draining, until no Envoy has a request open there: Envoy shows
nothing of servers that it was not told of, and who stops the server wants to know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Set
from dataclasses import dataclass, field

from ..model import Key, Pool, Server, Standing
from .envoy_admin import Cluster
from .envoy_evidence import Sight
from .envoy_file import Endpoint, Place, Written

LEAVING_SECONDS = 600.0  # what is still open then goes on, unseen


@dataclass(slots=True)
class Told:
    """One service. `confirmed`: the version that all Envoys have acted on, in all of their threads."""

    pool: Pool
    places: dict[Key, Place] = field(default_factory=dict)
    leaving: dict[Key, tuple[Server, float]] = field(default_factory=dict)  # and since when
    written: Written | None = None
    confirmed: str | None = None
    drains: bool = True  # False: Envoy might send to draining servers, so they are left out
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def take(self, pool: Pool, places: dict[Key, Place], known: Set[Place], now: float) -> None:
        """The pool is another one; `places` are where its servers are, of those that are anywhere.

        `known`: what Envoys have. Who leaves and is unknown to them has nothing open.
        """
        present = {server.key for server in pool.servers}
        for server in self.pool.servers:
            if server.key not in present and server.key in self.places:
                self.leaving.setdefault(server.key, (server, now))
        taken = set(places.values())
        self.leaving = {
            key: (server, since)
            for key, (server, since) in self.leaving.items()
            if key not in present and self.places[key] in known - taken and now - since < LEAVING_SECONDS
        }
        self.places = {**{key: self.places[key] for key in self.leaving}, **places}
        self.pool = pool

    def endpoints(self) -> list[Endpoint]:
        """The lines of the file.

        Of several servers at one place, the newest that serves counts: Envoy knows places only.
        """
        chosen: dict[Place, Endpoint] = {}
        for sight in self.sights():
            endpoint = _endpoint(sight)
            before = chosen.get(sight.place)
            if (self.drains or sight.fed) and (before is None or _rank(endpoint) > _rank(before)):
                chosen[sight.place] = endpoint
        return list(chosen.values())

    def serving(self) -> frozenset[Key]:
        """Who may be sent new requests: also another one that is where one of these is."""
        places = {sight.place for sight in self.sights() if sight.fed}
        return frozenset(sight.server.key for sight in self.sights() if sight.place in places)

    def sights(self) -> list[Sight]:
        """All servers that are anywhere: those of the pool, then those that leave."""
        inside = [server for server in self.pool.servers if server.key in self.places]
        return [
            *(self._sight(server, server.standing is Standing.SERVING) for server in inside),
            *(self._sight(server, False) for server, _ in self.leaving.values()),
        ]

    def _sight(self, server: Server, fed: bool) -> Sight:
        return Sight(server, self.places[server.key], fed, counts=self.drains)

    def let_go(self, clusters: list[Cluster]) -> bool:
        """Forget who leaves and has nothing open at any of these Envoys; True: there was one."""
        idle = [key for key in self.leaving if all(_is_idle(cluster, self.places[key]) for cluster in clusters)]
        for key in idle:
            del self.leaving[key]
            del self.places[key]
        return bool(idle)


def reborn(written: Written | None, endpoints: list[Endpoint]) -> set[Place]:
    """Where the file has one life of a server, and another one is to serve now."""
    if written is None:
        return set()
    before: dict[Place, tuple[str, str]] = {}
    try:
        for locality in written.resources[0]["endpoints"]:
            for line in locality["lb_endpoints"]:
                where = line["endpoint"]["address"]["socket_address"]
                about = line["metadata"]["filter_metadata"]["unitd"]
                before[where["address"], where["port_value"]] = about["instance"], about["generation"]
    except (KeyError, IndexError, TypeError):  # not ours
        return set()
    now = {each.place: (each.instance, str(each.generation)) for each in endpoints if not each.draining}
    return {place for place, life in now.items() if before.get(place, life) != life}


def _is_idle(cluster: Cluster, place: Place) -> bool:
    host = cluster.hosts.get(place)
    return host is None or (host.draining and host.in_flight == 0)


def _endpoint(sight: Sight) -> Endpoint:
    server = sight.server
    weight = server.weight or server.full_weight
    address, port = sight.place
    return Endpoint(address, port, weight, not sight.fed, server.instance, server.generation, server.zone)


def _rank(endpoint: Endpoint) -> tuple[bool, int]:
    return not endpoint.draining, endpoint.generation
