"""What `doctor` looks at by itself: the socket's rights, and what the service manager would do."""

from __future__ import annotations

import os
import pwd
import re
import stat
import subprocess

from ..core.doctor import OK, WARNING, Finding
from .address import Address
from .people import group_name, listed_members, user_name

_SYSTEMCTL_SECONDS = 5.0
_TIME = re.compile(r"(\d+)(us|ms|s|min|h|d|w|month|y)")  # as systemd.time(7) prints a length of time
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0,
            "month": 2629800.0, "y": 31557600.0}  # fmt: skip


def look_at_socket(address: Address) -> list[Finding]:
    """Who may use the daemon's socket; nothing for TCP or where there is no socket."""
    if address.path is None:
        return []
    try:
        found = os.stat(address.path)
    except OSError:
        return []
    if not stat.S_ISSOCK(found.st_mode):
        return []
    mode = stat.S_IMODE(found.st_mode)
    text = f"belongs to {user_name(found.st_uid)}:{group_name(found.st_gid)} with mode {mode:04o}"
    if mode & stat.S_IWOTH:
        return [
            Finding(WARNING, "socket_rights", "socket", f"{text}: everybody may knock", "restart unitd, which sets it")
        ]
    if not mode & stat.S_IWGRP or found.st_gid == 0:
        return [Finding(OK, "socket_rights", "socket", f"{text}: its user and root may command")]
    members = ", ".join(_members(found.st_gid)) or "nobody else"
    return [Finding(OK, "socket_rights", "socket", f"{text}: its user, root and its group ({members}) may command")]


def _members(gid: int) -> list[str]:
    """Those that the group lists, and those whose first group it is."""
    return sorted({*listed_members(gid), *(user.pw_name for user in pwd.getpwall() if user.pw_gid == gid)})


def find_stop_limit(unit: str) -> float | None:
    """How many seconds systemd waits for the end of a service; None: for ever. Raises OSError and ValueError."""
    line = ["systemctl", "show", "--property=TimeoutStopUSec", "--value", unit]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=_SYSTEMCTL_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"no answer within {_SYSTEMCTL_SECONDS:g} s") from error
    if done.returncode != 0:
        raise ValueError(done.stderr.strip() or f"systemctl ended with {done.returncode}")
    return read_span(done.stdout.strip())


def read_span(text: str) -> float | None:
    """`1min 30s` in seconds; None: infinity. Raises ValueError."""
    if text == "infinity":
        return None
    parts = text.split()
    found = [_TIME.fullmatch(part) for part in parts]
    if not parts or not all(found):
        raise ValueError(f"cannot read the length of time {text!r}")
    return sum(int(match[1]) * _SECONDS[match[2]] for match in found if match is not None)
