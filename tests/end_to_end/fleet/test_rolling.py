"""Rolling restarts of a fleet: 8 daemons, 3 services of 8 instances, under load that follows the registry."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.end_to_end.fleet.center import Center, explain
from tests.end_to_end.fleet.nodes import EXPIRING, QUICK, Fleet, more_lives
from tests.end_to_end.fleet.watching import watched

pytestmark = pytest.mark.timeout(120)

SERVICES = ("cart", "stock", "pay")
SETTINGS = {"cart": QUICK, "stock": EXPIRING, "pay": QUICK}  # both ways to leave the registry
COUNT = 8
FLOOR = 75
ROLLING = {"batch": "25%", "canary": 1, "bake_seconds": 0.5, "floor_percent": FLOOR, "by_zone": True}


@pytest.fixture(scope="module")
def center() -> Iterator[Center]:
    """It hosts the registry."""
    center = Center()
    center.configure()
    center.run()
    yield center
    center.close()


@pytest.fixture(scope="module")
def fleet(center: Center) -> Iterator[Fleet]:
    """All nodes, with everything at full weight."""
    fleet = Fleet(center, COUNT)
    fleet.configure(SERVICES, settings=SETTINGS)
    try:
        fleet.run(SERVICES)
        yield fleet
    finally:
        fleet.close()


def assert_restarted_once(fleet: Fleet, before: dict[str, int]) -> None:
    """Every unit has exactly one more life behind it, as its own program says."""
    assert more_lives(before, fleet.lives()) == dict.fromkeys(before, 1)


def test_three_services_are_restarted_at_once_without_a_failed_request_and_above_their_floors(
    center: Center, fleet: Fleet
) -> None:
    before = fleet.lives()
    with watched(center.url, SERVICES) as outside:
        begun = [center.begin("restart", {"services": [service]}, strategy=ROLLING) for service in SERVICES]
        ended = [center.follow(operation["id"]) for operation in begun]
    assert [operation["state"] for operation in ended] == ["succeeded"] * 3, "\n".join(map(explain, ended))
    assert not outside.failures(), (outside.failures(), outside.count())
    assert outside.count() > 500
    full = COUNT * 100
    lowest = {service: outside.lowest(service) * 100 / full for service in SERVICES}
    assert min(lowest.values()) >= FLOOR, lowest
    assert max(lowest.values()) < 100, "nothing was seen to leave"
    assert_restarted_once(fleet, before)


def test_a_killed_center_goes_on_where_it_was_and_nothing_happens_twice(center: Center, fleet: Fleet) -> None:
    """The registry's memory dies with it: units keep serving whom they know, and register again."""
    before = fleet.lives()
    begun = [center.begin("restart", {"services": [service]}, strategy=ROLLING) for service in SERVICES]
    for wanted in (2, 9, 15):
        center.until_operation(
            begun[0]["id"], "some are under way",
            lambda _, wanted=wanted: _done(center, begun) >= wanted,
        )  # fmt: skip
        center.kill()
        time.sleep(0.2)  # away for a moment, as it would be
        center.run()
    ended = [center.follow(operation["id"]) for operation in begun]
    assert [operation["state"] for operation in ended] == ["succeeded"] * 3, "\n".join(map(explain, ended))
    assert_restarted_once(fleet, before)
    ids = Counter(target["command_id"] for operation in ended for target in operation["targets"])
    assert len(ids) == 3 * COUNT
    assert max(operation["epoch"] for operation in ended) == 4


def _done(center: Center, begun: list[dict[str, object]]) -> int:
    operations = [center.operation(str(operation["id"])) for operation in begun]
    return sum(operation["counts"].get("succeeded", 0) for operation in operations)
