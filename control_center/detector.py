"""Suspects a node by its silence: the phi accrual failure detector. Pure; knows no node and no clock.

Hayashibara et al., "The phi accrual failure detector" (2004): phi = -log10(P(a heartbeat comes later than now)), where
the time between heartbeats is taken to be normally distributed, with mean and deviation of a window of the latest.
Phi 8 means: wrong once in 10**8. The distribution's tail is the logistic approximation that Akka uses,
1 / (1 + exp(y * (1.5976 + 0.070566 * y**2))), whose absolute error is below 0.00015.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass

MAX_PHI = 1000.0  # beyond it nothing is said any more, and powers would overflow some day

_LN_10 = math.log(10)
_LEAST_DEVIATION_SECONDS = 0.001  # whatever the policy says: nobody is more regular, and it divides
_SEED_SHARE = 0.25  # of the expected interval: deviation of the two samples that a window begins with


@dataclass(frozen=True, slots=True)
class DetectorPolicy:
    """When silence is suspicious (phi `suspect`), and when it is taken for death (phi `dead`)."""

    suspect: float = 8.0
    dead: float = 12.0
    pause_seconds: float = 5.0  # silence that is always forgiven: garbage collection, a short cut of the network
    min_std_seconds: float = 0.5  # a very regular node is not convicted by the first irregularity
    samples: int = 1000  # intervals that are remembered; 4 bytes each


class Detector:
    """One node's heartbeats. Times are seconds of any clock that never goes back.

    At most 4 bytes a sample, as single floats: 1000 intervals of 5 s are known to 0.3 microseconds, in 4 kB.
    """

    __slots__ = ("_intervals", "_last", "_mean", "_policy", "_spread", "_turn")

    def __init__(self, policy: DetectorPolicy, expected_seconds: float) -> None:
        self._policy = policy
        self._last: float | None = None
        self.begin_anew(expected_seconds)

    @property
    def last(self) -> float | None:
        """When the latest heartbeat came; later than it did by all that was forgiven."""
        return self._last

    @property
    def mean_seconds(self) -> float:
        """Mean time between heartbeats."""
        return self._mean

    @property
    def deviation_seconds(self) -> float:
        """Standard deviation of that time, at least the policy's."""
        measured = math.sqrt(max(self._spread, 0.0) / len(self._intervals))
        return max(measured, self._policy.min_std_seconds, _LEAST_DEVIATION_SECONDS)

    def begin_anew(self, expected_seconds: float, at: float | None = None) -> None:
        """Forget the window: from now on heartbeats are expected every so often.

        With `at`, one came then, and the time before it is no sample; without, the latest one still counts.
        """
        if at is not None:
            self._last = at
        seeds = (expected_seconds * (1 - _SEED_SHARE), expected_seconds * (1 + _SEED_SHARE))
        self._intervals = array("f", seeds[: self._policy.samples])
        self._turn = 0  # which sample the next one replaces, once the window is full
        self._measure()

    def heartbeat(self, now: float) -> None:
        """One came. A silence that was already suspicious is no sample: it would excuse the next one."""
        if self._last is None:
            self._last = now
            return
        if now <= self._last:  # the clock stands still, or older news: nothing to be learned
            return
        if self.phi(now) < self._policy.suspect:
            self._learn(now - self._last)
        self._last = now

    def forgive(self, seconds: float) -> None:
        """So much of the silence was not the node's fault: nobody listened."""
        if self._last is not None:
            self._last += seconds

    def phi(self, now: float) -> float:
        """How suspicious the silence is, 0 to MAX_PHI; 0 before the first heartbeat."""
        if self._last is None:
            return 0.0
        late = now - self._last - self._mean - self._policy.pause_seconds
        return phi_of(late / self.deviation_seconds)

    def state(self, now: float) -> str:
        """`up`, `suspect` or `dead`; `unknown` before the first heartbeat."""
        if self._last is None:
            return "unknown"
        phi = self.phi(now)
        if phi >= self._policy.dead:
            return "dead"
        return "suspect" if phi >= self._policy.suspect else "up"

    def _learn(self, interval: float) -> None:
        """Add a sample, and let the oldest go where the window is full (Welford's method, both ways)."""
        if len(self._intervals) < self._policy.samples:
            self._intervals.append(interval)
            interval = self._intervals[-1]  # as it is stored: what is taken out later must be what was put in
            distance = interval - self._mean
            self._mean += distance / len(self._intervals)
            self._spread += distance * (interval - self._mean)
            return
        oldest = self._intervals[self._turn]
        self._intervals[self._turn] = interval
        self._turn = (self._turn + 1) % len(self._intervals)
        if self._turn == 0:  # once a round: what rounding has added up is gone
            self._measure()
        else:
            self._replace(oldest, self._intervals[self._turn - 1])

    def _replace(self, oldest: float, newest: float) -> None:
        before = self._mean
        self._mean += (newest - oldest) / len(self._intervals)
        self._spread += (newest - oldest) * (newest - self._mean + oldest - before)

    def _measure(self) -> None:
        self._mean = math.fsum(self._intervals) / len(self._intervals)
        self._spread = math.fsum((each - self._mean) ** 2 for each in self._intervals)


def phi_of(deviations: float) -> float:
    """Phi of a silence that is so many standard deviations longer than the mean."""
    if deviations > MAX_PHI:
        return MAX_PHI
    exponent = deviations * (1.5976 + 0.070566 * deviations * deviations)
    # log(1 + e**x), in the form in which neither end overflows or loses its digits
    return min((max(exponent, 0.0) + math.log1p(math.exp(-abs(exponent)))) / _LN_10, MAX_PHI)
