"""What a load's requests tell: what a supervisor was doing when one failed, and shares of traffic during a warm-up.

Pure: records in, figures out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_TICK_SECONDS = 0.001  # what the instants of operations are exact to
_ENDING = ("terminate", "kill")


@dataclass(frozen=True, slots=True)
class Spell:
    """What a supervisor did with a unit, from when to when in wall time."""

    unit: str
    what: str
    begun: float
    ended: float


def spells_of(operations: Iterable[Mapping[str, Any]]) -> list[Spell]:
    """The steps of ended operations, as the control API shows them; not the wait for its turn, which does nothing."""
    return [
        Spell(operation["unit"], step["name"], _wall(step["started"]), _wall(step["finished"]))
        for operation in operations
        for step in operation["steps"]
        if step["name"] != "wait" and step["started"] is not None and step["finished"] is not None
    ]


def _wall(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def doing(spells: Iterable[Spell], unit: str, since: float, until: float | None = None) -> str:
    """What was done with the unit at an instant, or from one to another; "-": nothing.

    Of several steps the one that ends the process, for that is what cuts connections; else the last.
    """
    until = since if until is None else until
    found = [s for s in spells if s.unit == unit and s.begun <= until and since < s.ended + _TICK_SECONDS]
    found.sort(key=lambda spell: (spell.what in _ENDING, spell.begun))
    return found[-1].what if found else "-"


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The least value that so many percent of them do not exceed; None: there are none."""
    if not values:
        return None
    rank = max(1, math.ceil(len(values) * percent / 100))
    return sorted(values)[rank - 1]


@dataclass(frozen=True, slots=True)
class Choice:
    """One request's choice: the weights of those that could be chosen, and who was."""

    weights: Mapping[str, int]
    chosen: str


@dataclass(frozen=True, slots=True)
class Period:
    """Choices in a row that saw an instance at the same weight.

    `expected` is the mean of its weight over the sum of all weights, `error` the standard deviation that chance gives
    the share when each choice is made with just these odds.
    """

    weight: int
    choices: int
    chosen: int
    expected: float
    error: float

    @property
    def share(self) -> float:
        """The share of the choices that fell on the instance."""
        return self.chosen / self.choices

    @property
    def deviation(self) -> float:
        """By how much the share is above what the weights say."""
        return self.share - self.expected

    @property
    def errors(self) -> float | None:
        """The deviation in standard deviations; None: chance had no say (weight 0, or nobody else)."""
        return self.deviation / self.error if self.error else None


def periods(choices: Iterable[Choice], instance: str) -> list[Period]:
    """The choices by the instance's weight (0 while it is not there), in order."""
    runs = itertools.groupby(choices, lambda choice: choice.weights.get(instance, 0))
    return [_period(weight, list(run), instance) for weight, run in runs]


def _period(weight: int, run: list[Choice], instance: str) -> Period:
    odds = [weight / total if (total := sum(choice.weights.values())) else 0.0 for choice in run]
    return Period(
        weight=weight,
        choices=len(run),
        chosen=sum(choice.chosen == instance for choice in run),
        expected=math.fsum(odds) / len(run),
        error=math.sqrt(math.fsum(p * (1 - p) for p in odds)) / len(run),
    )
