"""One connection of a client: h11 in the server's role, one exchange after the other.

A head is looked at in its bytes (`heads`) before h11 sees it; requests that were sent ahead wait for their turn. The
connection has one deadline, which its gateway looks at now and then, and no timer of its own.
"""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

import h11

from ..settings.proxy import ProxySpec
from . import heads
from .answers import FULL, Refusal, Refused, bad_request, no_route, too_slow
from .exchange import Exchange
from .heads import Hop
from .members import Service
from .tunnel import Tunnel

AHEAD_BYTES = 64 * 1024  # of later requests, sent while one is being answered
LINGER_BYTES = 1024 * 1024  # of a body that nobody wants any more
LINGER_SECONDS = 2.0  # closing with bytes unread would reset the connection and could cost the client the answer


class Gateway(Protocol):
    """What a connection needs of its gateway."""

    spec: ProxySpec
    closing: bool

    def service_for(self, host: bytes, path: bytes) -> Service | None: ...
    def count_refused(self, status: int) -> None: ...
    def forget(self, connection: ClientConnection) -> None: ...


class ClientConnection(asyncio.Protocol):
    """Between requests, within one, a tunnel, or ending."""

    __slots__ = (
        "_ahead", "_discarded", "_ending", "_eof", "_exchange", "_gateway", "_h11", "_head_begun", "_hop", "_is_head",
        "_is_refused", "_is_welcome", "_lost", "_out", "_request_ended", "_service", "_spec", "_transport", "_tunnel",
        "deadline", "is_full",
    )  # fmt: skip

    _transport: asyncio.Transport
    _hop: Hop

    def __init__(self, gateway: Gateway, is_welcome: bool) -> None:
        self._gateway, self._spec, self._is_welcome = gateway, gateway.spec, is_welcome
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=gateway.spec.max_head_bytes)
        self._ahead = b""  # not yet given to h11
        self._exchange: Exchange | None = None
        self._tunnel: Tunnel | None = None
        self._service: Service | None = None  # of the request at hand
        self._request_ended = self._head_begun = False
        self._is_refused = False  # a request that has not come whole: there will be no other
        self._is_head = False  # the method is HEAD: no body, whatever the answer's fields say
        self._out: list[bytes] = []
        self._discarded = 0
        self._eof = self._ending = self._lost = False
        self.is_full = False
        self.deadline = math.inf  # until it is made, which is a moment after the gateway has it

    # called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        client = transport.get_extra_info("peername")
        address = str(client[0]).removeprefix("::ffff:") if client else "unknown"
        self._hop = Hop(self._spec.name.encode(), address.encode(), self._spec.trust_forwarded)
        self._wait(self._spec.head_seconds)

    def data_received(self, data: bytes) -> None:
        """More of a request, of the ones after it, or of a tunnel."""
        if self._ending:
            self._discard(len(data))
        elif self._tunnel is not None:
            self._tunnel.client_raw(data)
        elif self._exchange is None and not self._is_unwanted_body:
            self._ahead += data
            self._read_head()
        elif self._request_ended:
            self._ahead += data
            self.regulate()
        else:
            self._h11.receive_data(data)
            self._read_body()

    def eof_received(self) -> bool:
        """The client sends no more: it still waits for an answer, or it has gone."""
        if self._tunnel is not None:
            self._tunnel.client_sends_no_more()
            return True
        if self._exchange is not None and self._request_ended:
            self._eof = True
            return True
        if self._exchange is not None:  # the request will never be complete
            self._exchange.client_gone()
            self._transport.abort()
        return False

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self._set_full(True)

    def resume_writing(self) -> None:
        """It has caught up."""
        self._set_full(False)

    def _set_full(self, full: bool) -> None:
        self.is_full = full
        receiver = self._tunnel or self._exchange
        if receiver is not None:
            receiver.client_full(full)

    def connection_lost(self, exc: Exception | None) -> None:
        """Both directions are closed."""
        self._lost = True
        receiver = self._tunnel or self._exchange
        if receiver is not None:
            receiver.client_gone()
        self._exchange = self._tunnel = None
        self._gateway.forget(self)

    # called by the gateway

    def late(self) -> None:
        """The deadline is over."""
        if self._exchange is not None:
            self._exchange.late()
        elif self._tunnel is not None:
            self._tunnel.client_gone()
            self.tunnel_ended(cut=True)
        elif self._ending or self._is_unwanted_body or self._transport.is_closing():
            self._transport.abort()
        elif self._ahead:
            self.refuse(too_slow(self._spec.head_seconds))
        else:
            self._transport.close()

    def finish(self) -> None:
        """End now, or after the request that is being sent or answered."""
        if self._exchange is None and self._tunnel is None and not self._ahead and not self._ending:
            self._end()

    def abort(self) -> None:
        """End without another byte."""
        self._transport.abort()

    # reading

    def _wait(self, seconds: float) -> None:
        self.deadline = asyncio.get_running_loop().time() + seconds

    @property
    def _is_unwanted_body(self) -> bool:
        """The request has been answered, and its body still comes."""
        return self._exchange is None and self._h11.our_state is not h11.IDLE and not self._request_ended

    def _read_head(self) -> None:
        """Begin with the next request, if its head is there."""
        if self._exchange is not None or self._ending or self._lost:
            return
        if self._ahead.startswith((b"\r\n", b"\n")):
            self._ahead = self._ahead.lstrip(b"\r\n")  # RFC 9112 section 2.2
        end = self._ahead.find(heads.END_OF_HEAD)
        if end < 0:
            self._read_early()
            return
        head = self._ahead[: end + len(heads.END_OF_HEAD)]
        fault = heads.fault(head, self._spec.max_head_bytes, self._spec.max_headers)
        if fault is not None:
            self.refuse(fault)
            return
        data, self._ahead = self._ahead, b""
        self._h11.receive_data(data)
        self._begin()

    def _read_early(self) -> None:
        """Part of a head, or nothing."""
        fault = heads.early_fault(self._ahead, self._spec.max_head_bytes)
        if self._eof:
            self._end()
        elif fault is not None:
            self.refuse(fault)
        elif self._ahead and not self._head_begun:
            self._head_begun = True
            self._wait(self._spec.head_seconds)

    def _begin(self) -> None:
        self._service = None
        self._head_begun = self._is_head = False
        try:
            event = self._h11.next_event()
            assert isinstance(event, h11.Request)
            self._is_head = event.method == b"HEAD"
            head = heads.read_request(event, self._hop)
        except h11.RemoteProtocolError as error:
            self.refuse(Refusal(error.error_status_hint, "bad_request", str(error)))
            return
        except Refused as error:
            self.refuse(error.refusal)
            return
        self._service = self._gateway.service_for(head.host, head.path)
        if not self._is_welcome or self._service is None:
            self._skip_body()
            self.refuse(no_route(head.host) if self._is_welcome else FULL)
        else:
            exchange = self._exchange = Exchange(self, head, self._service, self._spec)
            self._read_body()
            if self._exchange is exchange:
                exchange.start()

    def _read_body(self) -> None:
        """Hand over what there is of the body."""
        try:
            while not self._request_ended and not self._ending:
                event = self._h11.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    break
                if isinstance(event, h11.Data):
                    self._take_body(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    self._end_request()
        except h11.RemoteProtocolError as error:
            if self._exchange is not None:
                self._exchange.client_gone()
            self.refuse(bad_request(str(error)))
        self.regulate()

    def _skip_body(self) -> None:
        """Of a request that is refused: if it has come whole, another one may follow on this connection."""
        try:
            while isinstance(event := self._h11.next_event(), h11.Data | h11.EndOfMessage):
                if isinstance(event, h11.EndOfMessage):
                    self._request_ended = True
                    self._ahead = self._h11.trailing_data[0]
        except h11.RemoteProtocolError:
            return  # then it has not, and the connection ends

    def _take_body(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.take_body(data)
        else:
            self._discard(len(data))

    def _end_request(self) -> None:
        self._request_ended = True
        self._ahead = self._h11.trailing_data[0]
        if self._exchange is not None:
            self._exchange.end_body()
        else:
            self._next()

    def _discard(self, count: int) -> None:
        self._discarded += count
        if self._discarded > LINGER_BYTES:
            self._transport.abort()

    def regulate(self) -> None:
        """Take from the client only what can be passed on."""
        receiver = self._tunnel or self._exchange
        if receiver is not None and (receiver.holds_body or len(self._ahead) > AHEAD_BYTES):
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # answering; called by the exchange

    def queue(self, event: h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage) -> None:
        """A part of the answer, to be sent with the next `flush`."""
        if isinstance(event, h11.InformationalResponse) and self._h11.their_http_version == b"1.0":
            return  # HTTP/1.0 knows none
        if isinstance(event, h11.Response) and self._is_last():
            event = h11.Response(
                status_code=event.status_code, reason=event.reason, headers=[*event.headers, (b"connection", b"close")]
            )
        self._out.append(self._h11.send(event) or b"")

    def _is_last(self) -> bool:
        """The connection ends with this answer."""
        vain = self._exchange is not None and self._exchange.withholds_body  # whether its body will come is not known
        is_over = self._gateway.closing or (self._eof and not self._ahead)
        return is_over or vain or self._is_refused or not self._is_welcome

    def flush(self) -> None:
        """Send what is queued."""
        if self._out:
            out, self._out = b"".join(self._out), []
            self._transport.write(out)

    def refuse(self, refusal: Refusal) -> None:
        """Answer it without a unit, and close the connection unless the request has come whole."""
        self._exchange = None
        self._is_refused = not self._request_ended
        if self._lost or self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.cut()
            return
        if self._service is not None:
            self._service.answered[refusal.status] += 1
        else:
            self._gateway.count_refused(refusal.status)
        body = refusal.body()
        fields = refusal.headers(body)
        self.queue(h11.Response(status_code=refusal.status, reason=refusal.reason, headers=fields))
        if not self._is_head:
            self.queue(h11.Data(data=body))
        self.queue(h11.EndOfMessage())
        self.answered()

    def answered(self) -> None:
        """The answer is complete."""
        self._exchange = None
        self.flush()
        if self._h11.our_state is not h11.DONE or (self._eof and not self._ahead) or self._lost:
            self._end()
        elif self._request_ended:
            self._next()
        else:  # the rest of the body is read and thrown away, and then the connection can be used again
            self._discarded = 0
            self._wait(LINGER_SECONDS)
            self.regulate()

    def _next(self) -> None:
        """Ready for the next request, which may be there already."""
        if self._ahead:  # it must be looked at before h11 sees it
            self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=self._spec.max_head_bytes)
            asyncio.get_running_loop().call_soon(self._read_head)
        else:
            self._h11.start_next_cycle()
        self._request_ended = False
        self._wait(self._spec.idle_seconds)
        self.regulate()
        if self._gateway.closing and not self._ahead:
            self._end()

    def _end(self) -> None:
        """Close, but let the client read the answer first."""
        if self._lost or self._ending:
            return
        self._ending = True
        self._discarded = 0
        self._transport.resume_reading()
        is_all_read = (self._request_ended or self._h11.our_state is h11.IDLE) and not self._ahead
        if is_all_read or self._eof:
            self._transport.close()
            self._wait(self._spec.idle_seconds)  # to take what is still to be written
        else:
            self._transport.write_eof()
            self._wait(LINGER_SECONDS)

    def cut(self) -> None:
        """The answer cannot be completed."""
        self._exchange = None
        self._ending = True
        self._transport.abort()

    # a tunnel

    def switch(self, tunnel: Tunnel) -> None:
        """The unit has switched protocols, and the client knows it."""
        self._exchange, self._tunnel = None, tunnel
        ahead, self._ahead = self._ahead, b""
        tunnel.begin(ahead)
        self.regulate()
        if self._eof:  # it has closed its direction before it knew
            tunnel.client_sends_no_more()

    def write_raw(self, data: bytes) -> None:
        """Bytes of the tunnel."""
        self._transport.write(data)

    def write_eof(self) -> None:
        """The unit has closed its direction."""
        if not self._transport.is_closing():
            self._transport.write_eof()

    def tunnel_ended(self, cut: bool) -> None:
        """There is nothing more to pass on."""
        self._tunnel = None
        self._ending = True
        self._wait(self._spec.idle_seconds)
        if cut:
            self._transport.abort()
        else:
            self._transport.close()
