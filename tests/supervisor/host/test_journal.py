"""What survives the daemon."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.errors import ConfigError
from supervisor.host.journal import Journal


def reopened(folder: Path) -> Journal:
    return Journal(str(folder))


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


def test_a_second_daemon_on_the_same_folder_is_refused_until_the_first_has_gone(tmp_path: Path) -> None:
    journal = reopened(tmp_path)
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            reopened(tmp_path)
        assert str(caught.value) == (
            f"daemon.state_dir: another unitd runs on {tmp_path}; stop it, or give this one another state_dir"
        )
    journal.close()
    reopened(tmp_path).close()


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
