"""The exit codes, and the way to end with one."""

from __future__ import annotations

from ..errors import SupervisorError

DONE = 0
FAILED = 1
USAGE = 2  # also a wrong configuration
NOT_RUNNING = 3  # status, is-active
UNKNOWN = 4  # unknown unit, no permission; status and is-active: daemon unreachable
UNAVAILABLE = 69  # daemon unreachable
STILL_GOING = 75  # timed out while the operation goes on
INTERRUPTED = 130  # Ctrl-C


class ExitWith(SupervisorError):
    """The command ends here, with this exit code and the message on stderr."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)
