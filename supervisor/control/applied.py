"""What commands to apply the configuration have meant, for when one of them comes again; kept over restarts."""

from __future__ import annotations

import json
from typing import Any

from ..host.journal import Journal

KIND = "applied"
KEPT = 32  # commands; each is as long as the configuration has units


class Applied:
    """Only the ids are in memory: what they meant is read when somebody asks."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        kept = ((_read(text).get("order", 0), command_id) for command_id, text in journal.facts(KIND).items())
        self._order: dict[str, int] = {command_id: order for order, command_id in sorted(kept)}

    def request_of(self, command_id: str) -> str | None:
        """What was asked under that id; None: it is unknown."""
        if command_id not in self._order:
            return None
        return str(self._fact(command_id).get("request", ""))

    def items(self, command_id: str) -> list[dict[str, object]]:
        """What that meant for each unit."""
        return list(self._fact(command_id).get("items", ()))

    def keep(self, command_id: str, request: str, items: list[dict[str, object]]) -> None:
        """Write it down; the oldest are forgotten."""
        self._order.setdefault(command_id, max(self._order.values(), default=0) + 1)
        value = {"order": self._order[command_id], "request": request, "items": items}
        self._journal.record_fact(KIND, command_id, json.dumps(value, separators=(",", ":")))
        while len(self._order) > KEPT:
            self.forget(next(iter(self._order)))

    def forget(self, command_id: str) -> None:
        """It did not come about, or is long past."""
        self._order.pop(command_id, None)
        self._journal.record_fact(KIND, command_id, None)

    def _fact(self, command_id: str) -> dict[str, Any]:
        return _read(self._journal.fact(KIND, command_id) or "{}")


def _read(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
