"""The daemon's JSON to the messages of `wire`. Keys that a newer daemon added are passed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from ..errors import WireError
from ..wire import (
    ExitStatus,
    LeaseStatus,
    MaintenanceStatus,
    Operation,
    PlanItem,
    ProbeStatus,
    Step,
    UnitStatus,
)

Message = TypeVar("Message")
Raw = Mapping[str, Any]

_KEYS: dict[type, tuple[str, ...]] = {
    kind: tuple(field.name for field in fields(kind))
    for kind in (
        UnitStatus,
        LeaseStatus,
        ExitStatus,
        ProbeStatus,
        MaintenanceStatus,
        Step,
        Operation,
        PlanItem,
    )
}


def raw_list(answer: Any, key: str) -> list[dict[str, Any]]:
    """The list of objects under a key of an answer. Raises WireError."""
    items = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise WireError(f"cannot read the answer of unitd: it has no list {key!r}; do unitd and unitctl fit together?")
    return items


def unit_statuses(items: Sequence[Raw]) -> list[UnitStatus]:
    """Statuses of units. Raises WireError."""
    return [_unit_status(item) for item in items]


def operations(items: Sequence[Raw]) -> list[Operation]:
    """Operations with their steps. Raises WireError."""
    return [_operation(item) for item in items]


def plan_items(items: Sequence[Raw]) -> list[PlanItem]:
    """Items of a plan. Raises WireError."""
    return [PlanItem(item.unit, item.effect, tuple(item.keys)) for item in (_build(PlanItem, raw) for raw in items)]


def _unit_status(item: Raw) -> UnitStatus:
    status = _build(UnitStatus, item)
    status.lease = _build(LeaseStatus, item["lease"]) if item["lease"] is not None else None
    status.last_exit = _build(ExitStatus, item["last_exit"]) if item["last_exit"] is not None else None
    status.maintenance = _build(MaintenanceStatus, item["maintenance"]) if item["maintenance"] is not None else None
    if not isinstance(status.probes, list):
        raise WireError("cannot read the answer of unitd: the probes of a unit are no list")
    status.probes = [_build(ProbeStatus, probe) for probe in item["probes"]]
    if not isinstance(status.leases, list):
        raise WireError("cannot read the answer of unitd: the leases of a unit are no list")
    status.leases = [_build(LeaseStatus, lease) for lease in item["leases"]]
    return status


def _operation(item: Raw) -> Operation:
    operation = _build(Operation, item)
    if not isinstance(operation.steps, list):
        raise WireError("cannot read the answer of unitd: the steps of an operation are no list")
    operation.steps = [_build(Step, step) for step in item["steps"]]
    return operation


def _build(kind: type[Message], item: Raw) -> Message:
    try:
        return kind(*[item[key] for key in _KEYS[kind]])
    except (KeyError, TypeError) as error:
        raise WireError(
            f"cannot read the answer of unitd: {kind.__name__} lacks {error}; do unitd and unitctl fit together?"
        ) from error
