"""What an admin interface may say, and what the feeder makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from gateway.errors import GatewayRefused, GatewayUnreachable
from gateway.feeders.envoy import EnvoyFeeder, make
from gateway.feeders.envoy_admin import LARGE_BYTES
from gateway.model import Pool, Server, Standing
from gateway.settings.envoy import EnvoySpec

from .fake_admin import FakeAdmin, serve

SERVER = Server(service="a:b", instance="n/a", generation=1, address="10.0.0.1", port=80, weight=5, full_weight=5)
DRAINING = Server(
    service="a:b", instance="n/b", generation=1, address="10.0.0.2", port=80, weight=0, full_weight=5,
    standing=Standing.DRAINING,
)  # fmt: skip
POOL = Pool("a:b", 1, "epoch", (SERVER, DRAINING))

Scenario = Callable[[EnvoyFeeder], Awaitable[None]]


def _run(folder: Path, scenario: Scenario, fake: FakeAdmin | None = None) -> FakeAdmin:
    """A feeder that asks a fake admin interface on a unix socket, whose cluster has a colon in its name."""
    admin = fake or FakeAdmin(folder / "a:b.json")

    async def main() -> None:
        async with serve(admin, folder / "admin.sock") as socket:
            feeder = make(EnvoySpec("mesh", str(folder), (socket,), apply_seconds=1.0))
            await feeder.start()
            try:
                await scenario(feeder)
            finally:
                await feeder.close()

    asyncio.run(main())
    return admin


def test_a_pool_is_applied_through_a_unix_socket(tmp_path: Path) -> None:
    """Statistics hold no colon, whatever the cluster is called; answers may be long."""

    async def scenario(feeder: EnvoyFeeder) -> None:
        assert (await feeder.apply(POOL)).serving == {SERVER.key}
        assert len((await feeder.look()).views) == 2

    fake = FakeAdmin(tmp_path / "a:b.json")
    fake.padding = "x" * LARGE_BYTES
    _run(tmp_path, scenario, fake)
    assert any("cluster%5C.a_b" in path or "cluster\\.a_b" in path for path in fake.asked)


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (200, "<html>", GatewayRefused),
        (200, "[]", GatewayRefused),
        (200, '{"cluster_statuses": [7]}', GatewayRefused),
        (200, '{"cluster_statuses": [{"name": "a:b", "host_statuses": [{"address": {"socket_address": 7}}]}]}', GatewayRefused),
        (200, "[" * 100_000, GatewayRefused),
        (404, "no such page", GatewayRefused),
        (503, "starting", GatewayUnreachable),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_of_an_admin_interface_is_told(
    tmp_path: Path, status: int, text: str, error: type[Exception]
) -> None:
    """With the place that was asked; the file is written all the same."""

    async def scenario(feeder: EnvoyFeeder) -> None:
        with pytest.raises(error, match=r"admin\.sock"):
            await feeder.apply(POOL)

    fake = FakeAdmin(tmp_path / "a:b.json")
    fake.answer = web.Response(status=status, text=text)
    _run(tmp_path, scenario, fake)
    assert fake.eds_file.exists()


def test_a_cluster_that_reads_no_file_is_for_the_operator(tmp_path: Path) -> None:
    """Its servers are those of Envoy's own configuration."""

    async def scenario(feeder: EnvoyFeeder) -> None:
        with pytest.raises(GatewayRefused, match="must be of type EDS"):
            await feeder.apply(POOL)

    fake = FakeAdmin(tmp_path / "a:b.json")
    fake.reads_files = False
    _run(tmp_path, scenario, fake)


@pytest.mark.parametrize("rules", [7, {"healthy_panic_threshold": 7}, {"update_merge_window": "soon"}])
def test_rules_that_cannot_be_understood_are_told(tmp_path: Path, rules: object) -> None:
    """It would not be known who is sent to."""

    async def scenario(feeder: EnvoyFeeder) -> None:
        with pytest.raises(GatewayRefused, match="/config_dump"):
            await feeder.apply(POOL)

    fake = FakeAdmin(tmp_path / "a:b.json")
    fake.common_lb_config = rules
    _run(tmp_path, scenario, fake)


def test_a_draining_server_that_is_still_sent_requests_is_not_drained(tmp_path: Path) -> None:
    """Whatever made Envoy do so."""

    async def scenario(feeder: EnvoyFeeder) -> None:
        with pytest.raises(GatewayUnreachable, match=r"still sends requests to 10\.0\.0\.2:80"):
            await feeder.apply(POOL)
        fake.grows = 0
        assert (await feeder.apply(POOL)).serving == {SERVER.key}

    fake = FakeAdmin(tmp_path / "a:b.json")
    fake.grows = 1
    _run(tmp_path, scenario, fake)


def test_nobody_listens_there(tmp_path: Path) -> None:
    """As after a reboot, before Envoy is started."""

    async def main() -> None:
        feeder = make(EnvoySpec("mesh", str(tmp_path), (str(tmp_path / "nobody"),)))
        await feeder.start()
        with pytest.raises(GatewayUnreachable, match="nobody"):
            await feeder.apply(POOL)
        with pytest.raises(GatewayUnreachable, match="nobody"):
            await feeder.look()
        await feeder.close()

    asyncio.run(main())
    assert (tmp_path / "a:b.json").exists()
