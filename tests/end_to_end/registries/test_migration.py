"""Two registries at once, for a migration: a unit is stopped when it has gone from both, and not before."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from registry_client import BlockingRegistryClient, RegistryError, open_backend
from tests.end_to_end.host import SERVE, Host
from tests.end_to_end.machine import POLL_SECONDS
from tests.end_to_end.registries.site import end_at_once, url_of
from tests.servers import Etcd, Proxy, Redis, Server
from tests.servers.fixtures import ShareServer

pytestmark = pytest.mark.timeout(60)
TTL = {"etcd": 2.0, "redis": 4.0}


class Migration:
    """Units in etcd, and also in Redis with a longer ttl."""

    def __init__(self, host: Host, namespace: str, servers: dict[str, Server], proxies: dict[str, Proxy]) -> None:
        self.host, self.namespace, self.servers, self.proxies = host, namespace, servers, proxies
        self.clients = {
            kind: BlockingRegistryClient(
                open_backend(kind, url=url_of(kind, server.url), prefix=namespace, timeout_seconds=1.0)
            )
            for kind, server in servers.items()
        }

    def run(self) -> None:
        """Start the daemon; returns when both registries have both units."""
        port, name = self.host.port(2), self.namespace
        etcd, redis = (url_of(kind, proxy.url) for kind, proxy in self.proxies.items())
        self.host.configure(
            f"""
            [unit.shop]
            command = "{SERVE} {{port}}"
            numprocs = 2
            startsecs = 0
            stopwaitsecs = 2
            service = {{ name = "{name}", port = {port} }}
            """,
            registry=f'backend = "etcd", url = "{etcd}", prefix = "{name}", ttl_seconds = {TTL["etcd"]:g}, '
            f'also = {{ old = {{ backend = "redis", url = "{redis}", prefix = "{name}", '
            f"ttl_seconds = {TTL['redis']:g} }} }}",
        )
        self.host.run()
        self.until("both registries have both units", lambda: self.generations("shop:0") == [1, 1])

    def generations(self, unit: str) -> list[int]:
        """Which generation etcd and Redis list; 0: none."""
        found = [client.get(self.namespace, f"here/{unit}") for client in self.clients.values()]
        return [entry.generation if entry is not None else 0 for entry in found]

    def until(self, what: str, check: Callable[[], bool], seconds: float = 15) -> None:
        """Wait for what the registries say; one that does not answer says nothing."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if check():
                    return
            except RegistryError:
                pass
            assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s\n{self.host.said()[-3000:]}"
            time.sleep(POLL_SECONDS)


@pytest.fixture
def migration(
    host: Host, share_server: ShareServer, open_proxy: Callable[[Server | int], Proxy], namespace: str
) -> Iterator[Migration]:
    """A host, not started yet, and two registries."""
    servers: dict[str, Server] = {"etcd": share_server(Etcd), "redis": share_server(Redis)}
    made = Migration(host, namespace, servers, {kind: open_proxy(server) for kind, server in servers.items()})
    yield made
    end_at_once(host)
    for client in made.clients.values():
        client.close()


def test_a_unit_is_stopped_when_it_has_gone_from_both(migration: Migration) -> None:
    migration.run()
    pid = migration.host.unit("shop:0")["pid"]
    (operation,) = migration.host.order("restart", "shop:0")
    only_in_redis = False
    while (found := migration.generations("shop:0")) != [0, 0]:
        status = migration.host.unit("shop:0")
        assert status["pid"] == pid, f"it was stopped while the registries listed {found}"
        only_in_redis = only_in_redis or found == [0, 1]
        time.sleep(POLL_SECONDS)
    assert only_in_redis
    (ended,) = migration.host.finish([operation], 20)
    assert ended["state"] == "succeeded"
    migration.until("its successor is in both", lambda: migration.generations("shop:0") == [2, 2])


def test_one_registry_that_is_away_holds_a_restart_and_leaves_the_other_alone(migration: Migration) -> None:
    migration.run()
    before = migration.host.pids()
    migration.proxies["redis"].cut()
    (operation,) = migration.host.finish(migration.host.order("restart", "shop:0"), 40)
    assert operation["state"] == "failed"
    assert (
        operation["error"].startswith("registry old: ") or "registry old: the registry cannot say" in operation["error"]
    )
    status = migration.host.unit("shop:1")
    assert {lease["registry"]: lease["state"] for lease in status["leases"]}["main"] == "held"
    assert status["lease"]["state"] in ("suspended", "lost")
    migration.proxies["redis"].mend()
    migration.until("both are in both", lambda: all(migration.generations(f"shop:{n}") == [1, 1] for n in (0, 1)))
    assert migration.host.pids() == before


def test_a_dead_unit_goes_on_when_one_registry_is_away_for_its_whole_bound(migration: Migration) -> None:
    migration.run()
    pid = migration.host.unit("shop:0")["pid"]
    migration.proxies["redis"].cut()
    os.kill(pid, signal.SIGKILL)
    migration.until("it runs again", lambda: migration.host.unit("shop:0")["pid"] not in (None, pid), 30)
    migration.proxies["redis"].mend()
    migration.until("its successor is in both", lambda: migration.generations("shop:0") == [2, 2])
