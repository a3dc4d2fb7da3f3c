"""The contract over a real Consul agent, which is a server of one node, too."""

from __future__ import annotations

import asyncio
import time
import uuid

from registry_client.backend import Backend
from registry_client.backends.consul import ConsulBackend
from tests.contract.site import Site
from tests.servers import Consul

_settled: set[int] = set()  # pids of agents


def settle(server: Consul) -> None:
    """Wait until the agent repeats changes to the servers at once: just started, it takes its time."""
    if server.pid in _settled:
        return
    deadline = time.monotonic() + 15
    while seconds_until_known(server) > 0.2:
        assert time.monotonic() < deadline, "the agent does not tell the servers of its checks"
    assert server.pid is not None
    _settled.add(server.pid)


def seconds_until_known(server: Consul) -> float:
    """How long it takes until the servers know that a check has expired."""
    check = {"Name": "settled", "CheckID": "settled", "TTL": "10ms", "Status": "passing"}
    assert server.ask("PUT", "/v1/agent/service/register", {"Name": "settled", "Check": check})[0] == 200
    began = time.monotonic()
    while server.ask("GET", "/v1/health/checks/settled")[1][0]["Status"] != "critical":
        assert time.monotonic() - began < 15
        time.sleep(0.01)
    passed = time.monotonic() - began
    server.ask("PUT", "/v1/agent/service/deregister/settled")
    return passed


class ConsulSite(Site):
    """Each test has a prefix of its own, so it sees nothing of the others."""

    lateness_seconds = 1.0

    def __init__(self, server: Consul) -> None:
        super().__init__()
        self.server = server
        self.prefix = f"t{uuid.uuid4().hex[:12]}"

    def new_backend(self) -> Backend:
        return ConsulBackend(self.server.url, timeout_seconds=5.0, prefix=self.prefix)

    async def start(self) -> None:
        await asyncio.to_thread(settle, self.server)

    async def restart_empty(self) -> None:
        await asyncio.to_thread(self.server.lose_everything)
