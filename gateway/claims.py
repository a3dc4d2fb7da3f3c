"""What one gateway says of one service, and what the registry has of it. Pure: acknowledging.py writes it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from registry_client.gateways import Acknowledgement, token

from .model import Applied, Key

COUNT_SECONDS = 3.0  # who was left is claimed as busy for so long at most, until somebody has counted


class Claim:
    """What one gateway says of one service, and what of it the registry has.

    `serving`, `soon`: whom the gateway was told of, and is about to be, with their tokens; `claimed` is both together.
    `written`: what the registry has; None: that is not known. `floor`: whom its entry names in any case; None: there
    is none. `generation`: of the last write; `answered_generation`: of the last one that was answered. `refused`: what
    the registry does not take.
    """

    __slots__ = (
        "answered_generation", "busy", "claimed", "counts", "feeder", "floor", "generation", "is_wanted", "kind",
        "may_be_there", "refused", "revision", "service", "serving", "soon", "uncounted", "uncounted_until", "written",
        "written_at",
    )  # fmt: skip

    def __init__(self, feeder: str, service: str, generation: int) -> None:
        self.feeder, self.service, self.kind, self.revision = feeder, service, "", 0
        self.serving: dict[Key, str] = {}
        self.soon: dict[Key, str] = {}
        self.claimed: frozenset[str] = frozenset()
        self.busy: dict[str, int] = {}
        self.counts = self.is_wanted = self.may_be_there = False
        self.uncounted: frozenset[str] = frozenset()
        self.uncounted_until = self.written_at = -math.inf
        self.generation = self.answered_generation = generation
        self.written: Acknowledgement | None = None
        self.floor: frozenset[str] | None = None
        self.refused: Acknowledgement | None = None

    def expect(self, keys: Iterable[Key]) -> None:
        """The gateway is about to be told of these."""
        self.soon |= {key: self.serving.get(key) or token(*key) for key in keys}
        self.claimed = frozenset((*self.serving.values(), *self.soon.values()))

    def take_over(self, applied: Applied, now: float, *, counted: bool) -> None:
        """The gateway sends to these, and to nobody else."""
        before, known = self.claimed, self.serving | self.soon
        self.serving, self.soon = {key: known.get(key) or token(*key) for key in applied.serving}, {}
        self.claimed = frozenset(self.serving.values())
        left = before - self.claimed
        if left and not counted:
            self.uncounted, self.uncounted_until = self.uncounted | left, now + COUNT_SECONDS
        self.uncounted -= self.claimed

    def leave(self) -> None:
        """Nothing is said any more, until the gateway has taken something over."""
        self.is_wanted = self.counts = False
        self.serving, self.soon, self.busy = {}, {}, {}
        self.claimed = self.uncounted = frozenset()

    def said(self, gateway: str, now: float) -> Acknowledgement:
        """What is to be said now."""
        counts = self.counts and not (self.uncounted and now >= self.uncounted_until)
        busy = dict.fromkeys(self.uncounted, 1) | self.busy if counts else {}
        busy = {name: number for name, number in busy.items() if name not in self.claimed}
        return Acknowledgement(gateway, self.service, self.kind, self.revision, self.claimed, busy, counts)

    @property
    def may_be_renewed(self) -> bool:
        """Whether its entry, as far as there is one, claims enough."""
        return self.is_wanted and self.floor is not None and self.claimed <= self.floor

    @property
    def generations(self) -> set[int]:
        """In which it may be there. (Also in one in between; then it is taken for lost, and ends with its lease.)"""
        return {self.generation, self.answered_generation}

    def is_lost(self) -> None:
        """The registry has no entry."""
        self.written = self.floor = None


def is_same(one: Acknowledgement, other: Acknowledgement) -> bool:
    """But for what is open, which can wait, and the revision, which nobody waits for."""
    return (one.serving, one.kind, one.counts) == (other.serving, other.kind, other.counts)
