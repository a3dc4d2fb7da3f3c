"""A host whose daemon can be told to die at a record of its journal, a registry outside of it, and what must hold."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import uuid4

from tests.end_to_end.host import Host
from tests.end_to_end.killed.mortal import MORTAL, PLAN, TRACE
from tests.end_to_end.killed.outside import OutsideRegistry
from tests.end_to_end.machine import is_alive, until

LIFE = Path(__file__).with_name("life.py")
Json = Any


class Note(NamedTuple):
    """What a life of a unit's program has noted."""

    what: str
    at: float  # CLOCK_BOOTTIME
    pid: int
    generation: int


class Order(NamedTuple):
    """A command, as it is given and given again."""

    verb: str
    pattern: str
    body: dict[str, Any]

    @classmethod
    def new(cls, verb: str, pattern: str, **parameters: object) -> Order:
        """One that was never given before."""
        return cls(verb, pattern, {"command_id": uuid4().hex, "issued_by": "a test", "parameters": parameters})


class Scene:
    """One host with one service `web` of some processes."""

    def __init__(
        self, *, processes: int = 1, removal: str = "deregister", ttl_seconds: float = 0.6, cgroup: str = "off"
    ) -> None:
        self.host, self.registry = Host(cgroup), OutsideRegistry()
        self.ttl_seconds = ttl_seconds
        self.names = ["web"] if processes == 1 else [f"web:{number}" for number in range(processes)]
        self._plans = count()
        self._plan, self._trace = self.host.folder / "plan", self.host.folder / "trace"
        self._port, self._removal, self._processes = self.host.port(processes), removal, processes
        self.registry.start()
        self.configure()

    def configure(self, more: str = "", *, without_web: bool = False, **daemon: Any) -> None:
        """Write the configuration, with other units beside the service, or without the service.

        Keywords are those of `Host.configure`.
        """
        folder = self.host.folder
        life = f"{sys.executable} -S {LIFE} {{port}} {folder}/notes.{{number}} {folder}/lock.{{number}}"
        web = f"""
            [unit.web]
            command = "{life}"
            numprocs = {self._processes}
            startsecs = 0.05
            service = {{ port = {self._port}, ttl_seconds = {self.ttl_seconds} }}
            restart = {{ removal = "{self._removal}", settle_seconds = 0 }}
            """
        registry = f'backend = "http", url = "{self.registry.url}"'
        self.host.configure(("" if without_web else web) + more, registry=registry, **daemon)

    def run(self, *, wait: bool = True) -> None:
        """Start the daemon, and wait until it answers."""
        self.host.run(wait=wait, program=MORTAL, environment={PLAN: str(self._plan), TRACE: str(self._trace)})

    def kill(self) -> None:
        """The daemon is killed, wherever it is."""
        self.host.signal(signal.SIGKILL)
        assert self.host.wait() == -signal.SIGKILL

    def close(self) -> None:
        """End all, and complain about what is left."""
        self._plan.unlink(missing_ok=True)
        try:
            self.host.close()
        finally:
            self.registry.close()

    # Orders, and death in the middle of them.

    def give(self, order: Order) -> list[Json]:
        """The operations of a command."""
        path = f"/v1/units/{quote(order.pattern, safe='')}/{order.verb}"
        answer = self.host.ask("POST", path, order.body)
        assert answer.status == 202, answer
        return list(answer.json["operations"])

    def known(self, order: Order) -> list[Json]:
        """The operations that the daemon knows of a command."""
        answer = self.host.ask("GET", f"/v1/operations?command_id={order.body['command_id']}")
        return [] if answer.status == 404 else list(answer.json["operations"])

    def die_in(self, order: Order, number: int, side: str) -> bool:
        """Give an order and let the daemon die at that record from now on; False: all was done before."""
        self._plan_death(number, side)
        try:
            operations = self.give(order)
            until("it died, or was done", lambda: self._died() or self._is_done(operations))
        except (OSError, HTTPException):
            self.host.wait()
        self._plan.unlink()
        self._see_plan_gone()
        return self._died()

    def _see_plan_gone(self) -> None:
        """What it was about to write, with the plan read, it has written when it answers; or it died of it."""
        if not self._died():
            try:
                self.host.ask("GET", "/readyz")
            except (OSError, HTTPException):
                self.host.wait()

    def run_and_die(self, number: int, side: str) -> None:
        """Start a daemon that dies at that record of its own."""
        self._plan_death(number, side)
        self.run(wait=False)
        until("it died", self._died)
        self._plan.unlink()

    def _plan_death(self, number: int, side: str) -> None:
        new = self._plan.with_suffix(".new")
        new.write_text(json.dumps([str(next(self._plans)), number, side]))
        new.rename(self._plan)

    def _died(self) -> bool:
        assert self.host.daemon is not None
        code = self.host.daemon.poll()
        assert code in (None, -signal.SIGKILL), self.host.said()
        return code is not None

    def _is_done(self, operations: list[Json]) -> bool:
        paths = [f"/v1/operations/{operation['id']}" for operation in operations]
        return all(self.host.ask("GET", path).json["finished"] for path in paths)

    def deaths(self, verb: str, side: str, first: int, every: int, **parameters: object) -> Iterator[list[Json]]:
        """An order for all of the service, again and again, and the daemon's death at each n-th record of it in turn.

        Gives the order's operations as they have ended, when a daemon has come after. The last order is one that no
        daemon died in.
        """
        died, number = True, first
        while died:
            order = Order.new(verb, "web", **parameters)
            died = self.die_in(order, number, side)
            if died:
                self.run()
            known = self.known(order)
            assert known or not self._was_written(order), "it was accepted"
            given = self.give(order)
            ids = [operation["id"] for operation in given]
            assert not known or [operation["id"] for operation in known] == ids, "the same command is the same"
            yield self.host.finish(given)
            number += every
        assert number > first + every, "no daemon died"

    def _was_written(self, order: Order) -> bool:
        return str(order.body["command_id"]) in self._trace.read_text()

    # What must hold.

    def notes(self, name: str) -> list[Note]:
        """What a unit's lives have noted, in order."""
        path = self.host.folder / f"notes.{name.partition(':')[2] or 0}"
        lines = path.read_text().splitlines() if path.exists() else []
        return [Note(what, float(at), int(pid), int(generation))
                for what, at, pid, generation in map(str.split, lines)]  # fmt: skip

    def check_alone(self) -> None:
        """No life ever began beside another, and none is left but those that the daemon names."""
        for name in self.names:
            assert [note for note in self.notes(name) if note.what == "twice"] == []
        named = {pid for pid in self.host.pids().values() if pid is not None}
        until_equal(self.host.processes, named)

    def check_registered(self, *names: str) -> None:
        """Exactly these are in the registry, each with the generation of its living process."""
        until("what is up is registered", lambda: self._is_registered(names))
        found, units = self.registered(), self.host.units()
        for name in names:
            life = [note for note in self.notes(name) if note.what == "begin"][-1]
            assert (life.pid, life.generation) == (units[name]["pid"], found[name])
            assert is_alive(life.pid)

    def _is_registered(self, names: Sequence[str]) -> bool:
        units = self.host.units()
        if any(units[name]["state"] != "RUNNING" for name in names):
            return False  # a daemon that came after the order's end has taken it out once more
        return self.registered() == {name: units[name]["generation"] for name in names}

    def registered(self) -> dict[str, int]:
        """The generations that the registry shows, by unit."""
        return {entry["unit"]: entry["generation"] for entry in self.registry.entries("web")}

    def check_fences(self) -> None:
        """Once the journal says that an entry is fenced, no beat of it is sent until it is registered anew."""
        slack = self.ttl_seconds / 4  # a beat may have begun; the next one would be due in a third
        states: dict[str, list[tuple[float, bool]]] = {}
        for line in self._trace.read_text().splitlines():
            at, statement, rows = json.loads(line)
            if statement.startswith(("INSERT OR REPLACE INTO entry", "UPDATE entry", "DELETE FROM entry")):
                for row in rows:
                    states.setdefault(row.split("'")[1], []).append((at, statement.startswith("INSERT")))
        beats = [beat for beat in self.registry.beats if beat.unit in states]
        for beat in beats:
            allowed = [may for at, may in states[beat.unit] if at <= beat.sent_at - slack]
            since = [may for at, may in states[beat.unit] if beat.sent_at - slack < at <= beat.sent_at]
            assert any(since) or allowed[-1:] != [False], f"{beat} after the fence: {states[beat.unit]}"


def until_equal(look: Callable[[], object], wanted: object) -> None:
    """It becomes that within the deadline."""
    until(f"it is {wanted}", lambda: look() == wanted)
