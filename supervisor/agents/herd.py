"""A crowd that would all call at once, and is made to come one after the other."""

from __future__ import annotations

import math

from ..host.clock import chance

REGISTRATIONS_PER_SECOND = 50.0  # of one host, of entries that its registry has lost


class Herd:
    """Spreads calls that many agents want to make at the same moment: so many per second, in an order by chance."""

    def __init__(self, per_second: float = REGISTRATIONS_PER_SECOND) -> None:
        self._gap = 1.0 / per_second
        self._last = -math.inf

    def slot(self, now: float) -> float:
        """When the next of them may be made."""
        self._last = max(self._last, now) + self._gap * (1.0 + 0.5 * chance())
        return self._last
