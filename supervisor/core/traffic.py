"""Which connections of a unit still carry work, told from what the kernel knows of each.

A connection is in flight when the client has spoken and the unit owes an answer: the client spoke last, or bytes wait
to be read by the unit or to be taken by the client. That is right where each request is answered in one go before the
next one is sent (HTTP/1.x without pipelining). Bytes are all that a kernel sees, so elsewhere it errs:

- An answer that pauses for longer than `quiet_seconds` is idle while it pauses: server-sent events, headers long before
  their body, the second of two pipelined requests, a WebSocket after the unit's message, an HTTP/2 connection on which
  one stream has spoken after another one's request. Silence is no proof of being done; a longer `quiet_seconds` helps.
- What a client sends without expecting an answer is in flight until the unit says something or the connection ends:
  half a request, a WebSocket message, a WINDOW_UPDATE or an acknowledgement of SETTINGS or PING in HTTP/2. A drain then
  waits to its limit.
- TLS handshakes are data. In TLS 1.3 servers have the last word, unless they send no session tickets; in TLS 1.2,
  unless a session was resumed. Then a connection is idle before its first request; else it is in flight until it is
  used or closed.

The kernel's times are those of its tick, 1 to 10 ms. Where question and answer fell into one, and nothing else tells
which came last, the connection is in flight for `doubt_seconds` and then counts as answered.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from dataclasses import dataclass

DOUBT_SECONDS = 10.0
# TCP state numbers, from the kernel's include/net/tcp_states.h.
ESTABLISHED, SYN_RECEIVED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT, LAST_ACK, CLOSING = 1, 3, 4, 5, 8, 9, 11
_UNIT_HAS_CLOSED = frozenset((FIN_WAIT_1, FIN_WAIT_2, LAST_ACK, CLOSING))


@dataclass(frozen=True, slots=True)
class Connection:
    """The unit's end of one TCP connection. Sizes are bytes of data, without the one that TCP counts for a FIN.

    The times are seconds, as exact as the kernel's tick (1 to 10 ms); where nothing was sent or received yet they
    count from the beginning of the connection.
    """

    peer: tuple[str, int]
    state: int  # TCP state number
    received: int
    acked: int  # sent, and confirmed by the client's kernel
    last_received_ago: float
    last_sent_ago: float
    receive_queue: int  # not read by the unit yet
    send_queue: int  # not confirmed by the client's kernel yet
    accepted: bool  # False: the unit has not called accept() for it
    last_confirmed_ago: float = math.inf  # since the client's kernel last confirmed anything
    bare_confirmations: int = 1  # segments without data that the unit's kernel has sent, besides the handshake's


@dataclass(frozen=True, slots=True)
class Traffic:
    """How many connections of one unit are in which condition."""

    in_flight: int = 0  # the unit owes an answer, or the rest of one
    trailing: int = 0  # the unit spoke last, but only just: it may go on
    idle: int = 0  # answered, and silent since
    unused: int = 0  # the client has not said anything yet
    unaccepted: int = 0  # wait for the unit's accept(); they are reset when it ends

    @property
    def quiet(self) -> bool:
        """Nobody would notice if the unit ended now."""
        return not (self.in_flight or self.trailing or self.unaccepted)


def count(
    connections: Iterable[Connection],
    *,
    quiet_seconds: float,
    ignored: Container[tuple[str, int]],
    doubt_seconds: float = DOUBT_SECONDS,
) -> Traffic:
    """Sort a unit's connections; those whose peer is one of `ignored` (our own probes) do not count."""
    totals = {"in_flight": 0, "trailing": 0, "idle": 0, "unused": 0, "unaccepted": 0}
    for connection in connections:
        if connection.peer not in ignored:
            totals[_condition(connection, quiet_seconds, doubt_seconds)] += 1
    return Traffic(**totals)


def _condition(connection: Connection, quiet_seconds: float, doubt_seconds: float) -> str:
    if not connection.accepted:
        return "unaccepted"
    if _owes_an_answer(connection, doubt_seconds):
        return "in_flight"
    spoken = connection.received or connection.acked or connection.send_queue
    # A unit that has closed its direction may still read on, lest a reset destroys its last words (lingering close).
    if spoken and min(connection.last_sent_ago, connection.last_received_ago) < quiet_seconds:
        return "trailing"
    return "idle" if connection.received else "unused"


def _owes_an_answer(connection: Connection, doubt_seconds: float) -> bool:
    if connection.state in _UNIT_HAS_CLOSED:
        return connection.send_queue > 0
    if connection.received == 0:  # a greeting, at most
        return False
    if connection.receive_queue or connection.send_queue or not connection.acked:
        return True
    return _client_spoke_last(connection, doubt_seconds)


def _client_spoke_last(connection: Connection, doubt_seconds: float) -> bool:
    if connection.last_received_ago != connection.last_sent_ago:
        return connection.last_received_ago < connection.last_sent_ago
    # Both within one tick of the kernel: a quick answer, or an answer and the next request right after it. A request
    # confirms the answer before it, so a later confirmation is of the last answer, unless it is the client's FIN.
    if connection.state == ESTABLISHED and connection.last_confirmed_ago < connection.last_received_ago:
        return False
    # The unit's kernel confirms a request together with the answer, or, if that takes longer than some 40 ms, without
    # one. If it never had to do so, everything has been answered. If it had to, it may have been for an earlier one.
    return connection.bare_confirmations > 0 and connection.last_received_ago < doubt_seconds
