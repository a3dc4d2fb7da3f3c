"""The shutdown flag of a unit, and the count of its requests in flight: one for all its processes."""

from __future__ import annotations

import os
import signal
import threading
import weakref
from types import FrameType

from .board import COUNT, DRAINING, open_private, open_shared

_flags: weakref.WeakSet[Flag] = weakref.WeakSet()


class Flag:
    """Set: new work is refused, running work finishes. Every process of a unit that makes one has the same.

    The processes find each other by UNITD_UNIT, UNITD_STATE (which unitd's: a host may have several) and
    UNITD_GENERATION, which unitd gives to its units, and by `name`. Where there is neither unit nor name, the flag is
    this process's own and that of the processes it forks later. `name` also keeps two services apart that one unit
    starts. `folder` (default: UNIT_APP_DIR, else one in /dev/shm) must not be writable for other users. The flag is as
    new when no process that had it lives. Raises OSError where it cannot be shared.
    """

    def __init__(self, name: str = "", *, folder: str | None = None) -> None:
        unit = os.environ.get("UNITD_UNIT", "")
        if unit or name:
            words = (unit, os.environ.get("UNITD_STATE", ""), os.environ.get("UNITD_GENERATION", ""))
            self.board = open_shared("@".join(words), name, folder)
        else:
            self.board = open_private()
        self._forget()
        _flags.add(self)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    @property
    def is_set(self) -> bool:
        """The unit is draining."""
        return self.board.words[DRAINING] != 0

    def set(self) -> None:
        """Begin to drain. May be called in a signal handler."""
        self.board.words[DRAINING] = 1

    def clear(self) -> None:
        """Serve again."""
        self.board.words[DRAINING] = 0

    def enter(self) -> Running | None:
        """Count a request until its `end()` is called; None when it must be refused instead."""
        if self.is_set:
            return None
        running = Running(self)
        if self.is_set:  # counted first, looked at then: whoever sets the flag and reads 0 has missed nobody
            running.end()
            return None
        return running

    def in_flight(self) -> int:
        """How many requests run, in all living processes."""
        board = self.board
        counts = ((slot, board.words[slot + COUNT]) for slot in board.used_slots())
        return sum(count for slot, count in counts if count and board.is_alive(slot))

    def processes(self) -> int:
        """How many living processes have this flag."""
        return len(self.board.living())

    def on_signal(self, name: str) -> None:
        """Set the flag when this process gets the signal ("USR1", "RTMIN+1"); an earlier handler is called too.

        Only the main thread may call it. Raises ValueError for an unknown name, RuntimeError in another thread.
        """
        number = _signal_number(name)
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"cannot handle {name}: only the main thread may")
        earlier = signal.getsignal(number)

        def handle(received: int, frame: FrameType | None) -> None:
            self.set()
            if callable(earlier):
                earlier(received, frame)

        signal.signal(number, handle)
        signal.siginterrupt(number, False)  # calls of running requests go on

    def _add(self, change: int) -> None:
        with self._lock:
            slot = self.board.own_slot()
            self._count += change
            self.board.words[slot + COUNT] = self._count


class Running:
    """A request that counts."""

    __slots__ = ("_flag", "_pid")

    def __init__(self, flag: Flag) -> None:
        self._flag: Flag | None = flag
        self._pid = os.getpid()
        flag._add(1)

    def end(self) -> None:
        """It is done. A second call does nothing, nor does a call in a process that was forked meanwhile."""
        flag, self._flag = self._flag, None
        if flag is not None and self._pid == os.getpid():
            flag._add(-1)


def _signal_number(name: str) -> int:
    word, _, offset = name.upper().removeprefix("SIG").partition("+")
    try:
        return signal.Signals[f"SIG{word}"] + int(offset or 0)
    except (KeyError, ValueError):
        raise ValueError(f"cannot handle {name}: there is no such signal") from None


def _in_child() -> None:
    for flag in list(_flags):
        flag._forget()
        flag.board.slot = 0  # that is the parent's; a first request claims another


os.register_at_fork(after_in_child=_in_child)
