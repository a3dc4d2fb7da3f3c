"""A unit is killed, or freezes, behind a gateway under load: what happens when, and how many requests that costs.

A real daemon, gateway and unit-gateway, and a real unit-center in the mode `full` that hosts the registry. A killed
unit is started again by its own node, whoever reports it. A frozen one looks alive to the kernel: the gateway sees it
and reports it, and the center orders its restart as soon as its node's probe does not contradict. Gateways are set up
as their pages say.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # gateways and daemons are started as tests start them

from report import show, spread

from bench.gateway_load import MIX
from tests.end_to_end.gateways.deaths import MILESTONES, Death, center_for_deaths, deadly, die
from tests.end_to_end.gateways.kinds import KINDS
from tests.end_to_end.gateways.scenario import Play
from tests.end_to_end.gateways.stage import COUNT

SIGNALS = {"kill -9": signal.SIGKILL, "SIGSTOP": signal.SIGSTOP}
HURT = "last request begun that failed or was late"


def deaths_behind(kind: str, how: signal.Signals, runs: int, rate: float) -> list[Death]:
    """So many deaths, one after another, each of the next unit."""
    center, found = center_for_deaths(), []

    def work(play: Play) -> None:
        for run in range(runs):
            found.append(die(play, center, run % COUNT, how))

    try:
        center.run()
        with deadly(KINDS[kind], center) as stage:
            Play(stage, rate, MIX).run(work)
    finally:
        center.close()
    return found


def timeline_of(deaths: Sequence[Death]) -> list[dict[str, object]]:
    """Seconds from the death to each milestone, by their medians."""
    moments = {name: [death.moments[name] for death in deaths if name in death.moments] for name in MILESTONES}
    moments[HURT] = [death.last_hurt for death in deaths if death.last_hurt is not None]
    rows = [{"what": name, "seen": len(seen)} | spread(seen) for name, seen in moments.items() if seen]
    return sorted(rows, key=lambda row: row["median"])  # type: ignore[return-value,arg-type]


def row_of(kind: str, what: str, deaths: Sequence[Death]) -> dict[str, object]:
    """What it cost."""
    failed = [len(death.failures) for death in deaths]
    return {
        "gateway": kind,
        "death": what,
        "runs": len(deaths),
        "requests": sum(len(death.requests) for death in deaths),
        "failed": sum(failed),
        "failed a death, median": spread(failed)["median"],
        "at most": max(failed),
        "ordered by the center": sum(bool(death.rule) for death in deaths),
    }


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", choices=("all", *KINDS), default="all", help="only this one")
    parser.add_argument("--death", choices=("all", *SIGNALS), default="all", help="only this one")
    parser.add_argument("--runs", type=int, default=20, help="deaths of each kind (default: 20)")
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second (default: 300)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    chosen = parser.parse_args()
    if chosen.runs < 1 or chosen.rate <= 0:
        parser.error("--runs and --rate must be above 0")
    return chosen


def main() -> None:
    """Let units die behind each gateway."""
    chosen = options()
    rows = []
    for kind in KINDS if chosen.gateway == "all" else (chosen.gateway,):
        for what in SIGNALS if chosen.death == "all" else (chosen.death,):
            print(f"{what} behind {kind} ...", file=sys.stderr, flush=True)
            deaths = deaths_behind(kind, SIGNALS[what], chosen.runs, chosen.rate)
            show(f"\n{what} behind {kind}: seconds after it", timeline_of(deaths), as_json=chosen.json)
            rows.append(row_of(kind, what, deaths))
    show(f"\nwhat a death costs at {chosen.rate:g} requests/s", rows, as_json=chosen.json)


if __name__ == "__main__":
    main()
