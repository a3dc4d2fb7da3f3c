"""What the heartbeats of one node cost: CPU, calls, and how late renewals come, beside a thread for each unit."""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import resource
import subprocess
import sys
import threading
import time
from typing import Any

from registries import NAMES, open_registry, running
from report import show

from registry_client import Entry
from registry_client.backend import Backend
from registry_client.backends.connection import HttpConnection
from registry_client.lease import JITTER
from supervisor.agents.heartbeat import Heartbeats

NODE = "--node"  # this file again, as the process that is measured
PLAIN = ("http", "consul", "etcd")  # that can be asked with `requests`
UNITD, THREADS = "unitd", "thread per unit"


def entry(number: int) -> Entry:
    """The entry of a unit."""
    return Entry(
        service=f"service-{number % 50}", instance=f"here/unit-{number}", node="here", unit=f"unit-{number}",
        address="127.0.0.1", port=10_000 + number, generation=1, started_at="2026-11-24T03:41:46.123Z",
    )  # fmt: skip


class Clockwork:
    """Notes when each lease was renewed, and how much later than planned at worst that was."""

    def __init__(self, ttl: float) -> None:
        self.longest_gap = ttl / 3 * (1 + JITTER)
        self.renewed: dict[object, float] = {}
        self.latest, self.calls, self.counting, self.lost = 0.0, 0, False, 0

    def note(self, key: object) -> None:
        """It was confirmed now."""
        now = time.monotonic()
        if key in self.renewed and self.counting:
            self.latest = max(self.latest, now - self.renewed[key] - self.longest_gap)
        self.renewed[key] = now


class Counted:
    """A backend whose answers to renewals are noted."""

    def __init__(self, backend: Backend, clockwork: Clockwork) -> None:
        self._backend, self._clockwork = backend, clockwork

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def register(self, item: Entry, ttl_seconds: float) -> Any:
        """See `Backend.register`."""
        grant = await self._backend.register(item, ttl_seconds)
        self._clockwork.note(item.key)
        return grant

    async def renew(self, keys: Any) -> Any:
        """See `Backend.renew`."""
        self._clockwork.calls += 1
        lost = await self._backend.renew(keys)
        self._clockwork.lost += len(lost)
        for key in keys:
            self._clockwork.note(key)
        return lost


def cpu() -> float:
    """Seconds of CPU that all threads of this process have had."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def agents(name: str, url: str, units: int, ttl: float, seconds: float) -> dict[str, float]:
    """The daemon's heartbeat agents on the real backend."""
    clockwork, requests = Clockwork(ttl), [0]
    _count_requests(requests)
    heartbeats = Heartbeats(Counted(open_registry(name, url, ttl / 6), clockwork), lambda unit: None)  # type: ignore[arg-type]
    began = time.monotonic()
    for number in range(units):
        heartbeats.publish(f"unit-{number}", entry(number), ttl)
    while len(clockwork.renewed) < units:  # noqa: ASYNC110 - it costs nothing that is counted
        await asyncio.sleep(0.05)
    registered = time.monotonic() - began
    await asyncio.sleep(ttl)  # each has been renewed
    clockwork.counting, clockwork.calls, requests[0] = True, 0, 0
    cpu_before, began = cpu(), time.monotonic()
    await asyncio.sleep(seconds)
    passed = time.monotonic() - began
    figures = {
        "registered in s": registered,
        "CPU %": 100 * (cpu() - cpu_before) / passed,
        "renew() a second": clockwork.calls / passed,
        "HTTP requests a second": requests[0] / passed if requests[0] else None,
        "latest renewal, s": max(clockwork.latest, 0.0),
        "lost": clockwork.lost,
    }
    await heartbeats.close()
    return figures  # type: ignore[return-value]


def _count_requests(count: list[int]) -> None:
    original = HttpConnection.request

    async def request(self: HttpConnection, *arguments: Any, **more: Any) -> Any:
        count[0] += 1
        return await original(self, *arguments, **more)

    HttpConnection.request = request  # type: ignore[method-assign]


def threads(name: str, url: str, units: int, ttl: float, seconds: float) -> dict[str, float]:
    """The plain way: each unit has a thread that asks with `requests` every third of the ttl."""
    import requests

    clockwork = Clockwork(ttl)
    leases = asyncio.run(_register_all(name, url, units, 10 * ttl + seconds))
    lock = threading.Lock()

    def run(number: int) -> None:
        session = requests.Session()
        next_at = time.monotonic() + random.uniform(0, ttl / 3)
        while True:
            time.sleep(max(0.0, next_at - time.monotonic()))
            next_at += ttl / 3
            method, path, body = leases[number]
            try:
                session.request(method, url + path, json=body, timeout=ttl / 6).raise_for_status()
            except requests.RequestException:
                with lock:
                    clockwork.lost += 1
                continue
            with lock:
                clockwork.calls += 1
                clockwork.note(number)

    for number in range(units):
        threading.Thread(target=run, args=(number,), daemon=True).start()
    time.sleep(2 * ttl)
    clockwork.counting, clockwork.calls, clockwork.lost = True, 0, 0
    cpu_before, began = cpu(), time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began
    return {
        "registered in s": None,  # type: ignore[dict-item]
        "CPU %": 100 * (cpu() - cpu_before) / passed,
        "renew() a second": None,  # type: ignore[dict-item]
        "HTTP requests a second": clockwork.calls / passed,
        "latest renewal, s": max(clockwork.latest, 0.0),
        "lost": clockwork.lost,
    }


async def _register_all(name: str, url: str, units: int, ttl: float) -> list[tuple[str, str, object]]:
    """Register with a ttl that outlives the bench; answers the request that renews each."""
    if name == "etcd":
        return [await asyncio.to_thread(_etcd_lease, url, ttl) for _ in range(units)]
    backend = open_registry(name, url, 10.0)
    for number in range(units):
        await backend.register(entry(number), ttl)
    await backend.close()
    if name == "consul":
        import requests

        checks = (await asyncio.to_thread(requests.get, f"{url}/v1/agent/checks", timeout=30)).json()
        return [("PUT", f"/v1/agent/check/pass/{_quoted(check)}", None) for check in checks][:units]
    return [("POST", "/v1/registry/renew", {"leases": [entry(number).key.to_json()]}) for number in range(units)]


def _etcd_lease(url: str, ttl: float) -> tuple[str, str, object]:
    import requests

    lease = requests.post(f"{url}/v3/lease/grant", json={"TTL": int(ttl)}, timeout=30).json()["ID"]
    value = base64.b64encode(b"x").decode()
    put = {"key": base64.b64encode(f"plain/{lease}".encode()).decode(), "value": value, "lease": lease}
    requests.post(f"{url}/v3/kv/put", json=put, timeout=30).raise_for_status()
    return "POST", "/v3/lease/keepalive", {"ID": lease}


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def measured(name: str, side: str, chosen: argparse.Namespace) -> dict[str, object]:
    """One row, in a process of its own and on a server of its own."""
    with running(name) as url:
        words = [
            sys.executable,
            __file__,
            NODE,
            name,
            url,
            side,
            str(chosen.units),
            str(chosen.ttl),
            str(chosen.seconds),
        ]
        answer = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True).stdout
    return {"registry": name, "side": side, **json.loads(answer)}


def main() -> None:
    """Measure all registries, and the plain way where there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=2000, help="how many units (default: 2000)")
    parser.add_argument("--ttl", type=float, default=15.0, help="of each entry, in seconds (default: 15)")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long it is watched (default: 30)")
    parser.add_argument("--only", choices=NAMES, action="append", help="only this registry; may be given again")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    chosen = parser.parse_args()
    rows = []
    for name in chosen.only or NAMES:
        for side in (UNITD, THREADS) if name in PLAIN else (UNITD,):
            rows.append(measured(name, side, chosen))
            print(rows[-1], file=sys.stderr)
    title = f"heartbeats of {chosen.units} units, ttl {chosen.ttl:g} s, watched for {chosen.seconds:g} s"
    show(title, rows, as_json=chosen.json)


def node(words: list[str]) -> None:
    """What is measured; prints its figures as JSON."""
    name, url, side, units, ttl, seconds = words
    if side == UNITD:
        figures = asyncio.run(agents(name, url, int(units), float(ttl), float(seconds)))
    else:
        figures = threads(name, url, int(units), float(ttl), float(seconds))
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == [NODE]:
        node(sys.argv[2:])
    else:
        main()
