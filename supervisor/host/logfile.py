"""The place a log goes to: a file with rotation, a FIFO, a terminal, the daemon's own stdout or stderr.

Owns the descriptor and the names of the backups. It knows nothing of units, threads or queues: one thread at a time
uses a `Target`. Nothing here raises for a target that fails; `write` says how much was taken and `error` why not more.
"""

# pathlib would make an object of every name of every rotation
# ruff: noqa: PTH

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Sequence
from typing import TypeAlias

from .spool import Turn

Buffer: TypeAlias = bytes | bytearray | memoryview

FILE_MODE = 0o640
LOOK_SECONDS = 1.0  # how often a file is asked whether somebody deleted it
TAIL_BLOCK_BYTES = 64 * 1024
MAX_PARTS = 1024  # IOV_MAX
_OWN = {
    "/dev/stdout": 1,
    "/dev/fd/1": 1,
    "/proc/self/fd/1": 1,
    "/dev/stderr": 2,
    "/dev/fd/2": 2,
    "/proc/self/fd/2": 2,
}
_FLAGS = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Target:
    """One log. Opened by its first write; `fd` is -1 while it is not open."""

    __slots__ = (
        "_checked",
        "_size",
        "_socket",
        "_taken",
        "backups",
        "error",
        "fd",
        "max_bytes",
        "path",
        "regular",
        "turn",
    )

    def __init__(self, path: str, max_bytes: int, backups: int) -> None:
        self.path, self.max_bytes, self.backups = path, max_bytes, backups
        self.fd = -1
        self.error: OSError | None = None
        self.regular = True  # until it was opened: a file is the likely case
        self._size = self._taken = 0
        self._checked = 0.0
        self._socket: socket.socket | None = None
        self.turn: Turn | None = None  # what a later daemon is to know of the next write

    def write(self, parts: Sequence[Buffer]) -> int:
        """Write the joined `parts`, which hold whole lines; how many bytes were taken.

        Fewer than all: `error` is why, and the target is closed until the next call; or `error` is None, and the
        target (then no file) takes more when its descriptor becomes writable. A file that fails ends in a whole line.
        """
        self.error, self._taken = None, 0
        try:
            self._be_open()
            if self.regular and self.max_bytes and self._size + sum(map(len, parts)) > self.max_bytes:
                self._write_rotating(b"".join(parts))
            else:
                self._put(parts)
        except BlockingIOError:
            pass
        except OSError as error:
            self.error = error
            self.close()
        return self._taken

    def reopen(self) -> None:
        """Close, and open by name again, as after logrotate's rename; a failure shows with the next write."""
        if self.fd < 0:
            return
        self.close()
        try:
            self._open()
        except OSError:
            self.close()

    def close(self) -> None:
        """Let go of the descriptor."""
        if self._socket is not None:
            self._socket.close()
        elif self.fd >= 0:
            os.close(self.fd)
        self.fd, self._socket = -1, None

    def _be_open(self) -> None:
        if self.fd >= 0 and self.regular:
            now = time.monotonic()
            if now - self._checked > LOOK_SECONDS:
                self._checked = now
                if not os.fstat(self.fd).st_nlink:  # deleted: keeping it would fill the disk out of sight
                    self.close()
        if self.fd < 0:
            self._open()

    def _open(self) -> None:
        own = _OWN.get(self.path)
        self.fd = self._open_own(own) if own is not None else _open_path(self.path)
        facts = os.fstat(self.fd)
        self.regular = own is None and stat.S_ISREG(facts.st_mode)
        self._size = facts.st_size
        self._checked = time.monotonic()

    def _open_own(self, own: int) -> int:
        """The daemon's stdout or stderr, without making it non-blocking for those who share it."""
        kind = os.fstat(own).st_mode
        if stat.S_ISSOCK(kind):  # the journal's
            self._socket = socket.socket(fileno=os.dup(own))
            return self._socket.fileno()
        if not stat.S_ISREG(kind):
            try:
                return os.open(f"/proc/self/fd/{own}", os.O_WRONLY | _FLAGS)  # its own open file description
            except PermissionError:
                pass  # opened by another user; a blocking one then, and the spare writers must do
        return os.dup(own)

    def _put(self, parts: Sequence[Buffer]) -> None:
        total = sum(map(len, parts))
        data: Buffer = b""
        done = 0
        if self.turn is not None and self.regular:
            self.turn.note(self.fd)
        if len(parts) <= MAX_PARTS and self._socket is None:
            done = os.writev(self.fd, parts)
        if done < total:
            data = b"".join(parts)
            done = self._put_rest(data, done)
        self._size += done
        self._taken += done

    def _put_rest(self, data: bytes, done: int) -> int:
        """What one call did not take. On failure counts what stays written as taken and raises."""
        view = memoryview(data)
        try:
            while done < len(data):
                if self._socket is not None:
                    done += self._socket.send(view[done:], socket.MSG_DONTWAIT)
                else:
                    done += os.write(self.fd, view[done:])
        except OSError:
            self._taken += self._whole(data, done)
            raise
        return done

    def _whole(self, data: bytes, done: int) -> int:
        """How much of `data` stays written: a file is cut back behind its last whole line."""
        keep = data.rfind(b"\n", 0, done) + 1
        if not self.regular or keep == done:
            return done
        try:
            os.ftruncate(self.fd, os.fstat(self.fd).st_size - (done - keep))
        except OSError:
            return done
        return keep

    def _write_rotating(self, data: bytes) -> None:
        view, begin = memoryview(data), 0
        while begin < len(data):
            end = self._fitting(data, begin)
            if end > begin:
                self._put([view[begin:end]])
                if self.turn is not None:
                    self.turn.lines += data.count(b"\n", begin, end)
                begin = end
            else:
                self._rotate()

    def _fitting(self, data: bytes, begin: int) -> int:
        """The end of the lines from `begin` on that this file still takes."""
        room = self.max_bytes - self._size
        if len(data) - begin <= room:
            return len(data)
        end = data.rfind(b"\n", begin, begin + max(room, 0)) + 1
        if end <= begin and self._size == 0:  # one line longer than a file may be goes alone
            return data.find(b"\n", begin) + 1 or len(data)
        return end

    def _rotate(self) -> None:
        facts = os.fstat(self.fd)
        if facts.st_size < self._size:  # somebody made it shorter (logrotate's copytruncate)
            self._size = facts.st_size
        elif not self.backups:
            os.ftruncate(self.fd, 0)
            self._size = 0
        else:
            if _is_at(facts, self.path):
                shift(self.path, self.backups)
            self.close()
            self._open()


def _open_path(path: str) -> int:
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):
            # Reading too, so that it opens and tells when there is room although nobody reads yet; fifo(7).
            return os.open(path, os.O_RDWR | _FLAGS)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _FLAGS, FILE_MODE)


def _is_at(facts: os.stat_result, path: str) -> bool:
    try:
        return os.path.samestat(facts, os.stat(path))
    except FileNotFoundError:
        return False


def shift(path: str, backups: int) -> None:
    """Make room at `path`: it becomes `path.1`, `path.1` becomes `path.2`, until a gap or the last backup."""
    last = 1
    while last < backups and os.path.lexists(f"{path}.{last}"):
        last += 1
    for number in range(last, 1, -1):
        os.replace(f"{path}.{number - 1}", f"{path}.{number}")
    os.replace(path, f"{path}.1")


def ends_within_line(path: str) -> bool:
    """Does the file end without a newline? False for what is no file, or cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | _FLAGS)
    except OSError:
        return False
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or not facts.st_size:
            return False
        return os.pread(fd, 1, facts.st_size - 1) != b"\n"
    except OSError:
        return False
    finally:
        os.close(fd)


def tail(path: str, lines: int, max_bytes: int = 1024 * 1024) -> bytes:
    """The last whole `lines` of a log, at most `max_bytes`, going back through its backups where it is short.

    An unfinished last line counts as one. Nothing for what is no file or cannot be read. Blocks as files do: not for
    the event loop's thread.
    """
    got, seen, number = b"", set[tuple[int, int]](), 0
    while lines > 0 and len(got) < max_bytes:
        try:
            fd = os.open(f"{path}.{number}" if number else path, os.O_RDONLY | _FLAGS)
        except OSError:
            if number:
                break
            number = 1  # it may be between two names just now
            continue
        try:
            facts = os.fstat(fd)
            if not stat.S_ISREG(facts.st_mode):
                break
            if (facts.st_dev, facts.st_ino) not in seen:  # else it was renamed while we read
                seen.add((facts.st_dev, facts.st_ino))
                piece, lines, whole = _last(fd, facts.st_size, lines, max_bytes - len(got))
                got = piece + got
                if not whole:
                    break
        finally:
            os.close(fd)
        number += 1
    return got


def _last(fd: int, size: int, lines: int, max_bytes: int) -> tuple[bytes, int, bool]:
    """The last lines of one file, how many are still missing, and whether that was all of it."""
    data, begin, floor = b"", size, max(0, size - max_bytes)
    while begin > floor and data.count(b"\n", 0, -1) < lines:
        step = min(TAIL_BLOCK_BYTES, begin - floor)
        begin -= step
        data = os.pread(fd, step, begin) + data
    if begin:
        data = data[data.find(b"\n") + 1 :]  # its first line may not be whole
    rows = _split(data)
    return b"".join(rows[-lines:]), max(0, lines - len(rows)), not begin and len(rows) <= lines


def _split(data: bytes) -> list[bytes]:
    rows = [row + b"\n" for row in data.split(b"\n")]
    last = rows.pop()[:-1]
    return [*rows, last] if last else rows
