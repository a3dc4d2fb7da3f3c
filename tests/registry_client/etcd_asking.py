"""What the tests of the etcd backend share: a client that is closed, and questions to the server behind its back."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from registry_client import Entry, RegistryError, RegistryUnavailable, Snapshot
from registry_client.backends.etcd import EtcdBackend
from tests.servers import Etcd, Proxy

DEADLINE = 10.0
OpenProxy = Callable[[Etcd | int], Proxy]


def entry(instance: str = "web-7/cart:0", **changes: Any) -> Entry:
    values: dict[str, Any] = {
        "service": "cart",
        "instance": instance,
        "node": "web-7",
        "unit": "cart:0",
        "address": "192.168.1.2",
        "port": 9080,
        "generation": 42,
        "started_at": "2026-11-23T06:29:10.123Z",
        "metadata": {"team": "ä/b"},
    }
    return Entry(**{**values, **changes})


@asynccontextmanager
async def client(server: Etcd | Proxy | str, prefix: str = "unitd", **options: Any) -> AsyncIterator[EtcdBackend]:
    """A client, closed at the end."""
    url = server if isinstance(server, str) else server.url
    backend = EtcdBackend(url, **{"timeout_seconds": 5.0, "prefix": prefix, **options})
    try:
        yield backend
    finally:
        await backend.close()


class Behind:
    """The server as etcdctl sees it: what lies at a key, and which leases there are."""

    def __init__(self, server: Etcd, prefix: str) -> None:
        self._server, self._prefix = server, prefix

    def call(self, path: str, body: dict[str, Any]) -> Any:
        status, answer = self._server.ask("POST", path, body)
        assert status == 200, answer
        return answer

    def key(self, instance: str, service: str = "cart") -> str:
        return b64encode(f"/{self._prefix}/entries/{service}/{instance}".encode()).decode()

    def pair(self, instance: str = "web-7/cart:0") -> dict[str, str]:
        return dict(self.call("/v3/kv/range", {"key": self.key(instance)})["kvs"][0])

    def put(self, instance: str, value: bytes, **more: Any) -> None:
        self.call("/v3/kv/put", {"key": self.key(instance), "value": b64encode(value).decode(), **more})

    def delete(self, instance: str) -> None:
        self.call("/v3/kv/deleterange", {"key": self.key(instance)})

    def leases(self) -> set[str]:
        return {lease["ID"] for lease in self.call("/v3/lease/leases", {}).get("leases", [])}

    def revision(self) -> int:
        return int(self.call("/v3/kv/range", {"key": self.key("-")})["header"]["revision"])


async def eventually(wanted: Callable[[], Any]) -> None:
    """Return when that is so, or when an awaitable of it is."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            value = wanted()
            if await value if asyncio.iscoroutine(value) else value:
                return
        except RegistryUnavailable:
            pass
        assert time.monotonic() < deadline, "it has not happened in time"
        await asyncio.sleep(0.02)


async def next_of(watch: AsyncGenerator[Snapshot, None]) -> Snapshot:
    async with asyncio.timeout(DEADLINE):
        return await anext(watch)


def weights(snapshot: Snapshot) -> dict[str, int]:
    return {item.instance: item.weight for item in snapshot.entries}


async def updated(backend: EtcdBackend, weight: int) -> bool:
    try:
        await backend.update(entry(weight=weight))
    except RegistryError:
        return False
    return True
