"""Which processes belong together, read from /proc (proc(5)). It only looks; `process.py` acts.

Whom a process was started for is told by variables that units get and their children inherit: UNITD_UNIT,
UNITD_GENERATION and UNITD_STATE (which daemon's folder they are of); UNITD_COMMAND marks what is no part of a unit,
but a command that was run for it. A program that writes over its environment (nginx, setproctitle(3)) cannot be told
so.
"""

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


class Marks(NamedTuple):
    """What the environment of a process says of whom it was started for; empty values where it says nothing."""

    unit: str = ""
    attempt: int = 0
    state_id: str = ""
    command: bool = False  # run for a unit, and no part of it


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
    fields = _stat_fields(pid)
    if not fields:
        return None
    return Stat(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]))


def groups_of(pid: int) -> set[int]:
    """The numbers of its process group and session; none if it has gone, or they are another pid namespace's."""
    place = stat(pid)
    return {place.pgrp, place.session} - {0} if place else set()


def start_ticks(pid: int) -> int | None:
    """When a process was started, in clock ticks since the boot; None if it has gone. With its pid and the boot it is
    the identity of a process."""
    fields = _stat_fields(pid)
    return int(fields[19]) if fields else None


def age_seconds(pid: int) -> float | None:
    """For how long a process has existed; None if it has gone."""
    ticks = start_ticks(pid)
    return None if ticks is None else time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def boot_id() -> str:
    """A name of the time since this machine has booted."""
    with open("/proc/sys/kernel/random/boot_id", "rb", buffering=0) as file:
        return (file.read(100) or b"").decode().strip()


def _stat_fields(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third one, the state, on; [] if the process has gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(1024) or b""
    except (FileNotFoundError, ProcessLookupError):
        return []
    # The command name is in brackets and may itself hold brackets and spaces.
    return text[text.rfind(b")") + 2 :].split()


def marks_of(pid: int) -> Marks:
    """Whom a process was started for.

    May take some milliseconds: in the middle of an exec, a process has no environment for a moment.
    """
    variables = _environment(pid)
    for _ in range(EXEC_MILLISECONDS):
        if variables or variables is None:
            break
        time.sleep(0.001)
        variables = _environment(pid)
    return _marks(variables or b"")


def unit_of(pid: int) -> str | None:
    """The unit that a process is a part of, by its marks. May take some milliseconds, see there."""
    marks = marks_of(pid)
    return None if marks.command else marks.unit or None


def _environment(pid: int) -> bytes | None:
    """None: it has gone, or is of another user where we are not root. Zombies and kernel threads have none: b""."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return file.read(1 << 20) or b""
    except OSError:
        return None


def _marks(variables: bytes) -> Marks:
    found = dict[bytes, bytes]()
    for variable in variables.split(b"\0"):
        if variable.startswith(b"UNITD_"):
            key, _, value = variable.partition(b"=")
            found.setdefault(key, value)
    generation = found.get(b"UNITD_GENERATION", b"")
    return Marks(
        os.fsdecode(found.get(b"UNITD_UNIT", b"")),
        int(generation) if generation.isdigit() else 0,
        os.fsdecode(found.get(b"UNITD_STATE", b"")),
        found.get(b"UNITD_COMMAND") == b"1",
    )


def leftovers(state_id: str) -> dict[tuple[str, int], list[int]]:
    """Every living process that a daemon with this state folder has started: dict[(unit, attempt), pids].

    One pass over /proc. Commands are left out, and whatever runs as another user where we are not root.
    """
    found: dict[tuple[str, int], list[int]] = {}
    pids = _pids()
    for _ in range(EXEC_MILLISECONDS):
        empty = []
        for pid in pids:
            variables = _environment(pid)
            if variables == b"":
                empty.append(pid)
            elif variables and (marks := _marks_with(variables, state_id)):
                found.setdefault((marks.unit, marks.attempt), []).append(pid)
        if not empty:
            break
        pids = empty
        time.sleep(0.001)  # some may be in the middle of an exec; the others are kernel threads and zombies
    return {key: sorted(found[key]) for key in found}


def _marks_with(variables: bytes, state_id: str) -> Marks | None:
    if b"UNITD_STATE=" + os.fsencode(state_id) not in variables:  # quick: most processes of a host are not ours
        return None
    marks = _marks(variables)
    return marks if marks.state_id == state_id and marks.unit and not marks.command else None


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


class Survey:
    """All living processes of the host at one moment: reading /proc takes time, and is done once for many questions."""

    def __init__(self, state_id: str = "") -> None:
        self._state_id = state_id
        stats = [entry for pid in _pids() if (entry := stat(pid))]
        self._alive = [entry for entry in stats if entry.state not in "ZX"]
        self._pids = {entry.pid for entry in self._alive}
        self._together: dict[int, set[int]] = {}  # by the number of a group or session
        self._below: dict[int, list[int]] = {}
        for entry in self._alive:
            self._below.setdefault(entry.ppid, []).append(entry.pid)
            for number in {entry.pgrp, entry.session}:
                self._together.setdefault(number, set()).add(entry.pid)
        self._marked: dict[tuple[str, int], list[int]] | None = None
        self._ours: dict[str | None, list[int]] | None = None  # children of ours, by the unit that they are marked with

    def members(self, leader: int, unit: str, *, ended: bool = False, adopted_attempt: int | None = None) -> list[int]:
        """Every living process of a unit: of its leader's group or session, below one of those, or an orphan of ours
        that is marked so.

        `leader` may be 0: there is none. `ended`: it has been reaped, by whomever. With `adopted_attempt` also whatever
        is marked with this attempt, for the orphans of adopted processes are not ours.
        """
        reused = ended and leader in self._pids  # the number is somebody else's now
        found = set(self._together.get(leader, ())) if leader and not reused else set[int]()
        found.update(self._our_children().get(unit, ()))
        if adopted_attempt is not None:
            found.update(self._all_marked().get((unit, adopted_attempt), ()))
        queue = list(found)
        while queue:
            below = [pid for pid in self._below.get(queue.pop(), ()) if pid not in found]
            found.update(below)
            queue += below
        return sorted(found)

    def _our_children(self) -> dict[str | None, list[int]]:
        if self._ours is None:
            self._ours = {}
            for pid in self._below.get(os.getpid(), ()):
                self._ours.setdefault(unit_of(pid), []).append(pid)
        return self._ours

    def _all_marked(self) -> dict[tuple[str, int], list[int]]:
        if self._marked is None:
            self._marked = leftovers(self._state_id) if self._state_id else {}
        return self._marked


def members(leader: int, unit: str) -> list[int]:
    """Every living process of a unit, see `Survey`."""
    return Survey().members(leader, unit)
