"""What is looked at before a command counts, in which order, and what the audit log says of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from supervisor.control import Auditor, Control, open_audit
from supervisor.core.access import Principal, Role
from supervisor.core.audit import verify
from supervisor.core.events import Spawn
from supervisor.core.model import UnitSpec
from supervisor.errors import ConfigError
from supervisor.host.access import Access
from supervisor.host.http import Peer, Request, Response
from supervisor.host.journal import Journal
from supervisor.host.output import OutputPump
from supervisor.wire import PROBLEMS, Command, Operation, PlanItem
from tests.supervisor.agents.fleet import Fleet, plain, service
from tests.supervisor.running import run

PEER = Peer(None, None, None, "10.0.0.2:4711", "10.0.0.7:9301")
CENTER = Principal("center", Role.ADMIN)
LATE, EARLY = "2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"


class FakeDaemon:
    """Applies with an operation for `web`, unless its files have mistakes."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.is_ready, self.is_stopping = fleet, True, False
        self.mistakes: ConfigError | None = None
        self.later: ConfigError | None = None  # found between planning and applying
        self.applied, self.stopped = 0, list[str]()

    def plan(self) -> list[PlanItem]:
        if self.mistakes is not None:
            raise self.mistakes
        return [PlanItem("web", "restart", ("command",))]

    def apply(self, command: Command) -> tuple[list[PlanItem], list[Operation]]:
        if self.later is not None:
            raise self.later
        self.applied += 1
        return self.plan(), self.fleet.orders.restart(["web"], command)

    def shut_down(self, reason: str) -> None:
        self.stopped.append(reason)


class Api:
    """A node's API as a control center meets it; made anew on the same folder it is the one after a crash."""

    def __init__(self, folder: Path, specs: tuple[UnitSpec, ...] | None = None) -> None:
        specs = specs or (plain("web"), service("cart:0"), service("cart:1"), plain("job", depends_on=("cart",)))
        self.folder, self.fleet, self.pump = folder, Fleet(folder, specs), OutputPump()
        self.daemon = FakeDaemon(self.fleet)
        for tracked in self.fleet.ledger.load():
            self.fleet.ledger.reopen(tracked)
        self.audit = open_audit(str(folder / "audit.jsonl"), self.fleet.journal)
        self.control = Control(
            cast(Any, self.daemon), self.fleet.orders, self.fleet.operations, self.fleet.view, self.fleet.history,
            self.pump, Access(None), None, journal=self.fleet.journal, auditor=Auditor(self.audit),
        )  # fmt: skip

    def close(self) -> None:
        self.audit.close()
        self.pump.close(1.0)
        self.fleet.close()

    async def send(self, path: str, caller: Principal = CENTER, **body: Any) -> tuple[int, Any]:
        """A command's status and JSON."""
        answer = await self.answer(path, json.dumps(body).encode(), caller)
        value = json.loads(answer.body)
        if answer.status >= 400:
            assert PROBLEMS[value["code"]][0] == answer.status == value["status"]
        return answer.status, value

    async def answer(self, path: str, body: bytes, caller: Principal = CENTER) -> Response:
        return await self.control.handle_as(Request("POST", path, {}, {}, body, PEER), caller)

    async def code(self, path: str, caller: Principal = CENTER, **body: Any) -> str | None:
        """The problem's code; None: it was accepted."""
        status, value = await self.send(path, caller, **body)
        return None if status in (200, 202) else str(value["code"])

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "audit.jsonl").read_text().splitlines()]


@asynccontextmanager
async def serving(folder: Path, **more: Any) -> AsyncIterator[Api]:
    api = Api(folder, **more)
    try:
        yield api
    finally:
        api.close()


def served(folder: Path, scenario: Any, **more: Any) -> None:
    async def whole() -> None:
        async with serving(folder, **more) as api:
            await scenario(api)
            await asyncio.sleep(0)

    run(whole())


# Repetitions.


def test_a_repetition_may_come_later_and_from_a_newer_lead(tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        said = {"command_id": "c1", "reason": "r", "issued_by": "ann", "center": "s"}
        status, first = await api.send("/v1/units/web/restart", **said, deadline=EARLY, epoch=3)
        assert status == 202
        for more in ({"deadline": LATE}, {"deadline": None}, {"epoch": 4}, {"epoch": 3}):
            answer = await api.answer(
                "/v1/units/web/restart", json.dumps({**said, "deadline": EARLY, "epoch": 3, **more}).encode()
            )
            assert (answer.status, json.loads(answer.body)["id"]) == (202, first["id"]), more
            assert ("Command-Repeated", "true") in answer.headers
        assert api.fleet.ordered(Spawn) == ["web"]
        assert await api.code("/v1/units/cart:0/stop", center="s", epoch=3) == "stale_epoch", "4 was heard of"

    served(tmp_path, scenario)


@pytest.mark.parametrize(
    "other",
    [
        {"reason": "other"}, {"issued_by": "bob"}, {"parameters": {"force": True}}, {"expected_generation": 1},
        {"center": "s", "epoch": 1},
    ],
)  # fmt: skip
def test_the_same_id_with_another_content_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    async def scenario(api: Api) -> None:
        assert await api.code("/v1/units/web/start", command_id="c1") is None
        assert await api.code("/v1/units/web/start", command_id="c1", **other) == "replayed"
        assert await api.code("/v1/units/web/stop", command_id="c1") == "replayed"
        assert await api.code("/v1/units/cart:0/start", command_id="c1") == "replayed"
        assert await api.code("/v1/config/apply", command_id="c1") == "replayed"
        assert api.daemon.applied == 0

    served(tmp_path, scenario)


def test_a_command_is_known_whatever_else_would_refuse_it_now(tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        body = {"command_id": "c1", "center": "s", "epoch": 2, "expected_generation": 0, "deadline": EARLY}
        _, first = await api.send("/v1/units/web/start", **body)
        await api.send("/v1/units/cart:0/start", center="s", epoch=9)
        api.daemon.is_stopping = True
        status, again = await api.send("/v1/units/web/start", **{**body, "deadline": LATE})
        assert (status, again["id"], again["state"]) == (202, first["id"], "succeeded")
        assert api.fleet.view.status("web").generation == 1, "which is not the one that was expected any more"

    served(tmp_path, scenario)


# Epochs.


def test_a_center_that_was_replaced_is_refused_for_ever(tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        assert await api.code("/v1/units/web/start", center="s", epoch=7) is None
        status, value = await api.send("/v1/units/web/stop", center="s", epoch=6)
        assert (status, value["code"], value["epoch"]) == (409, "stale_epoch", 7)
        assert await api.code("/v1/units/web/restart", center="s", epoch=7) is None
        assert await api.code("/v1/units/web/restart", center="other", epoch=1) is None, "of another store"
        assert await api.code("/v1/units/web/restart") is None, "of no center at all"
        for path in ("/v1/config/apply", "/v1/shutdown"):
            assert await api.code(path, center="s", epoch=6) == "stale_epoch"
        assert api.daemon.stopped == [] and api.daemon.applied == 0

    async def after_a_crash(api: Api) -> None:
        assert await api.code("/v1/units/web/stop", center="s", epoch=6) == "stale_epoch"
        assert await api.code("/v1/units/web/stop", center="s", epoch=8) is None

    served(tmp_path, scenario)
    served(tmp_path, after_a_crash)


def test_an_epoch_is_kept_even_if_its_command_is_refused_for_another_reason(tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        assert await api.code("/v1/units/nosuch/stop", center="s", epoch=5) == "unknown_unit"
        assert await api.code("/v1/units/web/stop", center="s", epoch=4) == "stale_epoch"

    served(tmp_path, scenario)


@pytest.mark.parametrize(
    "body",
    [
        {"center": "s"}, {"epoch": 1}, {"center": "s", "epoch": -1}, {"center": "s", "epoch": True},
        {"center": "s", "epoch": 1.5}, {"center": 1, "epoch": 1}, {"center": "s", "epoch": 2**53},
        {"center": "s" * 200, "epoch": 1}, {"expected_generation": -1}, {"expected_generation": "1"},
    ],
)  # fmt: skip
def test_an_envelope_that_makes_no_sense_is_refused(tmp_path: Path, body: dict[str, Any]) -> None:
    async def scenario(api: Api) -> None:
        assert await api.code("/v1/units/web/start", **body) == "bad_request"
        assert api.fleet.done == []

    served(tmp_path, scenario)


def test_made_up_centers_do_not_fill_the_journal(tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        for number in range(100):
            assert await api.code("/v1/units/web/start", center=f"made-up-{number}", epoch=1) is None
        assert len(api.fleet.journal.facts("center")) == 32

    async def after_a_crash(api: Api) -> None:
        assert await api.code("/v1/units/web/start", center="made-up-99", epoch=0) == "stale_epoch"
        for number in range(40):
            await api.code("/v1/units/web/start", center=f"more-{number}", epoch=1)
        assert len(api.fleet.journal.facts("center")) == 32

    served(tmp_path, scenario)
    served(tmp_path, after_a_crash)


# Late, unknown, moved.


@pytest.mark.parametrize("path", ["/v1/units/web/restart", "/v1/units/web/signal", "/v1/config/apply", "/v1/shutdown"])
def test_a_command_that_comes_too_late_is_refused_and_forgotten(tmp_path: Path, path: str) -> None:
    async def scenario(api: Api) -> None:
        api.fleet.up("web")
        parameters = {"signal": "HUP"} if path.endswith("signal") else {}
        status, value = await api.send(path, command_id="c1", deadline=LATE, parameters=parameters)
        assert (status, value["code"]) == (410, "deadline_passed") and LATE in value["detail"]
        assert api.fleet.operations.known("c1") is None
        assert api.fleet.done == [] and api.fleet.processes.sent == [] and api.daemon.stopped == []
        assert await api.code(path, command_id="c1", deadline=EARLY, parameters=parameters) is None

    served(tmp_path, scenario)


def test_a_unit_that_is_another_one_by_now_is_left_alone(tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        assert await api.code("/v1/units/web/start", expected_generation=0) is None
        status, value = await api.send("/v1/units/web/restart", expected_generation=0)
        assert (status, value["code"], value["generation"]) == (412, "generation_moved", 1)
        assert api.fleet.view.status("web").generation == 1
        assert await api.code("/v1/units/web/restart", expected_generation=1) is None
        assert await api.code("/v1/units/cart/restart", expected_generation=0) == "bad_request", "two units"
        assert await api.code("/v1/units/cart:*/restart", expected_generation=0) == "bad_request"
        assert await api.code("/v1/config/apply", expected_generation=0) == "bad_request"
        assert await api.code("/v1/shutdown", expected_generation=0) == "bad_request"

    served(tmp_path, scenario)


def test_the_order_in_which_it_is_looked_is_kept(tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        weak, cart = Principal("weak", Role.READ), Principal("cart", Role.OPERATE, services=("cart",))
        await api.send("/v1/units/web/start", command_id="known", center="s", epoch=5)
        wrong: dict[str, Any] = {"center": "s", "epoch": 4, "deadline": LATE, "expected_generation": 77}
        path = "/v1/units/nosuch/restart"
        assert await api.code(path, weak, command_id="known", **wrong) == "forbidden"
        assert await api.code("/v1/units/web/restart", cart, command_id="known", **wrong) == "forbidden"
        assert await api.code(path, command_id="known", **wrong) == "replayed"
        assert await api.code(path, command_id="new", **wrong) == "stale_epoch"
        wrong["epoch"] = 5
        assert await api.code(path, command_id="new", **wrong) == "deadline_passed"
        wrong["deadline"] = EARLY
        assert await api.code(path, command_id="new", **wrong) == "unknown_unit"
        assert await api.code("/v1/units/web/restart", command_id="new", **wrong) == "generation_moved"
        wrong["expected_generation"] = 1
        assert await api.code("/v1/units/web/restart", command_id="new", **wrong) is None

    served(tmp_path, scenario)


def test_a_daemon_that_shuts_down_takes_no_new_command(tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        api.daemon.is_stopping = True
        for path in ("/v1/units/web/start", "/v1/units/web/signal", "/v1/config/apply"):
            assert await api.code(path, command_id="c1") == "shutting_down"
        assert await api.code("/v1/shutdown") is None, "which changes nothing"

    served(tmp_path, scenario)


# Apply.


def test_an_apply_that_comes_again_gets_its_answer_again(tmp_path: Path) -> None:
    said = {"command_id": "a1", "reason": "deploy"}

    async def scenario(api: Api) -> None:
        status, first = await api.send("/v1/config/apply", **said, deadline=EARLY)
        assert status == 202 and first["items"][0]["unit"] == "web"
        await api.fleet.operations.wait(api.fleet.operations.of_command("a1"), 5)
        status, again = await api.send("/v1/config/apply", **said, deadline=LATE)
        assert (status, again["items"]) == (202, first["items"])
        assert [item["id"] for item in again["operations"]] == [item["id"] for item in first["operations"]]
        assert api.daemon.applied == 1
        assert await api.code("/v1/config/apply", command_id="a1", reason="other") == "replayed"
        assert await api.code("/v1/units/web/stop", command_id="a1") == "replayed"

    async def after_a_crash(api: Api) -> None:
        status, again = await api.send("/v1/config/apply", **said)
        assert (status, again["items"][0]["keys"]) == (202, ["command"]) and len(again["operations"]) == 1
        assert api.daemon.applied == 0

    served(tmp_path, scenario)
    served(tmp_path, after_a_crash)


def test_an_apply_that_was_refused_can_be_tried_again_with_the_same_id(tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        api.daemon.mistakes = ConfigError("unknown key", path="/etc/u.toml", line=3)
        status, value = await api.send("/v1/config/apply", command_id="a1")
        assert (status, value["code"], len(value["errors"])) == (422, "bad_config", 1)
        api.daemon.mistakes, api.daemon.later = None, api.daemon.mistakes
        assert await api.code("/v1/config/apply", command_id="a1") == "bad_config", "changed in the middle"
        api.daemon.later = None
        assert await api.code("/v1/config/apply", command_id="a1") is None
        assert api.daemon.applied == 1

    served(tmp_path, scenario)


def test_only_so_many_applies_are_remembered(tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        for number in range(40):
            assert await api.code("/v1/config/apply", command_id=f"a{number}") is None
        assert len(api.fleet.journal.facts("applied")) == 32
        assert await api.code("/v1/config/apply", command_id="a39") is None
        assert api.daemon.applied == 40

    served(tmp_path, scenario)


# Rights.


def test_rights_are_those_of_the_services_that_a_pattern_means(tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        cart = Principal("team", Role.OPERATE, services=("cart*",))
        api.fleet.up("cart:0", "cart:1")
        assert await api.code("/v1/units/cart:*/restart", cart) is None
        for pattern in ("web", "all", "cart,web", "*"):
            assert await api.code(f"/v1/units/{pattern}/restart", cart) == "forbidden"
        assert await api.code("/v1/units/cart:0,nosuch/restart", cart) == "unknown_unit"
        assert await api.code("/v1/units/cart:0/stop", cart) is None, "nothing that depends on it is up"
        api.fleet.up("job")
        assert await api.code("/v1/units/cart:1/stop", cart) == "forbidden", "job would stop, too"

    served(tmp_path, scenario)


def test_a_group_that_is_called_like_a_service_is_no_right(tmp_path: Path) -> None:
    """What counts is the service that a unit is registered under, not how it is called."""
    odd = service("web")
    assert odd.service is not None
    odd = replace(odd, service=replace(odd.service, name="payments"))

    async def scenario(api: Api) -> None:
        web = Principal("team", Role.OPERATE, services=("web",))
        assert await api.code("/v1/units/web/restart", web) == "forbidden"
        assert await api.code("/v1/units/web/restart", replace(web, services=("payments",))) is None

    served(tmp_path, scenario, specs=(odd,))


# The audit log.


def test_each_command_is_a_line_that_says_who_what_and_what_came_of_it(tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        said = {"command_id": "c1", "reason": "deploy", "issued_by": "ann"}
        await api.send("/v1/units/web/start", **said)
        await api.send("/v1/units/web/start", **said)
        await api.send("/v1/units/web/stop", **said)
        await api.send("/v1/units/cart%3A0,web/stop", Principal("weak", Role.READ))
        await api.send("/v1/units/web/disable")
        await api.send("/v1/config/apply", reason="new version")
        await api.send("/v1/operations/op-9/abort")
        await api.answer("/v1/units/web/restart", b"{rubbish")
        await api.send("/v1/shutdown", reason="moving")
        lines = api.lines()
        assert [(line["action"], line["target"], line["verdict"], line["code"]) for line in lines] == [
            ("start", "web", "accepted", None), ("start", "web", "repeated", None), ("stop", "web", "refused", "replayed"),
            ("stop", "cart:0,web", "refused", "forbidden"), ("disable", "web", "accepted", None),
            ("apply", "", "accepted", None), ("abort", "op-9", "refused", "not_found"),
            ("restart", "web", "refused", "bad_request"), ("shutdown", "", "accepted", None),
        ]  # fmt: skip
        first = lines[0]
        assert (first["who"], first["peer"], first["command_id"], first["reason"], first["issued_by"]) == (
            "center", "10.0.0.2:4711", "c1", "deploy", "ann",
        )  # fmt: skip
        assert lines[3]["who"] == "weak" and "may not command" in lines[3]["detail"]
        assert verify((tmp_path / "audit.jsonl").read_bytes().splitlines()).faults == []

    served(tmp_path, scenario)


def test_a_command_that_fails_by_our_fault_is_written_down_too(tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        api.daemon.later = cast(Any, RuntimeError("a bug"))
        with pytest.raises(RuntimeError, match="a bug"):
            await api.answer("/v1/config/apply", b"{}")
        (line,) = api.lines()
        assert (line["action"], line["verdict"], line["code"]) == ("apply", "refused", "internal_error")

    served(tmp_path, scenario)


def test_who_only_looks_is_not_written_down(tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        await api.answer("/v1/config/plan", b"")
        await api.control.handle_as(Request("GET", "/v1/units", {}, {}, b"", PEER), CENTER)
        await api.answer("/v1/nothing", b"")
        assert api.lines() == []

    served(tmp_path, scenario)


def test_the_line_is_there_before_the_answer_is(tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        asked = asyncio.ensure_future(api.send("/v1/units/web/start"))
        asked.add_done_callback(lambda _: counted.append(len(api.lines())))
        counted: list[int] = []
        await asked
        await asyncio.sleep(0)
        assert counted == [1]

    served(tmp_path, scenario)


def test_a_log_that_cannot_be_written_refuses_no_command_and_is_told_by_the_doctor(tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        api.audit.close()
        (tmp_path / "audit.jsonl").unlink()
        (tmp_path / "audit.jsonl").mkdir()
        assert await api.code("/v1/units/web/start") is None
        (found,) = Auditor(api.audit).findings()
        assert (found.outcome, found.check) == ("problem", "audit") and "1 command" in found.message

    served(tmp_path, scenario)


def test_the_chain_goes_on_after_a_restart_and_a_cut_end_is_noticed(tmp_path: Path) -> None:
    async def one(api: Api) -> None:
        await api.send("/v1/units/web/start")
        await api.send("/v1/units/web/stop")

    async def another(api: Api) -> None:
        assert api.audit.trouble == ""
        await api.send("/v1/units/web/start")

    async def cut(api: Api) -> None:
        assert "1 lines are missing" in api.audit.trouble or "1 line is missing" in api.audit.trouble

    served(tmp_path, one)
    served(tmp_path, another)
    path = tmp_path / "audit.jsonl"
    assert verify(path.read_bytes().splitlines()).lines == 3
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    served(tmp_path, cut)


def test_what_the_journal_cannot_be_read_for_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "state"))
    for kind in ("center", "applied", "audit"):
        for text in ("rubbish", "[]", "3", '{"epoch": "x"}'):
            journal.record_fact(kind, {"audit": "last"}.get(kind, text), text)
    journal.close()

    async def scenario(api: Api) -> None:
        assert await api.code("/v1/units/web/start", command_id="c", center="s", epoch=1) is None
        assert await api.code("/v1/config/apply", command_id="d") is None

    served(tmp_path, scenario)
