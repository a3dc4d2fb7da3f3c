"""Units that are restarted one after the other behind Envoy, as the restart agent does it, cost nobody a request."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.end_to_end.machine import until
from tests.servers.envoy import Envoy

from .conftest import Feed
from .scene import Fed, Load, Unit, server

pytestmark = pytest.mark.real


def _restart(fed: Fed, units: list[Unit], unit: Unit, *, announced: bool) -> None:
    """Out of the pool, stopped when Envoy has acknowledged and nothing is open, started, into the pool with little weight."""
    others = [server(each) for each in units if each is not unit]
    if announced:
        fed.apply(*others, server(unit, draining=True))
    fed.apply(*others)
    until("nothing is open there", lambda: (view := fed.view(unit)) is None or view.in_flight == 0)
    unit.kill()
    unit.launch()
    unit.wait()
    for weight in (10, 100):
        fed.apply(*others, server(unit, weight=weight))


@pytest.mark.parametrize("announced", [True, False], ids=["drained first", "deregistered at once"])
def test_a_rolling_restart_costs_no_request(
    start_envoy: Callable[..., Envoy], units: list[Unit], feed: Feed, announced: bool
) -> None:
    """Envoy tries nothing again here: what reaches a stopping unit fails visibly. Some requests are slow, half are POST."""
    envoy = start_envoy(retries=0)
    fed = feed(envoy)
    fed.apply(*map(server, units))
    with Load(envoy.port, clients=6) as fast, Load(envoy.port, clients=4, path="/slow/0.2") as slow:
        for unit in units:
            fast.goes_on()
            _restart(fed, units, unit, announced=announced)
        fast.goes_on()
    assert set(fast.statuses) == {200}
    assert set(slow.statuses) == {200}
    assert set(fast.by_port) == {str(unit.port) for unit in units}
