"""Two centers on one database: one leads, and the other goes on when it cannot."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException

import pytest

from tests.end_to_end.fleet.center import Center, explain
from tests.end_to_end.fleet.nodes import ALONE, LIGHT, Fleet, more_lives
from tests.end_to_end.host import Json
from tests.end_to_end.machine import until
from tests.servers.postgres import PASSWORD, Postgres

pytestmark = [pytest.mark.real, pytest.mark.timeout(90)]

COUNT = 4
# Slow enough that there is a middle.
SETTINGS = LIGHT.replace("period = 0.1", "period = 0.5")
ONE_BY_ONE = {"batch": "1", "canary": 1, "bake_seconds": 0.2, "floor_percent": 50, "by_zone": False}


@pytest.fixture(scope="module")
def registry() -> Iterator[Center]:
    """Neither of the two: it outlives them."""
    center = Center("registry")
    center.configure()
    center.run()
    yield center
    center.close()


@pytest.fixture(scope="module")
def fleet(registry: Center) -> Iterator[Fleet]:
    fleet = Fleet(registry, COUNT)
    fleet.configure(["cart"], command=ALONE, settings=SETTINGS)
    try:
        fleet.run(["cart"])
        yield fleet
    finally:
        fleet.close()


Pair = tuple[Center, Center]


@pytest.fixture
def pair(registry: Center, fleet: Fleet, postgres: Postgres) -> Iterator[Pair]:
    """The one that leads first, and the other."""
    fleet.until_warm("cart")
    url = postgres.new_database()
    first, second = Center("first"), Center("second")
    try:
        for center in (first, second):
            (center.folder / "password").write_text(PASSWORD)
            center.configure(
                center=f'store = "{url}"\npassword_file = "password"',
                registry=f'backend = "http"\nurl = "{registry.url}"\nttl_seconds = {registry.ttl_seconds}',
            )
            center.run()
            until("the first one leads", lambda: leads(first))
            until("it knows the fleet", lambda center=center: len(center.entries("cart")) == COUNT)
        yield first, second
    finally:
        second.close()
        first.close()
        postgres.drop_database(url)


def leads(center: Center) -> bool:
    with suppress(OSError, HTTPException):
        return bool(center.get("/v1/center")["leader"])
    return False


def in_the_middle(center: Center, id_: str) -> Json:
    """As soon as one is done, and others are not."""
    return center.until_operation(id_, "it is in the middle", lambda each: each["counts"].get("succeeded", 0) >= 1)


def assert_done_once(fleet: Fleet, before: dict[str, int], ended: Json) -> None:
    assert ended["state"] == "succeeded", explain(ended)
    assert more_lives(before, fleet.lives()) == dict.fromkeys(before, 1)
    for target in ended["targets"]:
        known = fleet.host(target["node"]).ask("GET", f"/v1/operations?command_id={target['command_id']}")
        assert [item["state"] for item in known.json["operations"]] == ["succeeded"], target


def test_the_leader_is_killed_and_the_other_goes_on(pair: Pair, fleet: Fleet) -> None:
    """The operation was asked of the one that did not lead."""
    first, second = pair
    before = fleet.lives()
    begun = second.begin("restart", {"services": ["cart"]}, strategy=ONE_BY_ONE)
    assert in_the_middle(second, begun["id"])["state"] == "running"
    assert leads(first) and not leads(second)
    first.kill()
    ended = second.follow(begun["id"])
    assert_done_once(fleet, before, ended)
    assert leads(second) and ended["epoch"] == second.get("/v1/center")["epoch"] == 2


def test_a_leader_that_was_frozen_does_nothing_any_more(pair: Pair, fleet: Fleet) -> None:
    """It wakes up in the belief that it leads; the store and the nodes know better."""
    first, second = pair
    first.expects_tracebacks = True  # what it was writing when it was frozen may be lost, and it says so
    before = fleet.lives()
    begun = first.begin("restart", {"services": ["cart"]}, strategy=ONE_BY_ONE)
    stale = in_the_middle(second, begun["id"])["epoch"]
    first.signal(signal.SIGSTOP)
    until("the other one leads", lambda: leads(second), 30)
    second.until_operation(begun["id"], "it is taken over", lambda each: each["epoch"] > stale)
    first.signal(signal.SIGCONT)
    ended = second.follow(begun["id"])
    assert_done_once(fleet, before, ended)
    until("the first one knows that it does not lead", lambda: first.get("/v1/center")["leader_name"] == "second")
    assert not leads(first) and leads(second)
    assert first.operation(begun["id"]) == second.operation(begun["id"])
    lives = fleet.lives()
    told_by_second = fleet.host(ended["targets"][-1]["node"])
    refused = told_by_second.ask("POST", "/v1/units/cart/restart", late_command(second, stale))
    assert (refused.status, refused.json["code"]) == (409, "stale_epoch")
    assert fleet.lives() == lives


def late_command(center: Center, epoch: int) -> Json:
    """What a leader would send that has missed its end."""
    return {"command_id": "late", "center": center.get("/v1/center")["id"], "epoch": epoch}
