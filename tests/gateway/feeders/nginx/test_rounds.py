"""Coalescing of reloads, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from gateway.errors import GatewayRefused, GatewayUnreachable
from gateway.feeders.nginx_rounds import Refusals, Rounds

SECOND = 1.0


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """Time passes only when all wait for it, and then at once."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        select = self._selector.select  # type: ignore[attr-defined]

        def jump(timeout: float | None = None) -> Any:
            if timeout:
                self._now += timeout
            return select(0)

        self._selector.select = jump  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now


def on_fake_time(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        runner.run(work())


class Work:
    """What a round does: it takes a while, and remembers when it was done."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.began: list[float] = []
        self.seconds = seconds
        self.under_way = 0
        self.error: Exception | None = None
        self.refusals: Refusals = {}

    async def __call__(self) -> Refusals:
        self.under_way += 1
        assert self.under_way == 1
        self.began.append(round(asyncio.get_running_loop().time() - 1000.0, 3))
        await asyncio.sleep(self.seconds)
        self.under_way -= 1
        if self.error:
            raise self.error
        return self.refusals


def test_what_comes_within_the_time_is_done_in_one_round() -> None:
    async def scene() -> None:
        work = Work()
        rounds = Rounds(work, SECOND)
        first = asyncio.create_task(rounds.join(urgent=False))
        await asyncio.sleep(0.9)
        await asyncio.gather(first, *(rounds.join(urgent=False) for _ in range(5)))
        assert work.began == [1.0]

    on_fake_time(scene)


def test_something_urgent_hastens_the_round_for_all() -> None:
    async def scene() -> None:
        work = Work()
        rounds = Rounds(work, SECOND)
        first = asyncio.create_task(rounds.join(urgent=False))
        await asyncio.sleep(0.3)
        await rounds.join(urgent=True)
        await first
        assert work.began == [0.4]

    on_fake_time(scene)


def test_what_comes_while_a_round_is_under_way_is_for_the_next_one() -> None:
    async def scene() -> None:
        work = Work(seconds=3.0)
        rounds = Rounds(work, SECOND)
        first = asyncio.create_task(rounds.join(urgent=True))
        await asyncio.sleep(0.5)
        second = asyncio.create_task(rounds.join(urgent=True))
        third = asyncio.create_task(rounds.join(urgent=False))
        await asyncio.gather(first, second, third)
        assert work.began == [0.1, 3.35], "with a moment between"

    on_fake_time(scene)


def test_all_who_asked_get_what_is_refused_and_what_is_raised() -> None:
    async def scene() -> None:
        work = Work()
        rounds = Rounds(work, SECOND)
        work.refusals = {"cart": GatewayRefused("no")}
        assert await asyncio.gather(rounds.join(urgent=False), rounds.join(urgent=False)) == [work.refusals] * 2
        work.error = GatewayUnreachable("away")
        for outcome in await asyncio.gather(*(rounds.join(urgent=False) for _ in range(2)), return_exceptions=True):
            assert outcome is work.error

    on_fake_time(scene)


def test_one_who_gives_up_does_not_end_the_round_of_others() -> None:
    async def scene() -> None:
        work = Work()
        rounds = Rounds(work, SECOND)
        one, other = (asyncio.create_task(rounds.join(urgent=False)) for _ in range(2))
        await asyncio.sleep(0.1)
        one.cancel()
        await other
        assert work.began == [1.0]

    on_fake_time(scene)


def test_close_ends_what_waits_and_what_is_under_way() -> None:
    async def scene() -> None:
        work = Work(seconds=10.0)
        rounds = Rounds(work, SECOND)
        under_way = asyncio.create_task(rounds.join(urgent=True))
        await asyncio.sleep(1.0)
        waiting = asyncio.create_task(rounds.join(urgent=False))
        await asyncio.sleep(0)
        await rounds.close()
        await rounds.close()
        for task in (under_way, waiting):
            with pytest.raises(asyncio.CancelledError):
                await task
        assert work.began == [0.1]

    on_fake_time(scene)
