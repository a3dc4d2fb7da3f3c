"""The embedded registry over the control API: who may read and write its entries."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from registry_client.server import PREFIX, RegistryApi

from ..core.access import Principal, Right, refuses
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
        if refused and refuses(caller, Right.NODE):
            raise Refused("forbidden", refused)
        return
    refused = refuses(caller, Right.NODE)
    if not refused and "*" not in caller.nodes:
        refused = next(filter(None, (refuses(caller, Right.NODE, node=node) for node in _nodes_in(request))), "")
    if refused:
        raise Refused("forbidden", refused)


def _nodes_in(request: Request) -> list[str]:
    """Whose entries a request writes: instances are called `node/unit`, and an entry says its node, too."""
    parts = request.path[len(PREFIX) + 1 :].split("/")
    value = _parsed(request.body)
    if parts == ["renew"]:
        leases = value.get("leases")
        names = (
            [lease.get("instance") for lease in leases if isinstance(lease, dict)] if isinstance(leases, list) else []
        )
    else:
        names = [unquote("/".join(parts[2:]))]
        entry = value.get("entry")
        if isinstance(entry, dict):
            names.append(entry.get("node"))
    return [str(name).partition("/")[0] for name in names]


def _parsed(body: bytes) -> dict[str, Any]:
    """What the registry will read; it says what is wrong with it."""
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
