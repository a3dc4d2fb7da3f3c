"""Between the model and the rows of the tables. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import RowMapping

from ..model import (
    Batch,
    Decision,
    Operation,
    OperationState,
    Report,
    Selection,
    Strategy,
    Target,
    TargetState,
    Verdict,
    Wish,
    to_json,
)

_COLUMNS = ("id", "command_id", "state", "wish", "version", "targets")  # kept by themselves
_COURSE = ("baseline", "epoch", "started", "finished", "waiting_for", "error", "batches")
_ASKED = tuple(each for each in Operation.__dataclass_fields__ if each not in _COLUMNS and each not in _COURSE)
_TARGET = tuple(Target.__dataclass_fields__)


def pack(value: Any) -> str:
    """A value of the model as JSON text."""
    return json.dumps(to_json(value), separators=(",", ":"))


def unpack(text: str) -> Any:
    """What `pack` made of a value."""
    return json.loads(text)


def asked(operation: Operation) -> str:
    """What an operation was asked to do."""
    return pack({name: getattr(operation, name) for name in _ASKED})


def course(operation: Operation) -> str:
    """How far it is."""
    return pack({name: getattr(operation, name) for name in _COURSE})


def operation_of(row: RowMapping) -> Operation:
    """The operation of a row of `operations`, without its targets."""
    values = {**unpack(row["body"]), **unpack(row["course"])}
    strategy = values["strategy"]
    values |= {
        "selection": selection_of(values["selection"]),
        "strategy": None if strategy is None else Strategy(**strategy),
        "services": tuple(values["services"]),
        "batches": [Batch(**batch) for batch in values["batches"]],
        "state": OperationState(row["state"]),
        "wish": Wish(row["wish"]),
    }
    return Operation(id=row["id"], command_id=row["command_id"], version=row["version"], **values)


def selection_of(values: Mapping[str, Any]) -> Selection:
    """A selection from its JSON."""
    lists = {name: tuple(value) for name, value in values.items() if name != "labels"}
    return Selection(**lists, labels=values.get("labels", {}))


def target_row(target: Target) -> dict[str, Any]:
    """What a row of `targets` says of a target, but for its operation and its position."""
    body = [getattr(target, name) for name in _TARGET]
    return {
        "instance": target.instance,
        "node": target.node,
        "state": target.state.value,
        "seq": target.seq,
        "body": json.dumps(body, separators=(",", ":")),
    }


def target_of(body: str, seq: int) -> Target:
    """The target of a row, whose body is a list in the order of the fields; later versions add at the end."""
    values = dict(zip(_TARGET, json.loads(body), strict=False))
    values["state"] = TargetState(values["state"])
    values["node_operations"] = tuple(values["node_operations"])
    return Target(**{**values, "seq": seq})


def decision_of(number: int, body: str) -> Decision:
    """A decision that has got its number."""
    values = unpack(body)
    return Decision(**{**values, "verdict": Verdict(values["verdict"]), "id": number})


def report_of(body: str) -> Report:
    """A gateway's report."""
    return Report(**unpack(body))
