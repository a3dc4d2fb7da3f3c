"""What a registry holds and says, as people and programs read it. Pure: `now` is an argument, whoever calls prints.

Ages are those that the entries tell (`started_at`) by the clock of whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime

from .backend import Inspection
from .model import Entry, Snapshot

_HEAD = ("SERVICE", "INSTANCE", "ADDRESS", "STATUS", "WEIGHT", "GENERATION", "AGE")
_NAMES = frozenset(("service", "instance"))


def list_text(snapshot: Snapshot, now: float) -> str:
    """A line for each entry, aligned, below a head; "" for none. `now` is in unix seconds."""
    if not snapshot.entries:
        return ""
    rows = [_HEAD, *(_row(entry, now) for entry in snapshot.entries)]
    return "".join(f"{line}\n" for line in _columns(rows))


def entry_text(entry: Entry, now: float) -> str:
    """A line for each field of the entry, and for each pair of its metadata."""
    values = {item.name: getattr(entry, item.name) for item in fields(entry)}
    values["started_at"] = f"{entry.started_at} ({_age(entry, now)} ago)"
    metadata = {f"metadata.{key}": value for key, value in sorted(values.pop("metadata").items())}
    rows = [(name, _clean(str(value))) for name, value in (values | metadata).items() if value is not None]
    return "".join(f"{line}\n" for line in _columns(rows))


def change_lines(before: Snapshot | None, after: Snapshot) -> Iterator[str]:
    """What is new (+), gone (-) and different (~) since `before`, in the order of the entries' names."""
    old, new = _by_name(before), _by_name(after)
    for name in sorted(old.keys() | new.keys()):
        was, entry = old.get(name), new.get(name)
        if entry is None:
            yield f"- {name[0]} {name[1]}"
        elif was is None:
            facts = f"{_address(entry)} {entry.status} weight {entry.weight}/{entry.full_weight}"
            yield f"+ {name[0]} {name[1]}  {facts} generation {entry.generation}"
        elif was != entry:
            yield f"~ {name[0]} {name[1]}  {', '.join(_differences(was, entry))}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a registry says about itself, beside what its backend promises. Instants are ours, in unix seconds."""

    backend: str
    capabilities: tuple[str, ...]
    asked_ttl_seconds: float
    removal_bound_seconds: float
    asked_at: float
    answered_at: float
    inspection: Inspection

    @property
    def clock_offset(self) -> tuple[float, float] | None:
        """(least, most) seconds that the registry's clock is ahead of ours; None: it tells no time."""
        if self.inspection.clock is None:
            return None
        most = self.inspection.clock + self.inspection.clock_resolution_seconds - self.asked_at
        return self.inspection.clock - self.answered_at, most

    def to_json(self) -> dict[str, object]:
        """The report as plain values."""
        offset = self.clock_offset
        return {
            "backend": self.backend,
            "version": self.inspection.version,
            "capabilities": list(self.capabilities),
            "latency_seconds": self.answered_at - self.asked_at,
            "clock_offset_seconds": None if offset is None else {"min": offset[0], "max": offset[1]},
            "asked_ttl_seconds": self.asked_ttl_seconds,
            "granted_ttl_seconds": self.inspection.granted_ttl_seconds,
            "removal_bound_seconds": self.removal_bound_seconds,
            "warnings": list(self.inspection.warnings),
        }

    def text(self) -> str:
        """The report for people."""
        granted = self.inspection.granted_ttl_seconds
        rows = [
            ("backend", self.backend),
            ("version", self.inspection.version or "not told"),
            ("answered in", f"{self.answered_at - self.asked_at:.3f} s"),
            ("clock", _clock(self.clock_offset)),
            ("ttl", f"asked for {self.asked_ttl_seconds:g} s, granted {granted:g} s"),
            ("gone", f"at most {self.removal_bound_seconds:g} s after the last renewal"),
            ("can", ", ".join(self.capabilities)),
        ]
        lines = _columns([(name, _clean(value)) for name, value in rows])
        lines += (f"warning: {_clean(warning)}" for warning in self.inspection.warnings)
        return "".join(f"{line}\n" for line in lines)


def span(seconds: float) -> str:
    """A length of time like `0:02:05`, `3 days, 1:00:00`; never below zero, for clocks differ."""
    minutes, second = divmod(max(0, int(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour}:{minute:02}:{second:02}"
    return clock if not days else f"{days} day{'s' if days > 1 else ''}, {clock}"


def _row(entry: Entry, now: float) -> tuple[str, ...]:
    weight = f"{entry.weight}/{entry.full_weight}"
    names = (entry.service, entry.instance)
    return (*names, _address(entry), entry.status, weight, str(entry.generation), _age(entry, now))


def _address(entry: Entry) -> str:
    return f"[{entry.address}]:{entry.port}" if ":" in entry.address else f"{entry.address}:{entry.port}"


def _age(entry: Entry, now: float) -> str:
    try:  # whole seconds are enough, and a fraction of 9 digits is more than datetime reads
        started = datetime.strptime(entry.started_at[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:  # the 31st of February has the right form
        return "?"
    return span(now - started.timestamp())


def _by_name(snapshot: Snapshot | None) -> dict[tuple[str, str], Entry]:
    return {(entry.service, entry.instance): entry for entry in (snapshot.entries if snapshot else ())}


def _differences(before: Entry, after: Entry) -> Iterator[str]:
    for item in fields(Entry):
        was, value = getattr(before, item.name), getattr(after, item.name)
        if was == value or item.name in _NAMES:
            continue
        if item.name == "metadata":
            changed = sorted(key for key in was.keys() | value.keys() if was.get(key) != value.get(key))
            yield f"metadata {_clean(', '.join(changed))}"
        else:
            yield f"{item.name} {was} -> {value}"


def _clock(offset: tuple[float, float] | None) -> str:
    if offset is None:
        return "not told"
    least, most = offset
    if least <= 0 <= most:
        return f"agrees with ours within {max(-least, most):.3f} s"
    low, high = sorted((abs(least), abs(most)))
    return f"{low:.3f} to {high:.3f} s {'ahead of' if least > 0 else 'behind'} ours"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines whose columns are two spaces apart and aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _clean(text: str) -> str:
    """Text that cannot steer a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
