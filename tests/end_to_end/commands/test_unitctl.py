"""unitctl against the real daemon: what it prints, and its exit codes."""

from __future__ import annotations

import json
import signal

from tests.end_to_end.host import Host
from tests.end_to_end.machine import until

SLEEP = "/bin/sleep 1000"


def _run(host: Host, more: str = "") -> None:
    host.configure(
        f"""
        unit.web = {{ command = "{SLEEP}", startsecs = 0.1, numprocs = 2 }}
        unit.shop = {{ command = "{SLEEP}", startsecs = 0.1, autostart = false }}
        {more}
        """
    )
    host.run()
    for name in ("web:0", "web:1"):
        host.until_state(name, "RUNNING")


def test_status_prints_what_the_api_says(host: Host) -> None:
    _run(host)

    text = host.unitctl("status", "web:0")
    printed = host.unitctl("-o", "json", "status")

    pid = host.unit("web:0")["pid"]
    assert (text.returncode, text.stderr) == (0, "")
    assert "web:0" in text.stdout and "RUNNING" in text.stdout and f"pid {pid}" in text.stdout
    assert printed.returncode == 3, "one unit is not running"
    shown = {status["unit"]: status for status in json.loads(printed.stdout)}
    assert set(shown) == {"web:0", "web:1", "shop"}
    assert set(shown["web:0"]) == set(host.unit("web:0"))
    assert (shown["web:0"]["pid"], shown["shop"]["state"]) == (pid, "STOPPED")


def test_start_stop_and_restart_wait_until_it_is_done(host: Host) -> None:
    _run(host)
    pid = host.unit("web:0")["pid"]

    assert host.unitctl("start", "shop").returncode == 0
    assert host.unit("shop")["state"] == "RUNNING"
    assert host.unitctl("restart", "web").returncode == 0
    assert host.unit("web:0")["pid"] != pid and host.unit("web:0")["state"] == "RUNNING"
    assert host.unitctl("stop", "web:*", "shop").returncode == 0
    assert {status["state"] for status in host.units().values()} == {"STOPPED"}
    assert host.processes() == set()


def test_failures_have_their_exit_codes_and_say_why(host: Host) -> None:
    _run(host, 'unit.broken = { command = "/srv/nothing", autostart = false }')

    failed = host.unitctl("start", "broken")
    unknown = host.unitctl("stop", "wbe:0")

    assert failed.returncode == 1 and "no such file: /srv/nothing" in failed.stderr
    assert unknown.returncode == 4 and "did you mean web:0" in unknown.stderr
    assert host.unitctl("stpo").returncode == 2


def test_a_daemon_that_is_not_there_is_unreachable(host: Host) -> None:
    _run(host)
    host.stop()

    assert host.unitctl("start", "web").returncode == 69
    status = host.unitctl("status")

    assert status.returncode == 4 and host.socket in status.stderr


def test_no_wait_gives_an_operation_that_can_be_followed(host: Host) -> None:
    _run(host)

    ordered = host.unitctl("restart", "--no-wait", "web:0")

    assert ordered.returncode == 0 and "op-" in ordered.stdout
    until("it has been restarted", lambda: host.unit("web:0")["generation"] == 2)
    host.until_state("web:0", "RUNNING")
    assert "web:0" in host.unitctl("ops").stdout


def test_diff_shows_and_apply_does_what_has_changed(host: Host) -> None:
    _run(host)
    before = host.pids()
    host.configure(f'unit.web = {{ command = "{SLEEP}", startsecs = 0.1, numprocs = 3 }}')

    diff = host.unitctl("diff")
    assert diff.returncode == 0 and "web:2" in diff.stdout and "shop" in diff.stdout
    assert set(host.units()) == {"web:0", "web:1", "shop"}

    assert host.unitctl("apply").returncode == 0
    assert host.unit("web:2")["state"] == "RUNNING"
    assert {name: host.pids()[name] for name in ("web:0", "web:1")} == {
        name: before[name] for name in ("web:0", "web:1")
    }
    assert "shop" not in host.units()


def test_apply_refuses_mistakes_with_file_and_key(host: Host) -> None:
    _run(host)
    host.configure('unit.web = { comand = "/bin/true" }')

    applied = host.unitctl("apply")

    assert applied.returncode == 2
    assert str(host.config) in applied.stderr and "unit.web.comand" in applied.stderr
    assert host.unit("web:0")["state"] == "RUNNING"


def test_logs_show_what_a_unit_has_written(host: Host) -> None:
    _run(
        host,
        'unit.talks = { command = ["/bin/sh", "-c", "seq 20; echo trouble >&2; sleep 1000"], startsecs = 0.1 }',
    )
    host.until_state("talks", "RUNNING")
    until("it has been written", (host.folder / "log/talks.err.log").exists)

    assert host.unitctl("logs", "-n", "3", "talks").stdout == "18\n19\n20\n"


def test_shutdown_stops_units_and_the_daemon(host: Host) -> None:
    _run(host)

    assert host.unitctl("shutdown").returncode == 0

    assert host.wait() == 0
    assert host.processes() == set()


def test_signal_sends_signals(host: Host) -> None:
    _run(host)

    assert host.unitctl("signal", "KILL", "web:0").returncode == 0

    status = until("it has been killed", lambda: _restarted(host))
    assert status["last_exit"]["signal"] == signal.SIGKILL.name


def _restarted(host: Host) -> dict[str, object] | None:
    status: dict[str, object] = host.unit("web:0")
    return status if status["restarts"] == 1 else None
