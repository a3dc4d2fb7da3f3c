"""Nodes that fetch their commands."""

from __future__ import annotations

import asyncio
from pathlib import Path

from control_center.model import Operation, TargetState

from .site import Site, center, entry


async def sent(site: Site, *nodes: str) -> Operation:
    """An operation whose commands to these nodes are on their way."""
    await site.register(*(entry("cart", node) for node in nodes))
    body = {"verb": "restart", "selection": {"services": ["cart"]}, "strategy": None, "reason": "new kernel"}
    id_ = (await site.post("/v1/operations", body)).json["id"]
    operation = await site.store.operation(id_)
    assert operation is not None
    for target in operation.targets:
        target.state = TargetState.SENT
    await site.store.save(operation, operation.targets, epoch=1)
    return operation


async def test_a_node_gets_its_own_open_commands_once(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        operation = await sent(site, "web-1", "web-2")
        answer = (await site.get("/v1/nodes/web-1/commands")).json
        (command,) = answer["commands"]
        assert (command["method"], command["path"]) == ("POST", "/v1/units/cart:0/restart")
        assert command["body"]["command_id"] == operation.targets[0].command_id
        assert command["body"]["center"] == site.store.id and command["body"]["reason"] == "new kernel"
        assert answer["seq"] == command["seq"] > 0
        again = (await site.get(f"/v1/nodes/web-1/commands?after={answer['seq']}")).json
        assert again == {"commands": [], "seq": answer["seq"]}


async def test_a_node_that_waits_gets_a_command_as_soon_as_there_is_one(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        waiting = asyncio.create_task(site.get("/v1/nodes/web-1/commands?wait=55"))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await sent(site, "web-1")
        assert len((await asyncio.wait_for(waiting, 10)).json["commands"]) == 1


async def test_a_node_that_waits_in_vain_gets_nothing(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        assert (await site.get("/v1/nodes/web-1/commands?after=7&wait=0.05")).json == {"commands": [], "seq": 7}


async def test_a_node_that_hangs_up_is_not_waited_for(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        waiting = asyncio.create_task(site.get("/v1/nodes/web-1/commands?wait=55"))
        changes = site.store._database.changes
        async with asyncio.timeout(10):
            while not changes._waiters.get("commands web-1"):
                await asyncio.sleep(0.01)
            waiting.cancel()
            while changes._waiters.get("commands web-1"):
                await asyncio.sleep(0.01)


async def test_results_are_kept_for_open_commands_only(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        operation = await sent(site, "web-1", "web-2")
        own, other = (target.command_id for target in operation.targets)
        result = {"status": 202, "body": {"operations": [{"id": "op-1"}]}}
        results = [{"command_id": each, **result} for each in (own, other, "invented")]
        answer = await site.post("/v1/nodes/web-1/results", {"results": results})
        assert answer.json == {"known": [own]}
        assert await site.store.result(own) == (202, {"operations": [{"id": "op-1"}]})
        assert await site.store.result(other) is None and await site.store.result("invented") is None


MISTAKES: list[tuple[str, object, str]] = [
    ("results", {}, "results: is missing"),
    ("results", {"results": [{"command_id": "a", "status": 99, "body": {}}]}, "results[0].status"),
    ("results", {"results": [{"command_id": "a", "status": 202, "body": []}]}, "results[0].body"),
    ("results", {"results": [{"id": "a", "command_id": "a", "status": 202, "body": {}}]}, "results[0].id"),
    ("heartbeat", {}, "node: is missing"),
    ("heartbeat", {"node": "web-2"}, "this path is of"),
    ("heartbeat", {"node": "web-1", "units": -1}, "units"),
    ("heartbeat", {"node": "web-1", "services": [7]}, "services[0]"),
    ("heartbeat", {"node": "web-1", "statuses": [{}]}, "statuses[0].unit: is missing"),
    ("heartbeat", {"node": "web-1", "started_at": "now"}, "started_at"),
]


async def test_mistakes_of_a_node_are_refused(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        for path, body, words in MISTAKES:
            answer = await site.post(f"/v1/nodes/web-1/{path}", body)
            assert (answer.status, answer.code) == (400, "bad_request"), body
            assert words in answer.json["detail"], body


async def test_a_newer_node_may_say_more(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        beat = {"node": "web-1", "units": 3, "life": 2, "colour": "green"}
        assert (await site.post("/v1/nodes/web-1/heartbeat", beat)).status == 200
        _, kept = (await site.store.heartbeats(0))["web-1"]
        assert kept == beat


async def test_a_node_with_many_units_is_heard(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        statuses = [{"unit": f"cart:{number}", "why": "x" * 1000} for number in range(2000)]
        assert (await site.post("/v1/nodes/web-1/heartbeat", {"node": "web-1", "statuses": statuses})).status == 200
