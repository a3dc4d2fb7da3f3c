"""Where the registries of the contract suite come from: `SITES` is the one place to add another.

A test that takes `site` is an async function; it runs with the site started, in one loop with it.
"""

from __future__ import annotations

import asyncio
import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import h11
import pytest

from registry_client.backend import Backend
from registry_client.backends.embedded import EmbeddedBackend, EmbeddedRegistry
from registry_client.backends.http import HttpBackend
from registry_client.server import MAX_BODY_BYTES, RegistryApi
from registry_client.testing import FakeBackend
from tests.contract.site import Site
from tests.contract.site_consul import ConsulSite
from tests.contract.site_etcd import EtcdSite
from tests.contract.site_redis import RedisSite
from tests.contract.site_zookeeper import ZooKeeperSite
from tests.servers.fixtures import *  # noqa: F403  # the real servers


class EmbeddedSite(Site):
    """The registry of this process; several clients share it."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = EmbeddedRegistry()

    def new_backend(self) -> Backend:
        return EmbeddedBackend(self.registry)

    async def restart_empty(self) -> None:
        self.registry.forget()

    async def stop(self) -> None:
        self.registry.close()


class FakeSite(Site):
    """What users test with must keep the contract too. All clients are the same one."""

    def __init__(self) -> None:
        super().__init__()
        self.backend = FakeBackend()

    def new_backend(self) -> Backend:
        return self.backend

    async def restart_empty(self) -> None:
        self.backend.forget()


class HttpSite(Site):
    """The registry's API on a loopback port."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = EmbeddedRegistry()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def new_backend(self) -> Backend:
        return HttpBackend(self.url, timeout_seconds=5.0)

    async def start(self) -> None:
        self._server = await self.listen()

    async def listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()
        self.registry.close()

    async def restart_empty(self) -> None:
        await self.stop()
        self.registry = EmbeddedRegistry()
        await self.start()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_serve(RegistryApi(self.registry), reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class UnixSite(HttpSite):
    """The same on a unix socket."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name) / "registry.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    async def listen(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._connected, str(self.path))

    async def stop(self) -> None:
        await super().stop()
        self.path.unlink(missing_ok=True)

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        self._folder.cleanup()


async def _serve(api: RegistryApi, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection until its client has enough."""
    state = h11.Connection(h11.SERVER)
    try:
        while state.states[h11.SERVER] is h11.IDLE:
            request = await _read_request(state, reader)
            if request is None:
                return
            await _answer(api, state, writer, *request)
            if state.our_state is state.their_state is h11.DONE:
                state.start_next_cycle()
    except OSError:
        pass
    finally:
        writer.transport.abort()


async def _read_request(state: h11.Connection, reader: asyncio.StreamReader) -> tuple[h11.Request, bytes] | None:
    request, body = None, b""
    while True:
        event = state.next_event()
        if event is h11.NEED_DATA:
            state.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
            assert len(body) <= MAX_BODY_BYTES + 65536
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            return request, body
        else:
            return None


async def _answer(
    api: RegistryApi, state: h11.Connection, writer: asyncio.StreamWriter, request: h11.Request, body: bytes
) -> None:
    target = urlsplit(request.target.decode())
    response = await api.handle(request.method.decode(), target.path, dict(parse_qsl(target.query)), body)
    headers = [
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        *response.headers,
    ]
    events = (
        h11.Response(status_code=response.status, headers=headers),
        h11.Data(data=response.body),
        h11.EndOfMessage(),
    )
    writer.write(b"".join(state.send(event) or b"" for event in events))
    await writer.drain()


SITES: dict[str, Callable[[pytest.FixtureRequest], Site]] = {
    "embedded": lambda request: EmbeddedSite(),
    "fake": lambda request: FakeSite(),
    "http": lambda request: HttpSite(),
    "http over a unix socket": lambda request: UnixSite(),
    "consul": lambda request: ConsulSite(request.getfixturevalue("consul")),
    "etcd": lambda request: EtcdSite(request.getfixturevalue("etcd")),
    "redis": lambda request: RedisSite(request.getfixturevalue("redis_server")),
    "zookeeper": lambda request: ZooKeeperSite(request.getfixturevalue("zookeeper")),
}


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest) -> Site:
    """A registry, not started yet: the test's loop starts it."""
    return SITES[request.param](request)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an async test in a loop of its own, with its site started."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(_with_site(pyfuncitem.obj, {name: pyfuncitem.funcargs[name] for name in names}))
    return True


async def _with_site(test: Callable[..., Any], arguments: dict[str, Any]) -> None:
    async with arguments["site"]:
        await test(**arguments)
