"""One attempt of a unit as processes: its leader, and what the leader started.

It knows how they end and how they are signalled; when that happens is `process.py`'s business.
"""

from __future__ import annotations

import logging
import os
import signal

from ..core.model import Exit, UnitSpec
from .cgroup import UnitGroup
from .clock import monotonic, wall
from .signals import signal_name

log = logging.getLogger("unitd.process")


class Process:
    """One attempt: its leader, and what the leader started."""

    __slots__ = (
        "attempt", "escaped", "exit", "group", "killed", "leader_reaped", "moving", "pid", "pidfd", "spec",
        "started_at", "told", "unit",
    )  # fmt: skip

    def __init__(self, spec: UnitSpec, attempt: int) -> None:
        self.spec, self.unit, self.attempt = spec, spec.name, attempt
        self.pid = 0  # 0: not spawned yet
        self.pidfd = -1
        self.started_at = 0.0
        self.exit: Exit | None = None
        self.leader_reaped = False
        self.told = False  # Exited was posted
        self.killed = False  # what is found of it from now on is killed
        self.group: UnitGroup | None = None
        self.moving = False  # into its cgroup: until then it must not be reaped
        self.escaped: dict[int, int] = {}  # pidfd -> pid of what lives outside of the leader's group, or outlives it

    def reap_leader(self) -> None:
        """Take the status of the leader, which has ended."""
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        self.leader_reaped, self.pidfd = True, -1
        lived = _span(monotonic() - self.started_at)
        if result is None or result.si_code == os.CLD_EXITED:
            code = 0 if result is None else result.si_status
            self.exit = Exit(f"exited with code {code} after {lived}", code=code, wall=wall())
        else:
            number = result.si_status
            self.exit = Exit(f"killed by {signal_name(number)} after {lived}", signal=number, wall=wall())

    def signal_tree(self, number: int) -> None:
        """Send a signal to all of it that is known."""
        if not self.leader_reaped:
            try:
                os.killpg(self.pid, number)
            except (ProcessLookupError, PermissionError):  # of another user: its leader may still be ours
                self.send(self.pidfd, number)
        for pidfd in self.escaped:
            self.send(pidfd, number)
        if self.group is not None and number != signal.SIGKILL:
            self._signal_cgroup(self.group, number)

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

    def send(self, pidfd: int, number: int) -> None:
        """Send a signal to one process of it; none, if that has ended."""
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return
        except OSError as error:
            log.warning("%s: cannot send %s: %s", self.unit, signal_name(number), error.strerror)


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
