"""The parent of all servers of one run of tests: a process of its own, run as a script, that imports nothing of ours.

It reads one order as JSON per line from the socket whose descriptor is its argument, and answers each with one line. When the
socket closes, whatever ended the other side (a normal end, an exception, Ctrl-C, SIGKILL), it kills the process groups that
it started and removes the folders that it was told of.

It is no child of the tests: some of them look at, or kill, all their descendants. And no use of PR_SET_PDEATHSIG: that signal
comes when the *thread* that started the child ends, and a test starts servers from the threads of an event loop's executor.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
from typing import Any


def start(command: list[str], log: str, environment: dict[str, str]) -> int:
    """Start a program as the leader of a session and group of its own; its output is appended to `log`."""
    writing = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        command[0],
        command,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, writing, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigdef=[signal.SIGCHLD, signal.SIGINT, signal.SIGPIPE],
        setsigmask=[],
    )


def obey(order: dict[str, Any], groups: set[int], folders: set[str]) -> dict[str, Any]:
    """Carry out one order."""
    match order:
        case {"start": command, "log": log, "environment": environment}:
            try:
                pid = start(command, log, environment)
            except OSError as error:
                return {"error": str(error)}
            groups.add(pid)
            return {"pid": pid}
        case {"ended": pid}:
            groups.discard(pid)
        case {"folder": folder}:
            folders.add(folder)
        case {"removed": folder}:
            folders.discard(folder)
    return {}


def main() -> None:
    """Leave the one who started us, obey until the socket closes, clean up."""
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; who wants to know the end of a server has a pidfd
    groups: set[int] = set()
    folders: set[str] = set()
    with socket.socket(fileno=int(sys.argv[1])) as orders, orders.makefile("rw") as stream:
        orders.set_inheritable(False)
        try:
            for line in stream:
                stream.write(json.dumps(obey(json.loads(line), groups, folders)) + "\n")
                stream.flush()
        except OSError:
            pass  # the other side is gone, and that is all that matters
        for pid in groups:
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
