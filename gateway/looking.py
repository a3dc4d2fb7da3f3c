"""Looks at a gateway now and then: what it sees of its servers, and what has happened to them since."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import TypeVar

from .feeder import Feeder
from .model import Finding, Key, Look, ServerView

OnFinding = Callable[[str, Finding], None]  # feeder, finding

HURRY_SECONDS = 0.05  # between two looks, at least: where much changes, a gateway has other things to do, too

_T = TypeVar("_T")
_NOTHING: Mapping[Key, ServerView] = {}


async def contained(call: Awaitable[_T], seconds: float) -> _T:
    """What a call of a feeder gives; when the time is over, TimeoutError.

    Somebody else's cancelled task that the feeder waited for is an error of the feeder: without this it would look as
    if whoever calls were to end.
    """
    try:
        async with asyncio.timeout(seconds):
            return await call
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("what the feeder waited for was cancelled") from error


class Sight:
    """What one gateway has shown last. One look at a time."""

    def __init__(
        self,
        feeder: Feeder,
        on_finding: OnFinding,
        limit_seconds: float,
        on_look: Callable[[Exception | None, float], None],
    ) -> None:
        """`on_look` is told after each look what it failed with, and when it began (monotonic)."""
        self._feeder, self._on_finding, self._limit_seconds, self._on_look = feeder, on_finding, limit_seconds, on_look
        self._views: dict[str, dict[Key, ServerView]] = {}
        self._hurry = asyncio.Event()

    def of(self, service: str) -> Mapping[Key, ServerView]:
        """What was seen of the service's servers; nothing while the gateway is away."""
        return self._views.get(service, _NOTHING)

    @property
    def counts(self) -> bool:
        """Whether the last look told of any server how much is open there."""
        return any(view.in_flight is not None for seen in self._views.values() for view in seen.values())

    def hurry(self) -> None:
        """Look again soon."""
        self._hurry.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            self._hurry.clear()
            await self._look()
            try:
                async with asyncio.timeout(self._feeder.look_seconds):
                    await asyncio.sleep(HURRY_SECONDS)
                    await self._hurry.wait()
            except TimeoutError:
                pass

    async def _look(self) -> None:
        began = monotonic()
        failure: Exception | None = None
        try:
            look = await contained(self._feeder.look(), self._limit_seconds)
        except Exception as error:  # also a mistake in the feeder: the next look may be better
            self._views, failure = {}, error
        else:
            self._take(look)
        self._on_look(failure, began)

    def _take(self, look: Look) -> None:
        views: dict[str, dict[Key, ServerView]] = {}
        for view in look.views:
            views.setdefault(view.service, {})[view.instance, view.generation] = view
        self._views = views
        for finding in look.findings:
            self._on_finding(self._feeder.name, finding)
