"""What the tests of output share: a unit's end of a pipe, and waiting with a deadline."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from supervisor.core.model import LogFormat, LogSpec
from supervisor.host.output import OutputPump
from supervisor.host.sink import Stream


def until(true: Callable[[], object], seconds: float = 12.0, what: str = "it") -> None:
    """Wait until `true()` holds; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.005)


def content(path: Path) -> bytes:
    """What the file holds; nothing if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def numbered(name: str, first: int, count: int, width: int = 0) -> bytes:
    """Lines such as `name 17 xxxx`, `width` bytes long without the newline, at least."""
    rows = (f"{name} {number} ".encode() for number in range(first, first + count))
    return b"".join(row.ljust(width, b"x") + b"\n" for row in rows)


def whole_history(path: Path) -> bytes:
    """A log with its backups, oldest first."""
    last = 0
    while Path(f"{path}.{last + 1}").exists():
        last += 1
    return b"".join(content(Path(f"{path}.{number}")) for number in range(last, 0, -1)) + content(path)


class Unit:
    """The writing end of one stream of a pump."""

    def __init__(
        self, pump: OutputPump, target: Path | str, name: str = "u", stream: str = "stdout", *,
        generation: int = 1, shape: LogFormat = LogFormat.RAW, max_bytes: int = 0, backups: int = 3,
        resumed: bool = False,
    ) -> None:  # fmt: skip
        end, self.fd = os.pipe()
        log = LogSpec(max_bytes=max_bytes, backups=backups, format=shape)
        self.stream: Stream = pump.open(name, generation, stream, end, str(target), log, resumed=resumed)

    def say(self, data: bytes) -> None:
        """Write all of it, as a unit would: blocking."""
        view = memoryview(data)
        while len(view):
            view = view[os.write(self.fd, view) :]

    def say_in_thread(self, data: bytes, after: Callable[[], None] = lambda: None) -> threading.Thread:
        """Write all of it beside the test."""

        def run() -> None:
            self.say(data)
            after()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def end(self) -> None:
        """Close the writing end."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


def ended(thread: threading.Thread, seconds: float = 10.0) -> None:
    """The thread ends in time."""
    thread.join(seconds)
    assert not thread.is_alive(), f"the unit was still held up after {seconds} s"
