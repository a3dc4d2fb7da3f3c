"""How many requests fail while four processes of a service are restarted one after another, again and again.

A steady load chooses one of the four for each request. With unitd it follows the registry; supervisord has none, so
there it has a fixed list. Half of the requests go over kept-alive connections, 10 % take 2 s, 10 % bring a body. One
fails when no whole answer comes within 10 s or when it is not 200; nothing is tried again. The unit
(loaded_server.py) has no grace of its own: SIGTERM ends it at once.

With --warmup instead: one process is restarted once, and its share of the requests is compared with its weight.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from load import Load, Mix, Request, following, listed
from load_account import Choice, Spell, doing, percentile, periods, spells_of
from neighbour import CONFIGURATION as SUPERVISORD_CONFIGURATION
from neighbour import Supervisord, environment
from report import show
from sides import Units
from unitd_side import CONFIGURATION as UNITD_CONFIGURATION
from unitd_side import Unitd

from registry_client import Backend, Entry, open_backend
from registry_client.selection import eligible

SERVICE = "web"
COUNT = 4
WARMED = f"{SERVICE}:0"  # the unit that is restarted to see its share
ADDRESS = "127.0.0.1"
START_SECONDS = 60.0  # until all are registered
SHOWN_FAILURES = 10
SEEN_SECONDS = 0.01  # so much later than it happened the client may see a failure

UNIT = """\
[http]
listen = "{address}:{http}"
[unit.web]
command = "{server} {{port}}"
numprocs = {count}
[unit.web.service]
port = {port}
ttl_seconds = {ttl}
[unit.web.restart]
removal = "{removal}"
settle_seconds = {settle}
"""
WARMUP = """\
[unit.web.warmup]
initial = 10
step = 10
period = {period}
"""
PROGRAM = """\
[program:web]
command={server} {port} %(process_num)d
process_name=%(process_num)d
numprocs={count}
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """How the four are configured."""

    port: int
    http: int
    removal: str = "expire"
    ttl: float = 1.0
    settle: float = 0.0
    warmup_period: float = 0.0

    def registry(self) -> Backend:
        """What unitd's API answers of it."""
        return open_backend("http", url=f"http://{ADDRESS}:{self.http}")


@dataclass(slots=True)
class Measured:
    """What became of one run."""

    side: str
    removal: str
    requests: list[Request]
    spells: list[Spell] = field(default_factory=list)  # by unit
    restarts: int = 0
    seconds: float = 0.0

    @property
    def failures(self) -> list[Request]:
        """The requests that failed."""
        return [request for request in self.requests if request.failure]


class LoadedUnitd(Unitd):
    """unitd with four registered processes."""

    setting: Setting

    def configure(self) -> list[str]:
        setting = self.setting
        command = super().configure()
        text = UNITD_CONFIGURATION + UNIT.format(
            address=ADDRESS, http=setting.http, server=server(), count=COUNT, port=setting.port, ttl=setting.ttl,
            removal=setting.removal, settle=setting.settle,
        )  # fmt: skip
        if setting.warmup_period:
            text += WARMUP.format(period=setting.warmup_period)
        (self.folder / "unitd.toml").write_text(text)
        return command

    def count_running(self) -> int | None:
        done = subprocess.run(self.ctl("status", "-o", "json"), capture_output=True, text=True, check=False)
        if done.returncode not in (0, 3):  # 3: some do not run
            return None
        return sum(unit["state"] in ("RUNNING", "WARMING") for unit in json.loads(done.stdout))

    async def restart(self, measured: Measured, names: str = SERVICE) -> None:
        """Restart the processes one after another, which is what unitd does when it is told to restart them all."""
        operations = json.loads(await output_of(self.ctl("-o", "json", "restart", names)))
        measured.spells += spells_of(operations)
        measured.restarts += len(operations)


class LoadedSupervisord(Supervisord):
    """supervisord with four processes."""

    setting: Setting

    def configure(self) -> list[str]:
        text = SUPERVISORD_CONFIGURATION.format(folder=self.folder, files=1024)
        text += PROGRAM.format(server=server(), port=self.setting.port, count=COUNT)
        (self.folder / "supervisord.conf").write_text(text)
        return [f"{environment()}/supervisord", "-c", f"{self.folder}/supervisord.conf"]

    async def restart(self, measured: Measured) -> None:
        """Restart the processes one after another: without that, supervisord stops them all and then starts them."""
        for number in range(COUNT):
            begun, name = time.time(), f"{SERVICE}:{number}"
            await output_of(self.ctl("restart", name))
            measured.spells.append(Spell(name, "restart", begun, time.time()))
            measured.restarts += 1


def server() -> str:
    return f"{sys.executable} -S {Path(__file__).with_name('loaded_server.py').resolve()}"


def free_ports(count: int) -> int:
    """The first of so many free neighbours, below the ports that the kernel gives to clients."""
    for _ in range(200):
        first = random.randrange(20_000, 32_000 - count)
        sockets = [socket.socket() for _ in range(count)]
        try:
            for number, found in enumerate(sockets):
                found.bind((ADDRESS, first + number))
            return first
        except OSError:
            continue
        finally:
            for found in sockets:
                found.close()
    raise RuntimeError("cannot find free ports")


async def output_of(command: list[str]) -> bytes:
    """Run it; its output. Raises RuntimeError when it fails."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {process.returncode}: {(out + err).decode(errors='replace')[-2000:]}")
    return out


async def under(load: Load, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do the work while the load runs."""
    enough = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(load.run(enough))
        await work()
        enough.set()
        await running


async def restart_again_and_again(
    side: LoadedUnitd | LoadedSupervisord, load: Load, measured: Measured, wanted: int
) -> None:
    """Whole passes over the four until so many requests were sent."""

    async def work() -> None:
        await load.steady.wait()
        while len(load.requests) < wanted:
            await side.restart(measured)

    began = time.monotonic()
    if isinstance(side, LoadedUnitd):
        async with following(load, side.setting.registry(), SERVICE):
            await load.until(lambda entries: len(eligible(entries)) == COUNT, START_SECONDS)
            await under(load, work)
    else:
        await under(load, work)
    measured.seconds = time.monotonic() - began


def measure(kind: type[LoadedUnitd] | type[LoadedSupervisord], setting: Setting, wanted: int, rate: float) -> Measured:
    """One run on one side."""
    side = kind(Units(idle=COUNT))
    side.setting = setting
    ports = range(setting.port, setting.port + COUNT)
    with side:
        entries = [] if kind is LoadedUnitd else listed(SERVICE, ADDRESS, ports)

        async def run() -> Measured:
            load = Load(rate, Mix(), entries)
            measured = Measured(side.name, setting.removal, load.requests)
            await restart_again_and_again(side, load, measured, wanted)
            return measured

        return asyncio.run(run())


def follow_a_warm_up(setting: Setting, rate: float) -> list[Choice]:
    """Restart one process once, and record the choices until it has been at full weight for a period."""
    side = LoadedUnitd(Units(idle=COUNT))
    side.setting = setting
    patience = START_SECONDS + 20 * setting.warmup_period

    async def run() -> list[Choice]:
        load = Load(rate, Mix(slow=0.0))
        measured = Measured(side.name, setting.removal, load.requests)

        async def work() -> None:
            await side.restart(measured, WARMED)
            await load.until(all_warm, patience)
            await asyncio.sleep(setting.warmup_period)

        async with following(load, setting.registry(), SERVICE):
            await load.until(all_warm, patience)
            await under(load, work)
        if measured.failures:
            show_failures(measured, as_json=False)
        return [choice_of(request) for request in load.requests]

    with side:
        return asyncio.run(run())


def all_warm(entries: tuple[Entry, ...]) -> bool:
    """All four take their full share."""
    return sum(entry.status == "up" and entry.weight == entry.full_weight for entry in entries) == COUNT


def choice_of(request: Request) -> Choice:
    """By unit, for instances are called differently on each side."""
    weights = {entry.unit: entry.weight for entry in eligible(request.known)}
    return Choice(weights, request.chosen.unit if request.chosen is not None else "")


def show_all(measured: list[Measured], rate: float, *, as_json: bool) -> None:
    """All tables."""
    title = f"{COUNT} processes restarted one after another under {rate:g} requests/s"
    show(title, [row_of(one) for one in measured], as_json=as_json)
    shares = [{"side": one.side, "removal": one.removal} | shares_of(one) for one in measured]
    show("\nshare of the requests", shares, as_json=as_json)
    for one in measured:
        if one.failures:
            show_failures(one, as_json=as_json)


def row_of(measured: Measured) -> dict[str, object]:
    answered = [request for request in measured.requests if not request.failure]
    short = [request.took_seconds * 1000 for request in answered if request.kind != "slow"]
    slow = [request.took_seconds for request in answered if request.kind == "slow"]
    failed = len(measured.failures)
    return {
        "side": measured.side,
        "removal": measured.removal,
        "requests": len(measured.requests),
        "failed": failed,
        "restarts": measured.restarts,
        "failed a restart": failed / measured.restarts,
        "p50 ms": percentile(short, 50),
        "p99 ms": percentile(short, 99),
        "max ms": percentile(short, 100),
        "slow max s": percentile(slow, 100),
        "sent late p99 ms": percentile([request.late_seconds * 1000 for request in measured.requests], 99),
        "s": measured.seconds,
    }


def shares_of(measured: Measured) -> dict[str, object]:
    """Per cent of the requests by unit."""
    counts = Counter(request.chosen.unit for request in measured.requests if request.chosen is not None)
    return {f"{unit} %": 100 * counts[unit] / len(measured.requests) for unit in sorted(counts)}


def show_failures(measured: Measured, *, as_json: bool) -> None:
    """Failures by what the supervisor was doing, and each of them: all in JSON, else the first ones."""
    each = [failure_row(measured, request) for request in sorted(measured.failures, key=lambda one: one.ended)]
    groups = Counter(tuple((key, row[key]) for key in list(row)[2:]) for row in each)
    rows = [dict(group) | {"failures": count} for group, count in groups.most_common()]
    show(f"\nfailures with {measured.side} ({measured.removal})", rows, as_json=as_json)
    if as_json or len(each) <= SHOWN_FAILURES:
        show("\neach of them", each, as_json=as_json)
    else:
        show(f"\nthe first {SHOWN_FAILURES} of {len(each)}", each[:SHOWN_FAILURES], as_json=as_json)


def failure_row(measured: Measured, request: Request) -> dict[str, object]:
    """Its instant (seconds since the first request), its instance, and what explains it."""
    unit = request.chosen.unit if request.chosen is not None else ""
    return {
        "at s": round(request.ended - measured.requests[0].intended, 3),
        "unit": unit,
        "request": request.kind,
        "connection": "kept" if request.kept else "new",
        "symptom": request.failure,
        "sent during": doing(measured.spells, unit, request.intended),
        "failed during": doing(measured.spells, unit, request.ended - SEEN_SECONDS, request.ended),
    }


def show_warm_up(choices: list[Choice], *, as_json: bool) -> None:
    """The warming process's share, a row for each of its weights."""
    rows: list[dict[str, object]] = [
        {
            "weight": period.weight,
            "requests": period.choices,
            "of them its own": period.chosen,
            "share %": 100 * period.share,
            "expected %": 100 * period.expected,
            "deviation %": 100 * period.deviation,
            "in standard errors": period.errors,
        }
        for period in periods(choices, WARMED)
    ]
    show(f"share of {WARMED} by its weight, against weight / sum of weights", rows, as_json=as_json)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000, help="at least so many for each side (default: 20000)")
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second (default: 500)")
    parser.add_argument("--ttl", type=float, default=1.0, help="seconds that an entry lives (default: 1)")
    parser.add_argument("--settle", type=float, default=0.5, help="seconds after deregistering (default: 0.5)")
    parser.add_argument("--only", choices=("expire", "deregister", "supervisord"), help="one of the three")
    parser.add_argument("--warmup", action="store_true", help="the share of a process that warms up")
    parser.add_argument("--period", type=float, default=4.0, help="seconds of a warm-up period (default: 4)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    chosen = parser.parse_args()
    if chosen.requests < 1 or chosen.rate <= 0 or chosen.period <= 0:
        parser.error("--requests, --rate and --period must be above 0")
    return chosen


def main() -> None:
    """Measure all three, or a warm-up."""
    chosen = options()
    first = free_ports(COUNT + 1)
    base = Setting(port=first, http=first + COUNT, ttl=chosen.ttl)
    if chosen.warmup:
        show_warm_up(follow_a_warm_up(replace(base, warmup_period=chosen.period), chosen.rate), as_json=chosen.json)
        return
    runs: dict[str, tuple[type[LoadedUnitd] | type[LoadedSupervisord], Setting]] = {
        "expire": (LoadedUnitd, replace(base, removal="expire")),
        "deregister": (LoadedUnitd, replace(base, removal="deregister", settle=chosen.settle)),
        "supervisord": (LoadedSupervisord, replace(base, removal="-")),
    }
    measured = [
        measure(kind, setting, chosen.requests, chosen.rate)
        for name, (kind, setting) in runs.items()
        if chosen.only in (None, name)
    ]
    show_all(measured, chosen.rate, as_json=chosen.json)


if __name__ == "__main__":
    main()
