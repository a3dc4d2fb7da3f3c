"""What a registry that does not answer leaves in the log: few lines for the host, not one for each of its units."""

from __future__ import annotations

import logging
from collections.abc import Collection

log = logging.getLogger("unitd.heartbeat")

GROWN = 10  # said again when it concerns so many times as many units: a few lines, however many there are
NAMED = 3  # units that a line names; the others are counted


class Outage:
    """The units of one registry whose last beat had no answer, from the first of them until none is left."""

    __slots__ = ("_concerned", "_label", "_said", "_since", "_waiting")

    def __init__(self, label: str) -> None:
        """`label` begins each line."""
        self._label = label
        self._waiting: set[str] = set()  # the last beat of these had no answer
        self._concerned: set[str] = set()  # all of this outage, those that have been answered since included
        self._said = 0  # how many units the last line spoke of
        self._since = 0.0

    @property
    def lasts(self) -> bool:
        """Whether beats of any unit have no answer at present."""
        return bool(self._waiting)

    def failed(self, units: Collection[str], trouble: str, now: float) -> None:
        """Beats of these units had no answer."""
        if not units:
            return
        if not self._waiting:
            self._since, self._said = now, 0
            self._concerned.clear()
        self._waiting.update(units)
        self._concerned.update(units)
        if not self._said or len(self._waiting) >= self._said * GROWN:
            self._said = len(self._waiting)
            log.warning("%s: %s%s; tried again", counted(self._waiting), self._label, trouble)

    def answered(self, unit: str, now: float) -> None:
        """A beat of the unit was answered well."""
        if unit in self._waiting:
            self._waiting.discard(unit)
            if not self._waiting:
                lasted = now - self._since
                log.info("%s: %sconfirmed again, after %.1f s", counted(self._concerned), self._label, lasted)
                self._concerned.clear()

    def forget(self, unit: str) -> None:
        """It is beaten for no more, or something else is wrong with it."""
        self._waiting.discard(unit)


def counted(units: Collection[str]) -> str:
    """The unit's name, or how many they are and the first of them."""
    if len(units) == 1:
        return next(iter(units))
    first = ", ".join(sorted(units)[:NAMED])
    return f"{len(units)} units ({first}{', ...' if len(units) > NAMED else ''})"
