"""The audit log on a real disk: what survives a crash, a full disk, and somebody who moves it away."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.core.audit import AuditRecord, Mark, Verified, verify
from supervisor.host import audit_file
from supervisor.host.audit_file import AuditFile

RECORD = AuditRecord("2026-11-24T00:00:00Z", "uid 0", "unix", "stop", "web")


class Kept:
    """A log, and the mark that survives beside it."""

    def __init__(self, path: Path) -> None:
        self.path, self.mark = path, Mark()

    def open(self) -> AuditFile:
        return AuditFile(str(self.path), self.mark, self.keep)

    def keep(self, mark: Mark) -> None:
        self.mark = mark

    def verified(self) -> Verified:
        return verify(self.path.read_bytes().split(b"\n")[:-1], self.mark)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    yield Kept(tmp_path / "audit.jsonl")


def test_lines_are_appended_over_restarts_and_only_the_owner_reads_them(kept: Kept) -> None:
    for _ in range(3):
        log = kept.open()
        log.write(RECORD)
        log.write(RECORD)
        log.close()
    found = kept.verified()
    assert (found.lines, found.mark, found.faults) == (6, kept.mark, [])
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600


def test_without_a_path_nothing_is_kept(tmp_path: Path) -> None:
    log = AuditFile(None, Mark(), lambda mark: pytest.fail("kept"))
    log.write(RECORD)
    log.reopen()
    log.close()
    assert log.trouble == "" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_last_line_that_was_torn_is_closed_and_said(kept: Kept, cut: int) -> None:
    log = kept.open()
    log.write(RECORD)
    log.write(RECORD)
    log.close()
    kept.path.write_bytes(kept.path.read_bytes()[:-cut])
    kept.mark = Mark()  # a power cut may take that, too
    log = kept.open()
    log.write(RECORD)
    log.close()
    found = kept.verified()
    assert found.faults == []
    assert found.torn == (0 if cut == 1 else 1)
    assert b'"action":"mended"' in kept.path.read_bytes()


def test_a_daemon_killed_while_it_writes_leaves_a_log_that_goes_on(kept: Kept) -> None:
    program = (
        "import sys\nfrom supervisor.core.audit import *\nfrom supervisor.host.audit_file import AuditFile\n"
        f"log = AuditFile({str(kept.path)!r}, Mark(), lambda mark: None)\nprint('open', flush=True)\n"
        "while True: log.write(AuditRecord('t', 'uid 0', 'unix', 'stop', 'web' * 100))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"open\n"
        while not kept.path.exists() or kept.path.stat().st_size < 100_000:
            pass
        writer.send_signal(signal.SIGKILL)
    log = kept.open()
    log.write(RECORD)
    log.close()
    assert kept.verified().faults == []


def test_lines_that_were_taken_away_meanwhile_are_missed(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    log = kept.open()
    for _ in range(4):
        log.write(RECORD)
    log.close()
    lines = kept.path.read_bytes().splitlines(keepends=True)
    kept.path.write_bytes(b"".join(lines[:2]))
    log = kept.open()
    assert "2 lines are missing at its end" in log.trouble and "2 lines" in caplog.text
    log.write(RECORD)
    log.close()
    assert kept.verified().faults, "it stays visible in the file"
    assert kept.mark.seq == 5


def test_a_last_line_that_was_changed_meanwhile_is_noticed(kept: Kept) -> None:
    log = kept.open()
    log.write(RECORD)
    log.close()
    kept.path.write_bytes(kept.path.read_bytes().replace(b"stop", b"drop"))
    log = kept.open()
    assert "its last line was changed" in log.trouble
    log.close()


def test_a_log_that_was_moved_away_goes_on_in_a_new_file(kept: Kept) -> None:
    log = kept.open()
    log.write(RECORD)
    old = kept.path.rename(kept.path.with_suffix(".1"))
    log.write(RECORD)
    log.reopen()
    log.write(RECORD)
    log.close()
    both = old.read_bytes() + kept.path.read_bytes()
    assert verify(both.split(b"\n")[:-1], kept.mark).faults == []
    assert kept.verified().first == 3 and log.trouble == ""


def test_a_log_that_was_deleted_comes_back(kept: Kept) -> None:
    log = kept.open()
    log.write(RECORD)
    kept.path.unlink()
    log.write(RECORD)
    log.close()
    assert kept.verified().first == 2 and kept.verified().faults == []


def test_a_folder_that_is_not_there_is_told_and_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept(tmp_path / "later" / "audit.jsonl")
    log = kept.open()
    assert "No such file" in log.trouble
    log.write(RECORD)
    log.write(RECORD)
    assert log.lost == 2 and caplog.text.count("No such file") == 1
    kept.path.parent.mkdir()
    log.write(RECORD)
    log.close()
    assert log.trouble == "" and log.lost == 0
    assert kept.verified().lines == 2
    assert b"2 lines could not be written" in kept.path.read_bytes()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_written_to(tmp_path: Path, make: object) -> None:
    kept = Kept(tmp_path / "audit.jsonl")
    make(str(kept.path))  # type: ignore[operator]
    log = kept.open()
    log.write(RECORD)
    log.close()
    assert log.trouble and log.lost == 1


def test_a_disk_that_is_full_in_the_middle_of_a_line_leaves_whole_lines(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = kept.open()
    log.write(RECORD)
    write = os.write
    monkeypatch.setattr(audit_file.os, "write", lambda file, data: write(file, data[:30]))
    log.write(RECORD)
    assert "No space left" in log.trouble and log.lost == 1
    assert kept.verified().faults == []
    monkeypatch.setattr(audit_file.os, "write", write)
    log.write(RECORD)
    log.close()
    found = kept.verified()
    assert (found.lines, found.torn, found.faults) == (3, 0, [])


def test_a_disk_without_any_room_is_told(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    log = kept.open()

    def full(file: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(audit_file.os, "write", full)
    log.write(RECORD)
    log.close()
    assert log.trouble.endswith("No space left on device")
