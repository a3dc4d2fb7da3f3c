"""A gateway that does what a test tells it, and who listens to what is said of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from gateway.model import Applied, Finding, Key, Look, Pool, Server, ServerView, Standing

DEADLINE_SECONDS = 10.0


async def until(what: str, look: Callable[[], Any], seconds: float = DEADLINE_SECONDS) -> Any:
    """The first true value that `look` gives."""
    deadline = time.monotonic() + seconds
    while not (value := look()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s; last seen: {value!r}"
        await asyncio.sleep(0.005)
    return value


def server(instance: str = "n/1", service: str = "cart", **changes: Any) -> Server:
    """A server of which a test says only what matters to it."""
    values: dict[str, Any] = {"generation": 1, "address": "127.0.0.1", "port": 1, "weight": 100, "full_weight": 100}
    values |= changes
    if values.get("standing") is Standing.DRAINING:
        values["weight"] = 0
    return Server(service=service, instance=instance, **values)


def pool(revision: int, *servers: Server, service: str = "cart", epoch: str = "e") -> Pool:
    """A pool of these servers."""
    return Pool(service, revision, epoch, servers)


class FakeFeeder:
    """A gateway in memory. `failures` are raised by the next calls of apply, `look_failures` by those of look."""

    kind = "fake"

    def __init__(self, name: str = "edge", services: tuple[str, ...] = ("*",), look_seconds: float = 0.02) -> None:
        self.name, self.look_seconds = name, look_seconds
        self._services = services
        self.told: list[tuple[str, int, bool]] = []  # service, revision, full
        self.has: dict[str, Pool] = {}
        self.failures: list[Exception] = []
        self.always: Exception | None = None  # raised by every apply
        self.look_failure: Exception | None = None
        self.start_failure: Exception | None = None
        self.gates: dict[str, asyncio.Event] = {}  # service -> what its apply waits for
        self.serves: list[frozenset[Key]] = []  # what the next calls say instead of the pool's own
        self.views: tuple[ServerView, ...] = ()
        self.findings: list[Finding] = []
        self.looks = self.at_once = self.most_at_once = 0
        self.is_started = False
        self.closed = 0

    def wants(self, service: str) -> bool:
        return "*" in self._services or service in self._services

    async def start(self) -> None:
        self.is_started = True
        if self.start_failure is not None:
            raise self.start_failure

    async def apply(self, pool: Pool, *, full: bool = False) -> Applied:
        assert self.is_started and not self.closed
        self.told.append((pool.service, pool.revision, full))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if pool.service in self.gates:
                await self.gates[pool.service].wait()
            if self.failures:
                raise self.failures.pop(0)
            if self.always is not None:
                raise self.always
        finally:
            self.at_once -= 1
        self.has[pool.service] = pool
        serving = self.serves.pop(0) if self.serves else frozenset(each.key for each in pool.serving)
        return Applied(pool.service, pool.revision, serving)

    async def look(self) -> Look:
        self.looks += 1
        if self.look_failure is not None:
            raise self.look_failure
        findings, self.findings = tuple(self.findings), []
        return Look(self.views, findings)

    async def close(self) -> None:
        self.closed += 1


class FakeAcknowledgements:
    """Writes down what it is told, in order."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def applying(self, feeder: str, pool: Pool) -> None:
        self.said.append(("applying", feeder, pool.service, pool.revision))

    def applied(self, feeder: str, kind: str, applied: Applied) -> None:
        self.said.append(("applied", feeder, applied.service, applied.revision))

    def busy(self, feeder: str, service: str, in_flight: Mapping[Key, int]) -> None:
        self.said.append(("busy", feeder, service, dict(in_flight)))

    def unreachable(self, feeder: str) -> None:
        self.said.append(("unreachable", feeder))

    def reachable(self, feeder: str) -> None:
        self.said.append(("reachable", feeder))

    def of(self, *words: str) -> list[tuple[Any, ...]]:
        return [each for each in self.said if each[0] in words]
