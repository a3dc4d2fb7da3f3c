"""What a unit and a daemon look like in the registry."""

from __future__ import annotations

from dataclasses import replace

from registry_client.model import Entry
from supervisor.agents.entry import MAX_WARMUP_SECONDS, NODE_SERVICE, instance_of, node_entry, unit_entry
from supervisor.core.model import ServiceSpec, UnitSpec
from supervisor.core.warmup import Share

AT = "2026-11-24T03:41:46.123Z"


def test_a_units_entry_says_all_that_its_configuration_says() -> None:
    service = ServiceSpec(
        "shop",
        "10.0.0.7",
        9081,
        weight=40,
        version="1.4.2",
        zone="a",
        metadata=(("team", "cart"), ("tier", "2")),
    )
    spec = UnitSpec("cart:1", "cart", 1, ("cart",), service=service)
    assert unit_entry("web-7", spec, service, 42, AT) == Entry(
        service="shop", instance="web-7/cart:1", node="web-7", unit="cart:1", address="10.0.0.7", port=9081,
        generation=42, weight=40, full_weight=40, status="up", started_at=AT, version="1.4.2", zone="a",
        metadata={"team": "cart", "tier": "2"},
    )  # fmt: skip


def test_the_attempts_differ_in_their_generation_alone() -> None:
    service = ServiceSpec("shop", "10.0.0.7", 9081)
    spec = UnitSpec("cart", "cart", 0, ("cart",), service=service)
    first, second = (unit_entry("n", spec, service, attempt, AT) for attempt in (1, 2))
    assert replace(first, generation=2) == second
    assert first.instance == second.instance == instance_of("n", "cart") == "n/cart"


def test_a_daemon_is_found_under_a_service_of_its_own() -> None:
    entry = node_entry("web-7", "127.0.0.1", 9301, 3, AT)
    assert (entry.service, entry.instance, entry.generation) == (NODE_SERVICE, "web-7", 3)
    assert (entry.address, entry.port, entry.status) == ("127.0.0.1", 9301, "up")


def test_a_unit_that_warms_up_says_so_with_its_weight_and_the_length_of_the_ramp() -> None:
    service = ServiceSpec("shop", "10.0.0.7", 9081, weight=40)
    spec = UnitSpec("cart", "cart", 0, ("cart",), service=service)
    full = unit_entry("n", spec, service, 1, AT)
    warming = unit_entry("n", spec, service, 1, AT, Share(4, True, 90.0))
    assert warming == replace(full, weight=4, status="warming", warmup_seconds=90.0)
    assert unit_entry("n", spec, service, 1, AT, Share(40, False, 90.0)) == replace(full, warmup_seconds=90.0)


def test_a_unit_whose_weight_was_fixed_is_up() -> None:
    service = ServiceSpec("shop", "10.0.0.7", 9081, weight=40)
    spec = UnitSpec("cart", "cart", 0, ("cart",), service=service)
    entry = unit_entry("n", spec, service, 1, AT, Share(7))
    assert (entry.status, entry.weight, entry.full_weight, entry.warmup_seconds) == ("up", 7, 40, 0)


def test_a_ramp_longer_than_an_entry_can_say_is_said_as_the_longest() -> None:
    service = ServiceSpec("shop", "10.0.0.7", 9081)
    spec = UnitSpec("cart", "cart", 0, ("cart",), service=service)
    entry = unit_entry("n", spec, service, 1, AT, Share(1, True, 1e9))
    assert entry.warmup_seconds == MAX_WARMUP_SECONDS
