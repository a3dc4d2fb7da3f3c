"""Ill units seen from outside: what the registry shows of them all the time, and what was done to their processes."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

from tests.end_to_end.host import Host
from tests.end_to_end.machine import DEADLINE_SECONDS, boottime, is_alive, until

PATIENT = f"{sys.executable} -S {Path(__file__).with_name('patient.py')}"
LATE_SECONDS = 2.0  # what a deadline is generous by: the machine is shared
LOOK_SECONDS = 0.01

Json = Any


def unit(name: str, command: str, *, settings: str = "", removal: str = "deregister", tables: str = "") -> str:
    """The configuration of a unit that is ready quickly and stopped quickly; NAME stands for its name in the tables."""
    return f"""
    [unit.{name}]
    command = "{command}"
    startsecs = 0.05
    stopwaitsecs = 0.3
    {settings}
    [unit.{name}.restart]
    removal = "{removal}"
    backoff_initial = 0.1
    settle_seconds = 0
    {tables.replace("NAME", name)}
    """


def patient(
    host: Host, name: str, *, port: int, ttl: float = 0.6, options: str = "", settings: str = "", **more: str
) -> str:
    """A registered unit that runs `patient.py`; `more` is as for `unit`."""
    command = f"{PATIENT} {port} {notes_of(host, name)} {options}"
    return unit(name, command, settings=f"service = {{ port = {port}, ttl_seconds = {ttl} }}\n{settings}", **more)


def notes_of(host: Host, name: str) -> Path:
    """Where a unit notes what happens to it."""
    return host.folder / f"{name}.notes"


class Note(NamedTuple):
    """One thing that has happened to a unit."""

    at: float  # CLOCK_BOOTTIME
    pid: int
    generation: int


def notes(host: Host, name: str, what: str) -> list[Note]:
    """What a unit has noted of one kind."""
    path = notes_of(host, name)
    rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [Note(float(row[1]), int(row[2]), int(row[3])) for row in rows if len(row) == 4 and row[0] == what]


def get(port: int, path: str, seconds: float = 5.0) -> int:
    """The status of one request."""
    connection = HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def until_well(host: Host, name: str, after: int = 0) -> Json:
    """The entry of a unit, once it is registered and up."""

    def look() -> Json:
        status = host.unit(name)
        entry = host.entry(status["service"], name)
        return entry if entry and entry["generation"] > after and entry["status"] == "up" else None

    return until(f"{name} is up", look)


def probe(status: Json, role: str) -> Json:
    """What one probe of a unit says."""
    return next(item for item in status["probes"] if item["role"] == role)


class Look(NamedTuple):
    """One look at the registry, and just before it, at the processes."""

    at: float  # boot time, before it was asked
    signalled: frozenset[int]  # processes that have ended, or to which a signal is under way
    entries: dict[str, Json]  # by unit
    answered: float


class RegistryLog:
    """Looks at the entries of units and at their processes all the time, from a thread of its own."""

    def __init__(self, registry: Host, services: Iterable[str], pids: Iterable[int]) -> None:
        self._registry, self._services, self._pids = registry, tuple(services), frozenset(pids)
        self.looks: list[Look] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> RegistryLog:
        self._thread.start()
        until("the log of the registry has begun", lambda: self.looks)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            asked, signalled = boottime(), frozenset(pid for pid in self._pids if _is_signalled(pid))
            entries = [entry for service in self._services for entry in self._registry.entries(service)]
            self.looks.append(Look(asked, signalled, {entry["unit"]: entry for entry in entries}, boottime()))

    def first(
        self, what: str, holds: Callable[[Look], Any], after: float = 0.0, seconds: float = DEADLINE_SECONDS
    ) -> float:
        """When something was seen first."""

        def look() -> float | None:
            return next((look.answered for look in list(self.looks) if look.at >= after and holds(look)), None)

        return until(what, look, seconds)  # type: ignore[no-any-return]

    def gone(self, unit: str, generation: int, seconds: float = DEADLINE_SECONDS) -> float:
        """When the entry of a generation was seen first not to be there any more."""
        seen = self.first(f"{unit} is registered", lambda look: _generation(look, unit) == generation)
        return self.first(f"{unit} is gone", lambda look: _generation(look, unit) != generation, seen, seconds)

    def came(self, unit: str, after: int) -> float:
        """When an entry of a later generation was seen first."""
        return self.first(f"{unit} is back", lambda look: _generation(look, unit) > after)

    def signalled_early(self, unit: str, pid: int, generation: int) -> list[Look]:
        """Looks in which the process had been signalled or had ended, and its entry was there still."""
        return [look for look in self.looks if pid in look.signalled and _generation(look, unit) == generation]


def _generation(look: Look, unit: str) -> int:
    entry = look.entries.get(unit)
    return entry["generation"] if entry else 0


def _is_signalled(pid: int) -> bool:
    """It has ended, or a SIGTERM waits for it: a stopped process cannot take it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return True
    pending = sum(int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd:", "ShdPnd:")))
    return not is_alive(pid) or bool(pending >> (signal.SIGTERM - 1) & 1)


def throughout(seconds: float, holds: Callable[[], Any]) -> None:
    """It holds all the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert holds()
        time.sleep(LOOK_SECONDS)
