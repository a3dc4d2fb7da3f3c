"""The warm-up hook: run once in each process that serves, when the unit is asked to warm up.

The order reaches one process only, and it goes to the others through the board: each has a thread that looks there
until its process is warm. Without a hook there is no thread.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable

from .board import FAILED_ROUND, WARM_ONCE, WARM_ROUND, WARMTH
from .flag import Flag

_NOT_SERVING, _COLD, _WARM = range(3)
LOOK_SECONDS = 0.1
PATIENCE_SECONDS = (
    20.0  # how long an order waits for the end; less than the 30 s after which gunicorn kills a silent worker
)

logger = logging.getLogger("unit_app")
_all: weakref.WeakSet[WarmUp] = weakref.WeakSet()


class WarmUp:
    """The hook in this process, and how far all processes are. `hook` is called in a thread of its own."""

    def __init__(self, flag: Flag, hook: Callable[[], object] | None) -> None:
        self._flag, self._hook = flag, hook
        self._serving = False  # requests have come to this process: it is no mere parent of those that serve
        self._running = False  # the hook is
        self._forget()
        if hook is not None:
            _all.add(self)
            self._expect()
            self._start()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def serve(self) -> None:
        """A request has come to this process."""
        if not self._serving:
            self._serving = True
            if self._hook is not None:
                self._start()

    def ask(self, again: bool = False) -> None:
        """Let all processes warm up, if they have not begun; `again`: also those that failed."""
        words = self._flag.board.words
        if words[WARM_ROUND] == 0 or (again and self.verdict() is False):
            words[WARM_ROUND] += 1

    def is_over(self) -> bool:
        """All processes were warm once. One that comes later warms up by itself, and the unit stays ready."""
        return self._hook is None or self._flag.board.words[WARM_ONCE] != 0 or self.verdict() is True

    def verdict(self) -> bool | None:
        """True: all processes that serve are warm. False: the hook failed in one. None: not yet."""
        board = self._flag.board
        words = board.words
        if self._hook is None:
            return True
        cold = [slot for slot in board.living() if words[slot + WARMTH] == _COLD]
        if any(words[slot + FAILED_ROUND] == words[WARM_ROUND] != 0 for slot in cold):
            return False
        if cold or words[board.own_slot() + WARMTH] != _WARM:
            return None
        words[WARM_ONCE] = 1
        return True

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._is_warm():
                self._stop.clear()
                self._thread = threading.Thread(target=self._look, args=(self._stop,), name="warm-up", daemon=True)
                self._thread.start()

    def _is_warm(self) -> bool:
        board = self._flag.board
        return bool(board.slot) and board.words[board.slot + WARMTH] == _WARM

    def _look(self, stop: threading.Event) -> None:
        # A forked child claims its slot only now: one that was forked to execute another program never comes here.
        seen, board = 0, self._flag.board
        while not stop.wait(LOOK_SECONDS):
            slot = self._expect()
            wanted = board.words[WARM_ROUND]
            if wanted != seen and self._run(slot, wanted):
                return
            seen = wanted

    def _expect(self) -> int:
        """From now on the unit is not warm before this process is. Its slot."""
        slot, words = self._flag.board.own_slot(), self._flag.board.words
        if words[slot + WARMTH] == _NOT_SERVING:
            words[slot + WARMTH] = _COLD
        return slot

    def _run(self, slot: int, wanted: int) -> bool:
        words = self._flag.board.words
        self._running = True
        try:
            self._hook()  # type: ignore[misc]  # there is one, else there is no thread
        except Exception:
            logger.exception("the warm-up failed")
            words[slot + FAILED_ROUND] = wanted
            return False
        finally:
            self._running = False
        words[slot + WARMTH] = _WARM
        return True

    def _before_fork(self) -> None:
        thread = self._thread
        if thread is not None and not self._running and thread is not threading.current_thread():
            self._stop.set()
            thread.join()
            self._thread = None

    def _in_parent(self) -> None:
        if self._serving:
            self._start()
        elif not self._running and not self._is_warm():
            # It forks before it has served: those that it forks will serve, and nobody waits for its own warmth.
            self._flag.board.words[self._flag.board.own_slot() + WARMTH] = _NOT_SERVING

    def _in_child(self) -> None:
        self._forget()
        self._running = False
        if not self._serving:
            self._start()


def _before_fork() -> None:
    for warm_up in list(_all):
        warm_up._before_fork()


def _in_parent() -> None:
    for warm_up in list(_all):
        warm_up._in_parent()


def _in_child() -> None:
    for warm_up in list(_all):
        warm_up._in_child()


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
