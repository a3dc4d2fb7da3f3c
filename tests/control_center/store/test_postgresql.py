"""What only PostgreSQL has: connections that are lost, servers that go and come back, other centers."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from control_center.errors import StoreError
from control_center.model import OperationState
from control_center.store import Store, postgresql
from tests.control_center.store.conftest import Place, on_postgresql
from tests.control_center.store.operations import operation
from tests.control_center.store.processes import CenterProcess
from tests.servers import Postgres
from tests.servers.fixtures import StartServer
from tests.servers.postgres import PASSWORD

StartCenter = Callable[[str, str], CenterProcess]
pytestmark = pytest.mark.real


@pytest.fixture
def place(postgres: Postgres) -> Iterator[Place]:
    """On PostgreSQL only."""
    yield from on_postgresql(postgres)


@pytest.fixture
def own(start_server: StartServer) -> Postgres:
    """A server that the test may stop."""
    return start_server(Postgres)


CUT = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def test_lost_connections_are_replaced_without_a_word(store: Store, place: Place) -> None:
    epoch = await store.lead("a")
    kept = await store.add_operation(operation("cart", targets=2), "r")
    for _ in range(3):
        await asyncio.gather(*(store.mode() for _ in range(8)))  # many connections
        assert int(await asyncio.to_thread(place.run, CUT)) > 1
        await store.save(kept, kept.targets, epoch=epoch)
        await asyncio.to_thread(place.run, CUT)
        assert await store.operation(kept.id) == kept


async def test_changes_are_heard_of_again_after_the_listening_connection_was_lost(store: Store, place: Place) -> None:
    there = await place.open()
    seen = store.seen()
    await asyncio.to_thread(place.run, CUT)
    assert await store.wait_changed(seen, 15) != seen  # anything may have changed meanwhile
    seen = store.seen()
    waiting = asyncio.create_task(store.wait_changed(seen, 15))
    await there.add_event("node", {})
    assert await waiting != seen


async def test_a_server_that_is_away_is_told_of_and_a_restarted_one_is_used(own: Postgres) -> None:
    store = await Store.open(await asyncio.to_thread(own.new_database), PASSWORD)
    try:
        epoch = await store.lead("a")
        kept = await store.add_operation(operation("cart"), "r")
        await asyncio.to_thread(own.restart)
        await store.save(kept, epoch=epoch)
        own.kill()
        attempts = store.mode(), store.save(kept, epoch=epoch), store.add_event("node", {})
        for error in await asyncio.gather(*attempts, return_exceptions=True):
            assert isinstance(error, StoreError)
            assert re.fullmatch(r"cannot (read|write) the store: connection (refused|reset by peer)", str(error))
        await asyncio.to_thread(own.start)
        kept.state = OperationState.SUCCEEDED
        await store.save(kept, epoch=epoch)
        assert (await store.versions([kept.id]))[kept.id][1] == "succeeded"
    finally:
        await store.close()


async def test_writes_that_come_while_the_server_restarts_are_neither_lost_nor_doubled(own: Postgres) -> None:
    store = await Store.open(await asyncio.to_thread(own.new_database), PASSWORD)
    kept: list[str] = []
    refused: list[str] = []
    going = True

    async def write() -> None:
        while going:
            new = operation()
            try:
                kept.append((await store.add_operation(new, "r")).id)
            except StoreError:
                refused.append(new.id)

    try:
        writers = [asyncio.create_task(write()) for _ in range(4)]
        while len(kept) < 20:
            await asyncio.sleep(0.01)
        own.kill()
        await asyncio.to_thread(own.start)
        before = len(kept)
        while len(kept) < before + 20:
            await asyncio.sleep(0.01)
        going = False
        await asyncio.gather(*writers)
        found = [each.id for each in await store.operations(limit=100_000)]
        assert len(set(found)) == len(found)
        assert set(kept) <= set(found) <= {*kept, *refused}
    finally:
        await store.close()


async def test_a_server_that_says_nothing_is_given_up_after_a_while(
    own: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "_ANSWER_SECONDS", 2.0)
    store = await Store.open(await asyncio.to_thread(own.new_database), PASSWORD)
    try:
        await store.mode()
        own.freeze()
        began = time.monotonic()
        with pytest.raises(StoreError, match="cannot read the store: "):
            await store.mode()
        assert time.monotonic() - began < 12
        await store.close()  # which waits for no answer either
        assert time.monotonic() - began < 18
    finally:
        own.thaw()
        await store.close()


async def test_an_event_whose_commit_got_no_answer_is_not_written_twice(own: Postgres) -> None:
    url = await asyncio.to_thread(own.new_database)
    store = await Store.open(url, PASSWORD)
    try:
        # A deferred trigger runs inside of COMMIT: there, the backend ends itself.
        database = url.rpartition("/")[2]
        for statement in (
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$",
            "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION die()",
        ):
            await asyncio.to_thread(own.ask, statement, database)
        with pytest.raises(StoreError, match="the connection was lost while a change was saved"):
            await store.add_event("node", {})
        await asyncio.to_thread(own.ask, "DROP TRIGGER die ON events", database)
        assert (await store.add_event("node", {})).seq == 1
    finally:
        await store.close()


async def test_a_center_that_is_frozen_inside_of_a_transaction_does_not_stop_the_others(
    store: Store, place: Place, start_center: StartCenter
) -> None:
    writer = start_center("a", "write")
    assert writer.line().startswith("open")
    inside = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
    )
    async with asyncio.timeout(10):
        while True:
            writer.signal(signal.SIGSTOP)
            if await asyncio.to_thread(place.run, inside) == "1":
                break
            writer.signal(signal.SIGCONT)
            await asyncio.to_thread(writer.line)
    await store.add_event("node", {})


@pytest.mark.parametrize(
    ("password", "database", "reason"),
    [
        ("wrong", None, "password authentication failed"),
        (None, None, "password"),
        (PASSWORD, "nowhere", "does not exist"),
    ],
)
async def test_who_is_not_let_in_is_told_why(
    postgres: Postgres, password: str | None, database: str | None, reason: str
) -> None:
    url = postgres.url_of(database) if database else postgres.new_database()
    with pytest.raises(StoreError, match=f"cannot open the store postgresql://.*{reason}") as caught:
        await Store.open(url, password)
    assert "wrong" not in str(caught.value)
