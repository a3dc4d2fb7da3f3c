"""The only module that imports redis-py; imported with the first connection, for it takes 10 MB of memory.

Of the library the connection alone is used: its handshake and its reader of answers. Its pool and its retries would
send again, or keep a connection whose answer nobody has read. Errors are raised as they come; link.py translates.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ssl import SSLContext
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    RedisError,
)

REFUSED = (AuthenticationError, AuthorizationError, NoPermissionError)

__all__ = ["REFUSED", "NoScriptError", "OutOfMemoryError", "RedisError", "Wire", "packed"]


class Wire(AbstractConnection):
    """One connection, over TCP, TLS or a unix socket, that can be closed without a word more.

    It has no time limits of its own: whoever uses it has one for all.
    """

    def __init__(
        self,
        host: str,
        port: int,
        path: str | None,
        context: SSLContext | None,
        server_name: str | None,
        **options: Any,
    ) -> None:
        self.host, self.port, self.path = host, port, path
        self._context, self._server_name = context, server_name
        super().__init__(protocol=2, socket_timeout=None, socket_connect_timeout=None, **options)

    async def _connect(self) -> None:
        if self.path is not None:
            self._reader, self._writer = await asyncio.open_unix_connection(self.path)
            return
        name = None if self._context is None else self._server_name or self.host
        self._reader, self._writer = await asyncio.open_connection(
            self.host, self.port, ssl=self._context, server_hostname=name
        )
        own: socket.socket = self._writer.get_extra_info("socket")
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _host_error(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    def repr_pieces(self) -> list[tuple[str, str]]:
        """What its repr shows: no secrets."""
        return [("address", self._host_error())]

    @property
    def is_usable(self) -> bool:
        """It is connected, and the server has not ended it."""
        reader, writer = self._reader, self._writer
        return not (reader is None or writer is None or reader.at_eof() or writer.transport.is_closing())

    async def disconnect(self, *arguments: Any, **options: Any) -> None:
        """The library calls it when its greeting fails; its own way says goodbye, and over TLS waits for an answer."""
        self.abort()
        await super().disconnect(*arguments, **options)

    def abort(self) -> None:
        """Close at once: what the kernel has not taken yet is not sent."""
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            writer.transport.abort()


def packed(words: Sequence[bytes]) -> bytes:
    """A command as it is sent; the library's own way takes five times as long, and a renewal has many words."""
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(parts)
