"""No request through a gateway fails, whatever is done to the units behind it: each kind of gateway, and supervisord.

A real daemon, a real gateway, a real unit-gateway, and a steady load on the gateway's address. Four units are restarted
one after another, drained, warmed up, scaled to six and back, and changed, again and again until enough requests were
sent. No gateway tries anything again, so what is sent to a unit that stops is lost, and seen. Beside it: supervisord
restarts four processes behind the same HAProxy with a fixed list of servers.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # gateways and daemons are started as tests start them

from gateway_neighbour import SUPERVISORD, restart_with_supervisord
from report import show

from bench.gateway_load import MIX
from bench.load_account import percentile
from tests.end_to_end.gateways.kinds import KINDS
from tests.end_to_end.gateways.scenario import Play, Played, everything
from tests.end_to_end.gateways.stage import Settings

SHOWN_FAILURES = 20
DRAIN = 'timeout = 30, quiet = 0.5, in_flight = "gateways"'


def play(kind: str, chosen: argparse.Namespace) -> Played:
    """The whole scenario behind one gateway until enough requests were sent."""
    warmup = f"initial = 25, step = 25, period = {chosen.period}"
    settings = Settings(removal=chosen.removal, ttl_seconds=chosen.ttl, warmup=warmup, drain=DRAIN)
    stage = KINDS[kind](settings)

    def work(play: Play) -> None:
        rounds = 0
        while rounds < chosen.rounds or len(play.load.requests) < chosen.requests:
            everything(play)
            rounds += 1

    try:
        stage.start()
        return Play(stage, chosen.rate, MIX).run(work)
    finally:
        stage.close()


def row_of(name: str, played: Played) -> dict[str, object]:
    """What became of the requests."""
    fast = [
        request.took_seconds * 1000 for request in played.requests if request.kind == "fast" and not request.failure
    ]
    slow = [request.took_seconds for request in played.requests if request.kind == "slow" and not request.failure]
    seconds = played.requests[-1].intended - played.requests[0].intended
    return {
        "gateway": name,
        "requests": len(played.requests),
        "failed": len(played.failures),
        "on a new connection again": len(played.retried),
        "p50 ms": percentile(fast, 50),
        "p99 ms": percentile(fast, 99),
        "slow max s": percentile(slow, 100),
        "sent late p99 ms": percentile([request.late_seconds * 1000 for request in played.requests], 99),
        "requests/s": len(played.requests) / seconds,
        "processes": len(played.pids),
    }


def acts_of(name: str, played: Played) -> list[dict[str, object]]:
    """What was done, how long that took, and what became of the requests meanwhile."""
    rows: dict[str, dict[str, float]] = {}
    for act in played.acts:
        row = rows.setdefault(act.what, {"times": 0, "s": 0.0, "requests": 0, "failed": 0})
        with_it = [request for request in played.requests if act.begun <= request.ended < act.ended]
        row["times"] += 1
        row["s"] += act.ended - act.begun
        row["requests"] += len(with_it)
        row["failed"] += sum(bool(request.failure) for request in with_it)
    return [
        {"gateway": name, "what": what, "times": int(row["times"]), "s each": row["s"] / row["times"],
         "requests": int(row["requests"]), "failed": int(row["failed"])}
        for what, row in rows.items()
    ]  # fmt: skip


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = (*KINDS, SUPERVISORD)
    parser.add_argument("--gateway", choices=("all", *names), default="all", help="only this one")
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second (default: 500)")
    parser.add_argument("--requests", type=int, default=30_000, help="at least so many for each (default: 30000)")
    parser.add_argument("--rounds", type=int, default=1, help="at least so many rounds for each (default: 1)")
    parser.add_argument("--removal", choices=("deregister", "expire"), default="deregister", help="how entries go")
    parser.add_argument("--ttl", type=float, default=3.0, help="seconds that an entry lives (default: 3)")
    parser.add_argument("--period", type=float, default=1.25, help="seconds of a warm-up period (default: 1.25)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    chosen = parser.parse_args()
    if chosen.rate <= 0 or chosen.period <= 0 or chosen.requests < 1:
        parser.error("--rate, --period and --requests must be above 0")
    chosen.names = names if chosen.gateway == "all" else (chosen.gateway,)
    return chosen


def main() -> int:
    """Play it behind each; 1 when a request failed that is not supervisord's."""
    chosen = options()
    played: dict[str, Played] = {}
    for name in chosen.names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        played[name] = restart_with_supervisord(chosen) if name == SUPERVISORD else play(name, chosen)
    title = f"four units behind a gateway, {chosen.rate:g} requests/s, {MIX.slow:.0%} of them slow"
    show(title, [row_of(name, one) for name, one in played.items()], as_json=chosen.json)
    acts = [row for name, one in played.items() for row in acts_of(name, one)]
    show("\nwhat was done meanwhile", acts, as_json=chosen.json)
    for name, one in played.items():
        if one.failures:
            rows: list[dict[str, object]] = [{name: words} for words in one.explained()]
            show(f"\nfailures with {name}", rows[:SHOWN_FAILURES], as_json=chosen.json)
    return 1 if any(one.failures for name, one in played.items() if name != SUPERVISORD) else 0


if __name__ == "__main__":
    sys.exit(main())
