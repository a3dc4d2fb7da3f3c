"""Nodes, services and units over HTTP."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from control_center.errors import NodeRefused
from control_center.guard_memory import FROZEN, HISTORY
from control_center.model import NodeStatus, Report
from registry_client.gateways import Acknowledgement, to_metadata, token

from .site import STARTED, center, entry


async def test_services_show_their_capacity(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await site.register(
            entry("cart", "web-1", zone="a", metadata={"team": "shop"}),
            entry("cart", "web-2", zone="b", weight=40, status="warming"),
            entry("pay", "web-1"),
            entry("unitd", "web-1", "unitd"),
        )
        answer = await site.get("/v1/services")
        assert answer.json["revision"] == site.registry.revision
        cart, pay = answer.json["services"]
        assert (cart["service"], cart["instances"], cart["up"], cart["warming"]) == ("cart", 2, 1, 1)
        assert (cart["weight"], cart["full_weight"], cart["capacity_percent"]) == (140, 200, 70.0)
        assert (cart["zones"], cart["nodes"], cart["operation"], cart["frozen"]) == ({"a": 1, "b": 1}, 2, None, None)
        assert pay["service"] == "pay"


async def test_gateways_show_whom_they_send_to(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        units = [entry("cart", "web-1"), entry("cart", "web-2"), entry("cart", "web-3", status="draining", weight=0)]
        serving = frozenset((token("web-1/cart:0", 1), token("web-3/cart:0", 1)))
        said = Acknowledgement("gw-1.edge", "cart", "haproxy", 7, serving, {token("web-3/cart:0", 1): 2})
        gateway = entry("unit-gateway", "gw-1", "edge", metadata=to_metadata(said))
        await site.register(*units, replace(gateway, instance="gw-1.edge/cart"))
        assert (await site.get("/v1/gateways")).json["gateways"] == [
            {
                "gateway": "gw-1.edge", "kind": "haproxy", "service": "cart", "revision": 7, "serving": 1, "listed": 2,
                "lacks": ["web-2/cart:0"], "stale": 1, "finishing": 2,
            }
        ]  # fmt: skip
        services = (await site.get("/v1/services")).json["services"]
        assert [each["service"] for each in services] == ["cart"], "gateways are no service"


async def test_a_service_shows_its_instances_with_what_is_known_of_them(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await site.register(entry("cart", "web-1", metadata={"team": "shop"}), entry("cart", "web-2"))
        body = {"verb": "restart", "selection": {"instances": ["web-1/cart:0"]}, "strategy": None}
        begun = await site.post("/v1/operations", body)
        for gateway in ("g1", "g2"):
            report = Report(gateway, "cart", "web-2/cart:0", 1, "connect_refused", 3, STARTED)
            await site.store.put_report(report, time.time())
        answer = await site.get("/v1/services/cart")
        first, second = answer.json["entries"]
        assert (first["instance"], first["operation"], first["reports"]) == ("web-1/cart:0", begun.json["id"], 0)
        assert first["metadata"] == {"team": "shop"} and first["schema"] == 1
        assert (second["operation"], second["reports"]) == (None, 2)
        assert answer.json["operation"] == begun.json["id"]


async def test_a_frozen_service_says_why_and_is_thawed(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await site.register(entry("cart", "web-1"))
        await site.store.put_fact(FROZEN + "cart", {"reason": "3 of 4 look dead"}, epoch=None)
        (service,) = (await site.get("/v1/services")).json["services"]
        assert service["frozen"] == "3 of 4 look dead"
        answer = await site.post("/v1/services/cart/thaw", {"reason": "the network is back"})
        assert (answer.status, answer.json) == (200, {"service": "cart", "cleared": True})
        (event,) = await site.store.events(0)
        assert event.body == {"service": "cart", "cleared_by": "root", "reason": "the network is back"}


async def test_an_instance_that_was_given_up_is_let_go(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await site.register(entry("cart", "web-1"))
        await site.store.put_fact(HISTORY + "web-1/cart:0", {"restarts": []}, epoch=None)
        answer = await site.post("/v1/instances/web-1/cart:0/clear", {"reason": "repaired"})
        assert (answer.status, answer.json) == (200, {"instance": "web-1/cart:0", "cleared": True})


async def test_names_that_nothing_bears_get_the_nearest(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await site.register(entry("cart", "web-1"))
        site.heartbeats.nodes = [NodeStatus("web-1", "10.0.0.1", 9301, "http", "push")]
        for path, near in (
            ("/v1/services/crat", "cart"),
            ("/v1/nodes/web1", "web-1"),
            ("/v1/nodes/wb-1/units", "web-1"),
        ):
            answer = await site.get(path)
            assert (answer.status, answer.code, answer.json["nearest"]) == (404, "not_found", near)


async def test_nodes_show_their_state_and_instances(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await site.register(entry("cart", "web-1"), entry("cart", "web-2"))
        node = NodeStatus("web-1", "10.0.0.1", 9301, "https", "push", "suspect", 8.5, services=("cart",))
        site.heartbeats.nodes = [node]
        (shown,) = (await site.get("/v1/nodes")).json["nodes"]
        assert (shown["node"], shown["state"], shown["phi"], shown["services"]) == ("web-1", "suspect", 8.5, ["cart"])
        answer = await site.get("/v1/nodes/web-1")
        assert [each["instance"] for each in answer.json["instances"]] == ["web-1/cart:0"]
        metrics = (await site.get("/metrics")).body.decode()
        assert 'unit_center_nodes{state="suspect"} 1.0' in metrics
        assert 'unit_center_node_phi{node="web-1"} 8.5' in metrics
        site.heartbeats.nodes = []
        assert "web-1" not in (await site.get("/metrics")).body.decode()


async def test_a_nodes_units_are_asked_for_now(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        site.heartbeats.nodes = [NodeStatus("web-1", "10.0.0.1", 9301, "http", "push")]
        answer = await site.get("/v1/nodes/web-1/units")
        assert (answer.status, answer.code, answer.json["node"]) == (502, "node_unreachable", "web-1")
        site.nodes.answers["web-1", "/v1/units"] = {"units": [{"unit": "cart:0"}]}
        assert (await site.get("/v1/nodes/web-1/units")).json == {"units": [{"unit": "cart:0"}]}
        site.nodes.answers["web-1", "/v1/units"] = NodeRefused("web-1", 401, "unauthenticated", "no such token")
        answer = await site.get("/v1/nodes/web-1/units")
        assert (answer.status, answer.code) == (502, "node_refused")  # ours to mend, not the caller's


async def test_of_a_node_that_fetches_commands_its_last_word_is_shown(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        site.heartbeats.nodes = [NodeStatus("nat-1", "10.0.0.1", 1, "http", "pull")]
        assert (await site.get("/v1/nodes/nat-1/units")).code == "node_unreachable"
        beat = {"node": "nat-1", "units": 1, "statuses": [{"unit": "cart:0", "state": "RUNNING"}]}
        assert (await site.post("/v1/nodes/nat-1/heartbeat", beat)).json == {"heartbeat_seconds": 3.0}
        answer = await site.get("/v1/nodes/nat-1/units")
        assert answer.json["units"] == [{"unit": "cart:0", "state": "RUNNING"}]
        assert answer.json["as_of"].endswith("Z")


async def test_the_hosted_registry_is_served(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        wanted = entry("cart", "web-1")
        path = "/v1/registry/services/cart/web-1/cart:0"
        put = await site.ask("PUT", path, {"entry": wanted.to_json(), "ttl_seconds": 60})
        assert (put.status, put.json["ttl_seconds"]) == (200, 60)
        assert (await site.get(path)).json == wanted.to_json()
        listed = await site.get("/v1/registry/services/cart")
        assert [each["instance"] for each in listed.json["entries"]] == ["web-1/cart:0"]
        stale = await site.ask("DELETE", f"{path}?generation=0")
        assert (stale.status, stale.code) == (409, "stale_generation")
        assert (await site.ask("DELETE", f"{path}?generation=1")).json["removed"] is True
        assert (await site.get(path)).code == "no_such_entry"


async def test_who_watches_the_hosted_registry_is_answered_when_it_changes(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        await site.register(entry("cart", "web-1"))
        now = (await site.get("/v1/registry/services/cart")).json
        path = f"/v1/registry/services/cart?since={now['revision']}&epoch={now['epoch']}&wait=30"
        waiting = asyncio.create_task(site.get(path))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await site.register(entry("cart", "web-2"))
        assert len((await asyncio.wait_for(waiting, 10)).json["entries"]) == 2


async def test_a_registry_elsewhere_is_not_served_here(tmp_path: Path) -> None:
    async with center(tmp_path, hosts_registry=False) as site:
        for method, path in (
            ("GET", "services"),
            ("GET", "services/cart/a"),
            ("POST", "renew"),
            ("PUT", "services/a/b"),
        ):
            answer = await site.ask(method, f"/v1/registry/{path}")
            assert (answer.status, answer.code) == (404, "not_found")
            assert "not hosted here" in answer.json["detail"]
