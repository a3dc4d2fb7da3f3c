"""The progress on standard error: one line rewritten in place on a terminal, else a line whenever a step begins."""

from __future__ import annotations

from collections.abc import Sequence

from ..wire import Operation
from .render_operations import MANY, Told, new_steps, progress_line
from .terminal import Terminal
from .words import counted


class Progress:
    """Shows how far operations are; `clear` takes the rewritten line away again."""

    def __init__(self, terminal: Terminal, *, quiet: bool) -> None:
        self._terminal, self._quiet = terminal, quiet
        self._width = 0 if quiet else terminal.width
        self._written = ""
        self._told: dict[str, set[Told]] = {}  # operation id -> what of its steps was told
        self._sums: set[object] = set()  # the states that `state` has told
        self._done_before = 0

    def show(self, operations: Sequence[Operation]) -> None:
        """What goes on now."""
        if self._width:
            self.say(progress_line(operations))
        elif len(operations) > MANY:
            self._sum_up(operations)
        else:
            for operation in operations:
                self._tell_steps(operation)

    def _tell_steps(self, operation: Operation) -> None:
        if not operation.done:
            told = self._told.setdefault(operation.id, set())
            for key, line in new_steps(operation, told).items():
                told.add(key)
                self.say(line)

    def state(self, key: object, line: str) -> None:
        """Where it all is. A line that only tells more of the state `key` is shown where lines are rewritten."""
        if self._width or key not in self._sums:
            self._sums.add(key)
            self.say(line)

    def say(self, line: str) -> None:
        """Something else that goes on."""
        if self._quiet or line == self._written:
            return
        self._written = line
        if self._width:
            self._terminal.raw_err(f"\r{line[: self._width - 1]}\x1b[K")
        else:
            self._terminal.err(line)

    def clear(self) -> None:
        """Make room for results."""
        if self._width and self._written:
            self._terminal.raw_err("\r\x1b[K")
        self._written = ""

    def _sum_up(self, operations: Sequence[Operation]) -> None:
        done = sum(operation.done for operation in operations)
        if done == len(operations):
            return
        if done > self._done_before:
            self.say(f"{done} of {len(operations)} done")
        elif not self._written:
            self.say(f"{counted(len(operations), 'unit')} to go; {progress_line(operations)}")
        self._done_before = done
