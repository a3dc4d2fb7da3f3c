"""TCP connections that the daemon opens: non-blocking sockets, and sentences for what can go wrong."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from .clock import monotonic

OnConnected = Callable[[tuple[str, int]], None]
"""Is told our own (address, port) of a connection before anybody can see it; once for each one that is tried."""


class OwnEnds:
    """Our own ends of young connections: what we ask a unit is no traffic of it.

    An end counts for a minute, for the unit may still hold its side when we have long closed ours.
    """

    SECONDS = 60.0

    def __init__(self) -> None:
        self._made: dict[tuple[str, int], float] = {}  # in the order of their times

    def add(self, end: tuple[str, int]) -> None:
        """One more, made now."""
        now = monotonic()
        self._made.pop(end, None)
        self._made[end] = now
        for old in list(self._made):
            if now - self._made[old] <= self.SECONDS:
                break
            del self._made[old]

    def __contains__(self, end: object) -> bool:
        made_at = self._made.get(end)  # type: ignore[call-overload]
        return made_at is not None and monotonic() - made_at <= self.SECONDS


OWN_ENDS = OwnEnds()  # of all connections of this process


async def connect(address: str, port: int, on_connected: OnConnected | None = None) -> socket.socket:
    """A connected non-blocking socket, which the caller closes. `address` is a name or a numeric address.

    All addresses of a name are tried, one after the other, without a deadline of its own. Raises OSError.
    """
    failure = OSError(errno.EADDRNOTAVAIL, f"{address} has no address")
    for family, target in await _resolve(address, port):
        try:
            return await _connect(family, target, on_connected)
        except OSError as error:
            failure = error
    raise failure


def own_address() -> str:
    """The address of this host that its connections to others come from; a loopback one where it has no network."""
    for family, other in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):  # RFC 5737, RFC 3849
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((other, 9))  # chooses a route and sends nothing
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return "127.0.0.1"


def reason_of(error: OSError) -> str:
    """What happened, in a few words in lower case."""
    return (error.strerror or str(error) or type(error).__name__).lower()


async def _resolve(address: str, port: int) -> list[tuple[int, Any]]:
    kind = socket.SOCK_STREAM
    try:  # numbers need no thread
        found = socket.getaddrinfo(address, port, type=kind, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        try:
            found = await asyncio.get_running_loop().getaddrinfo(address, port, type=kind)
        except socket.gaierror as error:
            raise OSError(error.errno, f"cannot find the host {address} ({reason_of(error)})") from error
        except UnicodeError as error:
            raise OSError(errno.EINVAL, f"{address} is no name of a host") from error
    return [(family, target) for family, _, _, _, target in found]


async def _connect(family: int, target: Any, on_connected: OnConnected | None) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        code = connection.connect_ex(target)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        own = _own(connection)  # without an await since connect(): nobody has counted it yet
        OWN_ENDS.add(own)
        if on_connected is not None:
            on_connected(own)
        if code:
            await _writable(connection)
            if code := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code))
        if _is_itself(connection):
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    except BaseException:
        connection.close()
        raise
    return connection


def _own(connection: socket.socket) -> tuple[str, int]:
    host, port = connection.getsockname()[:2]
    return host.partition("%")[0], port


def _is_itself(connection: socket.socket) -> bool:
    """The kernel may choose the very port that we connect to for our end, and then we have reached ourselves."""
    try:
        return bool(connection.getsockname() == connection.getpeername())
    except OSError:  # it was connected, and is no more
        return False


async def _writable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    writable = loop.create_future()

    def ready() -> None:
        loop.remove_writer(connection)  # or it would be called again before we run
        if not writable.done():  # whoever waits may have been cancelled a moment ago
            writable.set_result(None)

    loop.add_writer(connection, ready)
    try:
        await writable
    finally:
        loop.remove_writer(connection)
