"""What a daemon costs while nothing happens: context switches and CPU time with many units that sleep."""

from __future__ import annotations

import time

from neighbour import Supervisord
from proc import work_of
from report import options, show, spread
from sides import Side, Units
from unitd_side import Unitd

SETTLE_SECONDS = 15.0
WATCH_SECONDS = 30.0


def measure(side: type[Side], units: int, runs: int) -> list[dict[str, float]]:
    """For each run, what one second cost."""
    found = []
    with side(Units(units)) as daemon:
        time.sleep(SETTLE_SECONDS)
        for _ in range(runs):
            before, began = work_of(daemon.pid), time.monotonic()
            time.sleep(WATCH_SECONDS)
            done, passed = work_of(daemon.pid).since(before), time.monotonic() - began
            figures = {
                "CPU ms/s": done.cpu_ms,
                "voluntary/s": done.voluntary,
                "involuntary/s": done.involuntary,
            }
            found.append({name: value / passed for name, value in figures.items()})
    return found


def main() -> None:
    """Measure both sides."""
    chosen = options(__doc__, units=1000, runs=3)
    rows: list[dict[str, object]] = []
    for side in Unitd, Supervisord:
        found = measure(side, chosen.units, chosen.runs)
        medians = {name: spread([run[name] for run in found])["median"] for name in found[0]}
        rows.append({"side": side.name, "units": chosen.units} | medians)
    show(f"idle for {WATCH_SECONDS:g} s, medians of {chosen.runs} runs", rows, as_json=chosen.json)


if __name__ == "__main__":
    main()
