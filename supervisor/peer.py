"""Whose the other end of a loopback connection is: the kernel tells (sock_diag(7), or /proc/net/tcp of proc(5))."""

from __future__ import annotations

import socket
import struct

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")

_ANSWER_SECONDS = 2.0  # the kernel answers at once; no fault of it may stop the event loop for longer
# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST = 4, 20, 1
_ANY_COOKIE = b"\xff" * 8
_LISTEN = 10
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBBxI2s2s16s16sI8s")  # struct inet_diag_req_v2
_SOCKET = struct.Struct("=BB2x2s2s16s16s12x12xII")  # struct inet_diag_msg: family, state, the id, uid, inode


def owner_of(theirs: str, ours: str) -> int | None:
    """The uid that owns a connection's other end; None: nobody does any more. Both are "host:port"."""
    try:
        return _asked_owner(theirs, ours)
    except OSError:
        return _listed_owner(_as_listed(theirs), _as_listed(ours))


def host_of(header: str) -> str:
    """The name in a Host header, without its port, in lower case."""
    name, colon, port = header.rpartition(":")
    return (name if colon and port.isdigit() else header).lower()


def _asked_owner(theirs: str, ours: str) -> int | None:
    """Asked for this one connection: a list of all takes long where there are many, and each new client would wait.

    Raises OSError where the kernel does not tell.
    """
    (family, their_address, their_port), (_, our_address, our_port) = _packed(theirs), _packed(ours)
    ends = their_port, our_port, their_address.ljust(16, b"\0"), our_address.ljust(16, b"\0")
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF, *ends, 0, _ANY_COOKIE)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(_ANSWER_SECONDS)
        netlink.send(_HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0) + body)
        answer = netlink.recv(4096)
    if _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        # A kernel without sock_diag says the same as one that knows no such connection.
        raise FileNotFoundError(f"no answer about {theirs}")
    _, state, port, peer_port, _, _, uid, inode = _SOCKET.unpack_from(answer, _HEADER.size)
    # Where there is no such connection, a listener on that port is found. See below about the inode.
    is_it = state != _LISTEN and (port, peer_port) == (their_port, our_port) and inode
    return int(uid) if is_it else None


def _listed_owner(their_end: str, our_end: str) -> int | None:
    try:
        with open("/proc/net/tcp6" if len(their_end) > 13 else "/proc/net/tcp") as file:
            for line in file:
                fields = line.split()
                # Others may use the same port towards somebody else. And a socket that its program has closed has no
                # inode any more, and is listed as root's.
                if fields[1] == their_end and fields[2] == our_end and fields[9] != "0":
                    return int(fields[7])
    except OSError:
        pass
    return None


def _packed(address: str) -> tuple[int, bytes, bytes]:
    """Family, address and port of a "host:port", in network order."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return family, socket.inet_pton(family, host), int(port).to_bytes(2, "big")


def _as_listed(address: str) -> str:
    """A "host:port" as /proc/net/tcp lists it: the address in little-endian words of 32 bits."""
    _, packed, port = _packed(address)
    words = [packed[at : at + 4][::-1] for at in range(0, len(packed), 4)]
    return f"{b''.join(words).hex().upper()}:{port.hex().upper()}"
