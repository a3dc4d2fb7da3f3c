"""nginx's processes, as /proc shows them: the master, its workers, and who still has an older configuration.

After a reload the master starts new workers, and asks the old ones a moment later to end; from then on `worker process
is shutting down` stands in their command line. They take no connection any more and close those that are idle, but a
request that they were just being sent, or another of an HTTP/2 connection with requests in flight, is still passed on
by the configuration that they have. Nothing tells when they have read the last one: each counts until it has ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import IO

from ..errors import GatewayRefused, GatewayUnreachable
from ..model import Key

POLL_SECONDS = 0.02
_MASTER = "nginx: master process"
_WORKER = "nginx: worker process"
_ENDING = "nginx: worker process is shutting down"
_OLD_MASTER = ".oldbin"  # of nginx's upgrade on the fly: the master before has its pid in a file so called
_WORDS = 1000  # bytes of what a program prints that an error quotes


@dataclass(frozen=True, slots=True)
class Process:
    """One life of a pid."""

    pid: int
    started: int  # in ticks since the machine's start


Known = Mapping[str, frozenset[Key]]  # service -> to whom a worker sends its requests


def master(pid_file: str) -> Process | None:
    """The master whose pid stands there; None: it does not run (or `nginx -t` has just made the file)."""
    try:
        with open(pid_file) as file:
            pid = int(file.read(32))
    except (OSError, ValueError):
        return None
    return _process(pid) if _title(pid).startswith(_MASTER) else None


def workers(of: Process) -> frozenset[Process]:
    """All workers of a master, also those that are about to end."""
    try:
        with open(f"/proc/{of.pid}/task/{of.pid}/children") as file:
            pids = [int(pid) for pid in file.read().split()]
    except OSError:
        pids = _children(of.pid)
    found = (_process(pid) for pid in pids if _title(pid).startswith(_WORKER))
    return frozenset(process for process in found if process is not None)


def ending(process: Process) -> bool:
    """A worker that was told to end, or has ended."""
    return not lives(process) or _title(process.pid).startswith(_ENDING)


def lives(process: Process) -> bool:
    """It has not ended."""
    return _process(process.pid) == process


def _children(pid: int) -> list[int]:
    """For a kernel without /proc/PID/task/TID/children."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _stat(int(name))[1:2] == [str(pid)]]


def _process(pid: int) -> Process | None:
    stat = _stat(pid)
    return Process(pid, int(stat[19])) if stat and stat[0] not in "ZX" else None


def _stat(pid: int) -> list[str]:
    """The fields from the state on; [] when there is no such process (proc_pid_stat(5))."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(") ")[2].split()
    except OSError:
        return []


def _title(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read(200).decode(errors="replace")
    except OSError:
        return ""


@dataclass(slots=True)
class Ages:
    """Which workers have which older configuration, and for how long that counts."""

    old_seconds: float
    _old: list[tuple[frozenset[Process], Known]] = field(default_factory=list)
    _ending_since: dict[Process, float] = field(default_factory=dict)

    def add(self, of: frozenset[Process], known: Known) -> None:
        """These workers are being replaced; `known` is what they have been told."""
        self._old.append((of, known))

    def known(self) -> list[Known]:
        """What the workers know that have been replaced and may still pass on requests."""
        now = monotonic()
        self._old = [(left, known) for of, known in self._old if (left := self._left(of, now))]
        living = {process for of, _ in self._old for process in of}
        self._ending_since = {each: since for each, since in self._ending_since.items() if each in living}
        return [known for _, known in self._old]

    def _left(self, of: frozenset[Process], now: float) -> frozenset[Process]:
        return frozenset(process for process in of if lives(process) and not self._long_over(process, now))

    def _long_over(self, process: Process, now: float) -> bool:
        """It was told to end so long ago that it can only be busy with long answers."""
        if not ending(process):
            return False
        return now - self._ending_since.setdefault(process, now) > self.old_seconds


async def run(command: Sequence[str], within_seconds: float) -> tuple[int, str]:
    """Exit code and end of what it printed. Raises GatewayRefused: cannot be run; GatewayUnreachable: takes too long.

    The output goes to a file, not to a pipe: one that leaves a process behind would keep the pipe open.
    """
    shown = " ".join(command)
    with tempfile.TemporaryFile() as output:
        code = await _exit_code(command, shown, output, within_seconds)
        output.seek(max(0, output.seek(0, os.SEEK_END) - _WORDS))
        return code, output.read().decode(errors="replace").strip()


async def _exit_code(command: Sequence[str], shown: str, output: IO[bytes], within_seconds: float) -> int:
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
        )
    except OSError as error:
        raise GatewayRefused(f"cannot run {shown}: {error.strerror}") from error
    try:
        async with asyncio.timeout(within_seconds):
            return await process.wait()
    except TimeoutError:
        raise GatewayUnreachable(f"cannot run {shown}: it takes longer than {within_seconds:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def reload(of: Process, command: Sequence[str], within_seconds: float) -> bool:
    """Have the master read its configuration; True when all workers have it, or are told to end.

    False: it has not in time. Raises GatewayUnreachable when it cannot be told.
    """
    before = workers(of)
    if command:
        code, said = await run(command, within_seconds)
        if code != 0:
            raise GatewayUnreachable(f"cannot reload nginx: {' '.join(command)} ended with {code}: {said}")
    else:
        _signal(of)
    deadline = monotonic() + within_seconds
    while not _renewed(of, before):
        if monotonic() > deadline or not lives(of):
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


def _signal(of: Process) -> None:
    try:
        os.kill(of.pid, signal.SIGHUP)
    except ProcessLookupError as error:
        raise GatewayUnreachable(f"cannot reload nginx: its master, pid {of.pid}, has just ended") from error
    except PermissionError as error:
        raise GatewayRefused(f"cannot reload nginx: its master, pid {of.pid}, is another user's") from error


def _renewed(of: Process, before: frozenset[Process]) -> bool:
    """There are workers that are new, and none of the others takes connections."""
    now = workers(of)
    return bool(now - before) and all(ending(process) for process in before)


def all_workers(of: Process, pid_file: str) -> frozenset[Process]:
    """Also those of the master before, while nginx is being upgraded on the fly: they keep what they have."""
    old = master(pid_file + _OLD_MASTER)
    return workers(of) | (workers(old) if old is not None else frozenset())
