"""A node that nobody can connect to: it fetches its commands from the center."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.end_to_end.fleet.center import Center, explain
from tests.end_to_end.fleet.nodes import ALONE, LIGHT, Fleet, more_lives
from tests.end_to_end.host import Json
from tests.end_to_end.machine import until

pytestmark = pytest.mark.timeout(60)

STUBBORN = LIGHT + "stopsignal = 'WINCH'\nstopwaitsecs = 1\n"  # it takes a second to end


@pytest.fixture(scope="module")
def center() -> Iterator[Center]:
    center = Center()
    center.configure(more="[nodes]\nheartbeat_seconds = 0.3\n")
    center.run()
    yield center
    center.close()


@pytest.fixture(scope="module")
def fleet(center: Center) -> Iterator[Fleet]:
    """One node without an HTTP API."""
    fleet = Fleet(center, 1)
    fleet.configure(
        ["cart"], command=ALONE, settings=STUBBORN, more=f'[center]\nurl = "{center.url}"\n', is_reached=False
    )
    try:
        fleet.run(["cart"])
        yield fleet
    finally:
        fleet.close()


def known(fleet: Fleet, operation: Json) -> list[Json]:
    """The node's operations for the one command of an operation."""
    answer = fleet.hosts[0].ask("GET", f"/v1/operations?command_id={operation['targets'][0]['command_id']}")
    return list(answer.json["operations"]) if answer.status == 200 else []


def test_a_restart_reaches_a_node_that_only_connects_outwards(center: Center, fleet: Fleet) -> None:
    until("its heartbeats are heard", lambda: center.get("/v1/nodes/n0")["state"] == "up")
    assert center.get("/v1/nodes/n0")["via"] == "pull"
    before = fleet.lives()
    ended = center.do("restart", {"nodes": ["n0"]}, strategy=None)
    assert more_lives(before, fleet.lives()) == {"n0/cart": 1}
    assert [item["state"] for item in known(fleet, ended)] == ["succeeded"]
    until("its units are shown as its heartbeat tells them", lambda: _units(center) == {"cart": "RUNNING"})


def _units(center: Center) -> dict[str, str]:
    return {status["unit"]: status["state"] for status in center.get("/v1/nodes/n0/units")["units"]}


@pytest.mark.parametrize("dies", ["center", "daemon", "both"])
def test_a_restart_is_carried_out_once_whoever_is_killed_in_between(center: Center, fleet: Fleet, dies: str) -> None:
    """The center hosts the registry: its memory dies with it, too."""
    before, host = fleet.lives(), fleet.hosts[0]
    begun = center.begin("restart", {"nodes": ["n0"]}, strategy=None)
    until("the node has the command", lambda: known(fleet, begun))
    if dies in ("daemon", "both"):
        host.signal(signal.SIGKILL)
        host.wait()
    if dies in ("center", "both"):
        center.kill()
        center.run()
    if dies in ("daemon", "both"):
        host.run()
    ended = center.follow(begun["id"])
    assert ended["state"] == "succeeded", explain(ended)
    assert more_lives(before, fleet.lives()) == {"n0/cart": 1}
    assert [item["state"] for item in known(fleet, ended)] == ["succeeded"]
    fleet.until_warm("cart")


def test_a_command_waits_for_a_node_that_is_away_while_the_center_is_killed(center: Center, fleet: Fleet) -> None:
    before, host = fleet.lives(), fleet.hosts[0]
    host.signal(signal.SIGSTOP)
    try:
        begun = center.begin("restart", {"nodes": ["n0"]}, strategy=None)
        center.until_operation(begun["id"], "it is on its way", lambda each: each["targets"][0]["state"] == "sent")
        center.kill()
        center.run()
    finally:
        host.signal(signal.SIGCONT)
    ended = center.follow(begun["id"])
    assert ended["state"] == "succeeded", explain(ended)
    assert more_lives(before, fleet.lives()) == {"n0/cart": 1}
    assert [item["state"] for item in known(fleet, ended)] == ["succeeded"]
