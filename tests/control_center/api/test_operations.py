"""Operations over HTTP: begun, planned, repeated, watched, paused."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from control_center.model import Batch, OperationState, Wish

from .site import Site, center, entry

RESTART: dict[str, Any] = {"verb": "restart", "selection": {"services": ["cart"]}, "strategy": None}


async def three_carts(site: Site) -> None:
    await site.register(*(entry("cart", f"web-{number}") for number in (1, 2, 3)))


async def test_an_operation_is_begun_and_found_again(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await three_carts(site)
        begun = await site.post("/v1/operations", {**RESTART, "reason": "new kernel", "command_id": "c1"})
        assert begun.status == 202
        assert begun.headers["Location"] == f"/v1/operations/{begun.json['id']}"
        assert begun.json["counts"] == {"pending": 3}
        found = await site.get(begun.headers["Location"])
        assert found.json == begun.json
        assert found.json["reason"] == "new kernel" and found.json["issued_by"] == "root"
        listed = (await site.get("/v1/operations?open=1&service=cart")).json["operations"]
        assert listed == [{name: value for name, value in found.json.items() if name != "targets"}]
        (record,) = (await site.get("/v1/audit")).json["records"]
        assert record["body"]["operation"] == begun.json["id"] and record["body"]["targets"] == 3


async def test_the_same_command_again_is_the_same_operation(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await three_carts(site)
        body = {**RESTART, "command_id": "c1", "deadline_seconds": 60}
        first = await site.post("/v1/operations", body)
        again = await site.post("/v1/operations", {**body, "deadline_seconds": 90})
        assert (again.status, again.json["id"]) == (202, first.json["id"])
        assert len(await site.store.operations()) == 1


async def test_the_same_command_id_for_something_else_is_refused(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await three_carts(site)
        await site.post("/v1/operations", {**RESTART, "command_id": "c1"})
        for changed in ({"reason": "other"}, {"strategy": {"batch": "1"}}, {"verb": "stop"}, {"issued_by": "eve"}):
            answer = await site.post("/v1/operations", {**RESTART, "command_id": "c1", **changed})
            assert (answer.status, answer.code) == (422, "replayed"), changed


async def test_a_service_has_one_open_operation(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await three_carts(site)
        first = await site.post("/v1/operations", RESTART)
        answer = await site.post("/v1/operations", RESTART)
        assert (answer.status, answer.code) == (409, "busy")
        assert (answer.json["operation"], answer.json["service"]) == (first.json["id"], "cart")
        (service,) = (await site.get("/v1/services")).json["services"]
        assert service["operation"] == first.json["id"]


async def test_a_plan_is_shown_and_nothing_is_kept(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await three_carts(site)
        plan = await site.post(
            "/v1/operations", {**RESTART, "strategy": {"batch": 1, "floor_percent": 50}, "dry_run": True}
        )
        assert (plan.status, plan.json["id"]) == (200, "")
        assert len(plan.json["batches"]) == 3 and plan.json["strategy"]["batch"] == "1"
        assert await site.store.operations() == []
        assert (await site.get("/v1/audit")).json["records"] == []


async def test_a_floor_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await site.register(entry("cart", "web-1"))
        answer = await site.post("/v1/operations", {**RESTART, "strategy": {"floor_percent": 75}})
        assert (answer.status, answer.code) == (422, "floor")


async def test_what_selects_nothing_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await three_carts(site)
        answer = await site.post("/v1/operations", {**RESTART, "selection": {"services": ["carts"]}})
        assert (answer.status, answer.code) == (422, "nothing_selected")
        assert "cart" in answer.json["detail"]


async def test_without_a_word_of_a_strategy_the_centers_own_is_taken(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await site.register(*(entry("cart", f"web-{number}") for number in range(8)))
        body = {"verb": "restart", "selection": {"services": ["cart"]}, "dry_run": True}
        assert (await site.post("/v1/operations", body)).json["strategy"]["batch"] == "25%"
        assert (await site.post("/v1/operations", {**body, "strategy": None})).json["strategy"] is None


async def test_whom_a_caller_names_is_shown_with_the_caller(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await three_carts(site)
        for given, shown in (("alice", "alice (as root)"), ("root", "root"), (None, "root")):
            plan = await site.post("/v1/operations", {**RESTART, "issued_by": given, "dry_run": True})
            assert plan.json["issued_by"] == shown


async def test_a_deadline_is_kept_in_utc(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await three_carts(site)
        moment = datetime.now(UTC) + timedelta(hours=2)
        local = moment.astimezone(datetime.fromisoformat("2026-01-01T00:00:00+05:30").tzinfo)
        plan = await site.post("/v1/operations", {**RESTART, "deadline": local.isoformat(), "dry_run": True})
        assert datetime.fromisoformat(plan.json["deadline"]) == moment.replace(
            microsecond=moment.microsecond // 1000 * 1000
        )
        assert plan.json["deadline"].endswith("Z")


async def test_a_deadline_that_has_passed_is_refused(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await three_carts(site)
        answer = await site.post("/v1/operations", {**RESTART, "deadline": "2020-01-01T00:00:00Z"})
        assert (answer.status, answer.code) == (410, "deadline_passed")


async def test_a_repetition_that_comes_after_the_deadline_is_answered_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with center(tmp_path) as site:
        await three_carts(site)
        body = {**RESTART, "command_id": "c1", "deadline_seconds": 600}
        first = await site.post("/v1/operations", body)
        assert first.status == 202
        monkeypatch.setattr("control_center.api.operations.now_iso", lambda: "2999-01-01T00:00:00.000Z")
        again = await site.post("/v1/operations", body)
        assert (again.status, again.json["id"]) == (202, first.json["id"])
        assert (await site.post("/v1/operations", {**body, "command_id": "c2"})).code == "deadline_passed"


MISTAKES = [
    (b"", "verb: is missing"),
    (b"[]", "must be a JSON object"),
    (b"{", "not JSON"),
    (b'{"verb": "restart", "verb": "stop"}', "comes twice"),
    (b'{"verb": NaN}', "NaN"),
    (b'{"verb": 1e999}', "too great"),
    (b"[" * 100_000, "not JSON"),
    (b'{"a":' * 40 + b"1" + b"}" * 40, "nested more than"),
    ({"verb": "restrat"}, "did you mean restart?"),
    ({"verb": 7}, "must be one of"),
    ({**RESTART, "selector": {}}, "selector: unknown member; did you mean selection?"),
    ({**RESTART, "selection": {}}, "it says nothing"),
    ({**RESTART, "selection": {"services": []}}, "it says nothing"),
    ({**RESTART, "selection": "cart"}, "selection: must be an object"),
    ({**RESTART, "selection": {"service": ["cart"]}}, "selection.service: unknown member; did you mean services?"),
    ({**RESTART, "selection": {"services": "cart"}}, "selection.services: must be a list"),
    ({**RESTART, "selection": {"services": ["cart", ""]}}, "selection.services[1]: must not be empty"),
    ({**RESTART, "selection": {"services": [1]}}, "selection.services[0]: must be a string"),
    ({**RESTART, "selection": {"services": ["x"] * 1001}}, "at most 1000"),
    ({**RESTART, "selection": {"labels": {"team": 1}}}, "selection.labels.team: must be a string"),
    ({**RESTART, "strategy": {"batch": "0"}}, "strategy.batch: must be a number"),
    ({**RESTART, "strategy": {"batch": "101%"}}, "strategy.batch"),
    ({**RESTART, "strategy": {"batch": True}}, "strategy.batch"),
    ({**RESTART, "strategy": {"canary": -1}}, "strategy.canary: must be a whole number from 0"),
    ({**RESTART, "strategy": {"canary": 1.0}}, "strategy.canary"),
    ({**RESTART, "strategy": {"floor_percent": 101}}, "strategy.floor_percent"),
    ({**RESTART, "strategy": {"by_zone": "yes"}}, "strategy.by_zone: must be true or false"),
    ({**RESTART, "strategy": {"bake": 3}}, "strategy.bake: unknown member"),
    ({**RESTART, "parameters": {"forced": True}}, "parameters.forced: unknown member; did you mean force?"),
    ({**RESTART, "verb": "weight"}, "parameters.weight: is missing"),
    ({**RESTART, "verb": "weight", "parameters": {"weight": 0}}, "parameters.weight"),
    ({**RESTART, "verb": "signal", "parameters": {"signal": "KILL; rm"}}, "parameters.signal"),
    ({**RESTART, "verb": "warm", "parameters": {"pause": True, "step": 5}}, "stands alone"),
    ({**RESTART, "verb": "warm", "parameters": {"pause": False}}, "can only be true"),
    ({**RESTART, "verb": "drain", "parameters": {"for_seconds": 5, "until": "2030-01-01T00:00:00Z"}}, "not both"),
    ({**RESTART, "deadline": "tomorrow"}, "must be ISO 8601"),
    ({**RESTART, "deadline": "2030-01-01T00:00:00"}, "names no time zone"),
    ({**RESTART, "deadline": "2999-01-01T00:00:00Z"}, "at most 30 days"),
    ({**RESTART, "deadline": "2030-01-01T00:00:00Z", "deadline_seconds": 5}, "not both"),
    ({**RESTART, "deadline_seconds": 0}, "deadline_seconds: must be a number"),
    ({**RESTART, "reason": "x" * 1001}, "longer than 1000"),
    ({**RESTART, "reason": "a\0b"}, "it holds what is no text"),
    (b'{"verb": "restart", "reason": "\\ud800"}', "it holds what is no text"),
    ({**RESTART, "expected_generation": 2**60}, "whole numbers go up to"),
    ({**RESTART, "expected_generation": -1}, "expected_generation"),
    ({**RESTART, "command_id": ""}, "command_id: must not be empty"),
    ({**RESTART, "dry_run": 1}, "dry_run: must be true or false"),
]


async def test_every_mistake_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await three_carts(site)
        for body, words in MISTAKES:
            answer = await site.post("/v1/operations", body)
            assert (answer.status, answer.code) == (400, "bad_request"), body
            assert words in answer.json["detail"], (body, answer.json["detail"])
        assert await site.store.operations() == []


MISTAKEN_ADDRESSES = [
    ("/v1/operations?limit=0", "?limit: must be a whole number from 1 to 500"),
    ("/v1/operations?limit=ten", "?limit"),
    ("/v1/operations?limit=", "it is empty"),
    ("/v1/operations?open=yes", "?open: must be one of"),
    ("/v1/operations?opne=1", "?opne: unknown parameter; did you mean ?open?"),
    ("/v1/operations?open=1&open=0", "it is given twice"),
    ("/v1/operations?service=%00", "no text"),
    ("/v1/operations/x?wait=-1", "?wait: must be a number of seconds"),
    ("/v1/operations/x?wait=nan", "?wait"),
    ("/v1/operations/x?version=1.5", "?version"),
    ("/v1/operations/%00", "no text"),
    (f"/v1/operations/{'x' * 600}", "longer than 512"),
]


async def test_mistakes_in_an_address_are_refused(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        for path, words in MISTAKEN_ADDRESSES:
            answer = await site.get(path)
            assert (answer.status, answer.code) == (400, "bad_request"), path
            assert words in answer.json["detail"], path


async def test_operations_are_paged_from_the_newest(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        ids = []
        for name in ("a", "b", "c"):
            await site.register(entry(name, "web-1"))
            ids.append((await site.post("/v1/operations", {**RESTART, "selection": {"services": [name]}})).json["id"])
        first = (await site.get("/v1/operations?limit=2")).json["operations"]
        assert [each["id"] for each in first] == [ids[2], ids[1]]
        rest = (await site.get(f"/v1/operations?limit=2&before={ids[1]}")).json["operations"]
        assert [each["id"] for each in rest] == [ids[0]]


async def test_an_unknown_operation_is_not_found(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        for method, path in (("GET", ""), ("GET", "?wait=30"), ("POST", "/pause"), ("POST", "/abort")):
            answer = await site.ask(method, f"/v1/operations/fo-none{path}")
            assert (answer.status, answer.code) == (404, "not_found")


async def test_who_waits_for_an_operation_is_answered_when_it_changes(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await three_carts(site)
        begun = (await site.post("/v1/operations", RESTART)).json
        path = f"/v1/operations/{begun['id']}?wait=30"
        for is_known in (False, True):
            waiting = asyncio.create_task(site.get(path + (f"&version={begun['version']}" if is_known else "")))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            verb = "resume" if is_known else "pause"
            await site.post(f"/v1/operations/{begun['id']}/{verb}")
            assert (await asyncio.wait_for(waiting, 10)).json["version"] > begun["version"]
            begun = (await site.get(f"/v1/operations/{begun['id']}")).json
        assert (await site.get(f"{path}&version=0")).json["version"] == begun["version"]  # known to be newer: at once


async def test_who_waits_is_answered_when_the_time_is_over_and_when_it_has_ended(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await three_carts(site)
        id_ = (await site.post("/v1/operations", RESTART)).json["id"]
        assert (await site.get(f"/v1/operations/{id_}?wait=0.1")).json["state"] == "pending"
        operation = await site.store.operation(id_)
        assert operation is not None
        operation.state = OperationState.SUCCEEDED
        operation.batches = [Batch(0, "all at once", "succeeded")]
        await site.store.save(operation, epoch=1)
        assert (await site.get(f"/v1/operations/{id_}?wait=30&version=99")).json["state"] == "succeeded"
        answer = await site.post(f"/v1/operations/{id_}/pause")
        assert (answer.status, answer.code) == (409, "done")


async def test_operations_are_paused_resumed_and_aborted(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await three_carts(site)
        id_ = (await site.post("/v1/operations", RESTART)).json["id"]
        for verb, wish in (("pause", Wish.PAUSE), ("resume", Wish.RUN), ("abort", Wish.ABORT)):
            answer = await site.post(f"/v1/operations/{id_}/{verb}", {"reason": f"for {verb}"})
            assert (answer.status, answer.json["wish"]) == (200, wish.value)
            assert len(answer.json["targets"]) == 3
        records = (await site.get("/v1/audit?limit=3")).json["records"]
        assert [(each["action"], each["body"]["reason"]) for each in records] == [
            ("abort", "for abort"), ("resume", "for resume"), ("pause", "for pause")
        ]  # fmt: skip
        assert (await site.post(f"/v1/operations/{id_}/resume")).code == "done"
