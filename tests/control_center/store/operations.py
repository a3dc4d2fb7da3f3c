"""Operations as tests make them."""

from __future__ import annotations

import itertools
from typing import Any

from control_center.model import Operation, Selection, Strategy, Target

_NUMBERS = itertools.count(1)


def target(node: str = "n1", unit: str = "cart:0", **more: Any) -> Target:
    instance = f"{node}/{unit}"
    return Target(node, unit, instance, **{"command_id": f"c-{instance}", "service": "cart", **more})


def operation(*services: str, targets: int | list[Target] = 0, **more: Any) -> Operation:
    """An operation that nobody has seen, for these services."""
    number = next(_NUMBERS)
    some = targets if isinstance(targets, list) else [target(f"n{each}") for each in range(targets)]
    values: dict[str, Any] = {
        "id": f"o{number}", "command_id": f"k{number}", "verb": "restart", "strategy": Strategy(), "parameters": {},
        "selection": Selection(services=services), "reason": "a test", "issued_by": "somebody",
        "created": "2030-01-01T00:00:00.000Z", "deadline": "2030-01-01T01:00:00.000Z",
    }  # fmt: skip
    return Operation(**{**values, "services": services, "targets": some, **more})
