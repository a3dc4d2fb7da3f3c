"""TLS for the connections of our own server, between the socket's transport and what speaks HTTP.

asyncio's own keeps 256 KiB for each connection and cannot close one direction alone, which the server needs for
answers to requests that it does not read to the end. Here an idle connection costs what OpenSSL needs, and one that has
said nothing yet costs nothing. Handshakes go on as bytes come in; their time is limited by what the connection gives
its first request.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..core.model import ServerTlsSpec
from .http_connection import Connection
from .http_message import coded_refusal
from .quiet import Quiet
from .tls import READ_BYTES, Stamp, TlsFailed, load_files, ssl_module, stamp_of, words_of

if TYPE_CHECKING:
    import ssl as ssl_types

log = logging.getLogger("unitd.tls")

_HANDSHAKE = b"\x16"  # the first byte of every TLS connection (RFC 8446, 5.1)


class ServerTls:
    """The certificate that is shown and the authority that is trusted; files that have changed are read again."""

    def __init__(self, spec: ServerTlsSpec) -> None:
        """Raises TlsFailed: the files cannot be used."""
        self._spec, self._ssl = spec, ssl_module()
        self._stamps = self._look()
        self._context = self._load()
        self.quiet = Quiet()

    def context(self) -> ssl_types.SSLContext:
        """For a new connection. A new file that cannot be used is logged once, and the old one stays."""
        try:
            stamps = self._look()
        except TlsFailed as error:  # gone for a moment, or for good
            self.quiet.warn("", "%s; the certificate that was read before stays", error.reason)
            return self._context
        if stamps != self._stamps:
            self._stamps = stamps
            try:
                self._context = self._load()
                log.info("new certificate files: %s", self._spec.cert)
            except TlsFailed as error:
                log.error("%s; the certificate that was read before stays", error.reason)
        return self._context

    def encrypt(self, connection: Connection) -> asyncio.Protocol:
        """What to give the socket's transport in place of the connection."""
        return _Encrypted(self, connection)

    def _look(self) -> tuple[Stamp, ...]:
        spec = self._spec
        return tuple(stamp_of(path) for path in (spec.cert, spec.key, spec.client_ca) if path)

    def _load(self) -> ssl_types.SSLContext:
        ssl, spec = self._ssl, self._spec
        context: ssl_types.SSLContext = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A resumed session would keep a client certificate for good that has expired or lost its authority meanwhile.
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        context.num_tickets = 0
        context.set_alpn_protocols(["http/1.1"])
        files = spec.cert if spec.key is None else f"{spec.cert} with the key {spec.key}"
        # A password, although none can be right: without one, OpenSSL would ask the daemon's terminal.
        load_files(files, lambda: context.load_cert_chain(spec.cert, spec.key, password=""))
        if spec.client_ca is not None:
            load_files(spec.client_ca, lambda: context.load_verify_locations(spec.client_ca))
            context.verify_mode = ssl.CERT_OPTIONAL
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the authority may stand below another one
        return context


class _Encrypted(asyncio.Protocol, asyncio.Transport):
    """A protocol to the socket's transport, and a transport to the connection that it encrypts."""

    __slots__ = (
        "_closing", "_ended", "_incoming", "_inner", "_object", "_outgoing", "_paused", "_raw", "_shaken", "_tls",
    )  # fmt: skip

    _raw: asyncio.Transport

    def __init__(self, tls: ServerTls, inner: Connection) -> None:
        super().__init__()
        self._tls, self._inner = tls, inner
        self._object: Any = None  # from the first bytes on
        self._shaken = self._paused = False
        self._ended = self._closing = False  # they, we send no more

    # called by the socket's transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It begins."""
        assert isinstance(transport, asyncio.Transport)
        self._raw = transport
        self._inner.connection_made(self)

    def data_received(self, data: bytes) -> None:
        """More of the handshake, or of what is encrypted."""
        if self._closing:
            return
        if self._object is None and not self._begin(data):
            return
        self._incoming.write(data)
        self._advance()

    def eof_received(self) -> bool:
        """They send no more."""
        if self._object is None or self._closing:
            return False
        self._incoming.write_eof()
        self._advance()
        return not self._raw.is_closing()

    def pause_writing(self) -> None:
        """They do not keep up."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """They do again."""
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._closing = True
        self._inner.connection_lost(exc)

    # called by the connection

    def write(self, data: Any) -> None:
        """Encrypt and send all of it."""
        if self._closing or not self._shaken:
            return
        try:
            view = memoryview(data)
            while view:
                view = view[self._object.write(view) :]
        except self._tls._ssl.SSLError:
            self.abort()
            return
        self._flush()

    def write_eof(self) -> None:
        """Say that nothing more will come; what they send from now on is thrown away."""
        if not self._closing:
            self._say_goodbye()
            self._raw.write_eof()

    def can_write_eof(self) -> bool:
        """TLS can say so for one direction."""
        return True

    def close(self) -> None:
        """Send what is left, and end."""
        if not self._closing:
            self._say_goodbye()
        self._raw.close()

    def abort(self) -> None:
        """End at once."""
        self._closing = True
        self._raw.abort()

    def is_closing(self) -> bool:
        """Nothing more can be sent."""
        return self._closing or self._raw.is_closing()

    def pause_reading(self) -> None:
        """Hand over nothing more."""
        if not self._paused:
            self._paused = True
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Go on, with what is here already at first."""
        if self._paused:
            self._paused = False
            self._raw.resume_reading()
            asyncio.get_running_loop().call_soon(self._advance)

    # between them

    def _begin(self, data: bytes) -> bool:
        """The first bytes are here: are they TLS?"""
        if data[:1] != _HANDSHAKE:
            if data[:1].isalpha():  # people who have forgotten the s of https should learn of it
                self._raw.write(_SPOKEN_PLAINLY)
            self._closing = True
            self._raw.close()
            return False
        ssl = self._tls._ssl
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = self._tls.context().wrap_bio(self._incoming, self._outgoing, server_side=True)
        return True

    def _advance(self) -> None:
        ssl = self._tls._ssl
        if self._closing or self._ended:
            return
        try:
            if not self._shaken:
                self._object.do_handshake()
                self._shaken = True
                self._inner.peer = replace(self._inner.peer, names=_names_in(self._object.getpeercert()))
            while not self._paused and not self._closing and not self._ended:
                if data := self._object.read(READ_BYTES):
                    self._inner.data_received(data)
                else:  # they have said that nothing more comes
                    self._end()
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):  # many just hang up; HTTP says itself where a request ends
            self._end()
        except ssl.SSLError as error:
            self._give_up(error)
        self._flush()

    def _end(self) -> None:
        self._ended = True
        if not self._shaken or not self._inner.eof_received():
            self.close()

    def _give_up(self, error: ssl_types.SSLError) -> None:
        address = self._inner.peer.address
        self._tls.quiet.warn(address.rpartition(":")[0], "no TLS with %s: %s", address, words_of(error))
        self._flush()  # tells them why
        self._closing = True
        self._raw.close()

    def _say_goodbye(self) -> None:
        if self._shaken:
            with suppress(self._tls._ssl.SSLError):  # it wants to read their answer, which nobody waits for
                self._object.unwrap()
            self._flush()
        self._closing = True

    def _flush(self) -> None:
        if self._object is not None and (data := self._outgoing.read()):
            self._raw.write(data)


def _names_in(certificate: dict[str, Any] | None) -> tuple[str, ...]:
    """DNS names and URIs of the subject's alternative names, and its common names."""
    if not certificate:
        return ()
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "URI")]
    parts = [part for group in certificate.get("subject", ()) for part in group]
    names += [value for kind, value in parts if kind == "commonName"]
    return tuple(dict.fromkeys(names))


def _plain_answer() -> bytes:
    answer = coded_refusal("bad_request", "this port speaks TLS: begin the address with https://")
    head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: {answer.content_type}\r\nContent-Length: {len(answer.body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + answer.body


_SPOKEN_PLAINLY = _plain_answer()
