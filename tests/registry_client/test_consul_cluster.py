"""The Consul backend at a client agent of three servers: their leader, their majority, their data, the way to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress

import pytest

from registry_client import Entry, RegistryUnavailable
from registry_client.backend import Backend
from tests.registry_client.cluster_asking import (
    OUTAGE_SECONDS,
    client,
    entry,
    eventually,
    next_with,
    refused,
    stays_held,
    updated,
)
from tests.servers import ConsulCluster, MissingProgram
from tests.servers.fixtures import missing

TTL_SECONDS = 20.0  # longer than any fault here
pytestmark = pytest.mark.real

Opens = Callable[..., AbstractAsyncContextManager[Backend]]


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[ConsulCluster]:
    try:
        cluster = ConsulCluster()
    except MissingProgram as error:
        missing(error)
    with cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: ConsulCluster) -> ConsulCluster:
    """Three servers and an agent that run and answer, whatever the test before did."""
    shared_cluster.heal()
    return shared_cluster


@pytest.fixture
def held(namespace: str) -> Entry:
    return entry(namespace)


@pytest.fixture
def opens(cluster: ConsulCluster, held: Entry) -> Opens:
    """Open a client of the agent, or of the url that is given; the prefix is the test's own."""

    @asynccontextmanager
    async def opening(url: str = "") -> AsyncIterator[Backend]:
        async with client("consul", url or cluster.agent.url, prefix=held.service, watch_wait_seconds=2.0) as backend:
            yield backend

    return opening


def questions(backend: Backend, item: Entry) -> list[Awaitable[object]]:
    """The calls that need the servers: all but a renewal, which the agent answers alone."""
    return [
        backend.get(item.service, item.instance),
        backend.list(),
        backend.update(item),
        backend.register(item, TTL_SECONDS),
        backend.deregister(item.key),
    ]


async def test_the_leader_is_killed_and_nothing_is_lost(cluster: ConsulCluster, opens: Opens, held: Entry) -> None:
    async with opens() as backend, aclosing(backend.watch(held.service)) as watch:
        await backend.register(held, TTL_SECONDS)
        epoch = (await next_with(watch, 100)).epoch
        cluster.leader().kill()
        await stays_held(backend, held)
        await updated(backend, entry(held.service, weight=7))
        assert (await next_with(watch, 7)).epoch == epoch


async def test_without_a_majority_only_the_agent_answers_and_nothing_is_lost(
    cluster: ConsulCluster, opens: Opens, held: Entry
) -> None:
    async with opens() as backend, aclosing(backend.watch(held.service)) as watch:
        await backend.register(held, TTL_SECONDS)
        epoch = (await next_with(watch, 100)).epoch
        following = asyncio.ensure_future(next_with(watch, 8, OUTAGE_SECONDS))
        survivor, *others = cluster.members
        for member in others:
            member.kill()
        async with opens(survivor.url) as at_server:
            await refused(*questions(backend, held), at_server.get(held.service, held.instance), at_server.list())
        assert await backend.renew([held.key]) == frozenset()
        await asyncio.to_thread(cluster.heal)
        await stays_held(backend, held)
        assert await backend.get(held.service, held.instance) == held
        await updated(backend, entry(held.service, weight=8))
        assert (await following).epoch == epoch


async def test_an_agent_cut_off_from_its_servers_calls_only_lost_what_is_over(
    cluster: ConsulCluster, opens: Opens, held: Entry
) -> None:
    short = entry(held.service, "n/2")
    async with opens() as backend:
        await backend.register(held, TTL_SECONDS)
        await backend.register(short, 0.5)
        for member in cluster.members:
            member.freeze()
        try:
            await refused(*questions(backend, held))
            # While Consul's agent repeats something to servers that are frozen, it may answer nothing at all.
            with suppress(RegistryUnavailable):
                assert await backend.renew([held.key, short.key]) == {short.key}
        finally:
            await asyncio.to_thread(cluster.heal)
        await stays_held(backend, held)

        async def only_the_other_is_there() -> bool:
            return (await backend.list(held.service)).entries == (held,)

        await eventually(only_the_other_is_there)
        assert await backend.get(short.service, short.instance) is None
        await backend.register(short, TTL_SECONDS)
        await stays_held(backend, short)


async def test_servers_that_lost_everything_get_all_back_from_the_agent_or_by_registrations(
    cluster: ConsulCluster, opens: Opens, held: Entry
) -> None:
    async with opens() as backend, aclosing(backend.watch(held.service)) as watch:
        await backend.register(held, TTL_SECONDS)
        epoch = (await anext(watch)).epoch
        await asyncio.to_thread(cluster.lose_everything)

        async def is_back() -> bool:
            for key in await backend.renew([held.key]):
                assert key == held.key
                await backend.register(held, TTL_SECONDS)
            return (await backend.list(held.service)).entries == (held,)

        await eventually(is_back)
        async with opens(cluster.leader().url) as at_server:
            assert await at_server.get(held.service, held.instance) == held
        await stays_held(backend, held)
        async with asyncio.timeout(10):
            while (snapshot := await anext(watch)).epoch == epoch or snapshot.entries != (held,):
                pass
