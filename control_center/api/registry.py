"""The embedded registry, where it is hosted here: the same requests as a daemon's own."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from registry_client.gateways import GATEWAY_SERVICE
from registry_client.server import RegistryApi
from supervisor.core.access import Right, refuses, refuses_gateway

from ..asking import forbidden
from .call import Call
from .decoding import decode_object
from .problems import Refusal


async def answer(call: Call) -> web.Response:
    """GET /v1/registry/services[/{service}[/{instance}]]"""
    return await _handled(call, b"")


async def write(call: Call) -> web.Response:
    """PUT, PATCH, DELETE /v1/registry/services/{service}/{instance}"""
    service, instance = call.part("service"), call.part("instance")
    body = await call.read()
    owners = {instance.partition("/")[0]}
    if body:
        entry = decode_object(body).get("entry")
        if isinstance(entry, dict):
            owners.add(str(entry.get("node")))
    _check_owners(call, ((service, owner) for owner in owners))
    return await _handled(call, body)


async def renew(call: Call) -> web.Response:
    """POST /v1/registry/renew"""
    body = await call.read()
    leases = decode_object(body).get("leases")
    items = [item for item in leases if isinstance(item, dict)] if isinstance(leases, list) else []
    _check_owners(call, {(str(item.get("service")), str(item.get("instance")).partition("/")[0]) for item in items})
    return await _handled(call, body)


def _check_owners(call: Call, written: Iterable[tuple[str, str]]) -> None:
    """Nobody keeps, changes or ends the entries of a node, or of a gateway, that is not theirs."""
    for service, owner in written:
        is_gateway = service == GATEWAY_SERVICE
        refused = (
            refuses_gateway(call.principal, owner) if is_gateway else refuses(call.principal, Right.NODE, node=owner)
        )
        if refused:
            raise forbidden(refused)


async def _handled(call: Call, body: bytes) -> web.Response:
    request = call.request
    for name in request.match_info:
        call.part(name)
    found = await _hosted(call).handle(request.method, request.rel_url.raw_path, dict(request.query), body)
    return web.Response(
        status=found.status, body=found.body, content_type=found.content_type, headers=dict(found.headers)
    )


def _hosted(call: Call) -> RegistryApi:
    if call.parts.registry_api is None:
        backend = call.parts.registry().backend
        raise Refusal(404, "not_found", f"the registry is not hosted here; ask {backend}, which holds it")
    return call.parts.registry_api
