"""No request fails while the processes of a service are restarted one after another under a steady load.

The client follows the registry over HTTP, as a gateway would, and tries nothing again. The unit has no grace of its own:
SIGTERM ends it in the middle of whatever it does (bench/loaded_server.py).
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from dataclasses import dataclass

import pytest

from bench.load import Load, Mix, Request, following
from bench.load_account import Spell, doing, spells_of
from registry_client import open_backend
from registry_client.selection import eligible
from tests.end_to_end.host import ROOT, Host
from tests.end_to_end.machine import DEADLINE_SECONDS, POLL_SECONDS

COUNT = 4
RATE = 300.0
TTL = 1.0
SLOW_SECONDS = 2.0
SETTLE_SECONDS = {"expire": 0.0, "deregister": 0.5}  # what expires is not chosen for a ttl before; what is deleted is
PASS_SECONDS = 40.0
SEEN_SECONDS = 0.01  # so much later than it happened the client may see a failure
SERVER = f"{sys.executable} -S {ROOT / 'bench' / 'loaded_server.py'}"


@dataclass(slots=True)
class Pass:
    """What came of restarting them all once."""

    requests: list[Request]
    spells: list[Spell]

    @property
    def failures(self) -> list[str]:
        """How many requests failed, by unit, kind, connection, symptom, and what the daemon was doing then."""
        counted = Counter(self._explained(request) for request in self.requests if request.failure)
        return [f"{count} times {words}" for words, count in sorted(counted.items())]

    def _explained(self, request: Request) -> str:
        unit = request.chosen.unit if request.chosen else "nobody"
        doing_then = doing(self.spells, unit, request.ended - SEEN_SECONDS, request.ended)
        connection = "kept" if request.kept else "new"
        return f"{unit}: {request.kind} on a {connection} connection: {request.failure} during {doing_then}"

    def begun(self, unit: str) -> float:
        """When the unit began to leave."""
        return next(spell.begun for spell in self.spells if (spell.unit, spell.what) == (unit, "withdraw"))

    def over_its_leaving(self, unit: str) -> list[Request]:
        """The requests that were with the unit's old process when it began to leave."""
        begun = self.begun(unit)
        with_it = (r for r in self.requests if r.chosen is not None and r.chosen.unit == unit)
        return [request for request in with_it if request.intended < begun < request.ended]


@pytest.fixture
def url(host: Host, request: pytest.FixtureRequest) -> str:
    """Where the API of a daemon with the registered units web:0 to web:3 is; the parameter is their removal."""
    removal, first, http = request.param, host.port(COUNT), host.port()
    host.configure(
        f"""
        [unit.web]
        command = "{SERVER} {{port}}"
        numprocs = {COUNT}
        startsecs = 0.2
        service = {{ port = {first}, ttl_seconds = {TTL} }}
        restart = {{ removal = "{removal}", settle_seconds = {SETTLE_SECONDS[removal]} }}
        """,
        http=f"127.0.0.1:{http}",
    )
    host.run()
    return f"http://127.0.0.1:{http}"


async def restart_all_under_load(host: Host, url: str, before: dict[str, int]) -> Pass:
    """One pass over all four, in the middle of the load; `before`: their generations."""
    load, enough = Load(RATE, Mix(slow_seconds=SLOW_SECONDS)), asyncio.Event()
    async with following(load, open_backend("http", url=url), "web"):
        await load.until(lambda entries: len(eligible(entries)) == COUNT, DEADLINE_SECONDS)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(load.run(enough))
            await load.steady.wait()
            done = await asyncio.to_thread(host.unitctl, "-o", "json", "restart", "web", seconds=PASS_SECONDS)
            await until_answered(load, {(unit, generation + 1) for unit, generation in before.items()})
            enough.set()
            await running
    assert done.returncode == 0, done.stdout + done.stderr
    return Pass(load.requests, spells_of(json.loads(done.stdout)))


async def until_answered(load: Load, wanted: set[tuple[str, int]]) -> None:
    """Wait until each of these units has answered in this generation."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not wanted <= {
            (r.chosen.unit, r.chosen.generation) for r in load.requests if r.chosen and r.took_seconds
        }:
            await asyncio.sleep(POLL_SECONDS)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("url", ["expire", "deregister"], indirect=True)
def test_no_request_fails_while_four_processes_are_restarted_one_after_another(host: Host, url: str) -> None:
    before = {name: status["generation"] for name, status in host.units().items()}

    seen = asyncio.run(restart_all_under_load(host, url, before))

    after = {name: status["generation"] for name, status in host.units().items()}
    assert after == {name: generation + 1 for name, generation in before.items()}
    assert len(seen.requests) > 1000
    for unit in after:
        chosen = {r.chosen.generation for r in seen.requests if r.chosen is not None and r.chosen.unit == unit}
        assert chosen == {before[unit], after[unit]}, "both its processes must have had requests"
        assert seen.over_its_leaving(unit), "none was with it when it began to leave: this has shown nothing"
    failures = seen.failures
    assert not failures, "requests failed:\n" + "\n".join(failures)
