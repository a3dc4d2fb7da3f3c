"""Of several centers one leads; who does not lead any more is told, and its writes are refused."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import pytest

from control_center.errors import Superseded
from control_center.leadership import Leadership
from control_center.store import Store
from tests.control_center.store.conftest import Place
from tests.control_center.store.operations import operation
from tests.control_center.store.processes import CenterProcess
from tests.servers import Postgres
from tests.servers.fixtures import StartServer
from tests.servers.postgres import PASSWORD

StartCenter = Callable[[str, str], CenterProcess]
shared = pytest.mark.parametrize("place", [pytest.param("postgresql", marks=pytest.mark.real)], indirect=True)


class Candidate:
    """A center that tries to lead, and what it has been told."""

    def __init__(self, store: Store, name: str) -> None:
        self.told: list[int | None] = []
        self._moved = asyncio.Event()
        self.task = asyncio.create_task(Leadership(store, name, self._hear).run())

    def _hear(self, epoch: int | None) -> None:
        self.told.append(epoch)
        self._moved.set()

    @property
    def epoch(self) -> int | None:
        return self.told[-1] if self.told else None

    async def until(self, fulfilled: Callable[[], bool]) -> None:
        async with asyncio.timeout(15):
            while not fulfilled():
                self._moved.clear()
                await self._moved.wait()

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_one_center_alone_leads_and_each_time_with_a_higher_epoch(store: Store) -> None:
    for epoch in (1, 2):
        candidate = Candidate(store, "a")
        await candidate.until(lambda candidate=candidate: candidate.epoch is not None)  # type: ignore[misc]
        assert await store.leader() == ("a", epoch)
        await candidate.leave()
        assert candidate.told == [epoch, None]


@shared
async def test_of_two_centers_one_leads_and_the_other_follows_when_it_leaves(store: Store, place: Place) -> None:
    first = Candidate(store, "a")
    await first.until(lambda: first.epoch == 1)
    kept = await store.add_operation(operation("cart"), "r")
    second = Candidate(await place.open(), "b")
    await asyncio.sleep(1.5)  # it has tried, more than once
    assert second.told == []
    await first.leave()
    await second.until(lambda: second.epoch == 2)
    assert await store.leader() == ("b", 2)
    with pytest.raises(Superseded):
        await store.save(kept, epoch=1)
    await second.leave()


@shared
async def test_a_leader_whose_connection_is_lost_is_told_and_one_leads_again(store: Store, place: Place) -> None:
    first = Candidate(store, "a")
    await first.until(lambda: first.epoch == 1)
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    assert await asyncio.to_thread(place.run, cut) == "t"
    await first.until(lambda: first.told[-2:] == [None, 2])
    await first.leave()


@pytest.mark.real
async def test_after_a_restart_of_the_server_exactly_one_leads(start_server: StartServer) -> None:
    server = await asyncio.to_thread(start_server, Postgres)
    url = await asyncio.to_thread(server.new_database)
    stores = [await Store.open(url, PASSWORD) for _ in range(2)]
    candidates = [Candidate(store, name) for store, name in zip(stores, "ab", strict=True)]
    try:
        while not any(each.epoch for each in candidates):
            await asyncio.sleep(0.01)
        leader = next(each for each in candidates if each.epoch)
        kept = await stores[0].add_operation(operation("cart"), "r")
        await asyncio.to_thread(server.kill)
        await leader.until(lambda: leader.epoch is None)  # before anybody else can lead
        assert not any(each.epoch for each in candidates)
        await asyncio.to_thread(server.start)
        while not any(each.epoch for each in candidates):
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.5)  # the other one has tried, too
        assert sorted(each.epoch or 0 for each in candidates) == [0, 2]
        assert (await stores[0].leader())[1] == 2
        with pytest.raises(Superseded):
            await stores[candidates.index(leader)].save(kept, epoch=1)
    finally:
        for each in candidates:
            await each.leave()
        for store in stores:
            await store.close()


@pytest.mark.real
async def test_a_leader_whose_server_says_nothing_is_told_and_leads_again_when_it_speaks(
    start_server: StartServer,
) -> None:
    server = await asyncio.to_thread(start_server, Postgres)
    store = await Store.open(await asyncio.to_thread(server.new_database), PASSWORD)
    candidate = Candidate(store, "a")
    try:
        await candidate.until(lambda: candidate.epoch == 1)
        server.freeze()
        await candidate.until(lambda: candidate.epoch is None)
        server.thaw()
        await candidate.until(lambda: candidate.epoch == 2)
    finally:
        server.thaw()
        await candidate.leave()
        await store.close()


@shared
async def test_when_the_leader_is_killed_the_other_leads_within_seconds(
    place: Place, start_center: StartCenter
) -> None:
    first, second = start_center("a", "lead"), start_center("b", "lead")
    opened = first.line(), second.line()
    assert opened[0] == opened[1]
    leader = first if await asyncio.to_thread(says, first, "leads 1", 2.0) else second
    other = second if leader is first else first
    if leader is second:
        assert await asyncio.to_thread(second.line) == "leads 1"
    leader.kill()
    assert await asyncio.to_thread(other.line, 10.0) == "leads 2"


@shared
async def test_a_leader_that_is_frozen_loses_its_lock_and_is_told_when_it_wakes_up(
    place: Place, start_center: StartCenter
) -> None:
    first = start_center("a", "lead")
    assert [first.line()[:4], first.line()] == ["open", "leads 1"]
    first.signal(signal.SIGSTOP)
    second = start_center("b", "lead")
    assert second.line().startswith("open")
    assert await asyncio.to_thread(second.line) == "leads 2"
    first.signal(signal.SIGCONT)
    assert await asyncio.to_thread(first.line) == "follows"


def says(center: CenterProcess, text: str, seconds: float) -> bool:
    try:
        return center.line(seconds) == text
    except TimeoutError:
        return False
