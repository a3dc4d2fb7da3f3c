"""What gateways show of themselves on the checks port: who sends, for how long that is believed, and how much is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor.agents import sightings
from supervisor.agents.sightings import MAX_GATEWAYS, Sightings
from supervisor.core.checking import View

VIEW = View("gw-1", "cart/cart:0", "127.0.0.1", 9080, True, 2)


class Clock:
    """Time that passes when a test says so."""

    now = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(sightings, "monotonic", lambda: made.now)
    return made


def told(it: Sightings, unit: str = "cart:0") -> dict[str, tuple[bool, int | None, bool]]:
    return {item.gateway: (item.sends, item.in_flight, item.proves) for item in it.of(unit)}


def test_a_gateway_that_sends_its_state_is_believed_what_it_says(clock: Clock) -> None:
    it = Sightings()
    assert it.of("cart:0") == []
    it.state("cart:0", VIEW, "10.0.0.1")
    assert told(it) == {"gw-1": (True, 2, True)}
    it.state("cart:0", replace(VIEW, sends=False, in_flight=1), "10.0.0.1")
    assert told(it) == {"gw-1": (False, 1, True)}
    assert it.of("cart:1") == []


def test_its_word_is_old_after_three_of_its_intervals_and_three_seconds_at_least(clock: Clock) -> None:
    it = Sightings()
    it.state("cart:0", VIEW, "10.0.0.1")
    clock.now += 2.9
    assert told(it)
    clock.now += 0.2
    assert not told(it), "its interval is not known yet"
    it.state("cart:0", VIEW, "10.0.0.1")
    clock.now += 9.0
    assert told(it), "it was seen after 3.1 s"
    clock.now += 0.5
    assert not told(it)


def test_one_that_asks_as_an_agent_obeys_when_it_was_told_twice(clock: Clock) -> None:
    it = Sightings()
    it.poll("cart:0", "10.0.0.1", ready=True)
    assert told(it) == {"at 10.0.0.1": (True, None, False)}
    it.poll("cart:0", "10.0.0.1", ready=False)
    assert told(it)["at 10.0.0.1"][0], "another one of that address may not have asked yet"
    it.poll("cart:0", "10.0.0.1", ready=False)
    assert not told(it)["at 10.0.0.1"][0]
    it.poll("cart:0", "10.0.0.1", ready=True)
    assert told(it)["at 10.0.0.1"][0]


def test_one_that_does_both_counts_once(clock: Clock) -> None:
    it = Sightings()
    it.poll("cart:0", "10.0.0.1", ready=True)
    it.state("cart:0", VIEW, "10.0.0.1")
    it.poll("cart:0", "10.0.0.2", ready=True)
    assert told(it).keys() == {"gw-1", "at 10.0.0.2"}


def test_several_servers_of_one_gateway_count_each(clock: Clock) -> None:
    it = Sightings()
    it.state("cart:0", VIEW, "10.0.0.1")
    it.state("cart:0", replace(VIEW, name="other/cart:0", sends=False), "10.0.0.1")
    assert sorted((item.gateway, item.sends) for item in it.of("cart:0")) == [("gw-1", False), ("gw-1", True)]


def test_of_more_gateways_than_anybody_has_the_ones_silent_for_longest_are_forgotten(clock: Clock) -> None:
    it = Sightings()
    for number in range(MAX_GATEWAYS + 5):
        clock.now += 0.001
        it.state("cart:0", replace(VIEW, node=f"gw-{number}"), "10.0.0.1")
    assert told(it).keys() == {f"gw-{number}" for number in range(5, MAX_GATEWAYS + 5)}


def test_a_unit_that_was_removed_is_forgotten(clock: Clock) -> None:
    it = Sightings()
    it.state("cart:0", VIEW, "10.0.0.1")
    it.forget("cart:0")
    it.forget("cart:9")
    assert it.of("cart:0") == []
