"""A loop whose time passes only when nothing else is left to do: hours of schedule in an instant, sockets included."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class _Selector(selectors.DefaultSelector):
    loop: FakeTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing will ever happen any more"
            self.loop.now += max(0.0, timeout)
        return ready


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """Its `now` may also be moved by a test: then the loop was busy for that long."""

    def __init__(self) -> None:
        self.now = 1000.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def run_fake(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Its result; a failure when the loop had to report an error of a callback or task."""
    faults = list[dict[str, Any]]()

    async def whole() -> Result:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        result = await coroutine
        await asyncio.sleep(0)
        return result

    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        result = runner.run(whole())
    assert not faults, faults
    return result
