"""A stage on which gateways are fed, with fakes all around."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from gateway.fed import Hearers, Timing
from gateway.feeding import Feeding
from gateway.model import Finding, Pool
from tests.gateway.fakes import FakeAcknowledgements, FakeFeeder, until

FAST = Timing(
    resync=60.0, retry_first=0.01, retry_most=0.05, refused_first=0.01, refused_most=0.05, linger_first=0.01,
    linger_most=0.02, apply=5.0, start=0.2, look=0.2, last=2.0, close=0.5,
)  # fmt: skip
SLOW = Timing(retry_first=30.0, retry_most=30.0, refused_first=30.0, refused_most=30.0, last=0.2)


class Stage:
    """Feeding with fakes around it."""

    def __init__(self, feeders: list[FakeFeeder], timing: Timing) -> None:
        self.acknowledgements = FakeAcknowledgements()
        self.findings: list[tuple[str, Finding]] = []
        self.outcomes: list[tuple[str, str]] = []
        self.lost: list[str] = []
        self.feeding = Feeding(
            feeders,
            self.acknowledgements,
            Hearers(
                lambda feeder, finding: self.findings.append((feeder, finding)),
                lambda feeder, outcome, seconds: self.outcomes.append((feeder, outcome)),
                self.lost.append,
            ),
            timing,
        )

    def offer(self, *pools: Pool) -> None:
        """These are the pools now."""
        self.feeding.offer({each.service: each for each in pools})

    async def has(self, service: str, revision: int, feeder: FakeFeeder) -> None:
        """Until the gateway has that pool."""
        await until(f"it has {revision}", lambda: service in feeder.has and feeder.has[service].revision == revision)


@asynccontextmanager
async def feeding(*feeders: FakeFeeder, timing: Timing = FAST) -> AsyncIterator[Stage]:
    """It runs."""
    stage = Stage(list(feeders), timing)
    await stage.feeding.start()
    task = asyncio.create_task(stage.feeding.run())
    try:
        yield stage
    finally:
        task.cancel()
        await asyncio.wait([task])
        await stage.feeding.close()
        assert all(feeder.closed for feeder in feeders)
    assert task.cancelled(), "nothing has ended it before"


def run(scene: Callable[[], Awaitable[None]]) -> None:
    """Play it, with a deadline."""

    async def bounded() -> None:
        async with asyncio.timeout(15):
            await scene()

    asyncio.run(bounded())
