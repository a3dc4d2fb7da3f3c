"""Each test of a store runs on both databases: `store` is an open one with nothing in it, `place` where it is.

A test that takes one of them is an async function.
"""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from control_center.store import Store
from tests.control_center.store.processes import CenterProcess
from tests.servers import Postgres
from tests.servers.fixtures import *  # noqa: F403  # the real servers
from tests.servers.postgres import PASSWORD


class Place:
    """Where a store is. All that is opened here is closed after the test."""

    def __init__(self, url: str, password: str | None, run: Callable[[str], str]) -> None:
        self.url, self.password, self.run = url, password, run
        self._opened: list[Store] = []

    @property
    def is_shared(self) -> bool:
        """Several centers may have it at a time."""
        return self.password is not None

    async def open(self) -> Store:
        """One more center's view of it."""
        store = await Store.open(self.url, self.password)
        self._opened.append(store)
        return store

    async def centers(self, store: Store) -> list[Store]:
        """As many centers as may have it: the one that is open, and another."""
        return [store, await self.open()] if self.is_shared else [store]

    async def close(self) -> None:
        for store in self._opened:
            await store.close()
        self._opened.clear()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        path = tmp_path / "center.sqlite"
        yield Place(f"sqlite:///{path}", None, lambda statement: run_sqlite(path, statement))
    else:
        yield from on_postgresql(request.getfixturevalue("postgres"))


def on_postgresql(server: Postgres) -> Iterator[Place]:
    """A database of its own, for as long as the test runs."""
    url = server.new_database()
    yield Place(url, PASSWORD, lambda statement: server.ask(statement, url.rpartition("/")[2]))
    server.drop_database(url)


@pytest.fixture
def store(place: Place) -> Place:
    return place


def run_sqlite(path: Path, statement: str) -> str:
    """One statement past the store; its first value."""
    connection = sqlite3.connect(path, timeout=10)
    try:
        with connection:
            rows = connection.execute(statement).fetchall()
    finally:
        connection.close()
    return str(rows[0][0]) if rows else ""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None] | bool | None:
    """Run an async test in a loop of its own."""
    function = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(function).parameters}
    asyncio.run(_run(function, arguments))
    return True


async def _run(function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    place = arguments.get("store")
    try:
        if place is not None:
            arguments["store"] = await place.open()
        await function(**arguments)
    finally:
        for value in arguments.values():
            if isinstance(value, Place):
                await value.close()
        if place is not None:
            await place.close()


@pytest.fixture
def start_center(place: Place) -> Iterator[Callable[[str, str], CenterProcess]]:
    """Start a center as a process: `start_center("a", "lead")`; it has opened the store when it says so."""
    started: list[CenterProcess] = []

    def start(name: str, task: str) -> CenterProcess:
        started.append(CenterProcess(place.url, place.password, name, task))
        return started[-1]

    yield start
    for process in started:
        process.end()
