"""Whether a unit's port is listened on by the unit, or by somebody else who was faster. It only looks."""

from __future__ import annotations

import os
from collections.abc import Iterable

from . import tree
from .clock import monotonic
from .traffic import Listener, Sockets, local_host

_KEPT_AT_LEAST = 64


class PortOwners:
    """Answers from one list of all listeners, which `refresh` takes, and from what it found out about their sockets.

    A socket never changes its inode, so the owner is looked up again only when another socket listens on the port.
    """

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets
        self._taken_at: float | None = None
        self._listeners: dict[int, list[Listener]] = {}
        self._hosts: dict[str, str] = {}  # address -> what `local_host` said
        self._holders: dict[int, list[int]] | None = None  # inode -> pids, of the whole host; None: not looked up
        self._own: dict[tuple[int, int], int] = {}  # (pid, port) -> inode of a listener of the unit's
        self._foreign: dict[tuple[int, int], tuple[int, int]] = {}  # (pid, port) -> inode, pid of somebody else
        self._kept_at_most = _KEPT_AT_LEAST

    def __len__(self) -> int:
        """How many (unit, port) it remembers something of."""
        return len(self._own) + len(self._foreign)

    def refresh(self, at_most_seconds_old: float = 0.0) -> None:
        """List the listeners, unless the last list is young enough. Raises OSError, and keeps the last list then."""
        now = monotonic()
        if self._taken_at is not None and now - self._taken_at < at_most_seconds_old:
            return
        self._listeners, self._taken_at = self._sockets.listeners(), now
        self._hosts.clear()
        self._holders = None
        self._forget_the_dead()

    def doubt(self, pid: int, address: str, port: int) -> str:
        """Why the unit whose leader is `pid` cannot be who answers there, in one sentence; "": no reason to doubt.

        It is the unit's if one of the sockets that listen there is open in its leader, in what descends from it, or in
        its session or group. Nor is there a doubt where it cannot be seen: the unit has another network namespace, its
        leader has just ended, /proc/PID/fd may not be read (another user's, and we are not root), or nobody in sight
        holds the socket (another pid namespace). All as of the last `refresh`; the first call takes one, and raises its
        OSError.
        """
        if self._taken_at is None:
            self.refresh()
        host = self._host(address)
        inodes = {listener.inode for listener in self._listeners.get(port, ()) if listener.serves(host)}
        if self._own.get((pid, port)) in inodes:
            return ""
        return self._look(pid, port, host, inodes)

    def queue(self, port: int) -> int | None:
        """How many connections to a port wait to be accepted, as of the last `refresh`; None: nobody listens there."""
        found = self._listeners.get(port)
        return sum(listener.queue for listener in found) if found else None

    def _host(self, address: str) -> str:
        if address not in self._hosts:
            self._hosts[address] = local_host(address)
        return self._hosts[address]

    def _look(self, pid: int, port: int, host: str, inodes: set[int]) -> str:
        self._own.pop((pid, port), None)
        leader = tree.stat(pid)
        if leader is None or leader.state in "ZX":
            return ""
        try:
            family = [pid, *tree.descendants(pid)]
            here = _network("self")
            if any(_network(member) not in (here, None) for member in family):
                return ""
            if not inodes:
                return self._silence(port, host)
            own = _first_held(family, inodes)
        except PermissionError:
            return ""
        if own is not None:
            self._own[pid, port] = own
            return ""
        return self._stranger(pid, port, inodes)

    def _silence(self, port: int, host: str) -> str:
        elsewhere = " and ".join(sorted({listener.address for listener in self._listeners.get(port, ())}))
        return f"nothing listens on port {port}" + (f" of {host}, only on that of {elsewhere}" if elsewhere else "")

    def _stranger(self, pid: int, port: int, inodes: set[int]) -> str:
        inode, owner = self._foreign.pop((pid, port), (0, 0))
        if inode not in inodes or not _holds(owner, inode):
            holders = [(inode, holder) for inode in inodes for holder in self._held_by().get(inode, ())]
            if not holders:
                return ""
            for inode, holder in holders:
                if _belongs(holder, pid):
                    self._own[pid, port] = inode
                    return ""
            inode, owner = min(holders, key=lambda held: held[1])
        self._foreign[pid, port] = inode, owner
        return f"port {port} is listened on by process {owner} ({_name(owner)}), which is not the unit's"

    def _held_by(self) -> dict[int, list[int]]:
        """Who has which listening socket open: dict[inode, pids]. Reads all of /proc, at most once a refresh."""
        if self._holders is None:
            self._holders = _all_holders({found.inode for every in self._listeners.values() for found in every})
        return self._holders

    def _forget_the_dead(self) -> None:
        if len(self) <= self._kept_at_most:
            return
        for known in (self._own, self._foreign):
            for key in [key for key in known if tree.stat(key[0]) is None]:
                del known[key]
        self._kept_at_most = max(_KEPT_AT_LEAST, 2 * len(self))


def _network(pid: int | str) -> tuple[int, int] | None:
    """Which network namespace a process is in; None: it has gone. Raises PermissionError."""
    try:
        namespace = os.stat(f"/proc/{pid}/ns/net")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return namespace.st_dev, namespace.st_ino


def _open_sockets(pid: int) -> Iterable[int]:
    """The inodes of a process's sockets. Raises PermissionError."""
    try:
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
            except (FileNotFoundError, ProcessLookupError):  # closed in between
                continue
            if target.startswith("socket:["):
                yield int(target[8:-1])
    except (FileNotFoundError, ProcessLookupError):
        return


def _first_held(pids: Iterable[int], inodes: set[int]) -> int | None:
    return next((inode for pid in pids for inode in _open_sockets(pid) if inode in inodes), None)


def _holds(pid: int, inode: int) -> bool:
    try:
        return inode in _open_sockets(pid)
    except PermissionError:
        return False


def _all_holders(inodes: set[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                for inode in inodes.intersection(_open_sockets(int(name))):
                    found.setdefault(inode, []).append(int(name))
            except PermissionError:
                continue
    return found


def _belongs(pid: int, leader: int) -> bool:
    place = tree.stat(pid)
    return place is not None and leader in (place.pgrp, place.session)


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "already gone"
