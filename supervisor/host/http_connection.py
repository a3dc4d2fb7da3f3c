"""One HTTP/1.1 connection: bytes to requests, requests to tasks, answers to bytes; h11 knows the protocol.

A request is read whole (its size is bounded), then a task answers it; requests of one connection are answered one
after the other. A client that goes away cancels what only reads (GET, HEAD) and any stream; another request runs to
its end, so that no command is left half done. Nobody can hold a connection by being slow:

    no request begun      IDLE_SECONDS, at first HEAD_SECONDS    cut
    headers               HEAD_SECONDS from their first byte     408
    body                  BODY_SECONDS                           408
    answer not taken      STALL_SECONDS                          cut; a stream waits as long as its client does
    refused, yet sending  LINGER_SECONDS                         cut
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import h11

from .http_message import (
    Request,
    Response,
    body_refusal,
    fault,
    head_refusal,
    internal_error,
    read_request,
    refusal,
)  # fmt: skip
from .listener import Peer

log = logging.getLogger("unitd.http")

MAX_HEAD_BYTES = 16 * 1024
HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0
IDLE_SECONDS = 60.0
STALL_SECONDS = 60.0
LINGER_SECONDS = 2.0  # closing with bytes unread would reset the connection and could cost the client the answer
HALF_CLOSED_SECONDS = 0.5  # who sends no more may still want a quick answer; who has gone looks just the same

_PAUSE_READING_BYTES = 64 * 1024  # of later requests, sent while one is being answered
_READS_ONLY = frozenset(("GET", "HEAD"))


class Server(Protocol):
    """What a connection needs of its server."""

    max_body_bytes: int
    closing: bool

    def start(self, work: asyncio.Task[None]) -> None: ...
    def forget(self, connection: Connection) -> None: ...
    def refusal(self, head: Request) -> Response | None: ...
    async def answer(self, request: Request) -> Response: ...


class Connection(asyncio.Protocol):
    """Has at most one timer and one task, and neither without need."""

    __slots__ = (
        "_body", "_eof", "_h11", "_head", "_idle", "_lost", "_refused", "_server", "_streaming", "_task",
        "_timer", "_transport", "_unread_bytes", "_unwelcome", "_writable", "_write_paused", "peer",
    )  # fmt: skip

    _transport: asyncio.Transport

    def __init__(self, server: Server, peer: Peer, unwelcome: Response | None = None) -> None:
        self.peer = peer
        self._server, self._unwelcome = server, unwelcome  # unwelcome: the answer to whatever is asked
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._head: Request | None = None  # of the request at hand; its body is added last
        self._body = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writable: asyncio.Future[None] | None = None
        self._unread_bytes = 0  # received while a task runs, or left over when it began
        self._idle = True  # nothing of the next request is there
        self._streaming = self._write_paused = False
        self._eof = self._lost = False  # the client sends no more; the connection is gone
        self._refused = False  # what comes now is thrown away

    # called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._arm(HEAD_SECONDS, self.abort)
        if self._server.closing:
            transport.close()

    def data_received(self, data: bytes) -> None:
        """More of a request, or of the ones after it."""
        if self._refused:
            return
        self._h11.receive_data(data)
        if self._task is None:
            self._advance()
        else:
            self._unread_bytes += len(data)
            self._regulate_reading()

    def eof_received(self) -> bool:
        """The client sends no more: it still waits for an answer, or it has gone."""
        if self._refused:
            return False
        self._eof = True
        self._h11.receive_data(b"")
        if self._task is None:
            self._advance()
        else:
            self._limit_half_closed()
        return True

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._write_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Both directions are closed."""
        self._lost = True
        self._disarm()
        self.resume_writing()
        if self._task is not None and self._is_cancellable():
            self._task.cancel()
        self._server.forget(self)

    # called by the server

    def finish(self) -> None:
        """End now, or after the request that is being answered."""
        if self._streaming:
            self.abort()
        elif self._task is None and self._is_connected():
            self._transport.close()

    def abort(self) -> None:
        """End without another byte."""
        if self._is_connected():
            self._transport.abort()

    def _is_connected(self) -> bool:
        return hasattr(self, "_transport") and not self._lost

    # reading

    def _advance(self) -> None:
        """Take what h11 makes of the bytes so far, until a whole request is there."""
        if self._idle and self._h11.trailing_data[0]:
            self._idle = False
            self._arm(HEAD_SECONDS, self._refuse_late)
        try:
            while self._task is None and not self._refused:
                event = self._h11.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    break
                self._take(event)
        except h11.RemoteProtocolError as error:
            self._refuse(fault(error))
        self._regulate_reading()

    def _take(self, event: object) -> None:
        if isinstance(event, h11.Request):
            self._take_head(event)
        elif isinstance(event, h11.Data):
            self._body += event.data
            if len(self._body) > self._server.max_body_bytes:
                self._refuse(body_refusal(self._server.max_body_bytes))
        elif isinstance(event, h11.EndOfMessage):
            self._start()
        else:  # ConnectionClosed
            self._hang_up()

    def _take_head(self, event: h11.Request) -> None:
        self._head = read_request(event, self.peer)
        refused = (
            self._unwelcome
            or self._server.refusal(self._head)
            or head_refusal(event, max_head_bytes=MAX_HEAD_BYTES, max_body_bytes=self._server.max_body_bytes)
        )
        if refused is not None:
            self._refuse(refused)
            return
        self._arm(BODY_SECONDS, self._refuse_late)
        if self._h11.they_are_waiting_for_100_continue:
            self._write(h11.InformationalResponse(status_code=100, headers=[]))

    def _start(self) -> None:
        assert self._head is not None
        self._disarm()
        self._head.body = bytes(self._body)
        self._body.clear()
        self._unread_bytes = len(self._h11.trailing_data[0])
        self._task = asyncio.get_running_loop().create_task(self._serve(self._head))
        self._server.start(self._task)
        self._limit_half_closed()

    def _regulate_reading(self) -> None:
        if self._task is not None and self._unread_bytes > _PAUSE_READING_BYTES:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # answering

    async def _serve(self, request: Request) -> None:
        try:
            await self._send(self._sendable(await self._server.answer(request)))
        except asyncio.CancelledError:
            self.abort()
            raise
        except Exception:
            log.exception("cannot send the answer to %s %s", request.method, request.path)
            self._hang_up()
        finally:
            self._task = None
            self._streaming = False
        self._next()

    def _next(self) -> None:
        if self._lost or self._refused:
            return
        self._disarm()
        if self._server.closing or self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            self._hang_up()
            return
        self._h11.start_next_cycle()
        self._head = None
        self._idle = True
        self._arm(IDLE_SECONDS, self.abort)
        self._advance()

    def _sendable(self, response: Response) -> Response:
        try:
            self._head_of(response)
        except Exception:
            log.exception("cannot send an answer such as %r", response)
            return internal_error()
        return response

    async def _send(self, response: Response) -> None:
        try:
            if response.stream is None:
                self._write_whole(response)
                await self._until_taken()
            else:
                await self._send_stream(response, response.stream)
        finally:
            if (aclose := getattr(response.stream, "aclose", None)) is not None:
                await aclose()

    async def _send_stream(self, response: Response, stream: AsyncIterator[bytes]) -> None:
        self._streaming = True
        if self._lost or self._server.closing:
            self.abort()
            return
        self._limit_half_closed()
        self._write(self._head_of(response))
        if self._may_have_body(response):
            async for chunk in stream:
                self._write(h11.Data(data=chunk))
                await self._until_writable()
        self._write(h11.EndOfMessage())
        await self._until_taken()

    def _write_whole(self, response: Response) -> None:
        parts = [self._h11.send(self._head_of(response))]
        if response.body and self._may_have_body(response):
            parts.append(self._h11.send(h11.Data(data=response.body)))
        parts.append(self._h11.send(h11.EndOfMessage()))
        self._write_bytes(b"".join(part for part in parts if part))

    def _head_of(self, response: Response) -> h11.Response:
        headers = [("Date", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())), *response.headers]
        if response.has_body:
            headers.append(("Content-Type", response.content_type))
            if response.stream is None:
                headers.append(("Content-Length", str(len(response.body))))
        if self._server.closing or self._refused:
            headers.append(("Connection", "close"))
        return h11.Response(status_code=response.status, headers=headers)

    def _may_have_body(self, response: Response) -> bool:
        return response.has_body and not (self._head is not None and self._head.method == "HEAD")

    # ending

    def _refuse_late(self) -> None:
        self._refuse(refusal(408, "the request took too long to arrive"))

    def _refuse(self, response: Response) -> None:
        """Answer without asking the handler, and hang up."""
        self._refused = True
        try:
            self._write_whole(response)
        except h11.LocalProtocolError:  # no answer can be sent at this point
            self.abort()
            return
        if self._eof:
            self._hang_up()
        else:
            self._arm(LINGER_SECONDS, self.abort)
            self._transport.write_eof()

    def _hang_up(self) -> None:
        """Close once the client has taken what was written, if it does."""
        self._refused = True
        if not self._lost:
            self._arm(STALL_SECONDS, self.abort)
            self._transport.close()

    def _limit_half_closed(self) -> None:
        if self._eof and self._is_cancellable():
            self._arm(HALF_CLOSED_SECONDS, self.abort)

    def _is_cancellable(self) -> bool:
        return self._streaming or (self._head is not None and self._head.method in _READS_ONLY)

    # writing and the timer

    def _write(self, event: h11.Event) -> None:
        self._write_bytes(self._h11.send(event) or b"")

    def _write_bytes(self, data: bytes) -> None:
        if data and not self._lost:
            self._transport.write(data)

    async def _until_taken(self) -> None:
        if self._write_paused:
            self._arm(STALL_SECONDS, self.abort)
            await self._until_writable()

    async def _until_writable(self) -> None:
        while self._write_paused:
            self._writable = asyncio.get_running_loop().create_future()
            await self._writable

    def _arm(self, seconds: float, then: Callable[[], object]) -> None:
        self._disarm()
        self._timer = asyncio.get_running_loop().call_later(seconds, then)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
