"""fleet.py: the registry's entries by service, node and instance."""

from __future__ import annotations

from time import process_time

import pytest

from control_center.fleet import Capacity, Fleet, meant_weight
from tests.control_center.entries import entry, fleet_of, node_entry, snapshot

CARTS = [
    entry("web-1", zone="a"),
    entry("web-2", zone="b", status="warming", weight=40),
    entry("web-3", zone="b", status="draining"),
    entry("web-1", "pay", weight=0, full_weight=0),
]


def test_units_are_found_by_service_by_node_and_by_instance() -> None:
    fleet = fleet_of(node_entry("web-1"), *CARTS)
    assert fleet.services == ("cart", "pay")
    assert [each.instance for each in fleet.entries("cart")] == ["web-1/cart", "web-2/cart", "web-3/cart"]
    assert [each.service for each in fleet.on_node("web-1")] == ["cart", "pay"]
    assert fleet.entry("web-2/cart") == CARTS[1]
    assert fleet.all_entries() == tuple(CARTS)


def test_daemons_stand_apart_from_the_units() -> None:
    node = node_entry("web-1")
    fleet = fleet_of(node, CARTS[1])
    assert dict(fleet.nodes) == {"web-1": node}
    assert fleet.node("web-1") == node
    assert fleet.node("web-2") is None
    assert fleet.entries("unitd") == ()
    assert fleet.on_node("web-1") == ()
    assert fleet.entry("web-1") is None
    with pytest.raises(TypeError):
        fleet.nodes["web-2"] = node  # type: ignore[index]


def test_what_nobody_knows_is_empty() -> None:
    fleet = fleet_of()
    assert fleet.services == fleet.entries("cart") == fleet.on_node("web-1") == fleet.all_entries() == ()
    assert fleet.entry("web-1/cart") is None
    assert fleet.capacity("cart") == Capacity()
    assert fleet.capacity("cart").percent == 100
    assert fleet.zones("cart") == {}


def test_an_instance_may_be_in_two_services() -> None:
    one, two = entry("web-1", "a", "app"), entry("web-1", "b", "app")
    fleet = fleet_of(one, two)
    assert fleet.entry("web-1/app") == one
    assert fleet.entry("web-1/app", "b") == two
    assert fleet.entry("web-1/app", "c") is None
    assert fleet.entry("web-2/app", "b") is None


def test_draining_instances_have_no_weight_but_are_counted() -> None:
    capacity = fleet_of(*CARTS).capacity("cart")
    assert capacity == Capacity(up=1, warming=1, draining=1, weight=140, full_weight=300)
    assert capacity.instances == 3
    assert round(capacity.percent) == 47


def test_a_service_is_shown_with_its_zones_and_nodes() -> None:
    fleet = fleet_of(*CARTS, entry("web-1", unit="cart:1"))
    assert fleet.zones("cart") == {"": 1, "a": 1, "b": 2}
    assert fleet.service_json("cart") == {
        "service": "cart", "instances": 4, "up": 2, "warming": 1, "draining": 1, "weight": 240, "full_weight": 400,
        "capacity_percent": 60.0, "zones": {"": 1, "a": 1, "b": 2}, "nodes": 3, "operation": None, "frozen": None,
    }  # fmt: skip


def test_the_same_snapshot_is_not_built_again() -> None:
    first = Fleet.of(snapshot(CARTS, 1), None)
    assert Fleet.of(snapshot(CARTS, 1), first) is first
    later = Fleet.of(snapshot(CARTS, 2), first)
    assert later is not first
    assert (later.revision, later.epoch) == (2, "e")
    assert later.entries("cart") is first.entries("cart")
    other = Fleet.of(snapshot(CARTS[:1], 3), later)
    assert other.all_entries() == (CARTS[0],)
    assert later.capacity("cart").instances == 3


@pytest.mark.parametrize(
    ("made", "meant"),
    [
        (entry("web-1"), 100),
        (entry("web-1", status="warming", weight=40), 100),
        (entry("web-1", status="up", weight=40), 100),  # it has a ramp, so this is not where it ends
        (entry("web-1", status="up", weight=40, warmup_seconds=0), 40),
        (entry("web-1", status="warming", weight=40, warmup_seconds=0), 100),
        (entry("web-1", status="draining", weight=40, warmup_seconds=0), 100),
        (entry("web-1", status="up", weight=200, warmup_seconds=0), 100),
    ],
)
def test_a_weight_that_an_operator_holds_is_what_an_instance_is_meant_to_have(made: object, meant: int) -> None:
    assert meant_weight(made) == meant  # type: ignore[arg-type]


def test_a_big_fleet_is_built_in_a_moment() -> None:
    entries = [entry(f"web-{number % 2000}", f"s{number % 50}", f"u{number // 2000}") for number in range(10_000)]
    shot = snapshot(entries + [node_entry(f"web-{number}") for number in range(2000)])
    began = process_time()
    fleet = Fleet(shot)
    assert process_time() - began < 0.5  # it takes a hundredth of a second; nothing may grow with the square
    assert sum(fleet.capacity(service).instances for service in fleet.services) == 10_000
