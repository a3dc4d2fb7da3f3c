"""The service manager's store of open files (FDSTORE=1 of sd_notify(3)): what is open there outlives the daemon.

A pipe that nobody has open forgets what is in it. So the reading ends of units' pipes are open in the store, too, and
what a unit said that ended while no daemon was there is still read by the next one, which opens the pipe by its name.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Mapping

from .notify import tell_manager

log = logging.getLogger("unitd")

FIRST = 3  # SD_LISTEN_FDS_START
RETRY_SECONDS = 0.05
PATIENCE_SECONDS = 30.0  # with a manager that takes nothing
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def passed(environ: Mapping[str, str], pid: int) -> dict[int, str]:
    """The descriptors that the manager has passed to this process, and their names (sd_listen_fds_with_names(3))."""
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(pid) or not (count.isascii() and count.isdecimal()):
        return {}
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    return {FIRST + i: names[i] if i < len(names) else "" for i in range(int(count))}


def name_of(fd: int) -> str:
    """What a pipe is called in the store. Raises OSError.

    Short, because the names of all come back in one variable, and a variable has 128 KiB at most (execve(2)).
    """
    return f"pipe-{os.fstat(fd).st_ino:x}"


class FdStore:
    """What of ours the manager holds. Without a manager, or where the store is full or off, it holds nothing."""

    def __init__(self) -> None:
        """Take back what the store has passed to this process. Needs a running loop."""
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._is_there = bool(os.environ.get("NOTIFY_SOCKET"))
        self._held: set[str] = set()  # names of what the store has
        self._wanted: set[str] = set()  # of these, what this daemon reads
        self._returned: list[int] = []
        self._unsaid: deque[tuple[str, int | None]] = deque()  # messages with descriptors of their own, in order
        self._give_up_at = 0.0
        self._take_back()

    def _take_back(self) -> None:
        found = passed(os.environ, os.getpid())
        for variable in _VARIABLES:
            os.environ.pop(variable, None)
        for fd, name in found.items():
            try:
                os.set_inheritable(fd, False)
            except OSError:
                continue  # the variables have promised too much
            self._returned.append(fd)
            self._held.add(name)
        if self._returned:
            log.info("the service manager has kept %d pipes of units open", len(self._returned))

    def keep(self, fd: int) -> None:
        """Have a pipe's reading end held open; a pipe that is held already is not given again. For any thread."""
        if not self._is_there:
            return
        name = name_of(fd)
        with self._lock:
            self._wanted.add(name)
            if name not in self._held:
                self._held.add(name)
                # FDPOLL=0: the manager must not let go of it just because its unit has ended.
                self._say(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", fd)

    def drop(self, fd: int) -> None:
        """A pipe has been read to its end; to be told before it is closed. For any thread."""
        if not self._is_there:
            return
        name = name_of(fd)
        with self._lock:
            self._wanted.discard(name)
            self._forget(name)

    def settle(self) -> None:
        """All that goes on is kept again: what else the store has is forgotten."""
        with self._lock:
            for fd in self._returned:
                os.close(fd)
            self._returned = []
            for name in self._held - self._wanted:
                self._forget(name)

    def _forget(self, name: str) -> None:
        if name in self._held:
            self._held.discard(name)
            self._say(f"FDSTOREREMOVE=1\nFDNAME={name}")

    # Saying it.

    def _say(self, message: str, fd: int | None = None) -> None:
        """At once, or when the manager has read what others have said; it may be reloading."""
        if self._unsaid or not tell_manager(message, _some(fd)):
            first = not self._unsaid
            try:  # a copy: by then the pipe may be closed, and its number another file's
                self._unsaid.append((message, None if fd is None else os.dup(fd)))
                if first:
                    self._loop.call_soon_threadsafe(self._wait)
            except (OSError, RuntimeError) as error:  # no descriptors left; the loop has ended
                log.debug("the service manager is not told: %s", error)

    def _wait(self) -> None:
        self._give_up_at = self._loop.time() + PATIENCE_SECONDS
        self._loop.call_later(RETRY_SECONDS, self._say_again)

    def _say_again(self) -> None:
        with self._lock:
            said = False
            while self._unsaid and tell_manager(self._unsaid[0][0], _some(self._unsaid[0][1])):
                said = True
                self._take_off()
            if said:
                self._give_up_at = self._loop.time() + PATIENCE_SECONDS
            if self._unsaid and self._loop.time() < self._give_up_at:
                self._loop.call_later(RETRY_SECONDS, self._say_again)
            elif self._unsaid:
                self._give_up()

    def _give_up(self) -> None:
        log.warning("the service manager does not read: what units say while no unitd is there may be lost")
        self._is_there = False
        while self._unsaid:
            self._take_off()

    def _take_off(self) -> None:
        _, copy = self._unsaid.popleft()
        if copy is not None:
            os.close(copy)


def _some(fd: int | None) -> tuple[int, ...]:
    return () if fd is None else (fd,)
