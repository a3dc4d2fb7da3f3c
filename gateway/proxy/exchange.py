"""One request and its answer: who gets it, what is tried again, and when it is given up.

The body is streamed; the first KEPT_BYTES of it are kept so that the request can be sent once more. What is sent again:

    nothing has been sent yet (no connection)        any request, to another server
    a kept-alive connection turns out to be closed   idempotent ones, on a fresh connection
    the answer broke off before its head was whole,  idempotent ones, to another server
    did not come in time, or was 503
    the server is dead (gone, and does not answer)   idempotent ones, to another server

never when any of the answer has gone to the client, or more of the body has been sent than is kept.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

import h11

from ..model import Key, Symptom
from ..settings.proxy import ProxySpec
from . import tunnel
from .answers import Refusal, too_slow
from .heads import Head, answer_fault, answer_fields
from .members import Member, Service
from .trouble import Trouble, broken_answer, name_of, no_answer, no_connection
from .tunnel import Tunnel
from .unit_connection import UnitConnection

log = logging.getLogger("unit-gateway.proxy")

KEPT_BYTES = 64 * 1024
_ERROR_ANSWERS = frozenset((502, 503, 504))
_NEVER = float("inf")


class Client(tunnel.Client, Protocol):
    """What an exchange needs of the client's connection."""

    @property
    def is_full(self) -> bool: ...
    def queue(self, event: h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage) -> None: ...
    def flush(self) -> None: ...
    def refuse(self, refusal: Refusal) -> None: ...
    def answered(self) -> None: ...
    def cut(self) -> None: ...
    def switch(self, tunnel: Tunnel) -> None: ...


class Exchange:
    """From the head of a request to the end of its answer, or to the tunnel that it becomes."""

    __slots__ = (
        "_attempts", "_client", "_connecting", "_continued", "_ended", "_fresh", "_head", "_kept", "_kept_bytes",
        "_last_trouble", "_loop", "_member", "_service", "_spec", "_tried", "_unit", "_unit_is_full", "answering",
        "body_ended",
    )  # fmt: skip

    _member: Member  # chosen last

    def __init__(self, client: Client, head: Head, service: Service, spec: ProxySpec) -> None:
        self._client, self._head, self._service, self._spec = client, head, service, spec
        self._loop = asyncio.get_running_loop()
        self._kept: list[bytes] | None = []  # of the body; None: more has been sent than is kept
        self._kept_bytes = 0
        self._tried: set[Key] = set()
        self._attempts = 0
        self._unit: UnitConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._last_trouble: Trouble | None = None
        self._unit_is_full = self._continued = self._ended = False
        self._fresh = False  # no kept-alive connection again
        self.body_ended = False
        self.answering = False  # the client has the head of an answer

    # called by the client's connection

    def start(self) -> None:
        """Send it to somebody. What of the body is there already goes with the head."""
        self._choose()

    def take_body(self, data: bytes) -> None:
        """More of the request's body."""
        self._kept_bytes += len(data)
        if self._kept is not None:
            self._kept.append(data)
        if self._unit is not None:
            self._write(h11.Data(data=data))
            self._forget_much()

    def end_body(self) -> None:
        """The request is complete."""
        self.body_ended = True
        if self._unit is not None:
            self._write(h11.EndOfMessage())

    @property
    def holds_body(self) -> bool:
        """No more of the body can be taken at the moment."""
        if self._ended:
            return False
        return self._unit_is_full if self._unit is not None else self._kept_bytes > KEPT_BYTES

    @property
    def withholds_body(self) -> bool:
        """The client waits to be told to send its body, and has not been."""
        return self._head.expects and not self._continued and not self._kept_bytes and not self.body_ended

    def client_full(self, full: bool) -> None:
        """The client does not keep up, or has caught up."""
        if self._unit is not None:
            (self._unit.transport.pause_reading if full else self._unit.transport.resume_reading)()
            self._touch()

    def client_gone(self) -> None:
        """Nobody waits for the answer any more."""
        self._end()

    def late(self) -> None:
        """The deadline is over: somebody has been silent for too long. Whose turn was it?"""
        if self.answering:
            self._cut("the client does not take it" if self._client.is_full else "the unit stopped in the middle")
        elif not self.body_ended and not self.holds_body:
            self._end()
            self._client.refuse(too_slow(self._spec.idle_seconds))
        else:
            self._fail(no_answer(self._member.server, self._spec.response_seconds))

    # choosing and connecting

    def _choose(self) -> None:
        member = self._service.choose(self._tried)
        if member is None:
            self._give_up()
        else:
            self._attempts += 1
            self._try(member)

    def _try(self, member: Member) -> None:
        self._member = member
        unit = None if self._fresh else member.take_idle(self._loop.time())
        if isinstance(unit, UnitConnection):
            self._attach(unit)
        else:
            self._client.deadline = _NEVER  # connecting has a limit of its own
            self._connecting = self._loop.create_task(self._connect(member))

    def _give_up(self) -> None:
        self._end()
        self._client.refuse(self._last_trouble.refusal() if self._last_trouble else self._service.refusal())

    async def _connect(self, member: Member) -> None:
        seconds = self._spec.connect_seconds
        try:
            async with asyncio.timeout(seconds):
                _, unit = await self._loop.create_connection(lambda: UnitConnection(member), *member.server.place)
        except (OSError, UnicodeError) as error:
            self._connecting = None
            self._fail(no_connection(member.server, error, seconds))
            return
        self._connecting = None
        if member.is_open:
            self._attach(unit)
        else:  # in the meantime it has begun to drain, or has left: nothing new
            unit.close()
            self._attempts -= 1
            self._choose()

    # sending

    def _attach(self, unit: UnitConnection) -> None:
        """Send all of the request that there is."""
        self._unit, self._unit_is_full = unit, False
        self._member.total += 1
        self._member.in_flight += 1
        self._member.requests.add(self)
        unit.begin(self)
        head = self._head
        parts = [unit.send(h11.Request(method=head.method, target=head.target, headers=head.fields))]
        parts += (unit.send(h11.Data(data=data)) for data in self._kept or ())
        if self.body_ended:
            parts.append(unit.send(h11.EndOfMessage()))
        self._forget_much()
        self._touch()
        unit.transport.write(b"".join(parts))
        if self._client.is_full:
            unit.transport.pause_reading()
        self._client.regulate()

    def _forget_much(self) -> None:
        if self._kept_bytes > KEPT_BYTES:
            self._kept = None

    def _write(self, event: h11.Data | h11.EndOfMessage) -> None:
        assert self._unit is not None
        self._touch()
        self._unit.transport.write(self._unit.send(event))

    def unit_full(self, full: bool) -> None:
        """The unit does not keep up, or has caught up."""
        self._unit_is_full = full
        self._touch()
        self._client.regulate()

    def _touch(self) -> None:
        """Something has moved: whoever's turn it is has time again."""
        if self.answering:
            seconds = self._spec.idle_seconds if self._client.is_full else self._spec.stall_seconds
        elif self.body_ended or self.holds_body:
            seconds = self._spec.response_seconds
        else:
            seconds = self._spec.idle_seconds
        self._client.deadline = self._loop.time() + seconds

    # the answer; called by the connection to the unit

    def take_answer(self, event: object) -> None:
        """A part of the answer."""
        if isinstance(event, h11.Data):
            self._client.queue(event)
        elif isinstance(event, h11.EndOfMessage):
            self._client.queue(h11.EndOfMessage())  # trailers are dropped
            self._end(keep=self.body_ended)
            self._client.answered()
        elif isinstance(event, h11.Response):
            self._take_head(event)
        elif isinstance(event, h11.InformationalResponse):
            self._take_interim(event)

    def _take_head(self, event: h11.Response) -> None:
        if fault := answer_fault(event):
            self.unit_broke(fault)
            return
        status = event.status_code
        if status not in _ERROR_ANSWERS:
            self._service.succeeded(self._member, self._loop.time())
        else:
            self._blame(Symptom.ERROR_ANSWERS, f"{name_of(self._member.server)} answered {status}")
            if status == 503 and self._may_repeat() and self._has_another():
                self._again()
                return
        self.answering = True
        self._service.answered[status] += 1
        fields = answer_fields(event, self._spec.name.encode())
        self._client.queue(h11.Response(status_code=status, headers=fields, reason=event.reason))

    def _take_interim(self, event: h11.InformationalResponse) -> None:
        status = event.status_code
        if status == 101:
            self._switch(event)
        elif status != 100 or not self._continued:  # who was told to go on need not be told twice
            self._continued = self._continued or status == 100
            fields = answer_fields(event, self._spec.name.encode())
            self._client.queue(h11.InformationalResponse(status_code=status, headers=fields, reason=event.reason))

    def _switch(self, event: h11.InformationalResponse) -> None:
        if not self._head.upgrade or self._unit is None:
            self.unit_broke("it switched protocols unasked")
            return
        fields = [(name, value) for name, value in event.headers if name == b"upgrade"]
        fields += [*answer_fields(event, self._spec.name.encode()), (b"connection", b"upgrade")]
        self._client.queue(h11.InformationalResponse(status_code=101, headers=fields, reason=event.reason))
        self._client.flush()
        self._service.answered[101] += 1
        self._service.succeeded(self._member, self._loop.time())
        unit, self._unit, self._ended = self._unit, None, True
        self._member.requests.discard(self)
        self._client.deadline = _NEVER
        self._client.switch(Tunnel(self._client, unit, self._service, self._spec.stall_seconds))

    def flush(self) -> None:
        """That was all for now."""
        if self._unit is not None:
            self._touch()
        self._client.flush()

    def unit_broke(self, reason: str) -> None:
        """There is no more from the unit, though there should be."""
        unit = self._unit
        if unit is not None:
            self._fail(broken_answer(self._member.server, reason, unit.reused and not unit.has_answered))

    def take_raw(self, data: bytes) -> None:
        """Not before a switch."""

    def unit_sends_no_more(self) -> None:
        """Not before a switch: until then the end belongs to the answer."""

    # when it goes wrong

    def member_is_dead(self, cut: bool) -> None:
        """Its server does not answer any more. `cut`: it has gone, too, so not even a begun answer will go on."""
        if self.answering:
            if cut:
                self._cut("the unit has gone")
        elif self._may_repeat() and self._has_another():
            self._again()

    def _blame(self, symptom: Symptom, detail: str) -> None:
        if not self._service.failed(self._member, symptom, detail, self._loop.time()):
            return
        log.warning("%s: %s is left out for now: %s", self._service.name, name_of(self._member.server), detail)
        if symptom in (Symptom.RESPONSE_TIMEOUT, Symptom.CONNECT_TIMEOUT):
            for other in self._member.requests - {self}:
                other.member_is_dead(cut=False)

    def _fail(self, trouble: Trouble) -> None:
        """This attempt has come to nothing."""
        if self.answering:
            self._cut(trouble.detail)
            return
        if trouble.symptom is not None:
            self._blame(trouble.symptom, trouble.detail)
        self._last_trouble = trouble
        was_sent = self._unit is not None
        if trouble.stale and self._head.is_idempotent and self._kept is not None and self._member.is_open:
            self._fresh = True
            self._detach()
            self._service.retries += 1
            self._try(self._member)
        elif self._may_repeat() or (not was_sent and self._attempts <= self._spec.retries):
            self._again()
        else:
            self._give_up()

    def _may_repeat(self) -> bool:
        """Sending it once more, though it has been sent, does no harm and is possible."""
        allowed = self._head.is_idempotent
        return allowed and not self.answering and self._kept is not None and self._attempts <= self._spec.retries

    def _has_another(self) -> bool:
        return self._service.has_another({*self._tried, self._member.server.key})

    def _again(self) -> None:
        """To another server."""
        self._tried.add(self._member.server.key)
        self._detach()
        if self._has_another():
            self._service.retries += 1
        self._choose()

    def _cut(self, reason: str) -> None:
        """The answer has begun and cannot be completed: only a closed connection tells the client."""
        log.warning("%s: an answer of %s was cut: %s", self._service.name, name_of(self._member.server), reason)
        self._end()
        self._client.cut()

    def _end(self, keep: bool = False) -> None:
        if not self._ended:
            self._ended = True
            if self._connecting is not None:
                self._connecting.cancel()
            self._detach(keep)

    def _detach(self, keep: bool = False) -> None:
        unit, self._unit = self._unit, None
        if unit is None:
            return
        self._member.in_flight -= 1
        self._member.requests.discard(self)
        if keep:
            unit.release()
        else:
            unit.close()
        self._service.ended(self._member)
