"""The closed loop from outside: reports come in, decisions are shown, people take back what the guard holds."""

from __future__ import annotations

from aiohttp import web

from supervisor.core.access import Role

from ..asking import forbidden
from ..model import to_json
from .bodies import read_reason, read_reports
from .call import Call, answer
from .problems import not_found

MAX_LISTED = 500


async def report(call: Call) -> web.Response:
    """POST /v1/reports"""
    gateway, reports = read_reports(await call.body())
    caller = call.principal
    if gateway != caller.name and caller.role is not Role.ADMIN:
        raise forbidden(f"{caller.name} may report as {caller.name} only, not as {gateway}")
    for each in reports:
        call.parts.metrics.report(each.symptom)
    decisions = await call.parts.closed_loop.take(reports)
    return answer({"accepted": len(reports), "decisions": to_json(decisions)}, 202)


async def all_decisions(call: Call) -> web.Response:
    """GET /v1/decisions?limit=&before=&service=&instance="""
    query = call.query()
    limit, before = query.integer("limit", 50, 1, MAX_LISTED), query.maybe_integer("before")
    service, instance = query.text("service"), query.text("instance")
    query.finish()
    found = await call.parts.store.decisions(limit=limit, before=before, service=service, instance=instance)
    return answer({"decisions": to_json(found)})


async def decision(call: Call) -> web.Response:
    """GET /v1/decisions/{id}"""
    id_ = call.part("id")
    is_number = id_.isascii() and id_.isdigit() and len(id_) <= 15
    found = await call.parts.store.decision(int(id_)) if is_number else None
    if found is None:
        raise not_found(f"decision {id_}")
    return answer(to_json(found))


async def thaw(call: Call) -> web.Response:
    """POST /v1/services/{service}/thaw"""
    service = call.part("service")
    call.notes["service"] = service
    call.permit([service])
    return await _clear(call, "service", service)


async def clear(call: Call) -> web.Response:
    """POST /v1/instances/{node}/{unit}/clear"""
    instance = f"{call.part('node')}/{call.part('unit')}"
    call.notes["instance"] = instance
    fleet = call.parts.fleet()
    entry = fleet.entry(instance) if fleet is not None else None
    call.permit([entry.service if entry is not None else None])
    return await _clear(call, "instance", instance)


async def _clear(call: Call, kind: str, name: str) -> web.Response:
    reason = call.notes["reason"] = read_reason(await call.body())
    who = call.principal.name
    await call.parts.closed_loop.clear(kind, name, who)
    await call.parts.store.add_event("service", {kind: name, "cleared_by": who, "reason": reason})
    return answer({kind: name, "cleared": True})
