"""One look at all that the guard judges by, taken at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from registry_client.model import Entry

from .fleet import Fleet
from .guard import Case, Word
from .guard_evidence import Evidence
from .guard_memory import GuardMemory
from .model import Mode
from .node_words import NodeSays

Key = tuple[str, str]  # service, instance


@dataclass(slots=True)
class Round:
    """What is known now. Restarts that are ordered on the way are added to it."""

    now: float
    epoch: int
    mode: Mode
    fleet: Fleet
    evidence: Evidence
    gateways: Mapping[str, int]
    entries: Mapping[Key, Entry]
    by_instance: dict[str, str]  # instance -> its open operation
    by_service: dict[str, str]  # service -> the open operation that holds it
    away: dict[str, set[str]]  # service -> instances that do not carry their share, or will not in a moment
    gone: dict[str, int]  # service -> how many have left the registry not long ago
    again: list[float] = field(default_factory=list)  # seconds until somebody must look

    def case(self, memory: GuardMemory, key: Key, says: NodeSays | None) -> Case:
        """All that there is to be said of one reported instance; `says` None: its node has not been asked."""
        service, instance = key
        own, entry = self.by_instance.get(instance), self.entries.get(key)
        away, frozen = self.away[service], memory.frozen.get(service)
        return Case(
            now=self.now,
            service=service,
            instance=instance,
            mode=self.mode,
            entry=entry or memory.left(service, instance),
            has_left=entry is None,
            voices=self.evidence.voices[key],
            gateways=self.gateways.get(service, 0),
            word=says.word if says else Word.NOT_ASKED,
            word_detail=says.detail if says else "",
            operation=own or self.by_service.get(service),
            operation_is_own=own is not None,
            preserved=str(frozen["reason"]) if frozen else "",
            instances=len(self.fleet.entries(service)) + self.gone[service],
            unavailable=len(away) - (instance in away),
            history=memory.history(instance, self.now),
            budgets=memory.budgets,
        )


def unavailable(fleet: Fleet, service: str, by_instance: Mapping[str, str]) -> set[str]:
    """Instances that are there, and do not carry their share now, or will not in a moment."""
    return {
        entry.instance
        for entry in fleet.entries(service)
        if entry.status == "draining"
        or (entry.status == "warming" and entry.weight * 2 < entry.full_weight)
        or entry.instance in by_instance
    }
