"""What was read and not written when a daemon died, in the hands of the next one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.core.model import LogFormat, LogSpec
from supervisor.host import spool as module
from supervisor.host.logfile import Target
from supervisor.host.output import OutputPump
from supervisor.host.spool import BIG_SLOTS, HEADER_BYTES, SMALL_BYTES, Left, Spool, open_spool
from supervisor.host.spooled import Place, settle
from tests.supervisor.host.output_kit import content, until

NAME = "web@3.stdout"
Spools = Callable[[], Spool]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "u.spool")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "u.log"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Reading and writing end."""
    ends = os.pipe2(os.O_NONBLOCK)
    yield ends
    for end in ends:
        os.close(end)


def _later(path: str, log: Path, *, raw: bool = True) -> list[bytes]:
    """What the next daemon finds of the stream, in order."""
    found = settle(Spool(path), lambda name: Place(str(log), raw))
    assert found.keys() <= {NAME}
    return [bytes(item.slot.data) for item in found.get(NAME, [])]


def _read(spool: Spool, pipe: tuple[int, int], data: bytes) -> object:
    """A slot that holds it, read from the pipe."""
    os.write(pipe[1], data)
    slot = spool.take(NAME, len(data))
    assert spool.read(slot, pipe[0], len(data)) == len(data)
    return slot


# Reading.


def test_what_was_read_and_not_written_is_found(path: str, log: Path, pipe: tuple[int, int]) -> None:
    spool = Spool(path)
    _read(spool, pipe, b"one\ntwo\n")
    _read(spool, pipe, b"x" * SMALL_BYTES)
    assert _later(path, log) == [b"one\ntwo\n", b"x" * SMALL_BYTES]


def test_what_was_freed_is_not_found(path: str, log: Path, pipe: tuple[int, int]) -> None:
    spool = Spool(path)
    spool.free(_read(spool, pipe, b"one\n"))  # type: ignore[arg-type]
    assert _later(path, log) == []
    assert _later(path, log) == []


@pytest.mark.parametrize("data", [b"a line\n", b"x" * 15, b"\n", b"x" * 20_000 + b"\n"], ids=len)
def test_a_read_that_was_cut_short_before_or_after_it_happened_is_told(
    path: str, log: Path, pipe: tuple[int, int], data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the daemon had died on the way into the system call, and on the way out of it."""
    real = os.readv
    os.write(pipe[1], data)
    for happens in (False, True):
        spool = Spool(path)

        def dies(fd: int, views: list[memoryview], happens: bool = happens) -> int:
            if happens:
                real(fd, views)
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "readv", dies)
        monkeypatch.setattr(spool, "note", lambda slot: None)
        with pytest.raises(KeyboardInterrupt), _without_the_last_word(spool, monkeypatch):
            spool.read(spool.take(NAME, len(data)), pipe[0], len(data))
        monkeypatch.undo()
        assert _later(path, log) == ([data] if happens else [])


class _without_the_last_word:  # noqa: N801  # reads as words
    """Within it, what `read` notes after the system call is not noted, as if the daemon had died."""

    def __init__(self, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
        self._spool, self._patch = spool, monkeypatch

    def __enter__(self) -> None:
        real = module._SPAN

        class Span:
            @staticmethod
            def pack_into(buffer: object, offset: int, state: int, *values: int) -> None:
                if state == module._READING:
                    real.pack_into(buffer, offset, state, *values)  # type: ignore[arg-type]

        self._patch.setattr(module, "_SPAN", Span)

    def __exit__(self, *_: object) -> None:
        return


def test_a_line_that_was_moved_on_is_found_once(path: str, log: Path, pipe: tuple[int, int]) -> None:
    """The daemon dies when the end of a read has been copied to another slot and is still in the first one."""
    spool = Spool(path)
    slot = _read(spool, pipe, b"one\nhal")
    spool.note = lambda _: None  # type: ignore[method-assign]  # where it dies
    spool.part(slot, 4, NAME, 10)  # type: ignore[arg-type]
    assert _later(path, log) == [b"one\n", b"hal"]


def test_another_boots_file_and_another_versions_are_begun_anew(path: str, log: Path, pipe: tuple[int, int]) -> None:
    _read(Spool(path), pipe, b"one\n")
    with open(path, "r+b") as file:
        file.seek(20)
        file.write(b"00000000")
    assert _later(path, log) == []
    Path(path).write_bytes(b"something else")
    assert _later(path, log) == []


def test_without_room_or_a_file_bytes_are_in_memory(tmp_path: Path, path: str, pipe: tuple[int, int]) -> None:
    spool = Spool(path)
    taken = [spool.take(NAME, SMALL_BYTES) for _ in range(BIG_SLOTS + 1)]
    os.write(pipe[1], b"all the same\n")
    assert spool.read(taken[-1], pipe[0], 13) == 13 and bytes(taken[-1].data) == b"all the same\n"
    assert taken[-1].offset < 0 <= taken[-2].offset
    spool.free(taken[-1])
    assert open_spool(str(tmp_path / "nowhere" / "x")).take(NAME, 1).room == SMALL_BYTES - HEADER_BYTES


def test_only_its_owner_may_read_it(path: str) -> None:
    Spool(path)
    assert Path(path).stat().st_mode & 0o777 == 0o600


# Writing.


@pytest.mark.parametrize("taken", range(0, 21, 4))
def test_what_a_write_got_into_the_log_before_the_daemon_died_is_not_written_again(
    path: str, log: Path, pipe: tuple[int, int], taken: int
) -> None:
    data = [b"one 1\n", b"two 2\nthree\n", b"end"]
    spool = Spool(path)
    slots = [_read(spool, pipe, part) for part in data]
    log.write_bytes(b"before\n")
    _write_and_die(spool, slots, log, b"".join(data)[:taken])
    assert log.read_bytes() == b"before\n" + b"".join(data)[:taken]
    assert b"".join(_later(path, log)) == b"".join(data)[taken:]


def _write_and_die(spool: Spool, slots: list[object], log: Path, got: bytes, ahead: int = 0) -> None:
    turn = spool.begin(slots, ahead)  # type: ignore[arg-type]
    assert turn is not None
    with log.open("ab", buffering=0) as file:
        turn.note(file.fileno())
        file.write(got)


def test_a_log_that_was_renamed_after_the_write_is_found(path: str, log: Path, pipe: tuple[int, int]) -> None:
    spool = Spool(path)
    slot = _read(spool, pipe, b"one\ntwo\n")
    log.touch()
    _write_and_die(spool, [slot], log, b"one\n")
    log.rename(f"{log}.1")
    assert _later(path, log) == [b"two\n"]


def test_of_changed_lines_a_torn_one_is_taken_back_and_written_again(
    path: str, log: Path, pipe: tuple[int, int]
) -> None:
    spool = Spool(path)
    slot = _read(spool, pipe, b"one\ntwo\n")
    log.write_bytes(b"before\n")
    _write_and_die(spool, [slot], log, b'what was held\n{"message":"one"}\n{"mess', ahead=1)
    assert _later(path, log, raw=False) == [b"two\n"]
    assert log.read_bytes() == b'before\nwhat was held\n{"message":"one"}\n'


def test_a_write_over_full_files_is_told_apart(path: str, log: Path, pipe: tuple[int, int]) -> None:
    """The first file took two lines, the daemon dies when the second one has taken one more."""
    spool = Spool(path)
    slot = _read(spool, pipe, b"line 1\nline 2\nline 3\nline 4\n")
    target = Target(str(log), 14, 5)
    target.turn = spool.begin([slot], 0)  # type: ignore[list-item]
    assert target.write([b"line 1\nline 2\nline 3\n"]) == 21
    target.close()
    assert _later(path, log) == [b"line 4\n"]


# Together with the pump.


def _pumped(path: str, log: Path, shape: LogFormat, left: list[Left], spool: Spool) -> OutputPump:
    pump = OutputPump(spool=spool)
    pump.open("web", 3, "stdout", -1, str(log), LogSpec(stdout=str(log), format=shape), resumed=True, left=left)
    return pump


@pytest.mark.parametrize("shape", [LogFormat.RAW, LogFormat.JSON])
def test_what_is_left_of_an_attempt_that_has_ended_is_written(
    path: str, log: Path, pipe: tuple[int, int], shape: LogFormat
) -> None:
    first = Spool(path)
    _read(first, pipe, b"one\n")
    _read(first, pipe, b"end")
    spool = Spool(path)
    left = settle(spool, lambda name: None)[NAME]
    pump = _pumped(path, log, shape, left, spool)
    pump.close(5)
    if shape is LogFormat.RAW:
        assert log.read_bytes() == b"one\nend"
    else:
        assert [json.loads(line)["message"] for line in log.read_text().splitlines()] == ["one", "end"]
    assert _later(path, log) == [], "it is in the log now"


def test_a_daemon_that_leaves_hands_an_unfinished_line_on(path: str, log: Path) -> None:
    spec = LogSpec(stdout=str(log), format=LogFormat.JSON)
    reading, writing = os.pipe()
    pump = OutputPump(spool=Spool(path))
    pump.open("web", 3, "stdout", reading, str(log), spec)
    os.write(writing, b"one\nhalf a li")
    until(lambda: content(log).count(b"\n") == 1)
    again = os.dup(reading)
    pump.close(5, leave=True)

    spool = Spool(path)
    pump = OutputPump(spool=spool)
    left = settle(spool, lambda name: Place(str(log), raw=False))[NAME]
    pump.open("web", 3, "stdout", again, str(log), spec, resumed=True, left=left)
    os.write(writing, b"ne\n")
    os.close(writing)
    until(lambda: content(log).count(b"\n") == 2)
    pump.close(5)
    assert [json.loads(line)["message"] for line in log.read_text().splitlines()] == ["one", "half a line"]
