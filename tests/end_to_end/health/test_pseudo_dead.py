"""Units that live and do not answer: they leave the registry in time, and come back as another process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.end_to_end.health.scene import (
    LATE_SECONDS,
    RegistryLog,
    get,
    patient,
    unit,
    until_well,
)
from tests.end_to_end.host import Host
from tests.end_to_end.machine import boottime, is_alive, until

PERIOD, TIMEOUT, FAILURES, TTL = 0.3, 0.3, 2, 0.6
PROBES = f"""
    [unit.NAME.readiness]
    http = "/healthz"
    period = {PERIOD}
    timeout = {TIMEOUT}
    failure_threshold = {FAILURES}
    [unit.NAME.liveness]
    http = "/healthz"
    period = {PERIOD}
    timeout = {TIMEOUT}
    failure_threshold = {FAILURES + 2}
"""
POOL = f"{sys.executable} -m gunicorn --no-control-socket -w 1 --timeout 600 --graceful-timeout 600"


def _freeze(port: int, pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def _tell(word: str) -> Callable[[int, int], None]:
    return lambda port, pid: _expect_200(port, f"/do/{word}")


def _expect_200(port: int, path: str) -> None:
    assert get(port, path) == 200


def _take_the_worker(port: int, pid: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n")


ILLNESSES: dict[str, Callable[[int, int], None]] = {
    "frozen": _freeze, "busy": _tell("busy"), "mute": _tell("mute"), "failing": _tell("fail"),
    "exhausted": _take_the_worker,
}  # fmt: skip


def _configuration(host: Host, ports: dict[str, int], removal: str) -> str:
    text = ""
    for name, port in ports.items():
        if name == "exhausted":
            settings = f'service = {{ port = {port}, ttl_seconds = {TTL} }}\ndirectory = "{host.folder}"'
            command = f"{POOL} -b 127.0.0.1:{port} pool:app"
            text += unit(name, command, settings=settings, removal=removal, tables=PROBES)
        else:
            text += patient(host, name, port=port, ttl=TTL, removal=removal, tables=PROBES)
    return text


def _first_missed_answers(host: Host, names: Iterable[str]) -> dict[str, float]:
    """When each unit's readiness probe was seen to have failed for the first time."""
    missed: dict[str, float] = {}

    def look() -> bool:
        for name, status in host.units().items():
            if any(item["role"] == "readiness" and item["streak"] < 0 for item in status["probes"]):
                missed.setdefault(name, boottime())
        return missed.keys() >= set(names)

    until("all have missed an answer", look)
    return missed


@pytest.mark.parametrize("removal", ["expire", "deregister"])
def test_units_that_live_and_do_not_answer_leave_the_registry_and_come_back_as_other_processes(
    host: Host, removal: str
) -> None:
    ports = {illness: host.port() for illness in ILLNESSES}  # each unit is called by what befalls it
    shutil.copy(Path(__file__).with_name("pool.py"), host.folder)
    host.configure(_configuration(host, ports, removal), mass_failure_percent=100)
    host.run()
    before = {name: until_well(host, name)["generation"] for name in ports}
    pids = {name: host.unit(name)["pid"] for name in ports}

    with RegistryLog(host, ports, pids.values()) as registry:
        harmed = {}
        for name, port in ports.items():
            harmed[name] = boottime()
            ILLNESSES[name](port, pids[name])
        missed = _first_missed_answers(host, ports)
        gone = {name: registry.gone(name, before[name]) for name in ports}
        back = {name: registry.came(name, before[name]) for name in ports}

    for name, pid in pids.items():
        print(f"{name}, {removal}: {missed[name] - harmed[name]:.2f} s to the first missed answer,"
              f" {gone[name] - missed[name]:.2f} s more until it was gone from the registry,"
              f" {back[name] - gone[name]:.2f} s more until its next generation was there")  # fmt: skip
        in_time = PERIOD + FAILURES * PERIOD + TIMEOUT + (TTL if removal == "expire" else 0)
        assert gone[name] - harmed[name] < in_time + LATE_SECONDS
        assert registry.signalled_early(name, pid, before[name]) == []
        until(f"{name}'s old process has ended", lambda pid=pid: not is_alive(pid))
        after = host.unit(name)
        assert after["generation"] == before[name] + 1 and after["pid"] != pid and after["restarts"] == 1
        assert "liveness probe has failed" in after["last_exit"]["reason"], after
