"""Operations that do not simply go through: a canary that fails, people who intervene, nodes that are away."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.end_to_end.fleet.center import Center, explain
from tests.end_to_end.fleet.nodes import ALONE, LIGHT, Fleet, more_lives
from tests.end_to_end.host import Json
from tests.end_to_end.machine import until

pytestmark = pytest.mark.timeout(60)

NODES = ("n0", "n1", "n2", "n3")
ALL = {f"{node}/cart" for node in NODES}
SETTINGS = LIGHT + "start_timeout = 1\nstartretries = 0\n"
ONE_BY_ONE = {"batch": "1", "canary": 0, "bake_seconds": 0, "floor_percent": 50, "by_zone": False}
CANARY = {**ONE_BY_ONE, "batch": "100%", "canary": 1}
NEVER_READY = "/bin/sleep 1000"
QUIET_SECONDS = 0.7  # for which what must not happen is waited for


@pytest.fixture(scope="module")
def center() -> Iterator[Center]:
    """An entry of it outlives a daemon for long enough to be chosen."""
    center = Center(ttl_seconds=2.0)
    center.configure()
    center.run()
    yield center
    center.close()


@pytest.fixture(scope="module")
def whole(center: Center) -> Iterator[Fleet]:
    fleet = Fleet(center, len(NODES))
    fleet.configure(["cart"], command=ALONE, settings=SETTINGS)
    try:
        fleet.run()
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def fleet(whole: Fleet) -> Fleet:
    """All of it at full weight, whatever the test before did."""
    whole.until_warm("cart")
    return whole


def done(operation: Json) -> set[str]:
    return {target["instance"] for target in operation["targets"] if target["state"] == "succeeded"}


def in_state(operation: Json, state: str) -> set[str]:
    return {target["instance"] for target in operation["targets"] if target["state"] == state}


def ask(center: Center, id_: str, what: str) -> None:
    answer = center.ask("POST", f"/v1/operations/{id_}/{what}", {"reason": "a test"})
    assert answer.status == 200, answer


def counted(number: int) -> Callable[[Json], bool]:
    """So many targets are done."""
    return lambda operation: len(done(operation)) >= number


# Canaries.


def test_a_new_version_that_never_gets_ready_stops_at_the_canary(center: Center, fleet: Fleet) -> None:
    before = fleet.lives()
    fleet.configure(["cart"], command=NEVER_READY, settings=SETTINGS)
    try:
        begun = center.begin("apply", {"services": ["cart"]}, strategy={**CANARY, "target_seconds": 20})
        ended = center.follow(begun["id"])
        others = [host.unit("cart")["state"] for host in fleet.hosts[1:]]
        entries = {entry["instance"] for entry in center.entries("cart")}
    finally:
        fleet.configure(["cart"], command=ALONE, settings=SETTINGS)
        center.do("apply", {"nodes": list(NODES)}, strategy=None)
    assert ended["state"] == "failed" and "n0: cart: cannot start: was not ready" in ended["error"], explain(ended)
    assert in_state(ended, "failed") == {"n0"} and in_state(ended, "skipped") == {"n1", "n2", "n3"}
    assert ended["batches"][0]["state"] == "failed"
    assert others == ["RUNNING"] * 3 and entries == ALL - {"n0/cart"}
    fleet.until_warm("cart")
    assert more_lives(before, fleet.lives()) == {"n0/cart": 1}, "for the others nothing has changed"


def test_a_canary_that_dies_while_it_bakes_stops_the_operation(center: Center, fleet: Fleet) -> None:
    before = fleet.lives()
    begun = center.begin("restart", {"services": ["cart"]}, strategy={**CANARY, "bake_seconds": 60})
    baking = center.until_operation(
        begun["id"], "the canary bakes", lambda operation: operation["batches"][0]["state"] == "baking"
    )
    (canary,) = done(baking)
    pid = fleet.host(canary.partition("/")[0]).unit("cart")["pid"]
    os.kill(pid, signal.SIGKILL)
    ended = center.follow(begun["id"], 30)
    assert ended["state"] == "failed" and "did not stay well" in ended["error"], explain(ended)
    assert in_state(ended, "skipped") == ALL - {canary}
    fleet.until_warm("cart")
    assert more_lives(before, fleet.lives()) == {canary: 2}


# People.


def test_a_pause_holds_until_somebody_resumes(center: Center, fleet: Fleet) -> None:
    before = fleet.lives()
    begun = center.begin("restart", {"services": ["cart"]}, strategy=ONE_BY_ONE)
    center.until_operation(begun["id"], "one is done", counted(1))
    ask(center, begun["id"], "pause")
    paused = center.until_operation(
        begun["id"], "it is paused, and nothing is in work",
        lambda operation: operation["state"] == "paused"
        and in_state(operation, "succeeded") | in_state(operation, "pending") == ALL,
    )  # fmt: skip
    lives = fleet.lives()
    assert more_lives(before, lives) == dict.fromkeys(done(paused), 1) and done(paused) < ALL
    center.kill()
    center.run()
    time.sleep(QUIET_SECONDS + 1.5 * center.ttl_seconds)
    still = center.operation(begun["id"])
    assert (still["state"], done(still)) == ("paused", done(paused)), "also after the death of the center"
    assert fleet.lives() == lives
    ask(center, begun["id"], "resume")
    ended = center.follow(begun["id"])
    assert ended["state"] == "succeeded", explain(ended)
    assert more_lives(before, fleet.lives()) == dict.fromkeys(ALL, 1)


def test_an_abort_ends_what_was_begun_and_begins_nothing_more(center: Center, fleet: Fleet) -> None:
    before = fleet.lives()
    begun = center.begin("restart", {"services": ["cart"]}, strategy=ONE_BY_ONE)
    center.until_operation(begun["id"], "one is done", counted(1))
    ask(center, begun["id"], "abort")
    ended = center.follow(begun["id"])
    assert ended["state"] == "aborted", explain(ended)
    assert done(ended) | in_state(ended, "skipped") == ALL and in_state(ended, "skipped")
    time.sleep(QUIET_SECONDS)
    assert more_lives(before, fleet.lives()) == dict.fromkeys(done(ended), 1)
    refused = center.ask("POST", f"/v1/operations/{begun['id']}/resume", {"reason": "a test"})
    assert (refused.status, refused.json["code"]) == (409, "done")


def test_a_service_that_is_busy_is_not_taken_twice(center: Center, fleet: Fleet) -> None:
    begun = center.begin("restart", {"services": ["cart"]}, strategy={**CANARY, "bake_seconds": 60})
    refused = center.ask(
        "POST", "/v1/operations", {"verb": "stop", "selection": {"instances": ["n1/cart"]}, "reason": ""}
    )
    assert (refused.status, refused.json["code"]) == (409, "busy")
    assert (refused.json["operation"], refused.json["service"]) == (begun["id"], "cart")
    ask(center, begun["id"], "abort")
    assert center.follow(begun["id"])["state"] == "aborted"


# Nodes that are away.


class Away:
    """A node that neither answers nor tells anybody that it is alive."""

    def __init__(self, fleet: Fleet, node: str) -> None:
        self._host = fleet.host(node)

    def __enter__(self) -> None:
        self._host.signal(signal.SIGSTOP)

    def __exit__(self, *_: Any) -> None:
        self._host.signal(signal.SIGCONT)


def test_what_a_node_was_not_told_before_the_deadline_is_never_carried_out(center: Center, fleet: Fleet) -> None:
    """The command may be in the daemon's socket already: it is too late for it when the daemon reads it."""
    before = fleet.lives()
    with Away(fleet, "n3"):
        begun = center.begin("restart", {"instances": ["n3/cart"]}, strategy=None, deadline_seconds=1)
        until("the deadline has passed", lambda: time.time() > deadline_of(begun))
    ended = center.follow(begun["id"])
    assert ended["state"] == "expired", explain(ended)
    assert in_state(ended, "expired") == {"n3/cart"}
    fleet.until_warm("cart")
    time.sleep(QUIET_SECONDS)
    assert fleet.lives() == before
    assert fleet.host("n3").ask("GET", f"/v1/operations?command_id={ended['targets'][0]['command_id']}").status == 404


def deadline_of(operation: Json) -> float:
    return datetime.fromisoformat(operation["deadline"]).timestamp()


def test_a_daemon_that_is_dead_until_after_the_deadline_does_nothing(center: Center, fleet: Fleet) -> None:
    before, host = fleet.lives(), fleet.host("n3")
    host.signal(signal.SIGKILL)
    host.wait()
    begun = center.begin("restart", {"instances": ["n3/cart"]}, strategy=None, deadline_seconds=1)
    ended = center.follow(begun["id"])
    assert ended["state"] == "expired" and "never reached" in ended["targets"][0]["detail"], explain(ended)
    host.run()
    fleet.until_warm("cart")
    time.sleep(QUIET_SECONDS)
    assert fleet.lives() == before, "the unit goes on with the process that it had"
    assert host.ask("GET", f"/v1/operations?command_id={ended['targets'][0]['command_id']}").status == 404


def test_a_node_that_comes_back_in_time_carries_it_out(center: Center, fleet: Fleet) -> None:
    before = fleet.lives()
    with Away(fleet, "n3"):
        begun = center.begin("restart", {"services": ["cart"]}, strategy=None)
        center.until_operation(begun["id"], "the others are done", counted(3))
        until("its entry is gone", lambda: len(center.entries("cart")) == 3)
    ended = center.follow(begun["id"])
    assert ended["state"] == "succeeded", explain(ended)
    assert more_lives(before, fleet.lives()) == dict.fromkeys(ALL, 1)
