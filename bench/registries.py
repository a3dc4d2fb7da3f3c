"""The registries that benches measure: real servers with the settings that their makers chose, and unitd's own."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the servers are the ones that tests start

from registry_client import Backend, open_backend
from registry_client.backends.embedded import EmbeddedRegistry
from registry_client.server import RegistryApi
from supervisor.host.http import HttpServer, Response
from supervisor.wire import MAX_BODY_BYTES
from tests.servers import Consul, Etcd, Redis, Server, ZooKeeper

SERVERS: dict[str, Callable[[], Server]] = {
    "consul": Consul,
    "etcd": lambda: Etcd(heartbeat_milliseconds=100, election_milliseconds=1000),
    "zookeeper": lambda: ZooKeeper(
        tick_milliseconds=2000, minimum_session_milliseconds=4000, maximum_session_milliseconds=40000
    ),
    "redis": Redis,
}
NAMES = ("http", *SERVERS)
MIN_TTL = {"http": 0.5, "consul": 1.0, "etcd": 2.0, "zookeeper": 4.0, "redis": 0.5}


def open_registry(name: str, url: str, timeout_seconds: float = 2.0) -> Backend:
    """A client of a registry that runs."""
    return open_backend(name, url=url, timeout_seconds=timeout_seconds)


@contextmanager
def running(name: str) -> Iterator[str]:
    """The registry's url, while it runs."""
    if name == "http":
        with _own_registry() as url:
            yield url
        return
    with SERVERS[name]() as server:
        yield server.url if "://" in server.url else f"{name}://{server.url}"


@contextmanager
def _own_registry() -> Iterator[str]:
    """unitd's registry over HTTP, on a loop in a thread of its own."""
    ready: list[Any] = []
    started = threading.Event()

    async def serve() -> None:
        registry, ended = EmbeddedRegistry(), asyncio.Event()
        api = RegistryApi(registry)

        async def answer(request: Any) -> Any:
            made = await api.handle(request.method, request.path, request.query, request.body)
            return Response(made.status, made.body, made.content_type, made.headers)

        server = HttpServer(answer, max_body_bytes=MAX_BODY_BYTES, max_connections=10_000)
        await server.listen_tcp("127.0.0.1", 0)
        ready.extend((asyncio.get_running_loop(), ended, server.addresses[0]))
        started.set()
        await ended.wait()
        await server.close(1.0)
        registry.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    started.wait()
    loop, ended, address = ready
    try:
        yield f"http://{address[0]}:{address[1]}"
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
