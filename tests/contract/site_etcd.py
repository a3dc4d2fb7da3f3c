"""The contract over a real etcd."""

from __future__ import annotations

import asyncio
import uuid

from registry_client.backend import Backend
from registry_client.backends.etcd import EtcdBackend
from tests.contract.site import Site
from tests.servers import Etcd


class EtcdSite(Site):
    """Each test has a prefix of its own, so it sees nothing of the others."""

    min_ttl_seconds = 1.0  # whole seconds
    lateness_seconds = 1.0  # it looks for expired leases every half second

    def __init__(self, server: Etcd) -> None:
        super().__init__()
        self.server = server
        self.prefix = f"t{uuid.uuid4().hex[:12]}"

    def new_backend(self) -> Backend:
        return EtcdBackend(self.server.url, timeout_seconds=5.0, prefix=self.prefix)

    async def restart_empty(self) -> None:
        await asyncio.to_thread(self.server.lose_everything)
