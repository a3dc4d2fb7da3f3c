"""What survives the daemon."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.errors import ConfigError
from supervisor.host.journal import VERSION, EntryRecord, Journal, ProcessRecord


def reopened(folder: Path) -> Journal:
    return Journal(str(folder), "/etc/unitd/unitd.toml")


def test_generations_and_wishes_survive(tmp_path: Path) -> None:
    journal = reopened(tmp_path / "deep" / "state")
    assert journal.attempts() == {} and journal.wishes() == {}
    journal.record_attempts([("web", 1), ("cart:0", 41)])
    journal.record_attempts([("web", 2)])
    journal.record_attempts([])
    journal.record_wishes(["web", "new"], up=False)
    journal.record_wishes(["new"], up=True)
    journal.close()
    again = reopened(tmp_path / "deep" / "state")
    assert again.attempts() == {"web": 2, "cart:0": 41}
    assert again.wishes() == {"web": False, "new": True}
    again.close()


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    reopened(tmp_path / "state").close()
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    for name in ("journal.sqlite", "lock"):
        assert (tmp_path / "state" / name).stat().st_mode & 0o777 == 0o600


def test_a_journal_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    """Those of earlier versions were."""
    reopened(tmp_path).close()
    for path in tmp_path.glob("journal.sqlite*"):
        path.chmod(0o644)
    journal = reopened(tmp_path)
    journal.record_attempts([("web", 1)])
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("journal.sqlite*")}
    assert set(modes.values()) == {0o600} and len(modes) > 1
    journal.close()


def test_a_second_daemon_on_the_same_folder_is_refused_until_the_first_has_gone(tmp_path: Path) -> None:
    journal = reopened(tmp_path)
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            reopened(tmp_path)
        said = re.fullmatch(
            r"daemon\.state_dir: another unitd \(pid (\d+), since ([-0-9T:.]+Z), /etc/unitd/unitd\.toml\) runs on (.*);"
            " stop it, or give this one another state_dir",
            str(caught.value),
        )
        assert said is not None and (int(said[1]), said[3]) == (os.getpid(), str(tmp_path))
    journal.close()
    reopened(tmp_path).close()


def test_a_second_daemon_on_a_copy_of_the_folder_is_refused_too(tmp_path: Path) -> None:
    """The units of the first one are on record in it, and carry its name."""
    journal = reopened(tmp_path / "state")
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    with pytest.raises(ConfigError, match=rf"copy is a copy of what another unitd \(pid {os.getpid()}\) uses"):
        reopened(tmp_path / "copy")
    journal.close()
    reopened(tmp_path / "copy").close()


def test_a_killed_daemon_loses_nothing_and_keeps_nobody_out(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom supervisor.host.journal import Journal\njournal = Journal(sys.argv[1])\n"
        "journal.record_attempts([('web', 7)])\nprint('written', flush=True)\ntime.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None and daemon.stdout.readline() == b"written\n"
        daemon.send_signal(signal.SIGKILL)
    journal = reopened(tmp_path)
    assert journal.attempts() == {"web": 7}
    journal.close()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^daemon\.state_dir: cannot use .*/file/state: Not a directory$"):
        reopened(tmp_path / "file" / "state")


def test_a_file_that_is_no_journal_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_text("something precious\n" * 100)
    with pytest.raises(ConfigError, match="move it away to start with an empty one"):
        reopened(tmp_path)
    assert (tmp_path / "journal.sqlite").read_text().startswith("something precious")
    os.remove(tmp_path / "journal.sqlite")
    reopened(tmp_path).close()


def test_a_full_disk_is_said_and_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = reopened(tmp_path)
    journal.record_attempts([("web", 1)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = max(file.stat().st_size for file in tmp_path.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        for attempt in range(2, 40):
            journal.record_attempts([("web", attempt)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot write the journal: " in caplog.text
    assert "a restart of unitd would forget this" in caplog.text
    journal.record_attempts([("web", 50)])
    journal.close()
    again = reopened(tmp_path)
    assert again.attempts() == {"web": 50}, "it is written again as soon as there is room"
    again.close()


def test_all_of_a_batch_is_written_or_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = reopened(tmp_path)
    journal.record_attempts([("web", 1), ("bad", None)])  # type: ignore[list-item]
    assert journal.attempts() == {}
    assert "cannot write the journal" in caplog.text
    journal.record_attempts([("web", 1)])
    assert journal.attempts() == {"web": 1}
    journal.close()


def test_it_is_a_plain_file_that_people_can_look_into(tmp_path: Path) -> None:
    journal = reopened(tmp_path)
    journal.record_attempts([("web", 3)])
    journal.record_wishes(["web"], up=True)
    other = sqlite3.connect(tmp_path / "journal.sqlite")
    assert other.execute("SELECT name, attempt, up_after_restart FROM unit").fetchall() == [("web", 3, 1)]
    other.close()
    journal.close()


# Processes, entries, operations, and what others keep.


def test_living_processes_survive_until_they_are_forgotten(tmp_path: Path) -> None:
    journal = reopened(tmp_path)
    first, second = ProcessRecord("web", 1, 42, 1000, "boot-1"), ProcessRecord("cart:0", 7, 43, 1001, "boot-1")
    for record in (first, second, replace(first, attempt=2, pid=44)):
        journal.record_process(record)
    journal.forget_process("cart:0")
    journal.forget_process("nobody")
    journal.close()
    again = reopened(tmp_path)
    assert again.processes() == [replace(first, attempt=2, pid=44)]
    again.close()


def test_an_entry_is_fenced_until_it_is_registered_again(tmp_path: Path) -> None:
    journal = reopened(tmp_path)
    journal.record_entry("web", '{"x": 1}', 10.0)
    journal.record_fence("web")
    journal.record_fence("nobody")
    assert journal.entries() == [EntryRecord("web", '{"x": 1}', 10.0, fenced=True)]
    journal.record_entry("web", '{"x": 2}', 5.0)
    assert journal.entries() == [EntryRecord("web", '{"x": 2}', 5.0, fenced=False)]
    journal.close()
    again = reopened(tmp_path)
    again.forget_entry("web")
    assert again.entries() == []
    again.close()


def test_operations_are_kept_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    journal = reopened(tmp_path)
    journal.record_operations([(10, "op-10", "ten", None), (9, "op-9", "nine", 1.5)])
    journal.record_operations([(10, "op-10", "ten again", 2.5)])
    journal.record_operations([])
    assert journal.operations() == [(9, "nine"), (10, "ten again")]
    journal.forget_operations([9, 77])
    journal.close()
    again = reopened(tmp_path)
    assert again.operations() == [(10, "ten again")]
    again.close()


@pytest.mark.parametrize("durable", [False, True])
def test_facts_are_kept_by_kind_and_unit(tmp_path: Path, durable: bool) -> None:
    journal = reopened(tmp_path)
    journal.record_fact("weight", "web", "1", durable=durable)
    journal.record_fact("maintenance", "web", "2", durable=durable)
    journal.record_fact("weight", "web", "3", durable=durable)
    journal.record_fact("weight", "cart", "4", durable=durable)
    journal.record_fact("weight", "cart", None, durable=durable)
    journal.close()
    again = reopened(tmp_path)
    assert (again.facts("weight"), again.facts("maintenance"), again.facts("mood")) == ({"web": "3"}, {"web": "2"}, {})
    again.close()


def test_a_folder_has_one_name_and_counts_its_daemons(tmp_path: Path) -> None:
    names, lives = set[str](), list[int]()
    for _ in range(3):
        journal = reopened(tmp_path / "one")
        names |= {journal.state_id(), journal.state_id()}
        lives.append(journal.next_life())
        journal.close()
    assert (len(names), lives) == (1, [1, 2, 3])
    other = reopened(tmp_path / "other")
    assert other.state_id() not in names
    other.close()


# Versions.


def test_the_journal_of_an_earlier_version_is_taken_over(tmp_path: Path) -> None:
    earlier = sqlite3.connect(tmp_path / "journal.sqlite")
    earlier.execute(
        "CREATE TABLE unit (name TEXT PRIMARY KEY, attempt INTEGER NOT NULL DEFAULT 0, up_after_restart INTEGER)"
        " WITHOUT ROWID"
    )
    earlier.execute("INSERT INTO unit VALUES ('web', 7, 1)")
    earlier.execute("PRAGMA user_version=1")
    earlier.commit()
    earlier.close()
    journal = reopened(tmp_path)
    assert (journal.attempts(), journal.wishes(), journal.processes()) == ({"web": 7}, {"web": True}, [])
    journal.record_fact("weight", "web", "1")
    journal.close()
    other = sqlite3.connect(tmp_path / "journal.sqlite")
    assert other.execute("PRAGMA user_version").fetchone() == (VERSION,)
    other.close()


def test_a_journal_without_its_tables_is_no_journal_and_the_daemon_does_not_start_on_half_of_it(tmp_path: Path) -> None:
    reopened(tmp_path).close()
    broken = sqlite3.connect(tmp_path / "journal.sqlite")
    broken.execute("DROP TABLE operation")
    broken.close()
    journal = reopened(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot read .*journal\.sqlite: no such table: operation; move it away"):
        journal.operations()
    journal.close()


def test_the_journal_of_a_later_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    reopened(tmp_path).close()
    later = sqlite3.connect(tmp_path / "journal.sqlite")
    later.execute(f"PRAGMA user_version={VERSION + 1}")
    later.commit()
    for _ in range(2):
        with pytest.raises(ConfigError, match="a later version of unitd has written it"):
            reopened(tmp_path)
    assert later.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)
    later.close()
