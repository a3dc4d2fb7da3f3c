"""Log files: rotation at the ends of lines, names that change under us, and reading the end of a log."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.host.logfile import Target, tail
from tests.supervisor.host.output_kit import content, numbered, whole_history


def target(path: Path, max_bytes: int = 0, backups: int = 3) -> Target:
    return Target(str(path), max_bytes, backups)


def write(log: Target, data: bytes) -> None:
    assert log.write([data]) == len(data)
    assert log.error is None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "u.log"


def test_a_new_file_is_for_owner_and_group_and_an_old_one_is_appended_to(path: Path) -> None:
    log = target(path)
    write(log, b"a\n")
    log.close()
    write(log, b"b\n")
    log.close()
    assert path.read_bytes() == b"a\nb\n"
    assert stat.S_IMODE(path.stat().st_mode) & 0o037 == 0


def test_a_full_file_moves_to_its_first_backup_and_the_oldest_goes(path: Path) -> None:
    log = target(path, max_bytes=10, backups=2)
    for row in (b"1 345678\n", b"2 345678\n", b"3 345678\n", b"4 345678\n"):
        write(log, row)
    log.close()
    assert path.read_bytes() == b"4 345678\n"
    assert Path(f"{path}.1").read_bytes() == b"3 345678\n"
    assert Path(f"{path}.2").read_bytes() == b"2 345678\n"
    assert not Path(f"{path}.3").exists()


def test_without_backups_a_full_file_begins_anew(path: Path) -> None:
    log = target(path, max_bytes=10, backups=0)
    write(log, b"1 345678\n")
    write(log, b"2 345678\n")
    log.close()
    assert path.read_bytes() == b"2 345678\n"
    assert os.listdir(path.parent) == ["u.log"]


def test_without_a_limit_nothing_rotates(path: Path) -> None:
    log = target(path, max_bytes=0)
    write(log, b"x" * 100_000 + b"\n")
    write(log, b"y\n")
    log.close()
    assert os.listdir(path.parent) == ["u.log"]


def test_a_line_longer_than_a_file_may_be_goes_alone(path: Path) -> None:
    log = target(path, max_bytes=10, backups=5)
    write(log, b"short\n" + b"L" * 50 + b"\n" + b"short\n")
    log.close()
    assert path.read_bytes() == b"short\n"
    assert Path(f"{path}.1").read_bytes() == b"L" * 50 + b"\n"
    assert Path(f"{path}.2").read_bytes() == b"short\n"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=8), max_size=12), st.integers(1, 64))
def test_no_line_is_lost_or_torn_over_files(
    tmp_path_factory: pytest.TempPathFactory, writes: list[list[int]], max_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("rotation") / "u.log"
    log = target(path, max_bytes, backups=1000)
    said = [b"".join(bytes([97 + n % 26]) * n + b"\n" for n in rows) for rows in writes]
    for data in said:
        write(log, data)
    log.close()
    assert whole_history(path) == b"".join(said)
    for file in path.parent.iterdir():
        data = file.read_bytes()
        assert data.endswith(b"\n") or not data
        assert len(data) <= max_bytes or data.count(b"\n") == 1


def test_a_gap_in_the_backups_is_filled_instead_of_shifting_all(path: Path) -> None:
    Path(f"{path}.3").write_bytes(b"old")
    log = target(path, max_bytes=4, backups=3)
    for row in (b"a\n", b"bbb\n", b"ccc\n"):
        write(log, row)
    log.close()
    assert Path(f"{path}.3").read_bytes() == b"old"
    assert (Path(f"{path}.2").read_bytes(), Path(f"{path}.1").read_bytes()) == (b"a\n", b"bbb\n")


def test_reopening_leaves_the_renamed_file_alone(path: Path) -> None:
    log = target(path)
    write(log, b"before\n")
    moved = path.rename(f"{path}.moved")
    write(log, b"still there\n")
    log.reopen()
    assert path.read_bytes() == b""
    write(log, b"after\n")
    log.close()
    assert moved.read_bytes() == b"before\nstill there\n"
    assert path.read_bytes() == b"after\n"


def test_rotation_does_not_move_a_file_that_somebody_else_put_there(path: Path) -> None:
    log = target(path, max_bytes=10)
    write(log, b"1 345678\n")
    path.rename(f"{path}.moved")
    path.write_bytes(b"n\n")
    write(log, b"2 34\n")
    log.close()
    assert path.read_bytes() == b"n\n2 34\n"
    assert not Path(f"{path}.1").exists()


def test_a_file_made_shorter_by_copytruncate_fills_up_again(path: Path) -> None:
    log = target(path, max_bytes=20)
    write(log, b"1 345678\n")
    os.truncate(path, 0)
    write(log, b"2 345678\n3 345678\n")
    log.close()
    assert path.read_bytes() == b"2 345678\n3 345678\n"
    assert not Path(f"{path}.1").exists()


def test_a_deleted_folder_comes_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.host.logfile.LOOK_SECONDS", 0.0)
    path = path.parent / "logs" / "u.log"
    log = target(path)
    write(log, b"a\n")
    path.unlink()
    path.parent.rmdir()
    write(log, b"b\n")
    log.close()
    assert path.read_bytes() == b"b\n"


def test_a_failing_rename_takes_nothing_and_says_why(path: Path) -> None:
    log = target(path, max_bytes=10)
    write(log, b"1 345678\n")
    Path(f"{path}.1").mkdir()
    (Path(f"{path}.1") / "file").touch()
    log.backups = 1
    assert log.write([b"2 345678\n"]) == 0
    assert isinstance(log.error, OSError)
    (Path(f"{path}.1") / "file").unlink()
    Path(f"{path}.1").rmdir()
    write(log, b"2 345678\n")
    log.close()
    assert Path(f"{path}.1").read_bytes() == b"1 345678\n"


def test_a_folder_is_no_log(tmp_path: Path) -> None:
    log = target(tmp_path)
    assert log.write([b"a\n"]) == 0
    assert isinstance(log.error, IsADirectoryError)


def test_more_parts_than_one_call_takes_are_all_written(path: Path) -> None:
    log = target(path)
    rows = [b"%d\n" % number for number in range(3000)]
    assert log.write(rows) == sum(map(len, rows))
    log.close()
    assert path.read_bytes() == b"".join(rows)


def test_a_fifo_takes_what_fits_and_never_blocks(path: Path) -> None:
    os.mkfifo(path)
    log = target(path, max_bytes=10)
    data = numbered("f", 0, 20_000)
    taken = log.write([data])
    assert 0 < taken < len(data)
    assert log.error is None
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(reader, 1 << 20) == data[:taken]
    os.close(reader)
    log.close()
    assert os.listdir(path.parent) == ["u.log"]


def test_dev_null_takes_everything() -> None:
    log = Target("/dev/null", 1, 1)
    write(log, b"a\n" * 100)
    log.close()


def rows_of(data: bytes) -> list[bytes]:
    return data.split(b"\n")


def test_the_tail_goes_back_through_backups(path: Path) -> None:
    log = target(path, max_bytes=30, backups=9)
    data = numbered("t", 0, 40)
    write(log, data)
    log.close()
    for number in (1, 3, 7, 39, 40):
        assert tail(str(path), number) == b"".join(row + b"\n" for row in rows_of(data)[:-1][-number:])
    assert tail(str(path), 1000) == whole_history(path)
    assert tail(str(path), 0) == b""


def test_the_tail_of_a_large_log_is_read_from_its_end(path: Path) -> None:
    data = numbered("t", 0, 100_000)
    path.write_bytes(data)
    assert tail(str(path), 3) == b"t 99997 \nt 99998 \nt 99999 \n"
    assert tail(str(path), 50_000) == data[data.index(b"t 50000 ") :]


def test_the_tail_is_bounded_in_bytes_and_holds_whole_lines(path: Path) -> None:
    path.write_bytes(numbered("t", 0, 1000))
    got = tail(str(path), 1000, max_bytes=100)
    assert len(got) <= 100
    assert got == b"".join(row + b"\n" for row in rows_of(content(path))[:-1])[-len(got) :]
    assert got.startswith(b"t ")


def test_an_unfinished_last_line_is_part_of_the_tail(path: Path) -> None:
    path.write_bytes(b"a\nb\rc\nhalf")
    assert tail(str(path), 1) == b"half"
    assert tail(str(path), 2) == b"b\rc\nhalf"


def test_the_tail_of_what_is_no_file_is_empty(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert tail(str(tmp_path / "fifo"), 5) == b""
    assert tail(str(tmp_path), 5) == b""
    assert tail(str(tmp_path / "missing"), 5) == b""
