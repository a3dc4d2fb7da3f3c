"""Who may use the control API: root, the daemon's own user, and the group of its socket.

On the unix socket the kernel says who calls (SO_PEERCRED, socket(7)). On loopback TCP it says so too, in
/proc/net/tcp, whose uid column tells who owns the caller's end; there everybody may read, and only the same users may
change something. Browsers are refused: a page must not command what listens on this machine.
"""

from __future__ import annotations

import os
import socket

from .http import Peer, Request

_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]", "")


class Access:
    """Decides for each request."""

    def __init__(self, group: int | None) -> None:
        """`group` is the gid that may command besides root and the daemon's user."""
        self._uids = {0, os.geteuid()}
        self._groups = {group} if group is not None else set()
        if os.getegid() != 0:
            self._groups.add(os.getegid())

    def refuses(self, request: Request) -> str | None:
        """Why a request is refused; None: it is not."""
        if request.peer.uid is not None:
            return self._refuses_user(request.peer)
        host = request.headers.get("host", "")
        host = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if host.lower() not in _LOOPBACK_HOSTS:
            return f"this API is not served under the name {host}; use 127.0.0.1"
        if request.method in ("GET", "HEAD"):
            return None
        if "origin" in request.headers:
            return "this API takes no commands from web pages"
        uid = _owner(request.peer)
        if uid not in self._uids:
            return "only root and the user that unitd runs as may command over TCP; use the unix socket or sudo"
        return None

    def _refuses_user(self, peer: Peer) -> str | None:
        if peer.uid in self._uids or peer.gid in self._groups:
            return None
        if self._groups & _groups_of(peer.pid):
            return None
        return f"uid {peer.uid} may not use unitd: become root, or a member of the group that its socket belongs to"


def _groups_of(pid: int | None) -> set[int]:
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("Groups:"):
                    return {int(group) for group in line.split()[1:]}
    except OSError:
        pass
    return set()


def _owner(peer: Peer) -> int | None:
    """The uid that owns the other end of a loopback connection; None: nobody does any more."""
    theirs, ours = _as_listed(peer.address), _as_listed(peer.ours)
    try:
        with open("/proc/net/tcp6" if len(theirs) > 13 else "/proc/net/tcp") as file:
            for line in file:
                fields = line.split()
                # Others may use the same port towards somebody else. And a socket that its program has closed has no
                # inode any more, and is listed as root's.
                if fields[1] == theirs and fields[2] == ours and fields[9] != "0":
                    return int(fields[7])
    except OSError:
        pass
    return None


def _as_listed(address: str) -> str:
    """A "host:port" as /proc/net/tcp lists it: the address in little-endian words of 32 bits."""
    host, _, port = address.rpartition(":")
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    words = [packed[at : at + 4][::-1] for at in range(0, len(packed), 4)]
    return f"{b''.join(words).hex().upper()}:{int(port):04X}"
