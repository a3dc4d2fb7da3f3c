"""Coroutines in tests: run with a deadline, and wait for what comes true instead of sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

DEADLINE_SECONDS = 15.0


def run(coroutine: Coroutine[Any, Any, Result], seconds: float = DEADLINE_SECONDS) -> Result:
    """Its result; a failure when it takes too long, or when the loop had to report an error of a callback or task."""

    async def bounded() -> Result:
        loop, faults = asyncio.get_running_loop(), list[dict[str, Any]]()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        async with asyncio.timeout(seconds):
            result = await coroutine
        await asyncio.sleep(0)
        assert not faults, faults
        return result

    return asyncio.run(bounded())


async def until(condition: Callable[[], object], what: str = "", seconds: float = DEADLINE_SECONDS) -> None:
    """Return as soon as it holds; fails after `seconds`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline, f"it did not come true: {what or condition}"
        await asyncio.sleep(0.005)
