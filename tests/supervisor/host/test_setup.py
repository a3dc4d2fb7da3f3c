"""What the daemon does to its own process, each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from supervisor.host.setup import units_environment


def outcome(code: str, **more: object) -> str:
    """What a fresh process says."""
    program = "import os, resource, signal, subprocess, sys, time\nfrom supervisor.host.setup import *\n" + code
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=15, check=False, **more
    )  # type: ignore[call-overload]
    assert result.stderr == ""
    return str(result.stdout)


def test_a_subreaper_gets_what_a_dead_child_leaves() -> None:
    code = (
        "become_subreaper()\n"
        "reading, writing = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    if os.fork() == 0:\n"
        "        while os.getppid() != int(sys.argv[1] if len(sys.argv) > 1 else DAEMON): time.sleep(0.01)\n"
        "        os.write(writing, b'yours')\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "print(os.read(reading, 10).decode())\n"
    )
    assert outcome("DAEMON = os.getpid()\n" + code) == "yours\n"


def test_the_limit_of_open_files_is_raised_and_the_old_one_told() -> None:
    code = (
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))\n"
        "print(raise_open_files(), resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))\n"
    )
    assert outcome(code) == "256 True\n"


def test_descriptors_that_the_daemon_was_started_with_are_not_passed_on() -> None:
    reading, writing = os.pipe()
    code = "keep_descriptors_private()\nsubprocess.run(['ls', '/proc/self/fd'], close_fds=False)\n"
    try:
        assert outcome(code, pass_fds=(reading, writing)).split() == ["0", "1", "2", "3"], "3 is ls's own"
    finally:
        os.close(reading)
        os.close(writing)


def test_child_signals_are_readable_once_whatever_their_number() -> None:
    code = (
        "descriptor = child_signals()\n"
        "import select\n"
        "print(select.select([descriptor], [], [], 0.05)[0])\n"
        "for _ in range(300):\n"
        "    if os.fork() == 0: os._exit(0)\n"
        "for _ in range(300): os.wait()\n"
        "print(select.select([descriptor], [], [], 5)[0] == [descriptor])\n"
        "os.read(descriptor, 1024)\n"
        "print(select.select([descriptor], [], [], 0.05)[0], os.get_inheritable(descriptor))\n"
    )
    assert outcome(code) == "[]\nTrue\n[] False\n"


def test_signals_that_whoever_started_us_ignored_or_blocked_are_as_usual_again() -> None:
    code = (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        "for number in (signal.SIGCHLD, signal.SIGTTOU): signal.signal(number, signal.SIG_IGN)\n"
        "default_signals()\n"
        "grep = subprocess.Popen(['grep', '-E', 'Sig(Blk|Ign)', '/proc/self/status'], restore_signals=False)\n"
        "print(os.waitpid(grep.pid, 0) == (grep.pid, 0))\n"
        "grep.returncode = 0\n"
    )
    # In the background a shell ignores INT and QUIT; PIPE and XFSZ are Python's own.
    ignored = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    libc_signals = 3 << 31  # 32 and 33: the C library keeps them to itself, nobody can set them
    program = "import os, resource, signal, subprocess, sys, time\nfrom supervisor.host.setup import *\n" + code
    script = 'trap "" INT QUIT HUP; "$@" & wait'
    command = ["sh", "-c", script, "sh", sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    assert result.stderr == ""
    _, blocked_mask, _, ignored_mask, reaped = result.stdout.split()
    assert [int(mask, 16) & ~libc_signals for mask in (blocked_mask, ignored_mask)] == [0, ignored]
    assert reaped == "True"


def test_units_do_not_get_what_the_service_manager_meant_for_the_daemon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "LISTEN_PID",
        "WATCHDOG_USEC",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
    ):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("KEPT", "y")
    found = units_environment()
    assert found["KEPT"] == "y" and found["PATH"] == os.environ["PATH"]
    assert not {
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "LISTEN_PID",
        "WATCHDOG_USEC",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
    } & set(found)
