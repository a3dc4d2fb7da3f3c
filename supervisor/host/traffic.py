"""The TCP sockets of this network namespace as the kernel sees them: sock_diag(7), which needs no privileges.

It knows nothing of units. All figures are of one moment; nothing is remembered between two calls.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator
from typing import NamedTuple

from ..core.traffic import (
    CLOSE_WAIT,
    CLOSING,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    SYN_RECEIVED,
    Connection,
)

ANSWER_SECONDS = 2.0  # the kernel answers at once; no fault of it may stop the event loop for longer
_INTERRUPTED_DUMPS = 5
_PEER_HAS_CLOSED = frozenset((CLOSE_WAIT, LAST_ACK, CLOSING))
_STATES = (ESTABLISHED, SYN_RECEIVED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT, LAST_ACK, CLOSING)
_CONNECTED, _LISTENING = sum(1 << state for state in _STATES), 1 << 10
_WILDCARDS = ("0.0.0.0", "::")
_FAMILIES = (socket.AF_INET, socket.AF_INET6)

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLM_F_DUMP_INTR = 0x10
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQ_BYTECODE = 1
_EXT_INFO, _EXT_SKV6ONLY = 2, 11
_BC_S_GE, _BC_S_LE = 2, 3
_RECEIVE_BYTES = 64 * 1024  # the kernel makes its answers no larger than half of that

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2; the socket's id is not looked at in dumps
_INSTRUCTION = struct.Struct("=BBH")  # struct inet_diag_bc_op: code, jump if true, jump if false (or the operand)
_ATTRIBUTE = struct.Struct("=HH")
_ERRNO = struct.Struct("=i")
# struct inet_diag_msg: family, state, source port, destination port, source, destination, both queues, inode
_SOCKET = struct.Struct("=BBxx2s2s16s16s12x4xII4xI")
# struct tcp_info: last sent, received, confirmed [ms]; acked, received [bytes]; segments sent, those with data.
# Its fields have never moved, only been added to; the last of these came with Linux 4.6.
_INFO = struct.Struct("=44xI4xII60xQQI16xI")


class Listener(NamedTuple):
    """One listening socket."""

    address: str
    port: int
    inode: int
    queue: int  # connections that wait for accept()
    takes_ipv4: bool  # among IPv6 wildcards there are both kinds

    def serves(self, host: str) -> bool:
        """Whether connections to `host`, one of `local_host`'s answers, end here; "" is any address."""
        if host in ("", self.address):
            return True
        if self.address == "::":
            return ":" in host or self.takes_ipv4
        return self.address == "0.0.0.0" and ":" not in host


class Sockets:
    """Asks the kernel, over one netlink socket. Calls block for as long as the kernel takes.

    For connections that is about 1 ms for a table of 260 000 places (the kernel's log tells how many it has), however
    few of them are wanted, and 4 ms more for each 1000 that are found. So ask for many ports at once.
    """

    def __init__(self) -> None:
        self._netlink: socket.socket | None = None
        self._sequence = 0

    def connections(self, address: str, port: int) -> list[Connection]:
        """The connections to a port of this host: those to `address`, or to any of its addresses.

        Any: if `address` is a wildcard, a host name, or one that this host does not have (translated on its way, say).
        Peers of sockets that take both IPv4 and IPv6 are shown as plain IPv4 ones. Raises OSError.
        """
        return self.connections_of([(address, port)])[address, port]

    def connections_of(self, places: Collection[tuple[str, int]]) -> dict[tuple[str, int], list[Connection]]:
        """The connections to each of many (address, port) in one go: dict[place, its connections]. Raises OSError."""
        found: dict[tuple[str, int], list[Connection]] = {place: [] for place in places}
        if not found:
            return found
        hosts = {address: local_host(address) for address, _ in found}
        takers: dict[int, list[tuple[str, list[Connection]]]] = {}
        for (address, port), taken in found.items():
            takers.setdefault(port, []).append((hosts[address], taken))
        ports = _port_range(min(takers), max(takers))
        for family in _FAMILIES:
            for message in self._dump(family, _CONNECTED, ports, info=True):
                _hand_out(message, takers)
        return found

    def listeners(self) -> dict[int, list[Listener]]:
        """Every listening TCP socket: dict[port, its listeners]. Raises OSError."""
        found: dict[int, list[Listener]] = {}
        for family in _FAMILIES:
            for message in self._dump(family, _LISTENING, b"", info=False):
                listener = _listener(message)
                found.setdefault(listener.port, []).append(listener)
        return found

    def close(self) -> None:
        """Give the netlink socket back; the next question opens another."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def _dump(self, family: int, states: int, program: bytes, *, info: bool) -> list[bytes]:
        """struct inet_diag_msg and its attributes of all sockets that match."""
        for _ in range(_INTERRUPTED_DUMPS):
            try:
                self._ask(family, states, program, info)
                messages, complete = self._answer()
            except OSError as error:
                self.close()
                if error.errno == errno.ENOENT and family == socket.AF_INET6:  # a kernel without IPv6
                    return []
                raise
            except BaseException:  # what is left of this answer must not be taken for the next one's
                self.close()
                raise
            if complete:
                return messages
        raise OSError(errno.EAGAIN, "cannot list sockets: the kernel's table changes too fast")

    def _ask(self, family: int, states: int, program: bytes, info: bool) -> None:
        if self._netlink is None:
            self._netlink = _open()
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        body = _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << (_EXT_INFO - 1) if info else 0, states)
        if program:
            body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(program), _REQ_BYTECODE) + program
        size = _HEADER.size + len(body)
        header = _HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, self._sequence, 0)
        self._netlink.send(header + body)

    def _answer(self) -> tuple[list[bytes], bool]:
        """The answer to the last question, and whether the table stood still meanwhile."""
        assert self._netlink is not None
        messages: list[bytes] = []
        complete = True
        while True:
            for kind, flags, sequence, body in _split(self._netlink.recv(_RECEIVE_BYTES)):
                if sequence != self._sequence:
                    continue
                complete = complete and not flags & _NLM_F_DUMP_INTR
                if kind == _SOCK_DIAG_BY_FAMILY:
                    messages.append(body)
                    continue
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    _raise_for(body)
                if kind == _NLMSG_DONE:
                    return messages, complete


def local_host(address: str) -> str:
    """A numeric address of this host in its usual spelling; "" for all others, names and wildcards among them."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        raw = socket.inet_pton(family, address)
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            probe.bind((address, 0))
    except OSError:
        return ""
    host = _address(family, raw)
    return "" if host in _WILDCARDS else host


def _open() -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
    netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(ANSWER_SECONDS), 0))
    return netlink


def _split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, sequence number and body of each netlink message."""
    start = 0
    while start + _HEADER.size <= len(data):
        size, kind, flags, sequence, _ = _HEADER.unpack_from(data, start)
        if size < _HEADER.size or start + size > len(data):
            raise OSError(errno.EBADMSG, "cannot list sockets: the kernel's answer is cut")
        yield kind, flags, sequence, data[start + _HEADER.size : start + size]
        start += (size + 3) & ~3


def _raise_for(body: bytes) -> None:
    number = -_ERRNO.unpack_from(body)[0] if len(body) >= _ERRNO.size else 0
    if number:
        raise OSError(number, f"cannot list sockets: {os.strerror(number)}")


def _port_range(first: int, last: int) -> bytes:
    """A filter program: the local port is one of these. A jump to its end accepts, one beyond its end rejects."""
    size = 4 * _INSTRUCTION.size
    instructions = ((_BC_S_GE, 8, size + 4), (0, 0, first), (_BC_S_LE, 8, size - 4), (0, 0, last))
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in instructions)


def _hand_out(message: bytes, takers: dict[int, list[tuple[str, list[Connection]]]]) -> None:
    """Give a connection to whoever asked for its port, and for its address or any."""
    family, _, raw_port, _, raw_address, *_ = _SOCKET.unpack_from(message)
    wanted = takers.get(int.from_bytes(raw_port, "big"))
    if wanted is None or (connection := _connection(message)) is None:
        return
    for host, taken in wanted:
        if host == "" or host == _address(family, raw_address):
            taken.append(connection)


def _connection(message: bytes) -> Connection | None:
    """None: one that the unit has closed and whose end only the kernel waits for."""
    family, state, _, port, _, peer, receive_queue, send_queue, inode = _SOCKET.unpack_from(message)
    info = _info(message)
    if info is None:
        if state != SYN_RECEIVED:
            return None
        info = (0, 0, 0, 0, 0, 1, 0)
    sent_ms, received_ms, confirmed_ms, acked, received, segments, data_segments = info
    if state in _PEER_HAS_CLOSED:  # TCP counts a FIN as one byte
        received -= 1
        receive_queue -= receive_queue > 0
    if state == FIN_WAIT_2:
        acked -= 1
    elif state in (FIN_WAIT_1, LAST_ACK, CLOSING):
        send_queue -= send_queue > 0
    return Connection(
        peer=(_address(family, peer), int.from_bytes(port, "big")),
        state=state,
        received=max(received, 0),
        acked=max(acked, 0),
        last_received_ago=received_ms / 1000,
        last_sent_ago=sent_ms / 1000,
        receive_queue=receive_queue,
        send_queue=send_queue,
        # A socket has no inode before accept() and none after close(), and only the unit can have closed its end.
        accepted=inode != 0 or state not in (ESTABLISHED, SYN_RECEIVED, CLOSE_WAIT),
        last_confirmed_ago=confirmed_ms / 1000,
        bare_confirmations=segments - data_segments - 1,
    )


def _info(message: bytes) -> tuple[int, ...] | None:
    found = _attribute(message, _EXT_INFO)
    if found is None:
        return None
    if found[1] < _INFO.size:
        raise OSError(errno.ENOTSUP, "cannot tell requests in flight: the kernel is older than Linux 4.6")
    return _INFO.unpack_from(message, found[0])


def _attribute(message: bytes, wanted: int) -> tuple[int, int] | None:
    """Offset and size of an attribute's value."""
    start = _SOCKET.size
    while start + _ATTRIBUTE.size <= len(message):
        size, kind = _ATTRIBUTE.unpack_from(message, start)
        if kind == wanted:
            return start + _ATTRIBUTE.size, size - _ATTRIBUTE.size
        if size < _ATTRIBUTE.size:
            break
        start += (size + 3) & ~3
    return None


def _listener(message: bytes) -> Listener:
    family, _, port, _, address, _, queue, _, inode = _SOCKET.unpack_from(message)
    only = _attribute(message, _EXT_SKV6ONLY)
    takes_ipv4 = family == socket.AF_INET or (only is not None and message[only[0]] == 0)
    return Listener(_address(family, address), int.from_bytes(port, "big"), inode, queue, takes_ipv4)


_MAPPED = b"\0" * 10 + b"\xff\xff"


def _address(family: int, raw: bytes) -> str:
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, raw[:4])
    if raw.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, raw[12:])
    return socket.inet_ntop(socket.AF_INET6, raw)
