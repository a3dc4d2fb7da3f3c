"""unit-gateway as a whole, around a gateway of the test's."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from gateway.agent import Agent
from gateway.config import FedGateway, GatewayConfig
from gateway.errors import GatewayUnreachable
from gateway.memory import FILE, encode
from gateway.model import Failure, Symptom
from registry_client.gateways import GATEWAY_SERVICE
from registry_client.model import Entry
from supervisor.core.model import RegistrySpec
from supervisor.errors import ConfigError
from tests.end_to_end.machine import DEADLINE_SECONDS, free_ports
from tests.end_to_end.machine import until as wait_until
from tests.gateway.fakes import FakeFeeder, pool, server, until
from tests.registry_client.serving import ServedRegistry, make_entry


@pytest.fixture
def registry() -> Iterator[ServedRegistry]:
    with ServedRegistry() as served:
        yield served


def config(registry: str, state_dir: Path | None, **changes: Any) -> GatewayConfig:
    values: dict[str, Any] = {
        "name": "gw-1",
        "registry": RegistrySpec(backend="http", url=registry, timeout_seconds=0.5),
        "feeders": (FedGateway("fake", FakeFeeder("edge")),),  # type: ignore[arg-type]
        "state_dir": None if state_dir is None else str(state_dir),
        "listen": ("127.0.0.1", free_ports(1)),
        "ttl_seconds": 1.0,
    }
    return GatewayConfig(**values | changes)


def ask(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def run(config: GatewayConfig, edge: FakeFeeder, scene: Callable[[Callable[[str], Any]], Any]) -> None:
    """The whole agent around one gateway of the test's, until the scene is over; then it is told to stop as usual."""

    async def bounded() -> None:
        assert config.listen is not None
        port = config.listen[1]
        agent = asyncio.create_task(Agent("/no/file", config, lambda gateway: edge).serve())

        async def look(path: str) -> tuple[int, str]:
            return await asyncio.to_thread(ask, port, path)

        try:
            async with asyncio.timeout(15):
                await scene(look)
        finally:
            if not agent.done():
                os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(10):
                await agent

    asyncio.run(bounded())


async def shows(look: Any, path: str, words: str) -> None:
    """Until the API says so."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while words not in (await look(path))[1]:
            await asyncio.sleep(0.01)


def test_a_gateway_gets_what_the_registry_has_and_says_so_there(registry: ServedRegistry, tmp_path: Path) -> None:
    registry.register(make_entry("n/1", "cart", port=9001, weight=40))
    edge = FakeFeeder()
    ours = make_entry("gw-1.edge/cart", GATEWAY_SERVICE)

    async def scene(look: Any) -> None:
        await until("it has it", lambda: "cart" in edge.has)
        assert [(each.instance, each.port, each.weight) for each in edge.has["cart"].servers] == [("n/1", 9001, 40)]
        entry: Entry | None = await until("it is said", lambda: registry.get(ours))
        assert entry is not None and (entry.node, entry.unit) == ("gw-1", "edge")
        assert await look("/readyz") == (200, "ok\n")
        shown = json.loads((await look("/v1/pools"))[1])
        assert shown["registry"]["state"] == "ok" and shown["feeders"][0]["behind"] == 0
        assert [each["instance"] for each in shown["pools"][0]["servers"]] == ["n/1"]
        assert 'unit_gateway_servers{service="cart",standing="serving"} 1.0' in (await look("/metrics"))[1]
        await asyncio.to_thread(registry.register, make_entry("n/1", "cart", port=9001, status="draining"))
        await until("it drains", lambda: not edge.has["cart"].serving)

    run(config(registry.url, tmp_path), edge, scene)
    assert edge.closed and registry.get(ours) is not None, "it goes on sending: unit-gateway may be back in a moment"
    wait_until("nobody waits for it any longer than for a dead one", lambda: registry.get(ours) is None)
    assert (tmp_path / FILE).exists()


def test_without_a_registry_the_last_good_set_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(encode([pool(7, server("n/1"))]))
    edge = FakeFeeder()

    async def scene(look: Any) -> None:
        await until("it has it", lambda: "cart" in edge.has)
        assert edge.has["cart"].servers[0].instance == "n/1"
        assert await look("/readyz") == (200, "ok\n")
        assert json.loads((await look("/v1/pools"))[1])["registry"]["state"] == "unknown"

    run(config(f"http://127.0.0.1:{free_ports(1)}", tmp_path), edge, scene)


def test_without_a_registry_and_a_last_good_set_nothing_is_told(tmp_path: Path) -> None:
    edge, port = FakeFeeder(), free_ports(1)

    async def scene(look: Any) -> None:
        await until("it is looked at", lambda: edge.looks > 3)
        status, why = await look("/readyz")
        assert status == 503 and why.startswith("the registry has not answered yet, and nothing is known from before")
        assert (await look("/healthz"))[0] == 200
        assert edge.told == []

    run(config(f"http://127.0.0.1:{port}", tmp_path), edge, scene)
    assert edge.told == [] and not (tmp_path / FILE).exists()


def test_a_restart_while_the_registry_is_away_changes_nothing(registry: ServedRegistry, tmp_path: Path) -> None:
    for number in (1, 2):
        registry.register(make_entry(f"n/{number}", "cart", port=9000 + number))
    first, second = FakeFeeder(), FakeFeeder()

    async def before(look: Any) -> None:
        await until("it has it", lambda: "cart" in first.has)

    async def after(look: Any) -> None:
        await until("it has it", lambda: "cart" in second.has)
        assert second.has["cart"].servers == first.has["cart"].servers
        await asyncio.to_thread(registry.listen)
        await shows(look, "/v1/pools", '"state":"ok"')
        assert second.has["cart"].servers == first.has["cart"].servers

    run(config(registry.url, tmp_path), first, before)
    registry.deafen()
    run(config(registry.url, tmp_path), second, after)


def test_readiness_names_the_gateway_that_is_behind(registry: ServedRegistry) -> None:
    registry.register(make_entry("n/1", "cart"))
    edge = FakeFeeder()
    edge.always = GatewayUnreachable("cannot reach it: told so")

    async def scene(look: Any) -> None:
        await until("it was tried", lambda: edge.told)
        status, why = await look("/readyz")
        assert (status, why) == (503, "not everything has been taken over: edge (cannot reach it: told so)\n")
        edge.always = None
        await until("it has it", lambda: edge.has)
        await shows(look, "/readyz", "ok\n")

    run(config(registry.url, None), edge, scene)


def test_what_a_gateway_sees_of_a_dead_server_is_reported(registry: ServedRegistry) -> None:
    registry.register(make_entry("n/1", "cart"))
    edge = FakeFeeder()

    async def scene(look: Any) -> None:
        await until("it has it", lambda: edge.has)
        edge.findings.append(Failure("cart", "n/1", 1, Symptom.CONNECT_REFUSED, down=True, detail="told so"))
        await shows(look, "/v1/reports", '"symptom":"connect_refused"')
        (report,) = json.loads((await look("/v1/reports"))[1])["reports"]
        assert (report["instance"], report["generation"], report["state"]) == ("n/1", 1, "dead")
        assert (
            'unit_gateway_failures_total{gateway="edge",symptom="connect_refused"} 1.0' in (await look("/metrics"))[1]
        )

    run(config(registry.url, None), edge, scene)


def test_a_signal_while_a_gateway_is_being_told_lets_that_end(registry: ServedRegistry) -> None:
    registry.register(make_entry("n/1", "cart"))
    edge = FakeFeeder()
    gate = edge.gates["cart"] = asyncio.Event()

    async def scene(look: Any) -> None:
        await until("it is being told", lambda: edge.told)
        asyncio.get_running_loop().call_later(0.3, gate.set)

    run(config(registry.url, None), edge, scene)
    assert edge.has["cart"].revision and edge.closed and edge.at_once == 0


def test_a_port_of_its_own_that_is_taken_is_named(registry: ServedRegistry, tmp_path: Path) -> None:
    edge = FakeFeeder()
    made = config(registry.url, tmp_path, listen=("127.0.0.1", registry.port))
    with pytest.raises(ConfigError, match=rf"http\.listen: cannot listen on 127\.0\.0\.1:{registry.port}: Address"):
        asyncio.run(Agent("/no/file", made, lambda gateway: edge).serve())
    assert edge.closed, "what was begun is ended"
