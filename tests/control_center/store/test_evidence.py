"""Reports, decisions, facts, and what nodes that fetch their commands have said."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from control_center.errors import Superseded
from control_center.model import Decision, Report, Verdict
from control_center.store import Store
from tests.control_center.store.conftest import Place


def report(gateway: str = "g1", instance: str = "n1/cart:0", generation: int = 3, **more: Any) -> Report:
    values = {"symptom": "connect_refused", "count": 2, "first_seen": "2030-01-01T00:00:00.000Z", **more}
    return Report(gateway, "cart", instance, generation, **values)


def decision(instance: str = "n1/cart:0", service: str = "cart", **more: Any) -> Decision:
    values = {"rule": "quorum", "reason": "one of two", "evidence": {"gateways": ["g1", {"é": 1.5}]}, **more}
    return Decision("2030-01-01T00:00:00.000Z", service, instance, 3, Verdict.WAIT, **values)


async def test_a_report_that_is_repeated_keeps_the_time_of_the_first(store: Store) -> None:
    await store.put_report(report(), 100.0)
    await store.put_report(report(count=5, detail="é"), 110.0)
    await store.put_report(report("g2"), 105.0)
    assert await store.reports(99.0) == [(report(count=5, detail="é"), 100.0, 110.0), (report("g2"), 105.0, 105.0)]
    assert [each.gateway for each, _, _ in await store.reports(105.0)] == ["g1"]


async def test_a_report_of_another_generation_begins_anew(store: Store) -> None:
    await store.put_report(report(generation=3), 100.0)
    await store.put_report(report(generation=4), 110.0)
    assert await store.reports(0) == [(report(generation=4), 110.0, 110.0)]


async def test_many_reports_are_kept_together(store: Store) -> None:
    many = [report(instance=f"n{number}/cart:0") for number in range(1000)]
    await store.put_reports([*many, report(instance="n7/cart:0", count=9)], 100.0)
    await store.put_reports([], 100.0)
    found = {each.instance: each.count for each, _, _ in await store.reports(0)}
    assert (len(found), found["n7/cart:0"]) == (1000, 9)


async def test_reports_of_an_instance_are_forgotten_of_all_gateways_or_of_one(store: Store) -> None:
    for gateway in ("g1", "g2", "g3"):
        await store.put_report(report(gateway), 100.0)
        await store.put_report(report(gateway, "n2/cart:0"), 101.0)
    await store.clear_reports("cart", "n1/cart:0", "g2")
    assert [each.gateway for each, first, _ in await store.reports(0) if first == 100.0] == ["g1", "g3"]
    await store.clear_reports("cart", "n1/cart:0")
    assert {each.instance for each, _, _ in await store.reports(0)} == {"n2/cart:0"}


async def test_decisions_get_numbers_and_are_paged_newest_first(store: Store) -> None:
    epoch = await store.lead("a")
    kept = [await store.add_decision(decision(), epoch=epoch) for _ in range(3)]
    kept.append(await store.add_decision(decision("n2/pay:0", "pay", operation="o1"), epoch=None))
    assert [each.id for each in kept] == [1, 2, 3, 4]
    assert await store.decisions() == kept[::-1]
    assert await store.decisions(limit=2, before=4) == [kept[2], kept[1]]
    assert await store.decisions(service="pay") == await store.decisions(instance="n2/pay:0") == [kept[3]]
    assert await store.decisions(service="pay", instance="n1/cart:0") == []
    assert await store.decision(2) == kept[1]
    assert await store.decision(9) is None


async def test_a_decision_is_told_what_operation_it_has_become(store: Store) -> None:
    old = await store.lead("a")
    kept = await store.add_decision(decision(), epoch=old)
    await store.put_ordered(kept.id, "o1", epoch=old)
    await store.put_ordered(99, "o1", epoch=old)
    assert await store.decisions() == [replace(kept, operation="o1")]
    await store.lead("b")
    with pytest.raises(Superseded):
        await store.put_ordered(kept.id, "o2", epoch=old)
    assert await store.decision(kept.id) == replace(kept, operation="o1")


async def test_facts_are_found_by_the_beginning_of_their_names(store: Store) -> None:
    epoch = await store.lead("a")
    for name, value in {"a_b/1": [1], "a_b/2": {"x": None}, "axb/3": 3, "a%": False}.items():
        await store.put_fact(name, value, epoch=epoch)
    assert await store.facts("a_b/") == {"a_b/1": [1], "a_b/2": {"x": None}}
    assert await store.facts("a%") == {"a%": False}
    await store.put_fact("a_b/1", {"new": True}, epoch=epoch)
    await store.put_fact("a_b/2", None, epoch=epoch)
    await store.put_fact("never was", None, epoch=epoch)
    assert await store.facts() == {"a_b/1": {"new": True}, "axb/3": 3, "a%": False}


async def test_the_newest_answer_of_the_node_that_got_the_command_counts(store: Store) -> None:
    assert await store.result("c1") is None
    await store.put_result("n1", "c1", 202, {"operations": [{"state": "running"}]})
    await store.put_result("n1", "c1", 202, {"operations": [{"state": "succeeded"}]})
    await store.put_result("n2", "c1", 409, {})
    assert await store.result("c1") == (202, {"operations": [{"state": "succeeded"}]})


async def test_heartbeats_of_many_nodes_at_once_are_all_kept_and_the_newest_of_each_counts(
    store: Store, place: Place
) -> None:
    centers = await place.centers(store)
    await asyncio.gather(
        *(
            centers[(number + beat) % len(centers)].put_heartbeat(f"n{number}", {"beat": beat}, 100.0 + beat)
            for beat in range(2)
            for number in range(300)
        )
    )
    await asyncio.gather(*(centers[0].put_heartbeat(f"n{number}", {"beat": 2}, 102.0) for number in range(299)))
    found = await centers[-1].heartbeats(101.5)
    assert len(found) == 299
    assert found["n5"] == (102.0, {"beat": 2})
    assert len(await store.heartbeats(0)) == 300
