"""The daemon's folders and what is left in them, as who asks can see it: the daemon itself, or `unitctl` without it.

It looks and changes nothing. Disks may hang: call it where waiting hurts nobody.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Collection
from typing import IO

from .core.doctor import OK, PROBLEM, UNKNOWN, WARNING, Finding, judge_room
from .core.model import JOURNAL_VERSION, DaemonSpec

_SQLITE_MAGIC, _USER_VERSION = b"SQLite format 3\0", slice(60, 64)
_HEAD_BYTES, _LOG_HEADER_BYTES, _FRAME_HEADER_BYTES = 100, 32, 24


def look_at_folders(spec: DaemonSpec, *, as_daemon: bool) -> list[Finding]:
    """Whether the folders of the configuration can be written to, and have room.

    `as_daemon`: by the user that unitd runs as (else what this one may not do proves nothing).
    """
    folders = [("state_dir", spec.state_dir), ("log_dir", spec.log_dir), ("socket_dir", os.path.dirname(spec.socket))]
    return [_look_at_folder(check, path, as_daemon) for check, path in folders]


def _look_at_folder(check: str, path: str, as_daemon: bool) -> Finding:
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            return Finding(PROBLEM, check, check, f"{path} is not a folder", "move away what is there")
        room = os.statvfs(path)
    except FileNotFoundError:
        said = f"{path} does not exist"
        return Finding(PROBLEM, check, check, said, "make it, for the user that unitd runs as")
    except PermissionError as error:
        return Finding(UNKNOWN, check, check, f"{path} cannot be looked at: {error.strerror}", "ask as root")
    except OSError as error:
        said = f"{path} cannot be looked at: {error.strerror}"
        return Finding(PROBLEM, check, check, said, "see what the kernel says of its disk (dmesg)")
    inodes = room.f_favail if room.f_files else None
    writable = os.access(path, os.W_OK | os.X_OK, effective_ids=True)
    if not writable and not as_daemon:
        said = f"{path} cannot be written to by you, who may not be the user that unitd runs as"
        return Finding(UNKNOWN, check, check, said, "ask as root")
    return judge_room(check, path, room.f_bavail * room.f_frsize, inodes, writable=writable)


def look_at_journal(spec: DaemonSpec) -> Finding:
    """Whether this version of unitd can use the journal that is there.

    Not for a process that has it open: closing the file here would give up the locks there, fcntl(2).
    """
    path = os.path.join(spec.state_dir, "journal.sqlite")
    try:
        version = _journal_version(path)
    except FileNotFoundError:
        return Finding(OK, "journal", "journal", f"there is none yet at {path}")
    except OSError as error:
        return Finding(UNKNOWN, "journal", "journal", f"{path} cannot be read: {error.strerror}", "ask as root")
    except ValueError:
        return Finding(PROBLEM, "journal", "journal", f"{path} is none", "move it away to start with an empty one")
    return journal_of(path, version)


def journal_of(path: str, version: int) -> Finding:
    """What a journal of a version means to this one."""
    if version <= JOURNAL_VERSION:
        return Finding(OK, "journal", "journal", f"version {version}, {path}")
    said = f"{path} is of version {version}, by a later unitd; this one reads up to {JOURNAL_VERSION}"
    return Finding(PROBLEM, "journal", "journal", said, "install that unitd again, or move the journal away")


def _journal_version(path: str) -> int:
    """The number that the journal's tables carry (sqlite.org/fileformat2.html, 1.3.13). Raises OSError, ValueError.

    SQLite itself would leave files beside it, of whoever looks, and those the daemon might not be able to open.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if head and not head.startswith(_SQLITE_MAGIC):
        raise ValueError(f"{path} is no SQLite database")
    try:
        with open(f"{path}-wal", "rb") as file:
            return _logged_version(file, int.from_bytes(head[_USER_VERSION], "big"))
    except FileNotFoundError:
        return int.from_bytes(head[_USER_VERSION], "big")


def _logged_version(file: IO[bytes], version: int) -> int:
    """What the write-ahead log says of it (section 4): it holds what a killed daemon wrote last."""
    header = file.read(_LOG_HEADER_BYTES)
    page_bytes, salts = int.from_bytes(header[8:12], "big"), header[16:24]
    while len(frame := file.read(_FRAME_HEADER_BYTES)) == _FRAME_HEADER_BYTES and frame[8:16] == salts:
        page = file.read(page_bytes)
        if int.from_bytes(frame[:4], "big") == 1 and len(page) == page_bytes:
            version = int.from_bytes(page[_USER_VERSION], "big")
    return version


def look_at_sockets(spec: DaemonSpec, notify_sockets: Collection[str] | None) -> list[Finding]:
    """Sockets that an earlier daemon has left. `notify_sockets` are the living ones; None: no daemon runs."""
    findings = []
    if notify_sockets is None and _is_dead(spec.socket):
        said = "its daemon has died: nobody listens on it"
        findings.append(
            Finding(WARNING, "sockets", "sockets", f"{spec.socket}: {said}", "nothing: the next unitd replaces it")
        )
    left = sorted(_sockets_in(f"{spec.socket}.notify").difference(notify_sockets or ()))
    if left:
        said = f"{len(left)} notify sockets belong to no attempt, such as {left[0]}"
        findings.append(
            Finding(WARNING, "sockets", f"{spec.socket}.notify", said, "nothing: they go with the next unitd")
        )
    return findings or [Finding(OK, "sockets", "sockets", "none is left behind")]


def _is_dead(path: str) -> bool:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False


def _sockets_in(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.path for entry in entries if stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)}
    except OSError:
        return set()
