"""Pytest's view of the servers: one of each kind for the whole run, started when the first test wants it.

A conftest imports what its tests take: `from tests.servers.fixtures import consul, namespace, share_server` (the fixtures that
these take have to be imported with them). A test that wants a server of its own takes `start_server`. A missing program skips
the test, and fails it where CI is "true".

The shared servers run and answer when a test gets them, whatever the test before did. Their data is not wiped: a test uses
names of its own (the fixture `namespace` has one).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol, TypeVar, cast

import pytest

from .consul import Consul
from .etcd import Etcd, EtcdCluster
from .postgres import Postgres
from .proxy import Proxy
from .redis import Redis
from .server import MissingProgram, Server
from .zookeeper import ZooKeeper

__all__ = [
    "consul",
    "etcd",
    "namespace",
    "open_proxy",
    "postgres",
    "redis_server",
    "share_server",
    "start_server",
    "zookeeper",
]

Made = TypeVar("Made", bound=Server | EtcdCluster)
SomeServer = TypeVar("SomeServer", bound=Server)


class StartServer(Protocol):
    """What the fixture `start_server` is."""

    def __call__(self, kind: Callable[..., Made], **options: Any) -> Made:
        """A started server of this kind with these options."""


class ShareServer(Protocol):
    """What the fixture `share_server` is."""

    def __call__(self, kind: Callable[..., SomeServer], **options: Any) -> SomeServer:
        """A running server of this kind with these options, the same for all who ask for it."""


def missing(error: MissingProgram) -> NoReturn:
    """Skip the test, or fail it in CI, where nothing may be missing."""
    if os.environ.get("CI") == "true":
        pytest.fail(str(error), pytrace=False)
    pytest.skip(str(error))


def made(kind: Callable[..., Made], **options: Any) -> Made:
    """A server that is not started yet; skips or fails when its program is missing."""
    try:
        return kind(**options)
    except MissingProgram as error:
        missing(error)


def shared(kind: Callable[..., SomeServer], **options: Any) -> SomeServer:
    """The server of this kind with these options that the whole run shares, whole again whatever was done to it."""
    key = kind, tuple(sorted(options.items()))
    server = _SHARED.get(key)
    if server is None:
        _SHARED[key] = server = made(kind, **options)
    server.heal()
    return cast(SomeServer, server)


# Not fixtures of the session: each conftest that imports such a fixture has one of its own, and there would be many servers.
_SHARED: dict[tuple[Callable[..., Server], tuple[tuple[str, Any], ...]], Server] = {}


@pytest.fixture(scope="session")
def share_server() -> Iterator[ShareServer]:
    """Share a server with all tests of this run that ask for the same: `share_server(Consul, acl=True)`."""
    yield shared
    while _SHARED:
        _SHARED.popitem()[1].stop()


@pytest.fixture
def consul(share_server: ShareServer) -> Consul:
    """The Consul server of this run, without ACLs."""
    return share_server(Consul)


@pytest.fixture
def etcd(share_server: ShareServer) -> Etcd:
    """The etcd server of this run, without users; the smallest ttl is 1 s."""
    return share_server(Etcd)


@pytest.fixture
def zookeeper(share_server: ShareServer) -> ZooKeeper:
    """The ZooKeeper server of this run, with ticks of 100 ms."""
    return share_server(ZooKeeper)


@pytest.fixture
def redis_server(share_server: ShareServer) -> Redis:
    """The Redis server of this run, without a password."""
    return share_server(Redis)


@pytest.fixture
def postgres(share_server: ShareServer) -> Postgres:
    """The PostgreSQL server of this run; `new_database` makes what a test writes to."""
    return share_server(Postgres)


@pytest.fixture
def namespace() -> str:
    """A word that no other test uses, for the names of services."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Start a server for this test alone: `start_server(Consul, acl=True)`."""
    started: list[Server | EtcdCluster] = []

    def start(kind: Callable[..., Made], **options: Any) -> Made:
        server = made(kind, **options)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def open_proxy() -> Iterator[Callable[[Server | int], Proxy]]:
    """Put an open proxy in front of a server or a port: `open_proxy(etcd)`."""
    opened: list[Proxy] = []

    def open_one(target: Server | int) -> Proxy:
        opened.append(Proxy(target))
        opened[-1].open()
        return opened[-1]

    yield open_one
    for proxy in opened:
        proxy.close()
