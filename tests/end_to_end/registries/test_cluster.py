"""An etcd of three members: the leader is killed while a restart waits for the removal of an entry."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry_client import BlockingRegistryClient, Entry, RegistryError, open_backend
from tests.end_to_end.host import SERVE, Host
from tests.end_to_end.machine import POLL_SECONDS, until
from tests.end_to_end.registries.site import end_at_once
from tests.servers import EtcdCluster
from tests.servers.fixtures import StartServer

pytestmark = pytest.mark.timeout(120)
TTL = 4.0


class Cluster:
    """A host on a cluster of its own, and what its registry says."""

    def __init__(self, host: Host, cluster: EtcdCluster) -> None:
        self.host, self.cluster = host, cluster
        self.urls = ",".join(cluster.urls)
        self.client = BlockingRegistryClient(open_backend("etcd", url=self.urls, timeout_seconds=2.0))

    def run(self, removal: str) -> None:
        """Two units, registered."""
        port = self.host.port(2)
        self.host.configure(
            f"""
            [unit.shop]
            command = "{SERVE} {{port}}"
            numprocs = 2
            startsecs = 0
            service = {{ port = {port} }}
            restart = {{ removal = "{removal}" }}
            """,
            registry=f'backend = "etcd", url = "{self.urls}", ttl_seconds = {TTL:g}',
        )
        self.host.run()
        until("both are registered", lambda: len(self.client.list("shop").entries) == 2)

    def entry(self, unit: str) -> Entry | None:
        """As a majority of the members says; waits until there is one."""
        deadline = time.monotonic() + 30
        while True:
            try:
                return self.client.get("shop", f"here/{unit}")
            except RegistryError:
                assert time.monotonic() < deadline, "no majority within 30 s"
                time.sleep(POLL_SECONDS)


@pytest.fixture
def cluster(host: Host, start_server: StartServer) -> Iterator[Cluster]:
    """Three members; a test kills one of them."""
    made = Cluster(host, start_server(EtcdCluster))
    yield made
    end_at_once(host)
    made.client.close()


def _wait_for_successor(it: Cluster, generation: int) -> list[tuple[float, int]]:
    """Look at entry and unit until the next generation runs; (when, generation that is listed; 0: none)."""
    seen: list[tuple[float, int]] = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        entry = it.entry("shop:0")  # read before the status: what is gone now was gone when the unit was started
        status = it.host.unit("shop:0")
        if status["generation"] > generation:
            return seen
        seen.append((time.monotonic(), entry.generation if entry is not None else 0))
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"not started again within 60 s: {it.host.unit('shop:0')}\n{it.host.said()[-3000:]}")


def _killed_leader(it: Cluster, begin: Callable[[], object]) -> None:
    """Kill the leader while the entry's removal is waited for; no successor may run before the entry is gone."""
    before = it.host.unit("shop:0")
    generation, pid = before["generation"], before["pid"]
    begin()
    until("the removal is waited for", lambda: "waiting for the registry entry to go" in it.host.unit("shop:0")["why"])
    assert it.entry("shop:0") is not None
    it.cluster.leader().kill()
    seen = _wait_for_successor(it, generation)
    assert seen[-1][1] == 0, "it was started while its old entry was there"
    until("its successor is registered", lambda: (found := it.entry("shop:0")) and found.generation == generation + 1)
    assert not Path(f"/proc/{pid}").exists()
    other = it.host.unit("shop:1")
    assert other["restarts"] == 0 and other["lease"]["state"] == "held"


def test_a_planned_restart_waits_out_the_ttl_of_the_new_leader(cluster: Cluster) -> None:
    cluster.run("expire")
    _killed_leader(cluster, lambda: cluster.host.order("restart", "shop:0"))


def test_a_dead_unit_waits_for_its_entry_under_the_new_leader(cluster: Cluster) -> None:
    cluster.run("expire")
    pid = cluster.host.unit("shop:0")["pid"]
    _killed_leader(cluster, lambda: os.kill(pid, signal.SIGKILL))


def test_without_a_majority_a_planned_restart_is_held(cluster: Cluster) -> None:
    cluster.run("deregister")
    before = cluster.host.pids()
    leader = cluster.cluster.leader()
    follower = next(member for member in cluster.cluster.members if member is not leader)
    leader.kill()
    follower.kill()
    (operation,) = cluster.host.finish(cluster.host.order("restart", "shop:0"), 60)
    assert operation["state"] == "failed"
    assert "cannot say whether the entry is gone" in operation["error"]
    follower.start()
    until("both are registered again", lambda: cluster.entry("shop:0") and cluster.entry("shop:1"))
    assert cluster.host.pids() == before
