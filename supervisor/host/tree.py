"""Which processes belong together, read from /proc (proc(5)). It only looks; `process.py` acts."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

EXEC_MILLISECONDS = 5


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that matter here."""

    pid: int
    state: str
    ppid: int
    pgrp: int
    session: int


def children(pid: int) -> list[int]:
    """The children of all threads of a process, zombies too; [] if it has gone."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb", buffering=0) as file:
                found += map(int, (file.read(1 << 20) or b"").split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def descendants(pid: int) -> list[int]:
    """Everything below a process at this moment."""
    found: list[int] = []
    queue = children(pid)
    while queue:
        found += queue
        queue = [grandchild for child in queue for grandchild in children(child)]
    return found


def stat(pid: int) -> Stat | None:
    """A process's place; None if it has gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(1024) or b""
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name is in brackets and may itself hold brackets and spaces.
    fields = text[text.rfind(b")") + 2 :].split()
    return Stat(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]))


def unit_of(pid: int) -> str | None:
    """The unit that a process was started for, by the variable UNITD_UNIT that units get and their children inherit.

    May take some milliseconds: in the middle of an exec, a process has no environment for a moment.
    """
    try:
        variables = _environment(pid)
        for _ in range(EXEC_MILLISECONDS):
            if variables:
                break
            time.sleep(0.001)
            variables = _environment(pid)
    except OSError:  # gone, or of another user where we are not root
        return None
    for variable in variables.split(b"\0"):
        if variable.startswith(b"UNITD_UNIT="):
            return os.fsdecode(variable[11:])
    return None


def _environment(pid: int) -> bytes:
    with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
        return file.read(1 << 20) or b""


def members(leader: int, unit: str) -> list[int]:
    """Every living process of a unit: of its leader's group or session, below one of those, or an orphan marked so.

    It reads all of /proc, so it is for the few cases in which something is known to be left.
    """
    own_pid = os.getpid()
    stats = [entry for name in os.listdir("/proc") if name.isdigit() and (entry := stat(int(name)))]
    alive = [entry for entry in stats if entry.state not in "ZX"]
    found = {entry.pid for entry in alive if leader in (entry.pgrp, entry.session)}
    found |= {entry.pid for entry in alive if entry.ppid == own_pid and unit_of(entry.pid) == unit}
    grown = True
    while grown:
        below = {entry.pid for entry in alive if entry.ppid in found} - found
        found |= below
        grown = bool(below)
    return sorted(found)
