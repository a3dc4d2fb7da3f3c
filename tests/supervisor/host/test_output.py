"""The output of units on its way from pipes to logs, with targets that work."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.model import LogFormat, LogSpec
from supervisor.host.follow import Follower
from supervisor.host.output import OutputPump
from tests.supervisor.host.output_kit import Unit, content, ended, numbered, until, whole_history


@pytest.fixture
def pump() -> Iterator[OutputPump]:
    made = OutputPump()
    yield made
    made.close(5)


@pytest.fixture
def unit(pump: OutputPump, tmp_path: Path) -> Iterator[Callable[..., Unit]]:
    """Makes units that write to `u.log` unless told otherwise; their pipes are closed at the end."""
    made: list[Unit] = []

    def make(target: Path | str = tmp_path / "u.log", name: str = "u", stream: str = "stdout", **more: Any) -> Unit:
        made.append(Unit(pump, target, name, stream, **more))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "u.log"


def test_lines_reach_the_file_as_they_came(unit: Callable[..., Unit], path: Path) -> None:
    said = unit()
    said.say(b"one\n\x00\xff two\r\n")
    until(lambda: content(path) == b"one\n\x00\xff two\r\n")
    said.say(b"three\n")
    until(lambda: content(path).endswith(b"three\n"))


def test_a_silent_unit_opens_no_file(unit: Callable[..., Unit], path: Path, pump: OutputPump) -> None:
    unit().end()
    other = unit(path.parent / "other.log")
    other.say(b"x\n")
    until(lambda: content(path.parent / "other.log") == b"x\n")
    assert not path.exists()


def test_a_last_line_without_newline_is_kept_raw(unit: Callable[..., Unit], path: Path) -> None:
    said = unit()
    said.say(b"whole\nhalf")
    said.end()
    until(lambda: content(path) == b"whole\nhalf")


def test_the_next_attempt_begins_its_own_line(unit: Callable[..., Unit], path: Path) -> None:
    first, second = unit(), unit(generation=2)
    first.say(b"cut off")
    first.end()
    until(lambda: content(path) == b"cut off")
    second.say(b"new\n")
    until(lambda: content(path) == b"cut off\nnew\n")


def test_a_new_daemon_goes_on_in_the_line_that_the_old_one_read(unit: Callable[..., Unit], path: Path) -> None:
    path.write_bytes(b"a line in tw")
    unit(resumed=True).say(b"o parts\n")
    until(lambda: content(path) == b"a line in two parts\n")


def test_an_unfinished_line_waits_for_its_end(unit: Callable[..., Unit], path: Path) -> None:
    said, other = unit(), unit(stream="stderr")
    said.say(b"be")
    other.say(b"between\n")
    until(lambda: content(path) == b"between\n")
    said.say(b"gin\n")
    until(lambda: content(path) == b"between\nbegin\n")


def test_a_line_without_end_is_written_in_parts(unit: Callable[..., Unit], path: Path) -> None:
    said = unit()
    said.say(b"x" * 3_000_000)
    until(lambda: len(content(path)) > 2_500_000)
    said.say(b"\nnext\n")
    until(lambda: content(path) == b"x" * 3_000_000 + b"\nnext\n")


def test_two_streams_of_one_target_keep_their_lines_whole_over_rotation(unit: Callable[..., Unit], path: Path) -> None:
    names = ("out", "err", "old")
    units = [unit(stream="stdout", name=name, max_bytes=200_000, backups=500) for name in names]
    threads = []
    for name, said in zip(names, units, strict=True):
        width = {"out": 30, "err": 90, "old": 1000}[name]
        threads.append(said.say_in_thread(numbered(name, 0, 20_000, width), said.end))
    for thread in threads:
        ended(thread)
    until(lambda: whole_history(path).count(b"\n") >= 60_000)
    files = [file.read_bytes() for file in path.parent.iterdir()]
    assert len(files) > 50
    assert all(data.endswith(b"\n") and len(data) <= 200_000 for data in files if data)
    rows = whole_history(path).split(b"\n")
    for name in names:
        mine = [int(row.split()[1]) for row in rows if row.startswith(name.encode() + b" ")]
        assert mine == list(range(20_000))


def test_tiny_writes_arrive_whole_and_in_order(unit: Callable[..., Unit], path: Path) -> None:
    said = unit(max_bytes=5_000, backups=1000)
    data = numbered("tiny", 0, 3000)
    for begin in range(0, len(data), 7):
        said.say(data[begin : begin + 7])
    said.end()
    until(lambda: whole_history(path) == data)


def test_json_numbers_go_on_over_reads(unit: Callable[..., Unit], path: Path) -> None:
    said = unit(shape=LogFormat.JSON, name="cart:0", generation=4)
    thread = said.say_in_thread(numbered("j", 0, 30_000), said.end)
    ended(thread)
    until(lambda: content(path).count(b"\n") == 30_000)
    rows = [json.loads(row) for row in content(path).splitlines()]
    assert [row["seq"] for row in rows] == list(range(1, 30_001))
    assert [row["message"] for row in rows] == [f"j {number} " for number in range(30_000)]
    assert {(row["unit"], row["generation"], row["stream"]) for row in rows} == {("cart:0", 4, "stdout")}


def test_a_prefix_stands_before_every_line(unit: Callable[..., Unit], path: Path) -> None:
    said = unit(shape=LogFormat.PREFIX, name="cart:0", stream="stderr")
    said.say(b"a\nb")
    said.end()
    until(lambda: content(path).count(b"\n") == 2)
    marks = [row.split(b" ", 1) for row in content(path).splitlines()]
    assert [mark[1] for mark in marks] == [b"cart:0 (stderr) a", b"cart:0 (stderr) b"]
    assert all(mark[0].endswith(b"Z") and len(mark[0]) == 24 for mark in marks)


def test_without_a_target_the_pipe_is_read_all_the_same(pump: OutputPump) -> None:
    end, fd = os.pipe()
    pump.open("u", 1, "stdout", end, None, LogSpec())
    for _ in range(50):
        os.write(fd, b"x" * 60_000)  # would block for ever when nobody read
    os.close(fd)
    assert pump.counters() == {}


def test_reopening_writes_to_the_name_again(unit: Callable[..., Unit], path: Path, pump: OutputPump) -> None:
    said = unit()
    said.say(b"before\n")
    until(lambda: content(path) == b"before\n")
    path.rename(f"{path}.moved")
    pump.reopen()
    until(path.exists)
    said.say(b"after\n")
    until(lambda: content(path) == b"after\n")
    assert Path(f"{path}.moved").read_bytes() == b"before\n"


def test_an_ended_stream_is_read_out_and_closed(unit: Callable[..., Unit], path: Path, pump: OutputPump) -> None:
    said = unit()
    said.say(b"last words")
    pump.end(said.stream)
    until(lambda: content(path) == b"last words")
    with pytest.raises(BrokenPipeError):
        said.say(b"nobody hears this\n")
    pump.end(said.stream)  # again: nothing happens


def test_closing_writes_what_the_pipes_hold(tmp_path: Path) -> None:
    pump = OutputPump()
    units = [Unit(pump, tmp_path / f"{number}.log") for number in range(20)]
    for number, said in enumerate(units):
        said.say(numbered("n", 0, 1000) + b"open end %d" % number)
    pump.close(5)
    for number, said in enumerate(units):
        assert content(tmp_path / f"{number}.log") == numbered("n", 0, 1000) + b"open end %d" % number
        said.end()
    OutputPump().close(1)  # one that was never used


def test_a_shouting_unit_does_not_delay_the_lines_of_another(unit: Callable[..., Unit], tmp_path: Path) -> None:
    shouting = unit(tmp_path / "loud.log", max_bytes=10_000_000, backups=1)
    quiet = unit(tmp_path / "quiet.log")
    block, heard = numbered("loud", 0, 10_000, 99), threading.Event()

    def shout() -> None:
        blocks = 0
        while blocks < 50 or not heard.is_set():
            shouting.say(block)
            blocks += 1
        shouting.end()

    thread = threading.Thread(target=shout, daemon=True)
    thread.start()
    worst, said = 0.0, b""
    try:
        while thread.is_alive():
            begin = time.monotonic()
            said += b"still here\n"
            quiet.say(b"still here\n")
            until(lambda: content(tmp_path / "quiet.log") == said, 5.0)  # noqa: B023
            worst = max(worst, time.monotonic() - begin)
            if said.count(b"\n") > 3:
                heard.set()
    finally:
        heard.set()
    assert said.count(b"\n") > 3
    assert worst < 2.0


def test_the_event_loop_stays_awake_beside_a_shouting_unit(unit: Callable[..., Unit]) -> None:
    shouting = unit(max_bytes=10_000_000, backups=1, shape=LogFormat.JSON)

    async def lag() -> float:
        thread = shouting.say_in_thread(numbered("loud", 0, 10_000, 99) * 30, shouting.end)
        worst = 0.0
        while thread.is_alive():
            begin = time.monotonic()
            await asyncio.sleep(0.005)
            worst = max(worst, time.monotonic() - begin - 0.005)
        return worst

    assert asyncio.run(lag()) < 1.0


def test_many_silent_streams_cost_little(tmp_path: Path) -> None:
    count = 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = 2 * count + 200
    if hard != resource.RLIM_INFINITY and hard < need:
        pytest.skip(f"needs {need} descriptors, may have {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, need), hard))
    pump, log, pipes = OutputPump(), LogSpec(), [os.pipe() for _ in range(count)]
    paths = [str(tmp_path / f"{number}.log") for number in range(count)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for (end, _), path in zip(pipes, paths, strict=True):
            pump.open("u", 1, "stdout", end, path, log)
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()
    begin = time.process_time()
    os.write(pipes[-1][1], b"one speaks\n")
    until(lambda: content(tmp_path / f"{count - 1}.log") == b"one speaks\n")
    assert time.process_time() - begin < 1.0
    pump.close(5)
    for _, fd in pipes:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert each < 1024
    assert len(os.listdir(tmp_path)) == 1


async def collected(follower: Follower, enough: Callable[[bytes], object], seconds: float = 10.0) -> bytes:
    got = b""
    async with asyncio.timeout(seconds):
        async for chunk in follower:
            got += chunk
            if enough(got):
                break
    return got


def test_following_begins_with_the_last_lines_and_survives_rotation(
    unit: Callable[..., Unit], path: Path, pump: OutputPump
) -> None:
    said = unit(max_bytes=1000, backups=2)
    said.say(numbered("f", 0, 100))
    until(lambda: content(path).endswith(b"f 99 \n"))

    async def follow() -> bytes:
        async with pump.follow(str(path), 5) as follower:
            got = await collected(follower, lambda data: data.count(b"\n") >= 5)
            assert got == numbered("f", 95, 5)
            said.say_in_thread(numbered("f", 100, 5000), said.end)
            return got + await collected(follower, lambda data: data.endswith(b"f 5099 \n"))

    assert asyncio.run(follow()) == numbered("f", 95, 5005)


def test_the_last_lines_come_without_following(unit: Callable[..., Unit], path: Path, pump: OutputPump) -> None:
    said = unit(max_bytes=100, backups=5)
    said.say(numbered("l", 0, 30))
    until(lambda: whole_history(path) == numbered("l", 0, 30))
    assert asyncio.run(pump.last(str(path), 20)) == numbered("l", 10, 20)
    assert asyncio.run(pump.last(str(path.parent / "missing"), 20)) == b""
    said.say(b"goes on\n")
    until(lambda: whole_history(path).endswith(b"goes on\n"))


def test_following_a_log_that_does_not_exist_yet(unit: Callable[..., Unit], path: Path, pump: OutputPump) -> None:
    async def follow() -> bytes:
        async with pump.follow(str(path)) as follower:
            said = unit()
            said.say(b"first\n")
            return await collected(follower, lambda data: data.endswith(b"\n"))

    assert asyncio.run(follow()) == b"first\n"
    assert content(path) == b"first\n"


def test_a_slow_follower_is_told_what_it_missed_and_delays_nobody(
    unit: Callable[..., Unit], path: Path, pump: OutputPump
) -> None:
    said = unit(max_bytes=0)

    async def follow() -> bytes:
        async with pump.follow(str(path), 0) as follower:
            said.say(b"begin\n")
            got = await collected(follower, lambda data: data == b"begin\n")
            thread = said.say_in_thread(numbered("s", 0, 100_000, 99))
            await asyncio.to_thread(ended, thread)
            await asyncio.to_thread(until, lambda: content(path).count(b"\n") == 100_001)
            got += await collected(follower, lambda data: b"dropped" in data)
            said.say(b"end\n")
            return got + await collected(follower, lambda data: data.endswith(b"end\n"))

    got = asyncio.run(follow())
    rows = got.splitlines()
    missed = [row for row in rows if row.startswith(b"unitd: ")]
    assert len(missed) == 1
    assert b"this reader is too slow" in missed[0]
    assert int(missed[0].split()[1]) + len(rows) - 3 == 100_000
    assert len(got) < 2_500_000


def test_closing_the_pump_ends_followers(path: Path) -> None:
    async def follow() -> bytes:
        pump = OutputPump()
        said = Unit(pump, path)
        follower = pump.follow(str(path))
        said.say(b"bye\n")
        said.end()
        await asyncio.to_thread(until, lambda: content(path) == b"bye\n")
        await asyncio.to_thread(pump.close, 5)
        return b"".join([chunk async for chunk in follower])

    assert asyncio.run(follow()) == b"bye\n"


def test_the_daemons_own_stdout_is_a_target(tmp_path: Path) -> None:
    code = (
        "import os; from supervisor.host.output import OutputPump; from supervisor.core.model import LogSpec\n"
        "pump = OutputPump(); end, fd = os.pipe()\n"
        "pump.open('u', 1, 'stdout', end, '/dev/stdout', LogSpec(max_bytes=1))\n"
        "os.write(fd, b'hello\\nworld\\n'); os.close(fd); pump.close(5)\n"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, stdout=subprocess.PIPE, timeout=15, check=True).stdout == b"hello\nworld\n"
    with (tmp_path / "out").open("wb") as out:
        out.write(b"before\n")
        out.flush()
        subprocess.run(command, stdout=out, timeout=15, check=True)
    assert content(tmp_path / "out") == b"before\nhello\nworld\n"
