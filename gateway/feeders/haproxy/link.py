"""The processes of one HAProxy: the one that takes clients, and those of before a reload that still finish.

An old process goes on to send: of a client whose head it was reading, and with `option idle-close-on-response` the next
request of each kept-alive client, to the servers that it knew; nobody can tell it others. What it does can be asked
through a connection that was made before the reload; one that we have none to is known from /proc, on this host.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from itertools import pairwise

from gateway.errors import GatewayError, GatewayUnreachable
from gateway.settings.haproxy import HaproxySpec

from .session import Process, Session, open_session

_CLOCK_SECONDS = 2.0  # by which the start of a process may seem to differ


class Link:
    """`changes` grows whenever another process is found at the socket than before."""

    def __init__(self, spec: HaproxySpec) -> None:
        self._spec = spec
        self._session: Session | None = None
        self._process: Process | None = None
        self._old: list[Session] = []
        self._strangers: set[tuple[int, str]] = set()
        self._lock = asyncio.Lock()
        self.changes = 0

    async def current(self) -> Session:
        """A connection to the process that takes clients. Raises GatewayUnreachable and GatewayRefused."""
        async with self._lock:
            if self._session is not None and await self._still_serves(self._session):
                return self._session
            self._session = None
            self._session = await self._connect()
            return self._session

    async def confirm(self, session: Session) -> None:
        """Raises GatewayUnreachable when the process there takes no clients any more: another one does, or will."""
        if (await session.process()).stopping:
            raise GatewayUnreachable(f"cannot tell HAProxy {self._spec.name} anything: it is being reloaded")

    async def old(self) -> list[Session]:
        """Connections to those that finish. One that waits for nothing but for us is left alone, so that it ends."""
        async with self._lock:
            self._old = [session for session in self._old if await self._finishes(session)]
            return list(self._old)

    async def senders(self) -> list[Session]:
        """Those of `old` that may still send a new request."""
        senders = []
        for session in await self.old():
            with contextlib.suppress(GatewayError):  # it has just ended
                if await session.may_send():
                    senders.append(session)
        return senders

    def strangers(self) -> bool:
        """Whether there are old processes that cannot be asked anything."""
        self._strangers = {each for each in self._strangers if _started(each[0]) == each[1]}
        return bool(self._strangers)

    def close(self) -> None:
        """Hang up everywhere."""
        for session in (self._session, *self._old):
            if session is not None:
                session.close()
        self._session, self._old = None, []

    async def _still_serves(self, session: Session) -> bool:
        try:
            process = await session.process()
        except GatewayError:
            session.close()
            return False
        if process.stopping:
            self._old.append(session)
        return not process.stopping

    async def _finishes(self, session: Session) -> bool:
        try:
            if (await session.process()).jobs > 1:
                return True
        except GatewayError:  # it has ended, or it hangs
            if self._process is not None:
                self._strangers |= await self._unknown(self._process)
        session.close()
        return False

    async def _connect(self) -> Session:
        session = await open_session(self._spec.socket, self._spec.timeout_seconds)
        with contextlib.ExitStack() as stack:
            stack.callback(session.close)
            await self.confirm(session)
            process = await session.process()
            if self._process is None or _life(process) != _life(self._process):
                self._strangers = await self._unknown(process)
                self._process = process
                self.changes += 1
            stack.pop_all()
        return session

    async def _unknown(self, process: Process) -> set[tuple[int, str]]:
        """Those old processes that there is no connection to."""
        known: set[int] = set()
        for session in self._old:
            if not session.closed:
                with contextlib.suppress(GatewayError):
                    known.add((await session.process()).pid)
        return {each for each in others(process) if each[0] not in known}


def _life(process: Process) -> tuple[int, int]:
    return process.pid, process.started


def others(process: Process) -> set[tuple[int, str]]:
    """The other workers of this HAProxy on this host: (pid, when started). Empty when `process` is not on this host.

    They are told by the program's name and by its configuration files; the master is the father of its workers.
    """
    stat = _stat(process.pid)
    if stat is None or abs(_wall(stat[1][19]) - process.started) > _CLOCK_SECONDS:
        return set()
    name, files, father = stat[0], _config_files(process.pid), int(stat[1][1])
    found = set()
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        other = _stat(pid) if pid not in (process.pid, father) else None
        if other is not None and other[0] == name and other[1][0] not in "ZX" and _config_files(pid) == files:
            found.add((pid, other[1][19]))
    return found


def _stat(pid: int) -> tuple[str, list[str]] | None:
    """The name of a process and the fields after it, state first (proc(5), /proc/pid/stat)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return None
    return text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()


def _started(pid: int) -> str:
    """When a process began, in ticks since the host did; "" where there is none."""
    stat = _stat(pid)
    return stat[1][19] if stat is not None and stat[1][0] not in "ZX" else ""


def _wall(ticks: str) -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(ticks) / os.sysconf("SC_CLK_TCK")


def _config_files(pid: int) -> list[bytes]:
    """What follows `-f` in a command line."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return []
    return [after for word, after in pairwise(words) if word == b"-f"]
