"""Why the daemon cannot be reached, and what to do about it. Loaded when that has happened."""

from __future__ import annotations

import errno
import os
import stat

from .address import Address
from .people import group_name, listed_members, user_name

START = "start it with: systemctl start unitd"
ELSEWHERE = "name the right one with -s URL or -c FILE"


def explain(address: Address, error: OSError) -> tuple[str, str]:
    """The cause of a connection that failed (missing, refused, permission or other) and a sentence for people."""
    if isinstance(error, TimeoutError | BlockingIOError):
        return "timeout", "it does not take the connection: it is overloaded, stopped, or stuck; see its log"
    if address.path is None:
        return _explain_tcp(address, error)
    if error.errno == errno.ENOENT:
        return "missing", _missing(address.path)
    if error.errno == errno.ECONNREFUSED:
        return "refused", _refused(address.path)
    if error.errno in (errno.EACCES, errno.EPERM):
        return "permission", _forbidden(address.path)
    return "other", error.strerror or str(error)


def _explain_tcp(address: Address, error: OSError) -> tuple[str, str]:
    if error.errno != errno.ECONNREFUSED:
        return "other", error.strerror or str(error)
    return "refused", (
        f"nothing listens on {address.host} port {address.port}: unitd is not running, or [http] listen is not set "
        "(it is off unless given); without -s and UNITCTL_SERVER its socket is used"
    )


def _missing(path: str) -> str:
    if _is_bound(path):
        return (
            "the socket file was removed while unitd runs (by a cleaner of temporary files?): "
            "restart unitd; its units keep running"
        )
    return f"there is no such socket: unitd is not running ({START}), or it listens elsewhere ({ELSEWHERE})"


def _is_bound(path: str) -> bool:
    """Whether a process listens on a socket of that name, whatever became of the file (proc(5), /proc/net/unix)."""
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
            return any(line.rstrip("\n").endswith(f" {path}") for line in table)
    except OSError:
        return False


def _refused(path: str) -> str:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return f"that file is not a socket: {ELSEWHERE}"
    except OSError:
        pass
    return f"nobody listens on that socket any more: unitd has died or was killed; its log says why ({START})"


def _forbidden(path: str) -> str:
    me = user_name(os.geteuid())
    try:
        found = os.stat(path)
    except OSError:
        return f"you are {me} and may not enter {os.path.dirname(path)}: use sudo, or ask for access to that folder"
    group = group_name(found.st_gid)
    mode = stat.S_IMODE(found.st_mode)
    facts = f"the socket belongs to {user_name(found.st_uid)}:{group} with mode {mode:04o}, and you are {me}"
    if not mode & stat.S_IWGRP or found.st_gid == 0:
        return f"{facts}: use sudo"
    if me in listed_members(found.st_gid):
        return f"{facts}: you are in group {group}, but this session began before that: log in again"
    return f"{facts}: use sudo, or join the group (sudo usermod -aG {group} {me}) and log in again"
