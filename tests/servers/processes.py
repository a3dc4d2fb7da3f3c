"""Processes that cannot outlive the Python process that started them, whatever ends it, and free ports for them.

The processes are children of the nursery (`nursery.py`), which starts with the first of them.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

END_SECONDS = 5.0
PORTS = range(10_000, 20_000)  # above, units get theirs, see tests/end_to_end/machine.py
SLICE = 250


class Process:
    """A program at the head of a process group of its own. `pid` is its pid, and the number of the group."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str]) -> None:
        """Start it, with its output appended to `log`; OSError when that cannot be done."""
        self.pid = int(_NURSERY.ask(start=command, log=str(log), environment=environment)["pid"])
        self._pidfd = -1
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            self._pidfd = os.pidfd_open(self.pid)

    def lives(self) -> bool:
        """It has not ended."""
        return self._pidfd >= 0 and not self._ended_within(0.0)

    def listens_on(self, port: int) -> bool:
        """It, and not another one, has the listening TCP socket of this port."""
        sockets = _listening_sockets(port)
        try:
            return any(os.readlink(item) in sockets for item in Path(f"/proc/{self.pid}/fd").iterdir())
        except FileNotFoundError:  # it has ended, or closed one of them meanwhile
            return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group; a group that is gone is no error."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def wait_stopped(self) -> None:
        """Return when none of its threads runs any more, after SIGSTOP; at the latest after END_SECONDS."""
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline and not self._is_stopped():
            time.sleep(0.001)

    def _is_stopped(self) -> bool:
        try:
            stats = [(task / "stat").read_text() for task in Path(f"/proc/{self.pid}/task").iterdir()]
        except OSError:  # it, or one of its threads, has just ended
            return not self.lives()
        return all(stat.rpartition(") ")[2][:1] in "TtZX" for stat in stats)

    def end(self, patience_seconds: float = 0.0) -> None:
        """SIGTERM and `patience_seconds` when there are any, then SIGKILL. Returns when the process has ended."""
        if self._pidfd < 0:
            return
        if patience_seconds > 0:
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGCONT)
            self._ended_within(patience_seconds)
        self.signal(signal.SIGKILL)
        if not self._ended_within(END_SECONDS):
            raise OSError(f"process {self.pid} cannot be killed")
        os.close(self._pidfd)
        self._pidfd = -1
        _NURSERY.ask(ended=self.pid)

    def _ended_within(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))


def guard_folder(folder: Path) -> None:
    """Have `folder` removed at the latest when this Python process ends."""
    _NURSERY.ask(folder=str(folder))


def forget_folder(folder: Path) -> None:
    """The folder is gone, or somebody else's from now on."""
    _NURSERY.ask(removed=str(folder))


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has, for TCP and UDP, and that no other run of tests is given.

    The port of a server that is down for a moment is free, and must not be found by anybody else: not by another run (it
    has another slice of the ports), not by a unit of the end-to-end tests (they are above), not by the kernel for a
    client, which may even be connected to itself (those are higher still).
    """
    while True:
        for candidate in _CLAIMED.pop_all():
            if _is_free(candidate):
                return candidate
        _CLAIMED.claim()


def _is_free(port: int) -> bool:
    with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        try:
            stream.bind(("127.0.0.1", port))
            datagram.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class _Claimed:
    """The slices of the ports that are ours as long as this process lives, and what has not been given of them."""

    def __init__(self) -> None:
        self._left: list[int] = []
        self._claims: list[socket.socket] = []

    def pop_all(self) -> Iterator[int]:
        """One after the other, each of them once."""
        while self._left:
            yield self._left.pop()

    def claim(self) -> None:
        """Take one more slice, at random. An abstract socket is the claim: it goes with us, and one bind at a time succeeds."""
        slices = list(PORTS[::SLICE])
        random.SystemRandom().shuffle(slices)
        for first in slices:
            claim = socket.socket(socket.AF_UNIX)
            try:
                claim.bind(f"\0unitd-tests-ports-{first}")
            except OSError:
                claim.close()
                continue
            self._claims.append(claim)
            self._left = list(range(first, first + SLICE))
            random.SystemRandom().shuffle(self._left)
            return
        raise OSError("no free port found")


_CLAIMED = _Claimed()
_LISTENING = "0A"


def _listening_sockets(port: int) -> set[str]:
    """The listening sockets of a port as /proc/<pid>/fd calls them (proc(5): /proc/net/tcp)."""
    found = set()
    for table in Path("/proc/net").glob("tcp*"):  # tcp, and tcp6 where there is IPv6
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING and fields[1].endswith(f":{port:04X}"):
                found.add(f"socket:[{fields[9]}]")
    return found


class _Nursery:
    """Our end of the socket to the nursery."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._owner = 0

    def ask(self, **order: Any) -> dict[str, Any]:
        """Send an order and return the answer; OSError with its reason when it could not be carried out."""
        with self._lock:
            # One that was forked from us gets a nursery of its own.
            if self._socket is None or self._owner != os.getpid():
                self._socket = self._start()
                self._owner = os.getpid()
            self._socket.sendall(json.dumps(order).encode() + b"\n")
            line = b""
            while not line.endswith(b"\n"):
                part = self._socket.recv(65536)
                if not part:
                    raise OSError("the nursery is gone")
                line += part
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise OSError(answer["error"])
        return answer

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.settimeout(10.0)
        with theirs:
            # Isolated and without site: it starts in a few milliseconds and does not see our environment.
            command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("nursery.py")), str(theirs.fileno())]
            subprocess.run(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, check=True)
        atexit.register(self._end, ours, os.getpid())
        return ours

    def _end(self, ours: socket.socket, owner: int) -> None:
        """Return when all is cleaned up: the nursery closes its end last."""
        if owner == os.getpid():
            with contextlib.suppress(OSError):
                ours.shutdown(socket.SHUT_WR)
                while ours.recv(4096):
                    pass
        ours.close()


_NURSERY = _Nursery()
