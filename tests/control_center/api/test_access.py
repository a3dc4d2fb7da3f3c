"""Who may do what, for every route there is: the table of routes is what is gone through."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from control_center.api.routes import ROUTES, Route
from supervisor.core.access import GRANTS, Right, Role

from .site import ROLES, TOKENS, Answer, Site, center, entry, principals

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
STRANGER = 65534
GUARDED = [route for route in ROUTES if route.right is not None]
OPEN = [route for route in ROUTES if route.right is None]


def filled(path: str) -> str:
    """The path of a route with something in its variable parts."""
    values = {
        "{node}": "web-2",
        "{unit}": "cart:0",
        "{service}": "ship",
        "{id}": "fo-1",
        "{instance:.+}": "web-2/cart:0",
    }
    for name, value in values.items():
        path = path.replace(name, value)
    assert "{" not in path or path == "/static/{file:.+}"
    return path.replace("{file:.+}", "app.js")


async def refused(site: Site, route: Route, status: int, code: str, **credential: Any) -> Answer:
    answer = await site.ask(route.method, filled(route.path), **credential)
    assert (answer.status, answer.code) == (status, code), (route.method, route.path, answer.body)
    return answer


async def test_without_a_credential_every_guarded_route_refuses(tmp_path: Path) -> None:
    async with center(tmp_path, principals()) as site:
        for route in GUARDED:
            answer = await refused(site, route, 401, "unauthenticated")
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_with_a_wrong_token_every_guarded_route_refuses(tmp_path: Path) -> None:
    async with center(tmp_path, principals()) as site:
        for route in GUARDED:
            await refused(site, route, 401, "unauthenticated", token="a-guess")
            await refused(site, route, 401, "unauthenticated", Authorization="Basic Y2hpZWY6Y2hpZWY=")
            await refused(site, route, 401, "unauthenticated", Authorization="Bearer")


async def test_with_a_weaker_role_every_guarded_route_refuses(tmp_path: Path) -> None:
    async with center(tmp_path, principals()) as site:
        tried = 0
        for route in GUARDED:
            for role in Role:
                if route.right not in GRANTS[role] and not route.also & GRANTS[role]:
                    tried += 1
                    await refused(site, route, 403, "forbidden", token=TOKENS[role])
        assert tried >= 2 * len(GUARDED)


async def test_every_role_may_look_into_the_hosted_registry(tmp_path: Path) -> None:
    """Nodes see their entries go, and gateways follow services."""
    async with center(tmp_path, principals()) as site:
        for token in TOKENS.values():
            assert (await site.get("/v1/registry/services/cart", token=token)).status == 200


async def test_nobody_has_to_say_who_they_are_for_the_open_routes(tmp_path: Path) -> None:
    async with center(tmp_path, principals()) as site:
        for route in OPEN:
            assert (await site.ask(route.method, filled(route.path))).status in (200, 404), route.path
    assert {route.path for route in OPEN} == {"/healthz", "/readyz", "/openapi.json", "/", "/static/{file:.+}"}


def test_every_route_that_changes_something_needs_more_than_reading() -> None:
    for route in ROUTES:
        if route.method != "GET":
            assert route.right not in (None, Right.READ), route.path


async def test_each_role_gets_what_it_is_granted(tmp_path: Path) -> None:
    async with center(tmp_path, principals()) as site:
        for role, name in ROLES.items():
            if Right.READ in GRANTS[role]:
                answer = await site.get("/v1/center", token=TOKENS[role])
                assert answer.json["principal"]["name"] == name
                assert answer.json["principal"]["role"] == role.value


# Rights within a role.


async def test_services_of_others_are_not_commanded(tmp_path: Path) -> None:
    async with center(tmp_path, principals()) as site:
        await site.register(entry("cart", "web-1"), entry("ship", "web-1"))
        token = TOKENS[Role.OPERATE]
        for more in ({}, {"dry_run": True}):
            body = {"verb": "start", "selection": {"services": ["*"]}, **more}
            answer = await site.post("/v1/operations", body, token=token)
            assert (answer.status, answer.code) == (403, "forbidden")
            assert "units of ship" in answer.json["detail"]
        assert await site.store.operations() == []
        own = await site.post("/v1/operations", {"verb": "start", "selection": {"services": ["cart"]}}, token=token)
        assert own.status == 202 and own.json["issued_by"] == "operator"


async def test_operations_on_services_of_others_are_not_paused(tmp_path: Path) -> None:
    async with center(tmp_path, principals()) as site:
        await site.register(entry("ship", "web-1"))
        body = {"verb": "start", "selection": {"services": ["ship"]}, "command_id": "c1"}
        begun = await site.post("/v1/operations", body, token=TOKENS[Role.ADMIN])
        for verb in ("pause", "resume", "abort"):
            answer = await site.post(f"/v1/operations/{begun.json['id']}/{verb}", token=TOKENS[Role.OPERATE])
            assert (answer.status, answer.code) == (403, "forbidden")
        again = await site.post("/v1/operations", body, token=TOKENS[Role.OPERATE])
        assert (again.status, again.code) == (403, "forbidden")


async def test_units_of_no_service_take_the_right_to_all(tmp_path: Path) -> None:
    async with center(tmp_path, principals()) as site:
        await site.register(entry("unitd", "web-1", "unitd"))
        body = {"verb": "start", "selection": {"nodes": ["web-1"], "units": ["cron"]}}
        answer = await site.post("/v1/operations", body, token=TOKENS[Role.OPERATE])
        assert (answer.status, answer.code) == (403, "forbidden")
        assert "without a service" in answer.json["detail"]
        assert (await site.post("/v1/operations", body, token=TOKENS[Role.ADMIN])).status == 202


async def test_guards_of_services_of_others_are_not_let_go(tmp_path: Path) -> None:
    async with center(tmp_path, principals()) as site:
        await site.register(entry("ship", "web-1"))
        for path in ("/v1/services/ship/thaw", "/v1/instances/web-1/ship:0/clear", "/v1/instances/web-9/who/clear"):
            assert (await site.post(path, token=TOKENS[Role.OPERATE])).code == "forbidden", path


async def test_a_node_speaks_for_itself_only(tmp_path: Path) -> None:
    async with center(tmp_path, principals()) as site:
        token = TOKENS[Role.NODE]
        assert (await site.get("/v1/nodes/web-1/commands", token=token)).status == 200
        assert (await site.get("/v1/nodes/web-2/commands", token=token)).code == "forbidden"
        assert (await site.post("/v1/nodes/web-2/heartbeat", {"node": "web-2"}, token=token)).code == "forbidden"
        assert (await site.post("/v1/nodes/web-2/results", {"results": []}, token=token)).code == "forbidden"


async def test_a_node_keeps_its_own_entries_only_in_the_hosted_registry(tmp_path: Path) -> None:
    async with center(tmp_path, principals()) as site:
        token = TOKENS[Role.NODE]
        own, other = entry("cart", "web-1"), entry("cart", "web-2")
        disguised = {**entry("cart", "web-2").to_json(), "instance": "web-1/cart:1"}
        put = f"/v1/registry/services/cart/{own.instance}"
        assert (await site.ask("PUT", put, {"entry": own.to_json(), "ttl_seconds": 60}, token=token)).status == 200
        site.registry.register(other, 60)
        for method, path, body in (
            ("PUT", "web-2/cart:0", {"entry": other.to_json(), "ttl_seconds": 60}),
            ("PUT", "web-1/cart:1", {"entry": disguised, "ttl_seconds": 60}),
            ("PATCH", "web-2/cart:0", {"entry": other.to_json()}),
            ("DELETE", "web-2/cart:0?generation=1", None),
        ):
            answer = await site.ask(method, f"/v1/registry/services/cart/{path}", body, token=token)
            assert (answer.status, answer.code) == (403, "forbidden"), (method, path)
        leases = {"leases": [own.key.to_json(), other.key.to_json()]}
        assert (await site.post("/v1/registry/renew", leases, token=token)).code == "forbidden"
        renewed = await site.post("/v1/registry/renew", {"leases": [own.key.to_json()]}, token=token)
        assert (renewed.status, renewed.json["lost"]) == (200, [])


async def test_a_gateway_keeps_what_it_says_of_itself_in_the_hosted_registry(tmp_path: Path) -> None:
    async with center(tmp_path, principals()) as site:
        token, name = TOKENS[Role.REPORT], ROLES[Role.REPORT]

        async def put(service: str, node: str, instance: str) -> int:
            value = {**entry(service, node).to_json(), "instance": instance}
            path = f"/v1/registry/services/{service}/{instance}"
            return (await site.ask("PUT", path, {"entry": value, "ttl_seconds": 60}, token=token)).status

        assert await put("unit-gateway", name, f"{name}.edge/cart") == 200
        assert await put("unit-gateway", name, f"{name}/cart") == 200
        assert await put("unit-gateway", name, f"{name}2.edge/cart") == 403, "another gateway"
        assert await put("unit-gateway", "other", f"{name}.edge/cart") == 403, "another's name in the entry"
        assert await put("cart", name, f"{name}/cart") == 403, "an entry of a unit"

        def lease(service: str, instance: str) -> dict[str, object]:
            return {"service": service, "instance": instance, "generation": 1}

        own = {"leases": [lease("unit-gateway", f"{name}.edge/cart")]}
        assert (await site.post("/v1/registry/renew", own, token=token)).json["lost"] == []
        foreign = {"leases": [*own["leases"], lease("cart", "web-1/cart")]}
        assert (await site.post("/v1/registry/renew", foreign, token=token)).status == 403
        path = f"/v1/registry/services/unit-gateway/{name}.edge/cart?generation=1"
        assert (await site.ask("DELETE", path, None, token=token)).json["removed"] is True


async def test_a_gateway_does_not_lend_itself_the_voice_of_another(tmp_path: Path) -> None:
    async with center(tmp_path, principals()) as site:
        body = {"gateway": "gateway-2", "reports": []}
        answer = await site.post("/v1/reports", body, token=TOKENS[Role.REPORT])
        assert (answer.status, answer.code) == (403, "forbidden")
        assert (await site.post("/v1/reports", body, token=TOKENS[Role.ADMIN])).status == 202
        own = {"gateway": "gateway-1", "reports": []}
        assert (await site.post("/v1/reports", own, token=TOKENS[Role.REPORT])).status == 202


# Audit.


async def test_refused_commands_are_audited_and_tokens_are_not(tmp_path: Path) -> None:
    async with center(tmp_path, principals()) as site:
        await site.post("/v1/operations", {"verb": "start", "selection": {"services": ["x"]}}, token=TOKENS[Role.READ])
        await site.post("/v1/operations", token="a-guess")
        records = (await site.get("/v1/audit", token=TOKENS[Role.ADMIN])).json["records"]
        assert [(each["who"], each["action"], each["body"]["verdict"]) for each in records] == [
            ("nobody", "authentication", "unauthenticated"),
            ("reader", "operation", "forbidden"),
        ]
        text = json.dumps(records)
        assert "a-guess" not in text and TOKENS[Role.READ] not in text


async def test_guessing_fills_neither_the_log_nor_the_audit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with center(tmp_path, principals()) as site:
        with caplog.at_level(logging.WARNING, "unit-center.access"):
            for number in range(30):
                await site.get("/v1/center", token=f"guess-{number}")
        records = await site.store.audit_records(100)
    assert len(records) == 1
    told = [record.getMessage() for record in caplog.records if record.name.startswith("unit-center")]
    assert len(told) == 1 and "127.0.0.1" in told[0] and "guess" not in told[0]


# Web pages.


async def test_pages_of_other_origins_command_nothing(tmp_path: Path) -> None:
    async with center(tmp_path, principals()) as site:
        body = {"verb": "start", "selection": {"services": ["x"]}}
        for origin in ("https://evil.example", "null", "http://127.0.0.1:1", ""):
            answer = await site.post("/v1/operations", body, token=TOKENS[Role.ADMIN], Origin=origin)
            assert (answer.status, answer.code) == (403, "forbidden"), origin
        own = await site.post("/v1/operations", body, token=TOKENS[Role.ADMIN], Origin=site.url)
        assert own.code != "forbidden"


async def test_without_access_entries_other_names_are_not_answered(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        port = site.serving.address[1]
        for host in ("rebound.example", f"rebound.example:{port}", f"127.0.0.1.evil.example:{port}"):
            answer = await site.get("/v1/services", Host=host)
            assert (answer.status, answer.code) == (403, "forbidden"), host
        for host in ("localhost", f"LOCALHOST:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
            assert (await site.get("/v1/services", Host=host)).status == 200, host


# Without access entries the kernel says who calls.


def as_user(uid: int, method: str, url: str, body: str = "") -> tuple[int, str]:
    """The status and code of a request that another user's process makes."""
    program = (
        "import http.client, json, os, sys, urllib.parse, encodings.idna\n"
        f"os.setuid({uid})\n"
        f"url = urllib.parse.urlsplit({url!r})\n"
        "made = http.client.HTTPConnection(url.hostname, url.port, timeout=10)\n"
        f"made.request({method!r}, url.path, {body!r})\n"
        "answer = made.getresponse()\nvalue = json.loads(answer.read())\n"
        "print(json.dumps([answer.status, value.get('code') or value.get('principal', {}).get('role', '')]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=15)
    status, code = json.loads(done.stdout)
    return status, code


@as_root
async def test_on_loopback_others_may_read_and_only_root_may_command(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        assert await asyncio.to_thread(as_user, STRANGER, "GET", f"{site.url}/v1/center") == (200, "read")
        assert await asyncio.to_thread(as_user, 0, "GET", f"{site.url}/v1/center") == (200, "admin")
        for path in ("/v1/operations", "/v1/reports", "/v1/nodes/web-1/heartbeat", "/v1/registry/renew"):
            answer = await asyncio.to_thread(as_user, STRANGER, "POST", site.url + path, "{}")
            assert answer == (403, "forbidden"), path
