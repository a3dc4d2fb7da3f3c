"""Listening sockets: makes them, accepts from them, says who connected. Knows nothing of what is spoken on them.

A listener accepts by itself instead of through `loop.create_server`, which, when descriptors run out, logs a
traceback and arms a timer for each place in its backlog, and arms them for closed sockets too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import socket
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

log = logging.getLogger("unitd.listener")

BACKLOG = 128
ACCEPT_RETRY_SECONDS = 1.0
_ACCEPTS_PER_WAKE = 32
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end. The numbers are SO_PEERCRED's (unix(7)) and None on TCP."""

    uid: int | None
    gid: int | None
    pid: int | None
    address: str  # "unix" or "127.0.0.1:45678"
    ours: str = field(default="", compare=False)  # the address of our end; "" on a unix socket
    names: tuple[str, ...] = ()  # in its client certificate, which was verified


def peer_of(connected: socket.socket) -> Peer:
    """Who connected; on a unix socket as the kernel noted it when they did."""
    if connected.family == socket.AF_UNIX:
        raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, gid = _CREDENTIALS.unpack(raw)
        return Peer(uid, gid, pid, "unix")
    host, port = connected.getpeername()[:2]
    our_host, our_port = connected.getsockname()[:2]
    return Peer(None, None, None, f"{host}:{port}", f"{our_host}:{our_port}")


def bind_unix(path: str, *, mode: int, gid: int | None) -> socket.socket:
    """A listening unix socket at `path`, whose folder must exist. Raises OSError, EADDRINUSE if it is in use.

    A socket file that nobody answers on is replaced; any other file is left alone and counts as in use. Owner and
    mode are right before anybody can connect: that takes listen(), which comes last.
    """
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Two daemons that start at once must not both find the file stale and remove each other's.
        fcntl.flock(folder, fcntl.LOCK_EX)
        _remove_stale(path)
        return _bind_and_listen(path, mode, gid)
    finally:
        os.close(folder)


def bind_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket on an address or a name of this host; port 0 takes a free one, :: means IPv4 too."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=host == "::")


def _bind_and_listen(path: str, mode: int, gid: int | None) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        umask = os.umask(0o777 & ~mode)
        try:
            listening.bind(path)
        finally:
            os.umask(umask)
        try:
            if gid is not None:
                os.chown(path, -1, gid)
            listening.listen(BACKLOG)
        except BaseException:
            os.unlink(path)
            raise
    except BaseException:
        listening.close()
        raise
    return listening


def _remove_stale(path: str) -> None:
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise OSError(errno.EADDRINUSE, "cannot listen: the file exists and is no socket", path)
    if _is_answered(path):
        raise OSError(errno.EADDRINUSE, "cannot listen: another process listens there", path)
    os.unlink(path)


def _is_answered(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a listener whose backlog is full would block us
        outcome = probe.connect_ex(path)
    return outcome not in (errno.ECONNREFUSED, errno.ENOENT)


class Listener:
    """Accepts on one listening socket, which it owns, and hands each connection to `accepted`.

    Out of descriptors or memory it pauses for ACCEPT_RETRY_SECONDS; clients wait in the backlog meanwhile.
    """

    __slots__ = ("_accepted", "_identity", "_listening", "_loop", "_path", "_retry")

    def __init__(
        self, listening: socket.socket, accepted: Callable[[socket.socket], None], *, accepts: bool = True
    ) -> None:
        """With `accepts` at once, else from `begin` on."""
        self._listening, self._accepted = listening, accepted
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self._path = listening.getsockname() if listening.family == socket.AF_UNIX else None
        self._identity = _identity(self._path)
        listening.setblocking(False)
        if accepts:
            self.begin()

    def begin(self) -> None:
        """Accept from now on; who has connected before waits in the backlog."""
        self._loop.add_reader(self._listening, self._accept)

    @property
    def address(self) -> str | tuple[str, int]:
        """The path of a unix socket, (host, port) of a TCP one."""
        name = self._listening.getsockname()
        return name if isinstance(name, str) else (name[0], name[1])

    def close(self) -> None:
        """Stop listening; the socket file goes unless somebody has put another in its place."""
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()
        if self._path is not None and _identity(self._path) == self._identity:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_WAKE):
            try:
                connected, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            connected.setblocking(False)
            self._accepted(connected)

    def _pause(self, error: OSError) -> None:
        reason = os.strerror(error.errno or 0)
        log.warning("cannot accept a connection: %s; trying again in %g s", reason, ACCEPT_RETRY_SECONDS)
        self._loop.remove_reader(self._listening)
        self._retry = self._loop.call_later(ACCEPT_RETRY_SECONDS, self._resume)

    def _resume(self) -> None:
        self._retry = None
        self._loop.add_reader(self._listening, self._accept)


def _identity(path: str | None) -> tuple[int, int] | None:
    if path is None:
        return None
    try:
        facts = os.lstat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino
