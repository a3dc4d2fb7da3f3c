"""The ends of processes, by pidfd: all of them hang on one epoll, which hangs on the loop."""

from __future__ import annotations

import logging
import os
import select
import signal
from collections.abc import Iterable

from ..core.model import Exit
from .attempt import Process, group_of

log = logging.getLogger("unitd.process")


class Exits:
    """Which processes are watched, and of which attempt they are. `fileno` is readable when some have ended."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._by_pidfd: dict[int, Process] = {}

    @property
    def closed(self) -> bool:
        """Nothing is watched any more."""
        return self._epoll.closed

    def fileno(self) -> int:
        """For the loop's add_reader."""
        return self._epoll.fileno()

    def add(self, pidfd: int, process: Process) -> None:
        """Watch one process, which is of that attempt. Raises OSError."""
        self._epoll.register(pidfd, select.EPOLLIN)
        self._by_pidfd[pidfd] = process

    def take_over(
        self, process: Process, leader: int | None, known: Exit | None = None, ticks: int | None = None
    ) -> None:
        """Watch the leader of an attempt that an earlier daemon started, if it lives. Raises OSError."""
        process.take_over(leader, known, ticks)
        if process.leader_reaped:
            return
        try:
            self.add(process.pidfd, process)
        except OSError:
            os.close(process.pidfd)
            raise

    def watch(self, process: Process, pids: Iterable[int]) -> OSError | None:
        """Watch more processes of an attempt; those that have ended meanwhile are none of it.

        What is found of an attempt that was killed is killed. Answers why some could not be watched, though they live.
        """
        watched, trouble = set(process.escaped.values()), None
        for pid in pids:
            if pid in watched or (pid == process.pid and not process.leader_reaped):
                continue
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            except OSError as error:
                log.warning("%s: cannot watch process %d: %s", process.unit, pid, error)
                trouble = error
                continue
            self.add(pidfd, process)
            process.escaped[pidfd] = pid
            if process.killed:
                process.send(pidfd, signal.SIGKILL)
        return trouble

    def watch_outside(self, process: Process, pids: Iterable[int]) -> None:
        """Watch those that left the leader's group, and do not get what the group gets; without a leader, all."""
        self.watch(process, [pid for pid in pids if process.leader_reaped or group_of(pid) != process.pid])

    def ended(self) -> dict[int, Process]:
        """Those that have ended since the last call, by pidfd; their descriptors are the caller's to close now."""
        found: dict[int, Process] = {}
        for pidfd, _ in self._epoll.poll(0):
            self._epoll.unregister(pidfd)
            found[pidfd] = self._by_pidfd.pop(pidfd)
        return found

    def escaped(self) -> set[int]:
        """The pids of all watched processes that lead no attempt."""
        return {pid for process in set(self._by_pidfd.values()) for pid in process.escaped.values()}

    def close(self) -> None:
        """Stop watching."""
        self._epoll.close()
        for pidfd in self._by_pidfd:
            os.close(pidfd)
        self._by_pidfd.clear()
