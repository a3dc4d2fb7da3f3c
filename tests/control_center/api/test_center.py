"""The center itself over HTTP: who leads, what it may do, and how the API answers in general."""

from __future__ import annotations

import asyncio
import io
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import ClientError

from control_center.api.routes import ROUTES
from control_center.errors import StoreError
from control_center.model import Mode

from .site import center, entry, until


async def test_the_center_tells_of_itself_and_of_the_caller(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        answer = await site.get("/v1/center")
        assert answer.status == 200
        assert answer.json["id"] == site.store.id
        assert (answer.json["name"], answer.json["leader"], answer.json["epoch"]) == ("center-1", True, 1)
        assert answer.json["registry"]["state"] == "ok"
        assert answer.json["principal"] == {"name": "root", "role": "admin", "services": ["*"]}


async def test_the_mode_is_changed_and_followers_learn_it(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        answer = await site.ask("PUT", "/v1/center/mode", {"mode": "full", "reason": "quiet week"})
        assert (answer.status, answer.json["mode"]) == (200, "full")
        assert await site.store.mode() is Mode.FULL
        (event,) = await site.store.events(0)
        assert (event.type, event.body["mode"], event.body["before"]) == ("mode", "full", "assist")


async def test_a_mode_that_does_not_exist_is_refused_with_the_nearest(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        answer = await site.ask("PUT", "/v1/center/mode", {"mode": "asist"})
        assert (answer.status, answer.code) == (400, "bad_request")
        assert answer.json["nearest"] == "assist" and "did you mean assist" in answer.json["detail"]


async def test_every_command_is_in_the_audit_log_with_its_verdict(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await site.ask("PUT", "/v1/center/mode", {"mode": "observe", "reason": "works"})
        await site.ask("PUT", "/v1/center/mode", {"mode": "obey"})
        answer = await site.get("/v1/audit?limit=10")
        refused, accepted = answer.json["records"]
        assert (accepted["who"], accepted["action"]) == ("root", "mode")
        assert accepted["body"]["verdict"] == "accepted" and accepted["body"]["reason"] == "works"
        assert refused["body"]["verdict"] == "bad_request" and refused["body"]["peer"] == "127.0.0.1"


async def test_an_unknown_path_is_not_found(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        answer = await site.get("/v1/servces")
        assert (answer.status, answer.code) == (404, "not_found")


async def test_a_wrong_method_is_told_the_right_ones(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        answer = await site.ask("DELETE", "/v1/operations")
        assert (answer.status, answer.code) == (405, "method_not_allowed")
        assert answer.headers["Allow"] == "GET, HEAD, POST"


async def test_head_answers_like_get_without_a_body(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        for path in ("/v1/center", "/v1/services", "/healthz", "/v1/events"):
            answer = await site.ask("HEAD", path)
            assert (answer.status, answer.body) == (200, b""), path


async def test_every_answer_is_guarded_against_other_pages(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        for path in ("/v1/center", "/v1/nothing", "/healthz", "/v1/events?follow=0"):
            headers = (await site.get(path)).headers
            assert "default-src 'self'" in headers["Content-Security-Policy"]
            assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["Cache-Control"] == "no-store"
            assert headers["X-Request-Id"]


async def test_a_failure_that_nobody_expected_is_logged_with_an_id_and_shows_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with center(tmp_path) as site:

        async def fail() -> Mode:
            raise ZeroDivisionError("secret of the house")

        monkeypatch.setattr(site.store, "mode", fail)
        answer = await site.get("/v1/center")
        assert (answer.status, answer.code) == (500, "internal_error")
        assert b"secret" not in answer.body and b"Traceback" not in answer.body
        (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert answer.json["request_id"] in record.getMessage() and record.exc_info is not None


async def test_a_store_that_is_away_is_said_to_be_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with center(tmp_path) as site:

        async def fail() -> Mode:
            raise StoreError("cannot ask the store: its server does not answer")

        monkeypatch.setattr(site.store, "mode", fail)
        answer = await site.get("/v1/center")
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "store_away", "1")


async def test_a_body_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        answer = await site.post("/v1/reports", io.BytesIO(b" " * (1024 * 1024 + 1)))
        assert (answer.status, answer.code) == (413, "too_large")


async def test_a_body_beyond_the_limit_is_refused_without_its_length_too(tmp_path: Path) -> None:
    async with center(tmp_path) as site:

        async def endless():  # type: ignore[no-untyped-def]
            for _ in range(64):
                yield b" " * 65536

        async with site.session.post(f"{site.url}/v1/reports", data=endless()) as response:
            assert response.status == 413


async def test_a_body_that_never_comes_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_center.api.call.BODY_SECONDS", 0.05)
    async with center(tmp_path) as site:
        reader, writer = await asyncio.open_connection(*site.serving.address)
        writer.write(b"POST /v1/reports HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_an_answer_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = tuple(replace(route, seconds=route.seconds and 0.05) for route in ROUTES)
    monkeypatch.setattr("control_center.api.app.ROUTES", impatient)
    async with center(tmp_path) as site:

        async def hang() -> Mode:
            await asyncio.sleep(3600)
            raise AssertionError

        monkeypatch.setattr(site.store, "mode", hang)
        answer = await site.get("/v1/center")
        assert (answer.status, answer.code) == (503, "timeout")


async def test_it_is_healthy_and_ready_until_it_ends(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        assert (await site.get("/healthz")).body == b"ok\n"
        assert (await site.get("/readyz")).status == 200
        site.parts.is_ready = lambda: False
        answer = await site.get("/readyz")
        assert (answer.status, answer.code) == (503, "shutting_down")
        assert (await site.get("/healthz")).status == 200


async def test_the_description_of_the_api_is_served(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        answer = await site.get("/openapi.json")
        assert answer.json["openapi"] == "3.1.0" and "/v1/operations" in answer.json["paths"]


async def test_metrics_tell_of_leader_requests_and_registry(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await site.get("/v1/nothing")
        text = (await site.get("/metrics")).body.decode()
        assert "unit_center_leader 1.0" in text
        assert 'unit_center_http_requests_total{route="unknown",status="404"} 1.0' in text
        assert "unit_center_registry_age_seconds" in text and "unit_center_build_info" in text


async def test_a_command_goes_on_when_who_gave_it_hangs_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with center(tmp_path) as site:
        await site.register(entry("cart", "web-1"))
        begun, may_go_on = asyncio.Event(), asyncio.Event()
        add = site.store.add_operation

        async def slow_add(*args, **more):  # type: ignore[no-untyped-def]
            begun.set()
            await may_go_on.wait()
            return await add(*args, **more)

        monkeypatch.setattr(site.store, "add_operation", slow_add)
        _, writer = await asyncio.open_connection(*site.serving.address)
        body = b'{"verb":"start","selection":{"services":["cart"]},"command_id":"c1"}'
        writer.write(
            b"POST /v1/operations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        await begun.wait()
        writer.transport.abort()
        await asyncio.sleep(0.05)  # for the server to see it
        may_go_on.set()
        found = None
        async with asyncio.timeout(10):
            while found is None:
                found = await site.store.operation_of_command("c1")
                await asyncio.sleep(0.01)
        assert found.verb == "start"


async def test_long_polls_end_with_the_center(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await site.register(entry("cart", "web-1"))
        begun = await site.post("/v1/operations", {"verb": "start", "selection": {"services": ["cart"]}})
        id_ = begun.json["id"]
        waiting = asyncio.ensure_future(site.get(f"/v1/operations/{id_}?wait=60"))
        follower = asyncio.ensure_future(site.get("/v1/events"))
        await until(lambda: len(site.store._database.changes._waiters) > 0)
        async with asyncio.timeout(10):
            await site.serving.close()
            await asyncio.wait({waiting, follower})
        assert all(isinstance(task.exception(), ClientError) for task in (waiting, follower))  # cut, not half an answer
