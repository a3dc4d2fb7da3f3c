"""The daemon's own signals."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.end_to_end.host import SERVE, Host
from tests.end_to_end.machine import is_alive, until

SLEEP = "/bin/sleep 1000"
LINGER = """["/bin/sh", "-c", 'trap "" TERM; while :; do sleep 0.1; done']"""


def _two_services(host: Host, removal: str = "deregister") -> tuple[int, Path]:
    port, notes = host.port(2), host.folder / "notes"
    host.configure(
        f"""
        [unit.app]
        command = "{SERVE} {{port}} {notes}"
        startsecs = 0.1
        depends_on = ["database"]
        service = {{ port = {port + 1}, ttl_seconds = 1 }}
        restart.removal = "{removal}"
        [unit.database]
        command = "{SERVE} {{port}} {notes} 0 0.3"
        startsecs = 0.1
        service = {{ port = {port}, ttl_seconds = 1 }}
        restart.removal = "{removal}"
        """,
        http=f"127.0.0.1:{host.port()}",
    )
    host.run()
    host.until_registered("app")
    return port, notes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_term_and_int_stop_all_units_in_order_and_end_with_0(any_host: Host, number: int) -> None:
    host = any_host
    _, notes = _two_services(host)
    app, database = host.unit("app")["pid"], host.unit("database")["pid"]

    host.signal(number)

    assert host.wait() == 0
    terms = [int(line.split()[2]) for line in notes.read_text().splitlines() if line.startswith("term")]
    assert terms == [app, database], "dependents first"
    assert host.processes() == set() and host.cgroups() == []
    assert not Path(host.socket).exists()


def test_units_are_withdrawn_before_they_are_signalled_when_the_daemon_is_told_to_end(host: Host) -> None:
    _, notes = _two_services(host, "expire")
    renewed = min(host.unit(name)["lease"]["renewed_seconds_ago"] for name in ("app", "database"))
    begun = time.clock_gettime(time.CLOCK_BOOTTIME)

    host.signal(signal.SIGTERM)
    until("both entries say that they leave", lambda: _statuses(host) <= {"draining"})
    assert host.wait() == 0

    terms = [float(line.split()[1]) for line in notes.read_text().splitlines() if line.startswith("term")]
    assert len(terms) == 2
    assert min(terms) - begun >= 1 - renewed - 0.4, "the entry has to expire first"


def _statuses(host: Host) -> set[str]:
    return {entry["status"] for service in ("app", "database") for entry in host.entries(service)}


def test_the_daemon_answers_while_it_stops_units_and_is_not_ready_then(host: Host) -> None:
    host.configure(f"unit.web = {{ command = {LINGER}, startsecs = 0.3, stopwaitsecs = 1.5 }}")
    host.run()
    host.until_state("web", "RUNNING")

    host.signal(signal.SIGTERM)
    host.until_state("web", "STOPPING")

    assert host.ask("GET", "/readyz").status == 503
    assert host.ask("POST", "/v1/config/apply", {}).status == 503
    assert host.wait() == 0


def test_a_second_int_kills_what_is_left(any_host: Host) -> None:
    host = any_host
    host.configure(f"unit.web = {{ command = {LINGER}, startsecs = 0.3, stopwaitsecs = 60, numprocs = 3 }}")
    host.run()
    for name in host.units():
        host.until_state(name, "RUNNING")

    host.signal(signal.SIGINT)
    for name in host.units():
        host.until_state(name, "STOPPING")
    begun = time.monotonic()
    host.signal(signal.SIGINT)

    assert host.wait(5) == 0
    assert time.monotonic() - begun < 3
    until("all have ended", lambda: not host.processes())


def test_hup_applies_what_has_changed_and_touches_no_other_unit(host: Host) -> None:
    def configure(changed: str, more: str = "") -> None:
        host.configure(
            f"""
            unit.same = {{ command = "{SLEEP}", startsecs = 0.1, numprocs = 2 }}
            unit.changed = {{ command = "{SLEEP}", startsecs = 0.1, {changed} }}
            {more}
            """
        )

    configure('environment = { A = "1" }', f'unit.removed = {{ command = "{SLEEP}", startsecs = 0.1 }}')
    host.run()
    for name in host.units():
        host.until_state(name, "RUNNING")
    before = host.pids()

    configure('environment = { A = "2" }', f'unit.new = {{ command = "{SLEEP}", startsecs = 0.1 }}')
    host.signal(signal.SIGHUP)
    until("the new unit is there", lambda: "new" in host.units())
    until("the removed one is not", lambda: "removed" not in host.units())
    host.until_state("new", "RUNNING")
    until("the changed one has a new process", lambda: host.unit("changed")["generation"] == 2)
    host.until_state("changed", "RUNNING")

    after = host.pids()
    assert {name: after[name] for name in ("same:0", "same:1")} == {name: before[name] for name in ("same:0", "same:1")}
    assert after["changed"] != before["changed"]
    assert not is_alive(before["removed"] or 0)

    configure(
        'environment = { A = "2" }, stopwaitsecs = 3',
        f'unit.new = {{ command = "{SLEEP}", startsecs = 0.2 }}',
    )
    host.signal(signal.SIGHUP)
    until("it was applied", lambda: host.said().count("configuration applied") == 2)
    assert host.pids() == after, "these settings count without a new process"


def test_hup_with_a_mistake_in_the_file_changes_nothing(host: Host) -> None:
    host.configure(f'unit.web = {{ command = "{SLEEP}", startsecs = 0.1 }}')
    host.run()
    before = host.until_state("web", "RUNNING")

    host.configure('unit.web = { comand = "/bin/sleep 5" }')
    host.signal(signal.SIGHUP)

    until("the daemon complains", lambda: "not applied" in host.said())
    assert "unit.web.comand" in host.said() and str(host.config) in host.said()
    assert host.unit("web")["pid"] == before["pid"]


def test_a_changed_weight_is_in_the_registry_without_a_new_process(host: Host) -> None:
    port = host.port()

    def configure(weight: int) -> None:
        host.configure(
            f"""
            [unit.web]
            command = "{SERVE} {{port}}"
            startsecs = 0.1
            service = {{ port = {port}, weight = {weight} }}
            restart.removal = "deregister"
            """
        )

    configure(100)
    host.run()
    before = host.until_registered("web")
    assert before["weight"] == 100

    configure(30)
    host.signal(signal.SIGHUP)

    until("the registry knows", lambda: host.entry("web", "web")["weight"] == 30)
    assert host.entry("web", "web")["generation"] == before["generation"]


def test_usr2_opens_logs_again_after_they_were_renamed(host: Host) -> None:
    host.configure(
        """
        [unit.web]
        command = ["/bin/sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"]
        startsecs = 0.1
        """
    )
    host.run()
    log, renamed = host.folder / "log/web.out.log", host.folder / "log/web.out.log.old"
    until("there is a log", lambda: log.exists() and log.stat().st_size > 20)

    log.rename(renamed)
    host.signal(signal.SIGUSR2)

    until("there is a new log", lambda: log.exists() and log.stat().st_size > 20)
    host.do("stop", "web")
    until("all is written", lambda: host.unit("web")["state"] == "STOPPED")
    host.stop()
    numbers = [int(line) for line in (renamed.read_text() + log.read_text()).split()]
    assert numbers == list(range(1, len(numbers) + 1)), "no line may be lost, doubled or torn"


def test_usr1_logs_the_state_of_every_unit(host: Host) -> None:
    host.configure(
        f'unit.web = {{ command = "{SLEEP}", startsecs = 0.1 }}\nunit.other = {{ command = "/srv/nothing" }}'
    )
    host.run()
    pid = host.until_state("web", "RUNNING")["pid"]

    host.signal(signal.SIGUSR1)

    until("it says so", lambda: f"web  RUNNING  pid {pid}" in host.said())
    until("it says why", lambda: "other  FATAL" in host.said())


def test_quit_ends_the_daemon_at_once_and_leaves_units_running(host: Host) -> None:
    host.configure(f'unit.web = {{ command = "{SLEEP}", startsecs = 0.1, numprocs = 2 }}')
    host.run()
    for name in host.units():
        host.until_state(name, "RUNNING")
    pids = {pid for pid in host.pids().values() if pid}

    host.signal(signal.SIGQUIT)

    assert host.wait(5) == 0
    assert all(is_alive(pid) for pid in pids)
    assert host.processes() == pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until("they have ended", lambda: not any(is_alive(pid) for pid in pids))
    Path(host.socket).unlink(missing_ok=True)
