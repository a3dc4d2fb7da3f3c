"""How long an entry is seen after its last renewal: when it is not renewed any more, and when its owner was killed."""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing

from registries import MIN_TTL, NAMES, open_registry, running
from report import show, spread

from registry_client import Entry, LeaseKey

TTLS = (3.0, 5.0, 10.0)
RENEWALS = 2  # before the last one
OWNER = "--owner"  # this file again, as the process that is killed


def entry(number: int) -> Entry:
    """The entries that are watched."""
    return Entry(
        service="bench", instance=f"here/{number}", node="here", unit=f"{number}", address="127.0.0.1",
        port=9000 + number, generation=1, started_at="2026-11-24T03:41:46.123Z",
    )  # fmt: skip


async def hold(name: str, url: str, ttl: float, numbers: Sequence[int], tell: object) -> None:
    """Register entries at moments by chance, renew them a few times, tell of each last renewal, and stop."""
    backend = open_registry(name, url)

    async def one(number: int) -> None:
        await asyncio.sleep(random.uniform(0, ttl / 3))
        await backend.register(entry(number), ttl)
        for _ in range(RENEWALS):
            await asyncio.sleep(ttl / 3)
            answered = await backend.renew([LeaseKey("bench", f"here/{number}", 1)])
            assert not answered, "the entry was lost"
        print(number, time.clock_gettime(time.CLOCK_MONOTONIC), file=tell, flush=True)  # type: ignore[call-overload]

    await asyncio.gather(*map(one, numbers))
    await asyncio.Event().wait()  # stays as it is, connected, and does nothing more


async def gone(name: str, url: str, numbers: set[int], deadline: float) -> dict[int, float]:
    """When a client that watches saw each entry go."""
    left, found, backend = set(numbers), dict[int, float](), open_registry(name, url)
    seen = set[int]()
    try:
        async with asyncio.timeout(deadline), aclosing(backend.watch("bench")) as watch:
            async for snapshot in watch:
                now = time.monotonic()
                listed = {int(item.unit) for item in snapshot.entries}
                for number in left - listed:
                    if number in seen:
                        found[number] = now
                left -= set(found)
                seen |= listed
                if not left:
                    break
    finally:
        await backend.close()
    return found


async def measure(name: str, url: str, ttl: float, runs: int, *, kill: bool) -> dict[str, object]:
    """One row: so many entries of an owner that stops renewing, or is killed at its last renewal."""
    base = random.randrange(10_000)
    numbers = {base + number for number in range(runs)}
    arguments = [sys.executable, __file__, OWNER, name, url, str(ttl), ",".join(map(str, sorted(numbers)))]
    owners: list[asyncio.subprocess.Process] = []
    if kill:  # one owner for each entry
        for number in numbers:
            words = [*arguments[:-1], str(number)]
            owners.append(await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE))
    else:
        owners.append(await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE))
    since: dict[int, float] = {}

    async def listen(owner: asyncio.subprocess.Process) -> None:
        assert owner.stdout is not None
        for _ in range(1 if kill else runs):
            number, moment = (await owner.stdout.readline()).split()
            since[int(number)] = float(moment)
            if kill:
                owner.kill()

    watching = asyncio.ensure_future(gone(name, url, numbers, 6 * ttl + 60))
    try:
        await asyncio.gather(*map(listen, owners))
        ends = await watching
    finally:
        for owner in owners:
            if owner.returncode is None:
                owner.kill()
            await owner.wait()
    backend = open_registry(name, url)
    bound = backend.removal_bound((await backend.inspect(ttl)).granted_ttl_seconds)
    await backend.close()
    took = spread([ends[number] - since[number] for number in numbers])
    return {
        "registry": name, "ttl": ttl, "owner": "killed" if kill else "stops renewing",
        "min": took["min"], "median": took["median"], "max": took["max"], "bound": bound,
        "within": "yes" if took["max"] <= bound else "NO",
    }  # fmt: skip


def main() -> int:
    """Measure all backends; 1 if one of them broke its bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="entries for each row (default: 5)")
    parser.add_argument("--only", choices=NAMES, action="append", help="only this registry; may be given again")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    chosen = parser.parse_args()
    rows = []
    for name in chosen.only or NAMES:
        with running(name) as url:
            for ttl in sorted({max(ttl, MIN_TTL[name]) for ttl in TTLS}):
                for kill in (False, True):
                    rows.append(asyncio.run(measure(name, url, ttl, chosen.runs, kill=kill)))
                    print(rows[-1], file=sys.stderr)
    show("seconds from the last renewal to gone, as a watching client sees it", rows, as_json=chosen.json)
    return 0 if all(row["within"] == "yes" for row in rows) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == [OWNER]:
        _, _, its_name, its_url, its_ttl, its_numbers = sys.argv
        asyncio.run(hold(its_name, its_url, float(its_ttl), list(map(int, its_numbers.split(","))), sys.stdout))
    sys.exit(main())
