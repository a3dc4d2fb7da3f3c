"""Names of users and groups, as messages show them."""

from __future__ import annotations

import grp
import pwd


def user_name(uid: int) -> str:
    """The user's name, or else the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """The group's name, or else the number."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def listed_members(gid: int) -> list[str]:
    """Those that the group itself lists."""
    try:
        return grp.getgrgid(gid).gr_mem
    except KeyError:
        return []
