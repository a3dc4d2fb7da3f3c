"""A unit dies or freezes behind a gateway: the gateway reports it, the center decides, its node restarts it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from bench.load import Mix
from tests.end_to_end.fleet.center import Center
from tests.end_to_end.gateways.deaths import DECIDED, FULL, REPORTED, Death, center_for_deaths, deadly, die
from tests.end_to_end.gateways.kinds import HaproxyStage
from tests.end_to_end.gateways.scenario import Play
from tests.end_to_end.gateways.stage import Stage

pytestmark = [pytest.mark.timeout(90), pytest.mark.real]

RATE = 120.0
MIX = Mix(slow=0.05, echo=0.1, kept=0.5, slow_seconds=0.4)


@pytest.fixture(scope="module")
def center() -> Iterator[Center]:
    """It acts on one gateway's word, where the node does not contradict."""
    made = center_for_deaths()
    made.run()
    yield made
    made.close()


@pytest.fixture(scope="module")
def stage(center: Center) -> Iterator[Stage]:
    """Units with a probe, behind a gateway that looks at them."""
    with deadly(HaproxyStage, center) as made:
        yield made


def one_death(stage: Stage, center: Center, number: int, how: signal.Signals) -> Death:
    deaths: list[Death] = []
    Play(stage, RATE, MIX).run(lambda play: deaths.append(die(play, center, number, how)))
    return deaths[0]


def test_a_frozen_unit_is_restarted_because_its_gateway_reports_it(stage: Stage, center: Center) -> None:
    death = one_death(stage, center, 1, signal.SIGSTOP)

    assert death.moments.keys() >= {REPORTED, DECIDED, FULL}, death
    assert death.rule in ("node_agrees", "single_gateway")
    assert death.moments[REPORTED] < death.moments[FULL] and death.moments[DECIDED] < death.moments[FULL]


def test_a_killed_unit_costs_no_more_than_what_it_was_asked_before_anybody_could_see_it(
    stage: Stage, center: Center
) -> None:
    death = one_death(stage, center, 2, signal.SIGKILL)

    assert FULL in death.moments
    before = [request for request in death.failures if request.intended <= death.at]
    assert len(death.failures) - len(before) <= RATE * 0.5, [request.failure for request in death.failures]
