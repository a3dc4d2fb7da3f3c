"""What a daemon does with the output of units: megabytes a second, CPU seconds a GiB, and whether every line arrived.

Loads: one unit that writes a GiB of 100-byte lines as fast as it can, and 50 units that write 10 MB/s each for 10 s.
Every line has a number. Afterwards all log files are read: each line must be there, whole and in order, or be counted
in a notice of the daemon where it is missing.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from neighbour import Supervisord
from proc import work_of
from report import show, spread
from sides import Side, Units
from unitd_side import Unitd

LINE_BYTES = 100
BLOCK_LINES = 10_000
BLOCK_BYTES = LINE_BYTES * BLOCK_LINES
PIECE_BYTES = BLOCK_BYTES // 10  # what a unit with a rate writes at once
FILE_BYTES = 50_000_000
PATIENCE_SECONDS = 600.0  # for all lines to arrive
STILL_SECONDS = 10.0  # nothing grows any more
_NOTICE = re.compile(rb"unitd: (\d+) lines \(\d+ bytes\) dropped: [^\n]*\n")
_LINE = re.compile(rb"(\d{12}) \.{86}\n")


@dataclass(frozen=True, slots=True)
class Load:
    """So many units, each writing so many blocks, at a rate in MB/s (0: as fast as it can)."""

    name: str
    units: int
    blocks: int
    rate: float

    @property
    def total(self) -> int:
        """Bytes of all units."""
        return self.units * self.blocks * BLOCK_BYTES


LOADS = (Load("1 unit, 1 GiB at once", 1, 1074, 0), Load("50 units, 10 MB/s each", 50, 100, 10))
QUICK_LOADS = (Load("1 unit, 64 MB at once", 1, 64, 0), Load("10 units, 2 MB/s each", 10, 4, 2))


def blocks(count: int) -> Iterator[bytearray]:
    """Blocks of numbered lines; always the same object, changed in place: the last four digits stay as they are."""
    block = bytearray(b"".join(b"%012d %s\n" % (row, b"." * 86) for row in range(BLOCK_LINES)))
    before = b"0" * 8
    for number in range(count):
        digits = b"%08d" % number
        for place in range(8):
            if digits[place] != before[place]:
                block[place::LINE_BYTES] = digits[place : place + 1] * BLOCK_LINES
        before = digits
        yield block


def be_unit(folder: Path, name: str, count: int, rate: float) -> None:
    """Write to stdout once the file `go` is there, leave the times in a file, and stay."""
    while not (folder / "go").exists():
        time.sleep(0.01)
    begun, written = time.monotonic(), 0
    step = PIECE_BYTES if rate else BLOCK_BYTES
    for block in blocks(count):
        for begin in range(0, BLOCK_BYTES, step):
            write(memoryview(block)[begin : begin + step])
            written += step
            ahead = begun + written / (rate * 1e6) - time.monotonic() if rate else 0
            if ahead > 0:
                time.sleep(ahead)
    (folder / f"{name}.part").write_text(f"{time.monotonic() - begun}")
    (folder / f"{name}.part").rename(folder / f"{name}.seconds")
    time.sleep(1e6)


def write(view: memoryview) -> None:
    while view:
        view = view[os.write(1, view) :]


def unit_names(load: Load) -> list[str]:
    return [f"loud{number}" for number in range(load.units)]


def command(load: Load, folder: Path, name: str) -> str:
    return f"{sys.executable} {Path(__file__).resolve()} --unit {folder} {name} {load.blocks} {load.rate}"


class LoudUnitd(Unitd):
    """unitd whose single units have logs that keep everything."""

    def configure(self) -> list[str]:
        started = super().configure()
        backups = keeping(self.folder)
        with (self.folder / "unitd.toml").open("a") as file:
            for name, _ in self.units.single:
                file.write(f'[unit.{name}.logs]\nstdout = "{self.folder}/logs/{name}.log"\n')
                file.write(f"max_bytes = {FILE_BYTES}\nbackups = {backups}\n")
        return started


class LoudSupervisord(Supervisord):
    """supervisord likewise."""

    def configure(self) -> list[str]:
        (self.folder / "logs").mkdir()
        started = super().configure()
        path, backups = self.folder / "supervisord.conf", keeping(self.folder)
        text = path.read_text()
        for name, _ in self.units.single:
            log = f"stdout_logfile={self.folder}/logs/{name}.log\nstdout_logfile_maxbytes={FILE_BYTES}\n"
            text = text.replace(f"[program:{name}]\n", f"[program:{name}]\n{log}stdout_logfile_backups={backups}\n")
        path.write_text(text)
        return started


def keeping(folder: Path) -> int:
    """How many backups keep all that a unit of the present load writes."""
    return int((folder / "blocks").read_text()) * BLOCK_BYTES // FILE_BYTES + 2


def files_of(folder: Path, name: str) -> list[Path]:
    """A unit's log files, oldest first."""
    found = (folder / "logs").glob(f"{name}.log*")
    return sorted(found, key=lambda path: -int(path.suffix[1:]) if path.suffix != ".log" else 0)


def log_bytes(folder: Path) -> int:
    """Of all logs; -1: they changed under our eyes, or are not there yet."""
    try:
        entries = [entry for entry in os.scandir(folder / "logs") if entry.name.startswith("loud")]
        return sum(entry.stat().st_size for entry in entries)
    except FileNotFoundError:
        return -1


@dataclass(slots=True)
class Account:
    """What became of the lines."""

    arrived: int = 0
    counted: int = 0  # as dropped, in notices
    lost: int = 0
    torn: int = 0  # anything that is no line, and files that end within one


def account(folder: Path, load: Load) -> Account:
    """Read all logs."""
    found = Account()
    for name in unit_names(load):
        _account_of(files_of(folder, name), load.blocks, found)
    return found


def _account_of(files: list[Path], count: int, found: Account) -> None:
    wanted, data, expected = blocks(count), b"", 0
    for path in files:
        part = path.read_bytes()
        found.torn += bool(part) and not part.endswith(b"\n")
        data += part
        while len(data) >= BLOCK_BYTES and expected % BLOCK_LINES == 0 and expected < count * BLOCK_LINES:
            if data[:BLOCK_BYTES] != next(wanted):
                wanted = iter(())
                break
            data, expected = data[BLOCK_BYTES:], expected + BLOCK_LINES
            found.arrived += BLOCK_LINES
        else:
            continue
        break
    rest = data + b"".join(path.read_bytes() for path in files[files.index(path) + 1 :])
    _account_slowly(rest, expected, count * BLOCK_LINES, found)


def _account_slowly(data: bytes, expected: int, total: int, found: Account) -> None:
    """Line by line, from where something is not as expected."""
    for row in data.splitlines(keepends=True):
        notice, line = _NOTICE.fullmatch(row), _LINE.fullmatch(row)
        if notice:
            found.counted += int(notice[1])
            expected += int(notice[1])
        elif line and int(line[1]) >= expected:
            found.lost += int(line[1]) - expected
            found.arrived += 1
            expected = int(line[1]) + 1
        else:
            found.torn += 1
    found.lost += total - expected


@dataclass(slots=True)
class Run:
    """One load on one side."""

    rate: float  # MB/s, until the last byte was in its file
    units_rate: float  # MB/s of all units together, as they could write
    cpu: float  # the daemon's seconds a GiB
    account: Account


def measure(side: type[Side], load: Load) -> Run:
    made = side(Units(0, ()))
    folder = made.folder
    made.units = Units(0, tuple((name, command(load, folder, name)) for name in unit_names(load)))
    (folder / "blocks").write_text(str(load.blocks))
    with made:
        before = work_of(made.pid)
        begun = time.monotonic()
        (folder / "go").touch()
        ended = _wait(folder, load)
        work = work_of(made.pid).since(before)
        slowest = max(float((folder / f"{name}.seconds").read_text()) for name in unit_names(load))
        cpu = work.cpu_ms / 1e3 / (load.total / 2**30)
        return Run(load.total / 1e6 / (ended - begun), load.total / 1e6 / slowest, cpu, account(folder, load))


def _wait(folder: Path, load: Load) -> float:
    """Until all has arrived, or nothing more does; when the logs were last seen to grow."""
    until, seen, grown = time.monotonic() + PATIENCE_SECONDS, 0, time.monotonic()
    while True:
        time.sleep(0.02)
        now, size = time.monotonic(), log_bytes(folder)
        if size != seen and size >= 0:
            seen, grown = size, now
        done = all((folder / f"{name}.seconds").exists() for name in unit_names(load))
        if done and (seen >= load.total or now - grown > STILL_SECONDS):
            return grown
        if now > until:
            raise RuntimeError(f"only {seen} of {load.total} bytes arrived within {PATIENCE_SECONDS:g} s")


def row_of(load: Load, side: type[Side], runs: list[Run]) -> dict[str, object]:
    rate, cpu = spread([run.rate for run in runs]), spread([run.cpu for run in runs])
    return {
        "load": load.name,
        "side": side.name,
        "MB/s": rate["median"],
        "min": rate["min"],
        "max": rate["max"],
        "units' MB/s": spread([run.units_rate for run in runs])["median"],
        "CPU s/GiB": cpu["median"],
        "least": cpu["min"],
        "most": cpu["max"],
        "lines": sum(run.account.arrived for run in runs),
        "counted drops": sum(run.account.counted for run in runs),
        "lost": sum(run.account.lost for run in runs),
        "torn": sum(run.account.torn for run in runs),
    }


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="how often each thing is measured (default: 3)")
    parser.add_argument("--quick", action="store_true", help="small loads, to see that it works")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--unit", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Measure both sides in turn; 1 when unitd lost a line that it did not count, or tore one."""
    chosen = options()
    if chosen.unit:
        folder, name, count, rate = chosen.unit
        be_unit(Path(folder), name, int(count), float(rate))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the daemons are ended
    loads = QUICK_LOADS if chosen.quick else LOADS
    sides: tuple[type[Side], ...] = (LoudUnitd, LoudSupervisord)
    measured: dict[tuple[Load, type[Side]], list[Run]] = {}
    for turn in range(chosen.runs):
        for load in loads:
            # In turn the first: the second finds memory that the host has already given, and is faster for it.
            for side in sides[:: -1 if turn % 2 else 1]:
                measured.setdefault((load, side), []).append(measure(side, load))
    rows = [row_of(load, side, runs) for (load, side), runs in measured.items()]
    show(f"Output of units, {LINE_BYTES}-byte lines, {chosen.runs} runs", rows, as_json=chosen.json)
    return int(any(row["side"] == Unitd.name and (row["lost"] or row["torn"]) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
