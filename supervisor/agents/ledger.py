"""The book of operations: in memory for whoever asks, in the journal for the daemon that comes after this one.

New and begun operations are written before anything is done for them. What only tells how far they have come is
written once per turn of the loop.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from ..host.clock import monotonic, wall
from ..host.journal import Journal
from ..wire import Command, Operation, Step, to_json

KEPT = 256  # finished operations that are kept whatever their age
KEPT_SECONDS = 600.0  # and those beyond, so long: who asked may still be waiting for the answer
REMEMBERED = 2000  # finished ones that somebody has named are kept, so that a command that comes again finds its answer


class Tracked:
    """An operation and what is needed to go on with it."""

    __slots__ = (
        "accepted_at", "after", "attempt", "begun", "command", "deadline", "finished_wall", "number", "operation",
        "registers", "request", "step_at",
    )  # fmt: skip

    def __init__(self, operation: Operation, command: Command, after: set[str], request: str) -> None:
        self.operation, self.command, self.after, self.request = operation, command, after, request
        self.number = int(operation.id.rpartition("-")[2])
        self.begun = False
        self.attempt = 0  # the unit's when it began
        self.registers = False  # done only when the registry has confirmed
        self.deadline: float | None = None  # unix time; not begun after it
        self.finished_wall: float | None = None
        self.accepted_at = self.step_at = monotonic()  # the command was, and the present step began

    @property
    def age_seconds(self) -> float:
        """Since it was accepted."""
        return monotonic() - self.accepted_at

    def to_json(self) -> str:
        """All of it, for the journal."""
        value = {
            "operation": to_json(self.operation), "parameters": self.command.parameters, "after": sorted(self.after),
            "request": self.request, "begun": self.begun, "attempt": self.attempt, "registers": self.registers,
            "deadline": self.deadline, "finished_wall": self.finished_wall,
        }  # fmt: skip
        return json.dumps(value, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Tracked:
        """What `to_json` has made. Raises ValueError, TypeError or KeyError for anything else."""
        value: dict[str, Any] = json.loads(text)
        plain = dict(value["operation"])
        plain["steps"] = [Step(**step) for step in plain["steps"]]
        operation = Operation(**plain)
        command = Command(
            operation.command_id, operation.deadline, operation.reason, operation.issued_by, value["parameters"]
        )
        tracked = cls(operation, command, set(value["after"]), value["request"])
        tracked.begun, tracked.attempt, tracked.registers = value["begun"], value["attempt"], value["registers"]
        tracked.deadline, tracked.finished_wall = value["deadline"], value["finished_wall"]
        tracked.accepted_at -= _age_of(operation.created)
        tracked.step_at -= _age_of(operation.steps[-1].started if operation.steps else None)
        return tracked


class Ledger:
    """All operations that are known. Without a journal they are kept in memory alone."""

    def __init__(self, journal: Journal | None, state_id: str) -> None:
        self._journal, self._prefix = journal, f"op-{state_id[:6]}-"
        self._all: dict[str, Tracked] = {}
        self._open: dict[str, list[Tracked]] = {}  # unit -> its unfinished ones
        self._by_command: dict[str, list[str]] = {}  # command id -> operation ids
        self._touched: dict[str, Tracked] = {}
        self._save_planned = False
        self._numbers = itertools.count(1)

    def load(self) -> list[Tracked]:
        """Take in what an earlier daemon has written; answers what it left open, oldest first.

        What is open is the unit's only from its `reopen` on: until then nothing that happens to the unit is its work.
        """
        last = 0
        for number, text in self._journal.operations() if self._journal else ():
            last = number
            try:
                tracked = Tracked.from_json(text)
            except (ValueError, TypeError, KeyError):
                continue  # of another version: nobody can go on with it, and nobody has its answer
            self._keep(tracked)
        self._numbers = itertools.count(last + 1)
        return [tracked for tracked in self._all.values() if not tracked.operation.done]

    def next_id(self) -> str:
        """For a new operation."""
        return f"{self._prefix}{next(self._numbers)}"

    def add(self, tracked: Tracked) -> None:
        """One more, open; written with the next `save`."""
        self._keep(tracked)
        self.reopen(tracked)
        self.touch(tracked)

    def reopen(self, tracked: Tracked) -> None:
        """It goes on."""
        self._open.setdefault(tracked.operation.unit, []).append(tracked)

    def _keep(self, tracked: Tracked) -> None:
        operation = tracked.operation
        self._all[operation.id] = tracked
        self._by_command.setdefault(operation.command_id, []).append(operation.id)

    def close(self, tracked: Tracked) -> None:
        """It has ended."""
        unit = tracked.operation.unit
        tracked.finished_wall = wall()
        remaining = [item for item in self._open.get(unit, ()) if item is not tracked]
        if remaining:
            self._open[unit] = remaining
        else:
            self._open.pop(unit, None)
        self.touch(tracked)

    def touch(self, tracked: Tracked, *, now: bool = False) -> None:
        """It has changed: to be written in this turn of the loop, or `now`."""
        self._touched[tracked.operation.id] = tracked
        if now:
            self.save()
        elif not self._save_planned and self._journal is not None:
            self._save_planned = True
            asyncio.get_running_loop().call_soon(self.save)

    def save(self) -> None:
        """Write what has changed."""
        self._save_planned = False
        touched, self._touched = self._touched, {}
        if self._journal is not None and touched:
            rows = [(item.number, id_, item.to_json(), item.finished_wall) for id_, item in touched.items()]
            self._journal.record_operations(rows)

    # Asking.

    def tracked(self, id_: str) -> Tracked | None:
        """The one with that id."""
        return self._all.get(id_)

    def open_of(self, unit: str) -> tuple[Tracked, ...]:
        """The unit's unfinished ones, oldest first."""
        return tuple(self._open.get(unit, ()))

    @property
    def open_count(self) -> int:
        """How many have not ended."""
        return sum(len(items) for items in self._open.values())

    def all_open(self) -> Iterator[Tracked]:
        """Those that have not ended."""
        return itertools.chain.from_iterable(self._open.values())

    def of_command(self, command_id: str | None) -> list[Operation] | None:
        """What a command has made; None: it is unknown."""
        ids = self._by_command.get(command_id or "")
        return None if ids is None else [self._all[id_].operation for id_ in ids]

    def request_of(self, command_id: str) -> str:
        """What was asked under that id; "" if it is unknown."""
        ids = self._by_command.get(command_id)
        return self._all[ids[0]].request if ids else ""

    def latest(self, count: int) -> list[Tracked]:
        """The newest ones, newest last."""
        return list(self._all.values())[-count:]

    # Forgetting.

    def prune(self) -> None:
        """Forget what nobody will ask for any more."""
        surplus = len(self._all) - KEPT
        if surplus <= 0:
            return
        old = [tracked for tracked in itertools.islice(self._all.values(), surplus) if _is_old(tracked)]
        # What a person or program has named may be named again much later; what we made ourselves is not.
        named = [tracked for tracked in old if tracked.request]
        gone = [tracked for tracked in old if not tracked.request] + named[: max(0, len(named) - REMEMBERED)]
        for tracked in gone:
            self._forget(tracked)
        if self._journal is not None and gone:
            self._journal.forget_operations([tracked.number for tracked in gone])

    def _forget(self, tracked: Tracked) -> None:
        operation = tracked.operation
        del self._all[operation.id]
        self._touched.pop(operation.id, None)
        ids = self._by_command.get(operation.command_id, [])
        if operation.id in ids:
            ids.remove(operation.id)
        if not ids:
            self._by_command.pop(operation.command_id, None)

    def __iter__(self) -> Iterator[Tracked]:
        return iter(self._all.values())


def _age_of(moment: str | None) -> float:
    """Seconds since a moment in ISO 8601; 0 if there is none."""
    try:
        return max(0.0, wall() - datetime.fromisoformat(moment or "").timestamp())
    except ValueError:
        return 0.0


def _is_old(tracked: Tracked) -> bool:
    return tracked.finished_wall is not None and wall() - tracked.finished_wall > KEPT_SECONDS
