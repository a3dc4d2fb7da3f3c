"""A few words of memory that all processes of one unit see, one slot of them for each process.

Owns the file in a safe folder, its mapping, and who may use which slot. Knows nothing of requests. A slot belongs to a
process as long as the pid and start time in it are those of a living process: what a killed process leaves in its slot
counts for nothing, and the slot is given away again. Linux only (`/proc`).
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import stat
import string
import threading
from collections.abc import Iterator

# Words of the header. Each is written by whoever comes, whole.
DRAINING, WARM_ROUND, WARM_ONCE, _USED = range(4)
# Words of a slot. Only its process writes them.
_PID, _START, COUNT, WARMTH, FAILED_ROUND = range(5)

_WORDS = 8  # of the header, and of each slot
_SLOTS = 1024
_SIZE = _WORDS * 8 * (1 + _SLOTS)

# A POSIX record lock keeps out other processes only, and it is lost when this one closes any descriptor of the file.
_in_process = threading.Lock()


def _new_lock() -> None:
    global _in_process  # noqa: PLW0603
    _in_process = threading.Lock()  # a thread that is not in the child may have held the old one


os.register_at_fork(after_in_child=_new_lock)


class UnsafeFolder(OSError):
    """The folder or a file in it could be another user's: whoever runs the service must name another folder."""


class Board:
    """The shared words. `words` holds unsigned 64-bit numbers; slots are given as the index of their first word."""

    def __init__(self, descriptor: int) -> None:
        os.ftruncate(descriptor, _SIZE)
        self._descriptor = descriptor
        self.words = memoryview(mmap.mmap(descriptor, _SIZE)).cast("Q")
        self.slot = 0  # this process's own; 0: none yet

    def own_slot(self) -> int:
        """This process's slot; the first call claims it. Raises RuntimeError when all are taken by living processes."""
        if not self.slot:
            with _in_process, _locked(self._descriptor):
                self.slot = self.slot or self.claim()
        return self.slot

    def claim(self) -> int:
        """Take the first slot that is nobody's. Only for those who hold the file's lock."""
        words = self.words
        for slot in range(_WORDS, _WORDS * (1 + _SLOTS), _WORDS):
            if not self.is_alive(slot):
                words[slot : slot + _WORDS] = _NOTHING
                words[slot + _START] = start_time(os.getpid()) or 0
                words[slot + _PID] = os.getpid()
                words[_USED] = max(words[_USED], slot // _WORDS)
                self.slot = slot
                return slot
        raise RuntimeError(f"cannot count requests: {_SLOTS} processes do already")

    def used_slots(self) -> range:
        """Every slot that ever had an owner."""
        return range(_WORDS, _WORDS * (1 + int(self.words[_USED])), _WORDS)

    def is_alive(self, slot: int) -> bool:
        """Its owner lives: the very process, not another with the same pid."""
        pid = self.words[slot + _PID]
        return pid != 0 and start_time(pid) == self.words[slot + _START]

    def living(self) -> list[int]:
        """The slots whose owners live."""
        return [slot for slot in self.used_slots() if self.is_alive(slot)]

    def reset(self) -> None:
        """As new."""
        for start in range(0, _WORDS * (1 + int(self.words[_USED])), _WORDS):
            self.words[start : start + _WORDS] = _NOTHING


_NOTHING = memoryview(bytes(_WORDS * 8)).cast("Q")


def start_time(pid: int) -> int | None:
    """When the process began, in clock ticks since boot; None when there is none, or a dead one that nobody reaped."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read(4096).rpartition(b")")[2].split()  # the name before it may hold anything
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def open_private() -> Board:
    """A board that only this process and those that it forks can see."""
    board = Board(os.memfd_create("unit_app", os.MFD_CLOEXEC))
    board.claim()
    return board


def open_shared(unit: str, part: str, folder: str | None = None) -> Board:
    """The board of all processes that give the same names; as new when none of them lives.

    `unit` is `name@daemon@generation`: what dead processes of others of that name left is removed. Raises OSError.
    """
    with _in_process, _safe_folder(folder) as directory, _open(".lock", directory) as lock, _locked(lock):
        name = f"v1-{_quote(unit)}~{_quote(part)}"
        board = Board(_open_file(name, directory))
        if not board.living():  # the flag lives as long as one process of the unit does
            board.reset()
        with _locked(board._descriptor):
            board.claim()
        _sweep(f"v1-{_quote(unit.partition('@')[0])}@", name, directory)
        return board


def _sweep(prefix: str, own: str, directory: int) -> None:
    for name in os.listdir(directory):
        if name.startswith(prefix) and name != own:
            with contextlib.suppress(OSError), _open(name, directory) as descriptor:
                if not Board(descriptor).living():
                    os.unlink(name, dir_fd=directory)


_PLAIN = string.ascii_letters.encode() + string.digits.encode() + b"-_@"


def _quote(text: str) -> str:
    """A file name that no other text has."""
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in os.fsencode(text))


@contextlib.contextmanager
def _safe_folder(path: str | None) -> Iterator[int]:
    path = path or os.environ.get("UNIT_APP_DIR") or f"/dev/shm/unit_app-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    # Opened first and looked at then, so that it cannot be exchanged between; a link is not followed.
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check_owner(directory, path)
        yield directory
    finally:
        os.close(directory)


def _open_file(name: str, directory: int) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        _check_owner(descriptor, name)
    except UnsafeFolder:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def _open(name: str, directory: int) -> Iterator[int]:
    descriptor = _open_file(name, directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _check_owner(descriptor: int, path: str) -> None:
    found = os.fstat(descriptor)
    if found.st_uid not in (os.geteuid(), 0) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnsafeFolder(
            f"cannot share the shutdown flag: other users may write to {path}; name a folder in UNIT_APP_DIR"
        )


@contextlib.contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    fcntl.lockf(descriptor, fcntl.LOCK_EX)  # dies with its process, and a forked child does not hold it
    try:
        yield
    finally:
        fcntl.lockf(descriptor, fcntl.LOCK_UN)
