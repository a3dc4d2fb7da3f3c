"""What a daemon keeps in memory: without units, and with many that sleep. Processes of units do not count."""

from __future__ import annotations

import time

from neighbour import Supervisord
from proc import memory_of
from report import options, show, spread
from sides import Side, Units
from unitd_side import Unitd

SETTLE_SECONDS = 10.0


def measure(side: type[Side], units: int, runs: int) -> dict[str, float]:
    """Medians of the runs, a new daemon each, in MiB."""
    found = []
    for _ in range(runs):
        with side(Units(units)) as daemon:
            time.sleep(SETTLE_SECONDS)
            found.append(memory_of(daemon.pid))
    return {name: spread([run[name] for run in found])["median"] for name in found[0]}


def main() -> None:
    """Measure both sides without units and with many."""
    chosen = options(__doc__, units=1000, runs=3)
    rows: list[dict[str, object]] = []
    for side in Unitd, Supervisord:
        empty, full = (measure(side, units, chosen.runs) for units in (0, chosen.units))
        for units, found in (0, empty), (chosen.units, full):
            per_unit = (full["pss"] - empty["pss"]) * 1024 / chosen.units if units else None
            rows.append(
                {"side": side.name, "units": units, "PSS MiB": found["pss"], "own MiB": found["own"]}
                | {"PSS KiB per unit": per_unit}
            )
    show(f"memory of the daemon, medians of {chosen.runs} runs", rows, as_json=chosen.json)


if __name__ == "__main__":
    main()
