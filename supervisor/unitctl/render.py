"""Units and the configuration as people read them: pure functions from messages to text. Whoever calls them prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..wire import LeaseStatus, PlanItem, UnitStatus
from .words import clean, columns, counted, span, uptime

NOT_RUNNING = frozenset(("STOPPED", "EXITED", "FATAL", "BACKOFF"))

_COLOURS = {
    "RUNNING": "32", "WARMING": "36", "UNHEALTHY": "31", "DRAINED": "35",
    "STARTING": "33", "STOPPING": "33", "EXPIRING": "33", "DRAINING": "33",
    "BACKOFF": "33", "FATAL": "31", "EXITED": "31",
}  # fmt: skip
_LEASE_WORDS = {"suspended": "unconfirmed"}


# Units.


def status_text(units: Sequence[UnitStatus], *, color: bool = False, verbose: bool = False) -> str:
    """One line a unit (`verbose`: more below it), the states aligned; "" without units."""
    name_width = max((len(unit.unit) for unit in units), default=0)
    state_width = max((len(unit.state) for unit in units), default=0)
    lines = []
    for unit in units:
        state = _colored(unit.state, state_width, color)
        lines.append(f"{clean(unit.unit):{name_width}}  {state}  {_facts(unit, verbose)}".rstrip())
        if verbose:
            lines.append(f"    {_more_facts(unit)}")
    return "".join(f"{line}\n" for line in lines)


def _colored(state: str, width: int, color: bool) -> str:
    code = _COLOURS.get(state) if color else None
    padded = clean(state).ljust(width)
    return f"\x1b[{code}m{padded}\x1b[0m" if code else padded


def _facts(unit: UnitStatus, verbose: bool) -> str:
    parts = []
    if unit.pid is not None:
        parts.append(f"pid {unit.pid}")
        if unit.uptime_seconds is not None:
            parts.append(f"uptime {uptime(unit.uptime_seconds)}")
        if unit.weight is not None:
            parts.append(f"weight {unit.weight}/{unit.full_weight}")
    if unit.lease is not None and (unit.pid is not None or unit.lease.state != "absent"):
        parts.append(_lease(unit.lease))
    if unit.in_flight:
        parts.append(f"{unit.in_flight} in flight")
    if unit.maintenance is not None and unit.state != "DRAINED":  # that one's reason says it
        by = f" by {clean(unit.maintenance.owner)}" if unit.maintenance.owner else ""
        parts.append(f"drained{by}")
    if unit.why and (verbose or unit.state != "RUNNING" or not unit.ready):
        parts.append(clean(unit.why))
    elif unit.warmup is not None:
        parts.append(clean(unit.warmup))  # such as a weight that somebody has fixed
    return ", ".join(parts)


def _lease(lease: LeaseStatus) -> str:
    text = f"lease {_LEASE_WORDS.get(lease.state, lease.state)}"
    if lease.renewed_seconds_ago is None or lease.state == "absent":
        return text
    return f"{text} (renewed {span(lease.renewed_seconds_ago)} ago)"


def _more_facts(unit: UnitStatus) -> str:
    parts = [f"wanted {unit.wanted}", f"generation {unit.generation}", counted(unit.restarts, "restart")]
    parts += (f"registry {clean(lease.registry or '')}: {_lease(lease)}" for lease in unit.leases)
    if unit.operation is not None:
        parts.append(f"operation {unit.operation}")
    if unit.last_exit is not None:
        parts.append(f"last exit at {unit.last_exit.at}: {clean(unit.last_exit.reason)}")
    return ", ".join(parts)


def why_text(why: str, details: Iterable[str]) -> str:
    """The reason in one sentence, and below it what it rests on."""
    return "".join(f"{line}\n" for line in (clean(why), *(f"  {clean(detail)}" for detail in details)))


# The configuration.


def plan_lines(items: Iterable[PlanItem], *, verbose: bool = False) -> list[str]:
    """One line a unit that would change; `verbose`: the others too."""
    shown = [item for item in items if verbose or item.effect != "none"]
    return columns((clean(item.unit), item.effect, ", ".join(map(clean, item.keys))) for item in shown)


def mistake_line(path: str | None, line: int, key: str, reason: str) -> str:
    """A mistake in the configuration: `file:line: key: reason`, without what is not known."""
    place = f"{path}:{line}" if path and line else path or ""
    return ": ".join(clean(part) for part in (place, key, reason) if part)
