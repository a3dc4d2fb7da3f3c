"""Units that are killed and frozen under load: real processes, and what their clients notice."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from gateway.model import Failure, Health
from tests.end_to_end.machine import free_ports
from tests.gateway.proxy.running import Place, Unit, asynchronous, echoing, get, post, running, until

UNIT = Path(__file__).parents[3] / "bench" / "loaded_server.py"
CLIENTS = 8


@contextlib.asynccontextmanager
async def processes(count: int, **spec: object) -> AsyncIterator[tuple[Place, list[subprocess.Popen[bytes]]]]:
    """A proxy before so many processes."""
    first = free_ports(count)
    started = [subprocess.Popen([sys.executable, UNIT, str(first), str(number)]) for number in range(count)]
    try:
        for number in range(count):
            await until("it listens", lambda number=number: _listens(first + number))
        async with running(**{"eject_failures": 3, **spec}) as place:
            place.units[:] = [Unit(echoing(), port=first + number) for number in range(count)]
            await place.apply(*(place.server(number) for number in range(count)))
            yield place, started
    finally:
        for process in started:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    import socket

    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


async def load(place: Place, request: bytes, end: asyncio.Event) -> Counter[int]:
    """Clients that ask again and again, until the end; status -> how many."""
    statuses: Counter[int] = Counter()

    async def one() -> None:
        client = await place.client()
        while not end.is_set():
            statuses[(await client.ask(request)).status] += 1
            await asyncio.sleep(0.002)
        await client.close()

    await asyncio.gather(*(one() for _ in range(CLIENTS)))
    return statuses


@asynchronous
async def test_a_killed_unit_costs_requests_that_can_be_repeated_nothing() -> None:
    async with processes(3, eject_seconds=5.0) as (place, units):
        end = asyncio.Event()
        reading = asyncio.create_task(load(place, get("/slow?seconds=0.01"), end))
        writing = asyncio.create_task(load(place, post(b"x", "/echo"), end))
        await until("there is load", lambda: place.count("proxy_requests_total", service="cart", code="200") > 300)
        units[0].send_signal(signal.SIGKILL)
        await until("it is left out", lambda: place.count("proxy_ejections_total", service="cart"))
        left_out_at = (await place.look())["n/0"].total
        done = place.count("proxy_requests_total", service="cart", code="200")
        await until(
            "the load goes on", lambda: place.count("proxy_requests_total", service="cart", code="200") > done + 300
        )
        end.set()
        assert set(await reading) == {200}
        written = await writing
        assert written[502] <= CLIENTS, "only what it was working on"
        assert set(written) <= {200, 502}
        assert (await place.look())["n/0"].total == left_out_at
        assert any(isinstance(finding, Failure) and finding.down for finding in place.found)


@asynchronous
async def test_a_frozen_unit_is_left_out_and_comes_back_when_it_goes_on() -> None:
    async with processes(3, response_seconds=0.3, eject_seconds=0.2) as (place, units):
        end = asyncio.Event()
        reading = asyncio.create_task(load(place, get("/fast"), end))
        await until("there is load", lambda: place.count("proxy_requests_total", service="cart", code="200") > 100)
        units[0].send_signal(signal.SIGSTOP)
        await until("it is left out", lambda: place.count("proxy_ejections_total", service="cart"))
        assert (await place.look())["n/0"].health is Health.DOWN
        units[0].send_signal(signal.SIGCONT)
        await until("it is taken back", lambda: not place.gateway._services["cart"].outliers.ejected)
        before = (await place.look())["n/0"].total
        await until("it works again", lambda: next(place.gateway._services["cart"].views(0.0)).total > before + 20)
        end.set()
        assert set(await reading) == {200}
