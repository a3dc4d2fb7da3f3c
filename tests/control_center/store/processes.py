"""Centers as processes of their own, which tests kill and freeze."""

from __future__ import annotations

import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[3]
PATIENCE_SECONDS = 15.0


class CenterProcess:
    """One that runs `a_center.py`."""

    def __init__(self, url: str, password: str | None, name: str, task: str) -> None:
        command = [sys.executable, "-m", "tests.control_center.store.a_center", url, name, task]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, bufsize=0)
        assert self._process.stdin is not None
        self._process.stdin.write(f"{password or ''}\n".encode())
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        self._buffer = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def _stdout(self):  # type: ignore[no-untyped-def]
        assert self._process.stdout is not None
        return self._process.stdout

    def line(self, seconds: float = PATIENCE_SECONDS) -> str:
        """The next line that it prints; "" when it has ended."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            if not self._selector.select(deadline - time.monotonic()):
                raise TimeoutError("it says nothing")
            data = self._stdout.read(4096)
            if not data:
                return ""
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait for its end; what it has printed can still be read."""
        self._process.kill()
        self._process.wait(10)

    def end(self) -> None:
        self.kill()
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
