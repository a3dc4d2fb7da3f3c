"""A registered unit is in the registry exactly while it can serve: what the registry shows, seen from outside."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.host import SERVE, Host
from tests.end_to_end.machine import DEADLINE_SECONDS, boottime, started_at, until

TTL = 3.0
LATE_SECONDS = 0.5
TICK = 1 / os.sysconf("SC_CLK_TCK")  # what a process's start time is exact to
POLL_SECONDS = 0.01


class RegistryLog:
    """Looks at one entry all the time, from a thread of its own."""

    def __init__(self, host: Host, service: str, unit: str) -> None:
        self._host, self._service, self._unit = host, service, unit
        self.looks: list[tuple[float, float, Any]] = []  # asked at, answered at (boot time), the entry
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
        while not self._end.wait(POLL_SECONDS):
            asked = boottime()
            entry = self._host.entry(self._service, self._unit)
            self.looks.append((asked, boottime(), entry))

    def gone(self, generation: int) -> tuple[float, float]:
        """Between which two moments the entry of a generation went."""

        def change() -> tuple[float, float] | None:
            for before, after in itertools.pairwise(list(self.looks)):
                was, still = (look[2] and look[2]["generation"] == generation for look in (before, after))
                if was and not still:
                    return before[0], after[1]
            return None

        return until(f"the entry of generation {generation} is gone", change)  # type: ignore[no-any-return]

    def statuses(self, generation: int) -> list[str]:
        """What the entry said of itself, without repetitions."""
        said = [entry["status"] for _, _, entry in self.looks if entry and entry["generation"] == generation]
        return [word for word, _ in itertools.groupby(said)]


class Client:
    """Sends requests to a port one after another, each on a connection of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answers: list[tuple[float, str]] = []  # sent at (boot time), "" or what went wrong
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.002):
            sent = boottime()
            self.answers.append((sent, _request(self._port)))

    def failures(self) -> list[tuple[float, str]]:
        """When requests that failed were sent, and why they did."""
        return [(sent, why) for sent, why in self.answers if why]


def _request(port: int) -> str:
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read()
        return "" if response.status == 200 else f"status {response.status}"
    except (OSError, HTTPException) as error:
        return repr(error)
    finally:
        connection.close()


def notes(path: Path, what: str) -> list[tuple[float, int, int]]:
    """What units have noted: (boot time, pid, generation)."""
    rows = [line.split() for line in path.read_text().splitlines()]
    return [(float(row[1]), int(row[2]), int(row[3])) for row in rows if row[0] == what]


@pytest.fixture
def shop(host: Host) -> Callable[[str], tuple[int, Path]]:
    """Starts a daemon with the registered unit `shop`: its port and its notes."""

    def start(removal: str) -> tuple[int, Path]:
        port, path = host.port(), host.folder / "notes"
        host.configure(
            f"""
            [unit.shop]
            command = "{SERVE} {{port}} {path}"
            startsecs = 0.2
            [unit.shop.service]
            port = {port}
            ttl_seconds = {TTL}
            [unit.shop.restart]
            removal = "{removal}"
            """
        )
        host.run()
        host.until_registered("shop")
        return port, path

    return start


def _wait_for_a_fresh_lease(host: Host) -> float:
    """When the entry was renewed last, just after it was."""

    def look() -> float | None:
        now = boottime()
        ago = host.unit("shop")["lease"]["renewed_seconds_ago"]
        return now - ago if ago is not None and 0.02 < ago < 0.2 else None

    return until("the lease was renewed a moment ago", look)  # type: ignore[no-any-return]


def test_a_killed_unit_stays_listed_until_its_ttl_is_over_and_only_then_comes_back(
    host: Host, shop: Callable[[str], tuple[int, Path]]
) -> None:
    shop("expire")
    before = host.entry("shop", "shop")
    pid = host.unit("shop")["pid"]

    with RegistryLog(host, "shop", "shop") as registry:
        renewed = _wait_for_a_fresh_lease(host)
        os.kill(pid, signal.SIGKILL)
        last_seen, seen_gone = registry.gone(before["generation"])
        after = host.until_registered("shop", before["generation"])

    assert last_seen >= renewed + TTL - 0.2, "it must be there until its ttl is over"
    assert seen_gone <= renewed + TTL + LATE_SECONDS
    new_pid = host.unit("shop")["pid"]
    began = started_at(new_pid)
    assert began is not None and new_pid != pid
    assert began + TICK >= last_seen, "no process may be started while the old entry can be seen"
    assert after["generation"] == before["generation"] + 1
    assert after["started_at"] > before["started_at"]
    assert host.unit("shop")["restarts"] == 1


def test_a_killed_units_entry_is_gone_at_once_where_it_is_to_be_deregistered(
    host: Host, shop: Callable[[str], tuple[int, Path]]
) -> None:
    shop("deregister")
    before = host.entry("shop", "shop")

    with RegistryLog(host, "shop", "shop") as registry:
        killed = boottime()
        os.kill(host.unit("shop")["pid"], signal.SIGKILL)
        last_seen, seen_gone = registry.gone(before["generation"])
        after = host.until_registered("shop", before["generation"])

    assert seen_gone <= killed + LATE_SECONDS
    began = started_at(host.unit("shop")["pid"])
    assert began is not None and began + TICK >= last_seen
    assert after["generation"] == before["generation"] + 1
    assert after["started_at"] > before["started_at"]


@pytest.mark.parametrize("removal", ["expire", "deregister"])
@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_a_unit_is_signalled_only_after_its_entry_is_gone_and_serves_until_then(
    host: Host, shop: Callable[[str], tuple[int, Path]], removal: str, verb: str
) -> None:
    port, path = shop(removal)
    generation = host.unit("shop")["generation"]

    with RegistryLog(host, "shop", "shop") as registry, Client(port) as client:
        until("the client has been answered", lambda: len(client.answers) > 10)
        ordered = boottime()
        host.do(verb, "shop")
        last_seen, seen_gone = registry.gone(generation)
    [(signalled, _, by)] = notes(path, "term")

    assert by == generation
    assert signalled >= last_seen, "the signal must come after the entry is gone"
    if removal == "expire":
        assert registry.statuses(generation) == ["up", "draining"], "readers must be told to send nothing more"
        assert seen_gone - ordered >= TTL / 2, "it is not deregistered but expires"
    else:
        assert seen_gone - ordered <= LATE_SECONDS
    early = [why for sent, why in client.failures() if sent < last_seen]
    assert not early, "requests must be answered until the entry is gone"
    assert sum(sent < signalled for sent, _ in client.answers) > 10
    if verb == "stop":
        assert host.unit("shop")["state"] == "STOPPED"
        assert host.entry("shop", "shop") is None
    else:
        [_, (began, _, new)] = notes(path, "begin")
        assert new == generation + 1 and began > signalled
        assert host.entry("shop", "shop")["generation"] == new


def test_a_unit_that_ends_while_its_entry_expires_does_not_come_back_before_it_is_gone(
    host: Host, shop: Callable[[str], tuple[int, Path]]
) -> None:
    shop("expire")
    before = host.unit("shop")

    with RegistryLog(host, "shop", "shop") as registry:
        _wait_for_a_fresh_lease(host)
        operations = host.order("restart", "shop")
        host.until_state("shop", "EXPIRING")
        os.kill(before["pid"], signal.SIGKILL)
        [operation] = host.finish(operations)
        last_seen, _ = registry.gone(before["generation"])

    assert operation["state"] == "succeeded", operation
    after = host.unit("shop")
    began = started_at(after["pid"])
    assert began is not None and began + TICK >= last_seen
    assert after["generation"] == before["generation"] + 1


def test_an_aborted_stop_puts_the_unit_back_into_the_registry_and_its_process_stays(
    host: Host, shop: Callable[[str], tuple[int, Path]]
) -> None:
    port, path = shop("expire")
    before = host.unit("shop")

    [operation] = host.order("stop", "shop")
    until("the entry says that it leaves", lambda: host.entry("shop", "shop")["status"] == "draining")
    answer = host.ask("POST", f"/v1/operations/{operation['id']}/abort")

    assert answer.status == 200, answer
    until("the entry is up again", lambda: host.entry("shop", "shop")["status"] == "up")
    after = host.unit("shop")
    assert (after["pid"], after["generation"], after["state"]) == (
        before["pid"],
        before["generation"],
        "RUNNING",
    )
    deadline = time.monotonic() + TTL + 1
    while time.monotonic() < deadline:
        entry = host.entry("shop", "shop")
        assert entry is not None and entry["status"] == "up", "its heartbeat goes on"
        time.sleep(0.1)
    assert notes(path, "term") == []
    assert _request(port) == ""


def test_a_rolling_restart_leaves_always_one_of_two_in_the_registry(host: Host) -> None:
    port = host.port(2)
    host.configure(
        f"""
        [unit.cart]
        command = "{SERVE} {{port}}"
        numprocs = 2
        startsecs = 0.2
        service = {{ port = {port}, ttl_seconds = 1 }}
        """
    )
    host.run()
    generations = {name: host.until_registered(name)["generation"] for name in ("cart:0", "cart:1")}
    up_at_once: set[int] = set()
    operations = host.order("restart", "cart")
    deadline = time.monotonic() + DEADLINE_SECONDS
    while any(operation["finished"] is None for operation in operations):
        assert time.monotonic() < deadline
        up = [entry["instance"] for entry in host.entries("cart") if entry["status"] == "up"]
        up_at_once.add(len(up))
        running = [status["state"] == "RUNNING" for status in host.units().values()]
        assert any(running), "one of them must serve"
        operations = host.ask("GET", f"/v1/operations?command_id={operations[0]['command_id']}").json["operations"]

    assert [operation["state"] for operation in operations] == ["succeeded", "succeeded"]
    assert up_at_once <= {1, 2} and 1 in up_at_once, "never both, and not none, may be out of the registry"
    for name, generation in generations.items():
        assert host.unit(name)["generation"] == generation + 1


def test_a_rolling_restart_ends_at_the_first_failure(host: Host) -> None:
    port = host.port(2)
    program = host.file("serve.sh", f'#!/bin/sh\nexec {SERVE} "$@"\n', 0o755)
    host.configure(
        f"""
        [unit.cart]
        command = "{program} {{port}}"
        numprocs = 2
        startsecs = 0.2
        service = {{ port = {port}, ttl_seconds = 1 }}
        restart = {{ removal = "deregister" }}
        """
    )
    host.run()
    host.until_registered("cart:1")
    before = host.unit("cart:1")
    program.unlink()

    first, second = host.finish(host.order("restart", "cart"))

    assert first["unit"] == "cart:0" and first["state"] == "failed" and "no such file" in first["error"]
    assert second["unit"] == "cart:1" and second["state"] == "aborted" and "cart:0" in second["error"]
    assert host.unit("cart:1")["pid"] == before["pid"]
    assert host.unit("cart:0")["state"] == "FATAL"
