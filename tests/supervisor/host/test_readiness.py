"""When a started unit is ready."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from supervisor.core.events import Event, Ready
from supervisor.core.model import ServiceSpec, UnitSpec
from supervisor.host import readiness
from supervisor.host.clock import monotonic
from supervisor.host.readiness import Readiness
from tests.supervisor.running import run, until

WEB = UnitSpec("web", "web", 0, ("web",), startsecs=0.1)


@contextmanager
def port(host: str = "127.0.0.1") -> Iterator[tuple[socket.socket, int]]:
    """A port that nobody else has, and that does not listen yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as made:
        made.bind((host, 0))
        yield made, made.getsockname()[1]


def serving(port: int, host: str = "127.0.0.1", startsecs: float = 0.0) -> UnitSpec:
    return replace(WEB, startsecs=startsecs, service=ServiceSpec("shop", host, port))


class Watched:
    """Readiness, and what it said."""

    def __init__(self) -> None:
        self.posted = list[tuple[str, Event]]()
        self.readiness = Readiness(lambda unit, event: self.posted.append((unit, event)))


def test_a_unit_without_a_port_is_ready_when_it_has_lived_long_enough() -> None:
    async def scenario() -> None:
        it, began = Watched(), monotonic()
        it.readiness.watch(WEB, 3)
        assert it.posted == []
        await until(lambda: it.posted)
        ((name, event),) = it.posted
        assert isinstance(event, Ready)
        assert (name, event.attempt) == ("web", 3)
        assert 0.1 <= event.at - began < 5

    run(scenario())


def test_without_a_time_to_live_it_is_ready_at_once() -> None:
    async def scenario() -> None:
        it = Watched()
        it.readiness.watch(replace(WEB, startsecs=0.0), 1)
        assert len(it.posted) == 1

    run(scenario())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_unit_with_a_port_is_ready_when_the_port_accepts(host: str) -> None:
    async def scenario() -> None:
        it = Watched()
        with port(host) as (listener, number):
            it.readiness.watch(serving(number, host), 1)
            await asyncio.sleep(4 * readiness.FIRST_RETRY_SECONDS)
            assert it.posted == [], "nobody listens"
            listener.listen()
            began = monotonic()
            await until(lambda: it.posted)
            assert monotonic() - began < 2 * readiness.LAST_RETRY_SECONDS

    run(scenario())


def test_a_port_that_accepts_at_once_still_waits_for_the_time_to_live() -> None:
    async def scenario() -> None:
        it = Watched()
        with port() as (listener, number):
            listener.listen()
            began = monotonic()
            it.readiness.watch(serving(number, startsecs=0.15), 1)
            await until(lambda: it.posted)
            assert monotonic() - began >= 0.15

    run(scenario())


def test_a_port_that_takes_no_connection_is_tried_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its queue is full, so that a connection is neither made nor refused."""
    monkeypatch.setattr(readiness, "CONNECT_SECONDS", 0.1)

    async def scenario() -> None:
        it = Watched()
        with port() as (listener, number):
            listener.listen(0)
            with socket.create_connection(("127.0.0.1", number)):
                it.readiness.watch(serving(number), 1)
                await asyncio.sleep(0.3)
                assert it.posted == []
                listener.settimeout(5)
                listener.accept()[0].close()
                await until(lambda: it.posted)

    run(scenario())


def test_a_forgotten_unit_is_never_ready() -> None:
    async def scenario() -> None:
        it = Watched()
        with port() as (listener, number):
            it.readiness.watch(WEB, 1)
            it.readiness.watch(replace(serving(number), name="cart"), 1)
            await asyncio.sleep(0.02)
            for name in ("web", "cart", "unknown"):
                it.readiness.forget(name)
            listener.listen()
            await asyncio.sleep(0.2)
            assert it.posted == []

    run(scenario())


def test_the_next_attempt_replaces_the_last() -> None:
    async def scenario() -> None:
        it = Watched()
        it.readiness.watch(WEB, 1)
        it.readiness.watch(WEB, 2)
        await asyncio.sleep(0.25)
        assert [event.attempt for _, event in it.posted if isinstance(event, Ready)] == [2]

    run(scenario())


def test_without_descriptors_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real, refused = socket.socket, list[int]()

    def refuse(*arguments: object, **more: object) -> socket.socket:
        if len(refused) < 2:
            refused.append(1)
            raise OSError(24, "Too many open files")
        return real(*arguments, **more)  # type: ignore[arg-type]

    async def scenario() -> None:
        it = Watched()
        with port() as (listener, number):
            listener.listen()
            monkeypatch.setattr(socket, "socket", refuse)
            it.readiness.watch(serving(number), 1)
            await until(lambda: it.posted)
            monkeypatch.undo()

    run(scenario())
    assert len(refused) == 2


SELF = """
import asyncio, sys
from pathlib import Path
from supervisor.core.model import ServiceSpec, UnitSpec
from supervisor.host.readiness import Readiness

Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40001")

async def main():
    posted = []
    readiness = Readiness(lambda unit, event: posted.append(event))
    spec = UnitSpec("web", "web", 0, ("web",), startsecs=0, service=ServiceSpec("s", "127.0.0.1", 40000))
    readiness.watch(spec, 1)
    await asyncio.sleep(1)
    print("ready" if posted else "not ready")
    readiness.forget("web")

asyncio.run(main())
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="needs a network of its own: root, unshare"
)
def test_a_connection_to_ourselves_is_no_sign_of_a_unit() -> None:
    """A port that nobody listens on, from the range that our own ends are taken from: TCP may connect it to itself."""
    inside = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, "-c", SELF]
    result = subprocess.run(inside, capture_output=True, text=True, timeout=15, check=False)
    if "unshare" in result.stderr or "ip: " in result.stderr:
        pytest.skip(f"no network of its own: {result.stderr}")
    assert (result.stdout, result.stderr) == ("not ready\n", "")
