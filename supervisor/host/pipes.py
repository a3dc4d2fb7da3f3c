"""The pipes between a unit's process and the output pump."""

from __future__ import annotations

import os

from ..core.model import UnitSpec
from .output import OutputPump


class Pipes:
    """Makes the pipes of each attempt; what a unit throws away gets none."""

    def __init__(self, pump: OutputPump) -> None:
        self._pump = pump

    def open(self, spec: UnitSpec, attempt: int) -> tuple[int | None, int | None]:
        """The writing ends for stdout and stderr (None: /dev/null), to be closed by the caller. Raises OSError."""
        logs = spec.logs
        stdout = self._pipe(spec, attempt, "stdout", logs.stdout)
        if logs.redirect_stderr:
            return stdout, stdout
        try:
            return stdout, self._pipe(spec, attempt, "stderr", logs.stderr)
        except OSError:
            if stdout is not None:
                os.close(stdout)
            raise

    def _pipe(self, spec: UnitSpec, attempt: int, stream: str, target: str | None) -> int | None:
        if target is None:
            return None
        reading, writing = os.pipe2(os.O_CLOEXEC)
        self._pump.open(spec.name, attempt, stream, reading, target, spec.logs)
        return writing
