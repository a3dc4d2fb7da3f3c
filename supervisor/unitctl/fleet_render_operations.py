"""Operations of a fleet as people read them: plans, lists, outcomes. Pure functions from JSON to text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from .fleet_render import moment
from .fleet_table import Column, Look, table
from .render_operations import STEP_WORDS, step_phrase
from .words import clean, columns, counted, uptime

Raw = Mapping[str, Any]

DONE_STATES = frozenset(("succeeded", "failed", "aborted", "expired"))
BUSY_STATES = frozenset(("sent", "running", "confirming"))
OPERATION_COLOURS = {
    "running": "36", "paused": "33", "succeeded": "32", "failed": "31", "aborted": "35", "expired": "35",
}  # fmt: skip
_NAMED = 8  # so many targets of a batch are named
_TARGETS_DONE = frozenset(("succeeded", "failed", "skipped", "expired"))


def is_done(operation: Raw) -> bool:
    """Nothing more will happen to it."""
    return str(operation.get("state")) in DONE_STATES


def subject(operation: Raw) -> str:
    """What an operation is about, such as `restart of cart`."""
    services = operation.get("services") or sorted({str(t["service"]) for t in _targets(operation) if t.get("service")})
    names = ", ".join(map(str, services)) if services else _selected(operation.get("selection") or {})
    return clean(f"{operation.get('verb')} of {names}" if names else str(operation.get("verb")))


def _selected(selection: Raw) -> str:
    words = [str(each) for kind in ("services", "nodes", "units", "instances") for each in selection.get(kind) or ()]
    words += [f"{key}={value}" for key, value in (selection.get("labels") or {}).items()]
    return ", ".join(words)


def targets_by_batch(operation: Raw) -> dict[int, list[Raw]]:
    """Batch number -> its targets."""
    found: dict[int, list[Raw]] = {}
    for target in _targets(operation):
        found.setdefault(int(target.get("batch") or 0), []).append(target)
    return found


def most_at_once(operation: Raw) -> int:
    """How many targets are under way at the same time, at most."""
    return max(map(len, targets_by_batch(operation).values()), default=0)


def batches_of(operation: Raw) -> list[Raw]:
    """Its batches, in order."""
    return [batch for batch in operation.get("batches") or () if isinstance(batch, Mapping)]


def _targets(operation: Raw) -> list[Raw]:
    return [target for target in operation.get("targets") or () if isinstance(target, Mapping)]


# Plans.


def plan_text(operation: Raw, services: Mapping[str, Raw], now: datetime) -> str:
    """What an operation would do; `services` are those that it is about, with their entries, as they are now."""
    targets, by_batch = _targets(operation), targets_by_batch(operation)
    nodes = counted(len({target.get("node") for target in targets}), "node")
    count, batches = counted(len(targets), "target"), counted(len(by_batch), "batch").replace("batchs", "batches")
    lines = [
        f"{subject(operation)}: {count} on {nodes}, " + (f"{batches}:" if operation.get("strategy") else "all at once:")
    ]
    rows = [
        (
            str(number + 1),
            clean(str(batch.get("name"))),
            str(len(by_batch.get(number, ()))),
            _names(by_batch.get(number, ())),
        )
        for number, batch in enumerate(batches_of(operation))
    ]
    lines += [f"  {line}" for line in columns(rows)]
    lines += _floor_lines(operation, services)
    lines += _time_lines(operation, by_batch, services, now)
    return "".join(f"{line}\n" for line in lines)


def _names(targets: Sequence[Raw]) -> str:
    names = [clean(str(target.get("instance"))) for target in targets[:_NAMED]]
    more = len(targets) - len(names)
    return ", ".join(names) + (f", and {more} more" if more else "")


def _floor_lines(operation: Raw, services: Mapping[str, Raw]) -> list[str]:
    strategy = operation.get("strategy")
    if not isinstance(strategy, Mapping):
        return ["no floor is kept: all are commanded at the same time"] if len(_targets(operation)) > 1 else []
    percent = float(strategy.get("floor_percent") or 0)
    baseline = operation.get("baseline") or {}
    return [_floor_line(name, float(full), percent, operation, services.get(name)) for name, full in baseline.items()]


def _floor_line(service: str, full: float, percent: float, operation: Raw, now: Raw | None) -> str:
    floor = full * percent / 100
    weights = sorted(
        (float(t.get("weight") or 0) for t in _targets(operation) if t.get("service") == service), reverse=True
    )
    line = f"floor: {percent:g}% of {clean(service)}, {floor:g} of {full:g}, stays in the registry"
    line += f": {_how_many(weights, full - floor)} of {len(weights)} may be out at a time"
    if now is not None and float(now.get("weight") or 0) < floor:
        line += f"; it waits first, for now there is {now.get('weight')}"
    return line


def _how_many(weights: Sequence[float], room: float) -> int:
    count, taken = 0, 0.0
    for weight in weights:  # the heaviest first: so many fit whichever they are
        taken += weight
        if taken > room:
            break
        count += 1
    return count


def _time_lines(
    operation: Raw, by_batch: Mapping[int, Sequence[Raw]], services: Mapping[str, Raw], now: datetime
) -> list[str]:
    strategy = operation.get("strategy")
    lines = []
    parts = _least(operation, by_batch, services)
    if parts:
        words = ", ".join(f"{uptime(seconds)} {what}" for what, seconds in parts)
        lines.append(f"takes at least {uptime(sum(seconds for _, seconds in parts))}: {words}")
    if isinstance(strategy, Mapping):
        lines.append(
            f"gives a target up after {uptime(float(strategy.get('target_seconds') or 0))}, "
            f"and stops when more than {strategy.get('max_failures')} have failed"
        )
    deadline = moment(operation.get("deadline"))
    if deadline is not None:
        lines.append(
            f"begins no target after {operation['deadline']}, in {uptime(max((deadline - now).total_seconds(), 0))}"
        )
    return lines


def _least(
    operation: Raw, by_batch: Mapping[int, Sequence[Raw]], services: Mapping[str, Raw]
) -> list[tuple[str, float]]:
    """What certainly takes time: (what for, seconds)."""
    strategy = operation.get("strategy") or {}
    bake = float(strategy.get("bake_seconds") or 0) if strategy.get("canary") and len(by_batch) > 1 else 0.0
    warmup = 0.0
    if operation.get("verb") == "restart":
        times = {
            str(entry.get("instance")): float(entry.get("warmup_seconds") or 0)
            for service in services.values()
            for entry in service.get("entries") or ()
        }
        warmup = sum(
            max((times.get(str(t.get("instance")), 0.0) for t in batch), default=0.0) for batch in by_batch.values()
        )
    return [
        (what, seconds) for what, seconds in (("of watching the canary", bake), ("of warming up", warmup)) if seconds
    ]


# Lists and details.


def operations_text(operations: Sequence[Raw], look: Look) -> str:
    """One line an operation."""
    return table(
        (
            Column("ID", [str(each.get("id")) for each in operations]),
            Column("STATE", [str(each.get("state")) for each in operations], 0, OPERATION_COLOURS),
            Column("WHAT", list(map(subject, operations))),
            Column("DONE", [_done_of(each) for each in operations], 1),
            Column("CREATED", [str(each.get("created")) for each in operations], 3),
            Column("BY", [str(each.get("issued_by") or "") for each in operations], 4),
            Column("NOTE", [str(each.get("error") or each.get("waiting_for") or "") for each in operations], 2),
        ),
        look,
    )


def _done_of(operation: Raw) -> str:
    counts = operation.get("counts") or {}
    done = sum(int(count) for state, count in counts.items() if state in _TARGETS_DONE)
    return f"{done}/{sum(map(int, counts.values()))}" if counts else ""


def operation_text(operation: Raw, look: Look) -> str:
    """Everything about one operation."""
    by = f" by {clean(str(operation['issued_by']))}" if operation.get("issued_by") else ""
    reason = f": {clean(str(operation['reason']))}" if operation.get("reason") else ""
    lines = [
        f"{operation.get('id')}: {subject(operation)}: {operation.get('state')}, {counts_words(operation)}",
        f"  ordered at {operation.get('created')}{by}{reason}",
        f"  command {clean(str(operation.get('command_id')))}, begins nothing after {operation.get('deadline')}",
    ]
    times = (("begun", operation.get("started")), ("ended", operation.get("finished")))
    lines += [f"  {word} at {time}" for word, time in times if time]
    lines += [f"  {word}" for word in _waits(operation)]
    by_batch = targets_by_batch(operation)
    for number, batch in enumerate(batches_of(operation)):
        lines.append(f"  {clean(str(batch.get('name')))}: {batch.get('state')}")
        text = _targets_text(
            by_batch.get(number, ()), Look(max(look.columns - 4, 1) if look.columns else 0, look.color)
        )
        lines += [f"    {line}" for line in text.splitlines()]
    return "".join(f"{line}\n" for line in lines)


def _waits(operation: Raw) -> Iterable[str]:
    if operation.get("wish") in ("pause", "abort") and not is_done(operation):
        yield f"somebody wants it to {operation['wish']}"
    if operation.get("waiting_for"):
        yield wait_words(operation)
    if operation.get("error"):
        yield f"error: {clean(str(operation['error']))}"


def wait_words(operation: Raw) -> str:
    """What it waits for; "" for nothing."""
    words = clean(str(operation.get("waiting_for") or ""))
    return words if not words or words.startswith("wait") else f"waits: {words}"


def _targets_text(targets: Sequence[Raw], look: Look) -> str:
    text = table(
        (
            Column("INSTANCE", [str(t.get("instance")) for t in targets]),
            Column("STATE", [str(t.get("state")) for t in targets], 0, OPERATION_COLOURS),
            Column("NOTE", list(map(target_words, targets))),
        ),
        look,
    )
    return text.partition("\n")[2]  # without its heading


def target_words(target: Raw) -> str:
    """What a target does now, or how it ended."""
    busy = target.get("state") in BUSY_STATES
    words = str((target.get("steps") if busy else None) or target.get("detail") or "")
    name, _, detail = words.partition(": ")
    return step_phrase(name, detail) if busy and name in STEP_WORDS else clean(words)


def counts_words(operation: Raw) -> str:
    """`3 of 8 done, 1 failed`."""
    counts = operation.get("counts") or {}
    done = sum(int(count) for state, count in counts.items() if state in _TARGETS_DONE)
    bad = [f"{counts[state]} {state}" for state in ("failed", "expired", "skipped") if counts.get(state)]
    return ", ".join([f"{done} of {sum(map(int, counts.values()))} done", *bad])


# How operations ended.


def outcome_line(operation: Raw) -> str:
    """How it ended, in one line."""
    took = _took(operation)
    error = clean(str(operation.get("error") or ""))
    line = f"{operation.get('id')}: {subject(operation)} {operation.get('state')}: {counts_words(operation)}"
    return line + (f" in {took}" if took else "") + (f": {error}" if error else "")


def _took(operation: Raw) -> str:
    begun, ended = moment(operation.get("started") or operation.get("created")), moment(operation.get("finished"))
    return uptime(max((ended - begun).total_seconds(), 0)) if begun is not None and ended is not None else ""


def remark_lines(operation: Raw) -> list[str]:
    """A line for each target that succeeded with something to tell, such as requests that were cut."""
    return [
        f"{clean(str(target.get('instance')))}: warning: {target_words(target)}"
        for target in _targets(operation)
        if target.get("state") == "succeeded" and target_words(target)
    ]


def failure_lines(operation: Raw) -> list[str]:
    """A line for each target that failed or was not begun in time."""
    return [
        f"{clean(str(target.get('instance')))}: {target.get('state')}: {target_words(target) or 'no reason was given'}"
        for target in _targets(operation)
        if target.get("state") in ("failed", "expired")
    ]
