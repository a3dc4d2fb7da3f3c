"""floor.py: how much of a service may be away at a time."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from control_center.model import Target, TargetState
from control_center.rollout.floor import Floors
from registry_client.model import Entry
from tests.control_center.entries import entry, fleet_of, target_of
from tests.control_center.rollout.world import carts

BASE = {"cart": 400}


def floors(entries: Iterable[Entry], busy: Iterable[Target] = (), verb: str = "restart", percent: float = 50) -> Floors:
    return Floors(verb, percent, fleet_of(*entries), BASE, busy)


def in_work(number: int, state: TargetState = TargetState.SENT, generation: int | None = 1) -> Target:
    node = f"web-{number}"
    return Target(node, "cart", f"{node}/cart", service="cart", generation=generation, state=state)


def admitted(of: Floors, entries: Iterable[Entry]) -> int:
    return sum(of.admit(target_of(each)) for each in entries)


def test_as_many_go_as_leave_the_floor() -> None:
    for percent, count in ((0, 4), (50, 2), (50.1, 1), (75, 1), (76, 0), (100, 0)):
        assert admitted(floors(carts(4), percent=percent), carts(4)) == count


def test_who_is_in_work_counts_for_nothing_while_its_old_entry_is_still_there() -> None:
    assert admitted(floors(carts(4), [in_work(1)]), carts(4)[1:]) == 1
    assert admitted(floors(carts(4), [in_work(1, TargetState.CONFIRMING)]), carts(4)[1:]) == 1


def test_a_newer_generation_counts_as_what_it_weighs_once_its_node_is_done() -> None:
    entries = [entry("web-1", generation=2, weight=90, status="warming"), *carts(4)[1:]]
    assert admitted(floors(entries, [in_work(1, TargetState.CONFIRMING)], percent=45), entries[1:]) == 2
    for unsure in (in_work(1, TargetState.RUNNING), in_work(1, TargetState.CONFIRMING, None)):
        assert admitted(floors(entries, [unsure], percent=45), entries[1:]) == 1


@pytest.mark.parametrize("verb", ["stop", "drain"])
def test_what_goes_for_good_counts_for_nothing_until_it_is_done(verb: str) -> None:
    entries = [entry("web-1", generation=2), *carts(4)[1:]]
    assert admitted(floors(entries, [in_work(1, TargetState.CONFIRMING)], verb), entries[1:]) == 1


def test_draining_instances_are_no_capacity() -> None:
    entries = [entry("web-1", status="draining"), *carts(4)[1:]]
    of = floors(entries, percent=75)
    assert of.admit(target_of(entries[0]))  # it takes nothing away
    assert not of.admit(target_of(entries[1]))


def test_below_the_floor_nobody_goes_not_even_one_without_weight() -> None:
    entries = [entry("web-1", weight=0, status="warming"), entry("web-2")]
    assert admitted(floors(entries), entries) == 0


def test_who_is_not_there_or_has_no_service_or_takes_nothing_away_is_free() -> None:
    assert floors([]).admit(in_work(1))
    assert floors([]).admit(Target("web-1", "batch", "web-1/batch"))
    for verb in ("start", "undrain", "apply"):
        assert admitted(floors(carts(2), verb=verb), carts(2)) == 2


def test_without_a_baseline_the_registry_says_what_is_meant_to_be() -> None:
    of = Floors("restart", 50, fleet_of(*carts(2)), {}, [])
    assert admitted(of, carts(2)) == 1


def test_it_says_what_it_waits_for() -> None:
    entries = [
        entry("web-1", status="warming", weight=40), entry("web-2", status="draining"), entry("web-3"),
        entry("web-4"),
    ]  # fmt: skip
    of = floors(entries, [in_work(9)], percent=75)
    assert of.reason(target_of(entries[2])) == (
        "cart has 60 % of its weight, 75 % must stay: "
        "waiting for web-9/cart (not registered), web-1/cart (40/100), web-2/cart (draining)"
    )
    more = floors([*entries[:2], entry("web-5", status="draining")], [in_work(8), in_work(9)], percent=75)
    assert more.reason(target_of(entries[0])).endswith("web-9/cart (not registered), web-1/cart (40/100) and 2 more")


def test_it_says_what_one_more_would_take() -> None:
    entries = [entry("web-1", weight=80, status="warming"), *carts(4)[1:]]
    reason = floors(entries, percent=80).reason(target_of(entries[1]))
    assert (
        reason
        == "cart has 95 % of its weight, 70 % without web-2/cart, 80 % must stay: waiting for web-1/cart (80/100)"
    )


def test_it_waits_for_those_that_have_left() -> None:
    entries = carts(2)
    assert floors(entries, percent=75).reason(target_of(entries[0])) == (
        "cart has 50 % of its weight, 75 % must stay: waiting for instances that have left to come back"
    )
    assert "waiting for" in floors(entries, percent=75).reason(in_work(9))


def test_a_service_that_is_meant_to_have_no_weight_has_all_of_it() -> None:
    of = Floors("restart", 50, fleet_of(*carts(1)), {"cart": 0}, [])
    assert "cart has 100 % of its weight" in of.reason(in_work(1))
