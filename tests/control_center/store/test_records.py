"""Events and the audit log; who waits for changes; the leader, the mode."""

from __future__ import annotations

import asyncio
import time

import pytest

from control_center.errors import StoreError
from control_center.model import Mode, TargetState, Wish
from control_center.store import EVENTS, LEADER, Store, changes, commands_topic, records, result_topic
from tests.control_center.store.conftest import Place
from tests.control_center.store.operations import operation, target
from tests.control_center.store.test_evidence import report


async def test_events_are_read_in_their_order_from_where_a_reader_was(store: Store) -> None:
    added = [await store.add_event("node", {"node": f"n{number}", "mode": Mode.FULL}) for number in range(5)]
    assert [each.seq for each in added] == [1, 2, 3, 4, 5]
    assert await store.events(0) == added
    assert await store.events(2, limit=2) == added[2:4]
    assert await store.events(5) == []
    assert (await store.last_event_seq(), added[0].body) == (5, {"node": "n0", "mode": "full"})


async def test_a_reader_never_sees_an_event_before_an_earlier_one(store: Store, place: Place) -> None:
    centers = await place.centers(store)
    total = 60

    async def write(center: Store, count: int) -> None:
        for _ in range(count):
            await center.add_event("service", {})

    async def read() -> list[int]:
        seen: list[int] = []
        while len(seen) < total:
            seen += [each.seq for each in await store.events(seen[-1] if seen else 0)]
        return seen

    writers = [write(centers[number % len(centers)], total // 4) for number in range(4)]
    seen, *_ = await asyncio.gather(read(), *writers)
    assert seen == list(range(1, total + 1))


async def test_the_oldest_events_go(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "KEPT_EVENTS", 15)
    monkeypatch.setattr(records, "_SWEEP", 10)
    await asyncio.gather(*(store.add_event("node", {}) for _ in range(31)))
    assert [each.seq for each in await store.events(0)] == list(range(16, 32))


async def test_the_audit_log_is_read_newest_first(store: Store) -> None:
    for number in range(4):
        await store.audit(f"p{number}", "restart", {"reason": "é", "mode": Mode.FULL})
    found = await store.audit_records(limit=2, before=4)
    assert [(each["seq"], each["who"]) for each in found] == [(3, "p2"), (2, "p1")]
    assert (found[0]["action"], found[0]["body"]) == ("restart", {"reason": "é", "mode": "full"})
    assert found[0]["at"].endswith("Z")
    assert len(await store.audit_records()) == 4


async def test_the_database_itself_refuses_to_change_the_audit_log(store: Store, place: Place) -> None:
    await store.audit("me", "restart", {})
    before = await store.audit_records()
    statements = ["UPDATE audit SET who = 'nobody'", "DELETE FROM audit", "DELETE FROM audit WHERE seq = 1"]
    for statement in statements + ["TRUNCATE audit"] * place.is_shared:
        with pytest.raises(Exception, match="can only be appended to"):
            place.run(statement)
    assert await store.audit_records() == before


async def test_who_waits_is_woken_by_a_change_and_not_by_a_heartbeat(store: Store) -> None:
    seen = store.seen()
    waiting = asyncio.create_task(store.wait_changed(seen, 15))
    await store.put_heartbeat("n1", {}, 1.0)
    await store.audit("me", "x", {})
    assert await store.wait_changed(seen, 0.05) == seen
    await store.add_event("node", {})
    assert await waiting > seen
    assert await store.wait_changed(seen, 15) > seen  # what was missed is seen at once


async def test_who_waits_for_a_topic_is_left_alone_by_others(store: Store) -> None:
    epoch = await store.lead("a")
    kept = await store.add_operation(operation("cart", targets=[target("n1"), target("n2")]), "r")
    topics = [commands_topic("n1"), commands_topic("n2"), result_topic("c1"), "operations", "reports"]
    seen = {topic: store.seen(topic) for topic in topics}

    def moved() -> list[str]:
        return [topic for topic in topics if store.seen(topic) != seen[topic]]

    kept.targets[0].state = TargetState.SENT
    await store.save(kept, kept.targets[:1], epoch=epoch)
    assert moved() == [commands_topic("n1"), "operations"]
    seen |= {topic: store.seen(topic) for topic in topics}
    await store.put_result("n1", "c1", 202, {})
    assert moved() == [result_topic("c1")]
    assert await store.wait_changed(seen[result_topic("c1")], 15, result_topic("c1"))
    await store.put_report(report(), 1.0)
    await store.wish(kept.id, Wish.PAUSE, "me", "why")
    assert moved() == [result_topic("c1"), "operations", "reports"]


async def test_topics_of_long_ago_are_forgotten_and_then_may_have_changed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "_MOST_TOPICS", 5)
    seen = store.seen(result_topic("other"))
    waiting = asyncio.create_task(store.wait_changed(seen, 15, result_topic("other")))
    for number in range(10):
        await store.put_result("n1", f"c{number}", 202, {})
    assert await waiting != seen
    assert store.seen(result_topic("c9")) != seen
    seen = store.seen(result_topic("c9"))
    await store.put_result("n1", "c9", 202, {})
    assert store.seen(result_topic("c9")) != seen


async def test_a_write_that_is_refused_wakes_nobody(store: Store) -> None:
    old = await store.lead("a")
    kept = await store.add_operation(operation("cart"), "r")
    await store.lead("b")
    seen = store.seen()
    with pytest.raises(Exception, match="another control center leads"):
        await store.save(kept, epoch=old)
    assert store.seen() == seen


async def test_another_center_hears_of_changes(store: Store, place: Place) -> None:
    here, *others = await place.centers(store)
    for there in others:
        all_seen, seen, other = there.seen(), there.seen(EVENTS), there.seen(LEADER)
        waiting = asyncio.create_task(there.wait_changed(all_seen, 15))
        await here.add_event("node", {})
        assert await there.wait_changed(seen, 15, EVENTS) != seen
        assert (await waiting != all_seen, there.seen(LEADER)) == (True, other)


async def test_waiting_ends_with_its_time_and_leaves_nothing_behind(store: Store) -> None:
    began = time.monotonic()
    for _ in range(20):
        assert await store.wait_changed(store.seen("nothing"), 0.01, "nothing") == store.seen("nothing")
    assert time.monotonic() - began >= 0.2
    cancelled = asyncio.create_task(store.wait_changed(store.seen(), 15))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    await store.add_event("node", {})


async def test_the_leader_and_the_mode_are_known_to_all_and_kept(store: Store, place: Place) -> None:
    assert (await store.leader(), await store.mode()) == ((None, 0), Mode.ASSIST)
    assert [await store.lead("a"), await store.lead("b")] == [1, 2]
    assert await store.set_mode(Mode.OBSERVE, unless_set=True) is Mode.OBSERVE
    assert await store.set_mode(Mode.FULL, unless_set=True) is Mode.OBSERVE
    assert await store.set_mode(Mode.FULL) is Mode.FULL
    its_id = store.id
    await place.close()
    again = await place.open()
    assert (await again.leader(), await again.mode(), again.id) == (("b", 2), Mode.FULL, its_id)


async def test_a_closed_store_says_so(store: Store) -> None:
    await store.close()
    with pytest.raises(StoreError, match="is closed"):
        await store.mode()
    with pytest.raises(StoreError, match="is closed"):
        await store.audit("me", "x", {})
    await store.close()
