"""Operations as people read them: pure functions from messages to text. Whoever calls them prints."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..wire import Operation, UnitStatus
from .words import clean, columns, span

MANY = 10  # from more operations than this on, progress is summed up

STEP_WORDS = {
    "withdraw": "stopping the heartbeat",
    "gone": "waiting for the registry entry to go",
    "gateways": "waiting for gateways to send to it no more",
    "settle": "giving gateways time to act on it",
    "drain": "waiting for the work in flight",
    "terminate": "waiting for the processes to end",
    "kill": "waiting for the killed processes to end",
    "wait": "waiting for other units",
    "resume": "going on after unitd was started again",
    "backoff": "waiting to be started again",
    "spawn": "starting its process",
    "ready": "waiting until it is ready",
    "prewarm": "the first requests are sent to it",
    "register": "waiting for the registry to confirm",
    "signal": "sending the signal",
}
_DONE_WORDS = {
    "start": "started", "stop": "stopped", "restart": "restarted", "signal": "signalled",
    "drain": "drained", "undrain": "undrained", "warm": "warms up", "weight": "weight set",
}  # fmt: skip
_ALREADY_WORDS = {"start": "already running", "stop": "already stopped", "undrain": "not drained"}
_ENDED_WORDS = {"aborted": "was called off", "expired": "was not begun in time"}


# Operations on their way.


def step_words(operation: Operation) -> str:
    """What an operation is doing right now."""
    step = next((step for step in reversed(operation.steps) if step.state == "running"), None)
    if step is None:
        return "waiting for its turn" if operation.state == "pending" else f"{operation.verb} goes on"
    return step_phrase(step.name, step.detail)


def step_phrase(name: str, detail: str) -> str:
    """What a step of that name does, with what it says itself."""
    phrase = STEP_WORDS.get(name, name)
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


Told = tuple[int, str]  # which step of an operation, and what it waits for, without its numbers


def new_steps(operation: Operation, told: Collection[Told]) -> dict[Told, str]:
    """A line for each step, and each thing that a step waits for, that was not told before."""
    lines = {}
    for index, step in enumerate(operation.steps):
        key = index, _without_numbers(step.detail)
        was_told = key in told if step.state == "running" else any(number == index for number, _ in told)
        if step.state not in ("pending", "skipped") and not was_told:
            lines[key] = f"{clean(operation.unit)}: {step_phrase(step.name, step.detail)}"
    return lines


def _without_numbers(detail: str) -> str:
    """The words before the first number: `3 requests in flight: 2.1 s of 30 s` stays the same as time goes by."""
    end = next((index for index, char in enumerate(detail) if char.isdigit()), len(detail))
    return detail[:end].rstrip(" :")


# How operations ended.


def result_line(operation: Operation, status: UnitStatus | None = None, signal: str = "") -> str:
    """An operation that succeeded. `status` is its unit's now, `signal` the one that was sent."""
    return f"{clean(operation.unit)}: {_result(operation, status, signal)}"


def did_something(operation: Operation) -> bool:
    """Whether it succeeded by doing something, not by finding all as wanted."""
    return not operation.steps or any(step.state != "skipped" for step in operation.steps)


def _result(operation: Operation, status: UnitStatus | None, signal: str) -> str:
    verb = operation.verb
    if verb == "signal" and signal:
        return f"sent {signal}"
    if verb in _ALREADY_WORDS and not did_something(operation):
        return next((clean(step.detail) for step in operation.steps if step.detail), _ALREADY_WORDS[verb])
    if verb in ("warm", "weight") and operation.steps and operation.steps[-1].detail:
        return clean(operation.steps[-1].detail)  # where its weight is now
    return _DONE_WORDS.get(verb, f"{verb} done") + (_about_unit(verb, status) if status is not None else "")


def _about_unit(verb: str, status: UnitStatus) -> str:
    words = ""
    if verb in ("start", "restart") and status.pid is not None:
        words += f" (pid {status.pid}, generation {status.generation})"
    if status.maintenance is not None:
        until = f" until {status.maintenance.until}" if status.maintenance.until is not None else ""
        words += until if verb == "drain" else f"; still kept out of traffic{until}"
    return words


def cut_line(operation: Operation) -> str:
    """A warning about requests that a drain could not wait for; "" if there were none."""
    return f"{clean(operation.unit)}: warning: {_cut_words(operation)}" if operation.cut else ""


def _cut_words(operation: Operation) -> str:
    noun = "request was" if operation.cut == 1 else "requests were"
    return f"{operation.cut} {noun} still open when the time for draining was over"


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
    error = clean((operation.error or "").partition("\n")[0])
    return "; ".join(filter(None, (error, _cut_words(operation) if operation.cut else "")))


def operation_text(operation: Operation) -> str:
    """Everything about one operation."""
    lines = [f"{operation.id}: {operation.verb} of {clean(operation.unit)}: {operation.state}"]
    ordered = f"  ordered at {operation.created}" + (f" by {clean(operation.issued_by)}" if operation.issued_by else "")
    lines.append(ordered + (f": {clean(operation.reason)}" if operation.reason else ""))
    lines.append(f"  command {clean(operation.command_id)}{_dates(operation)}")
    lines += step_lines(operation, times=True)
    if operation.cut:
        lines.append(f"  {cut_line(operation)}")
    if operation.error:
        lines.append(f"  {failure_line(operation)}")
    return "".join(f"{line}\n" for line in lines)


def _dates(operation: Operation) -> str:
    deadline = f", not to begin after {clean(operation.deadline)}" if operation.deadline else ""
    return deadline + (f", finished at {operation.finished}" if operation.finished else "")


def step_lines(operation: Operation, *, times: bool = False) -> list[str]:
    """The steps of an operation, with how long they took; `times`: and when they began."""
    rows = (
        (
            *((step.started or "",) if times else ()),
            step.name, step.state, _took(step.started, step.finished), clean(step.detail),
        )
        for step in operation.steps
    )  # fmt: skip
    return [f"    {line}" for line in columns(rows)]


def _took(started: str | None, finished: str | None) -> str:
    if started is None or finished is None:
        return ""
    from datetime import datetime  # only for `-v` and `ops ID`

    try:
        return span((datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds())
    except (ValueError, TypeError):
        return ""
