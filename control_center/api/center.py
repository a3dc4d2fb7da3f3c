"""The center itself: who leads, what it may do by itself, what was commanded."""

from __future__ import annotations

from aiohttp import web

from supervisor.installation import version

from ..model import to_json
from .bodies import read_mode
from .call import Call, answer

MAX_RECORDS = 1000


async def show(call: Call) -> web.Response:
    """GET /v1/center"""
    call.query().finish()
    return answer(await _center(call))


async def set_mode(call: Call) -> web.Response:
    """PUT /v1/center/mode"""
    mode, reason = read_mode(await call.body())
    call.notes |= {"mode": mode.value, "reason": reason}
    store = call.parts.store
    before = await store.mode()
    if mode is not before:
        await store.set_mode(mode)
        body = {"mode": mode.value, "before": before.value, "by": call.principal.name, "reason": reason}
        await store.add_event("mode", body)
    return answer(await _center(call))


async def audit(call: Call) -> web.Response:
    """GET /v1/audit?limit=&before="""
    query = call.query()
    limit, before = query.integer("limit", 50, 1, MAX_RECORDS), query.maybe_integer("before")
    query.finish()
    return answer({"records": to_json(await call.parts.store.audit_records(limit, before))})


async def _center(call: Call) -> dict[str, object]:
    parts, caller = call.parts, call.principal
    leader, registry = parts.leader(), parts.registry()
    return {
        "id": parts.store.id,
        "name": parts.config.name,
        "leader": leader.is_us,
        "leader_name": leader.name,
        "epoch": leader.epoch,
        "mode": (await parts.store.mode()).value,
        "version": version(),
        "started_at": parts.started_at,
        "registry": {"backend": registry.backend, "state": registry.state, "seconds_ago": registry.seconds_ago},
        "principal": {"name": caller.name, "role": caller.role.value, "services": list(caller.services)},
    }
