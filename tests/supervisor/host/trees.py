"""Units' processes for tests: real ones, with what they post, and an end for all of them."""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from supervisor.core.events import Event, Exited, Spawned, TreeEmpty
from supervisor.core.model import UnitSpec
from supervisor.host import tree
from supervisor.host.process import Processes
from supervisor.host.setup import become_subreaper, default_signals
from tests.supervisor.running import until

PYTHON = (sys.executable, "-I", "-c")


class Sink:
    """Where units write to: /dev/null, or a file that tests read."""

    def __init__(self) -> None:
        self.path: str | None = None

    def open(self, spec: UnitSpec, attempt: int) -> tuple[int | None, int | None]:
        if self.path is None:
            return None, None
        writing = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        return writing, writing


class Host:
    """Processes, and what they posted."""

    def __init__(self, base: Path | None, nofile: int | None = None) -> None:
        self.posted = list[tuple[str, Event]]()
        self.journal = list[list[tuple[str, int]]]()
        self.sink = Sink()
        self.on_post: Callable[[str, Event], None] = lambda unit, event: None
        self.pids = set[int]()
        self.processes = Processes(
            self._post, self.sink, base_cgroup=base, environment={"PATH": os.environ["PATH"]}, nofile=nofile,
            before_spawn=lambda batch: self.journal.append(list(batch)),
        )  # fmt: skip

    def _post(self, unit: str, event: Event) -> None:
        self.posted.append((unit, event))
        if isinstance(event, Spawned):
            self.pids.add(event.pid)
        self.on_post(unit, event)

    def events(self, unit: str = "web", kind: type[Event] = Event) -> list[Any]:
        return [event for name, event in self.posted if name == unit and isinstance(event, kind)]

    async def spawned(self, spec: UnitSpec, attempt: int = 1) -> int:
        """Its pid, once exec has succeeded."""
        self.processes.spawn(spec, attempt)
        await until(lambda: [event for event in self.events(spec.name) if event.attempt == attempt], "an answer")
        event = next(event for event in self.events(spec.name) if event.attempt == attempt)
        assert isinstance(event, Spawned), event
        return event.pid

    async def exited(self, unit: str = "web", attempt: int = 1) -> Exited:
        def found() -> list[Exited]:
            return [event for event in self.events(unit, Exited) if event.attempt == attempt]

        await until(found, f"{unit} exits")
        assert len(found()) == 1
        return found()[0]

    async def emptied(self, unit: str = "web") -> TreeEmpty:
        await until(lambda: self.events(unit, TreeEmpty), f"nothing of {unit} is left")
        empty: TreeEmpty = self.events(unit, TreeEmpty)[0]
        return empty

    def has_emptied(self, times: int, unit: str = "web") -> bool:
        return len(self.events(unit, TreeEmpty)) == times

    async def ended(self, unit: str = "web") -> None:
        """Its tree is empty, said by either word."""
        if (await self.exited(unit)).leftovers:
            await self.emptied(unit)


@asynccontextmanager
async def hosting(base: Path | None = None, nofile: int | None = None) -> AsyncIterator[Host]:
    """A host whose processes are all ended, and everything of this process as before, when it is left."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    default_signals()
    become_subreaper()
    host = Host(base, nofile)
    try:
        yield host
    finally:
        host.processes.close()
        _end_children()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)


def _end_children() -> None:
    """Kill what is below us, wherever it went: as a subreaper we get what its parents leave."""
    while pids := tree.descendants(os.getpid()):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(-1, 0)


def unit(*argv: str, **more: Any) -> UnitSpec:
    return replace(UnitSpec("web", "web", 0, argv or ("sleep", "1000")), **more)


def python(code: str, **more: Any) -> UnitSpec:
    return unit(*PYTHON, code, **more)


def shell(script: str, **more: Any) -> UnitSpec:
    return unit("/bin/sh", "-c", script, **more)


def quoted(argv: Sequence[str]) -> str:
    return shlex.join(argv)


def lives(pid: int) -> bool:
    """It exists and is no zombie."""
    place = tree.stat(pid)
    return place is not None and place.state not in "ZX"


async def pids_in(path: Path, count: int = 1) -> list[int]:
    """Numbers that units wrote into a file, a line each."""

    def read() -> list[int]:
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [int(line) for line in lines if line.endswith("\n")]

    await until(lambda: len(read()) >= count, f"{count} pids in {path}")
    return read()


def cgroup_mount() -> Path | None:
    """Where this machine lets us make cgroups v2, or None."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[fields.index("-") + 1] == "cgroup2" and os.access(fields[4], os.W_OK):
            return Path(fields[4])
    return None


@contextmanager
def cgroup_base() -> Iterator[Path | None]:
    """A cgroup for a test's units, removed afterwards; None where there can be none."""
    mount = cgroup_mount()
    if mount is None:
        yield None
        return
    try:
        base = Path(tempfile.mkdtemp(prefix="test-of-unitd-", dir=mount))
    except OSError:
        yield None
        return
    try:
        yield base
    finally:
        with suppress(OSError):
            (base / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + 5
        while base.exists() and time.monotonic() < deadline:  # the killed need a moment to be gone
            remove(base)
            time.sleep(0.01)


def remove(base: Path) -> None:
    for folder, _, _ in os.walk(base, topdown=False):
        with suppress(OSError):
            os.rmdir(folder)
