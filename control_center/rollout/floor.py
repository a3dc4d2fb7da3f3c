"""How much of a service may be away at a time, asked of the registry before each step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import floor

from registry_client.model import Entry

from ..fleet import Fleet, meant_weight
from ..model import Target, TargetState
from .proof import FOR_GOOD

FREE = frozenset(("start", "undrain", "apply"))  # take nothing away, or nobody knows what
_SHOWN = 3  # instances that a sentence names


class Floors:
    """What is left of each service while some of its instances are in work.

    The registry is behind: what was ordered a moment ago may still be there in full. So an instance in work counts
    for nothing until its node is done and a newer generation of it is there; then it counts as what it weighs.
    """

    def __init__(
        self, verb: str, percent: float, fleet: Fleet, baseline: Mapping[str, int], busy: Iterable[Target]
    ) -> None:
        """`percent` of `baseline` (service -> weight) must stay; `busy` are the targets that are in work."""
        self._verb, self._percent, self._fleet, self._baseline = verb, percent, fleet, baseline
        self._busy = {(target.service, target.instance): target for target in busy}
        self._kept: dict[str, int] = {}

    def admit(self, target: Target) -> bool:
        """Whether one more may go; if so, it counts as gone from then on."""
        service, entry = target.service, self._entry(target)
        if service is None or entry is None or self._verb in FREE:
            return True
        left = self._left(service) - _weight(entry)
        if self._breaks(service, left):
            return False
        self._kept[service] = left
        self._busy[service, target.instance] = target
        return True

    def reason(self, target: Target) -> str:
        """Why that one may not go, and what it waits for, in one sentence."""
        service, entry = str(target.service), self._entry(target)
        has, then = self._left(service), 0 if entry is None else _weight(entry)
        words = f"{service} has {self._share(service, has)} of its weight"
        if not self._breaks(service, has):
            words += f", {self._share(service, has - then)} without {target.instance}"
        return f"{words}, {self._percent:g} % must stay: waiting for {self._missing(service)}"

    def _left(self, service: str) -> int:
        if service not in self._kept:
            self._kept[service] = sum(map(self._counted, self._fleet.entries(service)))
        return self._kept[service]

    def _counted(self, entry: Entry) -> int:
        working = self._busy.get((entry.service, entry.instance))
        return _weight(entry) if working is None or self._is_back(working, entry) else 0

    def _is_back(self, working: Target, entry: Entry) -> bool:
        if self._verb in FOR_GOOD or working.state is not TargetState.CONFIRMING:
            return False
        return working.generation is not None and entry.generation > working.generation

    def _breaks(self, service: str, left: int) -> bool:
        return left * 100 < self._percent * self._base(service)

    def _base(self, service: str) -> int:
        known = self._baseline.get(service)
        return sum(map(meant_weight, self._fleet.entries(service))) if known is None else known

    def _share(self, service: str, weight: int) -> str:
        base = self._base(service)
        return f"{floor(weight * 100 / base) if base else 100} %"

    def _entry(self, target: Target) -> Entry | None:
        return self._fleet.entry(target.instance, target.service)

    def _missing(self, service: str) -> str:
        """Who is not back yet."""
        entries = self._fleet.entries(service)
        there = {entry.instance for entry in entries}
        names = [f"{name} (not registered)" for of, name in self._busy if of == service and name not in there]
        for entry in entries:
            if entry.status == "draining":
                names.append(f"{entry.instance} (draining)")
            elif (service, entry.instance) in self._busy or entry.weight < meant_weight(entry):
                names.append(f"{entry.instance} ({entry.weight}/{entry.full_weight})")
        if not names:
            return "instances that have left to come back"
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return ", ".join(names[:_SHOWN]) + more


def _weight(entry: Entry) -> int:
    """What traffic it gets now."""
    return 0 if entry.status == "draining" else entry.weight
