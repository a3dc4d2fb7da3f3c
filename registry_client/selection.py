"""Which entry a caller should talk to. Pure: the random number is an argument."""

from __future__ import annotations

from collections.abc import Iterable

from .model import Entry


def eligible(entries: Iterable[Entry]) -> list[Entry]:
    """The entries that may get new traffic: not draining, and with a weight."""
    return [entry for entry in entries if entry.status != "draining" and entry.weight > 0]


def select(entries: Iterable[Entry], r: float) -> Entry | None:
    """One eligible entry, each with the chance that its weight gives it; None when there is none.

    `r` is uniformly random with 0 <= r < 1, such as random.random(). Equal arguments give equal answers.
    """
    if not 0 <= r < 1:
        raise ValueError(f"cannot select an entry: r must be at least 0 and less than 1, not {r}")
    candidates = eligible(entries)
    target = r * sum(entry.weight for entry in candidates)
    for entry in candidates:
        target -= entry.weight
        if target < 0:
            return entry
    return candidates[-1] if candidates else None  # r so close to 1 that rounding ate the difference
