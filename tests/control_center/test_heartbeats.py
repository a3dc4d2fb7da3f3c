"""heartbeats.py: who is silent, and whose fault that is. In a time that the tests move."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from control_center.detector import DetectorPolicy
from control_center.errors import NodeRefused, NodeUnreachable, StoreError
from control_center.heartbeats import Heartbeats
from control_center.model import NodeStatus
from registry_client.model import Entry
from tests.control_center.entries import node_entry

INTERVAL = 5.0


class World:
    """Nodes, a store and a clock."""

    def __init__(self, *names: str, pull: bool = False, least_deviation: float = 0.5) -> None:
        metadata = {"scheme": "https", "via": "pull" if pull else "push"}
        self.entries: dict[str, Entry] | None = {name: node_entry(name, metadata=metadata) for name in names}
        self.now = 1000.0
        self.trouble: dict[str, Exception] = {}
        self.hang: set[str] = set()
        self.life = dict.fromkeys(names, 1)
        self.asked: list[tuple[float, str]] = []
        self.most_at_a_time = self.under_way = 0
        self.told: list[dict[str, Any]] = []
        self.sent: dict[str, tuple[float, Any]] = {}
        self.leads, self.store_fails = True, False
        policy = DetectorPolicy(min_std_seconds=least_deviation)
        self.beats = Heartbeats(
            lambda: self.entries, self, self, policy, INTERVAL, lambda: self.leads,  # type: ignore[arg-type]
            clock=lambda: self.now, wall=lambda: self.now + 1e9,
        )  # fmt: skip

    async def heartbeat(self, node: str) -> dict[str, Any]:
        self.asked.append((self.now, node))
        self.under_way += 1
        self.most_at_a_time = max(self.most_at_a_time, self.under_way)
        try:
            if node in self.hang:
                until = self.now + 5.0
                while self.now < until:
                    await asyncio.sleep(0)
                raise NodeUnreachable(node, "no answer within 5 s")
            if node in self.trouble:
                raise self.trouble[node]
            return self.body(node)
        finally:
            self.under_way -= 1

    def body(self, node: str) -> dict[str, Any]:
        return {
            "node": node, "version": "1.2", "life": self.life[node], "units": 3, "services": ["cart"],
            "open_operations": 1,
        }  # fmt: skip

    async def heartbeats(self, newer_than_wall: float) -> dict[str, tuple[float, Any]]:
        if self.store_fails:
            raise StoreError("cannot read the store: it is away")
        return {node: sent for node, sent in self.sent.items() if sent[0] > newer_than_wall}

    async def add_event(self, event_type: str, body: dict[str, Any]) -> None:
        if self.store_fails:
            raise StoreError("cannot write the store: it is away")
        assert event_type == "node"
        self.told.append(body)

    def send(self, node: str, ago: float = 0.0) -> None:
        """A node that fetches its commands sends a heartbeat."""
        self.sent[node] = (self.now + 1e9 - ago, self.body(node))

    async def live(self, seconds: float, each: Callable[[], None] = lambda: None) -> None:
        """So much time passes."""
        until = self.now + seconds
        while self.now < until:
            wait = await self.beats.turn()
            for _ in range(3):
                await asyncio.sleep(0)
            each()
            self.now = min(until, self.now + wait)
        await self.beats.turn()

    def status(self, name: str = "web-1") -> NodeStatus:
        return next(each for each in self.beats.statuses() if each.node == name)

    def state(self, name: str = "web-1") -> str:
        return self.status(name).state

    def changes(self) -> list[tuple[str, str, str]]:
        return [(each["node"], each["before"], each["state"]) for each in self.told]


def run(story: Awaitable[None]) -> None:
    async def whole() -> None:
        await story

    asyncio.run(whole())


def test_a_node_that_answers_is_up_and_tells_of_itself() -> None:
    async def story() -> None:
        world = World("web-1")
        assert world.beats.statuses() == []
        await world.live(60)
        status = world.status()
        assert (status.state, status.version, status.units, status.open_operations) == ("up", "1.2", 3, 1)
        assert (status.scheme, status.via, status.port, status.services) == ("https", "push", 9301, ("cart",))
        assert status.interval_seconds == pytest.approx(INTERVAL, abs=0.6)
        assert status.seen_seconds_ago is not None
        assert status.seen_seconds_ago <= INTERVAL
        assert status.phi is not None
        assert status.phi < 1
        assert world.told == []  # it was there before us

    run(story())


def test_a_silent_node_is_suspected_then_dead_then_up_again_and_each_is_told_once() -> None:
    async def story() -> None:
        world = World(
            "web-1", "web-2", least_deviation=2.0
        )  # between suspicion and death are 2 s, and more than a look
        await world.live(300)
        world.trouble["web-1"] = NodeUnreachable("web-1", "connection refused")
        silent_since = world.now
        await world.live(40)
        assert world.state() == "dead"
        assert world.status().detail == "connection refused"
        assert world.state("web-2") == "up"
        assert 19 < world.told[0]["seen_seconds_ago"] < 23
        assert world.told[1]["phi"] >= 12
        assert world.now - silent_since == 40
        del world.trouble["web-1"]
        await world.live(6)
        assert world.state() == "up"
        assert world.changes() == [("web-1", "up", "suspect"), ("web-1", "suspect", "dead"), ("web-1", "dead", "up")]

    run(story())


def test_a_node_that_never_answers_is_unknown_first_and_dead_soon() -> None:
    async def story() -> None:
        world = World("web-1")
        world.trouble["web-1"] = NodeUnreachable("web-1", "no route")
        await world.live(1)
        assert world.state() == "unknown"
        assert world.status().seen_seconds_ago is None
        await world.live(30)
        assert world.state() == "dead"

    run(story())


def test_only_the_leading_center_tells() -> None:
    async def story() -> None:
        world = World("web-1")
        world.leads = False
        await world.live(30)
        world.trouble["web-1"] = NodeUnreachable("web-1", "no route")
        await world.live(30)
        assert world.state() == "dead"
        assert world.told == []

    run(story())


def test_a_node_that_does_not_let_us_in_lives() -> None:
    async def story() -> None:
        world = World("web-1")
        await world.live(20)
        world.trouble["web-1"] = NodeRefused("web-1", 401, "unauthenticated", "no credential")
        await world.live(60)
        status = world.status()
        assert (status.state, status.detail) == ("refused", "no credential")
        assert world.changes() == [("web-1", "up", "refused")]

    run(story())


def test_a_node_that_leaves_the_registry_is_gone_and_shown_for_an_hour() -> None:
    async def story() -> None:
        world = World("web-1", "web-2")
        await world.live(20)
        assert world.entries is not None
        entry = world.entries.pop("web-1")
        await world.live(100)
        assert world.state() == "gone"
        assert world.status().phi is None
        assert not [at for at, node in world.asked if node == "web-1" and at > world.now - 90]
        world.entries["web-1"] = entry
        await world.live(20)
        assert world.state() == "up"
        assert world.changes() == [("web-1", "up", "gone"), ("web-1", "unknown", "up")]
        del world.entries["web-1"]
        await world.live(3700)
        assert [each.node for each in world.beats.statuses()] == ["web-2"]

    run(story())


def test_nodes_stay_as_they_are_while_the_registry_was_never_seen_or_is_away() -> None:
    async def story() -> None:
        world = World("web-1")
        entries, world.entries = world.entries, None
        await world.live(5)
        assert world.beats.statuses() == []
        world.entries = entries
        await world.live(20)
        world.entries = None
        await world.live(60)
        assert world.state() == "up"

    run(story())


def test_a_daemon_that_was_restarted_begins_a_new_window() -> None:
    async def story() -> None:
        world = World("web-1")
        await world.live(600)
        world.trouble["web-1"] = NodeUnreachable("web-1", "connection refused")
        await world.live(9)
        del world.trouble["web-1"]
        world.life["web-1"] = 2
        await world.live(6)
        status = world.status()
        assert (status.state, status.life) == ("up", 2)
        assert status.interval_seconds == pytest.approx(INTERVAL)  # its absence is no sample

    run(story())


def test_when_the_center_did_not_run_nobody_is_suspected() -> None:
    async def story() -> None:
        world = World("web-1", "web-2", "web-3")
        await world.live(60)
        world.now += 3600
        world.beats.stalled(3600)
        assert {each.state for each in world.beats.statuses()} == {"up"}
        await world.live(30)
        assert world.told == []
        world.trouble["web-1"] = NodeUnreachable("web-1", "no route")
        await world.live(30)
        assert world.state() == "dead"  # and still somebody can be

    run(story())


def test_a_question_that_was_asked_late_is_no_silence_of_the_node() -> None:
    async def story() -> None:
        world = World("web-1")
        await world.live(60)
        world.now += 100  # nothing noticed that: no tick
        assert world.state() == "up"
        await world.live(30)
        assert world.told == []

    run(story())


def test_a_loop_that_stands_still_is_noticed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("control_center.heartbeats.TICK_SECONDS", 0.05)
    monkeypatch.setattr("control_center.heartbeats.STALL_SECONDS", 0.2)

    async def story() -> None:
        world = World()
        world.beats = Heartbeats(dict, world, world, DetectorPolicy(), 5.0, lambda: False)  # type: ignore[arg-type]
        task = asyncio.create_task(world.beats.run())
        await asyncio.sleep(0.1)
        time.sleep(0.5)
        until = time.monotonic() + 10
        while "did not run" not in caplog.text:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])

    run(story())


def test_nodes_are_asked_evenly_each_once_an_interval() -> None:
    async def story() -> None:
        names = [f"web-{number}" for number in range(50)]
        world = World(*names)
        await world.live(20)
        world.asked.clear()
        begun = world.now
        await world.live(50)
        counts = [sum(1 for _, each in world.asked if each == name) for name in names]
        assert min(counts) >= 9
        assert max(counts) <= 11
        by_second = [sum(1 for at, _ in world.asked if begun + n <= at < begun + n + 1) for n in range(50)]
        assert max(by_second) <= 20  # 10 on average

    run(story())


def test_many_nodes_are_asked_less_often_and_never_more_than_a_hundred_a_second() -> None:
    async def story() -> None:
        world = World(*(f"web-{number}" for number in range(1000)))
        await world.live(25)
        assert world.beats.interval_seconds == pytest.approx(10)
        by_second = [sum(1 for at, _ in world.asked if 1000 + n <= at < 1001 + n) for n in range(25)]
        assert max(by_second) <= 160  # where the first round and the second one meet
        assert world.told == []
        assert {each.state for each in world.beats.statuses()} == {"up"}
        assert world.entries is not None
        for number in range(100, 1000):
            del world.entries[f"web-{number}"]
        await world.live(5)
        assert world.beats.interval_seconds == INTERVAL

    run(story())


def test_nodes_that_hang_do_not_make_others_suspect() -> None:
    async def story() -> None:
        names = [f"web-{number}" for number in range(200)]
        world = World(*names)
        await world.live(30)
        world.hang.update(names[:150])
        await world.live(100)
        assert {world.state(name) for name in names[150:]} == {"up"}
        assert {world.state(name) for name in names[:150]} == {"dead"}
        assert world.most_at_a_time <= 64

    run(story())


def test_a_node_that_fetches_its_commands_is_heard_through_the_store() -> None:
    async def story() -> None:
        world = World("web-1", pull=True)
        await world.live(2)
        for _ in range(20):
            world.send("web-1")
            await world.live(5)
        assert world.asked == []
        status = world.status()
        assert (status.state, status.via, status.units) == ("up", "pull", 3)
        assert status.interval_seconds == pytest.approx(5, abs=0.1)
        await world.live(40)
        assert world.state() == "dead"
        world.send("web-1")
        await world.live(2)
        assert world.state() == "up"

    run(story())


def test_what_cannot_be_read_from_the_store_is_no_silence() -> None:
    async def story() -> None:
        world = World("web-1", pull=True)
        for _ in range(10):
            world.send("web-1")
            await world.live(5)
        world.store_fails = True
        await world.live(300)
        assert world.state() == "up"

    run(story())


def test_news_that_cannot_be_written_are_told_later() -> None:
    async def story() -> None:
        world = World("web-1", least_deviation=2.0)
        await world.live(60)
        world.trouble["web-1"] = NodeUnreachable("web-1", "no route")
        world.store_fails = True
        await world.live(60)
        assert world.told == []
        world.store_fails = False
        await world.live(5)
        assert world.changes() == [("web-1", "up", "suspect"), ("web-1", "suspect", "dead")]

    run(story())


def test_a_fault_of_ours_is_not_the_end_of_listening() -> None:
    async def story() -> None:
        world = World("web-1")
        world.trouble["web-1"] = ValueError("a mistake")
        await world.live(7)
        assert "a mistake" in world.status().detail
        del world.trouble["web-1"]
        await world.live(7)
        assert world.state() == "up"

    run(story())
