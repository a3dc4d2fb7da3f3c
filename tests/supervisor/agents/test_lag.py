"""How late the loop comes to what is due."""

from __future__ import annotations

import asyncio
import time

import pytest

from supervisor.agents import lag
from supervisor.agents.lag import LagMeter
from tests.supervisor.running import run, until


def test_a_call_that_holds_up_the_loop_is_noticed_once() -> None:
    async def scenario() -> None:
        meter = LagMeter()
        await meter.worst()
        time.sleep(lag.PERIOD_SECONDS + 0.3)  # the loop stands still
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await meter.worst() >= 0.25
        assert await meter.worst() == 0.0

    run(scenario())


def test_it_stops_looking_when_nobody_has_asked_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is not scraped any more is not woken for it."""
    monkeypatch.setattr(lag, "INTEREST_SECONDS", 0.05)
    monkeypatch.setattr(lag, "PERIOD_SECONDS", 0.01)

    async def scenario() -> None:
        meter = LagMeter()
        await meter.worst()
        await until(lambda: meter._timer is None, "the meter sleeps")
        await meter.worst()
        assert meter._timer is not None

    run(scenario())
