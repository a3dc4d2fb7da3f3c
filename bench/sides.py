"""What the benches compare: a supervisor with units, started for one measurement and ended with all it has started.

A side is one of unitd (unitd_side.py) and supervisord (neighbour.py). Knows nothing of what is measured.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

CACHE = Path(__file__).parent / ".cache"
READY_SECONDS = 240.0
END_SECONDS = 120.0
IDLE_COMMAND = "sleep 100000"


@dataclass(frozen=True, slots=True)
class Units:
    """What a side has to run: `idle` units that sleep, and single ones by name with their command."""

    idle: int = 0
    single: tuple[tuple[str, str], ...] = ()
    idle_starts: bool = True  # start the idle ones with the daemon

    @property
    def wanted(self) -> int:
        """How many run once the daemon has started."""
        return len(self.single) + (self.idle if self.idle_starts else 0)


class Side(ABC):
    """A running supervisor, to be used in `with`: it is left with all wanted units running."""

    name = ""

    def __init__(self, units: Units) -> None:
        self.units = units
        self._folder = tempfile.TemporaryDirectory(prefix="unitd-bench-")
        self.folder = Path(self._folder.name)
        self._daemon: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The daemon's process."""
        assert self._daemon is not None
        return self._daemon.pid

    @abstractmethod
    def configure(self) -> list[str]:
        """Write the configuration into the folder; returns the command that starts the daemon in the foreground."""

    @abstractmethod
    def ctl(self, *words: str) -> list[str]:
        """The command of this side's command line for the supervisorctl words."""

    @abstractmethod
    def unit(self, number: int) -> str:
        """The name of an idle unit."""

    @abstractmethod
    def count_running(self) -> int | None:
        """How many units run; None while the daemon does not answer."""

    def run_ctl(self, *words: str) -> float:
        """Run the command line; returns its wall time in seconds. Raises RuntimeError when it fails."""
        started = time.monotonic()
        done = subprocess.run(self.ctl(*words), capture_output=True, text=True, check=False)
        passed = time.monotonic() - started
        if done.returncode:
            raise RuntimeError(
                f"{' '.join(self.ctl(*words))}: {done.returncode}: {(done.stdout + done.stderr)[-2000:]}"
            )
        return passed

    def __enter__(self) -> Side:
        with (self.folder / "daemon.log").open("wb") as log:
            self._daemon = subprocess.Popen(
                self.configure(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self.wait_running(self.units.wanted)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._daemon is not None
        left = descendants(self._daemon.pid)
        self._daemon.terminate()
        try:
            self._daemon.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()
        for process in left:
            process.kill()
        self._folder.cleanup()

    def wait_running(self, count: int) -> None:
        """Wait until so many units run."""
        deadline = time.monotonic() + READY_SECONDS
        running: int | None = None
        while time.monotonic() < deadline:
            assert self._daemon is not None
            if self._daemon.poll() is not None:
                break
            running = self.count_running()
            if running == count:
                return
            time.sleep(0.2)
        log = (self.folder / "daemon.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{self.name} has {running} units running, {count} are wanted; its log ends:\n{log}")


@dataclass(frozen=True, slots=True)
class Process:
    """A process that cannot be mistaken for a later one with its number."""

    pid: int
    start_ticks: str

    def kill(self) -> None:
        """SIGKILL, if it is still there."""
        with contextlib.suppress(OSError):
            if _stat(self.pid)[1] == self.start_ticks:
                os.kill(self.pid, signal.SIGKILL)


def descendants(pid: int) -> list[Process]:
    """All processes below one."""
    children: dict[int, list[Process]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                parent, ticks = _stat(int(entry))
                children.setdefault(parent, []).append(Process(int(entry), ticks))
    found: list[Process] = []
    parents = [pid]
    while parents:
        below = children.pop(parents.pop(), [])
        found += below
        parents += [process.pid for process in below]
    return found


def _stat(pid: int) -> tuple[int, str]:
    """Parent and start time (proc(5)): the 4th and 22nd field, counted after the name, which may hold anything."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1]), fields[19]
