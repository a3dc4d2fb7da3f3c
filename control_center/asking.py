"""What somebody asks of the control center: well-formed, not yet compared with the fleet. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import BadRequest
from .model import Selection, Strategy, fingerprint

Permit = Callable[[Sequence[str | None]], None]


def permit_all(services: Sequence[str | None]) -> None:
    """What somebody with every right, such as the center itself, is allowed."""


@dataclass(frozen=True, slots=True)
class NewOperation:
    """An operation that somebody asks for: well-formed, not yet compared with the fleet.

    Whoever begins it calls `permit` with the services of the targets that it found (None: a unit without one) before
    anything is stored or shown.
    """

    verb: str
    selection: Selection
    deadline: str  # ISO 8601 in UTC, in the future
    reason: str
    issued_by: str
    strategy: Strategy | None = None
    use_defaults: bool = False  # nothing was said of a strategy: the center's own where the verb rolls
    parameters: dict[str, Any] = field(default_factory=dict)
    command_id: str | None = None  # None: nobody will repeat it
    expected_generation: int | None = None
    permit: Permit = permit_all  # raises BadRequest (403, `forbidden`)

    def fingerprint(self) -> str:
        """What it asks for. The deadline is no part of it: `deadline_seconds` moves it with each repetition."""
        rest = {
            "parameters": self.parameters,
            "expected_generation": self.expected_generation,
            "reason": self.reason,
            "issued_by": self.issued_by,
            "use_defaults": self.use_defaults,
        }
        return fingerprint(self.verb, self.selection, self.strategy, rest)


def forbidden(detail: str) -> BadRequest:
    """The refusal for want of a right."""
    return BadRequest(detail, code="forbidden", status=403)
