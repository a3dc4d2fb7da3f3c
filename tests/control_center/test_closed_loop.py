"""closed_loop.py on a real store: reports become decisions, and some of these restarts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from control_center.closed_loop import ClosedLoop
from control_center.errors import BadRequest, NodeRefused, NodeUnreachable, ServiceBusy, Superseded
from control_center.fleet import Fleet
from control_center.guard import GuardPolicy, Word
from control_center.model import Decision, Event, Mode, Operation, Report, Selection, Target, Verdict
from control_center.node_words import word_of
from control_center.store import Store
from registry_client.model import Entry
from tests.control_center.entries import entry, fleet_of

DEADLINE_SECONDS = 10.0
POLICY = GuardPolicy(service_burst=2)
AT = "2026-11-24T10:00:00.000Z"

Story = Callable[["Center"], Awaitable[None]]
Run = Callable[..., None]


class Nodes:
    """Stands for the channels: each unit says what the test wants."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.asked: list[str] = []
        self.fail: dict[str, Exception] = {}
        self.hang: set[str] = set()

    async def get(self, node: str, path: str) -> Any:
        self.asked.append(node)
        if node in self.hang:
            await asyncio.Event().wait()
        if node in self.fail:
            raise self.fail[node]
        return {
            "generation": 1,
            "state": self.states.get(node, "RUNNING"),
            "ready": True,
            "live": True,
            "why": "serving",
        }


class Center:
    """A closed loop, with a fleet, a clock and nodes that the test moves."""

    def __init__(self, store: Store, policy: GuardPolicy) -> None:
        self.store, self.policy = store, policy
        self.now = time.time()
        self.fleet: Fleet | None = fleet_of(*(entry(f"web-{number}", warmup_seconds=0) for number in range(8)))
        self.nodes = Nodes()
        self.orders: list[tuple[str, int]] = []
        self.order_fails: Exception | None = None
        self.looks = 0
        self.loops: list[ClosedLoop] = []
        self.loop = self.another()

    def another(self) -> ClosedLoop:
        """One more center's loop on the same store."""
        loop = ClosedLoop(self.store, self.nodes, self._fleet, self.policy, self._order, lambda: self.now)  # type: ignore[arg-type]
        self.loops.append(loop)
        return loop

    async def lead(self) -> int:
        epoch = await self.store.lead("center-1")
        self.loop.lead(epoch)
        return epoch

    async def close(self) -> None:
        for loop in self.loops:
            await loop.close()

    def _fleet(self) -> Fleet | None:
        self.looks += 1
        return self.fleet

    async def _order(self, found: Entry, decision: Decision) -> str:
        if self.order_fails is not None:
            raise self.order_fails
        kept = await self.store.decision(decision.id)
        assert kept is not None, "a decision is written down before it is acted on"
        self.orders.append((found.instance, decision.id))
        target = Target(node=found.node, unit=found.unit, instance=found.instance, service=found.service)
        operation = Operation(
            id=f"fo-{decision.id}", command_id=f"guard-{decision.id}", verb="restart",
            selection=Selection(instances=(found.instance,)), strategy=None, parameters={}, reason=decision.reason,
            issued_by="guard", created=AT, deadline=AT, cause="guard", targets=[target],
        )  # fmt: skip
        return (await self.store.add_operation(operation, "asked")).id

    async def report(self, *gateways: str, node: str = "web-0", **more: Any) -> None:
        """These gateways find a unit dead."""
        values = {"generation": 1, "symptom": "connect_refused", "count": 3, "first_seen": AT, "backends": 40} | more
        reports = [
            Report(gateway=gateway, service="cart", instance=f"{node}/cart", service_backends=8, **values)
            for gateway in gateways
        ]
        assert await self.loop.take(reports) == []

    async def report_most(self) -> None:
        """Two gateways find six of the eight units dead, at the same time."""
        reports = [
            Report(gateway, "cart", f"web-{number}/cart", 1, "check_failed", 1, AT, backends=100, service_backends=8)
            for gateway in ("gw-1", "gw-2")
            for number in range(6)
        ]
        await self.loop.take(reports)

    async def looked(self) -> None:
        """Everything that was known before this call has been judged."""
        seen = self.looks
        self.loop.wake()
        await self.until(lambda: self.looks > seen)
        seen = self.looks
        self.loop.wake()
        await self.until(lambda: self.looks > seen)

    async def decided(self, node: str = "web-0") -> list[tuple[str, str]]:
        """(verdict, rule) of all decisions about a unit, oldest first."""
        found = await self.store.decisions(limit=500, instance=f"{node}/cart")
        return [(each.verdict.value, each.rule) for each in reversed(found)]

    async def until_decided(self, verdict: str, rule: str, node: str = "web-0", *, ordered: bool = True) -> Decision:
        """The newest decision, once it is this one (and, of a restart, once its operation is known)."""
        until = time.monotonic() + DEADLINE_SECONDS
        while True:
            found = await self.store.decisions(limit=1, instance=f"{node}/cart")
            same = bool(found) and (found[0].verdict.value, found[0].rule) == (verdict, rule)
            if same and (verdict != "restart" or not ordered or found[0].operation):
                return found[0]
            assert time.monotonic() < until, f"not {verdict} {rule}: {await self.decided(node)}"
            await asyncio.sleep(0.02)

    async def until(self, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + DEADLINE_SECONDS
        while not holds():
            assert time.monotonic() < until, "it did not happen in time"
            await asyncio.sleep(0.01)

    async def events(self, kind: str) -> list[Event]:
        return [event for event in await self.store.events(0) if event.type == kind]

    async def until_told(self, kind: str) -> list[Event]:
        """The events of a type, once there are any."""
        until = time.monotonic() + DEADLINE_SECONDS
        while not (found := await self.events(kind)):
            assert time.monotonic() < until, f"no event of the type {kind}"
            await asyncio.sleep(0.02)
        return found

    async def end_operations(self) -> None:
        """Whatever was ordered has succeeded."""
        for header in await self.store.operations(open_only=True, limit=100):
            operation = await self.store.operation(header.id)
            assert operation is not None
            operation.state = type(operation.state).SUCCEEDED
            operation.finished = AT
            await self.store.save(operation, epoch=(await self.store.leader())[1])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(story: Story, policy: GuardPolicy = POLICY) -> None:
        async def whole() -> None:
            store = await Store.open(f"sqlite:///{tmp_path / 'center.sqlite'}")
            center = Center(store, policy)
            try:
                await story(center)
            finally:
                await center.close()
                await store.close()

        asyncio.run(whole())

    return run


def test_a_dead_unit_that_two_gateways_report_is_restarted_once(run: Run) -> None:
    async def story(center: Center) -> None:
        await center.lead()
        center.nodes.states["web-0"] = "UNHEALTHY"
        await center.report("gw-1", "gw-2")
        await center.until(lambda: bool(center.orders))
        decision = await center.until_decided("restart", "quorum")
        assert center.orders == [("web-0/cart", decision.id)]
        await center.report("gw-1", "gw-2")
        await center.looked()
        assert await center.decided() == [("restart", "quorum")]
        kept = await center.store.decision(decision.id)
        assert kept is not None
        assert kept.operation == f"fo-{decision.id}"
        told = (await center.until_told("decision"))[0].body
        assert (told["id"], told["operation"], told["verdict"]) == (decision.id, kept.operation, "restart")
        assert center.loop.budgets() == pytest.approx({"service cart": 1, "node web-0": 2, "fleet": 9})

    run(story)


def test_one_gateway_alone_needs_the_word_of_the_node(run: Run) -> None:
    async def story(center: Center) -> None:
        await center.lead()
        center.nodes.states["web-1"] = "UNHEALTHY"
        await center.report("gw-1", node="web-0")
        await center.report("gw-1", node="web-1")
        refused = await center.until_decided("refuse", "gateway_path_problem", "web-0")
        assert refused.evidence["node"]["detail"] == "serving"
        await center.until_decided("restart", "node_agrees", "web-1")
        assert [instance for instance, _ in center.orders] == ["web-1/cart"]

    run(story)


def test_a_second_gateway_makes_the_quorum(run: Run) -> None:
    async def story(center: Center) -> None:
        await center.lead()
        await center.report("gw-1")
        await center.until_decided("refuse", "gateway_path_problem")
        await center.report("gw-2")
        await center.until_decided("restart", "quorum")
        assert await center.decided() == [("refuse", "gateway_path_problem"), ("restart", "quorum")]

    run(story)


@pytest.mark.parametrize(
    "trouble", [NodeUnreachable("web-0", "no route"), NodeRefused("web-0", 403, "forbidden", "you may not")]
)
def test_a_node_that_does_not_tell_is_no_reason_to_restart(run: Run, trouble: Exception) -> None:
    async def story(center: Center) -> None:
        await center.lead()
        center.nodes.fail["web-0"] = trouble
        await center.report("gw-1")
        rule = "node_unreachable" if isinstance(trouble, NodeUnreachable) else "quorum"
        await center.until_decided("wait", rule)
        del center.nodes.fail["web-0"]
        center.nodes.states["web-0"] = "UNHEALTHY"
        center.now += 4  # what it said is too old
        await center.looked()
        await center.until_decided("restart", "node_agrees")

    run(story)


def test_a_node_that_hangs_holds_nobody_up_for_long(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_center.node_words.ASK_SECONDS", 0.2)

    async def story(center: Center) -> None:
        await center.lead()
        center.nodes.hang.add("web-0")
        await center.report("gw-1", "gw-2", node="web-0")
        await center.report("gw-1", "gw-2", node="web-1")
        await center.until_decided("restart", "quorum", "web-1")
        await center.until_decided("wait", "node_unreachable", "web-0")

    run(story)


def test_a_gateway_that_accuses_everything_restarts_nothing_and_is_alarmed(run: Run) -> None:
    async def story(center: Center) -> None:
        await center.lead()
        await center.report("gw-2", node="web-7", state="cleared")
        for number in range(8):
            await center.report("gw-1", node=f"web-{number}", backends=8)
        await center.looked()
        for number in range(8):
            assert (await center.decided(f"web-{number}"))[-1][0] == "refuse"
        assert center.orders == []
        alarms = [event.body for event in await center.until_told("gateway")]
        assert [(each["gateway"], bool(each["doubted"])) for each in alarms] == [("gw-1", True)]
        assert center.loop.complaints() == frozenset()

    run(story)


def test_a_service_that_looks_dead_is_frozen_until_that_is_over(run: Run) -> None:
    async def story(center: Center) -> None:
        await center.lead()
        await center.report_most()
        await center.until_decided("refuse", "self_preservation", "web-5")
        frozen = await center.loop.frozen()
        assert "6 of 8 instances of cart look dead" in frozen["cart"]
        center.now += POLICY.window_seconds + 1
        await center.looked()
        await center.until(lambda: not center.loop.complaints())
        assert await center.loop.frozen() == {}
        assert center.orders == []
        told = [event.body["frozen"] for event in await center.events("service")]
        assert [bool(each) for each in told] == [True, False]

    run(story)


def test_a_person_lets_a_frozen_service_go(run: Run) -> None:
    async def story(center: Center) -> None:
        await center.lead()
        with pytest.raises(BadRequest) as caught:
            await center.loop.clear("service", "cart", "ann")
        assert (caught.value.code, caught.value.status) == ("nothing_held", 409)
        center.nodes.states.update({f"web-{number}": "UNHEALTHY" for number in range(6)})
        await center.report_most()
        await center.until_decided("refuse", "self_preservation", "web-5")
        assert center.orders == []
        await center.loop.clear("service", "cart", "ann")
        await center.until(lambda: len(center.orders) == 2)  # its budget
        await center.looked()
        assert await center.loop.frozen() == {}
        assert len(center.orders) == 2

    run(story)


def test_the_budget_is_kept_over_the_end_of_a_center(run: Run) -> None:
    async def story(center: Center) -> None:
        await center.lead()
        for number in (0, 1):
            await center.report("gw-1", "gw-2", node=f"web-{number}")
            await center.until_decided("restart", "quorum", f"web-{number}")
            await center.end_operations()
        await center.loop.close()
        center.loop = center.another()
        await center.lead()
        await center.report("gw-1", "gw-2", node="web-2")
        await center.until_decided("wait", "budget_service", "web-2")
        center.now += 31
        await center.report("gw-1", "gw-2", node="web-2")
        await center.until_decided("restart", "quorum", "web-2")
        assert len(center.orders) == 3

    run(story)


def test_a_unit_that_is_restarted_again_and_again_becomes_fatal_until_a_person_clears_it(run: Run) -> None:
    policy = GuardPolicy(min_interval_seconds=1, backoff_initial=1, fatal_restarts=2, service_burst=9, node_burst=9)

    async def story(center: Center) -> None:
        await center.lead()
        for restarts in (1, 2):
            await center.report("gw-1", "gw-2")
            await center.until(lambda: len(center.orders) == restarts)  # noqa: B023
            await center.until_decided("restart", "quorum")
            await center.end_operations()
            center.now += 20
            await center.looked()
        await center.report("gw-1", "gw-2")
        await center.until_decided("fatal", "fatal")
        center.now += 3600
        await center.report("gw-1", "gw-2")
        await center.until_decided("fatal", "fatal")
        await center.loop.close()
        center.loop = center.another()
        await center.lead()
        await center.report("gw-1", "gw-2")
        await center.looked()
        assert len(center.orders) == 2
        await center.loop.clear("instance", "web-0/cart", "ann")
        await center.until(lambda: len(center.orders) == 3)

    run(story, policy)


def test_in_observe_mode_nothing_is_restarted_and_nothing_is_spent(run: Run) -> None:
    async def story(center: Center) -> None:
        await center.store.set_mode(Mode.OBSERVE)
        await center.lead()
        await center.report("gw-1", "gw-2")
        await center.until_decided("would_restart", "quorum")
        assert center.orders == []
        assert center.loop.budgets() == {}
        await center.store.set_mode(Mode.ASSIST)
        await center.looked()
        await center.until_decided("restart", "quorum")

    run(story)


def test_the_same_answer_to_the_same_reports_is_written_once(run: Run) -> None:
    async def story(center: Center) -> None:
        await center.lead()
        for _ in range(4):
            await center.report("gw-1")
            await center.looked()
            center.now += 4
        assert await center.decided() == [("refuse", "gateway_path_problem")]
        await center.loop.close()
        center.loop = center.another()
        await center.lead()
        await center.report("gw-1")
        await center.looked()
        assert len(await center.decided()) == 1

    run(story)


def test_what_a_gateway_takes_back_ends_the_case(run: Run) -> None:
    async def story(center: Center) -> None:
        await center.lead()
        await center.report("gw-1")
        await center.until_decided("refuse", "gateway_path_problem")
        await center.until(lambda: center.loop.complaints() == {"web-0/cart"})
        await center.report("gw-1", state="cleared")
        await center.until(lambda: center.loop.complaints() == frozenset())
        await center.report("gw-2")
        await center.looked()
        assert center.orders == []

    run(story)


def test_nothing_is_decided_while_the_registry_is_in_doubt(run: Run) -> None:
    async def story(center: Center) -> None:
        fleet, center.fleet = center.fleet, None
        await center.lead()
        await center.report("gw-1", "gw-2")
        await center.looked()
        assert await center.decided() == []
        center.fleet = fleet
        await center.looked()
        await center.until_decided("restart", "quorum")

    run(story)


def test_a_center_that_does_not_lead_keeps_reports_and_decides_nothing(run: Run) -> None:
    async def story(center: Center) -> None:
        await center.report("gw-1", "gw-2")
        assert len(await center.store.reports(0)) == 2
        assert await center.decided() == []
        await center.lead()
        await center.until_decided("restart", "quorum")

    run(story)


def test_a_center_that_is_superseded_stops(run: Run) -> None:
    async def story(center: Center) -> None:
        await center.lead()
        await center.looked()
        await center.store.lead("center-2")
        await center.report("gw-1", "gw-2")
        await asyncio.wait_for(center.loop._running, DEADLINE_SECONDS)  # type: ignore[arg-type]
        assert center.orders == []
        assert await center.decided() == []

    run(story)


def test_a_restart_that_was_decided_and_not_ordered_is_ordered_by_the_next_center(run: Run) -> None:
    async def story(center: Center) -> None:
        center.order_fails = Superseded(1, 2)
        await center.lead()
        await center.report("gw-1", "gw-2")
        await center.until_decided("restart", "quorum", ordered=False)
        await center.loop.close()
        center.order_fails, center.loop = None, center.another()
        await center.lead()
        await center.until(lambda: len(center.orders) == 1)
        await center.looked()
        assert await center.decided() == [("restart", "quorum")]

    run(story)


def test_a_restart_that_cannot_be_ordered_costs_nothing(run: Run) -> None:
    async def story(center: Center) -> None:
        center.order_fails = ServiceBusy("cart", "fo-1")
        await center.lead()
        await center.report("gw-1", "gw-2")
        await center.until_decided("refuse", "order")
        left = center.loop.budgets()
        assert left == pytest.approx({"service cart": 2, "node web-0": 3, "fleet": 10})
        await center.loop.close()
        center.order_fails, center.loop = None, center.another()
        await center.lead()  # what was refused is not left undone
        await center.until_decided("restart", "quorum")
        assert len(center.orders) == 1
        assert await center.decided() == [("restart", "quorum"), ("refuse", "order"), ("restart", "quorum")]

    run(story)


def test_an_operation_of_the_service_is_waited_for(run: Run) -> None:
    async def story(center: Center) -> None:
        operation = Operation(
            id="fo-person", command_id="p", verb="restart", selection=Selection(services=("cart",)), strategy=None,
            parameters={}, reason="", issued_by="ann", created=AT, deadline=AT, services=("cart",),
            targets=[Target(node="web-5", unit="cart", instance="web-5/cart", service="cart")],
        )  # fmt: skip
        await center.store.add_operation(operation, "asked")
        await center.lead()
        await center.report("gw-1", "gw-2", node="web-0")
        await center.report("gw-1", "gw-2", node="web-5")
        await center.until_decided("wait", "under_way", "web-0")
        await center.until_decided("refuse", "under_way", "web-5")
        await center.end_operations()
        await center.until_decided("restart", "quorum", "web-0")

    run(story)


def test_instances_that_have_just_gone_count_as_away(run: Run) -> None:
    async def story(center: Center) -> None:
        await center.lead()
        await center.looked()
        assert center.fleet is not None
        center.fleet = fleet_of(*(each for each in center.fleet.all_entries() if each.node not in ("web-6", "web-7")))
        center.now += 1
        await center.looked()
        await center.report("gw-1", "gw-2")
        decision = await center.until_decided("wait", "max_unavailable")
        assert (decision.evidence["instances"], decision.evidence["unavailable"]) == (8, 2)
        center.now += 601
        await center.report("gw-1", "gw-2")
        await center.until_decided("restart", "quorum")

    run(story)


def test_a_unit_with_another_life_is_not_restarted_for_the_old_one(run: Run) -> None:
    async def story(center: Center) -> None:
        assert center.fleet is not None
        entries = [replace(each, generation=2) for each in center.fleet.all_entries()]
        center.fleet = fleet_of(*entries)
        await center.lead()
        await center.report("gw-1", "gw-2")
        await center.until_decided("refuse", "generation")
        assert center.nodes.asked == []
        await center.report("gw-1", "gw-2", node="nowhere")
        await center.until_decided("refuse", "unknown_instance", "nowhere")

    run(story)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ({}, Word.HEALTHY),
        ({"state": "WARMING"}, Word.HEALTHY),
        ({"state": "UNHEALTHY"}, Word.UNHEALTHY),
        ({"ready": False}, Word.UNHEALTHY),
        ({"live": False}, Word.UNHEALTHY),
        ({"probes": [{"ok": True}, {"ok": False}]}, Word.UNHEALTHY),
        ({"probes": [{"ok": None}]}, Word.HEALTHY),
        ({"operation": "op-1"}, Word.BUSY),
        ({"state": "STARTING"}, Word.BUSY),
        ({"state": "DRAINED"}, Word.BUSY),
        ({"state": "FATAL"}, Word.BUSY),
        ({"generation": 3}, Word.NEWER),
        ({"generation": None}, Word.UNCLEAR),
    ],
)
def test_what_a_unit_s_status_says_of_it(status: dict[str, Any], word: Word) -> None:
    whole = {"generation": 2, "state": "RUNNING", "ready": True, "live": True, "operation": None, "why": "x"}
    assert word_of(whole | status, 2)[0] is word


def test_a_node_that_does_not_know_the_unit_is_unclear() -> None:
    assert word_of(None, 2)[0] is Word.UNCLEAR
    assert word_of({"units": []}, 2)[0] is Word.UNCLEAR


def test_the_verdicts_that_order_something_are_known() -> None:
    """Whoever adds one must think of what acts on it."""
    assert {each.value for each in Verdict} == {"restart", "would_restart", "wait", "refuse", "fatal"}
