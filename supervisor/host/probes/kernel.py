"""`kernel = true`: what the kernel shows of a unit that answers nobody; it is asked nothing itself."""

from __future__ import annotations

import re
from typing import Any

from ...config.values import boolean
from ...core.traffic import CLOSE_WAIT, ESTABLISHED
from ...plugin_api import OptionError, ProbeResult, Target
from ..clock import monotonic
from ..connect import reason_of
from ..traffic import Sockets
from .options import read_options

MIN_WAIT_SECONDS = 1.0  # however often it is checked: a pause for garbage is no fault

_STATE = re.compile(rb"^State:\t(\S)", re.MULTILINE)
_THREADS = re.compile(rb"^Threads:\t(\d+)", re.MULTILINE)
_SWITCHES = re.compile(rb"^(?:non)?voluntary_ctxt_switches:\t(\d+)", re.MULTILINE)
_WORDS = {
    "T": "is stopped by a signal (SIGCONT wakes it)",
    "t": "is held by a debugger",
    "Z": "has ended",
    "X": "has ended",
    "D": "waits for the disk or another device and cannot be interrupted",
}


class KernelProbe:
    """The state of the leading process (`state`) and the queue of its service's port (`queue`).

    `state` sees a process that is stopped (T) or has ended (Z, X) at once. One that waits for a device (D) or is held
    by a debugger (t) is not well when it was so at the check before and has not run for a moment in between: a process
    that reads much, or that somebody traces, does run. It does not see workers: a stopped one beside a leader that
    is well shows only in the queue. Nor does it see a process that sleeps or spins for ever.

    `queue` sees that nobody calls accept(): connections wait, and every one of those that waited at an earlier check, a
    second ago or longer, still does. A server that is merely overloaded has accepted some of them, however long its
    queue is, and is well. What it cannot tell: a unit that accepts and never answers; a unit that nobody connects to;
    one whose waiting clients reset their connections; with SO_REUSEPORT, a worker that hangs while it has no client.
    It takes for hanging what does not accept for a reason: a server at its own limit of connections, or one that
    serves one client at a time and takes longer for it than `period` times `failure_threshold`.
    """

    __slots__ = ("_queue", "_queue_given", "_since", "_state", "_stuck", "_waiting")

    def __init__(self, options: Any) -> None:
        """`state` and `queue`, booleans, both true where they are missing. Raises OptionError."""
        read = read_options(options, {"state": boolean, "queue": boolean})
        self._state: bool = read.get("state", True)
        self._queue: bool = read.get("queue", True)
        self._queue_given = "queue" in read
        if not (self._state or self._queue):
            raise OptionError("", "must look at state or at queue: both are false")
        self._stuck: tuple[str, tuple[bytes, ...]] | None = None  # state and context switches of a process in D or t
        self._waiting: frozenset[tuple[str, int]] = frozenset()  # peers of connections that wait since `_since`
        self._since = 0.0

    async def check(self, target: Target, timeout_seconds: float) -> ProbeResult:
        """Looks; waits for nothing."""
        seen = []
        if self._state:
            fault, word = self._look_at_process(target.pid)
            if fault:
                return ProbeResult(False, fault)
            seen.append(word)
        if self._queue and (self._queue_given or target.port is not None):
            fault, word = self._look_at_queue(target)
            if fault:
                return ProbeResult(False, fault)
            seen.append(word)
        return ProbeResult(True, "; ".join(seen))

    def _look_at_process(self, pid: int) -> tuple[str, str]:
        """(fault, what was seen)"""
        before, self._stuck = self._stuck, None
        try:
            with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
                status = file.read(64 * 1024) or b""
        except (FileNotFoundError, ProcessLookupError):
            return f"its process {pid} has gone", ""
        except OSError as error:
            return "", f"its state cannot be read ({reason_of(error)})"
        state = _field(_STATE, status)
        if state == "Z" and _field(_THREADS, status) not in ("", "0", "1"):
            return "", "its first thread has ended, others go on"
        if state in ("D", "t"):
            self._stuck = state, tuple(_SWITCHES.findall(status))
            if before != self._stuck:
                return "", f"its process is in state {state}"
        elif state not in _WORDS:
            return "", f"its process is in state {state or '?'}"
        return f"its process {pid} {_WORDS[state]} (state {state})", ""

    def _look_at_queue(self, target: Target) -> tuple[str, str]:
        """(fault, what was seen)"""
        if target.port is None:
            return "it has no service, so it is not known which port's queue to look at", ""
        if target.tools is None:
            return "", "its queue can only be looked at by the daemon"
        length = target.tools.listen_queue(target.port)
        if length is None:
            self._waiting = frozenset()
            return f"nothing listens on port {target.port}", ""
        if length == 0:
            self._waiting = frozenset()
            return "", "no connection waits to be accepted"
        try:
            waiting = _waiting_peers(target.address, target.port)
        except OSError as error:
            return "", f"its queue cannot be looked at ({reason_of(error)})"
        return self._compare(waiting, target.port)

    def _compare(self, waiting: frozenset[tuple[str, int]], port: int) -> tuple[str, str]:
        """Queues are served in order: where all that waited still wait, nothing was accepted meanwhile."""
        now = monotonic()
        if not self._waiting or not self._waiting <= waiting:
            self._waiting, self._since = waiting, now
        elapsed = now - self._since
        seen = f"{len(waiting)} connection{'s wait' if len(waiting) != 1 else ' waits'} to be accepted on port {port}"
        if elapsed < MIN_WAIT_SECONDS:
            return "", seen
        return f"{seen} and none was accepted in {elapsed:.0f} s", ""


def _field(pattern: re.Pattern[bytes], status: bytes) -> str:
    match = pattern.search(status)
    return match[1].decode() if match else ""


def _waiting_peers(address: str, port: int) -> frozenset[tuple[str, int]]:
    """Who waits for accept(). Asked only when the queue is not empty."""
    sockets = Sockets()
    try:
        return frozenset(
            connection.peer
            for connection in sockets.connections(address, port)
            if not connection.accepted and connection.state in (ESTABLISHED, CLOSE_WAIT)
        )
    finally:
        sockets.close()
