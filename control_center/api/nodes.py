"""Nodes that fetch their commands, because nobody can connect to them."""

from __future__ import annotations

from time import monotonic, time
from typing import Any

from aiohttp import web

from ..model import Operation, Target
from ..store import commands_topic
from .bodies import read_heartbeat, read_results
from .call import MAX_WAIT_SECONDS, Call, answer
from .decoding import MAX_INTEGER


async def commands(call: Call) -> web.Response:
    """GET /v1/nodes/{node}/commands?after=&wait="""
    query = call.query()
    after, seconds = query.integer("after", 0, 0, MAX_INTEGER), query.seconds("wait", MAX_WAIT_SECONDS)
    query.finish()
    found = await _until_any(call, call.part("node"), after, seconds)
    return answer({"commands": [_command(call, *each) for each in found], "seq": max([after, *_seqs(found)])})


async def _until_any(call: Call, node: str, after: int, seconds: float) -> list[tuple[Operation, Target]]:
    store, until = call.parts.store, monotonic() + seconds
    while True:
        seen = store.seen(commands_topic(node))
        found = await store.commands_for(node, after)
        left = until - monotonic()
        if found or left <= 0:
            return list(found)
        await store.wait_changed(seen, left, commands_topic(node))


def _command(call: Call, operation: Operation, target: Target) -> dict[str, Any]:
    command = call.parts.command_of(operation, target)
    return {"seq": command.seq, "method": command.method, "path": command.path, "body": command.body}


def _seqs(found: list[tuple[Operation, Target]]) -> list[int]:
    return [target.seq for _, target in found]


async def results(call: Call) -> web.Response:
    """POST /v1/nodes/{node}/results"""
    node, store = call.part("node"), call.parts.store
    given = read_results(await call.body())
    open_ids = {target.command_id for _, target in await store.commands_for(node, 0)}
    for command_id, status, body in given:
        if command_id in open_ids:  # what has ended, or was never this node's, is nobody's business any more
            await store.put_result(node, command_id, status, body)
    return answer({"known": sorted(open_ids)})


async def heartbeat(call: Call) -> web.Response:
    """POST /v1/nodes/{node}/heartbeat"""
    node = call.part("node")
    await call.parts.store.put_heartbeat(node, read_heartbeat(await call.body(), node), time())
    return answer({"heartbeat_seconds": call.parts.heartbeats.interval_seconds})
