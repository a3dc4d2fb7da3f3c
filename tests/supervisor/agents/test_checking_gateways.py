"""Gateways that are known by their checks, and what gateways count at a unit that finishes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from supervisor.agents import acknowledgements
from supervisor.core.events import Gone
from supervisor.core.model import DrainSpec
from tests.supervisor.agents.withdrawals import KEY, SPEC, STATE, Host, host
from tests.supervisor.running import run, until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledgements, "LOOK_SECONDS", 0.02)


# Who checks.


def test_a_gateway_that_checks_is_heard_there_and_the_registry_is_not_asked_again() -> None:
    async def scenario() -> None:
        async with host() as it:
            it.gateways.sightings.state("cart", STATE, "10.0.0.1")
            await it.publish()
            it.agents.take_out(SPEC, 1, 4)
            await it.waits_for("haproxy-1")
            it.gateways.sightings.state("cart", replace(STATE, sends=False), "10.0.0.1")
            assert await it.answer() == Gone(1, 4, settled=True)
            assert it.lists() == 1

    run(scenario())


def test_an_agent_is_waited_for_and_never_ends_the_settling() -> None:
    async def scenario() -> None:
        async with host() as it:
            seen = it.gateways.sightings
            seen.poll("cart", "10.0.0.1", ready=True)
            await it.publish()
            it.agents.take_out(SPEC, 1, 4)
            await it.waits_for("at 10.0.0.1")
            seen.poll("cart", "10.0.0.1", ready=False)
            seen.poll("cart", "10.0.0.1", ready=False)
            assert await it.answer() == Gone(1, 4, settled=False)

    run(scenario())


def test_a_gateway_that_is_silent_is_waited_for_only_as_long_as_its_word_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("supervisor.agents.sightings.FRESH_SECONDS", 0.3)

    async def scenario() -> None:
        async with host() as it:
            it.gateways.sightings.state("cart", STATE, "10.0.0.1")
            await it.publish()
            it.agents.take_out(SPEC, 1, 4)
            await it.waits_for("haproxy-1")
            assert await it.answer() == Gone(1, 4, settled=False)

    run(scenario())


# What is open at a unit.


async def taken_out(it: Host) -> None:
    """Its gateways have acknowledged."""
    await it.publish()
    it.agents.take_out(SPEC, 1, 4)
    await until(it.lists)
    it.gateways.sightings.state("cart", replace(STATE, sends=False, in_flight=1), "10.0.0.1")
    await it.gateway("gw-1.edge", busy={KEY: 2})
    assert await it.answer() == Gone(1, 4, settled=True)


def test_what_gateways_count_is_what_is_in_flight() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.gateway("gw-1.edge", [KEY])
            it.gateways.sightings.state("cart", STATE, "10.0.0.1")
            await taken_out(it)
            load = await it.gateways.load(SPEC)
            assert load is not None and (load.in_flight, load.quiet) == (3, False)
            assert load.detail == "3 requests in flight, gateways gw-1.edge, haproxy-1 count"
            it.gateways.sightings.state("cart", replace(STATE, sends=False, in_flight=0), "10.0.0.1")
            await it.gateway("gw-1.edge")
            await asyncio.sleep(2 * acknowledgements.LOOK_SECONDS)
            load = await it.gateways.load(SPEC)
            assert load is not None and (load.in_flight, load.quiet) == (0, True)

    run(scenario())


@pytest.mark.parametrize(
    "why", ["it is not asked", "nobody is known", "one has vanished", "one does not say", "one cannot count"]
)
def test_where_gateways_cannot_tell_the_kernel_is_asked(why: str) -> None:
    async def scenario() -> None:
        async with host() as it:
            spec = replace(SPEC, drain=DrainSpec()) if why == "it is not asked" else SPEC
            if why != "nobody is known":
                await it.gateway("gw-1.edge", [KEY])
                it.gateways.sightings.state("cart", STATE, "10.0.0.1")
            await it.publish()
            it.agents.take_out(spec, 1, 4)
            await until(it.lists)
            silent = None if why == "one does not say" else 0
            it.gateways.sightings.state("cart", replace(STATE, sends=False, in_flight=silent), "10.0.0.1")
            await it.gateway("gw-1.edge", counts=why != "one cannot count")
            await it.answer()
            if why == "one has vanished":
                await it.vanish("gw-1.edge")
                await asyncio.sleep(2 * acknowledgements.LOOK_SECONDS)
            assert await it.gateways.load(spec) is None

    run(scenario())


def test_a_unit_that_serves_again_is_forgotten() -> None:
    async def scenario() -> None:
        async with host() as it:
            await it.gateway("gw-1.edge", [KEY])
            it.gateways.sightings.state("cart", STATE, "10.0.0.1")
            await taken_out(it)
            assert await it.gateways.load(SPEC) is not None
            it.agents.call_off("cart")  # as whoever publishes it does
            assert await it.gateways.load(SPEC) is None
            it.gateways.remove("cart")
            assert it.gateways.sightings.of("cart") == []

    run(scenario())
