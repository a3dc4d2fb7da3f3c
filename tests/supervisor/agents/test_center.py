"""The agent that fetches commands: with a center and a daemon that say whatever the test wants."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor.agents import center as agent_module
from supervisor.agents.center import CenterAgent
from supervisor.core.model import CenterSpec
from supervisor.host.center_client import CenterClient
from supervisor.host.http_client import HttpAnswer, HttpFailed
from tests.supervisor.running import run, until

ROOT = Path(__file__).parents[3]
PATH = "/v1/units/web/restart"
Json = Any


def _command(number: int, **more: Json) -> Json:
    body = {"command_id": f"c-{number}"}
    return {"seq": number, "method": "POST", "path": PATH, "body": body, **more}


def _operation(state: str, id_: str = "op-1") -> Json:
    return {"id": id_, "state": state}


class Daemon:
    """This daemon's own API: a command's operation is `state` until the test says otherwise."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.state = "running"
        self.status = 202
        self.faults = 0
        self.changed = asyncio.Event()

    def now(self, state: str) -> None:
        self.state = state
        self.changed.set()

    async def ask(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, bytes]:
        if self.faults:
            self.faults -= 1
            raise RuntimeError("a fault of ours")
        if path in ("/v1/node", "/v1/units"):
            return 200, json.dumps({"node": "a/b"} if path == "/v1/node" else {"units": [{"unit": "web"}]}).encode()
        if method == "POST":
            self.given.append(json.loads(body)["command_id"])
            value = {"operations": [_operation(self.state)]} if self.status == 202 else {"detail": "no", "code": "x"}
            return self.status, json.dumps(value).encode()
        if self.state == "running":
            self.changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), float(query["wait"]))
        return 200, json.dumps({"operations": [_operation(self.state)]}).encode()


class Center:
    """Answers calls; a function in `faults` decides for an address and path whether it fails, and how."""

    def __init__(self) -> None:
        self.commands: list[Json] = []
        self.told: dict[str, list[Json]] = {}
        self.calls: list[tuple[str, int, str]] = []
        self.bodies: list[Json] = []
        self.known: list[str] | None = None
        self.faults: Callable[[int, str], int | Exception | None] = lambda port, path: None
        self.heartbeat_seconds: Json = 0.2

    async def send(self, address: str, port: int, method: str, target: str, **more: Any) -> HttpAnswer:
        await asyncio.sleep(0)
        self.calls.append((method, port, target))
        fault = self.faults(port, target)
        if isinstance(fault, Exception):
            raise fault
        if fault is not None:
            return HttpAnswer(fault, (), b'{"detail": "because"}', False)
        value = await self._value(target, json.loads(more["body"] or b"null"))
        return HttpAnswer(200, (), json.dumps(value).encode(), False)

    async def _value(self, target: str, body: Json) -> Json:
        if "/commands" in target:
            after = int(target.partition("after=")[2].partition("&")[0])
            found = [item for item in self.commands if not isinstance(item, dict) or item.get("seq", 0) > after]
            if not found:
                await asyncio.sleep(0.6)  # some of the time that it was asked to wait
            return {"commands": found}
        if "/results" in target:
            for item in body["results"]:
                self.told.setdefault(item["command_id"], []).append((item["status"], item["body"]))
            return {"known": list(self.told) if self.known is None else self.known}
        self.bodies.append(body)
        return {"heartbeat_seconds": self.heartbeat_seconds}

    def count(self, part: str) -> int:
        return sum(part in target for _, _, target in self.calls)


@asynccontextmanager
async def _agent(center: Center, daemon: Daemon, *ports: int) -> AsyncIterator[CenterAgent]:
    spec = CenterSpec(tuple(f"http://127.0.0.1:{port}" for port in ports or (1,)))
    agent = CenterAgent("a/b", spec, daemon.ask, CenterClient(spec, center.send))
    agent.start()
    try:
        yield agent
    finally:
        await agent.close()


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "BACKOFF_SECONDS", 0.02)
    monkeypatch.setattr(agent_module, "MAX_BACKOFF_SECONDS", 0.1)
    monkeypatch.setattr(agent_module, "PROGRESS_SECONDS", 0.05)


def test_what_it_fetches_it_gives_to_the_daemon_once_and_tells_until_the_end() -> None:
    async def scenario() -> None:
        center, daemon = Center(), Daemon()
        center.commands = [_command(1)]
        async with _agent(center, daemon):
            await until(lambda: center.told.get("c-1"))
            daemon.now("succeeded")
            await until(lambda: center.told["c-1"][-1] == (202, {"operations": [_operation("succeeded")]}))
            await until(lambda: center.count("after=1") > 1)
            assert daemon.given == ["c-1"]
            assert center.calls[0][2].startswith("/v1/nodes/a%2Fb/")

    run(scenario())


def test_the_heartbeat_says_what_the_daemon_says_as_often_as_the_center_wants() -> None:
    async def scenario() -> None:
        center, daemon = Center(), Daemon()
        async with _agent(center, daemon):
            await until(lambda: len(center.bodies) > 2)
            assert center.bodies[-1] == {"node": "a/b", "statuses": [{"unit": "web"}]}

    run(scenario())


@pytest.mark.parametrize("seconds", [None, "5", True, float("nan"), -1, [], 0])
def test_whatever_the_center_says_of_heartbeats_they_are_neither_too_many_nor_none(seconds: Json) -> None:
    async def scenario() -> None:
        center, daemon = Center(), Daemon()
        center.heartbeat_seconds = seconds
        async with _agent(center, daemon):
            await until(lambda: center.count("after=0") > 1)  # more than half a second later
            assert 1 <= len(center.bodies) < 10

    run(scenario())


def test_nothing_is_told_again_while_nothing_changes() -> None:
    async def scenario() -> None:
        center, daemon = Center(), Daemon()
        center.commands = [_command(1)]
        async with _agent(center, daemon):
            await until(lambda: center.told.get("c-1"))
            await until(lambda: center.count("after=1") > 1)
            assert len(center.told["c-1"]) <= 2  # the answer, and the same operations as they are followed

    run(scenario())


def test_what_the_center_has_done_with_is_followed_no_more() -> None:
    async def scenario() -> None:
        center, daemon = Center(), Daemon()
        center.commands, center.known = [_command(1)], []
        async with _agent(center, daemon):
            await until(lambda: center.told.get("c-1"))
            told = len(center.told["c-1"])
            await until(lambda: center.count("after=1") > 1)
            daemon.now("succeeded")
            await until(lambda: center.count("after=1") > 2)
            assert len(center.told["c-1"]) <= told + 1

    run(scenario())


def test_a_daemon_that_shuts_down_tells_nothing_and_the_command_stays_to_be_fetched() -> None:
    async def scenario() -> None:
        center, daemon = Center(), Daemon()
        center.commands, daemon.status = [_command(1), _command(2)], 503
        async with _agent(center, daemon):
            await until(lambda: len(daemon.given) > 2)
            assert set(daemon.given) == {"c-1"} and not center.told
            daemon.status, daemon.state = 202, "succeeded"
            await until(lambda: len(center.told) == 2)

    run(scenario())


@pytest.mark.parametrize(
    "odd",
    [
        {"seq": 1, "method": "POST", "path": PATH, "body": {}},
        {"seq": 1, "method": "POST", "path": PATH, "body": {"command_id": 5}},
        {"seq": 1, "method": "POST", "path": PATH, "body": None},
        {"seq": 1, "method": "DELETE", "path": PATH, "body": {"command_id": "x"}},
        {"seq": 1, "method": "POST", "path": "/v1/shutdown", "body": {"command_id": "x"}},
        {"seq": 1, "method": "POST", "path": None, "body": {"command_id": "x"}},
        {"seq": 1, "method": "POST", "path": "/v1/registry/register", "body": {"command_id": "x"}},
    ],
)
def test_an_odd_command_is_left_out_and_the_next_one_is_taken(odd: Json) -> None:
    async def scenario() -> None:
        center, daemon = Center(), Daemon()
        center.commands, daemon.state = [odd, _command(2)], "succeeded"
        async with _agent(center, daemon):
            await until(lambda: center.told.get("c-2"))
            assert daemon.given == ["c-2"]

    run(scenario())


@pytest.mark.parametrize("odd", ["rubbish", {"seq": "1"}, {}, None])
def test_rubbish_instead_of_commands_is_not_asked_for_without_a_pause(odd: Json) -> None:
    async def scenario() -> None:
        center, daemon = Center(), Daemon()
        center.commands = [odd]
        loop = asyncio.get_running_loop()
        async with _agent(center, daemon):
            began = loop.time()
            await until(lambda: center.count("/commands") > 4)
            assert loop.time() - began > 4 * 0.02 * 0.9
            center.commands = [_command(1)]
            await until(lambda: center.told.get("c-1"))

    run(scenario())


@pytest.mark.parametrize("fault", [HttpFailed("connection refused"), 500, 401, 404])
def test_a_center_that_fails_is_asked_again_and_from_the_beginning(fault: int | Exception) -> None:
    async def scenario() -> None:
        center, daemon = Center(), Daemon()
        center.commands, daemon.state = [_command(1)], "succeeded"
        async with _agent(center, daemon):
            await until(lambda: center.count("after=1"))
            center.faults = lambda port, path: fault
            before = center.count("after=0")
            await until(lambda: center.count("after=0") > before)
            center.faults = lambda port, path: None
            center.commands = [_command(1), _command(2)]
            await until(lambda: center.told.get("c-2"))
            assert daemon.given.count("c-1") > 1, "it came twice, under one id"

    run(scenario())


def test_one_result_that_the_center_does_not_take_does_not_hold_up_the_others() -> None:
    async def scenario() -> None:
        center, daemon = Center(), Daemon()
        center.commands, daemon.state = [_command(1), _command(2), _command(3)], "succeeded"
        take = center._value
        poisoned = 0

        async def picky(target: str, body: Json) -> Json:
            return await take(target, body)

        async def send(address: str, port: int, method: str, target: str, **more: Any) -> HttpAnswer:
            nonlocal poisoned
            if "/results" in target and b"c-2" in more["body"]:
                poisoned += 1
                return HttpAnswer(400, (), b'{"detail": "nonsense"}', False)
            value = await picky(target, json.loads(more["body"] or b"null"))
            return HttpAnswer(200, (), json.dumps(value).encode(), False)

        spec = CenterSpec(("http://127.0.0.1:1",))
        agent = CenterAgent("a/b", spec, daemon.ask, CenterClient(spec, send))
        agent.start()
        await until(lambda: {"c-1", "c-3"} <= set(center.told))
        assert "c-2" not in center.told and poisoned >= 1
        await agent.close()

    run(scenario())


def test_centers_are_asked_in_turn_until_one_answers_which_is_then_kept() -> None:
    async def scenario() -> None:
        center, daemon = Center(), Daemon()
        center.faults = lambda port, path: None if port == 3 else HttpFailed("connection refused")
        async with _agent(center, daemon, 1, 2, 3):
            await until(lambda: len(center.bodies) > 1)
            center.calls.clear()
            await until(lambda: len(center.calls) > 3)
            assert {port for _, port, _ in center.calls} == {3}

    run(scenario())


def test_a_fault_of_ours_does_not_cut_the_host_off(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        center, daemon = Center(), Daemon()
        daemon.faults = 3
        async with _agent(center, daemon):
            await until(lambda: center.bodies)

    run(scenario())
    assert "a fault of ours" in caplog.text


def test_when_the_daemon_ends_what_is_left_is_told_at_once() -> None:
    async def scenario() -> None:
        center, daemon = Center(), Daemon()
        center.commands, daemon.state = [_command(1)], "succeeded"
        away = True
        center.faults = lambda port, path: HttpFailed("away") if away and "/results" in path else None
        async with _agent(center, daemon):
            await until(lambda: center.count("/results"))
            assert not center.told
            away = False
        assert center.told["c-1"]

    run(scenario())


def test_when_the_daemon_ends_it_does_not_wait_for_a_center_that_is_away() -> None:
    async def scenario() -> None:
        center, daemon = Center(), Daemon()
        center.commands, daemon.state = [_command(1)], "succeeded"
        center.faults = lambda port, path: HttpFailed("away") if "/results" in path else None
        async with _agent(center, daemon):
            await until(lambda: center.count("/results"))
        assert not center.told

    run(scenario())


def test_a_daemon_without_a_center_loads_nothing_of_this() -> None:
    script = (
        "import sys; sys.modules['ssl'] = None; import supervisor.daemon; "
        "print([name for name in sys.modules if name.endswith(('agents.center', 'center_client'))])"
    )
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
