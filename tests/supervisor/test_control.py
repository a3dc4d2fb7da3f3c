"""The control API: every route, every refusal, over real orders and a fake host."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from registry_client.backends.embedded import EmbeddedRegistry
from registry_client.server import RegistryApi
from supervisor.control import Control
from supervisor.control import api as module
from supervisor.core.events import Publish, Spawn, Terminate, Withdraw
from supervisor.core.model import LogSpec, Phase
from supervisor.errors import ConfigError
from supervisor.host.access import Access
from supervisor.host.clock import monotonic
from supervisor.host.http import Peer, Request, Response
from supervisor.host.output import OutputPump
from supervisor.wire import PROBLEMS, Command, NodeInfo, Operation, PlanItem
from tests.supervisor.agents.fleet import Fleet, plain, service
from tests.supervisor.running import run, until

ROOT = Peer(0, 0, 1, "unix")
STRANGER = Peer(65534, 65534, None, "unix")


class FakeDaemon:
    """What only the whole daemon can do."""

    def __init__(self) -> None:
        self.mistakes: ConfigError | None = None
        self.applied, self.stopped = list[Command](), list[str]()
        self.is_ready, self.is_stopping = True, False

    def plan(self) -> list[PlanItem]:
        if self.mistakes:
            raise self.mistakes
        return [PlanItem("web", "restart", ("command",)), PlanItem("job", "none")]

    def apply(self, command: Command) -> tuple[list[PlanItem], list[Operation]]:
        if self.mistakes:
            raise self.mistakes
        self.applied.append(command)
        return self.plan(), [Operation("op-1", "c", "web", "restart", "running")]

    def shut_down(self, reason: str) -> None:
        self.stopped.append(reason)

    def node(self) -> NodeInfo:
        return NodeInfo(
            "here", "1", "abc", 1, "2026-11-24T00:00:00.000Z", 1.0, 5, ["cart"], 0, "2026-11-24T00:00:01.000Z"
        )

    async def metrics(self) -> tuple[str, bytes]:
        return "text/plain", b"unitd_units 5\n"


class Api:
    """The API as a client meets it: status, headers and JSON."""

    def __init__(self, folder: Path, *, registry: bool = True) -> None:
        out = LogSpec(stdout=str(folder / "out.log"), stderr=str(folder / "err.log"))
        specs = (
            plain("web", logs=out),
            plain("job", logs=LogSpec()),
            plain("joined", logs=replace(out, redirect_stderr=True)),
            service("cart:0"),
            service("cart:1"),
        )
        self.folder, self.fleet, self.daemon, self.pump = (
            folder,
            Fleet(folder, specs),
            FakeDaemon(),
            OutputPump(),
        )
        self.control = Control(
            self.daemon, self.fleet.orders, self.fleet.operations, self.fleet.view, self.fleet.history, self.pump,
            Access(None), RegistryApi(EmbeddedRegistry()) if registry else None, journal=self.fleet.journal,
        )  # fmt: skip

    def close(self) -> None:
        self.pump.close(1.0)
        self.fleet.close()

    async def raw(self, method: str, target: str, body: Any = None, peer: Peer = ROOT, **headers: str) -> Response:
        path, _, query = target.partition("?")
        pairs = dict(pair.partition("=")[::2] for pair in query.split("&") if pair)
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return await self.control.handle(Request(method, path, pairs, headers, data, peer))

    async def ask(self, method: str, target: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        """The status and the JSON, which is a problem exactly when the status says so."""
        answer = await self.raw(method, target, body, **more)
        value = json.loads(answer.body)
        if answer.status >= 400:
            assert answer.content_type == "application/problem+json"
            assert value["status"] == answer.status
            assert value["type"] == "about:blank" and value["detail"]
            if not target.startswith("/v1/registry/"):
                assert PROBLEMS[value["code"]] == (answer.status, value["title"])
        else:
            assert answer.content_type == "application/json"
        return answer.status, value

    async def get(self, target: str, **more: Any) -> Any:
        status, value = await self.ask("GET", target, **more)
        assert status == 200, value
        return value

    async def refused(self, method: str, target: str, body: Any = None, **more: Any) -> tuple[int, str]:
        status, value = await self.ask(method, target, body, **more)
        assert status >= 400
        return status, value["detail"]


@asynccontextmanager
async def serving(folder: Path, **more: Any) -> AsyncIterator[Api]:
    api = Api(folder, **more)
    try:
        yield api
    finally:
        api.close()


# Routes.

ROUTES = {
    "/v1/units": "GET", "/v1/units/web": "GET", "/v1/units/web/why": "GET", "/v1/units/web/logs": "GET",
    "/v1/units/web/start": "POST", "/v1/units/web/stop": "POST", "/v1/units/web/restart": "POST",
    "/v1/units/web/signal": "POST", "/v1/units/web/drain": "POST", "/v1/units/web/undrain": "POST",
    "/v1/units/web/warm": "POST", "/v1/units/web/weight": "POST", "/v1/units/web/enable": "POST", "/v1/units/web/disable": "POST",
    "/v1/operations": "GET", "/v1/operations/op-1": "GET", "/v1/operations/op-1/abort": "POST", "/v1/events": "GET",
    "/v1/config/plan": "POST", "/v1/config/apply": "POST", "/v1/shutdown": "POST", "/v1/doctor": "GET", "/v1/node": "GET", "/metrics": "GET",
    "/openapi.json": "GET", "/healthz": "GET", "/readyz": "GET",
}  # fmt: skip


@pytest.mark.parametrize("path", ROUTES)
def test_a_route_answers_to_its_method_and_names_it_to_others(tmp_path: Path, path: str) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "NONSENSE"):
                if method == ROUTES[path]:
                    continue
                answer = await api.raw(method, path)
                assert answer.status == 405, method
                assert dict(answer.headers)["Allow"] == ROUTES[path]
                assert json.loads(answer.body)["detail"] == f"{path} answers to {ROUTES[path]}"
            head = await api.raw("HEAD", path)
            assert (head.status == 405) == (ROUTES[path] == "POST")
            if head.stream is not None:
                await head.stream.aclose()  # type: ignore[attr-defined]

    run(scenario())


def test_the_table_of_routes_here_is_the_one_of_the_product() -> None:
    for route in module.ROUTES:
        found = [path for path, known in ROUTES.items() if route.pattern.fullmatch(path) and known == route.method]
        assert found, route.pattern.pattern
    assert all(any(route.pattern.fullmatch(path) for route in module.ROUTES) for path in ROUTES)


@pytest.mark.parametrize(
    "path",
    ["/", "", "/v1", "/v1/", "/v1/units/", "/v1/units/web/", "/v1/units/web/eat", "/v2/units", "//v1/units"],
)
def test_there_is_nothing_elsewhere(tmp_path: Path, path: str) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            assert await api.refused("GET", path) == (404, f"there is nothing at {path}")

    run(scenario())


def test_who_may_not_is_refused_before_anything_is_looked_at(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            for method, path in [*((method, path) for path, method in ROUTES.items()), ("GET", "/nothing")]:
                status, detail = await api.refused(method, path, b"{broken", peer=STRANGER)
                assert status == 403 and detail.startswith("uid 65534 may not use unitd")
            assert api.daemon.stopped == [] and api.fleet.done == []

    run(scenario())


# Units.


def test_all_units_or_those_that_are_named_are_listed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            names = [unit["unit"] for unit in (await api.get("/v1/units"))["units"]]
            assert names == ["web", "job", "joined", "cart:0", "cart:1"]
            chosen = await api.get("/v1/units?names=cart,j*")
            assert [unit["unit"] for unit in chosen["units"]] == ["job", "joined", "cart:0", "cart:1"]
            assert await api.refused("GET", "/v1/units?names=web,wob") == (
                404,
                "no unit is called wob (did you mean web?)",
            )

    run(scenario())


@pytest.mark.parametrize("path", ["/v1/units/cart:0", "/v1/units/cart%3A0", "/v1/units/%63art%3a0"])
def test_a_unit_is_found_however_its_name_is_written(tmp_path: Path, path: str) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            assert (await api.get(path))["unit"] == "cart:0"

    run(scenario())


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("/v1/units/wob", 404, "no unit is called wob (did you mean web?)"),
        ("/v1/units/%2e%2e", 404, "no unit is called .."),
        ("/v1/units/a%2Fb", 404, "no unit is called a/b"),
        ("/v1/units/%ff", 404, "no unit is called �"),
        ("/v1/units/cart", 400, "cannot choose: cart means 2 units; name one"),
        ("/v1/units/all/why", 400, "cannot choose: all means 5 units; name one"),
    ],
)
def test_one_unit_must_be_one_that_there_is(tmp_path: Path, path: str, status: int, detail: str) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            assert await api.refused("GET", path) == (status, detail)

    run(scenario())


def test_an_unknown_unit_comes_with_the_nearest_one_for_programs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            assert (await api.ask("GET", "/v1/units/wob"))[1]["nearest"] == "web"
            assert (await api.ask("GET", "/v1/units/xxxxxxxx"))[1]["nearest"] is None

    run(scenario())


def test_why_tells_all_that_is_known(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            (tmp_path / "err.log").write_text("".join(f"line {number}\n" for number in range(9)))
            api.fleet.start("web", issued_by="ann")
            api.fleet.held = {Spawn}
            api.fleet.exits("web", code=3)
            value = await api.get("/v1/units/web/why")
            assert value["unit"] == "web"
            assert value["why"] == (await api.get("/v1/units/web"))["why"]
            state, last, ordered, *more = value["details"]
            steps = [line for line in more if line.startswith("  ")]
            lines = more[len(steps) :]
            assert any(line.startswith("  ready succeeded") for line in steps), steps
            assert state == "state: STARTING, wanted up, generation 2"
            assert last == "last exit: exited with code 3 after 1.0 s (at 2027-01-15T08:00:00.500Z)"
            assert ordered.startswith("ordered: start by ann at 2") and ordered.endswith(": succeeded")
            assert lines == [f"stderr: line {number}" for number in range(4, 9)]

    run(scenario())


def test_why_can_be_asked_of_a_unit_about_which_nothing_is_known(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            assert await api.get("/v1/units/job/why") == {
                "unit": "job", "why": "not started", "details": ["state: STOPPED, wanted down, generation 0"],
            }  # fmt: skip

    run(scenario())


# Commands.


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
def test_an_order_for_one_unit_is_an_operation(tmp_path: Path, verb: str) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            answer = await api.raw("POST", f"/v1/units/web/{verb}", {"reason": "deploy", "issued_by": "ann"})
            value = json.loads(answer.body)
            assert answer.status == 202
            assert dict(answer.headers)["Location"] == f"/v1/operations/{value['id']}"
            assert (value["unit"], value["verb"], value["reason"], value["issued_by"]) == (
                "web",
                verb,
                "deploy",
                "ann",
            )
            assert value["operations"][0]["id"] == value["id"]
            assert (await api.get(f"/v1/operations/{value['id']}"))["state"] == "succeeded"

    run(scenario())


def test_an_order_for_many_units_is_one_command(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            answer = await api.raw("POST", "/v1/units/web,cart:*/start")
            value = json.loads(answer.body)
            assert [item["unit"] for item in value["operations"]] == ["web", "cart:0", "cart:1"]
            (command_id,) = {item["command_id"] for item in value["operations"]}
            location = dict(answer.headers)["Location"]
            assert location == f"/v1/operations?command_id={command_id}"
            found = (await api.get(location))["operations"]
            assert [item["id"] for item in found] == [item["id"] for item in value["operations"]]

    run(scenario())


@pytest.mark.parametrize("pattern", ["c*t:%3F", "cart%3A%2A", "cart", "cart:[01]"])
def test_patterns_are_understood(tmp_path: Path, pattern: str) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            _, value = await api.ask("POST", f"/v1/units/{pattern}/start")
            assert [item["unit"] for item in value["operations"]] == ["cart:0", "cart:1"]

    run(scenario())


def test_the_same_command_id_gives_the_same_operation_and_does_nothing_twice(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            body = {"command_id": "deploy-7"}
            _, first = await api.ask("POST", "/v1/units/web/restart", body)
            status, second = await api.ask("POST", "/v1/units/web/restart", body)
            assert (status, second["id"]) == (202, first["id"])
            assert api.fleet.ordered(Spawn) == ["web"]
            assert await api.refused("POST", "/v1/units/web/stop", body) == (
                422, "the command deploy-7 asked for something else before; use another id",
            )  # fmt: skip
            for other in ("/v1/units/job/restart", "/v1/units/web/restart"):
                more = {} if "job" in other else {"parameters": {"force": True}}
                assert (await api.refused("POST", other, {**body, **more}))[0] == 422
            assert api.fleet.ordered(Spawn) == ["web"]

    run(scenario())


def test_a_command_id_may_be_any_text(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            for odd in ("a b&c=d#e", "x\r\nSet-Cookie: evil=1", "grün", json.loads('"\\ud800"')):
                answer = await api.raw("POST", "/v1/units/cart/start", {"command_id": odd})
                assert answer.status == 202
                location = dict(answer.headers)["Location"]
                assert location.isascii() and location.isprintable() and " " not in location and "#" not in location
                assert location.count("=") == 1 and "&" not in location

    run(scenario())


def test_text_that_is_no_text_does_not_spoil_later_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            body = b'{"reason": "\\ud800", "issued_by": "\\udfff"}'
            assert (await api.raw("POST", "/v1/units/web/start", body)).status == 202
            assert len((await api.get("/v1/operations"))["operations"]) == 1
            assert (await api.raw("GET", "/v1/units/web/why")).status == 200

    run(scenario())


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"{", "cannot read the body: it is not JSON"),
        (b"[]", "cannot read the command: its body must be a JSON object"),
        ({"reson": "x"}, "cannot read the command: unknown key 'reson'"),
        ({"deadline": "soon"}, "cannot read the deadline 'soon': it must be ISO 8601 in UTC"),
        (
            {"deadline": "2027-01-01"},
            "cannot read the deadline '2027-01-01': it names no time zone; end it with Z",
        ),
    ],
)
@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
def test_a_command_that_cannot_be_understood_does_nothing(tmp_path: Path, body: Any, detail: str, verb: str) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            api.fleet.up("web")
            status, said = await api.refused("POST", f"/v1/units/web/{verb}", body)
            assert status == 400 and said.startswith(detail)
            assert api.fleet.done == [] and api.fleet.journal.wishes() == {}

    run(scenario())


def test_deadlines_far_away_are_understood(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            body = {"deadline": "9999-12-31T23:59:59-23:59"}
            assert (await api.ask("POST", "/v1/units/web/start", body))[1]["state"] == "succeeded"
            body = {"deadline": "0001-01-01T00:00:00+23:59"}
            assert (await api.ask("POST", "/v1/units/web/stop", body))[1]["code"] == "deadline_passed"

    run(scenario())


def test_an_order_for_nobody_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            assert await api.refused("POST", "/v1/units/web,wob/stop") == (
                404,
                "no unit is called wob (did you mean web?)",
            )
            assert (await api.refused("POST", "/v1/units/,/stop"))[0] == 404
            assert api.fleet.journal.wishes() == {}

    run(scenario())


def test_signals_are_sent_by_name_or_number(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            api.fleet.up("web")
            for value in ("HUP", "SIGUSR1", 12):
                status, answer = await api.ask("POST", "/v1/units/web/signal", {"parameters": {"signal": value}})
                assert (status, answer["state"]) == (202, "succeeded")
            assert api.fleet.processes.sent == [("web", 1), ("web", 10), ("web", 12)]
            for wrong in ({}, {"signal": "NOSUCH"}, {"signal": 0}, {"signal": ["HUP"]}):
                status, detail = await api.refused("POST", "/v1/units/web/signal", {"parameters": wrong})
                assert status == 400 and "it is no signal" in detail

    run(scenario())


def test_enabling_and_disabling_is_remembered_and_changes_nothing_now(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            assert await api.ask("POST", "/v1/units/cart/disable") == (200, {"units": ["cart:0", "cart:1"]})
            assert await api.ask("POST", "/v1/units/cart:0/enable") == (200, {"units": ["cart:0"]})
            assert api.fleet.journal.wishes() == {"cart:0": True, "cart:1": False}
            assert api.fleet.done == []

    run(scenario())


# Operations.


def test_an_operation_can_be_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            api.fleet.held = {Spawn}
            _, value = await api.ask("POST", "/v1/units/web/start")
            for target in (
                f"/v1/operations/{value['id']}",
                f"/v1/operations?command_id={value['command_id']}",
            ):
                began = monotonic()
                early = await api.get(f"{target}{'&' if '?' in target else '?'}wait=0.05")
                assert "running" in json.dumps(early) and 0.04 < monotonic() - began < 5
            waiting = asyncio.ensure_future(api.get(f"/v1/operations/{value['id']}?wait=30"))
            await asyncio.sleep(0.02)
            assert not waiting.done()
            api.fleet.release(Spawn)
            assert (await asyncio.wait_for(waiting, 5))["state"] == "succeeded"
            assert (await asyncio.wait_for(api.get(f"/v1/operations/{value['id']}?wait=60"), 1))["state"] == "succeeded"

    run(scenario())


@pytest.mark.parametrize("wait", ["61", "-1", "x", "nan", "inf", ""])
def test_nobody_waits_for_ever(tmp_path: Path, wait: str) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            _, value = await api.ask("POST", "/v1/units/web/start")
            for target in (
                f"/v1/operations/{value['id']}?",
                f"/v1/operations?command_id={value['command_id']}&",
            ):
                status, detail = await api.refused("GET", f"{target}wait={wait}")
                assert (status, detail) == (
                    400,
                    f"cannot use wait={wait!r}: it must be a number from 0 to 60",
                )

    run(scenario())


def test_operations_and_commands_that_nobody_knows_are_not_found(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            detail = "no operation op-9 is known; old ones are forgotten"
            assert await api.refused("GET", "/v1/operations/op-9") == (404, detail)
            assert await api.refused("POST", "/v1/operations/op-9/abort") == (404, detail)
            assert await api.refused("GET", "/v1/operations?command_id=x") == (
                404, "no command x is known; old ones are forgotten",
            )  # fmt: skip
            assert await api.get("/v1/operations") == {"operations": []}

    run(scenario())


def test_an_operation_can_be_called_off_as_long_as_that_is_possible(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            api.fleet.up("cart:0")
            api.fleet.held = {Withdraw, Terminate}
            _, value = await api.ask("POST", "/v1/units/cart:0/restart")
            status, aborted = await api.ask("POST", f"/v1/operations/{value['id']}/abort")
            assert (status, aborted["state"]) == (200, "aborted")
            assert api.fleet.phase("cart:0") is Phase.RUNNING
            assert await api.refused("POST", f"/v1/operations/{value['id']}/abort") == (
                409, f"cannot abort {value['id']}: it has aborted already",
            )  # fmt: skip
            _, value = await api.ask("POST", "/v1/units/cart:0/stop")
            api.fleet.release(Withdraw)
            status, detail = await api.refused("POST", f"/v1/operations/{value['id']}/abort")
            assert status == 409 and detail.endswith("told to stop already; that cannot be called back")

    run(scenario())


# Traffic.


def test_units_are_taken_out_of_traffic_and_back_over_the_api(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            api.fleet.up("cart:0")
            body = {"reason": "disk swap", "parameters": {"owner": "ops", "for_seconds": 600}}
            status, drain = await api.ask("POST", "/v1/units/cart:0/drain", body)
            assert (status, drain["verb"], drain["state"], drain["cut"]) == (202, "drain", "succeeded", None)
            shown = await api.get("/v1/units/cart:0")
            assert (shown["state"], shown["phase"], shown["live"]) == ("DRAINED", "running", True)
            status, undrain = await api.ask("POST", "/v1/units/cart:0/undrain")
            assert (status, undrain["state"]) == (202, "succeeded")
            assert (await api.get("/v1/units/cart:0"))["state"] == "RUNNING"

    run(scenario())


@pytest.mark.parametrize(
    ("unit", "verb", "parameters", "words"),
    [
        ("cart:0", "drain", {"for_seconds": "long"}, "for_seconds must be a number"),
        ("cart:0", "drain", {"until": "2001-01-01T00:00:00Z"}, "that is past"),
        ("web", "drain", {}, "it has neither a service nor a drain table"),
        ("web", "weight", {"weight": 5}, "cannot"),
        ("cart:0", "weight", {"weight": -5}, "cannot"),
        ("cart:0", "weight", {}, "cannot"),
        ("cart:0", "warm", {"initial": 0}, "cannot"),
        ("cart:0", "warm", {"speed": 3}, "cannot"),
    ],
)
def test_an_order_about_traffic_that_cannot_be_obeyed_does_nothing(
    tmp_path: Path, unit: str, verb: str, parameters: dict[str, Any], words: str
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            api.fleet.up("cart:0", "web")
            status, detail = await api.refused("POST", f"/v1/units/{unit}/{verb}", {"parameters": parameters})
            assert (status, words in detail) == (400, True), detail
            assert (await api.get("/v1/operations"))["operations"] == []
            assert api.fleet.done == []

    run(scenario())


def test_a_weight_that_was_ordered_is_answered_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            api.fleet.up("cart:0")
            for verb, parameters in (("weight", {"weight": 30}), ("weight", {"weight": "auto"})):
                status, value = await api.ask("POST", f"/v1/units/cart:0/{verb}", {"parameters": parameters})
                assert (status, value["state"], value["verb"]) == (202, "succeeded", verb)
                assert value["steps"][0]["detail"]

    run(scenario())


# Logs.


def test_the_last_lines_of_a_log_are_shown(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            (tmp_path / "out.log").write_text("".join(f"out {number}\n" for number in range(30)))
            (tmp_path / "err.log").write_text("err\n")
            for target, expected in (
                ("", "".join(f"out {number}\n" for number in range(20, 30))),
                ("?lines=2", "out 28\nout 29\n"),
                ("?lines=0", ""),
                ("?stream=stderr", "err\n"),
                ("?stream=stdout&lines=1&follow=0", "out 29\n"),
            ):
                answer = await api.raw("GET", f"/v1/units/web/logs{target}")
                assert (answer.status, answer.content_type) == (200, "text/plain; charset=utf-8")
                assert answer.body.decode() == expected
            joined = await api.raw("GET", "/v1/units/joined/logs?stream=stderr&lines=1")
            assert joined.body == b"out 29\n", "its stderr goes where its stdout goes"

    run(scenario())


@pytest.mark.parametrize(
    ("target", "status", "detail"),
    [
        ("web/logs?stream=stdin", 400, "cannot show 'stdin': the streams are stdout and stderr"),
        ("web/logs?lines=x", 400, "cannot use lines='x': it must be a number from 0 to 10000"),
        ("web/logs?lines=10001", 400, "cannot use lines='10001': it must be a number from 0 to 10000"),
        ("job/logs", 404, "the stdout of job is thrown away: its logs.stdout is NONE"),
        ("job/logs?stream=stderr", 404, "the stderr of job is thrown away: its logs.stderr is NONE"),
    ],
)
def test_logs_that_cannot_be_shown_are_refused(tmp_path: Path, target: str, status: int, detail: str) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            assert await api.refused("GET", f"/v1/units/{target}") == (status, detail)

    run(scenario())


def test_a_log_that_is_not_written_yet_is_empty(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            assert (await api.raw("GET", "/v1/units/web/logs")).body == b""

    run(scenario())


def test_a_log_can_be_followed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            (tmp_path / "out.log").write_text("one\ntwo\n")
            answer = await api.raw("GET", "/v1/units/web/logs?lines=1&follow=1")
            assert answer.status == 200 and answer.stream is not None
            assert await asyncio.wait_for(anext(answer.stream), 5) == b"two\n"
            await answer.stream.aclose()  # type: ignore[attr-defined]

    run(scenario())


# Events.


async def read_events(answer: Response, count: int) -> list[dict[str, Any]]:
    """The first events of a stream, whose framing is checked."""
    assert answer.status == 200 and answer.content_type == "text/event-stream" and answer.stream is not None
    found = []
    async for chunk in answer.stream:
        assert chunk.endswith(b"\n\n")
        if chunk.startswith(b":"):
            continue
        number, kind, data = chunk.decode().rstrip("\n").split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert number == f"id: {event['seq']}" and kind == f"event: {event['type']}"
        found.append(event)
        if len(found) == count:
            break
    return found


def test_events_come_as_they_happen_and_can_be_resumed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            api.fleet.start("web")
            answer = await api.raw("GET", "/v1/events")
            first = await asyncio.wait_for(read_events(answer, 2), 5)
            assert [(event["unit"], event["type"]) for event in first] == [
                ("web", "starting"),
                ("web", "running"),
            ]
            assert list(first[0]) == ["seq", "at", "unit", "type", "text"]
            api.fleet.stop("web")
            for resumed in (
                await api.raw("GET", "/v1/events", None, ROOT, **{"last-event-id": "2"}), await api.raw("GET", "/v1/events?since=2"),
            ):  # fmt: skip
                events = await asyncio.wait_for(read_events(resumed, 2), 5)
                assert [event["seq"] for event in events] == [3, 4]
                await cast(Any, resumed.stream).aclose()
            await cast(Any, answer.stream).aclose()

    run(scenario())


def test_events_can_be_read_without_waiting(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            assert await read_events(await api.raw("GET", "/v1/events?follow=0"), 9) == []
            api.fleet.start("web")
            assert len(await read_events(await api.raw("GET", "/v1/events?follow=0"), 9)) == 2

    run(scenario())


def test_a_resumption_that_is_no_number_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            assert (await api.refused("GET", "/v1/events?since=x"))[0] == 400
            assert (await api.refused("GET", "/v1/events", **{"last-event-id": "-1"}))[0] == 400

    run(scenario())


# The daemon.


def mistakes() -> ConfigError:
    error = ConfigError("unknown key 'comand'", path="/etc/u.toml", line=3, key="unit.web.comand")
    error.errors = (error, ConfigError("must be text", path="/etc/u.toml", line=4, key="unit.web.user"))  # type: ignore[attr-defined]
    return error


def test_a_plan_is_made_or_says_every_mistake(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            status, value = await api.ask("POST", "/v1/config/plan")
            assert (status, value["errors"]) == (200, [])
            assert value["items"][0] == {"unit": "web", "effect": "restart", "keys": ["command"]}
            api.daemon.mistakes = mistakes()
            status, value = await api.ask("POST", "/v1/config/plan")
            assert (status, value["items"]) == (200, [])
            assert value["errors"] == [
                {
                    "path": "/etc/u.toml",
                    "line": 3,
                    "key": "unit.web.comand",
                    "reason": "unknown key 'comand'",
                },
                {"path": "/etc/u.toml", "line": 4, "key": "unit.web.user", "reason": "must be text"},
            ]

    run(scenario())


def test_a_configuration_is_applied_or_refused_with_every_mistake(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            status, value = await api.ask("POST", "/v1/config/apply", {"issued_by": "ann"})
            assert status == 202 and api.daemon.applied == [Command(issued_by="ann")]
            assert value["items"][0]["unit"] == "web" and value["operations"][0]["id"] == "op-1"
            api.daemon.mistakes = mistakes()
            status, value = await api.ask("POST", "/v1/config/apply")
            assert status == 422 and len(value["errors"]) == 2
            assert value["detail"] == "/etc/u.toml:3: unit.web.comand: unknown key 'comand'"
            assert (await api.refused("POST", "/v1/config/apply", b"{"))[0] == 400

    run(scenario())


def test_the_daemon_can_be_shut_down_with_a_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            for body in ({"reason": "maintenance"}, {"issued_by": "ann"}, None):
                assert (await api.ask("POST", "/v1/shutdown", body))[0] == 202
            assert api.daemon.stopped == ["maintenance", "asked for by ann", "asked for by the control API"]
            assert (await api.refused("POST", "/v1/shutdown", b"{"))[0] == 400
            assert len(api.daemon.stopped) == 3

    run(scenario())


def test_probes_say_whether_the_daemon_lives_and_is_ready(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            assert ((await api.raw("GET", "/healthz")).status, (await api.raw("GET", "/healthz")).body) == (
                200,
                b"ok\n",
            )
            assert (await api.raw("GET", "/readyz")).status == 200
            api.daemon.is_ready = False
            assert (await api.raw("GET", "/readyz")).status == 503
            assert (await api.raw("GET", "/healthz")).status == 200

    run(scenario())


# The embedded registry.


def test_the_embedded_registry_is_served_where_there_is_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "with") as api:
            value = await api.get("/v1/registry/services")
            assert value["entries"] == []
            assert (await api.ask("POST", "/v1/registry/services"))[0] == 405
        async with serving(tmp_path / "without", registry=False) as api:
            assert await api.refused("GET", "/v1/registry/services") == (
                404, "this daemon has no embedded registry; ask the one that it is configured for",
            )  # fmt: skip

    run(scenario())


def test_an_order_that_waits_for_the_registry_is_accepted_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as api:
            api.fleet.held = {Publish}
            status, value = await asyncio.wait_for(api.ask("POST", "/v1/units/cart:0/start"), 2)
            assert (status, value["state"]) == (202, "running")
            api.fleet.release(Publish)
            await until(lambda: api.fleet.operations.open_of("cart:0") is None)

    run(scenario())


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
