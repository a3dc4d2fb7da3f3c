"""Reports of gateways: what is evidence, what is not, and how much may be done about it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.end_to_end.fleet.center import Center, explain
from tests.end_to_end.fleet.nodes import ALONE, LIGHT, Fleet, more_lives
from tests.end_to_end.host import Json
from tests.end_to_end.machine import until

pytestmark = pytest.mark.timeout(60)

COUNT = 4
SERVICES = ("cart", "stock", "pay")
SOLO = "solo"  # that only one gateway sends to
SETTINGS = LIGHT + "stopwaitsecs = 0.5\nreadiness = { tcp = true, period = 0.3 }\n"
# The kernel accepts connections for a process that is stopped: nobody on the node sees that it is dead.
BLIND = LIGHT + "stopwaitsecs = 0.5\nreadiness = { tcp = true, period = 5 }\nliveness = { tcp = true, period = 5 }\n"
GUARD = """
[nodes]
heartbeat_seconds = 0.5
[guard]
window_seconds = 20
service_per_minute = 0.05
service_burst = 1
"""


@pytest.fixture(scope="module")
def center() -> Iterator[Center]:
    """One restart of a service, and then none for twenty minutes."""
    center = Center()
    center.configure(more=GUARD)
    center.run()
    yield center
    center.close()


@pytest.fixture(scope="module")
def whole(center: Center) -> Iterator[Fleet]:
    fleet = Fleet(center, COUNT)
    settings = {**dict.fromkeys((*SERVICES, SOLO), SETTINGS), "stock": BLIND}
    fleet.configure(settings, command=ALONE, settings=settings)
    try:
        fleet.run()
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def fleet(whole: Fleet) -> Fleet:
    for service in (*SERVICES, SOLO):
        whole.until_warm(service)
    return whole


def report(center: Center, gateway: str, *entries: Json, state: str = "dead") -> None:
    """What a gateway that sends to all of them says of some."""
    said = [
        {
            "service": entry["service"], "instance": entry["instance"], "generation": entry["generation"],
            "symptom": "connect_timeout", "count": 3, "state": state, "backends": COUNT * len(SERVICES),
            "service_backends": COUNT, "first_seen": datetime.now(UTC).isoformat(),
        }
        for entry in entries
    ]  # fmt: skip
    answer = center.ask("POST", "/v1/reports", {"gateway": gateway, "reports": said})
    assert answer.status == 202 and answer.json["accepted"] == len(said), answer


def entry_of(center: Center, instance: str) -> Json:
    (entry,) = [each for each in center.entries(instance.partition("/")[2]) if each["instance"] == instance]
    return entry


def decided(center: Center, instance: str, verdict: str, rule: str, after: int = 0) -> Json:
    """The decision about an instance, as soon as there is such a one."""

    def look() -> Json:
        found = [each for each in center.decisions(instance=instance) if each["id"] > after]
        return next((each for each in found if (each["verdict"], each["rule"]) == (verdict, rule)), None)

    try:
        return until(f"{verdict} for {rule} of {instance}", look)
    except AssertionError as error:
        made = [
            (each["id"], each["verdict"], each["rule"], each["reason"]) for each in center.decisions(instance=instance)
        ]
        raise AssertionError(f"{error}; decided was: {made}") from error


def freeze(fleet: Fleet, instance: str) -> int:
    """From now on it answers nobody, and its node does not see it."""
    node, _, unit = instance.partition("/")
    pid = int(fleet.host(node).unit(unit)["pid"])
    os.kill(pid, signal.SIGSTOP)
    return pid


def guards(center: Center) -> list[Json]:
    """Operations that the guard has begun."""
    return [each for each in center.get("/v1/operations?limit=200")["operations"] if each["cause"] == "guard"]


def test_a_gateway_that_accuses_everything_is_not_believed(center: Center, fleet: Fleet) -> None:
    """It is its own network that is cut; another gateway complains of one instance here and there."""
    before, known = fleet.lives(), len(guards(center))
    entries = [entry for service in SERVICES for entry in center.entries(service)]
    assert len(entries) == COUNT * len(SERVICES)
    first = [entry for entry in entries if entry["node"] == "n0"]
    report(center, "gw-1", *first)
    for entry in first:
        decided(center, entry["instance"], "refuse", "gateway_path_problem")
    report(center, "gw-cut", *entries)
    others = [entry["instance"] for entry in entries if entry not in first]
    decisions = [decided(center, instance, "refuse", "reporter") for instance in others]
    for decision in decisions:
        assert "gw-cut accuses 12 of 12 backends" in decision["reason"]
        assert decision["evidence"]["node"]["word"] == "healthy" and decision["operation"] is None
        assert center.get(f"/v1/decisions/{decision['id']}") == decision
    told = center.ask("GET", "/v1/events?since=0&follow=0").body.decode()
    assert "event: gateway" in told and "event: decision" in told
    assert fleet.lives() == before and len(guards(center)) == known
    for gateway in ("gw-1", "gw-cut"):
        report(center, gateway, *entries, state="cleared")


def test_a_service_that_the_only_gateway_finds_dead_is_left_alone_until_that_is_over(
    center: Center, fleet: Fleet
) -> None:
    """There is nobody to doubt it by: something else must be at fault where so much is dead."""
    before, known, entries = fleet.lives(), len(guards(center)), center.entries(SOLO)
    report(center, "gw-solo", *entries)
    for entry in entries:
        decision = decided(center, entry["instance"], "refuse", "self_preservation")
        assert "4 of 4 instances of solo look dead" in decision["reason"]
    until("the service is shown as frozen", lambda: center.get(f"/v1/services/{SOLO}")["frozen"])
    assert fleet.lives() == before and len(guards(center)) == known
    report(center, "gw-solo", *entries, state="cleared")
    until("it is let go of", lambda: not center.get(f"/v1/services/{SOLO}")["frozen"])


def test_one_gateway_that_the_node_contradicts_has_a_problem_on_its_path(center: Center, fleet: Fleet) -> None:
    before, known = fleet.lives(), len(guards(center))
    report(center, "gw-1", entry_of(center, "n3/pay"))
    decision = decided(center, "n3/pay", "refuse", "gateway_path_problem")
    assert "its node finds it healthy" in decision["reason"]
    assert fleet.lives() == before and len(guards(center)) == known
    report(center, "gw-1", entry_of(center, "n3/pay"), state="cleared")


def test_a_dead_unit_is_restarted_once_and_the_next_waits_for_the_budget_over_the_centers_death(
    center: Center, fleet: Fleet
) -> None:
    before = fleet.lives()
    freeze(fleet, "n1/stock")
    dead = entry_of(center, "n1/stock")
    report(center, "gw-1", dead)
    report(center, "gw-2", dead)
    decision = decided(center, "n1/stock", "restart", "quorum")
    order = until("it was ordered", lambda: center.get(f"/v1/decisions/{decision['id']}")["operation"])
    ended = center.follow(order)
    assert ended["state"] == "succeeded" and ended["cause"] == "guard", explain(ended)
    report(center, "gw-2", dead)
    report(center, "gw-1", dead, entry_of(center, "n3/stock"))
    decided(center, "n3/stock", "refuse", "gateway_path_problem", after=decision["id"])
    report(center, "gw-1", entry_of(center, "n3/stock"), state="cleared")
    assert center.decisions(instance="n1/stock")[0] == center.get(f"/v1/decisions/{decision['id']}"), (
        "that is the answer"
    )
    fleet.until_warm("stock")
    assert more_lives(before, fleet.lives()) == {"n1/stock": 1}

    pid = freeze(fleet, "n2/stock")
    try:
        waiting = wait_for_budget(center, after=decision["id"])
        assert "service stock" in waiting["reason"]
        center.kill()
        center.run()
        fleet.until_warm("stock")
        for gateway in ("gw-1", "gw-2"):  # else these would be the reports that have their answer
            report(center, gateway, entry_of(center, "n2/stock"), state="cleared")
        wait_for_budget(center, after=waiting["id"])
        assert more_lives(before, fleet.lives()) == {"n1/stock": 1}
        assert [each["id"] for each in guards(center)] == [order]
    finally:
        os.kill(pid, signal.SIGCONT)


def wait_for_budget(center: Center, after: int) -> Json:
    """Two gateways report the second dead unit, and nothing is left for it."""
    dead = entry_of(center, "n2/stock")
    for gateway in ("gw-1", "gw-2"):
        report(center, gateway, dead)
    return decided(center, "n2/stock", "wait", "budget_service", after)
