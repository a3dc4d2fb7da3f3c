"""Entries follow their units: what they say, with which weight, and when nothing may be said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from registry_client.model import Entry
from supervisor.agents.publisher import Publisher, is_published
from supervisor.core.events import DrainRequested, Event, ReadinessLost, ReadinessRegained, Withdraw
from supervisor.core.model import Phase, Unit, WarmupSpec
from supervisor.host.runner import Runner
from supervisor.wire import Command
from tests.supervisor.agents.fleet import Fleet, plain, service
from tests.supervisor.running import run

CART = service("cart:1", warmup=WarmupSpec(initial=10, step=10, period=3600.0))
DISK = plain("disk")


class Desk:
    """A publisher between a fleet and a registry that only writes down what it is told."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.published, self.changed = list[tuple[str, Entry, float]](), list[tuple[str, Entry, float]]()
        self.called_off = list[str]()
        heartbeats = SimpleNamespace(publish=self.publish, change=self.change)
        restart = SimpleNamespace(call_off=self.called_off.append)
        self.publisher = Publisher("host-1", fleet.runners, cast(Any, heartbeats), fleet.warmups, cast(Any, restart))
        fleet.runners.observe(self.publisher.on_change)

    def publish(self, name: str, entry: Entry, ttl_seconds: float) -> None:
        self.published.append((name, entry, ttl_seconds))

    def change(self, name: str, entry: Entry, ttl_seconds: float) -> None:
        self.changed.append((name, entry, ttl_seconds))

    def runner(self, name: str = "cart:1") -> Runner:
        return self.fleet.runners.by_name[name]

    def up(self) -> None:
        self.fleet.up("cart:1")
        self.publisher.publish(self.runner())


@contextmanager
def desk(folder: Path) -> Iterator[Desk]:
    fleet = Fleet(folder, (CART, DISK))
    try:
        yield Desk(fleet)
    finally:
        fleet.close()


def test_an_entry_says_who_serves_since_when_and_with_how_much_of_its_weight(tmp_path: Path) -> None:
    async def scenario() -> None:
        with desk(tmp_path) as it:
            it.up()
            ((name, entry, ttl),) = it.published
            assert (name, ttl, entry.generation, entry.weight) == ("cart:1", 10.0, 1, 10)
            assert (entry.service, entry.address, entry.port) == ("cart", "127.0.0.1", 9081)
            assert it.called_off == ["cart:1"], "nobody may go on taking it out"
            assert it.publisher.weight(it.runner()) == 10
            assert it.publisher.warming("cart:1") != ""
            assert it.publisher.words("cart:1") != ""

    run(scenario())


def test_a_change_is_told_of_a_unit_that_is_published_and_of_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        with desk(tmp_path) as it:
            for name in ("cart:1", "disk", "nobody"):
                it.publisher.change(name)
            it.fleet.up("disk")
            it.publisher.change("disk")
            assert it.changed == []
            it.up()
            it.fleet.orders.give("weight", ["cart:1"], Command(parameters={"weight": 70}))
            assert CART.service is not None
            it.runner().spec = replace(CART, service=replace(CART.service, version="2", ttl_seconds=30.0))
            it.publisher.change("cart:1")
            ((_, entry, ttl),) = it.changed
            assert (entry.weight, entry.version, ttl) == (70, "2", 30.0)
            it.fleet.held = {Withdraw}
            it.fleet.stop("cart:1")
            it.publisher.change("cart:1")
            assert len(it.changed) == 1

    run(scenario())


@pytest.mark.parametrize("event", [ReadinessLost(1, "full"), DrainRequested()])
def test_what_is_out_of_traffic_has_no_weight_and_does_not_warm_up(tmp_path: Path, event: Event) -> None:
    async def scenario() -> None:
        with desk(tmp_path) as it:
            it.up()
            lost = list[str]()
            it.fleet.warmups.lost = lost.append  # type: ignore[method-assign]
            it.fleet.held = {Withdraw}
            it.fleet.runners.post("cart:1", event)
            assert lost == ["cart:1"]
            assert it.publisher.weight(it.runner()) == 0
            assert it.publisher.words("cart:1") == ""
            # Whoever waits for its full weight waits for an ill unit, too, and not for one that is to stay out.
            assert it.publisher.warming("cart:1") == (
                "it does not serve: full" if isinstance(event, ReadinessLost) else ""
            )
            it.publisher.change("cart:1")
            assert it.changed == []

    run(scenario())


def test_it_goes_on_warming_when_it_is_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        with desk(tmp_path) as it:
            it.up()
            it.fleet.runners.post("cart:1", ReadinessLost(1, "full"))
            it.fleet.runners.post("cart:1", ReadinessRegained(1, 5.0))
            it.publisher.publish(it.runner())
            assert [entry.weight for _, entry, _ in it.published] == [10, 10]
            assert it.publisher.weight(it.runner()) == 10

    run(scenario())


def test_a_unit_without_a_service_has_no_weight_to_speak_of(tmp_path: Path) -> None:
    async def scenario() -> None:
        with desk(tmp_path) as it:
            it.fleet.up("disk")
            assert it.publisher.weight(it.runner("disk")) is None
            assert it.publisher.warming("disk") == it.publisher.warming("nobody") == it.publisher.words("nobody") == ""

    run(scenario())


def test_a_unit_at_its_full_weight_is_not_warming(tmp_path: Path) -> None:
    async def scenario() -> None:
        with desk(tmp_path) as it:
            it.up()
            it.fleet.orders.give("warm", ["cart:1"], Command(parameters={"jump": 100}))
            assert it.publisher.warming("cart:1") == ""
            assert it.publisher.weight(it.runner()) == 100

    run(scenario())


@pytest.mark.parametrize(
    ("unit", "published"),
    [
        (Unit(phase=Phase.RUNNING, published=True), True),
        (Unit(phase=Phase.RUNNING), False),
        (Unit(phase=Phase.RUNNING, published=True, healthy=False), False),
        (Unit(phase=Phase.RUNNING, published=True, drained=True), False),
        (Unit(phase=Phase.EXPIRING, published=True), False),
        (Unit(phase=Phase.BACKOFF, published=True), False),
    ],
)
def test_published_is_what_serves_and_nobody_takes_out(unit: Unit, published: bool) -> None:
    assert is_published(unit) is published
