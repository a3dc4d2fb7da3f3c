"""Whose the other end of a loopback connection is: the kernel tells, in /proc/net/tcp (proc(5))."""

from __future__ import annotations

import socket

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


def owner_of(theirs: str, ours: str) -> int | None:
    """The uid that owns a connection's other end; None: nobody does any more. Both are "host:port"."""
    their_end, our_end = _as_listed(theirs), _as_listed(ours)
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


def host_of(header: str) -> str:
    """The name in a Host header, without its port, in lower case."""
    name, colon, port = header.rpartition(":")
    return (name if colon and port.isdigit() else header).lower()


def _as_listed(address: str) -> str:
    """A "host:port" as /proc/net/tcp lists it: the address in little-endian words of 32 bits."""
    host, _, port = address.rpartition(":")
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    words = [packed[at : at + 4][::-1] for at in range(0, len(packed), 4)]
    return f"{b''.join(words).hex().upper()}:{int(port):04X}"
