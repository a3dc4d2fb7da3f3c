"""Entries, snapshots and targets for the tests of what decides on them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from control_center.fleet import Fleet
from control_center.model import NODE_SERVICE, Target
from registry_client.model import Entry, Snapshot

STARTED = "2026-11-23T06:29:10.123Z"


def entry(node: str, service: str = "cart", unit: str | None = None, **more: Any) -> Entry:
    """The entry of a unit, called as its service is; at full weight, of generation 1."""
    unit = unit or service
    values: dict[str, Any] = {"generation": 1, "warmup_seconds": 100.0, "started_at": STARTED} | more
    return Entry(
        service=service, instance=f"{node}/{unit}", node=node, unit=unit, address="10.0.0.1", port=9080, **values
    )


def node_entry(node: str, **more: Any) -> Entry:
    """The entry of a node's daemon."""
    values: dict[str, Any] = {"generation": 1, "started_at": STARTED} | more
    return Entry(
        service=NODE_SERVICE, instance=node, node=node, unit=NODE_SERVICE, address="10.0.0.1", port=9301, **values
    )


def snapshot(entries: Iterable[Entry], revision: int = 1, epoch: str = "e") -> Snapshot:
    """A registry that has these and nothing else."""
    return Snapshot(revision, epoch, None, tuple(sorted(entries, key=lambda each: (each.service, each.instance))))


def fleet_of(*entries: Entry) -> Fleet:
    """What the center sees of them."""
    return Fleet(snapshot(entries))


def target_of(found: Entry, **more: Any) -> Target:
    """The target that stands for an entry."""
    return Target(
        node=found.node, unit=found.unit, instance=found.instance, service=found.service, zone=found.zone,
        generation=found.generation, weight=found.full_weight, **more,
    )  # fmt: skip
