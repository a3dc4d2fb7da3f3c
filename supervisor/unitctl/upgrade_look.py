"""What `upgrade-check` looks at by itself: the journal, processes, the lock, and what systemd would do.

It changes nothing, and takes no lock that a daemon could stumble over.
"""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, suppress
from urllib.parse import quote

from ..core.upgrade import Kept

_SYSTEMCTL_SECONDS = 5.0
_ENVIRONMENT_BYTES = 1 << 20


def boot_id() -> str:
    """A name of the time since this machine has booted."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def read_journal(state_dir: str) -> dict[str, Kept]:
    """dict[unit name, what is on record of it and lives]. Raises FileNotFoundError, OSError and sqlite3.Error.

    Whatever the journal's version, for older ones lack tables and later ones may have others: ask for it before.
    """
    path = os.path.join(state_dir, "journal.sqlite")
    os.stat(path)
    # Where there is no log nobody writes, and SQLite would make one. Where there is one it is read, and left.
    how = "mode=ro" if os.path.exists(f"{path}-wal") else "mode=ro&immutable=1"
    with closing(sqlite3.connect(f"file:{quote(path)}?{how}", uri=True)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        facts = list(database.execute("SELECT kind, unit, value FROM fact")) if "fact" in tables else []
        rows = list(database.execute("SELECT unit, pid, ticks, boot FROM process")) if "process" in tables else []
    return _kept(facts, rows)


def _kept(facts: list[tuple[str, str, str]], processes: list[tuple[str, int, int, str]]) -> dict[str, Kept]:
    by_kind: dict[str, dict[str, str]] = {"unit": {}, "spec": {}, "state": {}}
    for kind, unit, value in facts:
        by_kind.setdefault(kind, {})[unit] = value
    boot = boot_id()
    leaders = {unit: pid for unit, pid, ticks, born in processes if born == boot and _start_ticks(pid) == ticks}
    state_id = by_kind["state"].get("id")
    marked = _marked(state_id) if state_id else {}
    return {
        name: Kept(by_kind["unit"].get(name), by_kind["spec"].get(name), leaders.get(name),
                   tuple(pid for pid in marked.get(name, ()) if pid != leaders.get(name)))
        for name in {*by_kind["unit"], *leaders, *marked}
    }  # fmt: skip


def _start_ticks(pid: int) -> int | None:
    """When it was started, as proc(5) tells; None: it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    fields = text[text.rfind(b")") + 2 :].split()
    return None if len(fields) < 20 or fields[0] in b"ZX" else int(fields[19])


def _marked(state_id: str) -> dict[str, list[int]]:
    """By unit, the processes whose environment says that a daemon of that state folder has started them for it."""
    found: dict[str, list[int]] = defaultdict(list)
    for pid, variables in _environments():
        marks = dict(
            part.split(b"=", 1) for part in variables.split(b"\0") if part.startswith(b"UNITD_") and b"=" in part
        )
        if marks.get(b"UNITD_STATE") == state_id.encode() and marks.get(b"UNITD_COMMAND") != b"1":
            found[os.fsdecode(marks.get(b"UNITD_UNIT", b""))].append(pid)
    return {unit: sorted(pids) for unit, pids in found.items() if unit}


def _environments() -> Iterator[tuple[int, bytes]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                yield int(name), file.read(_ENVIRONMENT_BYTES)


def holder_of(state_dir: str) -> int | None:
    """The pid of the daemon that holds the lock of a state folder; None: nobody does, or it may not be seen.

    Read from /proc/locks: to try the lock would mean to hold it for a moment, in which no daemon could start.
    """
    try:
        with open(os.path.join(state_dir, "lock")) as file:
            said, inode = file.read(4096), os.fstat(file.fileno()).st_ino
        with open("/proc/locks") as file:
            held = [line.split() for line in file]
    except OSError:
        return None
    match = re.match(r"pid (\d+),", said)
    for words in held:
        if "FLOCK" in words and match and match[1] in words and any(word.endswith(f":{inode}") for word in words):
            return int(match[1])
    return None


def cgroup_of(pid: int) -> str | None:
    """The path of a process's cgroup v2; None: it has ended, or there is none."""
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            return next((line.rstrip("\n")[3:] for line in file if line.startswith("0::")), None)
    except OSError:
        return None


def service_of(pid: int) -> tuple[str, str] | None:
    """The service of systemd that a process runs in, and its cgroup; None: it runs in none."""
    parts = (cgroup_of(pid) or "").split("/")
    for index in range(len(parts) - 1, 0, -1):
        if parts[index].endswith(".service"):
            return parts[index], "/".join(parts[: index + 1])
    return None


def units_inside(kept: dict[str, Kept], cgroup: str) -> list[str]:
    """The units with processes in a cgroup or below it."""
    return sorted(
        name
        for name, each in kept.items()
        if any(f"{cgroup_of(pid)}/".startswith(f"{cgroup}/") for pid in (each.leader, *each.others) if pid is not None)
    )


def ask_manager(service: str) -> dict[str, str]:
    """What systemd says of a service. Raises OSError and ValueError."""
    line = ["systemctl", "show", "--property=KillMode,NeedDaemonReload", service]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=_SYSTEMCTL_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"no answer within {_SYSTEMCTL_SECONDS:g} s") from error
    if done.returncode != 0:
        raise ValueError(done.stderr.strip() or f"systemctl ended with {done.returncode}")
    return dict(row.split("=", 1) for row in done.stdout.splitlines() if "=" in row)
