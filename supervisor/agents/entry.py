"""Entries in the registry: a unit's, from its spec and its attempt, and the daemon's own."""

from __future__ import annotations

from registry_client.model import Entry

from ..core.model import DaemonSpec, ServiceSpec, UnitSpec
from ..core.warmup import Share
from ..host.connect import own_address

NODE_SERVICE = "unitd"  # under which the daemons themselves are found
NO_PORT = 1  # of a daemon without an HTTP API: an entry must have one
_ANY = ("0.0.0.0", "::")
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


def node_address(spec: DaemonSpec) -> tuple[str, int] | None:
    """What others are told to connect to; None: nobody has to do with this daemon but over its unix socket.

    A daemon that only fetches commands is found too, with a port that nothing listens on.
    """
    if spec.http is None:
        return (own_address(), NO_PORT) if _pulls(spec) else None
    if spec.http.advertise is not None:
        return spec.http.advertise
    host, port = spec.http.listen
    return (own_address() if host in _ANY else host), port


def node_entry(spec: DaemonSpec, address: tuple[str, int], life: int, started_at: str) -> Entry:
    """The daemon's own entry. `life` grows with each start of the daemon.

    Its metadata say how it is spoken to (`scheme`), and whether commands are pushed to it or it pulls them (`via`).
    """
    secure = spec.http is not None and spec.http.tls is not None
    return Entry(
        service=NODE_SERVICE,
        instance=spec.node,
        node=spec.node,
        unit=NODE_SERVICE,
        address=address[0],
        port=address[1],
        generation=life,
        started_at=started_at,
        metadata={"scheme": "https" if secure else "http", "via": "pull" if _pulls(spec) else "push"},
    )


def _pulls(spec: DaemonSpec) -> bool:
    return spec.center is not None and spec.center.pull


def instance_of(node: str, unit: str) -> str:
    """The id of a unit among all hosts' units."""
    return f"{node}/{unit}"
