"""ZooKeeper, for the contract suite."""

from __future__ import annotations

import asyncio
import uuid

from registry_client.backend import Backend
from registry_client.backends.zookeeper import ZooKeeperBackend
from tests.contract.site import Site
from tests.servers import ZooKeeper


class ZooKeeperSite(Site):
    """One server for the run, and a root node for each test."""

    def __init__(self, server: ZooKeeper) -> None:
        super().__init__()
        self.server = server
        self._prefix = f"unitd-{uuid.uuid4().hex[:12]}"

    def new_backend(self) -> Backend:
        return ZooKeeperBackend(f"zookeeper://{self.server.url}", timeout_seconds=5.0, prefix=self._prefix)

    async def restart_empty(self) -> None:
        await asyncio.to_thread(self.server.lose_everything)
