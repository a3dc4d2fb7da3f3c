"""`unitctl upgrade-check` beside a real unitd: running, dead, refusing, and with files that were changed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from supervisor.installation import version
from tests.end_to_end.host import Host

SLEEPER = """
[unit.web]
command = "/bin/sleep 600"
numprocs = 2
startsecs = 0.1
[unit.idle]
command = "/bin/sleep 600"
autostart = false
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the journal is for root's eyes")


@pytest.fixture
def host() -> Iterator[Host]:
    """A host whose daemon leaves its units, so that they are stopped for it in the end."""
    made = Host()
    yield made
    if made.daemon is not None and made.daemon.poll() is None:
        made.ask("POST", "/v1/shutdown", {})
        made.wait()
    made.close()


def checked(host: Host) -> Any:
    """What it tells as JSON; the exit code says the same."""
    done = host.unitctl("-c", str(host.config), "-o", "json", "upgrade-check")
    assert not done.stderr
    answer = json.loads(done.stdout)
    assert answer["ready"] is (done.returncode == 0)
    return answer


def against(answer: Any) -> dict[str, str]:
    """dict[check, subject] of what stands against it."""
    return {item["check"]: item["subject"] for item in answer["findings"] if item["outcome"] in ("problem", "unknown")}


def up(host: Host, **daemon: object) -> None:
    host.configure(SLEEPER, **{"sigterm": "leave", **daemon})
    host.run()
    host.until_state("web:0", "RUNNING")
    host.until_state("web:1", "RUNNING")


def replace_daemon(host: Host) -> dict[str, int | None]:
    """The pids of all units after the daemon was replaced by another one."""
    host.signal(signal.SIGTERM)
    assert host.wait() == 0, host.said()
    host.run()
    return host.pids()


def test_a_daemon_that_leaves_its_units_is_ready_and_what_was_told_comes_true(host: Host) -> None:
    up(host)
    answer = checked(host)
    assert answer["ready"], answer
    assert (answer["installed"], answer["running"], answer["living"]) == (version(), version(), ["web:0", "web:1"])
    before = host.pids()
    assert replace_daemon(host) == before


def test_people_read_a_summary_and_each_unit_if_they_want(host: Host) -> None:
    up(host)
    done = host.unitctl("-c", str(host.config), "upgrade-check")
    assert done.stdout.endswith("ready: no unit notices a restart of unitd (systemctl restart unitd)\n")
    assert "going on with the processes that they have: 2; without one, as before: 0" in done.stdout
    each = host.unitctl("-c", str(host.config), "-v", "upgrade-check").stdout
    assert f"goes on with its process {host.pids()['web:0']} (running)" in each


def test_a_daemon_that_stops_its_units_is_not_ready(host: Host) -> None:
    up(host, sigterm="stop")
    assert against(checked(host)) == {"sigterm": "sigterm"}


def test_what_the_file_says_of_sigterm_since_then_does_not_count(host: Host) -> None:
    up(host, sigterm="stop")
    host.configure(SLEEPER, sigterm="leave")
    assert against(checked(host)) == {"sigterm": "sigterm"}


def test_a_change_that_was_not_applied_would_restart_its_units(host: Host) -> None:
    up(host)
    host.configure(SLEEPER.replace("600", "601", 1), sigterm="leave")
    answer = checked(host)
    assert [item["subject"] for item in answer["findings"] if item["outcome"] == "problem"] == ["web:0", "web:1"]
    before = host.pids()
    assert host.unitctl("apply").returncode == 0
    assert host.pids() != before and checked(host)["ready"]


def test_mistakes_in_the_files_are_told_as_the_installed_version_reads_them(host: Host) -> None:
    up(host)
    host.configure(SLEEPER + "autostrat = true\n", sigterm="leave")
    answer = checked(host)
    assert "did you mean autostart" in json.dumps(answer["findings"])
    assert against(answer)["configuration"] == "configuration"
    host.configure(SLEEPER, sigterm="leave")


def test_without_a_daemon_it_tells_what_the_next_one_finds(host: Host) -> None:
    up(host)
    before = host.pids()
    host.signal(signal.SIGKILL)
    host.wait()
    os.kill(before["web:1"] or 0, signal.SIGKILL)
    answer = checked(host)
    assert (answer["ready"], answer["running"]) == (True, None)
    assert answer["living"] == ["web:0"]
    [told] = [item for item in answer["findings"] if item["subject"] == "web:1"]
    assert told["outcome"] == "warning"
    host.run()
    assert host.pids()["web:0"] == before["web:0"]


def test_looking_leaves_nothing_behind_that_a_daemon_could_stumble_over(host: Host) -> None:
    up(host)
    host.signal(signal.SIGTERM)
    host.wait()
    state = host.folder / "state"
    before = sorted(entry.name for entry in state.iterdir())
    assert checked(host)["ready"]
    assert sorted(entry.name for entry in state.iterdir()) == before
    host.run()


def test_a_journal_of_a_later_version_is_refused_and_that_is_told_before(host: Host) -> None:
    up(host)
    host.signal(signal.SIGTERM)
    host.wait()
    journal = host.folder / "state" / "journal.sqlite"
    with sqlite3.connect(journal) as database:
        (now,) = database.execute("PRAGMA user_version").fetchone()
        database.execute("PRAGMA user_version=99")
    assert against(checked(host)) == {"journal": "journal"}
    host.run(wait=False)
    assert host.wait() == 2 and "later version" in host.said()
    with sqlite3.connect(journal) as database:
        database.execute(f"PRAGMA user_version={now}")
    host.run()


def test_units_that_a_version_without_records_has_left_would_be_restarted(host: Host) -> None:
    up(host)
    host.signal(signal.SIGTERM)
    host.wait()
    with sqlite3.connect(host.folder / "state" / "journal.sqlite") as database:
        database.execute("DELETE FROM fact WHERE kind IN ('unit', 'spec')")
    answer = checked(host)
    assert [item["subject"] for item in answer["findings"] if item["outcome"] == "problem"] == ["web:0", "web:1"]
    host.run()


def test_a_daemon_that_holds_the_folder_and_does_not_answer_is_told(host: Host) -> None:
    up(host)
    moved = host.folder / "elsewhere"
    os.rename(host.socket, moved)
    answer = checked(host)
    assert answer["running"] is None
    [told] = [item for item in answer["findings"] if item["check"] == "daemon"]
    assert told["outcome"] == "problem" and f"pid {host.pid}" in told["message"]
    os.rename(moved, host.socket)


def test_before_anything_has_run_there_is_nothing_against_it(host: Host) -> None:
    host.configure(SLEEPER, sigterm="leave")
    answer = checked(host)
    assert (answer["ready"], answer["living"]) == (True, [])
