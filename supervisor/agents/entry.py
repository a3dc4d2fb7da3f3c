"""A unit's entry in the registry, from its spec and its attempt."""

from __future__ import annotations

from registry_client.model import Entry

from ..core.model import ServiceSpec, UnitSpec
from ..core.warmup import Share

NODE_SERVICE = "unitd"  # under which the daemons themselves are found
MAX_WARMUP_SECONDS = 7 * 86400.0  # the longest way to full weight that an entry can speak of


def unit_entry(
    node: str, spec: UnitSpec, service: ServiceSpec, attempt: int, started_at: str, share: Share | None = None
) -> Entry:
    """The entry of one attempt; `started_at` is its process's start, ISO 8601, `share` its traffic (None: all)."""
    share = share or Share(service.weight)
    return Entry(
        service=service.name,
        instance=instance_of(node, spec.name),
        node=node,
        unit=spec.name,
        address=service.address,
        port=service.port,
        generation=attempt,
        status="warming" if share.warming else "up",
        weight=share.weight,
        full_weight=service.weight,
        started_at=started_at,
        warmup_seconds=min(share.warmup_seconds, MAX_WARMUP_SECONDS),
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
