"""unit-gateway's own API: what it shows, what it refuses, and that its page tells the truth."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from gateway import api
from gateway.api import ApiParts
from gateway.fed import FeederState
from gateway.following import RegistryState
from gateway.metrics import Metrics
from gateway.model import Failure, Health, Pool, ServerView, Standing, Symptom
from supervisor.installation import version
from tests.end_to_end.machine import free_ports
from tests.gateway.fakes import FakeFeeder, pool, server

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "gateway-http-api.md").read_text()
REPORT = {"service": "cart", "instance": "n/1", "generation": 1, "symptom": "connect_refused", "state": "dead"}


class Site:
    """The API with known answers behind it."""

    def __init__(self) -> None:
        self.port = free_ports(1)
        self.pools: dict[str, Pool] = {
            "cart": pool(7, server("n/1", zone="a"), server("n/2", standing=Standing.DRAINING, held="it is silent")),
            "stock": pool(3, service="stock"),
        }
        seen = ServerView("cart", "n/1", 1, Health.UP, 4, 40, 1000, "L7OK")
        left = ServerView("cart", "n/0", 5, Health.DOWN, 1)
        self.views = {"cart": {"edge": {("n/1", 1): seen, ("n/0", 5): left}}}
        self.unready = ""
        self.failure: Exception | None = None
        self.counted = Metrics([FakeFeeder()])

    def _reports(self) -> list[dict[str, Any]]:
        if self.failure is not None:
            raise self.failure
        return [REPORT]

    def parts(self) -> ApiParts:
        return ApiParts(
            name="gw-1",
            pools=lambda: self.pools,
            views=lambda service: self.views.get(service, {}),
            registry=lambda: RegistryState("http", "ok", 0.5, 7, "e"),
            feeders=lambda: [FeederState("edge", "haproxy", True, "", 2, 0)],
            unsaid=lambda: "it is away",
            reports=self._reports,
            unreported=lambda: "401",
            metrics=lambda: self.counted.render(
                pools=self.pools.values(), gateways=[("edge", "haproxy", True, 0)], registry_age=0.5
            ),
            content_type=self.counted.content_type,
            unready=lambda: self.unready,
        )


Ask = Callable[..., Awaitable[tuple[int, dict[str, str], str]]]


def with_api(site: Site, scene: Callable[[Ask], Awaitable[None]]) -> None:
    """Ask the real API over a real connection."""

    async def run() -> None:
        serving = await api.serve(site.parts(), ("127.0.0.1", site.port))
        try:
            async with ClientSession(f"http://127.0.0.1:{site.port}") as session:

                async def ask(path: str, method: str = "GET") -> tuple[int, dict[str, str], str]:
                    async with session.request(method, path) as response:
                        return response.status, dict(response.headers), await response.text()

                await scene(ask)
        finally:
            await serving.close()

    asyncio.run(run())


def test_pools_are_shown_with_what_each_gateway_sees() -> None:
    async def scene(ask: Ask) -> None:
        status, headers, body = await ask("/v1/pools")
        assert (
            status == 200 and headers["Content-Type"] == "application/json" and headers["Cache-Control"] == "no-store"
        )
        shown = json.loads(body)
        assert (shown["gateway"], shown["unsaid"]) == ("gw-1", "it is away")
        assert shown["registry"] == {
            "backend": "http", "state": "ok", "seconds_ago": 0.5, "revision": 7, "epoch": "e", "detail": "",
        }  # fmt: skip
        assert shown["feeders"] == [
            {"name": "edge", "kind": "haproxy", "reachable": True, "error": "", "services": 2, "behind": 0}
        ]
        cart, stock = shown["pools"]
        assert (stock["service"], stock["servers"], stock["left"]) == ("stock", [], [])
        assert (cart["service"], cart["revision"], cart["epoch"]) == ("cart", 7, "e")
        seen = {"health": "up", "in_flight": 4, "weight": 40, "total": 1000, "detail": "L7OK"}
        first, second = cart["servers"]
        assert first == {
            "instance": "n/1", "generation": 1, "address": "127.0.0.1", "port": 1, "weight": 100, "full_weight": 100,
            "standing": "serving", "zone": "a", "held": "", "gateways": {"edge": seen},
        }  # fmt: skip
        assert (second["standing"], second["held"], second["gateways"]) == ("draining", "it is silent", {})
        (left,) = cart["left"]
        assert (left["gateway"], left["instance"], left["generation"], left["in_flight"]) == ("edge", "n/0", 5, 1)

    with_api(Site(), scene)


def test_one_pool_can_be_asked_for_and_a_misspelt_one_is_guessed() -> None:
    async def scene(ask: Ask) -> None:
        status, _, body = await ask("/v1/pools/stock")
        assert status == 200 and json.loads(body)["service"] == "stock"
        status, headers, body = await ask("/v1/pools/cartt")
        assert (status, headers["Content-Type"]) == (404, "application/problem+json")
        problem = json.loads(body)
        assert problem["code"] == "not_found" and problem["detail"] == "there is no service cartt; did you mean cart?"

    with_api(Site(), scene)


def test_readiness_says_what_is_missing() -> None:
    site = Site()

    async def scene(ask: Ask) -> None:
        assert (await ask("/readyz"))[::2] == (200, "ok\n")
        site.unready = "the registry has not answered yet"
        assert (await ask("/readyz"))[::2] == (503, "the registry has not answered yet\n")
        assert (await ask("/healthz"))[::2] == (200, "ok\n"), "it lives all the same"

    with_api(site, scene)


def test_reports_are_shown() -> None:
    async def scene(ask: Ask) -> None:
        assert json.loads((await ask("/v1/reports"))[2]) == {"reports": [REPORT], "unreported": "401"}

    with_api(Site(), scene)


def test_what_is_not_there_or_not_allowed_is_a_problem() -> None:
    async def scene(ask: Ask) -> None:
        status, _, body = await ask("/v1/nothing")
        assert (status, json.loads(body)["code"]) == (404, "not_found")
        for method in ("POST", "PUT", "DELETE"):
            status, headers, body = await ask("/v1/pools", method)
            assert (status, json.loads(body)["code"], headers["Allow"]) == (405, "method_not_allowed", "GET, HEAD")
        assert (await ask("/v1/pools", "HEAD"))[::2] == (200, "")

    with_api(Site(), scene)


def test_a_failure_of_ours_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    site.failure = ZeroDivisionError("secret")

    async def scene(ask: Ask) -> None:
        status, _, body = await ask("/v1/reports")
        assert (status, json.loads(body)["code"]) == (500, "internal_error") and "secret" not in body

    with_api(site, scene)
    assert "cannot answer GET /v1/reports" in caplog.text and "ZeroDivisionError" in caplog.text


def test_a_port_that_is_taken_is_an_error() -> None:
    site = Site()

    async def scene(ask: Ask) -> None:
        with pytest.raises(OSError, match=r"(?i)address already in use"):
            await api.serve(site.parts(), ("127.0.0.1", site.port))

    with_api(site, scene)


# Metrics.


def test_metrics_show_pools_gateways_and_what_was_counted() -> None:
    site = Site()
    site.counted.applied("edge", "applied", 0.2)
    site.counted.applied("edge", "refused", 0.1)
    site.counted.finding("edge", Failure("cart", "n/1", 1, Symptom.CONNECT_TIMEOUT, count=3))

    async def scene(ask: Ask) -> None:
        status, headers, body = await ask("/metrics")
        assert status == 200 and headers["Content-Type"].startswith("text/plain")
        lines = body.splitlines()
        for line in (
            'unit_gateway_servers{service="cart",standing="serving"} 1.0',
            'unit_gateway_servers{service="cart",standing="draining"} 1.0',
            'unit_gateway_servers{service="stock",standing="serving"} 0.0',
            'unit_gateway_held_servers{service="cart"} 1.0',
            'unit_gateway_reachable{gateway="edge",kind="haproxy"} 1.0',
            'unit_gateway_services_behind{gateway="edge"} 0.0',
            'unit_gateway_applies_total{gateway="edge",outcome="applied"} 1.0',
            'unit_gateway_applies_total{gateway="edge",outcome="refused"} 1.0',
            'unit_gateway_apply_seconds_count{gateway="edge"} 1.0',
            'unit_gateway_failures_total{gateway="edge",symptom="connect_timeout"} 3.0',
            "unit_gateway_registry_age_seconds 0.5",
            f'unit_gateway_build_info{{version="{version()}"}} 1.0',
        ):
            assert line in lines, line
        del site.pools["cart"]
        assert 'service="cart"' not in (await ask("/metrics"))[2], "what has gone is not shown for ever"

    with_api(site, scene)


def test_what_a_gateway_counts_itself_is_shown_with_its_name() -> None:
    class Counting(FakeFeeder):
        def counts(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
            return {
                ("proxy_requests_total", (("service", "cart"), ("code", "200"))): 5,
                ("proxy_requests_total", (("service", "cart"), ("code", "503"))): 1,
                ("proxy_connections", ()): 2,
            }

    text = Metrics([Counting("shop"), FakeFeeder("edge")]).render(pools=[], gateways=[], registry_age=None).decode()
    assert 'unit_gateway_proxy_requests_total{code="200",gateway="shop",service="cart"} 5.0' in text
    assert 'unit_gateway_proxy_requests_total{code="503",gateway="shop",service="cart"} 1.0' in text
    assert 'unit_gateway_proxy_connections{gateway="shop"} 2.0' in text
    assert "unit_gateway_registry_age_seconds NaN" in text


# The reference page.


def test_the_reference_names_every_path_and_no_other() -> None:
    app = api.make_app(Site().parts())
    paths = {route.resource.canonical for route in app.router.routes() if route.resource is not None}
    assert set(re.findall(r"^\| `GET (\S+)` \|", PAGE, re.M)) == paths


def test_the_reference_names_every_metric_with_type_and_labels() -> None:
    found = {}
    for metric in Metrics().registry._collector_to_names:
        for family in metric.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = family.type, tuple(getattr(metric, "_labelnames", ()))
    rows = re.findall(r"^\| `(unit_gateway_\w+)` \| (\w+) \| (.*?) \|", PAGE, re.M)
    documented = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    own = {name: each for name, each in documented.items() if not name.startswith("unit_gateway_proxy_")}
    assert own == found


def test_the_reference_shows_every_member_of_a_pool() -> None:
    shown = api._Answers(Site().parts())._shown(Site().pools["cart"])
    members = {*shown, *shown["servers"][0], *shown["servers"][0]["gateways"]["edge"], *shown["left"][0]}
    assert {name for name in members if f'"{name}"' not in PAGE} == set()
