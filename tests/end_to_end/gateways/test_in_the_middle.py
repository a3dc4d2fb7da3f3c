"""A gateway, unit-gateway or the registry is reloaded, killed or started anew in the middle of a rolling restart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.load import Mix, Request
from bench.load_account import Spell
from tests.end_to_end.fleet.center import Center
from tests.end_to_end.gateways.conftest import opened
from tests.end_to_end.gateways.kinds import HaproxyStage, NginxStage
from tests.end_to_end.gateways.scenario import Play, wait_for_requests
from tests.end_to_end.gateways.stage import Stage
from tests.end_to_end.machine import until

pytestmark = [pytest.mark.timeout(90), pytest.mark.real]

RATE = 120.0
MIX = Mix(slow=0.1, echo=0.1, kept=0.5, slow_seconds=0.25)
AWAY_SECONDS = 2.5  # longer than a ttl


@pytest.fixture(scope="module")
def center() -> Iterator[Center]:
    """It hosts the registry."""
    made = Center()
    made.configure()
    made.run()
    yield made
    made.close()


@pytest.fixture
def follower(center: Center) -> Iterator[Stage]:
    """A gateway that follows the center's registry, and units that are listed there."""
    with opened(HaproxyStage, registry_url=center.url) as stage:
        yield stage


def restarted_while(play: Play, meanwhile: Callable[[], None]) -> None:
    """All units are restarted one after another; when the second one is on its way, something else happens."""
    first = play.stage.host.pids()
    with ThreadPoolExecutor(1) as pool:
        restart = pool.submit(play.rolling_restart)
        until("one unit has been restarted", lambda: play.stage.host.pids() != first or restart.done())
        wait_for_requests(play.load, 20)
        meanwhile()
        restart.result()


def test_a_gateway_is_reloaded_and_started_anew_in_the_middle_of_a_rolling_restart(reloadable: Stage) -> None:
    """All that fails is what was with the gateway when it ended, or came while it was away."""
    assert isinstance(reloadable, HaproxyStage | NginxStage)
    away = Spell("", "", 0.0, 0.0)

    def work(play: Play) -> None:
        def reload_and_restart() -> None:
            nonlocal away
            for _ in range(2):
                reloadable.server.reload()
                wait_for_requests(play.load, 60)
            begun = time.time()
            reloadable.server.restart()
            away = Spell("gateway", "away", begun, time.time())

        restarted_while(play, reload_and_restart)

    def was_with_it(request: Request) -> bool:
        return request.intended <= away.ended and request.ended >= away.begun

    played = Play(reloadable, RATE, MIX).run(work)

    assert not played.explained(was_with_it), reloadable.explain()


@pytest.mark.parametrize("reloadable", ["haproxy"], indirect=True)
def test_unit_gateway_is_killed_in_the_middle_of_a_rolling_restart(reloadable: Stage) -> None:
    """Its gateway goes on with what it knows; no unit is ended that is still sent to."""
    unit_gateway = reloadable.unit_gateway
    assert unit_gateway is not None

    def work(play: Play) -> None:
        def kill() -> None:
            unit_gateway.kill()
            wait_for_requests(play.load, int(AWAY_SECONDS * RATE))
            unit_gateway.run()

        restarted_while(play, kill)

    played = Play(reloadable, RATE, MIX).run(work)

    assert not played.explained(), reloadable.explain()


def test_the_registry_is_killed_in_the_middle_of_a_rolling_restart(center: Center, follower: Stage) -> None:
    """It comes back empty; nothing is taken from a pool because of that, and the restart goes on.

    A unit that was on its way out meanwhile is drained until the gateway believes the new registry.
    """

    def work(play: Play) -> None:
        def kill() -> None:
            center.kill()
            wait_for_requests(play.load, int(AWAY_SECONDS * RATE))
            center.run()

        restarted_while(play, kill)

    played = Play(follower, RATE, MIX).run(work)

    assert not played.explained(), follower.explain()
