"""A store is opened, made, brought up to date, or refused with one sentence; and it survives those who write to it."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine

from control_center.errors import StoreError
from control_center.store import Store
from control_center.store.tables import prepare
from tests.control_center.store.conftest import Place, run_sqlite
from tests.control_center.store.operations import operation
from tests.control_center.store.processes import CenterProcess

StartCenter = Callable[[str, str], CenterProcess]


async def test_a_store_that_a_newer_version_has_written_is_refused(place: Place) -> None:
    await place.open()
    await place.close()
    place.run("UPDATE store SET value = '99' WHERE name = 'schema_version'")
    with pytest.raises(StoreError, match="a newer unit-center has written it"):
        await place.open()
    place.run("UPDATE store SET value = '1' WHERE name = 'schema_version'")
    await place.open()


async def test_a_store_that_is_none_of_ours_is_refused(place: Place) -> None:
    await place.open()
    await place.close()
    place.run("DELETE FROM store WHERE name = 'id'")
    with pytest.raises(StoreError, match="it is no store of unit-center"):
        await place.open()


async def test_what_is_acknowledged_survives_the_death_of_the_center(place: Place, start_center: StartCenter) -> None:
    writer = start_center("a", "write")
    assert writer.line().startswith("open")
    written = [await asyncio.to_thread(writer.line) for _ in range(50)]
    writer.kill()
    while line := writer.line():
        written.append(line)
    store = await place.open()
    kept = [each.seq for each in await store.events(0)]
    assert kept == list(range(1, len(kept) + 1))
    assert [int(seq) for seq in written] == kept[: len(written)]
    assert len(kept) - len(written) <= 1  # one was on its way
    await store.add_operation(operation("cart"), "r")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "is no url such as sqlite:///"),
        ("no url", "is no url such as sqlite:///"),
        ("sqlite://", "names no absolute path"),
        ("sqlite:///relative.sqlite", "names no absolute path"),
        ("mysql://h/d", "mysql is not known here"),
        ("sqlite:////proc/nowhere/center.sqlite", "cannot open the store /proc/nowhere/center.sqlite: "),
        ("postgresql://u@127.0.0.1:1", "write the database's name at the end"),
        ("postgresql://u@127.0.0.1:1/d?sslmode=disable", "nothing may follow the database's name"),
        ("postgresql://u:secret@127.0.0.1:1/d", "a password does not stand in a url"),
        ("postgresql://u@127.0.0.1:1/d", "cannot open the store postgresql://u@127.0.0.1:1/d: connection refused"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(StoreError, match=reason) as caught:
        asyncio.run(Store.open(url))
    assert "secret" not in str(caught.value)


async def test_a_second_center_on_the_same_file_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    place = Place(f"sqlite:///{tmp_path}/new/center.sqlite", None, str)
    first = CenterProcess(place.url, None, "a", "lead")
    try:
        assert first.line().startswith("open")
        with pytest.raises(StoreError, match=f"process {first.pid} on .* uses it; several control centers need"):
            await place.open()
        first.kill()
        await place.open()
        with pytest.raises(StoreError, match=f"process {os.getpid()} on .* uses it"):
            await place.open()
    finally:
        first.end()
        await place.close()


async def test_nobody_else_can_read_the_file(tmp_path: Path) -> None:
    place = Place(f"sqlite:///{tmp_path}/new/center.sqlite", None, str)
    store = await place.open()
    await store.add_event("node", {})
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (tmp_path / "new").iterdir()}
    assert set(modes.values()) == {0}
    assert {"center.sqlite", "center.sqlite-wal"} <= set(modes)
    await place.close()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "center.sqlite").write_text("no database at all, but text that is long enough" * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        await Store.open(f"sqlite:///{tmp_path}/center.sqlite")


async def test_a_file_waits_for_the_disk_with_each_commit(tmp_path: Path) -> None:
    place = Place(f"sqlite:///{tmp_path}/center.sqlite", None, str)
    await place.open()
    assert run_sqlite(tmp_path / "center.sqlite", "PRAGMA journal_mode") == "wal"
    await place.close()


def test_an_older_store_is_brought_up_to_date_by_the_steps_that_it_lacks(tmp_path: Path) -> None:
    done: list[str] = []

    def step(name: str) -> Callable[[Connection], None]:
        return lambda connection: done.append(name)

    engine = create_engine(f"sqlite:///{tmp_path}/center.sqlite")
    with engine.begin() as connection:
        its_id = prepare(connection, [])
    for steps, expected in ([], []), ([step("2"), step("3")], ["2", "3"]), ([step("2"), step("3"), step("4")], ["4"]):
        done.clear()
        with engine.begin() as connection:
            assert (prepare(connection, steps), done) == (its_id, expected)
    with engine.begin() as connection, pytest.raises(StoreError, match="its schema is 4, this program knows up to 3"):
        prepare(connection, [step("2"), step("3")])
    engine.dispose()
