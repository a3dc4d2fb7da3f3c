"""`redis = { port = "{port}" }`: a Redis answers PING. It shows how little a probe kind needs.

The protocol is Redis's inline one (https://redis.io/docs/latest/develop/reference/protocol-spec/#inline-commands).
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from supervisor.plugin_api import OptionError, ProbeResult, Target

_KNOWN = ("port", "host", "username", "password")
_MAX_LINE_BYTES = 1024


class RedisPing:
    """PING, after AUTH where a password is given. A Redis that still loads its data is not ready."""

    __slots__ = ("_host", "_password", "_port", "_username")

    def __init__(self, options: Any) -> None:
        """`port` and `host` (the service's own where they are missing), `username`, `password`. Raises OptionError."""
        if options is True:
            options = {}
        if not isinstance(options, dict):
            raise OptionError("", 'must be true or a table such as { port = "{port}" }')
        for key in options:
            if key not in _KNOWN:
                raise OptionError(key, f"unknown key; known here: {', '.join(_KNOWN)}")
        self._port = _port(options["port"]) if "port" in options else None
        self._host = _text(options, "host")
        self._username, self._password = _text(options, "username"), _text(options, "password")
        if self._username is not None and self._password is None:
            raise OptionError("username", "means nothing without password")

    async def check(self, target: Target, timeout_seconds: float) -> ProbeResult:
        """Whether the answer is PONG."""
        port = target.port if self._port is None else self._port
        if port is None:
            return ProbeResult(False, "the probe needs a port: the unit has no service that names one")
        try:
            async with asyncio.timeout(timeout_seconds) as deadline:
                return await self._ask(self._host or target.address, port)
        except OSError as error:
            late = isinstance(error, TimeoutError) and deadline.expired()
            reason = f"no answer within {timeout_seconds:g} s" if late else _reason(error)
            return ProbeResult(False, f"port {port}: {reason}")

    async def _ask(self, host: str, port: int) -> ProbeResult:
        with await _connect(host, port) as connection:
            if self._password is not None:
                answer = await _command(connection, "AUTH", *filter(None, (self._username, self._password)))
                if answer != "+OK":
                    return ProbeResult(False, f"answered {answer!r} to AUTH, expected '+OK'")
            answer = await _command(connection, "PING")
            if answer != "+PONG":
                return ProbeResult(False, f"answered {answer!r} to PING, expected '+PONG'")
            return ProbeResult(True, "answered PONG")


async def _connect(host: str, port: int) -> socket.socket:
    """To the first address of the host that accepts."""
    loop = asyncio.get_running_loop()
    failure = OSError("it has no address")
    for family, *_, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            await loop.sock_connect(connection, address)
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failure


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror) or not error.errno:
        return (error.strerror or str(error)).lower()
    return os.strerror(error.errno).lower()


async def _command(connection: socket.socket, name: str, *arguments: str) -> str:
    """The first line of the answer."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, " ".join((name, *map(_quoted, arguments))).encode() + b"\r\n")
    answer = b""
    while b"\n" not in answer and len(answer) < _MAX_LINE_BYTES:
        data = await loop.sock_recv(connection, _MAX_LINE_BYTES)
        if not data:
            raise ConnectionAbortedError("it closed the connection before it answered")
        answer += data
    return answer.split(b"\n")[0].decode(errors="replace").strip()


def _quoted(argument: str) -> str:
    """An argument of an inline command, whatever characters it holds."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in argument.encode()) + '"'


def _port(value: Any) -> int:
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= 65535:
        raise OptionError("port", f"must be a port from 1 to 65535, not {value!r}")
    return number


def _text(options: dict[str, Any], key: str) -> str | None:
    value = options.get(key)
    if key in options and (not isinstance(value, str) or not value):
        raise OptionError(key, "must be a string that is not empty")
    return value
