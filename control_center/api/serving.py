"""Listens for the API: TCP, with TLS whose files may change while it runs, and an end that loses no answer."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from contextlib import suppress

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from supervisor.core.model import HttpSpec, ServerTlsSpec

from .call import BROKEN_BODY

log = logging.getLogger("unit-center.api")

IDLE_SECONDS = 75.0  # a connection without a request for so long is closed
LAST_SECONDS = 5.0  # requests that are being answered at the end get so long
LOOK_SECONDS = 2.0  # changed certificates are used that soon
HANDSHAKE_SECONDS = 10.0
BACKLOG = 1024
MAX_LINE_BYTES = 32 * 1024  # of a request line: the longest names, percent-encoded

log_wire = logging.getLogger("unit-center.http")


def _is_ours(record: logging.LogRecord) -> bool:
    """What a client sends that is no HTTP is its own business; anybody could fill the log with it."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, (HttpProcessingError, *BROKEN_BODY))


log_wire.addFilter(_is_ours)

_Stamp = tuple[tuple[str, int, int, int], ...]


class Serving:
    """A listening API. Made by `serve`."""

    def __init__(self, runner: web.AppRunner, listener: socket.socket, http: HttpSpec) -> None:
        self._runner, self._listener, self._tls = runner, listener, http.tls
        self._address: tuple[str, int] = listener.getsockname()[:2]
        self._server: asyncio.Server | None = None
        self._watching: asyncio.Task[None] | None = None
        self._stamp: _Stamp = ()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; the port is the real one where 0 was asked for."""
        return self._address

    @property
    def url(self) -> str:
        """What to put before a path."""
        host, port = self.address
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{shown}:{port}"

    async def begin(self) -> None:
        """Take connections from now on. Raises OSError, ssl.SSLError."""
        context = None
        if self._tls is not None:
            self._stamp = _stamp(self._tls)
            context = make_context(self._tls)
        await self._listen(context)
        if self._tls is not None:
            self._watching = asyncio.create_task(self._watch(self._tls))

    async def close(self) -> None:
        """Take no more connections, end streams, let answers be finished, close."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        if self._server is not None:
            self._server.close()
        self._listener.close()
        await self._runner.cleanup()

    async def _listen(self, context: ssl.SSLContext | None) -> None:
        """Take connections with this context; those that are open keep theirs."""
        server = self._runner.server
        assert server is not None
        old, self._server = (
            self._server,
            await asyncio.get_running_loop().create_server(
                server,
                sock=self._listener.dup(),  # so that nobody who knocks between two contexts is turned away
                ssl=context,
                backlog=BACKLOG,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if context else None,
            ),
        )
        if old is not None:
            old.close()

    async def _watch(self, tls: ServerTlsSpec) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                stamp = _stamp(tls)
                if stamp == self._stamp:
                    continue
                self._stamp = stamp
                await self._listen(make_context(tls))
                log.info("the certificate has changed: new connections use it")
            except (OSError, ValueError) as error:
                log.error("cannot use the changed certificate, the old one stays: %s", error)


async def serve(app: web.Application, http: HttpSpec) -> Serving:
    """Serve an application. Raises OSError, ssl.SSLError with the reason."""
    listener = _bind(*http.listen)
    runner = web.AppRunner(
        app,
        handle_signals=False,
        handler_cancellation=True,  # who has hung up is not waited for
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=1.0,  # for the rest of a body that was refused
        shutdown_timeout=LAST_SECONDS,
        access_log=None,
        logger=log_wire,
        max_line_size=MAX_LINE_BYTES,
    )
    serving = Serving(runner, listener, http)
    try:
        await runner.setup()
        await serving.begin()
    except BaseException:
        await serving.close()
        raise
    return serving


def make_context(tls: ServerTlsSpec) -> ssl.SSLContext:
    """TLS 1.2 or newer; client certificates are asked for where somebody is named whose word counts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A password, although none can be right: without one, OpenSSL would ask the terminal.
    context.load_cert_chain(tls.cert, tls.key, password="")
    if tls.client_ca is not None:
        context.load_verify_locations(tls.client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _stamp(tls: ServerTlsSpec) -> _Stamp:
    """What tells one version of the files from the next."""
    found = []
    for path in (tls.cert, tls.key, tls.client_ca):
        if path is not None:
            stat = os.stat(path)
            found.append((path, stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener
