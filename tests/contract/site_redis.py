"""Redis, for the contract suite."""

from __future__ import annotations

import asyncio
import uuid

from registry_client.backend import Backend
from registry_client.backends.redis import RedisBackend
from tests.contract.site import Site
from tests.servers import Redis


class RedisSite(Site):
    """One server for the run, and a prefix for each test."""

    def __init__(self, server: Redis) -> None:
        super().__init__()
        self.server = server
        self._prefix = f"unitd-{uuid.uuid4().hex[:12]}"

    def new_backend(self) -> Backend:
        return RedisBackend(self.server.url, timeout_seconds=5.0, prefix=self._prefix)

    async def restart_empty(self) -> None:
        await asyncio.to_thread(self.server.lose_everything)
