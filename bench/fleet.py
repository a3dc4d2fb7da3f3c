"""The control center with many nodes: commands to all of them, what it costs to watch them, and how both grow.

A real unit-center in a process of its own, with its store in SQLite and the registry in its memory; fake nodes in
another (fleet_nodes.py). Every number of nodes gets a center of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.client import HTTPConnection
from itertools import groupby
from pathlib import Path
from typing import Any

from proc import memory_of, peak_of, work_of
from report import show, spread

sys.path.insert(0, str(Path(__file__).parents[1]))  # the center is started as tests start it

from control_center.center import YOUNG_TTLS
from tests.end_to_end.fleet.center import Center, explain

ROLLING = {
    "batch": "25%", "canary": 0, "bake_seconds": 0, "floor_percent": 75, "max_failures": 0, "by_zone": False,
    "target_seconds": 600,
}  # fmt: skip
ONE, ALL, ROLL = "one service at once", "all at once", "all, 25 % at a time"
WORK: dict[str, tuple[str, Any]] = {ONE: ("service-0", None), ALL: ("service-*", None), ROLL: ("service-*", ROLLING)}
LOOK_SECONDS = 0.25  # how often GET /v1/services is asked
POLL_SECONDS = 0.2
PATIENCE_SECONDS = 600.0
SETTLE_SECONDS = 2.0

Row = dict[str, Any]


class Nodes:
    """The process with the fake nodes."""

    def __init__(self, url: str, chosen: argparse.Namespace, nodes: int) -> None:
        script = str(Path(__file__).with_name("fleet_nodes.py"))
        words = [sys.executable, script, url, "--nodes", str(nodes), "--services", str(chosen.services)]
        words += ["--seconds", str(chosen.restart), "--ttl", str(chosen.ttl), "--registrars", str(chosen.registrars)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()  # when all are registered

    def ask(self, what: str) -> Row:
        """What has happened since the last `reset`."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Row:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the fake nodes ended with {self.process.wait()}")
        return json.loads(line)  # type: ignore[no-any-return]

    def close(self) -> None:
        """End them."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class Asker:
    """Asks the center over one connection."""

    def __init__(self, center: Center) -> None:
        self._connection = HTTPConnection("127.0.0.1", center.port, timeout=PATIENCE_SECONDS)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a good answer."""
        self._connection.request(method, path, None if body is None else json.dumps(body))
        response = self._connection.getresponse()
        found = json.loads(response.read())
        if response.status >= 300:
            raise SystemExit(f"{method} {path}: {response.status} {found}")
        return found

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@dataclass
class Seen:
    """What was seen of the center meanwhile."""

    latencies: list[float] = field(default_factory=list)  # of GET /v1/services, ms
    pss: list[float] = field(default_factory=list)
    center_seconds: float = 0.0  # of CPU
    nodes_seconds: float = 0.0
    seconds: float = 0.0


@contextmanager
def watching(center: Center, nodes: Nodes) -> Iterator[Seen]:
    """Ask for services and look at memory and CPU time until the block ends."""
    assert center.process is not None
    seen, over, asker = Seen(), threading.Event(), Asker(center)
    pids = center.process.pid, nodes.process.pid

    def look() -> None:
        while not over.is_set():
            began = time.monotonic()
            asker.ask("GET", "/v1/services")
            seen.latencies.append(1000 * (time.monotonic() - began))
            seen.pss.append(memory_of(pids[0])["pss"])
            over.wait(LOOK_SECONDS)

    thread = threading.Thread(target=look)
    began, before = time.monotonic(), [work_of(pid) for pid in pids]
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
        asker.close()
        spent = [work_of(pid).since(earlier).cpu_ms / 1000 for pid, earlier in zip(pids, before, strict=True)]
        seen.seconds, (seen.center_seconds, seen.nodes_seconds) = time.monotonic() - began, spent


def until(what: str, look: Any) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not look():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {PATIENCE_SECONDS:g} s")
        time.sleep(POLL_SECONDS)


def all_heard(asker: Asker, count: int) -> bool:
    """The center has heard of every node."""
    return sum(node["state"] == "up" for node in asker.ask("GET", "/v1/nodes")["nodes"]) == count


def operate(center: Center, nodes: Nodes, asker: Asker, what: str, commands: int) -> Row:
    """One operation from asking for it to its end, which must be good."""
    service, strategy = WORK[what]
    body = {"verb": "restart", "selection": {"services": [service]}, "strategy": strategy, "reason": "a bench"}
    nodes.ask("reset")
    with watching(center, nodes) as seen:
        began, began_wall = time.monotonic(), time.time()
        id_ = asker.ask("POST", "/v1/operations", body)["id"]
        answered = time.monotonic() - began
        # The list leaves the targets out: who looks must not be what is measured.
        until(f"{what} has ended", lambda: not asker.ask("GET", "/v1/operations?open=1")["operations"])
    tally, ended = nodes.ask("stats"), asker.ask("GET", f"/v1/operations/{id_}")
    if ended["state"] != "succeeded":
        raise SystemExit(explain(ended)[:2000])
    if (tally["acknowledged"], tally["restarted"]) != (commands, commands):
        raise SystemExit(f"{what}: {commands} commands were to be carried out once each: {tally}")
    return {
        "answered": answered,
        "acknowledged": tally["last_acknowledged"] - began,
        "done": _wall(ended["finished"]) - began_wall,
        "center": seen.center_seconds,
        "fakes": seen.nodes_seconds,
        "each": 1000 * seen.center_seconds / commands,
        "polls": tally["polls"] / commands,
        "repeated": tally["repeated"],
        "latencies": seen.latencies,
        "pss": max(seen.pss),
    }


def _wall(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def measured(chosen: argparse.Namespace, count: int) -> tuple[Row, list[Row]]:
    """What it costs to watch so many nodes, and each kind of operation `--runs` times."""
    center = Center(ttl_seconds=chosen.ttl)
    nodes = None
    try:
        center.configure()
        center.run()
        began = time.monotonic()
        nodes = Nodes(center.url, chosen, count)
        return _measure(chosen, count, center, nodes, began)
    finally:
        if nodes is not None:
            nodes.close()
        center.close()


def _measure(
    chosen: argparse.Namespace, count: int, center: Center, nodes: Nodes, began: float
) -> tuple[Row, list[Row]]:
    assert center.process is not None
    asker, pid = Asker(center), center.process.pid
    until("all nodes are heard of", lambda: all_heard(asker, count))
    # Before, a registry that may have lost its memory is not believed, and operations wait.
    settle = min(SETTLE_SECONDS, chosen.seconds)
    time.sleep(max(settle, began + YOUNG_TTLS * chosen.ttl - time.monotonic()))
    before = memory_of(pid)["pss"]
    nodes.ask("reset")
    with watching(center, nodes) as idle:
        time.sleep(chosen.seconds)
    asked = nodes.ask("stats")["heartbeats"] / idle.seconds
    runs: dict[str, list[Row]] = {what: [] for what in WORK}
    for _ in range(chosen.runs):
        for what in WORK:
            commands = count if what == ONE else count * chosen.services
            runs[what].append(operate(center, nodes, asker, what, commands) | {"commands": commands})
            print(count, what, {k: v for k, v in runs[what][-1].items() if k != "latencies"}, file=sys.stderr)
    time.sleep(settle)
    watched = {
        "nodes": count,
        "entries": count * (chosen.services + 1),
        "heartbeats a second": asked,
        "center CPU %": 100 * idle.center_seconds / idle.seconds,
        "fake nodes CPU %": 100 * idle.nodes_seconds / idle.seconds,
        "services p50 ms": statistics.median(idle.latencies),
        "services p99 ms": _percentile(idle.latencies, 99),
        "PSS before": before,
        "PSS at most": max(row["pss"] for rows in runs.values() for row in rows),
        "PSS after": memory_of(pid)["pss"],
        "RSS at most": peak_of(pid),
        "store MiB": _store_mib(center),
    }
    asker.close()
    return watched, [{"nodes": count, "what": what, **_sum_up(rows)} for what, rows in runs.items()]


def _sum_up(rows: Sequence[Row]) -> Row:
    latencies = [each for row in rows for each in row["latencies"]]
    figures: Row = {"commands": rows[0]["commands"]}
    for name in ("answered", "acknowledged", "done", "center", "fakes", "each"):
        figures[name] = spread([row[name] for row in rows])
    figures["a second"] = figures["commands"] / figures["done"]["median"]
    figures["polls"] = statistics.median(row["polls"] for row in rows)
    figures["repeated"] = sum(row["repeated"] for row in rows)
    figures["p50"], figures["p99"] = statistics.median(latencies), _percentile(latencies, 99)
    return figures


def _percentile(values: Sequence[float], percent: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def _store_mib(center: Center) -> float:
    return sum(path.stat().st_size for path in (center.folder / "state").rglob("*") if path.is_file()) / 2**20


def growth(watched: Sequence[Row], operations: Sequence[Row]) -> list[Row]:
    """From the fewest nodes to the most: the factor of each figure by the factor of the nodes; 1 is linear."""
    rows = []
    for what, found in groupby(sorted(operations, key=lambda row: list(WORK).index(row["what"])), lambda r: r["what"]):
        first, *_, last = list(found)
        times = last["nodes"] / first["nodes"]
        names = {"acknowledged": "acknowledged", "done": "done", "center": "center CPU", "fakes": "fake nodes CPU"}
        factors = {shown: last[name]["median"] / first[name]["median"] / times for name, shown in names.items()}
        rows.append({"what": what, **factors})
    first, last = watched[0], watched[-1]
    names = {"acknowledged": None, "done": None, "center CPU": "center CPU %", "fake nodes CPU": "fake nodes CPU %"}
    times = last["nodes"] / first["nodes"]
    idle = {shown: None if name is None else last[name] / first[name] / times for shown, name in names.items()}
    return [*rows, {"what": "watching", **idle}]


def _table(row: Row) -> Row:
    """An operation's figures as people read them."""
    shown: Row = {"nodes": row["nodes"], "restart": row["what"], "commands": row["commands"]}
    names = {"answered": "202 after s", "acknowledged": "all acknowledged s", "done": "done s",
             "center": "center CPU s", "fakes": "fake nodes CPU s"}  # fmt: skip
    for name, title in names.items():
        shown[title] = "{median:.3g} ({min:.3g} to {max:.3g})".format(**row[name])
    shown["CPU ms a command"], shown["commands a second"] = row["each"]["median"], row["a second"]
    shown["polls a command"], shown["services p50 ms"], shown["p99 ms"] = row["polls"], row["p50"], row["p99"]
    return shown


def main() -> None:
    """Measure each number of nodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[200, 500, 1000, 2000], help="how many, one or more")
    parser.add_argument("--services", type=int, default=3, help="of which each node has one instance (default: 3)")
    parser.add_argument("--runs", type=int, default=3, help="how often each operation is done (default: 3)")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long an idle fleet is watched (default: 30)")
    parser.add_argument("--restart", type=float, default=1.0, help="seconds that a unit's restart takes (default: 1)")
    parser.add_argument("--ttl", type=float, default=15.0, help="of each entry, in seconds (default: 15)")
    parser.add_argument("--registrars", type=int, default=64, help="that nodes share to register (default: 64)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    chosen = parser.parse_args()
    if min(*chosen.nodes, chosen.services, chosen.runs, chosen.registrars) < 1:
        parser.error("--nodes, --services, --runs and --registrars must be at least 1")
    found = [measured(chosen, count) for count in sorted(chosen.nodes)]
    watched, operations = [each for each, _ in found], [row for _, rows in found for row in rows]
    title = f"restarts of {chosen.restart:g} s, medians of {chosen.runs} runs (least to most)"
    show(title, operations if chosen.json else [_table(row) for row in operations], as_json=chosen.json)
    print()
    show(f"idle for {chosen.seconds:g} s, memory in MiB", watched, as_json=chosen.json)
    if len(found) > 1:
        print()
        show("growth, 1 is linear", growth(watched, operations), as_json=chosen.json)


if __name__ == "__main__":
    main()
