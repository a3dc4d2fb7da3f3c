"""Who may do what over HTTP: roles, the rights they give, and how a caller is recognised. Pure.

The daemon's API and the control center's decide with the same rules. A token is known by its SHA-256 only: tokens are
random (256 bits, see `new-token` of the programs), so a slow hash would protect nothing more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from .digest import sha256_hex


class Right(StrEnum):
    """What a request needs."""

    READ = "read"
    REPORT = "report"  # tell of dead units
    NODE = "node"  # fetch a node's commands and answer for it; write to a registry that the control center hosts
    OPERATE = "operate"  # command units
    ADMIN = "admin"  # configuration, shutdown, mode, audit


class Role(StrEnum):
    """What a principal is."""

    READ = "read"
    REPORT = "report"
    NODE = "node"
    OPERATE = "operate"
    ADMIN = "admin"


GRANTS: dict[Role, frozenset[Right]] = {
    Role.READ: frozenset((Right.READ,)),
    Role.REPORT: frozenset((Right.REPORT,)),
    Role.NODE: frozenset((Right.NODE,)),
    Role.OPERATE: frozenset((Right.READ, Right.OPERATE)),
    Role.ADMIN: frozenset(Right),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who may use an API. `services` and `nodes` are globs of what they may touch."""

    name: str
    role: Role
    services: tuple[str, ...] = ("*",)  # for OPERATE; units without a service need "*"
    nodes: tuple[str, ...] = ("*",)  # for NODE
    token_sha256: tuple[str, ...] = ()  # hexadecimal; several while one replaces another
    certificates: tuple[str, ...] = ()  # names (DNS or URI of subjectAltName, or common name) of client certificates


def token_hash(token: str) -> str:
    """What is kept of a token."""
    return sha256_hex(token.encode(errors="surrogatepass"))


def by_token(principals: Iterable[Principal], token: str) -> Principal | None:
    """Whose token that is; every hash is compared, so that the time taken tells nothing."""
    from hmac import compare_digest  # maps OpenSSL, which most daemons never need

    given, found = token_hash(token), None
    for principal in principals:
        for known in principal.token_sha256:
            if compare_digest(known, given):
                found = principal
    return found


def by_certificate(principals: Iterable[Principal], names: Iterable[str]) -> Principal | None:
    """Whose certificate bears one of these names; the TLS layer has verified it."""
    shown = set(names)
    return next((principal for principal in principals if shown.intersection(principal.certificates)), None)


def refuses(principal: Principal, right: Right, services: Sequence[str | None] = (), node: str | None = None) -> str:
    """Why a principal may not do that; "" if it may.

    `services` are those of the units to be commanded (None: a unit without one), `node` the one to be spoken for.
    """
    if right not in GRANTS[principal.role]:
        return f"{principal.name} has the role {principal.role}, which may not {_WORDS[right]}"
    if right is Right.OPERATE:
        for service in services:
            if not any(pattern == "*" or fnmatchcase(service or "", pattern) for pattern in principal.services):
                what = f"units of {service}" if service else "units without a service"
                return f"{principal.name} may not command {what}: its services are {', '.join(principal.services)}"
    if right is Right.NODE and node is not None and not any(fnmatchcase(node, each) for each in principal.nodes):
        return f"{principal.name} may not speak for the node {node}: its nodes are {', '.join(principal.nodes)}"
    return ""


def refuses_gateway(principal: Principal, gateway: str) -> str:
    """Why a principal may not keep what a gateway says of itself in the registry; "" if it may.

    One that reports under its own name may do so for itself, and for the gateways `NAME.other` that it feeds.
    """
    if principal.role is Role.REPORT and (gateway == principal.name or gateway.startswith(f"{principal.name}.")):
        return ""
    return refuses(principal, Right.NODE, node=gateway)


_WORDS = {
    Right.READ: "read this",
    Right.REPORT: "report units",
    Right.NODE: "speak for a node",
    Right.OPERATE: "command units",
    Right.ADMIN: "do this (it takes the role admin)",
}
