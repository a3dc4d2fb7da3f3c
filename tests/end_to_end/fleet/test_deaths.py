"""Daemons of nodes are killed between the acceptance of a command and its work, at one moment after the other."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.fleet.center import Center, explain
from tests.end_to_end.fleet.nodes import ALONE, EXPIRING, LIGHT, Fleet, more_lives
from tests.end_to_end.host import Host, Json
from tests.end_to_end.killed.mortal import MORTAL, PLAN, TRACE
from tests.end_to_end.machine import until

pytestmark = pytest.mark.timeout(60)

COUNT = 5
SETTINGS = {"cart": LIGHT, "stock": EXPIRING}  # both ways to leave the registry
# Before and after which record of the journal, counted from when the command is on its way. The first one of a command
# is written before its 202.
MOMENTS = (
    [("before", 1), ("after", 1), ("before", 2), ("after", 2), ("after", 3)],
    [("before", 3), ("before", 4), ("after", 4), ("before", 5), ("after", 5)],
)


@pytest.fixture(scope="module")
def center() -> Iterator[Center]:
    center = Center(ttl_seconds=1.5)
    center.configure()
    center.run()
    yield center
    center.close()


@pytest.fixture(scope="module")
def whole(center: Center) -> Iterator[Fleet]:
    """Nodes that die where their plan says."""
    fleet = Fleet(center, COUNT)
    fleet.configure(SETTINGS, command=ALONE, settings=SETTINGS)
    try:
        fleet.each(run_mortal)
        yield fleet
    finally:
        for host in fleet.hosts:
            plan_of(host).unlink(missing_ok=True)
        fleet.close()


@pytest.fixture
def fleet(whole: Fleet) -> Fleet:
    """All of it at full weight."""
    for service in SETTINGS:
        whole.until_warm(service)
    return whole


def plan_of(host: Host) -> Path:
    return host.folder / "plan"


def run_mortal(host: Host) -> None:
    host.run(program=MORTAL, environment={PLAN: str(plan_of(host)), TRACE: str(host.folder / "trace")})


def plan_death(host: Host, side: str, number: int, name: str) -> None:
    new = host.folder / "plan.new"
    new.write_text(json.dumps([name, number, side]))
    new.rename(plan_of(host))


def see_dead_and_run_again(host: Host) -> None:
    """It dies of its plan, and comes back without one."""
    assert host.wait(30.0) == -signal.SIGKILL, host.said()
    plan_of(host).unlink()
    run_mortal(host)


def knew_when_it_died(host: Host, command_id: str) -> bool:
    """Its journal had the command before the daemon began anew."""
    words = (host.folder / "trace").read_text()
    last_life = words.rindex("('state', 'life'")
    return command_id in words[:last_life]


def assert_lives(fleet: Fleet, operation: Json, more: dict[str, int]) -> None:
    """A daemon that begins anew replaces what an earlier one has left.

    That is the command's restart where its journal has the command. Else that comes after it, or arrives in the middle
    of it and finds it done.
    """
    known = {
        target["instance"]: knew_when_it_died(fleet.host(target["node"]), target["command_id"])
        for target in operation["targets"]
    }
    assert any(known.values()) and more.keys() == known.keys()
    assert all(more[instance] == 1 if knew else more[instance] in (1, 2) for instance, knew in known.items()), (
        more,
        known,
    )


def assert_one_command_each(fleet: Fleet, operation: Json) -> None:
    """Every node has its command once in its journal, ended well."""
    for target in operation["targets"]:
        answer = fleet.host(target["node"]).ask("GET", f"/v1/operations?command_id={target['command_id']}")
        assert [item["state"] for item in answer.json["operations"]] == ["succeeded"], (target, answer)


@pytest.mark.parametrize("service", SETTINGS)
@pytest.mark.parametrize("moments", MOMENTS, ids=["early", "late"])
def test_a_command_is_carried_out_once_wherever_the_daemon_was_killed(
    center: Center, fleet: Fleet, service: str, moments: list[tuple[str, int]]
) -> None:
    """Each node dies at another moment, from before its journal has the command to the middle of the work."""
    before = fleet.lives(service)
    for host, (side, number) in zip(fleet.hosts, moments, strict=True):
        plan_death(host, side, number, f"{service} {side} {number}")
    begun = center.begin("restart", {"services": [service]}, strategy=None)
    fleet.each(see_dead_and_run_again)
    ended = center.follow(begun["id"])
    assert ended["state"] == "succeeded", explain(ended)
    assert_lives(fleet, ended, more_lives(before, fleet.lives(service)))
    assert_one_command_each(fleet, ended)


def test_daemons_that_die_as_soon_as_they_have_answered_do_it_once(center: Center, fleet: Fleet) -> None:
    """The center knows that they have the command: it only has to be followed, not to be given again."""
    before = fleet.lives("cart")
    begun = center.begin("restart", {"services": ["cart"]}, strategy=None)
    targets = {target["node"]: target for target in begun["targets"]}

    def kill_when_accepted(host: Host) -> None:
        path = f"/v1/operations?command_id={targets[fleet.names[fleet.hosts.index(host)]]['command_id']}"
        until("it has the command", lambda: host.ask("GET", path).status == 200)
        host.signal(signal.SIGKILL)
        host.wait()
        run_mortal(host)

    fleet.each(kill_when_accepted)
    ended = center.follow(begun["id"])
    assert ended["state"] == "succeeded", explain(ended)
    assert more_lives(before, fleet.lives("cart")) == dict.fromkeys(before, 1)
    assert_one_command_each(fleet, ended)
