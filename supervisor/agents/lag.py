"""How late the loop comes to what is due, while somebody wants to know: an idle daemon is not woken for it."""

from __future__ import annotations

import asyncio

PERIOD_SECONDS = 0.5
FIRST_SECONDS = 0.01
INTEREST_SECONDS = 180.0  # after the last question: as long as a scraper may pause


class LagMeter:
    """The worst lateness of a timer since the last question."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._worst = self._asked_at = 0.0

    async def worst(self) -> float:
        """In seconds. The first answer is of this very moment."""
        self._asked_at = self._loop.time()
        if self._timer is None:
            due_at = self._loop.time() + FIRST_SECONDS
            await asyncio.sleep(FIRST_SECONDS)
            self._note(due_at)
        worst, self._worst = self._worst, 0.0
        return worst

    def _note(self, due_at: float) -> None:
        now = self._loop.time()
        self._worst = max(self._worst, now - due_at)
        self._timer = None
        if now - self._asked_at < INTEREST_SECONDS:
            self._timer = self._loop.call_at(now + PERIOD_SECONDS, self._note, now + PERIOD_SECONDS)
