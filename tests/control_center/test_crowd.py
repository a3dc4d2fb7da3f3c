"""Operations on many units at once, and a registry that changes all the time: what is asked, and how often."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from control_center import delivery as module
from control_center.channels import NodeAnswer, NodeCommand
from control_center.delivery import FEW, Delivery
from control_center.following import Following
from control_center.model import Operation, Selection, Target, TargetState
from registry_client.backends.embedded import EmbeddedBackend, EmbeddedRegistry
from registry_client.model import Entry

COUNT = 3 * FEW
NEVER = 0.001  # polls a second of all that are followed: nobody's turn comes within a test
SECONDS = 15.0


def web(number: int, generation: int = 1) -> Entry:
    """The entry of a unit."""
    return Entry(
        service="web", instance=f"n{number}/web", node=f"n{number}", unit="web", address="127.0.0.1", port=8000 + number,
        generation=generation, started_at="2026-11-24T03:41:46.123Z",
    )  # fmt: skip


class Nodes:
    """In the place of the channels: nodes that are through when a test says so."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()  # node -> questions for operations
        self.through: set[str] = set()

    async def send(self, node: str, command: NodeCommand) -> NodeAnswer:
        """As a node answers."""
        return NodeAnswer(202, {"operations": [self._operation(node)]})

    async def operations(self, node: str, command_id: str, wait_seconds: float) -> list[dict[str, Any]]:
        """As a node answers, after waiting for the end if it is asked to, as it is when the question comes."""
        self.asked[node] += 1
        if wait_seconds:
            await until(lambda: node in self.through)
        answer = [self._operation(node)]
        await self.before_answer(node)
        return answer

    async def before_answer(self, node: str) -> None:
        """What happens meanwhile."""

    def _operation(self, node: str) -> dict[str, Any]:
        return {"id": "op-1", "unit": "web", "state": "succeeded" if node in self.through else "running"}


class Site:
    """One service in a registry, and a delivery that restarts all of its units."""

    def __init__(self) -> None:
        self.registry, self.nodes = EmbeddedRegistry(), Nodes()
        self.following = Following(EmbeddedBackend(self.registry), 0.0, self._changed)
        self.delivery = Delivery(self.nodes, self.following, "store")  # type: ignore[arg-type]
        self.targets = [
            Target(
                node=f"n{number}", unit="web", instance=f"n{number}/web", service="web", generation=1,
                state=TargetState.SENT, command_id=f"c{number}",
            )
            for number in range(COUNT)
        ]  # fmt: skip
        self.operation = Operation(
            id="fo-1", command_id="c", verb="restart", selection=Selection(("web",)), strategy=None, parameters={},
            reason="", issued_by="", created=moment(0), deadline=moment(60), targets=self.targets,
        )  # fmt: skip

    def _changed(self) -> None:
        self.delivery.fleet_changed()

    def finish(self, numbers: range) -> None:
        """These units are back, one generation on."""
        for number in numbers:
            self.nodes.through.add(f"n{number}")
            self.registry.register(web(number, 2), 60.0)

    def count(self, state: TargetState) -> int:
        """How many targets are so far."""
        return sum(target.state is state for target in self.targets)


def moment(seconds: float) -> str:
    """So many seconds from now."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def until(look: Callable[[], bool]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(SECONDS):
        while not look():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def carried() -> AsyncIterator[Site]:
    """All units have taken the command to restart."""
    site = Site()
    for number in range(COUNT):
        site.registry.register(web(number), 60.0)
    tasks = [asyncio.create_task(site.following.run())]
    await until(lambda: site.following.certain() is not None)
    for target in site.targets:
        tasks.append(asyncio.create_task(site.delivery.carry(site.operation, target, 1, lambda target: None)))
    await until(lambda: site.count(TargetState.RUNNING) == COUNT)
    try:
        yield site
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        site.registry.close()


def test_of_many_that_are_followed_each_is_asked_for_once_the_registry_shows_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "POLLS_PER_SECOND", NEVER)

    async def scenario() -> None:
        async with carried() as site:
            site.finish(range(COUNT))
            await until(lambda: site.count(TargetState.SUCCEEDED) == COUNT)
            assert set(site.nodes.asked.values()) == {1}

    asyncio.run(scenario())


def test_who_is_not_through_in_the_registry_is_not_asked_before_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLLS_PER_SECOND", NEVER)

    async def scenario() -> None:
        async with carried() as site:
            site.finish(range(FEW + 1, COUNT))
            await until(lambda: site.count(TargetState.SUCCEEDED) == COUNT - FEW - 1)
            assert site.nodes.asked[f"n{FEW}"] == 0
            site.finish(range(FEW + 1))
            await until(lambda: site.count(TargetState.SUCCEEDED) == COUNT)

    asyncio.run(scenario())


def test_a_node_that_tells_of_the_end_later_than_the_registry_is_soon_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "POLLS_PER_SECOND", NEVER)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)

    async def scenario() -> None:
        async with carried() as site:
            last = f"n{COUNT - 1}"

            async def end_now(node: str) -> None:
                site.nodes.through.add(node)

            site.nodes.before_answer = end_now  # type: ignore[method-assign]
            site.registry.register(web(COUNT - 1, 2), 60.0)
            await until(lambda: site.targets[-1].state is TargetState.SUCCEEDED)
            assert site.nodes.asked[last] == 2

    asyncio.run(scenario())


def test_an_end_that_the_registry_shows_while_the_node_is_asked_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(module, "POLLS_PER_SECOND", 1000.0)

    async def scenario() -> None:
        async with carried() as site:
            last, other = site.targets[-1], site.targets[-2]

            async def end_meanwhile(node: str) -> None:
                """The registry shows both ends, and has been looked at, before this question is answered."""
                if node != last.node or last.node in site.nodes.through:
                    return
                monkeypatch.setattr(module, "POLLS_PER_SECOND", NEVER)
                asked = site.nodes.asked[other.node]
                await until(lambda: site.nodes.asked[other.node] > asked)  # from now on its turn does not come, too
                site.finish(range(COUNT - 2, COUNT))
                await until(lambda: other.state is TargetState.SUCCEEDED)

            site.nodes.before_answer = end_meanwhile  # type: ignore[method-assign]
            await until(lambda: last.state is TargetState.SUCCEEDED)

    asyncio.run(scenario())


def test_a_stop_is_shown_by_an_entry_that_has_gone_and_not_by_one_that_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLLS_PER_SECOND", NEVER)

    async def scenario() -> None:
        async with carried() as site:
            site.operation.verb = "stop"
            last, drained = site.targets[-1], site.targets[-2]
            site.nodes.through |= {last.node, drained.node}
            site.registry.update(replace(web(COUNT - 2), status="draining"))
            site.registry.deregister(web(COUNT - 1).key)
            await until(lambda: last.state is TargetState.SUCCEEDED)
            assert site.nodes.asked[drained.node] == 0

    asyncio.run(scenario())


def test_a_drain_is_not_over_because_the_entry_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLLS_PER_SECOND", NEVER)

    async def scenario() -> None:
        async with carried() as site:
            site.operation.verb = "drain"
            first, last = site.targets[0], site.targets[-1]
            site.nodes.through |= {first.node, last.node}
            await until(lambda: first.state is TargetState.CONFIRMING)
            for number in (0, COUNT - 1):
                site.registry.update(replace(web(number), status="draining"))
            await until(lambda: first.state is TargetState.SUCCEEDED)  # so the registry has been looked at
            for _ in range(10):  # who was woken by that asks now
                await asyncio.sleep(0)
            assert site.nodes.asked[last.node] == 0

    asyncio.run(scenario())


def test_a_large_fleet_that_changes_all_the_time_is_looked_at_now_and_then_and_its_last_state_is_seen() -> None:
    async def scenario() -> None:
        registry, taken = EmbeddedRegistry(), Counter[str]()
        for number in range(2000):
            registry.register(web(number), 60.0)
        following = Following(EmbeddedBackend(registry), 0.0, lambda: taken.update(["changes"]))
        task = asyncio.create_task(following.run())
        await until(lambda: following.certain() is not None)
        changes = 600
        for weight in range(changes):
            registry.update(replace(web(0), weight=weight))
            await asyncio.sleep(0)

        def weight_seen() -> int:
            fleet = following.fleet
            entry = fleet.entry("n0/web") if fleet is not None else None
            return entry.weight if entry is not None else -1

        await until(lambda: weight_seen() == changes - 1)
        assert taken["changes"] < changes / 3
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        registry.close()

    asyncio.run(scenario())
