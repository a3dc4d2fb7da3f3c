"""What a request becomes when the unit has switched protocols (101): bytes both ways, until both have ended."""

from __future__ import annotations

import asyncio
from typing import Protocol

from .members import Member, Service
from .unit_connection import UnitConnection


class Client(Protocol):
    """What a tunnel needs of the client's connection."""

    deadline: float

    def write_raw(self, data: bytes) -> None: ...
    def write_eof(self) -> None: ...
    def regulate(self) -> None: ...
    def tunnel_ended(self, cut: bool) -> None: ...


class Tunnel:
    """Either end may close its direction and go on listening. Silence is no fault while both directions are open."""

    __slots__ = (
        "_client", "_client_eof", "_ended", "_member", "_service", "_stall_seconds", "_unit", "_unit_eof",
        "_unit_is_full",
    )  # fmt: skip

    def __init__(self, client: Client, unit: UnitConnection, service: Service, stall_seconds: float) -> None:
        self._client, self._unit, self._service, self._stall_seconds = client, unit, service, stall_seconds
        self._member: Member = unit.member
        self._client_eof = self._unit_eof = self._ended = self._unit_is_full = False

    # called by the client's connection

    def begin(self, from_client: bytes) -> None:
        """Both have switched; the client may have said something already."""
        self._unit.begin(self)
        self._member.requests.add(self)
        from_unit = self._unit.go_raw()
        if from_unit:
            self._client.write_raw(from_unit)
        if from_client:
            self.client_raw(from_client)

    @property
    def holds_body(self) -> bool:
        """No more can be taken from the client at the moment."""
        return self._unit_is_full

    def client_raw(self, data: bytes) -> None:
        """Bytes for the unit."""
        if not self._ended:
            self._unit.transport.write(data)
            self._limit_half_closed()

    def client_full(self, full: bool) -> None:
        """The client does not keep up, or has caught up."""
        (self._unit.transport.pause_reading if full else self._unit.transport.resume_reading)()

    def client_sends_no_more(self) -> None:
        """The client has closed its direction."""
        self._client_eof = True
        if not self._ended and not self._unit.transport.is_closing():
            self._unit.transport.write_eof()
        self._end_if_both()

    def client_gone(self) -> None:
        """The client's connection is closed."""
        self._end()

    # called by the connection to the unit

    def take_raw(self, data: bytes) -> None:
        """Bytes for the client."""
        self._client.write_raw(data)
        self._limit_half_closed()

    def take_answer(self, event: object) -> None:
        """Not after the switch."""

    def flush(self) -> None:
        """Everything has been written as it came."""

    def unit_full(self, full: bool) -> None:
        """The unit does not keep up, or has caught up."""
        self._unit_is_full = full
        self._client.regulate()

    def unit_sends_no_more(self) -> None:
        """The unit has closed its direction."""
        self._unit_eof = True
        self._client.write_eof()
        self._end_if_both()

    def unit_broke(self, reason: str) -> None:
        """The connection to the unit is gone."""
        if not self._ended:
            self._end()
            self._client.tunnel_ended(cut=False)

    def member_is_dead(self, cut: bool) -> None:
        """Its server has gone and does not answer any more."""
        if cut and not self._ended:
            self._end()
            self._client.tunnel_ended(cut=True)

    def _limit_half_closed(self) -> None:
        """With one direction closed, silence in the other one does not last for ever: perhaps nobody is there."""
        if self._client_eof or self._unit_eof:
            self._client.deadline = asyncio.get_running_loop().time() + self._stall_seconds

    def _end_if_both(self) -> None:
        self._limit_half_closed()
        if self._client_eof and self._unit_eof and not self._ended:
            self._end()
            self._client.tunnel_ended(cut=False)

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._member.in_flight -= 1
        self._member.requests.discard(self)
        if self._unit.transport.is_closing() or not self._unit_eof:
            self._unit.close()
        else:
            self._unit.finish()  # what is still to be written goes out
        self._service.ended(self._member)
