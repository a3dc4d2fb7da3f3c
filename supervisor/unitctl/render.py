"""What people read: pure functions from the daemon's messages to text. Whoever calls them prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..wire import LeaseStatus, Operation, PlanItem, UnitStatus

NOT_RUNNING = frozenset(("STOPPED", "EXITED", "FATAL", "BACKOFF"))
MANY = 10  # from more operations than this on, progress is summed up

_COLOURS = {
    "RUNNING": "32", "STARTING": "33", "STOPPING": "33", "EXPIRING": "33", "DRAINING": "33",
    "BACKOFF": "33", "FATAL": "31", "EXITED": "31",
}  # fmt: skip
_LEASE_WORDS = {"suspended": "unconfirmed"}
_STEP_WORDS = {
    "withdraw": "stopping the heartbeat",
    "gone": "waiting for the registry entry to go",
    "settle": "giving gateways time to act on it",
    "drain": "waiting for the work in flight",
    "terminate": "waiting for the processes to end",
    "kill": "waiting for the killed processes to end",
    "wait": "waiting for other units",
    "backoff": "waiting to be started again",
    "spawn": "starting its process",
    "ready": "waiting until it is ready",
    "register": "waiting for the registry to confirm",
    "signal": "sending the signal",
}
_DONE_WORDS = {"start": "started", "stop": "stopped", "restart": "restarted", "signal": "signalled"}
_ALREADY_WORDS = {"start": "already running", "stop": "already stopped"}
_ENDED_WORDS = {"aborted": "was called off", "expired": "was not begun in time"}


# Words.


def clean(text: str) -> str:
    """Text for one line of a terminal: whatever could steer the terminal is shown, not obeyed."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char in "\n\t" else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


def uptime(seconds: float) -> str:
    """As people know it from other supervisors: `0:02:05`, `3 days, 1:00:00`."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour}:{minute:02}:{second:02}"
    return clock if not days else f"{days} day{'s' if days > 1 else ''}, {clock}"


def span(seconds: float) -> str:
    """A length of time in one unit: `1.2 s`, `12 min`, `3 h`, `2 days`."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172800 else f"{seconds / 86400:.0f} days"


def counted(count: int, what: str) -> str:
    """`1 unit`, `2 units`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as lines whose columns, but for the last, are two spaces apart and aligned."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in table), strict=True)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in table
    ]


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
    if unit.why and (verbose or unit.state != "RUNNING" or not unit.ready):
        parts.append(clean(unit.why))
    return ", ".join(parts)


def _lease(lease: LeaseStatus) -> str:
    text = f"lease {_LEASE_WORDS.get(lease.state, lease.state)}"
    if lease.renewed_seconds_ago is None or lease.state == "absent":
        return text
    return f"{text} (renewed {span(lease.renewed_seconds_ago)} ago)"


def _more_facts(unit: UnitStatus) -> str:
    parts = [f"wanted {unit.wanted}", f"generation {unit.generation}", counted(unit.restarts, "restart")]
    if unit.operation is not None:
        parts.append(f"operation {unit.operation}")
    if unit.last_exit is not None:
        parts.append(f"last exit at {unit.last_exit.at}: {clean(unit.last_exit.reason)}")
    return ", ".join(parts)


def why_text(why: str, details: Iterable[str]) -> str:
    """The reason in one sentence, and below it what it rests on."""
    return "".join(f"{line}\n" for line in (clean(why), *(f"  {clean(detail)}" for detail in details)))


# Operations on their way.


def step_words(operation: Operation) -> str:
    """What an operation is doing right now."""
    step = next((step for step in reversed(operation.steps) if step.state == "running"), None)
    if step is None:
        return "waiting for its turn" if operation.state == "pending" else f"{operation.verb} goes on"
    return _step_words(step.name, step.detail)


def _step_words(name: str, detail: str) -> str:
    phrase = _STEP_WORDS.get(name, name)
    if not detail:
        return phrase
    return f"{phrase}: {clean(detail)}" if detail[0].isdigit() else clean(detail)


def progress_line(operations: Sequence[Operation]) -> str:
    """All that goes on, in one line."""
    open_ = [operation for operation in operations if not operation.done]
    if not open_:
        return ""
    shown = next((operation for operation in open_ if operation.state == "running"), open_[0])
    line = f"{clean(shown.unit)}: {step_words(shown)}"
    if len(operations) == 1:
        return line
    return f"{len(operations) - len(open_)} of {len(operations)} done; {line}"


def new_steps(operations: Sequence[Operation], told: Mapping[str, int]) -> list[str]:
    """A line for each step begun that was not told: `told` has how many were, by operation id."""
    return [
        f"{clean(operation.unit)}: {_step_words(step.name, step.detail)}"
        for operation in operations
        for step in operation.steps[told.get(operation.id, 0) :]
        if step.state not in ("pending", "skipped")
    ]


# How operations ended.


def result_line(operation: Operation, status: UnitStatus | None = None, signal: str = "") -> str:
    """An operation that succeeded. `status` is its unit's now, `signal` the one that was sent."""
    return f"{clean(operation.unit)}: {_result(operation, status, signal)}"


def did_something(operation: Operation) -> bool:
    """Whether it succeeded by doing something, not by finding all as wanted."""
    return any(step.state != "skipped" for step in operation.steps)


def _result(operation: Operation, status: UnitStatus | None, signal: str) -> str:
    verb = operation.verb
    if verb == "signal" and signal:
        return f"sent {signal}"
    if verb in _ALREADY_WORDS and not did_something(operation):
        return next((clean(step.detail) for step in operation.steps if step.detail), _ALREADY_WORDS[verb])
    words = _DONE_WORDS.get(verb, f"{verb} done")
    if verb in ("start", "restart") and status is not None and status.pid is not None:
        words += f" (pid {status.pid}, generation {status.generation})"
    return words


def failure_line(operation: Operation) -> str:
    """An operation that did not succeed, with its reason; further lines of the reason are indented."""
    first, *more = (operation.error or "unitd gave no reason").splitlines()
    if operation.state in _ENDED_WORDS:
        words = f"the {operation.verb} {_ENDED_WORDS[operation.state]}: {clean(first)}"
    elif first.startswith("cannot "):
        words = clean(first)
    else:
        words = f"cannot {operation.verb}: {clean(first)}"
    return "\n".join([f"{clean(operation.unit)}: {words}", *(f"    {clean(line)}" for line in more)])


# Operations as a list.


def operation_lines(operations: Sequence[Operation]) -> list[str]:
    """One line an operation."""
    return columns((item.id, clean(item.unit), item.verb, item.state, _outcome(item)) for item in operations)


def _outcome(operation: Operation) -> str:
    if not operation.done:
        return step_words(operation)
    return clean((operation.error or "").partition("\n")[0])


def operation_text(operation: Operation) -> str:
    """Everything about one operation."""
    lines = [f"{operation.id}: {operation.verb} of {clean(operation.unit)}: {operation.state}"]
    ordered = f"  ordered at {operation.created}" + (
        f" by {clean(operation.issued_by)}" if operation.issued_by else ""
    )
    lines.append(ordered + (f": {clean(operation.reason)}" if operation.reason else ""))
    lines += step_lines(operation)
    if operation.error:
        lines.append(f"  {failure_line(operation)}")
    return "".join(f"{line}\n" for line in lines)


def step_lines(operation: Operation) -> list[str]:
    """The steps of an operation, with how long they took."""
    rows = (
        (step.name, step.state, _took(step.started, step.finished), clean(step.detail))
        for step in operation.steps
    )
    return [f"    {line}" for line in columns(rows)]


def _took(started: str | None, finished: str | None) -> str:
    if started is None or finished is None:
        return ""
    from datetime import datetime  # only for `-v` and `ops ID`

    try:
        return span((datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds())
    except (ValueError, TypeError):
        return ""


# The configuration.


def plan_lines(items: Iterable[PlanItem], *, verbose: bool = False) -> list[str]:
    """One line a unit that would change; `verbose`: the others too."""
    shown = [item for item in items if verbose or item.effect != "none"]
    return columns((clean(item.unit), item.effect, ", ".join(map(clean, item.keys))) for item in shown)


def mistake_line(path: str | None, line: int, key: str, reason: str) -> str:
    """A mistake in the configuration: `file:line: key: reason`, without what is not known."""
    place = f"{path}:{line}" if path and line else path or ""
    return ": ".join(clean(part) for part in (place, key, reason) if part)
