"""start, stop, restart and status on real processes: what they do, to which units, and in which order."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.end_to_end.host import SERVE, Host
from tests.end_to_end.machine import is_alive, until

SLEEP = "/bin/sleep 1000"
LINGER = """["/bin/sh", "-c", 'trap "" TERM; while :; do sleep 0.1; done']"""


def test_start_and_stop_may_be_repeated(host: Host) -> None:
    host.configure(f'unit.web = {{ command = "{SLEEP}", startsecs = 0.1, autostart = false }}')
    host.run()
    assert (host.unit("web")["state"], host.unit("web")["generation"]) == ("STOPPED", 0)

    host.do("stop", "web")
    host.do("start", "web")
    started = host.unit("web")
    host.do("start", "web")

    assert host.unit("web")["pid"] == started["pid"], "it was running already"
    assert started["state"] == "RUNNING" and started["generation"] == 1
    host.do("stop", "web")
    host.do("stop", "web")
    stopped = host.unit("web")
    assert (stopped["state"], stopped["pid"], stopped["generation"]) == ("STOPPED", None, 1)
    assert not is_alive(started["pid"])
    assert host.processes() == set()


def test_starts_ordered_at_the_same_time_make_one_process(host: Host) -> None:
    host.configure(f'unit.web = {{ command = "{SLEEP}", startsecs = 0.3, autostart = false }}')
    host.run()

    operations = [*host.order("start", "web"), *host.order("start", "web"), *host.order("start", "web")]

    assert [operation["state"] for operation in host.finish(operations)] == ["succeeded"] * 3
    assert host.unit("web")["generation"] == 1
    assert len(host.processes()) == 1


def test_a_command_with_the_same_id_is_the_same_command(host: Host) -> None:
    host.configure(f'unit.web = {{ command = "{SLEEP}", startsecs = 0.1 }}')
    host.run()
    host.until_state("web", "RUNNING")
    body = {"command_id": "restart-1"}

    first = host.ask("POST", "/v1/units/web/restart", body).json["operations"]
    host.finish(first)
    again = host.ask("POST", "/v1/units/web/restart", body).json["operations"]

    assert [operation["id"] for operation in again] == [operation["id"] for operation in first]
    assert host.unit("web")["generation"] == 2
    assert host.ask("POST", "/v1/units/web/stop", body).status == 422


def test_groups_globs_and_all_choose_units(host: Host) -> None:
    host.configure(
        f"""
        unit.cart = {{ command = "{SLEEP}", numprocs = 2, startsecs = 0.1, autostart = false }}
        unit.catalog = {{ command = "{SLEEP}", startsecs = 0.1, autostart = false }}
        unit.shop = {{ command = "{SLEEP}", startsecs = 0.1, autostart = false }}
        """
    )
    host.run()

    def up() -> list[str]:
        return [name for name, status in host.units().items() if status["state"] == "RUNNING"]

    assert {operation["unit"] for operation in host.do("start", "cart")} == {"cart:0", "cart:1"}
    assert up() == ["cart:0", "cart:1"]
    host.do("stop", "cart:1")
    assert up() == ["cart:0"]
    host.do("start", "ca*")
    assert up() == ["cart:0", "cart:1", "catalog"]
    host.do("stop", "cart:*")
    assert up() == ["catalog"]
    host.do("start", "all")
    assert up() == ["cart:0", "cart:1", "catalog", "shop"]
    host.do("restart", "sh?p,cart:0")
    assert {name: status["generation"] for name, status in host.units().items()} == {
        "cart:0": 3, "cart:1": 3, "catalog": 1, "shop": 2,
    }  # fmt: skip
    unknown = host.ask("POST", "/v1/units/shopp/stop")
    assert unknown.status == 404 and unknown.json["nearest"] == "shop"


def test_the_processes_of_a_unit_have_neighbouring_ports_and_numbers(host: Host) -> None:
    port = host.port(5)
    host.configure(
        f"""
        [unit.web]
        command = ["/bin/sh", "-c", 'echo "$0 $UNITD_PORT $UNITD_NUMBER $UNITD_UNIT"; exec {SERVE} $0', "{{port}}"]
        numprocs = 3
        numprocs_start = 2
        startsecs = 0.2
        service = {{ port = {port}, ttl_seconds = 1 }}
        """
    )
    host.run()

    for number in (2, 3, 4):
        entry = host.until_registered(f"web:{number}")
        assert entry["port"] == port + number
        said = f"{port + number} {port + number} {number} web:{number}\n"
        log = host.folder / f"log/web-{number}.out.log"
        until("its words are logged", log.exists)
        assert log.read_text() == said


def test_units_start_when_what_they_depend_on_is_ready_and_stop_before_it(host: Host) -> None:
    port, notes = host.port(2), host.folder / "notes"
    host.configure(
        f"""
        [unit.app]
        command = "{SERVE} {{port}} {notes}"
        startsecs = 0.1
        depends_on = ["database"]
        service.port = {port + 1}
        restart.removal = "deregister"
        [unit.database]
        command = "{SERVE} {{port}} {notes} 0.7 0.3"
        startsecs = 0.1
        service.port = {port}
        restart.removal = "deregister"
        """
    )
    host.run()

    def waits() -> bool:
        return bool(host.unit("app")["why"] == "waits for database to be ready")

    until("the app says what it waits for", waits)
    assert host.unit("app")["state"] == "STARTING" and host.unit("app")["pid"] is None
    app = host.until_registered("app")
    assert app["started_at"] > host.entry("database", "database")["started_at"]
    begun = _noted(notes, "begin")
    assert begun[1][1] - begun[0][1] >= 0.7, "it must wait until the other is ready"

    host.do("stop", "database")

    assert {name: status["state"] for name, status in host.units().items()} == {
        "app": "STOPPED",
        "database": "STOPPED",
    }
    first, second = (pid for pid, _ in _noted(notes, "term"))
    assert [first, second] == [begun[1][0], begun[0][0]], "what depends on it is stopped first"
    operations = host.do("start", "app")
    assert [operation["unit"] for operation in operations] == ["database", "app"]


def _noted(path: Path, what: str) -> list[tuple[int, float]]:
    rows = [line.split() for line in path.read_text().splitlines()]
    return [(int(row[2]), float(row[1])) for row in rows if row[0] == what]


def test_a_unit_that_does_not_want_to_stop_delays_no_other(any_host: Host) -> None:
    host = any_host
    host.configure(
        f"""
        unit.stubborn = {{ command = {LINGER}, startsecs = 0.3, stopwaitsecs = 4 }}
        unit.quick = {{ command = "{SLEEP}", startsecs = 0.3, stopwaitsecs = 4, numprocs = 3 }}
        """
    )
    host.run()
    for name in host.units():
        host.until_state(name, "RUNNING")

    begun = time.monotonic()
    operations = host.order("stop", "all")
    quick = [operation for operation in operations if operation["unit"] != "stubborn"]
    host.finish(quick, seconds=3)
    assert time.monotonic() - begun < 2
    assert host.unit("stubborn")["state"] == "STOPPING"
    assert "SIGTERM was sent" in host.unit("stubborn")["why"] and "SIGKILL follows in" in host.unit("stubborn")["why"]
    host.do("start", "quick:0")
    assert host.unit("stubborn")["state"] == "STOPPING"
    host.finish(operations, seconds=6)

    assert time.monotonic() - begun >= 3.9
    assert host.processes("stubborn") == set()
    host.do("stop", "quick:0")
    until("nothing is left", lambda: not host.processes() and not host.cgroups())


def test_a_unit_that_is_being_stopped_comes_back_when_it_is_started_meanwhile(host: Host) -> None:
    host.configure(f"unit.web = {{ command = {LINGER}, startsecs = 0.2, stopwaitsecs = 0.5 }}")
    host.run()
    old = host.until_state("web", "RUNNING")

    [stop] = host.order("stop", "web")
    host.until_state("web", "STOPPING")
    [start] = host.order("start", "web")

    assert host.finish([stop, start])[1]["state"] == "succeeded"
    new = host.unit("web")
    assert (new["state"], new["generation"]) == ("RUNNING", 2)
    assert not is_alive(old["pid"])


def test_a_unit_that_is_stopped_while_it_starts_stays_down(host: Host) -> None:
    host.configure(f'unit.web = {{ command = "{SLEEP}", startsecs = 30, autostart = false }}')
    host.run()
    [start] = host.order("start", "web")
    status = host.until_state("web", "STARTING")
    until("it has a process", lambda: host.unit("web")["pid"])
    assert "it must be alive for 30 s" in status["why"] or "being started" in status["why"]

    host.do("stop", "web")

    assert host.finish([start])[0]["state"] == "aborted"
    assert host.unit("web")["state"] == "STOPPED"
    assert host.processes() == set()


def test_restarting_a_stopped_unit_starts_it(host: Host) -> None:
    host.configure(f'unit.web = {{ command = "{SLEEP}", startsecs = 0.1, autostart = false }}')
    host.run()

    host.do("restart", "web")

    assert host.unit("web")["state"] == "RUNNING"


def test_signals_reach_the_leading_process_only(host: Host) -> None:
    host.configure(
        """
        [unit.web]
        command = ["/bin/sh", "-c", 'trap "echo caught" USR1; echo ready; while :; do sleep 0.05; done']
        startsecs = 0.1
        """
    )
    host.run()
    log = host.folder / "log/web.out.log"
    until("it is ready", lambda: log.exists() and "ready" in log.read_text())

    host.do("signal", "web", signal="USR1")

    until("it has caught the signal", lambda: "caught" in log.read_text())
    host.do("stop", "web")
    [failed] = host.finish(host.order("signal", "web", signal="USR1"))
    assert failed["state"] == "failed" and "no running process" in failed["error"]


@pytest.mark.parametrize(
    ("autorestart", "code", "state"),
    [
        ("unexpected", 0, "EXITED"),
        ("unexpected", 3, "RUNNING"),
        ("never", 3, "EXITED"),
        ("always", 0, "RUNNING"),
    ],
)
def test_autorestart_decides_what_follows_an_exit(host: Host, autorestart: str, code: int, state: str) -> None:
    once = host.folder / "once"
    host.configure(
        f"""
        [unit.web]
        command = ["/bin/sh", "-c", "test -e {once} && exec sleep 1000; touch {once}; sleep 0.4; exit {code}"]
        startsecs = 0.2
        autorestart = "{autorestart}"
        """
    )
    host.run()
    until("it has exited", lambda: host.unit("web")["last_exit"])
    status = host.until_state("web", state)

    assert (status["last_exit"]["code"], status["last_exit"]["signal"]) == (code, None)
    assert status["restarts"] == (1 if state == "RUNNING" else 0)
    assert f"exited with code {code}" in status["last_exit"]["reason"]
