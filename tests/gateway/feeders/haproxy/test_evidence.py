"""What a real HAProxy sees of servers that die, hang, refuse and come back is what the feeder reports."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.model import Failure, Health, Recovery, Symptom
from tests.end_to_end.machine import until
from tests.gateway.feeders.haproxy import origin
from tests.gateway.feeders.haproxy.scene import Clients, eventually, feeding, pool, server, sight
from tests.servers.fixtures import StartServer
from tests.servers.haproxy import Haproxy
from tests.servers.processes import Process, free_port

pytestmark = pytest.mark.real


class Mortal:
    """A server that is a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.port, self._folder = free_port(), folder
        self.start()

    def start(self) -> None:
        """Another process at the same port; it listens."""
        environment = {"PATH": os.environ["PATH"]}
        self.process = Process([sys.executable, origin.__file__, str(self.port)], self._folder / "log", environment)
        until("it listens", lambda: self.process.listens_on(self.port))


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Mortal]:
    """One such."""
    server = Mortal(tmp_path)
    yield server
    server.process.end()


async def _found(feeder, kind, seen):
    """The findings of this kind so far; each look adds its own."""
    seen += (await sight(feeder)).findings
    return [finding for finding in seen if isinstance(finding, kind)]


async def _refused(feeder, seen):
    failures = await _found(feeder, Failure, seen)
    return [failure for failure in failures if failure.symptom is Symptom.CONNECT_REFUSED]


async def _down(feeder, seen):
    return [finding for finding in await _found(feeder, Failure, seen) if finding.down]


async def _up(feeder, port):
    """It has been checked, and is well."""
    return any(
        view.instance.endswith(f":{port}") and view.health is Health.UP and view.detail.endswith("OK")
        for view in (await sight(feeder)).views
    )


async def test_a_killed_server_is_down_and_recovers(haproxy: Haproxy, mortal: Mortal) -> None:
    """Reported once each, with what the check says; the recovery when it has been up for a moment."""
    me = server(mortal.port)
    seen: list[object] = []
    async with feeding(haproxy) as feeder:
        await feeder.apply(pool(me))
        await eventually("it is up", lambda: _up(feeder, mortal.port))
        mortal.process.end()
        (down,) = await eventually("it is down", lambda: _down(feeder, seen))
        assert (down.instance, down.generation, down.symptom) == (me.instance, 1, Symptom.CONNECT_REFUSED)
        assert down.detail == "L4CON Connection refused"
        mortal.start()
        (recovery,) = await eventually("it is well", lambda: _found(feeder, Recovery, seen))
        assert recovery == Recovery("cart", me.instance, 1)
    assert len([each for each in seen if isinstance(each, Failure) and each.down]) == 1


async def test_a_frozen_server_is_down_by_a_check_of_http(start_server: StartServer, mortal: Mortal) -> None:
    """It still accepts connections, so that only a check that wants an answer sees it."""
    backend = "    option httpchk GET /\n    timeout check 200ms\n    server-template {service}- 1-4 127.0.0.1:1 check inter 200ms fall 2 disabled\n"
    haproxy = await asyncio.to_thread(start_server, Haproxy, backend=backend)
    seen: list[object] = []
    async with feeding(haproxy) as feeder:
        await feeder.apply(pool(server(mortal.port)))
        await eventually("it is up", lambda: _up(feeder, mortal.port))
        mortal.process.signal(signal.SIGSTOP)
        (down,) = await eventually("it is down", lambda: _down(feeder, seen))
    assert down.symptom is Symptom.RESPONSE_TIMEOUT
    assert down.detail.startswith("L7TOUT")


async def test_requests_that_are_not_answered_are_failures_while_the_check_is_content(
    start_server: StartServer, mortal: Mortal
) -> None:
    """A frozen server passes a check that only connects."""
    haproxy = await asyncio.to_thread(start_server, Haproxy, extra_defaults="    timeout server 200ms")
    seen: list[object] = []
    async with feeding(haproxy) as feeder:
        await feeder.apply(pool(server(mortal.port)))
        await eventually("it is up", lambda: _up(feeder, mortal.port))
        mortal.process.signal(signal.SIGSTOP)
        with Clients(haproxy) as clients:
            await eventually("three have failed", lambda: len(clients.failures) >= 3)
        failures = await _found(feeder, Failure, seen)
    assert {failure.symptom for failure in failures} == {Symptom.RESPONSE_TIMEOUT}
    assert sum(failure.count for failure in failures) >= 3
    assert not any(failure.down for failure in failures)


async def test_requests_that_go_elsewhere_because_a_server_refuses_them_are_failures(
    start_server: StartServer, mortal: Mortal, tmp_path: Path
) -> None:
    """No client notices: another server answers. Without checks, only the requests tell."""
    haproxy = await asyncio.to_thread(
        start_server, Haproxy, backend="    server-template {service}- 1-4 127.0.0.1:1 disabled\n"
    )
    seen: list[object] = []
    other = Mortal(tmp_path)
    try:
        async with feeding(haproxy) as feeder:
            await feeder.apply(pool(server(mortal.port), server(other.port)))
            with Clients(haproxy, count=1) as clients:
                clients.tolerates_absence = True
                await eventually("both answer", lambda: len(clients.answers) == 2)
                await sight(feeder)
                clients.failures.clear()
                mortal.process.end()
                await eventually("it is noticed", lambda: _refused(feeder, seen))
                views = (await sight(feeder)).views
        assert not clients.failures
    finally:
        other.process.end()
    assert {finding.instance for finding in seen} == {server(mortal.port).instance}
    assert {view.health for view in views} == {Health.UNKNOWN}


async def test_answers_with_5xx_are_failures_when_they_are_many(haproxy: Haproxy, mortal: Mortal) -> None:
    """A single one among good ones is not."""
    seen: list[object] = []
    async with feeding(haproxy) as feeder:
        await feeder.apply(pool(server(mortal.port)))
        await eventually("it is up", lambda: _up(feeder, mortal.port))
        with Clients(haproxy, path="/bad") as clients:
            await eventually("some have failed", lambda: len(clients.failures) >= 5)
        failures = await _found(feeder, Failure, seen)
    assert {failure.symptom for failure in failures} == {Symptom.ERROR_ANSWERS}
    assert all("5xx" in failure.detail for failure in failures)


async def test_a_server_that_drains_is_not_reported(haproxy: Haproxy, mortal: Mortal) -> None:
    """It is on its way out, and may end whenever it likes."""
    seen: list[object] = []
    async with feeding(haproxy) as feeder:
        await feeder.apply(pool(server(mortal.port)))
        await eventually("it is up", lambda: _up(feeder, mortal.port))
        await feeder.apply(pool(server(mortal.port, weight=0), revision=2))
        mortal.process.end()
        await eventually("HAProxy has seen it", lambda: "DOWN" in haproxy.ask("show stat") or None)
        await _found(feeder, Failure, seen)
    assert not seen
