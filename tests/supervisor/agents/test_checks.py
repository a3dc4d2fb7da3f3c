"""What is answered of a unit in each state that it can be in, and which unit a gateway means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from supervisor.agents import checks as module
from supervisor.agents.checks import Checks
from supervisor.agents.publisher import Publisher
from supervisor.agents.sightings import Sightings
from supervisor.core.checking import Question, View, Word
from supervisor.core.model import Phase, Unit, WarmupSpec
from tests.supervisor.agents.fleet import Fleet, plain, service
from tests.supervisor.running import run

CART = service("cart:1", warmup=WarmupSpec(initial=10, step=10, period=3600.0))
CART_0 = service("cart:0")
DISK = plain("disk")
UP = Unit(phase=Phase.RUNNING, wanted=True, attempt=1, live=True, pid=42, published=True)
VIEW = View("gw-1", "shop/one", "127.0.0.1", 9081, True, 2)


class Desk:
    """Checks of a small fleet; `kept` are the units whose entries are kept."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.kept = fleet, {"cart:0", "cart:1"}
        registries = SimpleNamespace(
            keeps=lambda name: name in self.kept, publish=lambda *_: None, change=lambda *_: None
        )
        publisher = Publisher(
            "n",
            fleet.runners,
            cast(Any, registries),
            fleet.warmups,
            cast(Any, SimpleNamespace(call_off=lambda _: None)),
        )
        self.sightings = Sightings()
        self.checks = Checks(fleet.runners, cast(Any, registries), publisher, self.sightings)

    def put(self, name: str, **facts: Any) -> None:
        runner = self.fleet.runners.by_name[name]
        runner.unit = replace(UP, **facts)

    def ask(self, name: str) -> str:
        return self.checks.answer(Question(name), "10.0.0.9").decode()

    def seen(self, name: str) -> set[str]:
        return {item.gateway for item in self.sightings.of(name)}


@contextmanager
def desk(folder: Path) -> Iterator[Desk]:
    fleet = Fleet(folder, (CART_0, CART, DISK))
    try:
        yield Desk(fleet)
    finally:
        fleet.close()


CASES: dict[str, tuple[dict[str, Any], Word]] = {
    "it serves": ({}, Word.READY),
    "it has lost its readiness": ({"healthy": False, "reason": "its probe fails"}, Word.DOWN),
    "it is drained": ({"drained": True, "published": False}, Word.DRAIN),
    "it is drained and refuses work": ({"drained": True, "healthy": False}, Word.DRAIN),
    "it is on its way out": ({"phase": Phase.EXPIRING, "leaving": True}, Word.DRAIN),
    "gateways act on that": ({"phase": Phase.SETTLING, "leaving": True, "published": False}, Word.DRAIN),
    "it finishes": ({"phase": Phase.DRAINING, "told": True, "healthy": False}, Word.DRAIN),
    "it is dead and on its way out": ({"phase": Phase.EXPIRING, "dead": True, "crashed": True}, Word.DOWN),
    "its process has ended and its entry has not": ({"phase": Phase.EXPIRING, "live": False}, Word.DOWN),
    "its signal was sent": ({"phase": Phase.STOPPING}, Word.DOWN),
    "it begins": ({"phase": Phase.STARTING, "published": False}, Word.DOWN),
    "only its own requests come": ({"phase": Phase.PREWARMING, "published": False}, Word.DOWN),
    "it waits to be started again": ({"phase": Phase.BACKOFF, "live": False}, Word.DOWN),
    "it is stopped": ({"phase": Phase.STOPPED, "live": False, "published": False}, Word.DOWN),
    "it was given up": ({"phase": Phase.FATAL, "live": False, "reason": "too many starts"}, Word.DOWN),
}


@pytest.mark.parametrize("case", CASES)
def test_a_unit_is_answered_for_as_it_stands(tmp_path: Path, case: str) -> None:
    facts, word = CASES[case]

    async def scenario() -> None:
        with desk(tmp_path) as it:
            it.put("cart:0", **facts)
            standing = it.checks.standing("cart:0")
            assert standing.word is word
            assert facts.get("reason", "") in standing.why

    run(scenario())


def test_the_share_is_the_one_that_the_registry_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        with desk(tmp_path) as it:
            it.put("cart:1")
            it.fleet.warmups.begin(CART, 1)
            assert it.ask("cart:1") == "ready up 10%\n"
            it.put("cart:0")
            assert it.ask("cart:0") == "ready up 100%\n"
            assert it.ask("disk").startswith("down # stopped")
            it.put("disk", published=False)
            assert it.ask("disk") == "ready up 100%\n", "without a service it has no share but the whole one"

    run(scenario())


def test_a_share_is_never_rounded_to_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        with desk(tmp_path) as it:
            heavy = replace(
                CART_0, service=replace(cast(Any, CART_0.service), weight=65535), warmup=WarmupSpec(1, 1, 60)
            )
            it.fleet.runners.by_name["cart:0"].spec = heavy
            it.put("cart:0")
            it.fleet.warmups.begin(heavy, 1)
            assert it.ask("cart:0") == "ready up 1%\n"

    run(scenario())


def test_who_may_serve_and_is_not_to_be_found_yet_drains(tmp_path: Path) -> None:
    """It still refuses new work, and is being told that it may take it again."""

    async def scenario() -> None:
        with desk(tmp_path) as it:
            it.kept.clear()
            it.put("cart:0")
            assert it.ask("cart:0") == "drain\n"

    run(scenario())


def test_a_unit_that_is_not_here_is_down(tmp_path: Path) -> None:
    async def scenario() -> None:
        with desk(tmp_path) as it:
            assert it.ask("cart:9") == "down # there is no such unit here\n"
            assert it.ask("") == "down # there is no such unit here\n"
            assert it.checks.answer(Question("cart:9", VIEW, http=True), "10.0.0.9").startswith(b"HTTP/1.1 503 ")
            assert it.seen("cart:9") == set()

    run(scenario())


def test_a_gateway_means_the_unit_at_its_servers_address_or_else_of_its_servers_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        with desk(tmp_path) as it:
            it.put("cart:1")
            it.put("cart:0", drained=True)
            for view, status, unit in (
                (VIEW, b"200", "cart:1"),
                (replace(VIEW, name="shop/cart:0"), b"200", "cart:1"),
                (replace(VIEW, address="10.9.9.9", name="shop/cart:0"), b"404", "cart:0"),
                (replace(VIEW, port=1), b"503", ""),
                (replace(VIEW, address="10.9.9.9"), b"503", ""),
            ):
                it.sightings.forget("cart:0")
                it.sightings.forget("cart:1")
                said = it.checks.answer(Question("", view, http=True), "10.0.0.9")
                assert said.split()[1] == status, view
                assert (it.seen("cart:0"), it.seen("cart:1")) == (
                    {"gw-1"} if unit == "cart:0" else set(),
                    {"gw-1"} if unit == "cart:1" else set(),
                )

    run(scenario())


def test_a_unit_that_has_moved_is_found_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        with desk(tmp_path) as it:
            it.put("cart:1")
            monkeypatch.setattr(module, "_REBUILD_SECONDS", -1.0)
            assert b" 200 " in it.checks.answer(Question("", VIEW, http=True), "10.0.0.9")
            service_ = CART.service
            assert service_ is not None
            it.fleet.runners.by_name["cart:1"].spec = replace(CART, service=replace(service_, port=9099))
            assert b" 503 " in it.checks.answer(Question("", VIEW, http=True), "10.0.0.9")
            assert b" 200 " in it.checks.answer(Question("", replace(VIEW, port=9099), http=True), "10.0.0.9")

    run(scenario())


def test_agents_are_noted_with_what_they_were_told_and_other_checks_are_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        with desk(tmp_path) as it:
            it.put("cart:0")
            it.checks.answer(Question("cart:0", http=True), "10.0.0.8")
            it.checks.answer(Question("cart:0", http=True, problem=405), "10.0.0.7")
            assert it.seen("cart:0") == set()
            it.ask("cart:0")
            assert [(item.gateway, item.sends) for item in it.sightings.of("cart:0")] == [("at 10.0.0.9", True)]
            it.put("cart:0", drained=True)
            it.ask("cart:0")
            it.ask("cart:0")
            assert [item.sends for item in it.sightings.of("cart:0")] == [False]

    run(scenario())
