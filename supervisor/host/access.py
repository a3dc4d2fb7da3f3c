"""Who calls the control API. On the unix socket: root, the daemon's own user, and the group of the socket.

On the unix socket the kernel says who calls (SO_PEERCRED, socket(7)). On TCP a caller shows a credential: a bearer
token, or a client certificate that the TLS layer has verified. Where nobody was given one (then it is loopback), the
kernel tells there too; everybody may read, and only the same users may change something. Browsers are refused: a page
must not command what listens on this machine.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..core.access import Principal, Right, Role, by_certificate, by_token, refuses
from ..peer import LOOPBACK_HOSTS, host_of, owner_of
from .http_message import Request
from .listener import Peer
from .quiet import Quiet

READS = ("GET", "HEAD")
_BEARER = "bearer "
_ANYBODY = Principal("anybody on this host", Role.READ)
_FROM_A_PAGE = "this API takes no commands from web pages"
_NOT_OVER_TCP = "only root and the user that unitd runs as may command over TCP; use the unix socket or sudo"


@dataclass(frozen=True, slots=True)
class Denied:
    """Why a request is refused: the problem's code, and what to do. `first`: of its sender in a while."""

    code: str  # unauthenticated | forbidden
    detail: str
    first: bool = True
    who: str = "unknown"


class Access:
    """Decides for each request."""

    def __init__(self, group: int | None, principals: Sequence[Principal] = ()) -> None:
        """`group` is the gid that may command besides root and the daemon's user, on the unix socket.

        With `principals`, everybody needs a credential on TCP.
        """
        self._principals = tuple(principals)
        self._uids = {0, os.geteuid()}
        self._groups = {group} if group is not None else set()
        if os.getegid() != 0:
            self._groups.add(os.getegid())
        self._quiet = Quiet()

    def caller(self, request: Request) -> Principal | Denied:
        """Who sent it, if it may be answered at all; what they may do is `core.access`'s to say."""
        if request.peer.uid is None and self._principals:
            return self._by_credential(request)
        found = self._by_kernel(request)
        if not isinstance(found, Denied):
            return found
        who = "unknown" if request.peer.uid is None else f"uid {request.peer.uid}"
        sender = request.peer.address.rpartition(":")[0] or who
        return replace(found, who=who, first=self._quiet.warn(sender, "refused %s: %s", sender, found.detail))

    def refuses(self, request: Request) -> str | None:
        """Why a caller whom only the kernel knows is refused; None: they are not."""
        found = self._by_kernel(request)
        return found.detail if isinstance(found, Denied) else None

    def may_not_command(self, request: Request) -> str | None:
        """Why whoever sent this may not command units; None: they may."""
        if request.peer.uid is not None or not self._principals:
            return self.refuses(replace(request, method="POST"))
        return refuses(request.caller, Right.OPERATE) or None if request.caller else None

    def _by_kernel(self, request: Request) -> Principal | Denied:
        if request.peer.uid is not None:
            refused = self._refuses_user(request.peer)
            return Denied("forbidden", refused) if refused else Principal(f"uid {request.peer.uid}", Role.ADMIN)
        host = host_of(request.headers.get("host", ""))
        if host and host not in LOOPBACK_HOSTS:
            return Denied("forbidden", f"this API is not served under the name {host}; use 127.0.0.1")
        if request.method in READS:
            return _ANYBODY
        if "origin" in request.headers:
            return Denied("forbidden", _FROM_A_PAGE)
        uid = owner_of(request.peer.address, request.peer.ours)
        if uid not in self._uids:
            return Denied("forbidden", _NOT_OVER_TCP)
        return Principal(f"uid {uid}", Role.ADMIN)

    def _by_credential(self, request: Request) -> Principal | Denied:
        if request.method not in READS and "origin" in request.headers:
            return Denied("forbidden", _FROM_A_PAGE)
        given = request.headers.get("authorization", "")
        if given[: len(_BEARER)].lower() == _BEARER:
            principal = by_token(self._principals, given[len(_BEARER) :].strip())
            if principal is None:
                return self._denied(request.peer, "nobody has that token", "its token is unknown")
            return principal
        if given:
            return self._denied(
                request.peer, "send the token as Authorization: Bearer TOKEN", "it shows no bearer token"
            )
        principal = by_certificate(self._principals, request.peer.names)
        if principal is not None:
            return principal
        if request.peer.names:
            names = ", ".join(request.peer.names)
            detail = f"no access entry has a name of this client certificate: {names}"
            return self._denied(request.peer, detail, "no access entry names its certificate")
        return self._denied(
            request.peer, "send a token as Authorization: Bearer TOKEN, or a client certificate", "none"
        )

    def _denied(self, peer: Peer, detail: str, shown: str) -> Denied:
        # Nobody is made to wait: a token has 256 random bits, each try costs a connection, and who shares an address
        # with a guesser must still get in.
        address = peer.address.rpartition(":")[0]
        return Denied("unauthenticated", detail, self._quiet.warn(address, "refused %s: %s", peer.address, shown))

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
