"""A unit's entry in the registry, from its spec and its attempt."""

from __future__ import annotations

from registry_client.model import Entry

from ..core.model import ServiceSpec, UnitSpec

NODE_SERVICE = "unitd"  # under which the daemons themselves are found


def unit_entry(node: str, spec: UnitSpec, service: ServiceSpec, attempt: int, started_at: str) -> Entry:
    """The entry of one attempt at full weight; `started_at` is its process's start, ISO 8601."""
    return Entry(
        service=service.name,
        instance=instance_of(node, spec.name),
        node=node,
        unit=spec.name,
        address=service.address,
        port=service.port,
        generation=attempt,
        weight=service.weight,
        full_weight=service.weight,
        started_at=started_at,
        version=service.version,
        zone=service.zone,
        metadata=dict(service.metadata),
    )


def node_entry(node: str, address: str, port: int, life: int, started_at: str) -> Entry:
    """The daemon's own entry: where its HTTP API listens. `life` grows with each start of the daemon."""
    return Entry(
        service=NODE_SERVICE,
        instance=node,
        node=node,
        unit=NODE_SERVICE,
        address=address,
        port=port,
        generation=life,
        started_at=started_at,
    )


def instance_of(node: str, unit: str) -> str:
    """The id of a unit among all hosts' units."""
    return f"{node}/{unit}"
