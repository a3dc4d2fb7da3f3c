"""What a unit and a daemon look like in the registry."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from registry_client.model import Entry
from supervisor.agents.entry import (
    MAX_WARMUP_SECONDS,
    NODE_SERVICE,
    instance_of,
    node_address,
    node_entry,
    unit_entry,
)
from supervisor.core.model import CenterSpec, DaemonSpec, HttpSpec, ServerTlsSpec, ServiceSpec, UnitSpec
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
    entry = node_entry(DaemonSpec("web-7", http=HttpSpec(("127.0.0.1", 9301))), ("127.0.0.1", 9301), 3, AT)
    assert (entry.service, entry.instance, entry.generation) == (NODE_SERVICE, "web-7", 3)
    assert (entry.address, entry.port, entry.status) == ("127.0.0.1", 9301, "up")
    assert dict(entry.metadata) == {"scheme": "http", "via": "push"}


def test_a_daemons_entry_says_how_it_is_spoken_to() -> None:
    spec = DaemonSpec("web-7", http=HttpSpec(("10.0.0.7", 9301), ServerTlsSpec("/cert.pem")))
    assert node_address(spec) == ("10.0.0.7", 9301)
    assert node_entry(spec, ("10.0.0.7", 9301), 1, AT).metadata["scheme"] == "https"


def test_a_daemon_that_listens_on_every_address_is_found_under_one_that_others_can_use() -> None:
    for host in ("0.0.0.0", "::"):
        address = node_address(DaemonSpec("web-7", http=HttpSpec((host, 9301))))
        assert address is not None and address[1] == 9301
        assert not ip_address(address[0]).is_unspecified


def test_what_a_daemon_advertises_counts_more_than_where_it_listens() -> None:
    http = HttpSpec(("0.0.0.0", 9301), advertise=("gate.example", 443))
    assert node_address(DaemonSpec("web-7", http=http)) == ("gate.example", 443)


def test_a_daemon_that_only_fetches_its_commands_is_found_too() -> None:
    center = CenterSpec(("https://center:9300",))
    spec = DaemonSpec("web-7", center=center)
    address = node_address(spec)
    assert address is not None and address[1] == 1
    assert node_entry(spec, address, 1, AT).metadata["via"] == "pull"
    assert node_address(DaemonSpec("web-7")) is None
    assert node_address(DaemonSpec("web-7", center=replace(center, pull=False))) is None


def test_a_daemon_with_both_says_that_it_fetches() -> None:
    spec = DaemonSpec("web-7", http=HttpSpec(("127.0.0.1", 9301)), center=CenterSpec(("https://center:9300",)))
    assert node_address(spec) == ("127.0.0.1", 9301)
    assert node_entry(spec, ("127.0.0.1", 9301), 1, AT).metadata["via"] == "pull"


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
