"""Commands that the daemon runs for a unit: exec probes and exec hooks.

A command runs as the unit would, in a session of its own, and is no part of the unit's tree: it bears the mark
UNITD_COMMAND (see `tree.py`). It ends when its process ends; what is left of its process group then is killed. What
it has put into another session on purpose is nobody's, unless it is still below the command when that is killed.

Exits come by pidfd through the loop. `Processes` must be told to leave the pids alone, for it reaps every child that it
does not know.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from errno import EAGAIN, EBUSY, ECHILD, EINVAL

from ..core.model import UnitSpec
from ..errors import SpawnError
from ..plugin_api import CommandResult
from . import spawn, tree

COMMANDS = 64  # at once, on the whole host
DYING = 4  # of one unit: killed, and not ended yet (they hang in the kernel); then no other is started
OUTPUT_BYTES = 4096  # kept of what a command says
PIPE_BYTES = 64 * 1024


class Commands:
    """All commands that run on the host."""

    def __init__(
        self, own: set[int], *, environment: Mapping[str, str], nofile: int | None = None, state_id: str = ""
    ) -> None:
        """`own` gets the pids of commands for as long as they are children to be reaped here; the rest is as for
        `Processes`."""
        self._own, self._environment, self._nofile, self._state_id = own, dict(environment), nofile, state_id
        self._devnull = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._slots = asyncio.Semaphore(COMMANDS)
        self._running: dict[_Running, str] = {}  # to the unit's name

    async def run(
        self,
        spec: UnitSpec,
        attempt: int,
        argv: Sequence[str],
        timeout_seconds: float,
        extra_environment: Iterable[tuple[str, str]] = (),
    ) -> CommandResult:
        """Run a command as the unit's user, in its directory and environment, until it ends or is late.

        Late or cancelled, it is killed with all it started. Raises OSError when it cannot be started; `strerror` says
        why.
        """
        running: _Running | None = None
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._wait_for_the_dying(spec.name)
                async with self._slots:
                    running = self._start(spec, attempt, argv, dict(extra_environment))
                    await running.ended.wait()
        except TimeoutError:
            if running is None:
                raise self._not_started(spec.name) from None
            return running.result or CommandResult(None, None, running.output)
        finally:
            if running is not None:
                running.kill()
        if running.result is None:
            raise OSError(ECHILD, "somebody else has taken its exit status")
        return running.result

    def close(self) -> None:
        """Kill what still runs, and wait for nothing."""
        for running in list(self._running):
            running.kill()
            running.close()
        self._running.clear()
        os.close(self._devnull)

    async def _wait_for_the_dying(self, unit: str) -> None:
        while len(dying := self._dying(unit)) >= DYING:
            await dying[0].ended.wait()

    def _dying(self, unit: str) -> list[_Running]:
        return [running for running, name in self._running.items() if name == unit and running.killed]

    def _not_started(self, unit: str) -> OSError:
        dying = self._dying(unit)
        if len(dying) >= DYING:
            pids = ", ".join(str(running.pid) for running in dying)
            return OSError(EBUSY, f"earlier commands of the unit were killed and have not ended: {pids}")
        return OSError(EAGAIN, f"{COMMANDS} other commands were running all the time")

    def _start(self, spec: UnitSpec, attempt: int, argv: Sequence[str], more: dict[str, str]) -> _Running:
        if not argv:
            raise OSError(EINVAL, "the command is empty")
        marks = {"UNITD_STATE": self._state_id, "UNITD_COMMAND": "1"}
        extra = more | {key: value for key, value in marks.items() if value}
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            streams = spawn.Streams(self._devnull, writing, writing)
            wanted = replace(spec, argv=tuple(argv))
            pid = spawn.start(wanted, attempt, streams, self._environment, self._nofile, extra)
            running = self._watch(pid, reading)
        except SpawnError as error:
            os.close(reading)
            raise OSError(error.errno or EINVAL, str(error)) from error
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._running[running] = spec.name
        return running

    def _watch(self, pid: int, reading: int) -> _Running:
        """A command that cannot be watched must not live. Raises OSError."""
        self._own.add(pid)
        try:
            return _Running(pid, reading, self._on_end)
        except OSError:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._own.discard(pid)
            raise

    def _on_end(self, running: _Running) -> None:
        self._own.discard(running.pid)
        self._running.pop(running, None)


class _Running:
    """One command from its start until it was reaped."""

    __slots__ = ("_loop", "_on_end", "_pidfd", "_reading", "ended", "killed", "output", "pid", "result")

    def __init__(self, pid: int, reading: int, on_end: Callable[[_Running], None]) -> None:
        """Owns `reading`, the end of its pipe, once this has succeeded. Raises OSError."""
        self._loop = asyncio.get_running_loop()
        self.pid, self._reading, self._on_end = pid, reading, on_end
        self.ended, self.killed = asyncio.Event(), False
        self.output = b""
        self.result: CommandResult | None = None  # None after its end: the status was lost
        os.set_blocking(reading, False)
        self._pidfd = os.pidfd_open(pid)
        try:
            self._loop.add_reader(self._pidfd, self._reap)
            self._loop.add_reader(reading, self._read)
        except BaseException:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            raise

    def _read(self) -> bool:
        """Take what is in the pipe; False: nothing more comes now."""
        try:
            chunk = os.read(self._reading, PIPE_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self._loop.remove_reader(self._reading)
            return False
        self.output = (self.output + chunk)[-OUTPUT_BYTES:]
        return True

    def _reap(self) -> None:
        for _ in range(3):  # somebody who has escaped may write for ever; a pipe is emptied by one or two reads
            if not self._read():
                break
        # Until the leader is reaped nobody else's group can have its number.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.result = self._status()
        self.close()
        self._on_end(self)
        self.ended.set()

    def _status(self) -> CommandResult | None:
        try:
            status = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return None
        if status is None:
            return None
        if status.si_code == os.CLD_EXITED:
            return CommandResult(status.si_status, None, self.output)
        return CommandResult(None, status.si_status, self.output)

    def kill(self) -> None:
        """End it with all it has started, if it has not ended; its end is awaited by the loop alone."""
        if self.ended.is_set() or self.killed:
            return
        self.killed = True
        outside = []
        for pid in tree.descendants(self.pid):
            with suppress(OSError):
                outside.append(os.pidfd_open(pid))
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for pidfd in outside:
            with suppress(OSError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)

    def close(self) -> None:
        """Let go of its descriptors."""
        for descriptor in (self._pidfd, self._reading):
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
