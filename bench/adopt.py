"""What a daemon's death does to its units: kill -9 at random moments, under load, again and again; and how long until
the next daemon has taken all units over.

Seven units of a service answer requests that follow a registry outside of the daemon (ttl 5 s): four are left alone,
and three are restarted, drained and let back, or stopped and started all the time. An eighth one crashes all the time.
Each of them holds a lock for its life, notes its beginning, and says numbered lines. What must hold: no request fails,
no unit begins beside a living one or without a cause, those that are left alone are in the registry at every moment,
and no line is lost, torn or doubled.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from load import Load, Mix, following
from report import show, spread
from restart_under_load import free_ports, under

from registry_client.backends.embedded import EmbeddedBackend, EmbeddedRegistry
from registry_client.model import Snapshot
from registry_client.server import RegistryApi
from supervisor.host.http import HttpServer
from supervisor.host.http_message import Request, Response

ROOT = Path(__file__).resolve().parent.parent
STEADY = ("web:0", "web:1", "web:2", "web:3")
ORDERED = {"again": ("restart",), "out": ("drain", "undrain"), "off": ("stop", "start")}
PATIENCE_SECONDS = 30.0
DAEMON = """\
node = "here"
[daemon]
socket = "s"
state_dir = "state"
log_dir = "logs"
cgroup = "off"
restarts_per_minute = 6000
[registry]
backend = "http"
url = "{url}"
ttl_seconds = 5
"""
UNIT = """\
[unit.{name}]
command = "{python} -S {program} {folder} {{port}}"
numprocs = {count}
startsecs = 0.05
[unit.{name}.service]
name = "web"
port = {port}
[unit.{name}.readiness]
http = "/healthz"
period = 0.2
[unit.{name}.restart]
removal = "deregister"
settle_seconds = 0.3
[unit.{name}.drain]
timeout = 10
"""
FLAPPING = """\
[unit.flap]
command = "{python} -S {program} {folder} {port} --crash"
startsecs = 0
[unit.flap.service]
name = "flap"
port = {port}
[unit.flap.restart]
backoff_initial = 0.1
backoff_max = 0.5
removal = "deregister"
"""
IDLE = '[unit.idle]\ncommand = "/bin/sleep 100000"\nnumprocs = {count}\nstartsecs = 0\n'


# The daemon.


@dataclass(slots=True)
class Daemons:
    """One daemon after another on the same folder."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        code = "import sys; from supervisor.boot import main; sys.exit(main())"
        with (self.folder / "said").open("ab") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", code, "-c", "unitd.toml"],
                cwd=self.folder, stderr=said, env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def stop(self) -> None:
        """Stop all units in order, and the daemon."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        await asyncio.to_thread(self.process.wait)

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """The answer as JSON; None when there was none, or a refusal."""
        with contextlib.suppress(OSError, EOFError, ValueError):
            async with asyncio.timeout(10):
                return await self._ask(method, path, body)
        return None

    async def _ask(self, method: str, path: str, body: object) -> Any:
        reader, writer = await asyncio.open_unix_connection(str(self.folder / "s"))
        try:
            data = b"" if body is None else json.dumps(body).encode()
            head = f"{method} {path} HTTP/1.1\r\nHost: u\r\nConnection: close\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
            answer = await reader.read()
        finally:
            writer.close()
        lines, _, rest = answer.partition(b"\r\n\r\n")
        return json.loads(rest) if b" 20" in lines[:13] else None

    async def units(self) -> dict[str, Any]:
        answer = await self.ask("GET", "/v1/units")
        return {unit["unit"]: unit for unit in answer["units"]} if answer else {}

    async def until(self, what: str, look: Any, pause: float = 0.05) -> None:
        """Until it is so. Raises RuntimeError."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not await look():
            if time.monotonic() > until:
                raise RuntimeError(f"not within {PATIENCE_SECONDS:g} s: {what}; see {self.folder}/said")
            await asyncio.sleep(pause)


@contextlib.asynccontextmanager
async def outside() -> AsyncIterator[tuple[EmbeddedRegistry, str]]:
    """A registry that no daemon's death concerns, and its URL."""
    registry = EmbeddedRegistry()
    api = RegistryApi(registry)

    async def handle(request: Request) -> Response:
        answer = await api.handle(request.method, request.path, request.query, request.body)
        return Response(answer.status, answer.body, answer.content_type, answer.headers)

    server = HttpServer(handle, max_body_bytes=1 << 20)
    await server.listen_tcp("127.0.0.1", 0)
    try:
        yield registry, f"http://127.0.0.1:{server.addresses[0][1]}"
    finally:
        await server.close(0.0)


# Kills.


@dataclass(slots=True)
class Outcome:
    """What has become of everything; all but the first four should be nothing."""

    kills: int = 0
    requests: int = 0
    orders: int = 0
    lines: int = 0
    failed: list[str] = field(default_factory=list)
    twice: int = 0
    without_cause: list[str] = field(default_factory=list)
    missing: int = 0  # times when a unit that was left alone was not in the registry
    wrong: list[str] = field(default_factory=list)  # in the registry, at the end
    operations: list[str] = field(default_factory=list)  # that did not end, or failed
    lost: int = 0  # lines
    torn: int = 0
    doubled: int = 0

    @property
    def good(self) -> bool:
        counts = self.twice, self.missing, self.lost, self.torn, self.doubled
        return not any(counts) and not (self.failed or self.without_cause or self.wrong or self.operations)


async def kills_under_load(folder: Path, count: int, rate: float) -> Outcome:
    outcome, daemons = Outcome(), Daemons(folder)
    async with outside() as (registry, url):
        port = free_ports(8)
        (folder / "unitd.toml").write_text(DAEMON.format(url=url) + "".join(units_of(folder, port)))
        daemons.start()
        try:
            await daemons.until("all serve", lambda: serve(daemons, registry, 7))
            load = Load(rate, Mix(slow_seconds=1.0))
            async with watched(registry, outcome), following(load, EmbeddedBackend(registry), "web"):
                await under(load, lambda: _kill_and_order(daemons, registry, outcome, count))
            outcome.requests = len(load.requests)
            outcome.failed = [f"{item.chosen and item.chosen.unit}: {item.failure}" for item in load.requests
                              if item.failure]  # fmt: skip
            await check_registry(daemons, registry, outcome)
        except Exception:
            open_ = await daemons.ask("GET", "/v1/operations")
            print((folder / "said").read_text()[-20_000:], file=sys.stderr)
            known = open_["operations"] if open_ else ()
            print(*[item for item in known if not item["finished"]], sep="\n", file=sys.stderr)
            raise
        finally:
            await daemons.stop()
    account(folder, outcome)
    return outcome


def units_of(folder: Path, port: int) -> Iterator[str]:
    facts = {
        "python": sys.executable,
        "program": Path(__file__).with_name("adopted_unit.py").resolve(),
        "folder": folder,
    }
    yield UNIT.format(name="web", count=4, port=port, **facts)
    for number, name in enumerate(ORDERED):
        yield UNIT.format(name=name, count=1, port=port + 4 + number, **facts)
    yield FLAPPING.format(port=port + 7, **facts)


async def serve(daemons: Daemons, registry: EmbeddedRegistry, count: int) -> bool:
    units = await daemons.units()
    up = [name for name, unit in units.items() if name != "flap" and unit["state"] == "RUNNING"]
    return len(up) == count and len(registry.list("web").entries) == count


@contextlib.asynccontextmanager
async def watched(registry: EmbeddedRegistry, outcome: Outcome) -> AsyncIterator[None]:
    """Within it every state of the registry must hold what is left alone, in its first generation."""

    def look(snapshot: Snapshot) -> None:
        there = {entry.unit for entry in snapshot.entries if entry.generation == 1 and entry.status == "up"}
        outcome.missing += not there.issuperset(STEADY)

    async def watch() -> None:
        async with contextlib.aclosing(EmbeddedBackend(registry).watch("web")) as snapshots:
            async for snapshot in snapshots:
                look(snapshot)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _kill_and_order(daemons: Daemons, registry: EmbeddedRegistry, outcome: Outcome, count: int) -> None:
    enough, given = asyncio.Event(), dict[str, list[str]]()
    orders = [asyncio.create_task(keep_ordering(daemons, name, enough, given)) for name in ORDERED]
    for number in range(count):
        if number % 3 == 2:  # no more than two die before they have begun: the ttl would be over, as it should be
            await daemons.until("it answers", daemons.units)
        await asyncio.sleep(random.uniform(0.0, 1.5))
        await asyncio.to_thread(daemons.kill)
        outcome.kills += 1
        await asyncio.sleep(random.choice((0.0, 0.0, 0.5)))
        daemons.start()
    enough.set()
    await asyncio.gather(*orders)
    await daemons.until("it answers", daemons.units)
    for commands in given.values():  # else the last ones would take the place of what is under way
        await daemons.until("an operation ends", lambda command=commands[-1]: is_done(daemons, command))
    for name, verb in (("out", "undrain"), ("off", "start")):
        given.setdefault(name, []).append(await order(daemons, name, verb))
    await daemons.until("all serve", lambda: serve(daemons, registry, 7))
    outcome.orders = sum(map(len, given.values()))
    await check_operations(daemons, given, outcome)
    (daemons.folder / "given").write_text(json.dumps({name: len(ids) for name, ids in given.items()}))


async def keep_ordering(daemons: Daemons, name: str, enough: asyncio.Event, given: dict[str, list[str]]) -> None:
    """One order after another for a unit; each is given again until it is accepted, as it should be, and waited for."""
    number = 0
    while not enough.is_set():
        verb = ORDERED[name][number % len(ORDERED[name])]
        number += 1
        command = await order(daemons, name, verb)
        given.setdefault(name, []).append(command)
        while not enough.is_set() and not await is_done(daemons, command):  # noqa: ASYNC110  # others tell it
            await asyncio.sleep(0.1)


async def order(daemons: Daemons, name: str, verb: str) -> str:
    parameters = {"for_seconds": 3600} if verb == "drain" else {}
    body = {"command_id": uuid4().hex, "issued_by": "the bench", "parameters": parameters}
    await daemons.until("accepted", lambda: daemons.ask("POST", f"/v1/units/{name}/{verb}", body))
    return str(body["command_id"])


async def is_done(daemons: Daemons, command: str) -> bool:
    answer = await daemons.ask("GET", f"/v1/operations?command_id={command}")
    return bool(answer) and all(item["finished"] for item in answer["operations"])


async def check_operations(daemons: Daemons, given: dict[str, list[str]], outcome: Outcome) -> None:
    for name, commands in given.items():
        for command in commands:
            await daemons.until("an operation ends", lambda command=command: is_done(daemons, command))
            answer = await daemons.ask("GET", f"/v1/operations?command_id={command}")
            outcome.operations += [f"{name}: {item['verb']} {item['state']}: {item['error']}"
                                   for item in answer["operations"] if item["state"] != "succeeded"]  # fmt: skip


async def check_registry(daemons: Daemons, registry: EmbeddedRegistry, outcome: Outcome) -> None:
    units = await daemons.units()
    for entry in registry.list("web").entries:
        if units[entry.unit]["generation"] != entry.generation:
            outcome.wrong.append(f"{entry.unit}: generation {entry.generation} is registered")


def account(folder: Path, outcome: Outcome) -> None:
    """Read the notes and the logs."""
    given = json.loads((folder / "given").read_text())
    for path in sorted(folder.glob("*.notes")):
        name = path.name.removesuffix(".notes")
        notes = [line.split() for line in path.read_text().splitlines()]
        begun = [words for words in notes if words[0] == "begin"]
        outcome.twice += len(notes) - len(begun)
        allowed = {"again": given["again"] + 1, "out": 1, "off": given["off"] // 2 + 2}.get(name, 1)
        if name != "flap" and len(begun) > allowed:
            outcome.without_cause.append(f"{name} began {len(begun)} times")
        _account_lines(folder, name, outcome)


def _account_lines(folder: Path, name: str, outcome: Outcome) -> None:
    """Of lives that a signal ended, what they were about to say has no end; what they said has no hole."""
    files = sorted((folder / "logs").glob(f"{name}.out.log*"), key=lambda path: -int(path.suffix[1:] or 0)
                   if path.suffix != ".log" else 0)  # fmt: skip
    expected: dict[bytes, int] = {}
    for line in b"".join(path.read_bytes() for path in files).splitlines():
        found = re.fullmatch(rb"(\d+) (\d+) \.", line)
        if found is None:
            outcome.torn += 1
            continue
        wanted, number = expected.get(found[1], 0) + 1, int(found[2])
        outcome.lines += 1
        outcome.lost += max(0, number - wanted)
        outcome.doubled += number < wanted
        expected[found[1]] = max(number, wanted - 1)


# Times.


async def seconds_until_adopted(folder: Path, count: int) -> float:
    """From the kill until the next daemon answers, which it does when all units are its own."""
    daemons = Daemons(folder)
    (folder / "unitd.toml").write_text(DAEMON.split("[registry]")[0] + IDLE.format(count=count))

    async def all_run() -> bool:
        units = await daemons.units()
        return len(units) == count and all(unit["state"] == "RUNNING" for unit in units.values())

    daemons.start()
    try:
        await daemons.until("all run", all_run, 0.5)
        pids = {name: unit["pid"] for name, unit in (await daemons.units()).items()}
        daemons.kill()
        began = time.monotonic()
        daemons.start()
        await daemons.until("it answers", daemons.units, 0.005)
        seconds = time.monotonic() - began
        if {name: unit["pid"] for name, unit in (await daemons.units()).items()} != pids:
            raise RuntimeError("not all units go on with their processes")
        return seconds
    finally:
        await daemons.stop()


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="how often the daemon is killed (default: 50; 0: never)")
    parser.add_argument("--rate", type=float, default=100, help="requests a second (default: 100)")
    parser.add_argument("--units", type=int, nargs="*", default=[10, 100, 1000], help="for the times until adoption")
    parser.add_argument("--runs", type=int, default=3, help="how often each time is measured (default: 3)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args()


def main() -> int:
    """Measure; 1 when something happened that must not."""
    chosen = options()
    good = True
    if chosen.kills:
        with tempfile.TemporaryDirectory(prefix="adopt-") as folder:
            outcome = asyncio.run(kills_under_load(Path(folder), chosen.kills, chosen.rate))
        row = {key: len(value) if isinstance(value, list) else value
               for key in Outcome.__slots__ if (value := getattr(outcome, key)) is not None}  # fmt: skip
        show(f"kill -9 under {chosen.rate:g} requests/s", [row], as_json=chosen.json)
        for line in (*outcome.failed[:10], *outcome.without_cause, *outcome.wrong, *outcome.operations):
            print(line, file=sys.stderr)
        good = outcome.good
    rows = []
    for count in chosen.units:
        seconds = []
        for _ in range(chosen.runs):
            with tempfile.TemporaryDirectory(prefix="adopt-") as folder:
                seconds.append(asyncio.run(seconds_until_adopted(Path(folder), count)))
        rows.append({"units": count, **{f"{key} s": value for key, value in spread(seconds).items()}})
    if rows:
        show("from kill -9 until the next daemon has all units", rows, as_json=chosen.json)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
