"""One attempt of a unit as processes: its leader, and what the leader started.

It knows how they end and how they are signalled; when that happens is `process.py`'s business.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
from contextlib import suppress
from pathlib import Path

from ..core.model import Exit, UnitSpec
from . import tree
from .cgroup import UnitGroup
from .clock import monotonic, wall
from .exit_status import exit_status_of
from .signals import signal_name

log = logging.getLogger("unitd.process")

_PROCESS_GROUP = 1 << 2  # PIDFD_SIGNAL_PROCESS_GROUP of pidfd_send_signal(2), from Linux 6.9 on


class Process:
    """One attempt: its leader, and what the leader started."""

    __slots__ = (
        "adopted", "attempt", "escaped", "exit", "group", "killed", "leader_reaped", "moving", "pid", "pidfd", "spec",
        "started_at", "told", "unit",
    )  # fmt: skip

    def __init__(self, spec: UnitSpec, attempt: int) -> None:
        self.spec, self.unit, self.attempt = spec, spec.name, attempt
        self.pid = 0  # 0: not spawned yet, or adopted without a leader
        self.pidfd = -1
        self.started_at = 0.0
        self.exit: Exit | None = None
        self.leader_reaped = False
        self.told = False  # Exited was posted
        self.adopted = False  # an earlier daemon started it: it is not our child, and its orphans are not either
        self.killed = False  # what is found of it from now on is killed
        self.group: UnitGroup | None = None
        self.moving = False  # into its cgroup: until then it must not be reaped
        self.escaped: dict[int, int] = {}  # pidfd -> pid of what lives outside of the leader's group, or outlives it

    @property
    def started(self) -> bool:
        """It has, or had, processes."""
        return self.pid != 0 or self.leader_reaped

    def take_over(self, leader: int | None, known: Exit | None = None, ticks: int | None = None) -> None:
        """Be the attempt that an earlier daemon started; its leader may have gone, and be known how. Raises OSError.

        `ticks` is when the leader began, as it was when it was found: whoever has its number and began at another time
        is a stranger.
        """
        self.adopted = True
        try:
            self.pidfd = os.pidfd_open(leader) if leader is not None else -1
        except ProcessLookupError:
            leader = None
        if leader is not None and ticks is not None and tree.start_ticks(leader) != ticks:
            os.close(self.pidfd)  # it ended after it was found, and its number is somebody else's
            leader, self.pidfd = None, -1
        if leader is None:
            self.leader_reaped = True
            self.exit = known or _unknown_exit()
            return
        self.pid, self.started_at = leader, monotonic() - (tree.age_seconds(leader) or 0.0)

    def lives(self) -> bool:
        """Its leader has not ended, whether or not that was noticed already."""
        if not self.pid or self.leader_reaped or self.pidfd < 0:
            return False
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(0)

    def reap_leader(self) -> None:
        """Take the status of the leader, which has ended."""
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            if not self.adopted:
                raise
            status = exit_status_of(self.pid, self.pidfd)
            code = None if status is None else os.waitstatus_to_exitcode(status)
        else:
            killed = result is not None and result.si_code != os.CLD_EXITED
            code = 0 if result is None else -result.si_status if killed else result.si_status
        self.leader_reaped, self.pidfd = True, -1
        self.exit = _unknown_exit() if code is None else _exit_of(code, _span(monotonic() - self.started_at))

    def reap_escaped(self, pidfd: int) -> None:
        """Forget one of those that are watched; it has ended. Its status is taken if it is a child of ours."""
        del self.escaped[pidfd]
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)

    def members(self, survey: tree.Survey) -> list[int]:
        """All of it that lives, wherever it went."""
        adopted_attempt = self.attempt if self.adopted else None
        return survey.members(self.pid, self.unit, ended=self.leader_reaped, adopted_attempt=adopted_attempt)

    def below(self) -> list[int]:
        """What descends from its leader, while that lives."""
        return [] if self.leader_reaped else tree.descendants(self.pid)

    def ask_to_stop(self) -> None:
        """Send its stop signal to all of it that is known."""
        self.signal_tree(self.spec.stopsignal)
        if self.spec.stopsignal != signal.SIGCONT:
            self.signal_tree(signal.SIGCONT)  # a stopped process cannot answer its stop signal

    def signal_tree(self, number: int) -> None:
        """Send a signal to all of it that is known."""
        if not self.leader_reaped:
            self._signal_group(number)
        for pidfd in self.escaped:
            self.send(pidfd, number)
        if self.group is not None and number != signal.SIGKILL:
            self._signal_cgroup(self.group, number)

    def _signal_group(self, number: int) -> None:
        try:
            if not self.adopted:
                os.killpg(self.pid, number)
            elif not self._signal_adopted_group(number):
                signal.pidfd_send_signal(self.pidfd, 0)
                os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):  # of another user: its leader may still be ours
            self.send(self.pidfd, number)

    def _signal_adopted_group(self, number: int) -> bool:
        """By its pidfd, for who reaps it does not ask us: its number may be somebody else's. False: not known here."""
        try:
            signal.pidfd_send_signal(self.pidfd, number, None, _PROCESS_GROUP)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
        return True

    def _signal_cgroup(self, group: UnitGroup, number: int) -> None:
        watched = set(self.escaped.values())
        for pid in group.pids():
            if pid in watched or (not self.leader_reaped and group_of(pid) == self.pid):
                continue  # got it already, by itself or with its group
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                continue
            self.send(pidfd, number)
            os.close(pidfd)

    def send(self, pidfd: int, number: int) -> bool:
        """Send a signal to one process of it; False: it has ended, or may not be signalled."""
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return False
        except OSError as error:
            log.warning("%s: cannot send %s: %s", self.unit, signal_name(number), error.strerror)
            return False
        return True


def make_group(base: Path | None, process: Process) -> UnitGroup | None:
    """A cgroup for an attempt, where there can be one. Raises OSError."""
    limits = process.spec.limits
    if base is None:
        if limits.memory_max is not None or limits.pids_max is not None:
            log.warning("%s: memory_max and pids_max need a delegated cgroup v2; there is none", process.unit)
        return None
    group, unset = UnitGroup.make(base, process.unit, process.attempt, limits)
    for problem in unset:
        log.warning("%s: cannot set %s", process.unit, problem)
    return group


def _exit_of(code: int, lived: str) -> Exit:
    """`code` is negative where a signal has ended it."""
    if code >= 0:
        return Exit(f"exited with code {code} after {lived}", code=code, wall=wall())
    return Exit(f"killed by {signal_name(-code)} after {lived}", signal=-code, wall=wall())


def _unknown_exit() -> Exit:
    return Exit("ended; its exit status is unknown, for an earlier unitd started it", wall=wall())


def reap(pid: int) -> bool:
    """Take a dead child's status; False: it lives, or is not our child."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
    except ChildProcessError:
        return False


def group_exists(pgrp: int) -> bool:
    """Somebody is in that process group, if only a zombie."""
    try:
        os.killpg(pgrp, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def group_of(pid: int) -> int:
    """The process group of a process; 0 if it has gone."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
