"""The ZooKeeper backend over three servers: their leader, their majority, the one that a client is connected to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager, suppress

import pytest
from kazoo.client import KazooClient  # type: ignore[import-untyped]

from registry_client import Entry
from registry_client.backend import Backend
from tests.registry_client.cluster_asking import (
    DEADLINE,
    OUTAGE_SECONDS,
    client,
    entry,
    next_with,
    refused,
    stays_held,
    updated,
)
from tests.servers import MissingProgram, ZooKeeperEnsemble, ZooKeeperMember
from tests.servers.fixtures import missing

TTL_SECONDS = 20.0  # longer than any fault here; ZooKeeper keeps the session so long
LAG_SECONDS = 0.5
pytestmark = pytest.mark.real

Opens = Callable[..., AbstractAsyncContextManager[Backend]]


@pytest.fixture(scope="module")
def shared_ensemble() -> Iterator[ZooKeeperEnsemble]:
    try:
        ensemble = ZooKeeperEnsemble()
    except MissingProgram as error:
        missing(error)
    with ensemble:
        yield ensemble


@pytest.fixture
def ensemble(shared_ensemble: ZooKeeperEnsemble) -> ZooKeeperEnsemble:
    """Three servers that run and answer, whatever the test before did."""
    shared_ensemble.heal()
    return shared_ensemble


@pytest.fixture
def lagging() -> Iterator[ZooKeeperEnsemble]:
    """Three other servers, whose followers can be made to lag."""
    try:
        ensemble = ZooKeeperEnsemble(may_lag=True)
    except MissingProgram as error:
        missing(error)
    with ensemble:
        yield ensemble


@pytest.fixture
def held(namespace: str) -> Entry:
    return entry(namespace)


@pytest.fixture
def opens(ensemble: ZooKeeperEnsemble, held: Entry) -> Opens:
    """Open a client of all servers, or of the url that is given; the root node is the test's own."""

    @asynccontextmanager
    async def opening(url: str = "", **options: float) -> AsyncIterator[Backend]:
        async with client("zookeeper", f"zookeeper://{url or ensemble.url}", prefix=held.service, **options) as backend:
            yield backend

    return opening


def path_of(item: Entry) -> str:
    """Where it lies."""
    return f"/{item.service}/{item.service}/{item.instance.replace('/', '%2F')}"


def owner(ensemble: ZooKeeperEnsemble, item: Entry) -> int:
    """The session that the entry goes with."""
    session_id = ensemble.leader().owner_of(path_of(item))
    assert session_id != 0
    return session_id


def connected(ensemble: ZooKeeperEnsemble, session_id: int) -> ZooKeeperMember:
    """The server at which the client of a session is."""
    return next(member for member in ensemble.members if member.pid is not None and member.has_session(session_id))


def calls(backend: Backend, item: Entry) -> list[Awaitable[object]]:
    """One of each."""
    return [
        backend.renew([item.key]),
        backend.get(item.service, item.instance),
        backend.list(),
        backend.update(item),
        backend.register(item, TTL_SECONDS),
        backend.deregister(item.key),
        backend.inspect(TTL_SECONDS),
    ]


async def test_the_leader_is_killed_and_nothing_is_lost(ensemble: ZooKeeperEnsemble, opens: Opens, held: Entry) -> None:
    async with opens() as backend, aclosing(backend.watch(held.service)) as watch:
        await backend.register(held, TTL_SECONDS)
        epoch = (await next_with(watch, 100)).epoch
        session_id = owner(ensemble, held)
        ensemble.leader().kill()
        await stays_held(backend, held)
        await updated(backend, entry(held.service, weight=7))
        assert (await next_with(watch, 7)).epoch == epoch
        assert await asyncio.to_thread(owner, ensemble, held) == session_id


async def test_without_a_majority_nobody_answers_and_nothing_is_lost(
    ensemble: ZooKeeperEnsemble, opens: Opens, held: Entry
) -> None:
    async with opens(timeout_seconds=0.5) as backend, aclosing(backend.watch(held.service)) as watch:
        await backend.register(held, TTL_SECONDS)
        epoch = (await next_with(watch, 100)).epoch
        session_id = owner(ensemble, held)
        following = asyncio.ensure_future(next_with(watch, 8, OUTAGE_SECONDS))
        survivor, *others = ensemble.members
        for member in others:
            member.kill()
        await refused(*calls(backend, held))
        assert survivor.pid is not None
        await asyncio.to_thread(ensemble.heal)
        await stays_held(backend, held)
        assert await backend.get(held.service, held.instance) == held
        await updated(backend, entry(held.service, weight=8))
        assert (await following).epoch == epoch
        assert await asyncio.to_thread(owner, ensemble, held) == session_id


@pytest.mark.parametrize("fault", [ZooKeeperMember.kill, ZooKeeperMember.freeze], ids=["killed", "frozen"])
async def test_another_server_is_taken_when_that_of_the_client_is_gone(
    ensemble: ZooKeeperEnsemble, opens: Opens, held: Entry, fault: Callable[[ZooKeeperMember], None]
) -> None:
    async with opens() as backend:
        await backend.register(held, TTL_SECONDS)
        session_id = owner(ensemble, held)
        first = connected(ensemble, session_id)
        fault(first)
        try:
            await stays_held(backend, held)
            leader = await asyncio.to_thread(_answering_leader, ensemble)
            assert leader is not first
            assert leader.owner_of(path_of(held)) == session_id
        finally:
            await asyncio.to_thread(ensemble.heal)


def _answering_leader(ensemble: ZooKeeperEnsemble) -> ZooKeeperMember:
    """The leader of those that are not frozen."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        for member in ensemble.members:
            with suppress(OSError):  # it is the frozen or the killed one
                if member.mode() == "leader":
                    return member
    raise AssertionError("nobody leads")


async def test_a_follower_that_lags_catches_up_before_it_answers_a_get(
    lagging: ZooKeeperEnsemble, opens: Opens, held: Entry
) -> None:
    leader, follower = lagging.leader(), lagging.followers[0]
    async with (
        opens(leader.url, timeout_seconds=5.0) as writer,
        opens(follower.url, timeout_seconds=5.0) as reader,
    ):
        await writer.register(held, TTL_SECONDS)
        assert await reader.get(held.service, held.instance) == held
        with plain_client(follower) as plain:
            before = plain.get(path_of(held))[0]
            lagging.lag(LAG_SECONDS)
            try:
                await writer.update(entry(held.service, weight=9))
                assert plain.get(path_of(held))[0] == before  # it lags indeed
                await writer.update(entry(held.service, weight=10))
                assert await reader.get(held.service, held.instance) == entry(held.service, weight=10)
                await writer.deregister(held.key)
                assert await reader.get(held.service, held.instance) is None
            finally:
                lagging.lag(0)


@contextmanager
def plain_client(member: ZooKeeperMember) -> Iterator[KazooClient]:
    """A client that reads what its server has, without asking for more."""
    plain = KazooClient(member.url)
    plain.start()
    try:
        yield plain
    finally:
        plain.stop()
        plain.close()
