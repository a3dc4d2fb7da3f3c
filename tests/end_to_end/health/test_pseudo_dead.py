"""Units that live and do not answer: they leave the registry in time, and come back as another process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.health.scene import (
    LATE_SECONDS,
    RegistryLog,
    get,
    notes,
    patient,
    probe,
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


def _configuration(host: Host, names: dict[str, int], illness: str) -> str:
    text = ""
    for name, port in names.items():
        if illness == "exhausted":
            settings = f'service = {{ port = {port}, ttl_seconds = {TTL} }}\ndirectory = "{host.folder}"'
            text += unit(name, f"{POOL} -b 127.0.0.1:{port} pool:app", settings=settings, removal=name, tables=PROBES)
        else:
            text += patient(host, name, port=port, ttl=TTL, removal=name, tables=PROBES)
    return text


def _first_missed_answer(host: Host, name: str) -> float:
    """When its readiness probe is seen to have failed."""
    until(f"{name} has missed an answer", lambda: probe(host.unit(name), "readiness")["streak"] < 0)
    return boottime()


ILLNESSES: dict[str, Callable[[int, int], None]] = {
    "frozen": _freeze, "busy": _tell("busy"), "mute": _tell("mute"), "failing": _tell("fail"),
    "exhausted": _take_the_worker,
}  # fmt: skip


@pytest.mark.parametrize("illness", ILLNESSES)
def test_a_unit_that_lives_and_does_not_answer_leaves_the_registry_and_comes_back_as_another_process(
    host: Host, illness: str
) -> None:
    names = {"expire": host.port(), "deregister": host.port()}  # units called by how their entries leave
    shutil.copy(Path(__file__).with_name("pool.py"), host.folder)
    host.configure(_configuration(host, names, illness))
    host.run()
    before = {name: until_well(host, name)["generation"] for name in names}
    pids = {name: host.unit(name)["pid"] for name in names}

    with RegistryLog(host, names, pids.values()) as registry:
        harmed = {}
        for name, port in names.items():
            harmed[name] = boottime()
            ILLNESSES[illness](port, pids[name])
        missed = {name: _first_missed_answer(host, name) for name in names}
        gone = {name: registry.gone(name, before[name]) for name in names}
        back = {name: registry.came(name, before[name]) for name in names}

    for name, pid in pids.items():
        withdrawn = registry.first(
            "", lambda look, name=name: look.entries.get(name, {}).get("status") != "up", harmed[name]
        )
        print(f"{illness}, {name}: fell ill, {missed[name] - harmed[name]:.2f} s to the first missed answer,"
              f" {gone[name] - missed[name]:.2f} s until it was gone from the registry,"
              f" {back[name] - gone[name]:.2f} s until its next generation was there")  # fmt: skip
        in_time = PERIOD + FAILURES * PERIOD + TIMEOUT + (TTL if name == "expire" else 0)
        assert gone[name] - harmed[name] < in_time + LATE_SECONDS
        assert registry.signalled_early(name, pid, before[name]) == []
        assert all(note.at > withdrawn for note in notes(host, name, "term"))
        until(f"{name}'s old process has ended", lambda pid=pid: not is_alive(pid))
        after = host.unit(name)
        assert after["generation"] == before[name] + 1 and after["pid"] != pid and after["restarts"] == 1
        assert "liveness probe has failed" in after["last_exit"]["reason"], after
