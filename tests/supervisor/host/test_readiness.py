"""What every registered unit must show before it is ready."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from supervisor.host.readiness import Door
from supervisor.plugin_api import ProbeResult, Target
from tests.supervisor.running import run


@contextmanager
def port(host: str = "127.0.0.1") -> Iterator[tuple[socket.socket, int]]:
    """A port that nobody else has, and that does not listen yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as made:
        made.bind((host, 0))
        yield made, made.getsockname()[1]


class Unit:
    """A door, who stands behind it, and who was asked about that."""

    def __init__(self, stranger: str = "") -> None:
        self.asked = list[str]()
        self.stranger = stranger

    def vouch(self, unit: str) -> str:
        self.asked.append(unit)
        return self.stranger

    def try_port(self, number: int | None, host: str = "127.0.0.1", seconds: float = 5.0) -> ProbeResult:
        return run(Door(self.vouch).check(Target("web", 1, 4242, host, number), seconds))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_must_accept_connections(host: str) -> None:
    with port(host) as (listener, number):
        unit = Unit()
        refused = unit.try_port(number, host)
        assert refused == ProbeResult(False, f"port {number} does not accept connections: connection refused")
        assert unit.asked == [], "nobody needs to vouch for what is not there"
        listener.listen()
        assert unit.try_port(number, host) == ProbeResult(True, f"port {number} accepts connections")
        assert unit.asked == ["web"]


def test_a_port_that_accepts_must_also_be_its_own() -> None:
    with port() as (listener, number):
        listener.listen()
        assert Unit("process 77 listens there").try_port(number) == ProbeResult(False, "process 77 listens there")


def test_a_port_that_takes_no_connection_is_not_waited_for_any_longer() -> None:
    """Its queue is full, so that a connection is neither made nor refused."""
    with port() as (listener, number):
        listener.listen(0)
        with socket.create_connection(("127.0.0.1", number)):
            result = Unit().try_port(number, seconds=0.2)
            assert result == ProbeResult(False, f"port {number} does not accept connections: no answer within 0.2 s")
            listener.settimeout(5)
            listener.accept()[0].close()
            assert Unit().try_port(number).ok


def test_without_descriptors_the_door_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **more: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    door = Unit()
    with port() as (listener, number):
        listener.listen()

        async def scenario() -> ProbeResult:
            with monkeypatch.context() as patched:
                patched.setattr(socket, "socket", refuse)
                return await Door(door.vouch).check(Target("web", 1, 4242, "127.0.0.1", number), 1.0)

        assert "too many open files" in run(scenario()).detail


def test_a_unit_without_a_port_has_no_door() -> None:
    assert Unit().try_port(None) == ProbeResult(False, "it has no port")


SELF = """
import asyncio, sys
from pathlib import Path
from supervisor.host.readiness import Door
from supervisor.plugin_api import Target

Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40001")

async def main():
    door, target = Door(lambda unit: ""), Target("web", 1, 4242, "127.0.0.1", 40000)
    results = [await door.check(target, 1.0) for _ in range(50)]
    print("open" if any(result.ok for result in results) else "closed")

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
    assert (result.stdout, result.stderr) == ("closed\n", "")
