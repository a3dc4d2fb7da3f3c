"""The machine as scenarios look at it: processes, ports and cgroups, read from /proc; and waiting with a deadline."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DEADLINE_SECONDS = 15.0
POLL_SECONDS = 0.01
SLICES = range(20_000, 32_000, 400)  # of ports; below, registry servers get theirs, see tests/servers/processes.py
CGROUPS = next((Path(path) for path in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")
                if Path(path, "cgroup.procs").exists()), None)  # fmt: skip


def until(what: str, look: Callable[[], Any], seconds: float = DEADLINE_SECONDS) -> Any:
    """The first true value that `look` gives; fails, with the last one, when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        value = look()
        if value:
            return value
        now = time.monotonic()
        assert now < deadline, f"{what}: not within {seconds:g} s; last seen: {value!r}"
        time.sleep(
            max(POLL_SECONDS, now - began)
        )  # what is waited for gets the processor for at least half of the time


def started_at(pid: int) -> float | None:
    """When a process began, on CLOCK_BOOTTIME, exact to a hundredth of a second below; None: there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text[text.rindex(")") + 2 :].split()[19]) / os.sysconf("SC_CLK_TCK")


def boottime() -> float:
    """The clock of `started_at`."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def state_of(pid: int) -> str:
    """The letter of a process's state; "" if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return text[text.rindex(")") + 2]


def is_alive(pid: int) -> bool:
    """It exists and is no zombie."""
    return state_of(pid) not in ("", "Z", "X")


def marked(*words: str) -> set[int]:
    """The living processes that have all these words in their environment, or in their command line."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit() and _carries(name, words)}


def _carries(pid: str, words: tuple[str, ...]) -> bool:
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes() + b"\0" + Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    lines = text.split(b"\0")
    return all(word.encode() in lines for word in words) and is_alive(int(pid))


def sessions() -> Iterator[tuple[int, int]]:
    """Every living process and its session."""
    for name in os.listdir("/proc"):
        if name.isdigit() and is_alive(int(name)):
            try:
                yield int(name), os.getsid(int(name))
            except ProcessLookupError:
                continue


def listening_ports() -> set[int]:
    """The TCP ports that anybody on this machine listens on."""
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}


class _OwnPorts:
    """The ports of this process: one that is not listened on at the moment must not be given to another run of tests.

    They lie below those that the kernel gives to clients.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claim: socket.socket | None = None
        self._slice, self._next = range(0), 0

    def neighbours(self, count: int) -> range:
        """So many in a row, those first that were not given for the longest time."""
        with self._lock:
            if self._claim is None:
                self._claim, self._slice = _claim_slice()
                self._next = self._slice.start
            if self._next + count > self._slice.stop:
                self._next = self._slice.start
            self._next += count
            return range(self._next - count, self._next)


def _claim_slice() -> tuple[socket.socket, range]:
    """An abstract socket is the claim: one bind at a time succeeds, and it ends with this process (unix(7))."""
    for first in random.sample(SLICES, len(SLICES)):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0unitd-units-ports-{first}")
        except OSError:
            claim.close()
            continue
        return claim, range(first, first + SLICES.step)
    raise AssertionError("other runs of tests have all ports")


_OWN_PORTS = _OwnPorts()


def free_ports(count: int) -> int:
    """The first of so many neighbours that nobody listens on, and that no other run of tests is given."""
    for _ in range(SLICES.step // count):
        ports = _OWN_PORTS.neighbours(count)
        if listening_ports().isdisjoint(ports):
            return ports[0]
    raise AssertionError("no free ports")


def command_of(pid: int) -> str:
    """A process's command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "(gone)"


def kill(pids: set[int]) -> None:
    """End these processes, and see them gone."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    until("they have ended", lambda: not any(is_alive(pid) for pid in pids))


def remove_cgroup(folder: Path) -> None:
    """Kill what lives in a cgroup, and remove it with all below it."""

    def remove() -> bool:
        for inner, _, _ in os.walk(folder, topdown=False):
            try:
                os.rmdir(inner)
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True

    Path(folder, "cgroup.kill").write_text("1")
    until("the scenario's cgroup can be removed", remove)
