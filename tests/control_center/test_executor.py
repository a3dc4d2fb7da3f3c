"""Operations from asking to their end: the real store and registry, nodes that do what a test wants."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from control_center.asking import NewOperation
from control_center.channels import NodeAnswer, NodeCommand
from control_center.delivery import Delivery
from control_center.errors import BadRequest, CommandDiffers, NodeRefused, NodeUnreachable, ServiceBusy
from control_center.executor import Executor
from control_center.following import Following
from control_center.model import Decision, Operation, Selection, Strategy, TargetState, Verdict, Wish
from control_center.store import Store
from registry_client.backends.embedded import EmbeddedBackend, EmbeddedRegistry
from registry_client.model import Entry

SECONDS = 15.0
AT_ONCE = Strategy(batch="1", canary=0, bake_seconds=0.0, floor_percent=50.0, by_zone=False)


def in_future(seconds: float = 3600.0) -> str:
    """A deadline."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


class Nodes:
    """In the place of the channels: nodes whose units restart in no time, and that fail as a test tells them to."""

    def __init__(self, registry: EmbeddedBackend) -> None:
        self.registry = registry
        self.fails: dict[str, list[Exception]] = {}  # node -> what becomes of the next calls to it
        self.forgets: set[str] = set()  # nodes that lose all they know before the next question
        self.holds: set[str] = set()  # nodes that do not finish anything
        self.silent: set[str] = set()  # nodes that do not tell of their units
        self.stopped: list[str] = []  # units of the service web that each node has besides
        self.sent: list[tuple[str, NodeCommand]] = []
        self.carried: Counter[str] = Counter()  # command id -> how often it was really carried out
        self._known: dict[str, dict[str, Any]] = {}

    async def send(self, node: str, command: NodeCommand) -> NodeAnswer:
        """As a node answers."""
        self.sent.append((node, command))
        if self.fails.get(node):
            raise self.fails[node].pop(0)
        if command.command_id not in self._known:
            await self._carry_out(node, command)
        return NodeAnswer(202, {"operations": [self._known[command.command_id]]})

    async def operations(self, node: str, command_id: str, wait_seconds: float) -> list[dict[str, Any]]:
        """As a node answers, or it knows nothing."""
        if node in self.forgets:
            self.forgets.discard(node)
            self._known.pop(command_id, None)
        if command_id not in self._known:
            raise NodeRefused(node, 404, "not_found", "no such command is known")
        await asyncio.sleep(0.01)
        operation = self._known[command_id]
        if node not in self.holds and operation["state"] == "running":
            await self.finish(node, command_id)
        return [self._known[command_id]]

    async def get(self, node: str, path: str) -> Any:
        """Its units, those that are stopped too."""
        assert path == "/v1/units"
        if node in self.silent:
            raise NodeUnreachable(node, "connection refused", may_have_counted=False)
        units = [{"unit": unit, "service": "web", "generation": 4, "full_weight": 100} for unit in self.stopped]
        return {"units": [{"unit": "web", "service": "web"}, {"unit": "cron", "service": None}, *units]}

    async def _carry_out(self, node: str, command: NodeCommand) -> None:
        self.carried[command.command_id] += 1
        steps = [{"name": "drain", "state": "running", "detail": "2 requests are open"}]
        self._known[command.command_id] = {
            "id": "op-1",
            "unit": "web",
            "state": "running",
            "steps": steps,
            "error": None,
        }

    async def finish(self, node: str, command_id: str) -> None:
        """The unit is back, one generation on."""
        entry = await self.registry.get("web", f"{node}/web")
        assert entry is not None
        await self.registry.register(replace(entry, generation=entry.generation + 1), 60.0)
        self._known[command_id] = {"id": "op-1", "unit": "web", "state": "succeeded", "steps": [], "error": None}


class Site:
    """One store, one registry with four instances of the service web, and executors on them."""

    def __init__(self, store: Store, registry: EmbeddedBackend) -> None:
        self.store, self.registry, self.nodes = store, registry, Nodes(registry)
        self.following = Following(registry, 0.0, self._changed)
        self.delivery = Delivery(self.nodes, self.following, store.id)  # type: ignore[arg-type]
        self.ended: list[Operation] = []
        self.executor = self.new_executor()

    def new_executor(self, name: str = "c1") -> Executor:
        """Another center's."""
        return Executor(
            self.store, self.following, self.nodes, self.delivery, AT_ONCE, name=name, doubts=frozenset,
            on_end=self.ended.append,
        )  # fmt: skip

    def _changed(self) -> None:
        self.delivery.fleet_changed()
        self.executor.fleet_changed()

    async def until(self, what: Callable[[Operation], bool], id_: str) -> Operation:
        """The operation as soon as that is true of it."""
        async with asyncio.timeout(SECONDS):
            while True:
                operation = await self.store.operation(id_)
                assert operation is not None
                if what(operation):
                    return operation
                await asyncio.sleep(0.02)

    async def until_done(self, id_: str) -> Operation:
        """As it has ended."""
        return await self.until(lambda operation: operation.state.done, id_)


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    """A site that leads with epoch 1 as soon as its registry is known."""
    registry = EmbeddedBackend(EmbeddedRegistry())
    for number in range(4):
        await registry.register(an_entry(number), 60.0)
    store = await Store.open(f"sqlite:///{folder}/center.db")
    made = Site(store, registry)
    following = asyncio.create_task(made.following.run())
    try:
        async with asyncio.timeout(SECONDS):
            while made.following.certain() is None:
                await made.following.changed(1.0)
        yield made
    finally:
        await made.executor.close()
        following.cancel()
        await asyncio.wait([following])
        await registry.close()
        await store.close()


def an_entry(number: int) -> Entry:
    """Of the unit web on the node n0, n1, ..."""
    return Entry(
        service="web", instance=f"n{number}/web", node=f"n{number}", unit="web", address="127.0.0.1", port=9000 + number,
        generation=1, started_at="2026-11-23T06:29:10.123Z",
    )  # fmt: skip


def a_restart(**more: Any) -> NewOperation:
    """Of the whole service, one instance after another."""
    asked: dict[str, Any] = {
        "verb": "restart", "selection": Selection(services=("web",)), "strategy": AT_ONCE, "deadline": in_future(),
        "reason": "a test", "issued_by": "tester", **more,
    }  # fmt: skip
    return NewOperation(**asked)


def run(folder: Path, scene: Callable[[Site], Coroutine[Any, Any, None]]) -> None:
    """Play a scene on a site of its own."""

    async def play() -> None:
        async with site(folder) as made:
            await scene(made)

    asyncio.run(play())


def test_a_rolling_restart_ends_when_the_registry_shows_each_instance_anew(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        site.executor.lead(await site.store.lead("c1"))
        begun = await site.executor.begin(a_restart())
        done = await site.until_done(begun.id)
        assert done.state == "succeeded", done.error
        assert [target.state for target in done.targets] == [TargetState.SUCCEEDED] * 4
        assert set(site.nodes.carried.values()) == {1} and len(site.nodes.carried) == 4
        assert [batch.state for batch in done.batches] == ["succeeded"] * 4
        async with asyncio.timeout(SECONDS):
            while not site.ended:  # told right after it is written
                await asyncio.sleep(0.01)
        assert [operation.id for operation in site.ended] == [begun.id]
        assert next(event.body["id"] for event in await site.store.events(0)) == begun.id

    run(tmp_path, scene)


def test_what_gets_no_answer_is_sent_again_under_the_same_id_and_carried_out_once(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        site.nodes.fails["n0"] = [NodeUnreachable("n0", "connection refused", may_have_counted=False)] * 2
        site.nodes.fails["n1"] = [NodeUnreachable("n1", "no answer within 5 s")]
        site.executor.lead(await site.store.lead("c1"))
        begun = await site.executor.begin(a_restart())
        done = await site.until_done(begun.id)
        assert done.state == "succeeded", done.error
        to_n0 = [command.command_id for node, command in site.nodes.sent if node == "n0"]
        assert len(to_n0) == 3 and len(set(to_n0)) == 1
        assert done.targets[0].attempts == 3
        assert set(site.nodes.carried.values()) == {1}

    run(tmp_path, scene)


def test_a_node_that_is_back_is_not_waited_for_any_longer(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        waiting = asyncio.create_task(site.delivery.wait_for_node("n0", 600.0))
        await site.registry.register(replace(an_entry(1), generation=2), 60.0)  # somebody else's news
        await site.following.refresh()
        assert not waiting.done()
        node = replace(an_entry(0), service="unitd", instance="n0", unit="unitd")
        await site.registry.register(node, 60.0)
        async with asyncio.timeout(SECONDS):
            await waiting

    run(tmp_path, scene)


def test_a_node_that_is_never_reached_before_the_deadline_never_gets_the_command_later(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        site.nodes.fails["n0"] = [NodeUnreachable("n0", "connection refused", may_have_counted=False)] * 1000
        site.executor.lead(await site.store.lead("c1"))
        selection = Selection(instances=("n0/web",))
        begun = await site.executor.begin(a_restart(selection=selection, strategy=None, deadline=in_future(0.3)))
        done = await site.until_done(begun.id)
        assert done.state == "expired" and done.targets[0].state is TargetState.EXPIRED
        assert "never reached" in done.targets[0].detail
        assert not site.nodes.carried

    run(tmp_path, scene)


def test_after_the_deadline_a_command_that_may_have_arrived_is_sent_on_until_the_node_says_what_became_of_it(
    tmp_path: Path,
) -> None:
    async def scene(site: Site) -> None:
        lost = NodeUnreachable("n0", "the connection broke off")
        late = NodeRefused("n0", 410, "deadline_passed", "its deadline has passed")
        site.nodes.fails["n0"] = [lost, lost, lost, late]
        site.executor.lead(await site.store.lead("c1"))
        selection = Selection(instances=("n0/web",))
        begun = await site.executor.begin(a_restart(selection=selection, strategy=None, deadline=in_future(0.1)))
        done = await site.until_done(begun.id)
        assert done.targets[0].state is TargetState.EXPIRED and done.targets[0].attempts == 4

    run(tmp_path, scene)


def test_the_first_refusal_stops_a_rolling_restart_and_says_why(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        site.nodes.fails["n1"] = [NodeRefused("n1", 403, "forbidden", "center may not command units of web")]
        site.executor.lead(await site.store.lead("c1"))
        begun = await site.executor.begin(a_restart())
        done = await site.until_done(begun.id)
        states = [target.state.value for target in done.targets]
        assert done.state == "failed" and states == ["succeeded", "failed", "skipped", "skipped"]
        assert done.error is not None and "center may not command units of web" in done.error

    run(tmp_path, scene)


def test_a_node_that_lost_its_memory_gets_the_command_again(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        site.nodes.forgets.add("n2")
        site.executor.lead(await site.store.lead("c1"))
        done = await site.until_done((await site.executor.begin(a_restart())).id)
        assert done.state == "succeeded" and done.targets[2].attempts == 2

    run(tmp_path, scene)


def test_a_center_whose_epoch_a_node_refuses_stops_and_leaves_the_operation_open(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        site.nodes.fails["n0"] = [NodeRefused("n0", 409, "stale_epoch", "a center with epoch 7 leads")]
        superseded = asyncio.Event()
        site.executor = Executor(
            site.store, site.following, site.nodes, site.delivery, AT_ONCE, name="c1", doubts=frozenset,
            on_superseded=superseded.set,
        )  # fmt: skip
        site.executor.lead(await site.store.lead("c1"))
        begun = await site.executor.begin(a_restart())
        async with asyncio.timeout(SECONDS):
            await superseded.wait()
        assert (await site.until(lambda operation: True, begun.id)).targets[0].state is TargetState.SENT
        assert len(site.nodes.sent) == 1 and not site.nodes.carried
        site.executor = site.new_executor("c2")
        site.executor.lead(await site.store.lead("c2"))
        done = await site.until_done(begun.id)
        assert done.state == "succeeded" and set(site.nodes.carried.values()) == {1}

    run(tmp_path, scene)


def test_another_center_goes_on_where_the_first_one_stopped_and_sends_nothing_twice(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        site.nodes.holds.add("n1")
        site.executor.lead(await site.store.lead("c1"))
        begun = await site.executor.begin(a_restart())
        await site.until(lambda operation: operation.targets[1].state is TargetState.RUNNING, begun.id)
        await site.executor.close()
        site.nodes.holds.clear()
        site.executor = site.new_executor("c2")
        site.executor.lead(await site.store.lead("c2"))
        done = await site.until_done(begun.id)
        assert done.state == "succeeded", done.error
        assert set(site.nodes.carried.values()) == {1} and len(site.nodes.sent) == 4
        assert done.epoch == 2

    run(tmp_path, scene)


def test_paused_nothing_is_begun_and_aborted_what_was_begun_ends_first(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        site.nodes.holds.add("n0")
        site.executor.lead(await site.store.lead("c1"))
        begun = await site.executor.begin(a_restart())
        await site.until(lambda operation: operation.targets[0].state is TargetState.RUNNING, begun.id)
        await site.executor.wish(begun.id, Wish.PAUSE, "tester", "")
        await site.until(lambda operation: operation.state.value == "paused", begun.id)
        site.nodes.holds.clear()
        await site.until(lambda operation: operation.targets[0].state.done, begun.id)
        await site.executor.wish(begun.id, Wish.RUN, "tester", "")
        await site.until(lambda operation: operation.targets[1].state is not TargetState.PENDING, begun.id)
        await site.executor.wish(begun.id, Wish.ABORT, "tester", "enough")
        done = await site.until_done(begun.id)
        assert done.state == "aborted" and not any(target.state.busy for target in done.targets)
        with pytest.raises(BadRequest, match="has ended"):
            await site.executor.wish(begun.id, Wish.RUN, "tester", "")
        assert await site.executor.wish("fo-unknown", Wish.RUN, "tester", "") is None

    run(tmp_path, scene)


def test_the_same_command_is_the_same_operation_and_a_service_has_one_at_a_time(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        asked = a_restart(command_id="deploy-7")
        first = await site.executor.begin(asked)
        assert (await site.executor.begin(asked)).id == first.id
        with pytest.raises(CommandDiffers):
            await site.executor.begin(a_restart(command_id="deploy-7", reason="another"))
        with pytest.raises(ServiceBusy, match=first.id):
            await site.executor.begin(a_restart())
        assert len(await site.store.operations(open_only=True)) == 1

    run(tmp_path, scene)


def test_a_plan_is_shown_without_being_kept_and_what_may_not_be_is_refused_before_it_is(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        shown = await site.executor.preview(a_restart())
        assert shown.id == "" and len(shown.batches) == 4 and shown.baseline == {"web": 400}

        def refuse(services: Any) -> None:
            raise BadRequest("no", code="forbidden", status=403)

        for call in (site.executor.preview, site.executor.begin):
            with pytest.raises(BadRequest, match="no"):
                await call(a_restart(permit=refuse))
            with pytest.raises(BadRequest, match="one unit"):
                await call(a_restart(expected_generation=1))
        assert await site.store.operations() == []

    run(tmp_path, scene)


def test_the_guard_restarts_one_instance_in_the_generation_that_was_judged(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        site.executor.lead(await site.store.lead("c1"))
        decision = Decision(
            at=in_future(0), service="web", instance="n3/web", generation=1, verdict=Verdict.RESTART, rule="quorum",
            reason="2 gateways cannot reach it", id=17,
        )  # fmt: skip
        id_ = await site.executor.order(an_entry(3), decision)
        assert await site.executor.order(an_entry(3), decision) == id_, "the same decision orders once"
        done = await site.until_done(id_)
        assert done.state == "succeeded" and done.cause == "guard" and done.reason == decision.reason
        body = site.nodes.sent[0][1].body
        assert body["expected_generation"] == 1 and body["epoch"] == 1 and body["center"] == site.store.id

    run(tmp_path, scene)


def test_what_is_stopped_is_started_by_its_service_as_far_as_its_nodes_can_be_asked(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        for number in range(3):
            node = Entry(
                service="unitd", instance=f"n{number}", node=f"n{number}", unit="unitd", address="127.0.0.1",
                port=9301, generation=1, started_at="2026-11-23T06:29:10.123Z",
            )  # fmt: skip
            await site.registry.register(node, 60.0)
        await site.following.refresh()
        site.nodes.stopped, site.nodes.silent = ["web-night"], {"n2"}
        shown = await site.executor.preview(a_restart(verb="start", strategy=None))
        assert [target.instance for target in shown.targets] == [
            "n0/web", "n0/web-night", "n1/web", "n1/web-night", "n2/web", "n3/web",
        ]  # fmt: skip
        assert {target.service for target in shown.targets} == {"web"}
        again = await site.executor.preview(a_restart(strategy=None))
        assert [target.unit for target in again.targets] == ["web"] * 4, "a restart is for what serves"

    run(tmp_path, scene)


def test_without_a_registry_nothing_is_planned(tmp_path: Path) -> None:
    async def scene(site: Site) -> None:
        blind = Following(site.registry, 0.0, lambda: None)
        executor = Executor(site.store, blind, site.nodes, site.delivery, AT_ONCE, name="c1", doubts=frozenset)
        with pytest.raises(BadRequest, match="registry has not answered") as caught:
            await executor.begin(a_restart())
        assert caught.value.status == 503

    run(tmp_path, scene)
