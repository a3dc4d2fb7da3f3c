"""The daemon's folders as they are looked at: real ones, full ones, ones that are missing or read-only."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.core.model import DaemonSpec
from supervisor.folders import look_at_folders, look_at_journal, look_at_sockets
from supervisor.host.journal import Journal

SQL = "PRAGMA journal_mode=WAL; PRAGMA user_version={version}; CREATE TABLE t (a)"


def spec(folder: Path, **more: str) -> DaemonSpec:
    places = {"socket": str(folder / "s"), "state_dir": str(folder), "log_dir": str(folder), **more}
    return DaemonSpec("here", **places)  # type: ignore[arg-type]


def outcomes(made: DaemonSpec, *, as_daemon: bool = True) -> dict[str, tuple[str, str]]:
    return {item.check: (item.outcome, item.message) for item in look_at_folders(made, as_daemon=as_daemon)}


def test_folders_with_room_are_good(tmp_path: Path) -> None:
    found = outcomes(spec(tmp_path))
    assert list(found) == ["state_dir", "log_dir", "socket_dir"]
    assert {outcome for outcome, _ in found.values()} <= {"ok", "warning"}, (
        "a disk of a test machine may be nearly full"
    )


def test_a_folder_that_is_missing_is_a_problem(tmp_path: Path) -> None:
    outcome, message = outcomes(spec(tmp_path, state_dir=str(tmp_path / "no")))["state_dir"]
    assert outcome == "problem" and "does not exist" in message


def test_a_file_in_the_place_of_a_folder_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome, message = outcomes(spec(tmp_path, log_dir=str(tmp_path / "file")))["log_dir"]
    assert outcome == "problem" and "is not a folder" in message


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A folder that this process may look at and not write to."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    folder.rmdir()


def test_a_folder_that_may_not_be_written_to_is_a_problem_for_the_daemon_and_unknown_to_others(foreign: Path) -> None:
    made = spec(foreign)
    assert outcomes(made)["log_dir"] == ("problem", f"{foreign} cannot be written to")
    assert outcomes(made, as_daemon=False)["log_dir"][0] == "unknown"


def test_a_folder_that_may_not_even_be_looked_at_is_unknown(foreign: Path) -> None:
    assert outcomes(spec(foreign, log_dir="/proc/1/fd/x"))["log_dir"][0] == "unknown"


def test_a_path_that_leads_through_a_circle_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    assert outcomes(spec(tmp_path, log_dir=str(tmp_path / "circle")))["log_dir"][0] == "problem"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB and 32 inodes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=32", "unitd-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(line, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_without_room_is_a_problem(small_disk: Path, tmp_path: Path) -> None:
    outcome, message = outcomes(spec(tmp_path, log_dir=str(small_disk)))["log_dir"]
    assert outcome == "problem" and "8 MiB" in message


def test_there_may_be_no_journal_yet(tmp_path: Path) -> None:
    found = look_at_journal(spec(tmp_path))
    assert found.outcome == "ok" and "none yet" in found.message


def test_the_journal_of_this_version_is_good(tmp_path: Path) -> None:
    Journal(str(tmp_path)).close()
    found = look_at_journal(spec(tmp_path))
    assert found.outcome == "ok" and "version 2" in found.message


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_a_later_versions_journal_is_a_problem_also_where_only_its_log_tells(tmp_path: Path, killed: bool) -> None:
    script = f"""
import os, sqlite3
database = sqlite3.connect({str(tmp_path / "journal.sqlite")!r}, isolation_level=None)
database.executescript({SQL.format(version=99)!r})
{"os._exit(0)" if killed else "database.close()"}
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (tmp_path / "journal.sqlite-wal").exists() is killed
    before = sorted(os.listdir(tmp_path))
    found = look_at_journal(spec(tmp_path))
    assert found.outcome == "problem" and "version 99" in found.message
    assert sorted(os.listdir(tmp_path)) == before, "it must leave nothing behind"


def test_something_else_in_the_place_of_the_journal_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_text("hello")
    assert look_at_journal(spec(tmp_path)).outcome == "problem"


def test_a_journal_that_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").mkdir()
    assert look_at_journal(spec(tmp_path)).outcome == "unknown"


def bound(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(path)
    return made


def test_no_socket_is_left_where_there_is_none_or_somebody_listens(tmp_path: Path) -> None:
    made = spec(tmp_path)
    assert [item.outcome for item in look_at_sockets(made, None)] == ["ok"]
    with bound(made.socket) as listener:
        listener.listen()
        assert [item.outcome for item in look_at_sockets(made, None)] == ["ok"]
    Path(made.socket).unlink()
    Path(made.socket).write_text("")
    assert [item.outcome for item in look_at_sockets(made, None)] == ["ok"], "that it is no socket, others tell"


def test_the_socket_of_a_daemon_that_has_died_is_told(tmp_path: Path) -> None:
    made = spec(tmp_path)
    bound(made.socket).close()
    (found,) = look_at_sockets(made, None)
    assert found.outcome == "warning" and "died" in found.message


def test_notify_sockets_of_no_attempt_are_told(tmp_path: Path) -> None:
    made, folder = spec(tmp_path), tmp_path / "s.notify"
    folder.mkdir()
    bound(f"{folder}/web-1").close()
    bound(f"{folder}/web-2").close()
    (found,) = look_at_sockets(made, frozenset([f"{folder}/web-2"]))
    assert found.outcome == "warning" and f"{folder}/web-1" in found.message and "1 notify" in found.message
    assert [item.outcome for item in look_at_sockets(made, [f"{folder}/web-1", f"{folder}/web-2"])] == ["ok"]
