"""Operations: begun, watched, paused, resumed and aborted."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from aiohttp import web

from ..asking import NewOperation
from ..model import Operation, OperationState, Wish, to_json
from ..store import OPERATIONS
from .bodies import read_operation, read_reason, utc_now
from .call import MAX_WAIT_SECONDS, Call, answer
from .decoding import now_iso
from .problems import Refusal, not_found

MAX_LISTED = 500
CALM_SECONDS = 0.1  # for one who waits, an operation on its way is not looked at more often,
MORE_CALM_SECONDS = 0.001  # and by so much less often for each of its targets: all of them are sent


async def begin(call: Call) -> web.Response:
    """POST /v1/operations"""
    body = await call.body()
    call.is_command = body.get("dry_run") is not True
    call.notes |= _told(body)
    asked, dry_run = read_operation(body, call.parts.config.rollout, call.principal.name, call.permit, utc_now())
    await _check_deadline(call, asked)
    if dry_run:
        return answer(shown(await call.parts.executor.preview(asked)))
    operation = await call.parts.executor.begin(asked)
    call.notes |= {"operation": operation.id, "targets": len(operation.targets)}
    return answer(shown(operation), 202, {"Location": f"/v1/operations/{operation.id}"})


async def _check_deadline(call: Call, asked: NewOperation) -> None:
    """What comes too late is refused, but not what was asked for in time and is only repeated."""
    if asked.deadline > now_iso():
        return
    known = asked.command_id is not None and await call.parts.store.operation_of_command(asked.command_id)
    if not known:
        raise Refusal(410, "deadline_passed", f"the deadline {asked.deadline} has passed: nothing would be begun")


def _told(body: Any) -> dict[str, Any]:
    """What the audit log keeps of a request, be it well-formed or not."""
    kept = ("command_id", "verb", "selection", "parameters", "reason", "issued_by")
    return {name: body[name] for name in kept if name in body and len(str(body[name])) <= 2000}


async def all_operations(call: Call) -> web.Response:
    """GET /v1/operations?open=&service=&limit=&before="""
    query = call.query()
    open_only, service = query.flag("open", False), query.text("service")
    limit, before = query.integer("limit", 50, 1, MAX_LISTED), query.text("before")
    query.finish()
    store = call.parts.store
    found = await store.operations(open_only=open_only, service=service, limit=limit, before=before)
    counts = await store.counts(operation.id for operation in found)
    return answer({"operations": [listed(operation, counts.get(operation.id, {})) for operation in found]})


async def operation(call: Call) -> web.Response:
    """GET /v1/operations/{id}?wait=&version="""
    query = call.query()
    seconds, version = query.seconds("wait", MAX_WAIT_SECONDS), query.maybe_integer("version")
    query.finish()
    id_ = call.part("id")
    if seconds > 0:
        await _until_newer(call, id_, version, seconds)
    found = await call.parts.store.operation(id_)
    if found is None:
        raise not_found(f"operation {id_}")
    return answer(shown(found))


async def _until_newer(call: Call, id_: str, version: int | None, seconds: float) -> None:
    """Wait until it is newer than `version` (None: than now), has ended, or the time is over."""
    store, until = call.parts.store, monotonic() + seconds
    targets = sum((await store.counts([id_])).get(id_, {}).values())
    while True:
        seen = store.seen(OPERATIONS)
        now = (await store.versions([id_])).get(id_)
        if now is None or OperationState(now[1]).done:
            return
        version = now[0] if version is None else version
        left = until - monotonic()
        if now[0] > version or left <= 0:
            return
        await asyncio.sleep(min(CALM_SECONDS + targets * MORE_CALM_SECONDS, left))
        await store.wait_changed(seen, max(until - monotonic(), 0), OPERATIONS)


async def pause(call: Call) -> web.Response:
    """POST /v1/operations/{id}/pause"""
    return await _wish(call, Wish.PAUSE)


async def resume(call: Call) -> web.Response:
    """POST /v1/operations/{id}/resume"""
    return await _wish(call, Wish.RUN)


async def abort(call: Call) -> web.Response:
    """POST /v1/operations/{id}/abort"""
    return await _wish(call, Wish.ABORT)


async def _wish(call: Call, wish: Wish) -> web.Response:
    id_ = call.part("id")
    call.notes["operation"] = id_
    reason = call.notes["reason"] = read_reason(await call.body())
    found = await call.parts.store.operation(id_)
    if found is None:
        raise not_found(f"operation {id_}")
    call.permit([target.service for target in found.targets])
    changed = await call.parts.executor.wish(id_, wish, call.principal.name, reason)
    if changed is None:
        raise not_found(f"operation {id_}")
    return answer(shown(await call.parts.store.operation(id_) or changed))


def shown(operation: Operation) -> dict[str, Any]:
    """An operation's JSON."""
    return {**to_json(operation), "counts": operation.counts()}


def listed(operation: Operation, counts: dict[str, int]) -> dict[str, Any]:
    """The same in a list: without targets."""
    value: dict[str, Any] = {**to_json(operation), "counts": counts}
    del value["targets"]
    return value
