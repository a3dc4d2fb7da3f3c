"""Which server gets the next request, and which is left out because it fails. Pure: time is an argument.

`WeightedChoice` is earliest-deadline-first scheduling: a server of weight w is due w times, evenly spaced, in each
round of virtual time 1. After a whole round (as many choices as the sum of all weights) each server has been chosen
exactly as often as its weight says, in between never far from it, and a choice costs O(log servers).

`Outliers` counts failures in a row. Who fails too often is ejected, for longer each time; when the time is over it is
asked by the gateway itself (`probes`), not by a client's request, and is back on trial when it has answered: the first
failure ejects it again, the first success ends the trial. A share of the servers is never ejected, nor the last one.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import floor

from .model import Key, Symptom

_MIDDLE = 0.5  # of the first space between two choices of a server: where a fresh one is due
_LONGEST_DOUBLING = 32


@dataclass(slots=True)
class _Turn:
    """When a server is due next: (number + phase) / weight. Turns of equal time are in order of appearance."""

    key: Key
    order: int
    weight: int
    number: int  # choices of it since the round began
    phase: float

    @property
    def due(self) -> float:
        return (self.number + self.phase) / self.weight  # from whole numbers each time: no error adds up


_Item = tuple[float, int, _Turn]  # due, order; compared much faster than an object's own comparison would be


class WeightedChoice:
    """Whose turn it is. Weights are whole numbers above 0; changes of weight disturb the turns of nobody else."""

    __slots__ = ("_heap", "_next_order", "_now")

    def __init__(self, weights: Mapping[Key, int] | None = None) -> None:
        self._heap: list[_Item] = []
        self._now = 0.0  # virtual, within the round
        self._next_order = 0
        if weights:
            self.set(weights)

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, weights: Mapping[Key, int]) -> None:
        """From now on just these. Who stays keeps its place, who is new is due after half of its first space."""
        known = {turn.key: turn for _, _, turn in self._heap}
        self._fill(self._turn(known.get(key), key, weight) for key, weight in weights.items())

    def _fill(self, turns: Iterable[_Turn]) -> None:
        self._heap = [(turn.due, turn.order, turn) for turn in turns]
        heapq.heapify(self._heap)

    def _turn(self, known: _Turn | None, key: Key, weight: int) -> _Turn:
        if known is None:
            self._next_order += 1
            known = _Turn(key, self._next_order, weight, 0, self._now * weight + _MIDDLE)
        elif known.weight != weight:  # as many spaces as before, of the new length, until it is due
            position = max(self._now * weight + (known.due - self._now) * known.weight, 0.0)
            known = _Turn(key, known.order, weight, 0, position)
        whole = floor(known.phase)
        known.number, known.phase = known.number + whole, known.phase - whole
        return known

    def choose(self, without: Collection[Key] = ()) -> Key | None:
        """Who is due, and it is that one's turn no more; None: there is nobody but `without`, who keep their turns."""
        passed = []
        while self._heap and self._heap[0][2].key in without:
            passed.append(heapq.heappop(self._heap))
        chosen = self._take() if self._heap else None
        for item in passed:
            heapq.heappush(self._heap, item)
        if self._heap and self._heap[0][0] >= 1:
            self._begin_round()
        return chosen

    def _take(self) -> Key:
        due, order, turn = self._heap[0]
        self._now = max(self._now, due)
        turn.number += 1
        heapq.heapreplace(self._heap, (turn.due, order, turn))
        return turn.key

    def _begin_round(self) -> None:
        """Everybody has had its turns of this round: all are moved by a whole round."""
        self._now = max(self._now - 1, 0.0)
        turns = [turn for _, _, turn in self._heap]
        for turn in turns:
            turn.number -= turn.weight
        self._fill(turns)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierPolicy:
    """When a server is left out, and for how long."""

    failures: int = 3  # in a row: no connection, no answer in time
    errors: int = 5  # in a row, answers that say so (and no answers) among them; 0: these do not count
    eject_seconds: float = 1.0  # the first time; then twice as long each time
    max_seconds: float = 60.0  # of one ejection; who has been well for so long is forgiven
    percent: int = 50  # of the servers that may be ejected at a time


@dataclass(slots=True)
class _Record:
    """What is held against a server."""

    failures: int = 0  # in a row
    times: int = 0  # that it has been ejected
    ejected_at: float | None = None
    until: float = 0.0
    back_at: float = 0.0
    on_trial: bool = False
    told_down: bool = False  # it has been said that it is down, and not yet that it is well
    symptom: Symptom = Symptom.ERROR_ANSWERS


class Outliers:
    """Who of one service's servers is ejected. Only what has failed takes memory."""

    __slots__ = ("_keys", "_records", "policy")

    def __init__(self, policy: OutlierPolicy) -> None:
        self.policy = policy
        self._keys: frozenset[Key] = frozenset()
        self._records: dict[Key, _Record] = {}

    @property
    def ejected(self) -> frozenset[Key]:
        """Who gets no requests."""
        return frozenset(key for key, record in self._records.items() if record.ejected_at is not None)

    def seconds_left(self, key: Key, now: float) -> float:
        """How long it is still ejected at least; 0: it is not, or is being asked."""
        record = self._records.get(key)
        return max(0.0, record.until - now) if record is not None and record.ejected_at is not None else 0.0

    def symptom(self, key: Key) -> Symptom | None:
        """Why it was ejected; None: it is not."""
        record = self._records.get(key)
        return record.symptom if record is not None and record.ejected_at is not None else None

    def keep(self, keys: Iterable[Key], now: float) -> bool:
        """These are the servers now. True: somebody has come back, for too many were ejected of so few."""
        self._keys = frozenset(keys)
        self._records = {key: record for key, record in self._records.items() if key in self._keys}
        waiting = sorted(self.ejected, key=lambda key: self._records[key].ejected_at or 0.0)
        released = waiting[: max(0, len(waiting) - self._room())]
        for key in released:
            self._release(self._records[key], now)
        return bool(released)

    def failed(self, key: Key, symptom: Symptom, now: float) -> bool:
        """One more failure. True: with it the server is ejected."""
        if key not in self._keys or not self._limit(symptom):
            return False
        record = self._records.setdefault(key, _Record())
        record.failures += 1
        is_out = record.ejected_at is not None  # and this is what was sent before
        if is_out or not (record.on_trial or self.is_failing(key, symptom)) or len(self.ejected) >= self._room():
            return False
        record.symptom = symptom
        self._eject(record, now)
        return True

    def is_failing(self, key: Key, symptom: Symptom) -> bool:
        """It has failed as often in a row as it takes, this time so, whether or not it could be ejected."""
        record = self._records.get(key)
        return record is not None and record.failures >= self._limit(symptom) > 0

    def _limit(self, symptom: Symptom) -> int:
        return self.policy.errors if symptom is Symptom.ERROR_ANSWERS else self.policy.failures

    def succeeded(self, key: Key, now: float) -> bool:
        """It has answered a request. True: it had been said to be down, and is well again."""
        record = self._records.get(key)
        if record is None or record.ejected_at is not None:  # an answer to what was sent before proves nothing
            return False
        record.failures, record.on_trial = 0, False
        was_down, record.told_down = record.told_down, False
        if not record.times or now - record.back_at >= self.policy.max_seconds:
            del self._records[key]
        return was_down

    def probes(self, now: float) -> list[Key]:
        """Whose time is over: they are to be asked, and `probed` wants to know. Each is named once a time."""
        due = [key for key, record in self._records.items() if record.ejected_at is not None and record.until <= now]
        for key in due:
            self._records[key].until = float("inf")
        return due

    def probed(self, key: Key, well: bool, now: float) -> bool:
        """What came of asking. True: it is back, on trial."""
        record = self._records.get(key)
        if record is None or record.ejected_at is None:
            return False
        if not well:
            self._eject(record, now)
            return False
        record.told_down = False
        self._release(record, now)
        return True

    def _room(self) -> int:
        """How many may be ejected."""
        return max(0, min(len(self._keys) * self.policy.percent // 100, len(self._keys) - 1))

    def _eject(self, record: _Record, now: float) -> None:
        if record.times and record.ejected_at is None and now - record.back_at >= self.policy.max_seconds:
            record.times = 0
        seconds = self.policy.eject_seconds * 2 ** min(record.times, _LONGEST_DOUBLING)
        record.times += 1
        record.ejected_at = now if record.ejected_at is None else record.ejected_at
        record.until = now + min(seconds, self.policy.max_seconds)
        record.on_trial, record.told_down = False, True

    def _release(self, record: _Record, now: float) -> None:
        record.ejected_at, record.back_at, record.on_trial, record.failures = None, now, True, 0
