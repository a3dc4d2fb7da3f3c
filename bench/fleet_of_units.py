"""How long a person waits for the command line with many units: wall time of whole commands, their own start included.

A command counts when it has returned; that it has done what it says is checked afterwards.
"""

from __future__ import annotations

from neighbour import Supervisord
from report import options, show, spread
from sides import Side, Units
from unitd_side import Unitd


def measure(side: type[Side], units: int, runs: int) -> dict[str, list[float]]:
    """Seconds for each command and run."""
    with side(Units(units)) as daemon:
        one = daemon.unit(units // 2)
        commands = {
            "status": ("status",),
            "status of one": ("status", one),
            "restart of one": ("restart", one),
            "stop all": ("stop", "all"),
            "start all": ("start", "all"),
        }
        found: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, words in commands.items():
                found[name].append(daemon.run_ctl(*words))
                if name == "stop all":
                    daemon.wait_running(0)  # the command has to have done what it says
                else:
                    daemon.wait_running(units)
    return found


def main() -> None:
    """Measure both sides."""
    chosen = options(__doc__, units=1000, runs=3)
    ours = measure(Unitd, chosen.units, chosen.runs)
    theirs = measure(Supervisord, chosen.units, chosen.runs)
    rows: list[dict[str, object]] = []
    for name in ours:
        mine, other = spread(ours[name]), spread(theirs[name])
        row: dict[str, object] = {"command": name}
        row |= {f"unitd {word} s": value for word, value in mine.items()}
        row |= {f"supervisord {word} s": value for word, value in other.items()}
        row |= {"ratio": mine["median"] / other["median"]}
        rows.append(row)
    show(f"{chosen.units} units, {chosen.runs} runs", rows, as_json=chosen.json)


if __name__ == "__main__":
    main()
