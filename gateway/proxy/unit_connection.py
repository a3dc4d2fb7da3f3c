"""One connection to a unit: h11 in the client's role, for one request after the other.

It knows the request that it is busy with (`Answering`) as whom to tell what comes; it decides nothing.
"""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Protocol

import h11

from .members import Member

MAX_HEAD_BYTES = 64 * 1024  # of an answer
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


class Answering(Protocol):
    """Who waits for the answer, or takes what comes after a switch of protocols."""

    def take_answer(self, event: object) -> None: ...
    def flush(self) -> None: ...
    def take_raw(self, data: bytes) -> None: ...
    def unit_sends_no_more(self) -> None: ...
    def unit_broke(self, reason: str) -> None: ...
    def unit_full(self, full: bool) -> None: ...


class UnitConnection(asyncio.Protocol):
    """Busy with one request, idle in its member's pool, or closed."""

    __slots__ = (
        "_ending",
        "_h11",
        "_is_raw",
        "_request",
        "has_answered",
        "idle_since",
        "member",
        "reused",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, member: Member) -> None:
        self.member = member
        self.reused = False
        self.has_answered = False  # anything, to the request at hand
        self.idle_since = 0.0
        self._request: Answering | None = None
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._is_raw = False

    # called by the request

    def begin(self, request: Answering) -> None:
        """From now on it is this request's."""
        self._request = request
        self.has_answered = False

    def send(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> bytes:
        """The bytes of a part of the request, to be written."""
        return self._h11.send(event) or b""

    def go_raw(self) -> bytes:
        """The unit has switched to another protocol. Answers what it has already said in that."""
        self._is_raw = True
        return self._h11.trailing_data[0]

    def release(self) -> bool:
        """The answer is complete. True: it waits for the next request; else it has been closed."""
        self._request = None
        done = self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE
        if done and not self._h11.trailing_data[0] and not self.transport.is_closing():
            self._h11.start_next_cycle()
            self.reused = True
            self.transport.resume_reading()
            if self.member.give_back(self, asyncio.get_running_loop().time()):
                return True
        self.close()
        return False

    def close(self) -> None:
        """End it at once: nobody waits for anything from it."""
        self._request = None
        self.transport.abort()

    def finish(self) -> None:
        """End it when what is still to be written has gone out."""
        self._request = None
        self.transport.close()

    def is_usable(self) -> bool:
        """The unit has neither closed it nor said anything unasked, as far as the kernel knows.

        What the event loop has not come to yet counts: whoever sends on a connection that was closed a moment ago
        cannot know whether that was read.
        """
        if self.transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP)
        return not poll.poll(0)

    # called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        socket_ = transport.get_extra_info("socket")  # a host that is gone says nothing: ask it
        socket_.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            socket_.setsockopt(socket.IPPROTO_TCP, option, value)

    def data_received(self, data: bytes) -> None:
        """More of the answer."""
        if self._request is None:
            self.transport.abort()  # idle, and it says something
        elif self._is_raw:
            self._request.take_raw(data)
        else:
            self.has_answered = True
            self._h11.receive_data(data)
            self._read()

    def eof_received(self) -> bool:
        """The unit sends no more."""
        if self._request is None:
            return False
        if self._is_raw:
            self._request.unit_sends_no_more()
            return True
        self._h11.receive_data(b"")
        self._read()
        return False

    def _read(self) -> None:
        """Hand over what h11 makes of the bytes so far."""
        request = self._request
        assert request is not None
        try:
            while self._request is request and not self._is_raw:
                event = self._h11.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    break
                if isinstance(event, h11.ConnectionClosed):
                    return  # after the answer: `release` sees to it
                request.take_answer(event)
        except h11.RemoteProtocolError as error:
            request.unit_broke(
                f"cannot understand the answer: {error}" if not self._is_cut() else "the answer broke off"
            )
        request.flush()

    def _is_cut(self) -> bool:
        """It has ended too early, rather than said something wrong."""
        return self._h11.trailing_data[1]

    def pause_writing(self) -> None:
        """The unit does not keep up."""
        if self._request is not None:
            self._request.unit_full(True)

    def resume_writing(self) -> None:
        """It has caught up."""
        if self._request is not None:
            self._request.unit_full(False)

    def connection_lost(self, exc: Exception | None) -> None:
        """Both directions are closed."""
        self.member.forget(self)
        if self._request is not None:
            self._request.unit_broke("it closed the connection" if exc is None else "it reset the connection")
