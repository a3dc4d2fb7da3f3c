"""The embedded registry over the control API: who may read and write its entries."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from registry_client.gateways import GATEWAY_SERVICE
from registry_client.server import PREFIX, RegistryApi

from ..core.access import Principal, Right, refuses, refuses_gateway
from ..host.access import READS
from ..host.http_message import Request, Response
from .answers import Refused


async def answer_registry(registry: RegistryApi | None, request: Request, caller: Principal) -> Response:
    """The answer to anything below /v1/registry/."""
    _check(request, caller)
    if registry is None:
        raise Refused("not_found", "this daemon has no embedded registry; ask the one that it is configured for")
    answer = await registry.handle(request.method, request.path, request.query, request.body)
    return Response(answer.status, answer.body, answer.content_type, answer.headers)


def _check(request: Request, caller: Principal) -> None:
    """Who keeps entries must see them go, so the right to write is one to read, too."""
    if request.method in READS:
        refused = refuses(caller, Right.READ)
        if refused and refuses(caller, Right.NODE) and refuses(caller, Right.REPORT):
            raise Refused("forbidden", refused)
        return
    if not refuses(caller, Right.NODE) and "*" in caller.nodes:
        return
    written = _written_by(request) or [("", None)]
    for service, owner in written:
        is_gateway = service == GATEWAY_SERVICE and owner is not None
        refused = refuses_gateway(caller, owner or "") if is_gateway else refuses(caller, Right.NODE, node=owner)
        if refused:
            raise Refused("forbidden", refused)


def _written_by(request: Request) -> list[tuple[str, str | None]]:
    """Service and owner of each entry that a request writes; an entry says its node (or gateway), too.

    Instances are called `node/unit`, those of gateways `gateway/service`.
    """
    parts = request.path[len(PREFIX) + 1 :].split("/")
    value = _parsed(request.body)
    if parts == ["renew"]:
        leases = value.get("leases")
        found = [lease for lease in leases if isinstance(lease, dict)] if isinstance(leases, list) else []
        return [(str(lease.get("service")), _owner(lease.get("instance"))) for lease in found]
    service, entry = unquote(parts[1]) if len(parts) > 1 else "", value.get("entry")
    owners = [_owner(unquote("/".join(parts[2:])))]
    if isinstance(entry, dict):
        owners.append(_owner(entry.get("node")))
    return [(service, owner) for owner in owners]


def _owner(instance: object) -> str:
    return str(instance).partition("/")[0]


def _parsed(body: bytes) -> dict[str, Any]:
    """What the registry will read; it says what is wrong with it."""
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
