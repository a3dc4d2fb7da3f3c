"""How long a killed unit is away: from SIGKILL to the first instruction of the next process's main().

Sides: a bare loop of waitid and subprocess.Popen in Python, which is the least that Python can do; unitd; supervisord.
Each unit is killed only after it has been running for longer than startsecs, at a random moment of a second.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from neighbour import Supervisord
from report import options, show, spread
from sides import CACHE, Side, Units
from unitd_side import Unitd

SETTLED_SECONDS = 2.5  # startsecs, and supervisord notices it at its next tick of 1 s
PATIENCE_SECONDS = 60.0
RECORD = struct.Struct("qq")  # first.c: pid, nanoseconds of CLOCK_MONOTONIC
BARE_LOOP = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, lambda *_: (child.kill(), os._exit(0)))
while True:
    child = subprocess.Popen(sys.argv[1:])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    child.wait()
"""


class Fifo:
    """Where the unit writes to."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._end = os.open(path, os.O_RDWR)  # for both: the unit never waits for a reader, we never see its end

    def read(self) -> tuple[int, int]:
        """The next process: its pid and when it began."""
        if not select.select([self._end], [], [], PATIENCE_SECONDS)[0]:
            raise RuntimeError(f"no unit has started for {PATIENCE_SECONDS:g} s")
        pid, began = RECORD.unpack(os.read(self._end, RECORD.size))
        return pid, began

    def close(self) -> None:
        os.close(self._end)


@contextlib.contextmanager
def fifo() -> Iterator[Fifo]:
    """A FIFO in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="unitd-bench-") as folder:
        made = Fifo(Path(folder) / "fifo")
        try:
            yield made
        finally:
            made.close()


def unit_program() -> str:
    """The compiled first.c."""
    source, program = Path(__file__).parent / "first.c", CACHE / "first"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            sys.exit("cannot measure: a C compiler is needed for the unit, so that its own start costs next to nothing")
        CACHE.mkdir(exist_ok=True)
        subprocess.run([compiler, "-O2", "-o", program, source], check=True)
    return str(program.resolve())


def kill_again_and_again(source: Fifo, runs: int) -> list[float]:
    """Milliseconds that the unit was away, for each run."""
    away = []
    pid, _ = source.read()
    for _ in range(runs):
        time.sleep(SETTLED_SECONDS + random.random())
        killed = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        pid, began = source.read()
        away.append((began - killed) / 1e6)
    return away


def measure_bare(runs: int) -> list[float]:
    with fifo() as source:
        command = [sys.executable, "-c", BARE_LOOP, unit_program(), str(source.path)]
        loop = subprocess.Popen(command)
        try:
            return kill_again_and_again(source, runs)
        finally:
            loop.terminate()
            loop.wait()


def measure(side: type[Side], idle: int, runs: int) -> list[float]:
    with fifo() as source, side(Units(idle, (("probe", f"{unit_program()} {source.path}"),))):
        return kill_again_and_again(source, runs)


def main() -> None:
    """Measure all sides, with one unit and with many."""
    chosen = options(__doc__, units=1000, runs=15)
    counts = dict.fromkeys((1, chosen.units))
    measured = {("bare loop", 1): measure_bare(chosen.runs)}
    for count in counts:
        for side in Unitd, Supervisord:
            measured[side.name, count] = measure(side, count - 1, chosen.runs)
    bare = spread(measured["bare loop", 1])["median"]
    rows: list[dict[str, object]] = []
    for (name, count), values in measured.items():
        found = spread(values)
        other = spread(measured["supervisord", count])["median"]
        rows.append(
            {"side": name, "units": count}
            | {f"{word} ms": value for word, value in found.items()}
            | {"of bare loop": found["median"] / bare, "of supervisord": found["median"] / other}
        )
    show(f"restart of a killed unit, {chosen.runs} runs", rows, as_json=chosen.json)


if __name__ == "__main__":
    main()
