"""The sockets on which units say how they are: the protocol of sd_notify(3), from the manager's side.

Each attempt has a socket of its own, so that whoever may write to it speaks for that attempt, however short-lived:
systemd-notify(1) has often ended before its message is read, and a sender's pid would say nothing any more. The path is
made of unit and attempt alone: a later daemon that adopts the attempt opens the same path again, and is heard.
"""

from __future__ import annotations

import array
import asyncio
import logging
import os
import select
import socket
import stat
from binascii import crc32
from collections.abc import Callable, Sequence
from errno import EEXIST, ENAMETOOLONG
from typing import Any

from ..core.model import UnitSpec
from ..plugin_api import NotifyState
from .clock import monotonic
from .identity import resolve

log = logging.getLogger("unitd.notify")

PATH_BYTES = 107  # sun_path without its NUL, unix(7)
MESSAGE_BYTES = 8 * 1024
STATUS_CHARACTERS = 200
SOCKETS_PER_TURN = 32  # of the loop
MESSAGES_PER_SOCKET = 4  # in such a turn: 128 in all, about 2 ms
_DESCRIPTORS = 4  # taken of one message; the kernel closes what is beyond
_CONTROL_BYTES = socket.CMSG_SPACE(_DESCRIPTORS * array.array("i").itemsize)


def wants_socket(spec: UnitSpec) -> bool:
    """One of its probes listens to what it says."""
    return any(probe is not None and probe.kind == "notify" for probe in (spec.startup, spec.readiness, spec.liveness))


class NotifySockets:
    """The notify sockets of all units. They hang on one epoll, which hangs on the loop."""

    def __init__(self, folder: str, on_change: Callable[[str, int], None]) -> None:
        """`on_change` is told unit and attempt when the state is another one; a WATCHDOG=1 alone is no change.

        The folder is made if need be, and what an earlier daemon left in it is removed. Units run as any user: the
        folders above must let them pass. Raises OSError.
        """
        self._folder, self._on_change = folder, on_change
        self._channels: dict[str, _Channel] = {}  # by unit
        self._by_descriptor: dict[int, _Channel] = {}
        self._make_folder()
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._loop.add_reader(self._epoll.fileno(), self._on_messages)

    def _make_folder(self) -> None:
        os.makedirs(self._folder, exist_ok=True)
        os.chmod(self._folder, 0o711)
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
                    os.unlink(entry.path)

    def offer(self, spec: UnitSpec, attempt: int) -> str | None:
        """The path of a socket that was opened for an attempt; None: none of its probes needs one.

        Raises OSError, and SpawnError where the unit's user is unknown.
        """
        if not wants_socket(spec):
            return None
        identity = resolve(spec.user, spec.os_group)
        uid, gid = (identity.uid, identity.gid) if identity else (os.geteuid(), os.getegid())
        return self.open(spec.name, attempt, uid, gid)

    def open(self, unit: str, attempt: int, uid: int, gid: int) -> str:
        """The path of a new socket, on which only that user (and root) may speak. An earlier one of the unit is closed.

        Raises OSError.
        """
        self.close(unit)
        path = self._path(unit, attempt)
        if any(channel.path == path for channel in self._channels.values()):
            raise OSError(EEXIST, f"the path of the notify socket is another unit's: {path}")
        channel = _Channel(unit, attempt, path)
        try:
            channel.bind(uid, gid)
            self._epoll.register(channel.socket.fileno(), select.EPOLLIN)
        except OSError:
            channel.close()
            raise
        self._channels[unit] = self._by_descriptor[channel.socket.fileno()] = channel
        return path

    def _path(self, unit: str, attempt: int) -> str:
        path = f"{self._folder}/{unit}-{attempt}"
        room = PATH_BYTES - len(os.fsencode(path))
        if room < 0:
            end = f"~{crc32(unit.encode()):08x}-{attempt}"
            kept = len(unit.encode()) + len(f"-{attempt}") + room - len(end)
            if kept < 0:
                raise OSError(ENAMETOOLONG, f"the path of the notify socket is too long for a socket: {path}")
            path = f"{self._folder}/{os.fsdecode(unit.encode()[:kept])}{end}"
        return path

    @property
    def paths(self) -> frozenset[str]:
        """Where the sockets are that somebody may speak on."""
        return frozenset(channel.path for channel in self._channels.values())

    def state(self, unit: str) -> NotifyState | None:
        """What the unit's attempt has said so far, kept up to date; None: it has no socket."""
        channel = self._channels.get(unit)
        return channel.state if channel is not None else None

    def close(self, unit: str) -> None:
        """Do not listen to the unit any more; what it has said is forgotten."""
        channel = self._channels.pop(unit, None)
        if channel is not None:
            del self._by_descriptor[channel.socket.fileno()]
            channel.close()

    def close_all(self) -> None:
        """Close every socket, for good."""
        for unit in list(self._channels):
            self.close(unit)
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _on_messages(self) -> None:
        # The kernel puts sockets that have more to say at the end of its list: nobody's flood delays the others.
        for descriptor, _ in self._epoll.poll(0, SOCKETS_PER_TURN):
            for _ in range(MESSAGES_PER_SOCKET):
                channel = self._by_descriptor.get(descriptor)
                if channel is None or not channel.receive(self._on_change):
                    break


class _Channel:
    """The socket of one attempt, and what was said on it."""

    __slots__ = ("attempt", "complained", "path", "socket", "state", "unit")

    def __init__(self, unit: str, attempt: int, path: str) -> None:
        self.unit, self.attempt, self.path = unit, attempt, path
        self.complained = False
        self.state = NotifyState()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def bind(self, uid: int, gid: int) -> None:
        # The mode of the descriptor becomes the file's: at no time may others write to it, and the umask, which all
        # threads share, stays as it is.
        os.fchmod(self.socket.fileno(), 0o600)
        self.socket.bind(self.path)
        if (uid, gid) != (os.geteuid(), os.getegid()):
            os.chown(self.path, uid, gid, follow_symlinks=False)

    def receive(self, on_change: Callable[[str, int], None]) -> bool:
        """Take one message; False: there is none."""
        try:
            data, control, flags, _ = self.socket.recvmsg(MESSAGE_BYTES + 1, _CONTROL_BYTES, socket.MSG_CMSG_CLOEXEC)
        except OSError:  # mostly BlockingIOError
            return False
        passed = _descriptors(control)
        try:
            if flags & socket.MSG_TRUNC or len(data) > MESSAGE_BYTES:
                self._complain("a message of more than 8 KiB")
            else:
                self._take(data, on_change)
        finally:
            # Of BARRIER=1 this is the answer: what was sent before has been dealt with. Others' have no business here.
            for descriptor in passed:
                os.close(descriptor)
        return True

    def _take(self, data: bytes, on_change: Callable[[str, int], None]) -> None:
        data = data.removesuffix(b"\0")
        if b"=" not in data or b"\0" in data:
            self._complain(
                "a message without any VARIABLE=VALUE" if b"\0" not in data else "a message with a NUL in it"
            )
            return
        before = _visible(self.state)
        for line in data.split(b"\n"):
            self._take_line(line)
        if _visible(self.state) != before:
            on_change(self.unit, self.attempt)

    def _take_line(self, line: bytes) -> None:
        """What is not known here (MAINPID=, ERRNO=, FDSTORE=1, ...) has no meaning for unitd, and is no mistake."""
        state = self.state
        if line == b"READY=1":
            state.ready, state.stopping = True, False
        elif line == b"RELOADING=1":
            state.ready = False
        elif line == b"STOPPING=1":
            state.ready, state.stopping = False, True
        elif line == b"WATCHDOG=1":
            state.watchdog_at = monotonic()
        elif line == b"WATCHDOG=trigger":
            state.trigger = True
        elif line.startswith(b"STATUS="):
            text = line[7 : 7 + 4 * STATUS_CHARACTERS].decode(errors="replace")[:STATUS_CHARACTERS]
            state.status = "".join(letter if letter.isprintable() else "?" for letter in text)

    def _complain(self, what: str) -> None:
        if not self.complained:
            self.complained = True
            log.warning("%s: ignored %s on its notify socket; more of the kind are not told", self.unit, what)

    def close(self) -> None:
        self.socket.close()
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            return


def _visible(state: NotifyState) -> tuple[object, ...]:
    return state.ready, state.stopping, state.status, state.trigger


def _descriptors(control: Sequence[tuple[int, int, Any]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)
