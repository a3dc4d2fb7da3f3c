"""Waiting for a fleet operation, with progress; over restarts of the control center as well."""

from __future__ import annotations

import math
import os
import time
from datetime import UTC, datetime
from typing import Any

from ..errors import WireError
from .codes import DONE, FAILED, INTERRUPTED, STILL_GOING, ExitWith
from .fleet_center import Center, CenterUnreachable, path_of
from .fleet_live import Changes, picture
from .fleet_render_operations import failure_lines, is_done, outcome_line, remark_lines
from .fleet_session import Fleet
from .terminal import Terminal

Raw = dict[str, Any]

_REDRAW_SECONDS = 2.0  # on a terminal, where ages are shown
_QUIET_SECONDS = 25.0
_CALM_SECONDS = 0.25  # between two looks at least; an operation may change more often
_PER_TARGET_SECONDS = 0.001  # added to that: thousands of targets are a large answer
_RETRY_SECONDS = 0.5


class Display:
    """Shows how far an operation is, on standard error: redrawn in place on a terminal, else a line for each change."""

    def __init__(self, terminal: Terminal, *, quiet: bool) -> None:
        self._terminal, self._quiet = terminal, quiet
        self.is_live = bool(terminal.width) and not quiet
        self._changes = Changes()
        self._drawn = 0

    def show(self, operation: Raw) -> None:
        """How it is now."""
        if self.is_live:
            lines = picture(operation, datetime.now(UTC), self._terminal.width - 1, _height() - 1)
            back = f"\x1b[{self._drawn}A\r" if self._drawn else ""
            self._terminal.raw_err(back + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
            self._drawn = len(lines)
        else:
            for line in self._changes.of(operation):
                self.say(line)

    def say(self, line: str) -> None:
        """Something else; it stays."""
        if not self._quiet:
            self.clear()
            self._terminal.err(line)

    def clear(self) -> None:
        """Take the picture away."""
        if self._drawn:
            self._terminal.raw_err(f"\x1b[{self._drawn}A\r\x1b[J")
            self._drawn = 0


def _height() -> int:
    try:
        return max(os.get_terminal_size(2).lines, 2)
    except OSError:
        return 24


class Waiting:
    """Waits until an operation is done."""

    def __init__(self, fleet: Fleet, center: Center, operation: Raw) -> None:
        self._fleet, self._center, self._operation = fleet, center, operation
        self._display = Display(fleet.session.terminal, quiet=fleet.session.quiet)
        timeout = fleet.session.timeout
        self._deadline = math.inf if timeout is None else time.monotonic() + timeout
        self._is_away = False
        self._has_waited = not is_done(operation)

    def run(self) -> Raw:
        """The operation as it ended.

        Raises ExitWith when `--timeout` is over and on Ctrl-C; a control center that is away is waited for until then.
        """
        try:
            while not is_done(self._operation):
                self._display.show(self._operation)
                self._look()
            if self._has_waited:
                self._display.show(self._operation)
            return self._operation
        except KeyboardInterrupt:
            raise ExitWith(INTERRUPTED, f"no longer waiting: {self._going_on()}") from None
        finally:
            self._display.clear()

    def _look(self) -> None:
        """Wait for news, but not too long; and not too short where there is much of it."""
        begun = time.monotonic()
        try:
            wait = _REDRAW_SECONDS if self._display.is_live else _QUIET_SECONDS
            self._take(self._ask(0.0 if self._is_away else min(self._left(), wait)))
        except CenterUnreachable as error:
            self._bear(error)
        calm = _CALM_SECONDS + _PER_TARGET_SECONDS * len(self._operation.get("targets") or ())
        time.sleep(
            max(min(begun + calm - time.monotonic(), self._left()), 0.0) if not is_done(self._operation) else 0.0
        )

    def _ask(self, wait_seconds: float) -> Any:
        query = {"version": self._operation.get("version") or 0}
        return self._center.get(path_of("operations", str(self._operation["id"])), query, wait_seconds=wait_seconds)

    def _take(self, answer: Any) -> None:
        self._operation = as_operation(answer)
        if self._is_away:
            self._is_away = False
            self._display.say("the control center answers again")

    def _bear(self, error: CenterUnreachable) -> None:
        if not error.may_pass:
            raise error
        if not self._is_away:
            self._is_away = True
            self._display.say(
                f"the control center does not answer ({error.reason}): trying again; nodes go on meanwhile"
            )
        time.sleep(min(_RETRY_SECONDS, self._left()))

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            away = ", and the control center does not answer" if self._is_away else ""
            raise ExitWith(STILL_GOING, f"not done within {self._fleet.session.timeout:g} s{away}: {self._going_on()}")
        return left

    def _going_on(self) -> str:
        id_ = self._operation["id"]
        return (
            f"operation {id_} goes on\n"
            f"    follow: {self._fleet.line(f'ops -f {id_}')}\n"
            f"    abort:  {self._fleet.line(f'abort {id_}')}"
        )


def as_operation(answer: Any) -> Raw:
    """An answer that is an operation. Raises WireError."""
    if (
        not isinstance(answer, dict)
        or not isinstance(answer.get("id"), str)
        or not isinstance(answer.get("state"), str)
    ):
        raise WireError("cannot read the control center's answer: it is no operation; do it and unitctl fit together?")
    return answer


def conclude(fleet: Fleet, center: Center, operation: Raw) -> int:
    """Wait for it and print how it ended; the exit code."""
    ended = Waiting(fleet, center, operation).run()
    if fleet.session.json:
        fleet.session.out_json(ended)
    return report(fleet, ended)


def report(fleet: Fleet, ended: Raw) -> int:
    """Print how it ended (not for JSON): success on stdout, failures on stderr; the exit code."""
    succeeded = ended.get("state") == "succeeded"
    if succeeded and not fleet.session.json:
        fleet.session.out(f"{outcome_line(ended)}\n")
    remarks = [] if fleet.session.quiet else remark_lines(ended)
    failures = failure_lines(ended) if not (succeeded and fleet.session.quiet) else []
    failures += [] if succeeded else [outcome_line(ended)]
    if remarks or failures:
        fleet.session.err("\n".join([*remarks, *failures]))
    return DONE if succeeded else FAILED
