"""The output of units when targets are full, hang, fail or have nobody who reads them.

What must hold each time: the unit is not held up for longer than a moment, other logs go on, no line is torn, and what
is missing was counted and told.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.model import LogFormat
from supervisor.host.output import OutputPump
from tests.supervisor.host.output_kit import Unit, content, ended, numbered, until, whole_history

NOTICE = re.compile(rb"unitd: (\d+) lines \((\d+) bytes\) dropped: (.*)\n")
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


class Trouble:
    """A pump that remembers what it reported."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.pump = OutputPump(self.said.append)


@pytest.fixture
def trouble() -> Iterator[Trouble]:
    made = Trouble()
    yield made
    made.pump.close(1)


@pytest.fixture
def unit(trouble: Trouble) -> Iterator[Callable[..., Unit]]:
    made: list[Unit] = []

    def make(target: Path, name: str = "u", **more: Any) -> Unit:
        made.append(Unit(trouble.pump, target, name, **more))
        return made[-1]

    yield make
    for one in made:
        one.end()


def check_account(log: bytes, trouble: Trouble, name: str, total: int) -> None:
    """Every line of `name` is in the log, whole and in order, or counted at the place where it is missing."""
    expected, lost = 0, 0
    for row in log.splitlines(keepends=True):
        told = NOTICE.fullmatch(row)
        if told:
            lost += int(told[1])
            expected += int(told[1])
            continue
        assert re.fullmatch(rb"%s %d x*\n" % (name.encode(), expected), row), row[:60]
        expected += 1
    assert expected == total
    drops = trouble.pump.counters().get((name, "stdout"))
    assert (drops.lines if drops else 0) == lost


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.decode()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@root
@pytest.mark.parametrize("max_bytes", [0, 300_000])
def test_a_full_disk_holds_nobody_up_and_loses_only_what_it_tells(
    small_disk: Path, trouble: Trouble, unit: Callable[..., Unit], tmp_path: Path, max_bytes: int
) -> None:
    filler, log = small_disk / "filler", small_disk / "u.log"
    filler.write_bytes(b"x" * 7_000_000)
    said, other = unit(log, max_bytes=max_bytes, backups=100), unit(tmp_path / "other.log", "other")
    ended(said.say_in_thread(numbered("u", 0, 90_000, 99)))
    other.say(b"fine\n")
    until(lambda: content(tmp_path / "other.log") == b"fine\n", 2.0)
    until(lambda: ("u", "stdout") in trouble.pump.counters())
    assert trouble.pump.counters()["u", "stdout"].reason == "no space left on device"
    assert whole_history(log).endswith(b"\n")
    filler.unlink()
    until(lambda: NOTICE.search(whole_history(log)))
    said.say(numbered("u", 90_000, 10))
    said.end()
    until(lambda: b"u 90009" in whole_history(log))
    check_account(whole_history(log), trouble, "u", 90_010)
    assert trouble.said == [
        f"cannot write {log}: no space left on device; lines are dropped and counted until it works again",
        f"{log} can be written again",
    ]


@root
def test_a_short_outage_loses_nothing(small_disk: Path, trouble: Trouble, unit: Callable[..., Unit]) -> None:
    filler, log = small_disk / "filler", small_disk / "u.log"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(b"x" * 4096)
    said = unit(log)
    said.say(numbered("u", 0, 100))
    until(lambda: trouble.said)
    filler.unlink()
    until(lambda: content(log) == numbered("u", 0, 100))
    assert trouble.pump.counters() == {}


@root
def test_closing_on_a_full_disk_ends_in_time_and_counts(small_disk: Path) -> None:
    filler, log = small_disk / "filler", small_disk / "u.log"
    filler.write_bytes(b"x" * 8_000_000)
    pump = OutputPump()
    said = Unit(pump, log)
    ended(said.say_in_thread(numbered("u", 0, 5_000, 99)))
    said.end()
    begin = time.monotonic()
    pump.close(5)
    assert time.monotonic() - begin < 4
    kept = content(log).count(b"\n")
    assert kept + pump.counters()["u", "stdout"].lines == 5_000
    assert content(log).endswith(b"\n") or not kept


@pytest.fixture
def freezing_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system that `fsfreeze` can make hang, as a dead disk would; thawed by itself after a while."""
    if not (shutil.which("mkfs.ext4") and shutil.which("fsfreeze")):
        pytest.skip("needs mkfs.ext4 and fsfreeze")
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(48 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a loop device")
    thaw = ["fsfreeze", "-u", str(folder)]
    guard = subprocess.Popen(["sh", "-c", f"sleep 19; exec {' '.join(thaw)}"], start_new_session=True)
    yield folder
    subprocess.run(thaw, capture_output=True, check=False)
    os.killpg(guard.pid, 9)
    guard.wait()
    try:
        until(lambda: subprocess.run(["umount", str(folder)], capture_output=True, check=False).returncode == 0)
    finally:
        subprocess.run(
            ["umount", "-l", str(folder)], capture_output=True, check=False
        )  # whatever happened: leave no mount behind


@root
def test_a_hanging_disk_holds_up_neither_its_unit_nor_other_logs(
    freezing_disk: Path, trouble: Trouble, unit: Callable[..., Unit], tmp_path: Path
) -> None:
    log, free = freezing_disk / "u.log", tmp_path / "free.log"
    said, other = unit(log), unit(free, "other")
    said.say(numbered("u", 0, 10, 99))
    until(lambda: content(log).count(b"\n") == 10)
    subprocess.run(["fsfreeze", "-f", str(freezing_disk)], check=True)
    thread = said.say_in_thread(numbered("u", 10, 100_000, 99))
    other.say(b"on another disk\n")
    until(lambda: content(free) == b"on another disk\n", 5.0)
    ended(thread)
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(trouble.pump.last(str(log), 1), 0.1))
    until(lambda: ("u", "stdout") in trouble.pump.counters())
    assert trouble.pump.counters()["u", "stdout"].reason == "writing takes too long"
    subprocess.run(["fsfreeze", "-u", str(freezing_disk)], check=True)
    until(lambda: NOTICE.search(content(log)))
    said.say(numbered("u", 100_010, 10))
    until(lambda: b"u 100019" in content(log))
    check_account(content(log), trouble, "u", 100_020)


@root
def test_closing_beside_a_hanging_disk_ends_in_time(freezing_disk: Path, tmp_path: Path) -> None:
    pump = OutputPump()
    hanging, fine = Unit(pump, freezing_disk / "u.log"), Unit(pump, tmp_path / "fine.log")
    hanging.say(b"one\n")
    until(lambda: content(freezing_disk / "u.log") == b"one\n")
    subprocess.run(["fsfreeze", "-f", str(freezing_disk)], check=True)
    hanging.say(b"two\n")
    time.sleep(0.1)  # so that a writer is caught by it before the other log has something
    fine.say(b"last\n")
    begin = time.monotonic()
    pump.close(3)
    assert time.monotonic() - begin < 6
    assert content(tmp_path / "fine.log") == b"last\n"
    hanging.end()
    fine.end()


def test_a_fifo_that_nobody_reads_holds_nobody_up(trouble: Trouble, unit: Callable[..., Unit], tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    said, other = unit(fifo), unit(tmp_path / "other.log", "other")
    thread = said.say_in_thread(numbered("u", 0, 50_000, 99))
    other.say(b"not delayed\n")
    until(lambda: content(tmp_path / "other.log") == b"not delayed\n", 2.0)
    ended(thread)
    until(lambda: ("u", "stdout") in trouble.pump.counters())
    assert trouble.pump.counters()["u", "stdout"].reason == "nobody reads it"
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    got = bytearray()
    until(lambda: read_into(got, reader) and NOTICE.search(got))
    said.say(numbered("u", 50_000, 10))
    until(lambda: read_into(got, reader) and b"u 50009" in got)
    until(lambda: read_into(got, reader) and got.endswith(b"\n"))
    os.close(reader)
    check_account(bytes(got), trouble, "u", 50_010)


def read_into(got: bytearray, fd: int) -> bool:
    with suppress(BlockingIOError):
        got += os.read(fd, 1 << 16)
    return True


def test_a_fifo_with_a_slow_reader_gets_whole_lines_in_order(unit: Callable[..., Unit], tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    data = numbered("u", 0, 10_000, 99)
    said = unit(fifo)
    thread = said.say_in_thread(data, said.end)
    got = bytearray()
    until(lambda: read_into(got, reader) and len(got) >= len(data))
    ended(thread)
    os.close(reader)
    assert got == data


def test_a_full_pipe_as_own_stdout_does_not_hold_the_daemon_up(tmp_path: Path) -> None:
    code = (
        "import os, time; from supervisor.host.output import OutputPump; from supervisor.core.model import LogSpec\n"
        "pump = OutputPump(); end, fd = os.pipe(); pump.open('u', 1, 'stdout', end, '/dev/stdout', LogSpec())\n"
        "for _ in range(3000): os.write(fd, b'y' * 999 + b'\\n')\n"
        "os.close(fd); begin = time.monotonic(); pump.close(1); assert time.monotonic() - begin < 5\n"
        "drops = pump.counters()['u', 'stdout']\n"
        "os.write(2, repr((os.get_blocking(1), drops.lines > 0)).encode())\n"
    )
    end, fd = os.pipe()
    child = subprocess.Popen([sys.executable, "-c", code], stdout=fd, stderr=subprocess.PIPE)
    os.close(fd)
    assert child.communicate(timeout=15)[1] == b"(True, True)"
    os.close(end)


def test_running_out_of_descriptors_keeps_the_lines_until_there_are_some(
    trouble: Trouble, unit: Callable[..., Unit], tmp_path: Path
) -> None:
    said = unit(tmp_path / "u.log")
    until(lambda: os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        said.say(b"patience\n")
        until(lambda: trouble.said)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "too many open files" in trouble.said[0]
    until(lambda: content(tmp_path / "u.log") == b"patience\n")
    assert trouble.pump.counters() == {}


def test_json_tells_of_drops_in_json(trouble: Trouble, unit: Callable[..., Unit], tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    said = unit(fifo, shape=LogFormat.JSON)
    ended(said.say_in_thread(numbered("u", 0, 20_000, 99), said.end))
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    got = bytearray()
    until(lambda: read_into(got, reader) and b"dropped: " in got and got.endswith(b"\n"))
    until(lambda: read_into(got, reader) and got.count(b"\n") + lost_lines(trouble) >= 20_001)
    os.close(reader)
    expected = 1
    for row in map(json.loads, got.splitlines()):
        if row["stream"] == "unitd":
            expected += int(row["message"].split()[1])
        else:
            assert row["seq"] == expected
            expected += 1
    assert expected == 20_001


def lost_lines(trouble: Trouble) -> int:
    return trouble.pump.counters()["u", "stdout"].lines


def test_a_folder_that_cannot_be_made_is_reported_once(
    trouble: Trouble, unit: Callable[..., Unit], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    log = tmp_path / "file" / "u.log"
    said = unit(log)
    said.say(b"a\n")
    until(lambda: trouble.said)
    (tmp_path / "file").unlink()
    until(lambda: content(log) == b"a\n")
    assert [sentence.split(":")[0] for sentence in trouble.said] == [
        f"cannot write {log}",
        f"{log} can be written again",
    ]


def test_whoever_listens_to_reports_cannot_stop_the_pump(tmp_path: Path) -> None:
    def listener(sentence: str) -> None:
        raise ValueError(sentence)

    pump = OutputPump(listener)
    bad, good = Unit(pump, tmp_path), Unit(pump, tmp_path / "u.log")
    bad.say(b"a\n")
    good.say(b"b\n")
    until(lambda: content(tmp_path / "u.log") == b"b\n")
    pump.close(2)
    assert pump.counters()["u", "stdout"].reason == "is a directory"
    bad.end()
    good.end()
