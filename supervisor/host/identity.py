"""Who a unit runs as: names to ids, with supplementary groups and the environment that goes with a user."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from errno import EPERM

from ..errors import SpawnError

_NO_ID = 2**32 - 1  # means "leave it as it is" to the kernel


@dataclass(frozen=True, slots=True)
class Identity:
    """What `spawn` switches to. `environment` is HOME, USER, LOGNAME and SHELL of the user."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    environment: tuple[tuple[str, str], ...]


def resolve(user: str | None, group: str | None) -> Identity | None:
    """The identity that a unit asks for, None for the daemon's own. Names or numbers. Raises SpawnError."""
    if user is None and group is None:
        return None
    entry = _user(user) if user is not None else None
    uid = entry.pw_uid if entry else os.geteuid()
    gid = _gid(group) if group is not None else (entry.pw_gid if entry else os.getegid())
    if os.geteuid() != 0 and (uid, gid) != (os.geteuid(), os.getegid()):
        wanted = user if user is not None else f"group {group}"
        raise SpawnError("user", EPERM, f"no permission to run as {wanted}: unitd itself does not run as root")
    groups = tuple(os.getgrouplist(entry.pw_name, gid)) if entry else (gid,)
    environment = _environment(entry) if entry else ()
    return Identity(uid, gid, groups, environment)


def _environment(entry: pwd.struct_passwd) -> tuple[tuple[str, str], ...]:
    shell = entry.pw_shell or "/bin/sh"
    return ("HOME", entry.pw_dir), ("USER", entry.pw_name), ("LOGNAME", entry.pw_name), ("SHELL", shell)


def _user(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(user)) if _is_number(user) else pwd.getpwnam(user)
    except KeyError:
        raise SpawnError("user", 0, f"no such user: {user}") from None


def _is_number(name: str) -> bool:
    """A uid or gid; longer numbers are none, and are looked for as names."""
    return name.isascii() and name.isdigit() and len(name) <= 10 and int(name) < _NO_ID


def _gid(group: str) -> int:
    if _is_number(group):
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise SpawnError("group", 0, f"no such group: {group}") from None
