"""TLS over a non-blocking socket, without asyncio's own.

The daemon runs without the module `ssl` (see boot.py). It is imported here when the first encrypted connection is made:
a host that probes nothing over https never pays for it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .connect import reason_of

if TYPE_CHECKING:
    import ssl as ssl_types

READ_BYTES = 64 * 1024
_CONTEXTS = 16  # as many different options as one host may use before contexts are made anew


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How a server is spoken to. Paths are of PEM files; contexts are made anew when such a file has changed."""

    verify: bool = False  # its certificate must be trusted, valid today, and for the name that is asked for
    ca: str | None = None  # whom to trust; None: whom the system trusts
    cert: str | None = None  # our own certificate, for servers that want one
    key: str | None = None  # its key; None: it is in the same file
    server_name: str | None = None  # the name that is asked for; None: the one in the request


class TlsFailed(Exception):
    """No encrypted connection, or no more of it; `reason` is one sentence without an end."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def encrypt(connection: socket.socket, options: TlsOptions, name: str) -> TlsConnection:
    """Shake hands over a connected socket, which stays the caller's. Raises TlsFailed, OSError."""
    ssl = ssl_module()
    context = _context(options, _stamps(options))
    try:
        encrypted = TlsConnection(connection, context, options.server_name or name)
    except ValueError as error:
        raise TlsFailed(f"cannot ask for the server name {options.server_name or name}: {error}") from error
    try:
        await encrypted.shake_hands()
    except ssl.SSLCertVerificationError as error:
        raise TlsFailed(f"its certificate is not accepted: {_lower(error.verify_message)}") from error
    except ssl.SSLEOFError as error:
        raise TlsFailed("it closed the connection during the TLS handshake") from error
    except ssl.SSLError as error:
        raise TlsFailed(f"the TLS handshake failed: {words_of(error)}") from error
    return encrypted


class TlsConnection:
    """Both directions of one encrypted connection."""

    __slots__ = ("_connection", "_incoming", "_object", "_outgoing", "_ssl")

    def __init__(self, connection: socket.socket, context: ssl_types.SSLContext, name: str) -> None:
        self._ssl = ssl_module()
        self._connection = connection
        self._incoming, self._outgoing = self._ssl.MemoryBIO(), self._ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)

    async def shake_hands(self) -> None:
        """Raises ssl.SSLError, OSError."""
        await self._step(self._object.do_handshake)

    async def send(self, data: bytes) -> None:
        """Send all of it. Raises TlsFailed, OSError."""
        await self._translated(lambda: self._object.write(data))  # always all: a MemoryBIO takes any amount

    async def receive(self) -> bytes:
        """Some data, or b"" at the end. Raises TlsFailed, OSError."""
        try:
            return await self._translated(lambda: self._object.read(READ_BYTES))  # type: ignore[no-any-return]
        except EOFError:
            return b""

    async def _translated(self, call: Callable[[], Any]) -> Any:
        try:
            return await self._step(call)
        except (self._ssl.SSLZeroReturnError, self._ssl.SSLEOFError) as error:  # many servers just hang up
            raise EOFError from error
        except self._ssl.SSLError as error:
            raise TlsFailed(f"it ended the TLS connection: {words_of(error)}") from error

    async def _step(self, call: Callable[[], Any]) -> Any:
        loop = asyncio.get_running_loop()
        while True:
            try:
                result = call()
            except self._ssl.SSLWantReadError:
                await self._flush()
                if data := await loop.sock_recv(self._connection, READ_BYTES):
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            except self._ssl.SSLError:
                with suppress(OSError):  # tell the server why
                    await self._flush()
                raise
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await asyncio.get_running_loop().sock_sendall(self._connection, data)


def ssl_module() -> Any:
    """The module `ssl`, whose import boot.py may have refused."""
    if sys.modules.get("ssl", sys) is None:
        del sys.modules["ssl"]
    return import_module("ssl")


Stamp = tuple[str, int, int, int]


def _stamps(options: TlsOptions) -> tuple[Stamp, ...]:
    """What tells one version of the files from the next."""
    trusted = options.ca or (ssl_module().get_default_verify_paths().cafile if options.verify else None)
    return tuple(stamp_of(path) for path in (trusted, options.cert, options.key) if path)


def stamp_of(path: str) -> Stamp:
    """What tells this version of a file from the next. Raises TlsFailed."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise TlsFailed(f"cannot read {path}: {reason_of(error)}") from error
    return path, found.st_ino, found.st_mtime_ns, found.st_size


@lru_cache(maxsize=_CONTEXTS)
def _context(options: TlsOptions, stamps: tuple[Stamp, ...]) -> ssl_types.SSLContext:
    """Reading what the system trusts takes tens of milliseconds, and a context much memory: equal ones are shared."""
    ssl = ssl_module()
    context: ssl_types.SSLContext = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = options.verify
    context.verify_mode = ssl.CERT_REQUIRED if options.verify else ssl.CERT_NONE
    if options.verify and options.ca is None:
        context.set_default_verify_paths()
    elif options.ca is not None:
        load_files(options.ca, lambda: context.load_verify_locations(options.ca))
    if options.cert is not None:
        # A password, although none can be right: without one, OpenSSL would ask the daemon's terminal.
        files = options.cert if options.key is None else f"{options.cert} with the key {options.key}"
        load_files(files, lambda: context.load_cert_chain(str(options.cert), options.key, password=""))
    return context


def load_files(what: str, load: Callable[[], None]) -> None:
    """Call it; what goes wrong is said of `what`. Raises TlsFailed."""
    try:
        load()
    except ssl_module().SSLError as error:
        raise TlsFailed(f"cannot use {what}: {words_of(error)}") from error
    except OSError as error:
        raise TlsFailed(f"cannot read {what}: {reason_of(error)}") from error
    except ValueError as error:  # an encrypted key
        raise TlsFailed(f"cannot use {what}: {error}") from error


def words_of(error: ssl_types.SSLError) -> str:
    """OpenSSL's reason, such as WRONG_VERSION_NUMBER, in words."""
    return (error.reason or str(error)).replace("_", " ").lower()


def _lower(sentence: str) -> str:
    """A sentence of OpenSSL as part of one of ours."""
    sentence = sentence.removesuffix(".")
    return sentence if sentence[:2].isupper() else sentence[:1].lower() + sentence[1:]
