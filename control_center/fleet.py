"""The registry's entries as the control center looks at them: by service, by node, by instance. Pure.

A `Fleet` is one moment and never changes. What units weigh together is counted when somebody asks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any

from registry_client.gateways import GATEWAY_SERVICE, Acknowledgement, from_entry, token
from registry_client.model import Entry, Snapshot
from registry_client.selection import eligible

from .model import NODE_SERVICE


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the instances of one service are together. `weight` is what they have now; draining ones have none."""

    up: int = 0
    warming: int = 0
    draining: int = 0
    weight: int = 0
    full_weight: int = 0

    @property
    def instances(self) -> int:
        """How many there are, whatever they do."""
        return self.up + self.warming + self.draining

    @property
    def percent(self) -> float:
        """Weight now, of full weight; 100 where there is nothing to have."""
        return self.weight / self.full_weight * 100 if self.full_weight else 100.0


class Fleet:
    """All entries of a registry at one revision."""

    __slots__ = ("_capacities", "_index", "epoch", "revision")

    def __init__(self, snapshot: Snapshot) -> None:
        self.epoch, self.revision = snapshot.epoch, snapshot.revision
        self._index = _Index(snapshot.entries)
        self._capacities: dict[str, Capacity] = {}

    @classmethod
    def of(cls, snapshot: Snapshot, previous: Fleet | None) -> Fleet:
        """The fleet of a snapshot; what `previous` knows already is not built again."""
        if previous is None or snapshot.entries != previous._index.entries:
            return cls(snapshot)
        if (snapshot.epoch, snapshot.revision) == (previous.epoch, previous.revision):
            return previous
        same = cls.__new__(cls)
        same.epoch, same.revision = snapshot.epoch, snapshot.revision
        same._index, same._capacities = previous._index, previous._capacities
        return same

    @property
    def services(self) -> tuple[str, ...]:
        """By name, those under which nodes and gateways register left out."""
        return self._index.names

    @property
    def nodes(self) -> Mapping[str, Entry]:
        """Node -> the entry of its daemon."""
        return MappingProxyType(self._index.nodes)

    def node(self, name: str) -> Entry | None:
        """The entry of a node's daemon."""
        return self._index.nodes.get(name)

    def entries(self, service: str) -> tuple[Entry, ...]:
        """The instances of a service, by name; none where nobody knows it."""
        return self._index.services.get(service, ())

    def all_entries(self) -> tuple[Entry, ...]:
        """Those of all services, by service and instance, the nodes' own left out."""
        return self._index.units

    def on_node(self, node: str) -> tuple[Entry, ...]:
        """The units that a node has in the registry."""
        return self._index.on_node(node)

    def entry(self, instance: str, service: str | None = None) -> Entry | None:
        """An instance's entry. Where one name is in several services, the first one's, or that of `service`."""
        found = self._index.instances.get(instance)
        if found is None or service is None or found.service == service:
            return found
        return next((entry for entry in self.entries(service) if entry.instance == instance), None)

    def capacity(self, service: str) -> Capacity:
        """What a service's instances are together."""
        known = self._capacities.get(service)
        if known is None:
            known = self._capacities[service] = _count(self.entries(service))
        return known

    def gateways(self) -> list[dict[str, Any]]:
        """What each gateway says of each service, beside what the registry lists, as the API shows it."""
        return [self._gateway_json(each) for each in self._index.gateways]

    def gateways_of(self, service: str) -> frozenset[str]:
        """The names under which those report that say that they send to a service."""
        return self._index.reporters.get(service, frozenset())

    def _gateway_json(self, said: Acknowledgement) -> dict[str, Any]:
        listed = {
            token(entry.instance, entry.generation): entry.instance for entry in eligible(self.entries(said.service))
        }
        return {
            "gateway": said.gateway,
            "kind": said.kind,
            "service": said.service,
            "revision": said.revision,
            "serving": len(said.serving & listed.keys()),
            "listed": len(listed),
            "lacks": sorted(instance for name, instance in listed.items() if name not in said.serving),
            "stale": len(said.serving - listed.keys()),
            "finishing": sum(said.busy.values()),
        }

    def zones(self, service: str) -> dict[str, int]:
        """Zone ("" for none) -> how many instances, by name."""
        zones: dict[str, int] = {}
        for zone in sorted(entry.zone or "" for entry in self.entries(service)):
            zones[zone] = zones.get(zone, 0) + 1
        return zones

    def service_json(self, service: str) -> dict[str, Any]:
        """A service as the API shows it, without what only the store knows."""
        capacity, entries = self.capacity(service), self.entries(service)
        return {
            "service": service,
            "instances": capacity.instances,
            "up": capacity.up,
            "warming": capacity.warming,
            "draining": capacity.draining,
            "weight": capacity.weight,
            "full_weight": capacity.full_weight,
            "capacity_percent": round(capacity.percent, 1),
            "zones": self.zones(service),
            "nodes": len({entry.node for entry in entries}),
            "operation": None,
            "frozen": None,
        }


def meant_weight(entry: Entry) -> int:
    """The weight that an instance is to have in the end: its full one, or what an operator has fixed.

    An entry that is up has no ramp below its full weight; if it has less and speaks of no warm-up, somebody holds it.
    """
    is_held = entry.status == "up" and not entry.warmup_seconds
    return min(entry.weight, entry.full_weight) if is_held else entry.full_weight


class _Index:
    """Entries, found by what they are asked for."""

    __slots__ = ("_on_node", "entries", "gateways", "instances", "names", "nodes", "reporters", "services", "units")

    def __init__(self, entries: tuple[Entry, ...]) -> None:
        self.entries = entries
        services: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            services[entry.service].append(entry)
        self.nodes = {entry.node: entry for entry in services.pop(NODE_SERVICE, ())}
        said = [(entry.node, found) for entry in services.pop(GATEWAY_SERVICE, ()) if (found := from_entry(entry))]
        self.gateways = tuple(each for _, each in said)
        self.reporters: dict[str, frozenset[str]] = {}
        for name, each in said:
            self.reporters[each.service] = self.reporters.get(each.service, frozenset()) | {name}
        self.services = {name: tuple(found) for name, found in services.items()}
        self.names = tuple(sorted(services))
        self.units = tuple(chain.from_iterable(self.services.values()))
        self.instances = {entry.instance: entry for entry in reversed(self.units)}  # the first one counts
        self._on_node: dict[str, list[Entry]] | None = None

    def on_node(self, node: str) -> tuple[Entry, ...]:
        """Those of a node; sorted out for the first one who asks, for most fleets live shorter than that."""
        if self._on_node is None:
            self._on_node = {}
            for entry in self.units:
                self._on_node.setdefault(entry.node, []).append(entry)
        return tuple(self._on_node.get(node, ()))


def _count(entries: Iterable[Entry]) -> Capacity:
    states = {"up": 0, "warming": 0, "draining": 0}
    weight = full_weight = 0
    for entry in entries:
        states[entry.status] += 1
        full_weight += entry.full_weight
        if entry.status != "draining":
            weight += entry.weight
    return Capacity(states["up"], states["warming"], states["draining"], weight, full_weight)
