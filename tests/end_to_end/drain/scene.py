"""Units with work in flight, seen from outside: their clients, their notes, and the registry all the time."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from tests.end_to_end.host import Host
from tests.end_to_end.machine import boottime, until

WORKER = f"{sys.executable} -S {Path(__file__).with_name('worker.py')}"
TTL = 0.5
LOOK_SECONDS = 0.01

Json = Any


def worker(host: Host, name: str, port: int, *, settings: str = "", tables: str = "", removal: str = "deregister",
           count: int = 1) -> str:  # fmt: skip
    """The configuration of a registered unit that runs `worker.py`; NAME stands for its name in the tables."""
    return f"""
    [unit.{name}]
    command = "{WORKER} {{port}} {notes_of(host, name)}"
    numprocs = {count}
    startsecs = 0.05
    stopwaitsecs = 3
    {settings}
    [unit.{name}.service]
    port = {port}
    ttl_seconds = {TTL}
    [unit.{name}.restart]
    removal = "{removal}"
    settle_seconds = 0.05
    backoff_initial = 0.1
    {tables.replace("NAME", name)}
    """


def notes_of(host: Host, name: str) -> Path:
    """Where a unit notes what happens to it."""
    return host.folder / f"{name}.notes"


class Note(NamedTuple):
    """One thing that has happened to a unit."""

    what: str
    at: float  # CLOCK_BOOTTIME
    pid: int
    generation: int
    detail: str


def all_notes(host: Host, name: str) -> list[Note]:
    """Everything that a unit has noted."""
    path = notes_of(host, name)
    rows = [line.split(" ", 4) for line in path.read_text().splitlines()] if path.exists() else []
    return [Note(row[0], float(row[1]), int(row[2]), int(row[3]), row[4]) for row in rows if len(row) == 5]


def notes(host: Host, name: str, what: str, generation: int | None = None) -> list[Note]:
    """What a unit has noted of one kind, and of one attempt."""
    return [n for n in all_notes(host, name) if n.what == what and generation in (None, n.generation)]


def ask(port: int, path: str, method: str = "GET", seconds: float = 15.0) -> str:
    """One request on a connection of its own: the body of a whole answer with status 200, else what went wrong."""
    connection = HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        return ask_on(connection, path, method)
    finally:
        connection.close()


def ask_on(connection: HTTPConnection, path: str, method: str = "GET") -> str:
    """The same, on a connection that stays."""
    try:
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read().decode().strip()
        return body if response.status == 200 else f"status {response.status}"
    except (OSError, HTTPException) as error:
        return f"failed: {error!r}"


class Clients:
    """Requests that are under way while something else happens."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._connections: list[HTTPConnection] = []

    def ask(self, port: int, path: str, method: str = "GET") -> Future[str]:
        """What becomes of a request, later."""
        return self._pool.submit(ask, port, path, method)

    def slow(self, host: Host, name: str, port: int, seconds: float, count: int = 1) -> list[Future[str]]:
        """Requests that take so long; the unit works on them when this returns."""
        before = len(notes(host, name, "asked"))
        asked = [self.ask(port, f"/slow?{seconds}") for _ in range(count)]
        until(f"{name} works on them", lambda: len(notes(host, name, "asked")) == before + count)
        return asked

    def keep(self, port: int, count: int = 1) -> None:
        """Connections that were used once, and are kept alive and idle."""
        for _ in range(count):
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            self._connections.append(connection)
            assert not ask_on(connection, "/").startswith(("failed", "status"))

    def close(self) -> None:
        """Hang up."""
        for connection in self._connections:
            connection.close()


@contextmanager
def clients() -> Iterator[Clients]:
    """Threads for them; at the end all must have been answered, one way or the other."""
    with ThreadPoolExecutor(32) as pool:
        made = Clients(pool)
        try:
            yield made
        finally:
            made.close()


class Look(NamedTuple):
    """One look at the registry."""

    asked: float
    answered: float
    entries: dict[str, Json]  # by unit


class Registry:
    """Looks at a service in the registry all the time, from a thread of its own, until the daemon is gone."""

    def __init__(self, host: Host, service: str) -> None:
        self._host, self._service = host, service
        self.looks: list[Look] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Registry:
        self._thread.start()
        until("the registry is looked at", lambda: self.looks)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            asked = boottime()
            try:
                entries = self._host.entries(self._service)
            except (OSError, HTTPException):  # the daemon has ended
                continue
            self.looks.append(Look(asked, boottime(), {entry["unit"]: entry for entry in entries}))

    def wait(self, unit: str, generation: int = 1, **values: object) -> None:
        """Until its entry of that generation was seen, and with these values."""
        wanted = {"generation": generation, **values}

        def look() -> bool:
            entry = self.looks[-1].entries.get(unit, {})
            return all(entry.get(key) == value for key, value in wanted.items())

        until(f"{unit} was seen as {wanted}", look)

    def last_seen(self, unit: str, generation: int) -> float:
        """Not before this moment was the entry of that generation gone."""
        return max(look.asked for look in list(self.looks) if _generation(look, unit) == generation)

    def first_seen(self, unit: str, generation: int) -> float:
        """Not after this moment did the entry of that generation come."""
        return min(look.answered for look in list(self.looks) if _generation(look, unit) == generation)

    def said(self, unit: str, *keys: str, generation: int | None = None) -> list[tuple[Any, ...]]:
        """What its entry said, without repetitions."""
        seen = [look.entries[unit] for look in list(self.looks) if unit in look.entries]
        values = (tuple(entry[key] for key in keys) for entry in seen if generation in (None, entry["generation"]))
        return [value for value, _ in itertools.groupby(values)]


def _generation(look: Look, unit: str) -> int:
    entry = look.entries.get(unit)
    return entry["generation"] if entry else 0


def step_names(operation: Json) -> list[str]:
    """The steps that an operation went through."""
    return [step["name"] for step in operation["steps"]]


def apply(host: Host) -> list[Json]:
    """Apply the configuration as it is now; the operations that this has made."""
    answer = host.ask("POST", "/v1/config/apply", {})
    assert answer.status < 300, answer
    return list(answer.json["operations"])
