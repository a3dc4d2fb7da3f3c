"""A fleet operation on its way: the picture that is redrawn on a terminal, and the lines for everything else. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from .fleet_render import moment
from .fleet_render_operations import (
    BUSY_STATES,
    batches_of,
    counts_words,
    subject,
    target_words,
    targets_by_batch,
    wait_words,
)
from .words import clean, counted, cut, pad, uptime, width

Raw = Mapping[str, Any]

_SPOKEN = 20  # from more targets in a batch than this on, they are counted, not told one by one
_STATE_WORDS = {
    "sent": "the command is on its way",
    "running": "its node is at it",
    "confirming": "waits for the registry to show it",
    "succeeded": "done",
}


def picture(operation: Raw, now: datetime, columns: int, lines: int) -> list[str]:
    """The operation as it is now, in at most so many lines of at most so many columns."""
    started = moment(operation.get("started") or operation.get("created"))
    age = f" {uptime(max((now - started).total_seconds(), 0))}" if started is not None else ""
    drawn = [f"{subject(operation)}: {operation.get('state')}{age}, {counts_words(operation)}"]
    waits = [f"  {words}" for words in [wait_words(operation)] if words]
    drawn += _batch_lines(operation, max(lines - 1 - len(waits), 0)) + waits
    return [cut(line, columns) for line in drawn[: max(lines, 1)]]


def _batch_lines(operation: Raw, room: int) -> list[str]:
    """Each batch with its targets under way; without room only batches under way; without that, the rest is counted."""
    by_batch = targets_by_batch(operation)
    batches = [(batch, by_batch.get(number, [])) for number, batch in enumerate(batches_of(operation))]
    name_width = max((width(clean(str(batch.get("name")))) for batch, _ in batches), default=0)
    blocks = [_block(batch, targets, name_width) for batch, targets in batches]
    if sum(map(len, blocks)) > room:
        blocks = [
            block
            for block, (batch, _) in zip(blocks, batches, strict=True)
            if batch.get("state") in ("running", "baking")
        ]
    lines = [line for block in blocks for line in block]
    if len(lines) <= room:
        return lines
    return [*lines[: max(room - 1, 0)], f"  ... {len(lines) - max(room - 1, 0)} more"] if room else []


def _block(batch: Raw, targets: Sequence[Raw], name_width: int) -> list[str]:
    done = sum(target.get("state") not in BUSY_STATES and target.get("state") != "pending" for target in targets)
    state = str(batch.get("state"))
    state = "watched" if state == "baking" else state
    first = f"  {pad(clean(str(batch.get('name'))), name_width)}  {state:9}  {done}/{len(targets)}"
    shown = [target for target in targets if target.get("state") in BUSY_STATES or target.get("state") == "failed"]
    inner = max((width(clean(str(target.get("instance")))) for target in shown), default=0)
    return [first, *(f"    {pad(clean(str(t.get('instance'))), inner)}  {_doing(t)}" for t in shown)]


def _doing(target: Raw) -> str:
    state = str(target.get("state"))
    words = target_words(target)
    if state == "failed":
        return f"failed: {words}" if words else "failed"
    return words or _STATE_WORDS.get(state, state)


class Changes:
    """Tells what is new since it was asked last, one line a change; times that run on are no change."""

    def __init__(self) -> None:
        self._told: dict[object, str] = {}

    def of(self, operation: Raw) -> list[str]:
        """The lines to print now."""
        lines = []
        by_batch = targets_by_batch(operation)
        for number, batch in enumerate(batches_of(operation)):
            targets = by_batch.get(number, [])
            lines += self._batch(batch, targets, alone=len(batches_of(operation)) == 1)
            if len(targets) <= _SPOKEN:
                lines += [line for target in targets for line in self._target(target)]
            else:
                lines += self._sum(batch, targets)
        state, waits = str(operation.get("state")), wait_words(operation)
        if any(
            str(t.get("instance")) in waits
            for targets in by_batch.values()
            for t in targets
            if t.get("state") in BUSY_STATES
        ):
            waits = ""  # that unit's own line tells more
        if state == "paused" or self._told.get("state") == "paused":
            lines += self._news("state", state, f"{operation.get('id')}: {state}")
        lines += self._news("waiting_for", _without_numbers(waits), waits)
        return lines

    def _batch(self, batch: Raw, targets: Sequence[Raw], *, alone: bool) -> list[str]:
        state, name = str(batch.get("state")), clean(str(batch.get("name")))
        if state == "pending" or alone:
            return []
        words = {"running": f"begins: {counted(len(targets), 'target')}", "baking": "is well so far, and watched"}
        return self._news(("batch", batch.get("number")), state, f"{name} {words.get(state, state)}")

    def _target(self, target: Raw) -> list[str]:
        state, instance = str(target.get("state")), clean(str(target.get("instance")))
        if state == "pending":
            return []
        words = _doing(target)
        if state == "succeeded":
            words = "done"  # what else there is to tell comes at the end
        elif state not in BUSY_STATES and state != "failed":
            words = f"{state}: {target_words(target)}".removesuffix(": ")
        return self._news(("target", instance), _without_numbers(words), f"{instance}: {words}")

    def _sum(self, batch: Raw, targets: Sequence[Raw]) -> list[str]:
        done = sum(target.get("state") not in BUSY_STATES and target.get("state") != "pending" for target in targets)
        failed = sum(target.get("state") == "failed" for target in targets)
        words = f"{done} of {len(targets)} done" + (f", {failed} failed" if failed else "")
        return (
            self._news(("sum", batch.get("number")), words, f"{clean(str(batch.get('name')))}: {words}") if done else []
        )

    def _news(self, key: object, value: str, line: str) -> list[str]:
        if self._told.get(key, "") == value:
            return []
        self._told[key] = value
        return [line] if line else []


def _without_numbers(words: str) -> str:
    return "".join(char for char in words if not (char.isdigit() or char == "."))
