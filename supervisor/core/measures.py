"""What is counted from the daemon's start, whether or not anybody ever asks: plain integers and lists. Pure.

It is little: a key comes into being when something of its kind happens first. What can be looked up when somebody asks
(states, weights, leases) is not kept here.
"""

from __future__ import annotations

from bisect import bisect_left

SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 300.0, 1800.0)
RATIOS = (0.25, 0.5, 0.75, 0.8, 0.9, 0.95, 1.0, 1.25, 1.5, 2.0)

Key = tuple[str, ...]  # the values of a measure's labels, in the order in which it names them


class Counts:
    """How often something has happened, by label values."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: dict[Key, int] = {}

    def add(self, *key: str, by: int = 1) -> None:
        """It has happened."""
        self.values[key] = self.values.get(key, 0) + by

    def forget(self, first: str) -> None:
        """Nothing whose first label has this value exists any more."""
        for key in [key for key in self.values if key[0] == first]:
            del self.values[key]


class Histograms:
    """How many observations were at most that large, by label values."""

    __slots__ = ("bounds", "values")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.values: dict[Key, list[float]] = {}  # by bucket (the last one has no bound), then the sum of all

    def begin(self, *key: str) -> list[float]:
        """Tell of that key from now on, also while nothing was observed."""
        return self.values.setdefault(key, [0] * (len(self.bounds) + 2))

    def add(self, value: float, *key: str) -> None:
        """One more observation."""
        known = self.values.get(key) or self.begin(*key)
        known[bisect_left(self.bounds, value)] += 1
        known[-1] += value

    def cumulative(self, key: Key) -> tuple[list[int], float]:
        """(observations at most as large as each bound, and all of them; their sum)."""
        *counts, total = self.values[key]
        running, sums = 0, []
        for count in counts:
            running += int(count)
            sums.append(running)
        return sums, total


class Measures:
    """All of them. The comments name the labels."""

    __slots__ = (
        "drains", "gateways", "latencies", "operations", "removal_ratios", "removals", "requests", "requests_cut",
        "restarts", "steps",
    )  # fmt: skip

    def __init__(self) -> None:
        self.operations = Histograms()  # verb, outcome: from acceptance to the end
        self.latencies = Histograms()  # verb: from acceptance to the beginning
        self.steps = Histograms()  # step
        self.removals = Histograms()  # outcome: until an entry had gone from all registries
        self.removal_ratios = Histograms(RATIOS)  # the same, as a share of the time within which it was promised
        self.removal_ratios.begin()
        self.gateways = Histograms()  # service, outcome: until those who sent to a unit had said that they do no more
        self.drains = Histograms()  # service, outcome
        self.requests_cut = Counts()  # unit
        self.restarts = Counts()  # unit, cause
        self.requests = Counts()  # method, route, status

    def forget(self, unit: str) -> None:
        """It is no unit any more."""
        self.requests_cut.forget(unit)
        self.restarts.forget(unit)
