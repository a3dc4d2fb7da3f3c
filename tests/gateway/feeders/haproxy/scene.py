"""Pools, a feeder that is let go of at the end, and clients that keep asking, for the tests with a real HAProxy."""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from gateway.errors import GatewayError, GatewayUnreachable
from gateway.feeders.haproxy import HaproxyFeeder, make
from gateway.model import Look, Pool, Server, Standing
from gateway.settings.haproxy import HaproxySpec
from tests.gateway.feeders.haproxy.origin import Origin
from tests.servers.haproxy import Haproxy

SERVICE = "cart"
DEADLINE_SECONDS = 10.0


def server(port: int, *, weight: int = 100, generation: int = 1, full: int = 100, instance: str = "") -> Server:
    """A server at a port; weight 0: it drains."""
    return Server(
        service=SERVICE,
        instance=instance or f"web-1/cart:{port}",
        generation=generation,
        address="127.0.0.1",
        port=port,
        weight=weight,
        full_weight=full,
        standing=Standing.SERVING if weight else Standing.DRAINING,
    )


def pool(*servers: Server | Origin, revision: int = 1, service: str = SERVICE) -> Pool:
    """A pool of servers; an origin is one of full weight."""
    each = [server(item.port) if isinstance(item, Origin) else item for item in servers]
    return Pool(service, revision, "e1", tuple(sorted(each, key=lambda item: item.instance)))


@asynccontextmanager
async def feeding(haproxy: Haproxy, **options: Any) -> AsyncIterator[HaproxyFeeder]:
    """A feeder of it that has begun."""
    spec = HaproxySpec(name="edge", socket=str(haproxy.socket), **options)
    feeder = make(spec)
    await feeder.start()
    try:
        yield feeder
    finally:
        await feeder.close()


async def eventually(what: str, look: Callable[[], Any]) -> Any:
    """The first true value of `look`, which may be async; an unreachable HAProxy is one more reason to wait."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    seen: Any = None
    while time.monotonic() < deadline:
        try:
            seen = look()
            seen = await seen if asyncio.iscoroutine(seen) else seen
        except GatewayUnreachable as error:
            seen = None if isinstance(error, GatewayError) else seen
        if seen:
            return seen
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what}: not within {DEADLINE_SECONDS:g} s; last seen: {seen!r}")


async def sight(feeder: HaproxyFeeder) -> Look:
    """A look; one that says that HAProxy has begun anew is followed by another."""
    try:
        return await feeder.look()
    except GatewayUnreachable:
        return await feeder.look()


def states(haproxy: Haproxy) -> dict[str, tuple[int, str, int]]:
    """What HAProxy has in its slots that are not in maintenance: slot -> (port, state, weight)."""
    rows = [line.split() for line in haproxy.ask("show servers state").splitlines()[2:] if line.strip()]
    words = {0: "ready", 8: "drain"}
    return {
        row[3]: (int(row[18]), words.get(int(row[6]) & ~4, row[6]), int(row[7])) for row in rows if not int(row[6]) & 1
    }


def ports(haproxy: Haproxy, state: str = "ready") -> set[int]:
    """The ports that are in this state."""
    return {port for port, now, _ in states(haproxy).values() if now == state}


class Clients:
    """Some clients that ask all the time, each on one kept-alive connection, from the way in to the way out.

    `answers`: body -> number of good ones. `failures`: what went wrong. `closed`: connections that were closed while
    idle, without any byte of an answer, which a client may ask on another one (RFC 9112, 9.3.1).
    """

    def __init__(self, haproxy: Haproxy, *, count: int = 2, path: str = "/", pause: float = 0.003) -> None:
        self._port, self._path, self._pause = haproxy.port, path, pause
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self.closed = 0
        self.tolerates_absence = False  # of HAProxy itself

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10.0)

    @property
    def total(self) -> int:
        """Good answers so far."""
        return sum(self.answers.values())

    async def more(self, count: int = 30) -> None:
        """Return when so many more have been answered."""
        wanted = self.total + count
        await eventually(f"{count} more answers (failures: {self.failures})", lambda: self.total >= wanted)

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5.0)
        while not self._stop.wait(self._pause):
            fresh = connection.sock is None
            try:
                connection.request("GET", self._path)
                answer = connection.getresponse()
                body = answer.read().decode(errors="replace")
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._failed(error, fresh)
                continue
            if answer.status == 200:
                self.answers[body] += 1
            else:
                self.failures.append(f"{answer.status}: {body[:60]}")
        connection.close()

    def _failed(self, error: Exception, fresh: bool) -> None:
        away = isinstance(error, ConnectionError)  # http.client.RemoteDisconnected is one
        if away and not fresh:
            self.closed += 1
        elif not (away and self.tolerates_absence):
            self.failures.append(repr(error))
