"""What was read and not written outlives the daemon: every byte of it is found, once, wherever the death fell."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from supervisor.host.spool import BIG_BYTES, HEADER_BYTES, SMALL_SLOTS, Spool, open_spool
from supervisor.host.spooled import Place, settle

NAME = "web@3.stdout"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "spool")


def read_in(spool: Spool, data: bytes, name: str = NAME, size: int | None = None) -> object:
    """A slot with these bytes, as they came from a pipe."""
    reading, writing = os.pipe()
    os.write(writing, data)
    slot = spool.take(name, size or len(data))
    assert spool.read(slot, reading, len(data)) == len(data)
    os.close(reading)
    os.close(writing)
    return slot


def left_in(path: str, log: Path, *, raw: bool = True) -> bytes:
    """What the next daemon has still to write."""
    found = settle(Spool(path), lambda name: Place(str(log), raw))
    return b"".join(bytes(item.slot.data) for items in found.values() for item in items)


def test_what_was_read_is_found_in_order(path: str, tmp_path: Path) -> None:
    spool = Spool(path)
    for number in range(5):
        read_in(spool, b"line %d\n" % number)
    assert left_in(path, tmp_path / "log") == b"line 0\nline 1\nline 2\nline 3\nline 4\n"


def test_what_was_freed_is_not_found(path: str, tmp_path: Path) -> None:
    spool = Spool(path)
    spool.free(read_in(spool, b"written\n"))  # type: ignore[arg-type]
    read_in(spool, b"not written\n")
    assert left_in(path, tmp_path / "log") == b"not written\n"


@pytest.mark.parametrize("happened", [True, False])
def test_a_death_in_a_read_is_told_by_the_bytes_themselves(path: str, tmp_path: Path, happened: bool) -> None:
    spool = Spool(path)
    reading, writing = os.pipe()
    os.write(writing, b"in the midst\n")
    slot = spool.take(NAME, 13)
    real = os.readv

    class Death(BaseException):
        pass

    def dies(descriptor: int, buffers: list[memoryview]) -> int:
        if happened:
            real(descriptor, buffers)
        raise Death

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "readv", dies)
        patch.setattr("supervisor.host.spool._SPAN", FirstWordOnly())
        with pytest.raises(Death):
            spool.read(slot, reading, 13)
    os.close(reading)
    os.close(writing)
    assert left_in(path, tmp_path / "log") == (b"in the midst\n" if happened else b"")


class FirstWordOnly:
    """Notes that a read begins, and dies before it notes the end."""

    def __init__(self) -> None:
        from supervisor.host import spool

        self._real, self._calls = spool._SPAN, 0

    def pack_into(self, *values: object) -> None:
        self._calls += 1
        if self._calls == 1:
            self._real.pack_into(*values)  # type: ignore[arg-type]


@pytest.mark.parametrize("raw", [True, False])
def test_a_death_in_a_write_writes_the_rest(path: str, tmp_path: Path, raw: bool) -> None:
    """Of lines that are changed on their way only whole ones count: a part of one is cut off and written again."""
    log, lines = tmp_path / "log", [b"line %d of a write\n" % number for number in range(20)]
    whole = b"".join(lines)
    for cut in random.Random(1).sample(range(len(whole) + 1), 25):
        log.write_bytes(b"before\n")
        Path(path).unlink(missing_ok=True)
        spool = Spool(path)
        slots = [read_in(spool, b"".join(lines[at : at + 5])) for at in range(0, 20, 5)]
        turn = spool.begin(slots, 0)  # type: ignore[arg-type]
        with open(log, "ab", buffering=0) as file:
            assert turn is not None
            turn.note(file.fileno())
            file.write(whole[:cut])
        rest = left_in(path, log, raw=raw)
        assert log.read_bytes() + rest == b"before\n" + whole, cut


def test_a_log_that_was_rotated_meanwhile_is_found_by_what_it_is(path: str, tmp_path: Path) -> None:
    log, spool = tmp_path / "log", Spool(path)
    log.write_bytes(b"")
    turn = spool.begin([read_in(spool, b"a\nb\n")], 0)  # type: ignore[list-item]
    with open(log, "ab", buffering=0) as file:
        assert turn is not None
        turn.note(file.fileno())
        file.write(b"a\n")
    log.rename(tmp_path / "log.1")
    log.write_bytes(b"another one\n")
    assert left_in(path, log) == b"b\n"


def test_an_unfinished_line_that_was_moved_is_there_once(path: str, tmp_path: Path) -> None:
    spool = Spool(path)
    slot = read_in(spool, b"whole\nbegun")
    end = slot.end  # type: ignore[attr-defined]
    spool.part(slot, 6, NAME, 100)  # type: ignore[arg-type]
    slot.end = end  # type: ignore[attr-defined]
    spool.note(slot)  # type: ignore[arg-type]  # as if the death had come before the first one was cut
    assert left_in(path, tmp_path / "log") == b"whole\nbegun"


@pytest.mark.parametrize("content", [b"", b"garbage", os.urandom(5000), b"unitd-spool-1\n"], ids=range(4))
def test_what_is_no_spool_is_made_one(path: str, tmp_path: Path, content: bytes) -> None:
    Path(path).write_bytes(content)
    spool = Spool(path)
    assert (spool.left, spool.open_turns) == ([], [])
    read_in(spool, b"line\n")
    assert left_in(path, tmp_path / "log") == b"line\n"


def test_what_another_boot_has_left_is_forgotten(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_in(Spool(path), b"line\n")
    monkeypatch.setattr("supervisor.host.spool.boot_id", lambda: "another")
    assert left_in(path, tmp_path / "log") == b""


def test_numbers_that_cannot_be_are_left_alone(path: str, tmp_path: Path) -> None:
    slot = read_in(Spool(path), b"line\n")
    with open(path, "r+b") as file:
        file.seek(slot.offset + 8)  # type: ignore[attr-defined]
        file.write((2**31).to_bytes(4, "little"))
    assert left_in(path, tmp_path / "log") == b""


def test_without_a_free_slot_bytes_are_in_plain_memory(path: str) -> None:
    spool = Spool(path)
    slots = [spool.take(NAME, 10) for _ in range(SMALL_SLOTS + 1)]
    assert [slot.offset >= 0 for slot in slots] == [True] * SMALL_SLOTS + [False]
    slot = slots[-1]
    reading, writing = os.pipe()
    os.write(writing, b"0123456789")
    assert spool.read(slot, reading, 10) == 10 and bytes(slot.data) == b"0123456789"
    os.close(reading)
    os.close(writing)
    spool.free(slot)
    assert slots[0].room < BIG_BYTES - HEADER_BYTES


def test_where_no_file_can_be_it_is_in_memory_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = open_spool(str(tmp_path / "no" / "folder"))
    read_in(spool, b"line\n")
    assert "are lost" in caplog.text


def test_the_file_is_nobody_elses_to_read_and_goes_when_it_is_not_needed(path: str) -> None:
    spool = Spool(path)
    assert os.stat(path).st_mode & 0o777 == 0o600
    spool.remove()
    assert not os.path.exists(path)
