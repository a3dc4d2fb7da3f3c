"""How a process ended that is not our child: from its zombie, or from its pidfd, or not at all."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from supervisor.host import exit_status
from supervisor.host.exit_status import exit_status_of

# A process of the shell's, which the shell reaps only when it is told to.
PARENT = """
import os, sys
child = os.fork()
if child == 0:
    os.read(0, 1)
    exec(sys.argv[1])
print(child, flush=True)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
print("ended", flush=True)
os.read(0, 1)
os.waitpid(child, 0)
print("reaped", flush=True)
os.read(0, 1)
"""


@contextmanager
def grandchild(code: str) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """Its parent, its pid, and a pidfd of it."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", PARENT, code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        pid = int(parent.stdout.readline())
        pidfd = os.pidfd_open(pid)
        try:
            yield parent, pid, pidfd
        finally:
            os.close(pidfd)
            parent.kill()


@pytest.mark.parametrize(
    ("code", "expected"), [("os._exit(7)", 7), ("os.kill(os.getpid(), 9)", -9), ("os._exit(0)", 0)]
)
def test_a_zombies_status_is_told(code: str, expected: int) -> None:
    with grandchild(code) as (parent, pid, pidfd):
        assert exit_status_of(pid, pidfd) is None, "it lives"
        parent.stdin.write(b"x")  # type: ignore[union-attr]
        assert parent.stdout.readline() == b"ended\n"  # type: ignore[union-attr]
        status = exit_status_of(pid, pidfd)
        assert status is not None and os.waitstatus_to_exitcode(status) == expected


def test_after_it_was_reaped_the_kernel_may_still_tell_and_nobody_elses_zombie_is_taken_for_it() -> None:
    with grandchild("os._exit(5)") as (parent, pid, pidfd):
        parent.stdin.write(b"xy")  # type: ignore[union-attr]
        assert parent.stdout.readline() == b"ended\n"  # type: ignore[union-attr]
        assert parent.stdout.readline() == b"reaped\n"  # type: ignore[union-attr]
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert poll.poll(5000)
        status = exit_status_of(pid, pidfd)
        assert status is None or os.waitstatus_to_exitcode(status) == 5


def test_an_older_kernel_tells_nothing_of_what_was_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exit_status, "_GET_INFO", 0xC040FFFF)  # which no kernel knows
    with grandchild("os._exit(5)") as (parent, pid, pidfd):
        parent.stdin.write(b"xy")  # type: ignore[union-attr]
        assert parent.stdout.readline() == b"ended\n"  # type: ignore[union-attr]
        assert parent.stdout.readline() == b"reaped\n"  # type: ignore[union-attr]
        assert exit_status_of(pid, pidfd) is None
