"""cgroup v2: one folder per unit below a delegated one, so that nothing of a unit can escape (cgroups(7)).

Without a delegated folder there are no cgroups here, and `process.py` works with groups and the subreaper alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from queue import SimpleQueue

from ..core.model import Limits
from .tree import descendants

log = logging.getLogger("unitd")


def find_base(setting: str) -> Path | None:
    """The folder that units' cgroups may be made in; None: there is none, or `setting` is "off".

    "auto" takes the daemon's own cgroup if its owner gave it away: systemd marks it so (`Delegate=yes`), a folder
    owned by another user than root belongs to that user, and without systemd nobody else manages it.
    """
    if setting == "off":
        return None
    if setting != "auto":
        return Path(setting) if _usable(Path(setting)) else None
    own = own_cgroup()
    for folder in (_beside(own), own) if own is not None else ():
        if _usable(folder) and _delegated(folder):
            return folder
    return None


def _beside(own: Path) -> Path:
    """Of a service that systemd runs, /system.slice/unitd.service, its units' place: /system.slice/unitd-units.service.

    Below its own it would do only once: systemd can start nobody in a cgroup that has others below it, which have
    controllers (cgroups(7), the "no internal processes" rule), and units go on while the daemon is replaced.
    """
    return own.with_name(f"{own.name.removesuffix('.service')}-units.service")


def own_cgroup() -> Path | None:
    """The cgroup v2 folder that this process is in; None: there is none."""
    mount = None
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[fields.index("-") + 1] == "cgroup2":
            mount = Path(fields[4])
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if mount is not None and line.startswith("0::"):
            return mount / line[3:].lstrip("/")
    return None


def _usable(folder: Path) -> bool:
    """Cgroups can be made in it, processes moved from it into them, and killed there."""
    # In a container the whole file system may be read-only, which is not to be seen from what exists.
    if not os.access(folder, os.W_OK) or not os.access(folder / "cgroup.procs", os.W_OK):
        return False
    return (folder / "cgroup.kill").exists() or _kernel_has_kill()


def _kernel_has_kill() -> bool:
    major, minor = (int(part) for part in os.uname().release.split(".")[:2])
    return (major, minor) >= (5, 14)  # the root cgroup has no cgroup.kill of its own to look at


def _delegated(folder: Path) -> bool:
    if not Path("/run/systemd/system").exists():
        return True
    for name in ("trusted.delegate", "user.delegate"):
        try:
            if os.getxattr(folder, name) == b"1":
                return True
        except OSError:
            continue
    return folder.stat().st_uid != 0


def open_home(setting: str) -> Path | None:
    """The folder for this daemon's units, where the setting and the machine allow one; else None. Raises OSError."""
    base = find_base(setting)
    log.info("units get %s", f"cgroups below {base}" if base else "process groups: there is no delegated cgroup v2")
    return make_home(base) if base else None


def close_home(home: Path) -> None:
    """Remove it, and what earlier daemons have left beside it."""
    UnitGroup(str(home)).remove()
    remove_old_homes(home.parent)


def make_home(base: Path) -> Path:
    """A folder for this daemon's units alone: several daemons may have the same base. Raises OSError.

    Controllers are passed on as far as that goes (`memory_max` and `pids_max` need them): only from a cgroup that no
    process is in itself, so the daemon moves into a leaf of its own.
    """
    remove_old_homes(base)
    home = base / f"unitd-{os.getpid()}"
    home.mkdir(exist_ok=True)
    if _has_controllers(base) and not _pass_on(base):
        leaf = home / "daemon"
        leaf.mkdir(exist_ok=True)
        _write(str(leaf / "cgroup.procs"), "0")
        _pass_on(base)
    _pass_on(home)
    return home


def remove_old_homes(base: Path) -> None:
    """Remove the folders of daemons that were killed; one that something still lives in stays."""
    for old in base.glob("unitd-*"):
        if old.name[6:].isdigit() and not os.path.exists(f"/proc/{old.name[6:]}"):
            UnitGroup(str(old)).remove()


def group_left(home: Path, unit: str, attempt: int, pids: Collection[int]) -> UnitGroup | None:
    """The cgroup that an earlier daemon with the same base made for an attempt; known by members that are the unit's.

    The name alone says nothing: several daemons may have the same base, and units of the same name.
    """
    for old in home.parent.glob("unitd-*"):
        group = UnitGroup(f"{old}/{unit}-{attempt}")
        if not set(pids).isdisjoint(group.pids()):
            return group
    return None


def _has_controllers(folder: Path) -> bool:
    available = (folder / "cgroup.controllers").read_text().split()
    return "memory" in available or "pids" in available


def _pass_on(folder: Path) -> bool:
    return all(_write(f"{folder}/cgroup.subtree_control", f"+{name}") is None for name in ("memory", "pids"))


def _write(path: str, value: str) -> OSError | None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        return error
    try:
        os.write(descriptor, value.encode())
    except OSError as error:
        return error
    finally:
        os.close(descriptor)
    return None


def _read(path: str) -> bytes:
    """A file of the cgroup; empty if the cgroup has gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 1 << 20)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


class UnitGroup:
    """The cgroup of one attempt. Made before the process, removed after its end."""

    __slots__ = ("folder",)

    def __init__(self, folder: str) -> None:
        self.folder = folder

    @classmethod
    def make(cls, home: Path, unit: str, attempt: int, limits: Limits) -> tuple[UnitGroup, list[str]]:
        """A fresh cgroup, and which limits could not be set. Raises OSError."""
        folder = f"{home}/{unit}-{attempt}"
        os.mkdir(folder)
        unset = [
            f"{name}: {error.strerror}"
            for name, value in (("memory.max", limits.memory_max), ("pids.max", limits.pids_max))
            if value is not None and (error := _write(f"{folder}/{name}", str(value)))
        ]
        return cls(folder), unset

    def take(self, pid: int) -> None:
        """Move a process in, and its children until there are none outside. Blocks for some milliseconds.

        A grandchild whose parent ended meanwhile has become the daemon's child: its sweep for orphans finds it.
        """
        moved: set[int] = set()
        found = [pid]
        while found:
            for item in found:
                _write(f"{self.folder}/cgroup.procs", str(item))  # an error: it has ended
            moved.update(found)
            found = [item for item in descendants(pid) if item not in moved]

    def pids(self) -> list[int]:
        """The living members of the cgroup and of what they made below it."""
        return [int(pid) for folder in self._folders() for pid in _read(f"{folder}/cgroup.procs").split()]

    def _folders(self) -> list[str]:
        """The cgroup's folder and those below it, these last."""
        try:
            if os.stat(self.folder).st_nlink == 2:  # no folder in it: the usual case
                return [self.folder]
        except OSError:
            return []
        return [folder for folder, _, _ in os.walk(self.folder)]

    def populated(self) -> bool:
        """Somebody lives in it or below it."""
        return b"populated 1" in _read(f"{self.folder}/cgroup.events")

    def kill(self) -> None:
        """SIGKILL to all of it at once, whatever forks meanwhile."""
        _write(f"{self.folder}/cgroup.kill", "1")

    def remove(self) -> None:
        """Remove it and what its members made below; what is still in use stays."""
        for folder in reversed(self._folders()):
            try:
                os.rmdir(folder)
            except OSError:
                continue


class Mover:
    """Moves new processes into their cgroups, in a thread: each move waits for all of the kernel's readers (10 ms).

    (A child could join before exec, but then its parent would wait just as long, and the loop with it.)
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[tuple[UnitGroup, int, Callable[[], None]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def move(self, group: UnitGroup, pid: int, done: Callable[[], None]) -> None:
        """Move a process; `done` is called in the loop. The pid must not be reaped before."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="unitd-cgroups", daemon=True)
            self._thread.start()
        self._queue.put((group, pid, done))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            group, pid, done = item
            group.take(pid)
            try:
                self._loop.call_soon_threadsafe(done)
            except RuntimeError:
                return  # the loop has ended

    def close(self) -> None:
        """End the thread."""
        self._queue.put(None)


class GroupWatch:
    """Tells when a cgroup becomes empty, without polling: `fileno` is readable when `emptied` has something to say.

    cgroup.events is announced as EPOLLPRI, which an event loop does not ask for; an epoll of our own does.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, UnitGroup] = {}

    def fileno(self) -> int:
        """For the loop's add_reader."""
        return self._epoll.fileno()

    def add(self, group: UnitGroup) -> None:
        """Watch a cgroup until it is empty. Raises OSError."""
        if group in self._watched.values():
            return
        descriptor = os.open(f"{group.folder}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        self._watched[descriptor] = group
        os.read(descriptor, 256)
        self._epoll.register(descriptor, select.EPOLLPRI)

    def emptied(self) -> list[UnitGroup]:
        """The cgroups that became empty since the last call; they are not watched any more."""
        found = []
        for descriptor, _ in self._epoll.poll(0):
            try:
                os.lseek(descriptor, 0, os.SEEK_SET)
                populated = b"populated 1" in os.read(descriptor, 256)
            except OSError:  # ENODEV: it has been removed
                populated = False
            if not populated:
                found.append(self._watched.pop(descriptor))
                os.close(descriptor)
        return found

    def discard(self, group: UnitGroup) -> None:
        """Do not watch it any more."""
        for descriptor in [known for known, watched in self._watched.items() if watched is group]:
            del self._watched[descriptor]
            os.close(descriptor)

    def close(self) -> None:
        """Stop watching."""
        for descriptor in self._watched:
            os.close(descriptor)
        self._watched.clear()
        self._epoll.close()
