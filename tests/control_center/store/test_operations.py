"""Operations in the store: kept whole, one for each service, changed only by who leads."""

from __future__ import annotations

import asyncio
import copy
import time

import pytest

from control_center.errors import BadRequest, CommandDiffers, ServiceBusy, StoreError, Superseded
from control_center.model import Batch, Decision, Operation, OperationState, Selection, TargetState, Verdict, Wish
from control_center.store import Store
from tests.control_center.store.conftest import Place
from tests.control_center.store.operations import operation, target

Outcome = Operation | BaseException


async def test_an_operation_is_read_as_it_was_written_even_by_the_next_center(store: Store, place: Place) -> None:
    everything = operation(
        "cart",
        "search",
        strategy=None,
        selection=Selection(("c*",), ("n*",), ("u",), ("i",), {"tier": "gold"}),
        parameters={"signal": 15, "deep": [{"é": None}]},
        cause="guard",
        checks_generation=True,
        baseline={"cart": 800},
        epoch=3,
        started="2030-01-01T00:00:01.000Z",
        waiting_for="the canary bakes",
        error="none yet \0 \ud800",
        batches=[Batch(0, "canary", "running", started="2030-01-01T00:00:01.000Z"), Batch(1, "zone a 1/3")],
        targets=[
            target("n2", zone="a", generation=7, weight=100, batch=0, state=TargetState.RUNNING, seq=9, attempts=2),
            target("n1", service=None, node_operations=("x", "y"), steps="drains", detail="é", finished="then"),
        ],
    )
    as_asked = copy.deepcopy(everything)
    kept = await store.add_operation(everything, "request")
    as_asked.version = 1
    assert kept == as_asked
    assert await store.operation(everything.id) == as_asked
    await place.close()
    again = await place.open()
    assert await again.operation_of_command(everything.command_id) == as_asked
    assert await again.open_operations() == [as_asked]
    as_asked.targets = []
    assert await again.operation(everything.id, targets=False) == as_asked
    assert await again.operations() == [as_asked]


async def test_what_is_not_there_is_none(store: Store) -> None:
    assert await store.operation("nothing") is None
    assert await store.operation_of_command("nothing") is None
    assert await store.operations() == await store.open_operations() == []
    assert await store.wish("nothing", Wish.PAUSE, "me", "why") is None
    assert await store.versions(["nothing"]) == {}


async def test_the_same_command_again_answers_the_operation_as_it_is_now(store: Store) -> None:
    epoch = await store.lead("a")
    first = await store.add_operation(operation("cart", targets=2), "request")
    first.state, first.targets[0].state = OperationState.RUNNING, TargetState.SENT
    await store.save(first, first.targets[:1], epoch=epoch)
    again = await store.add_operation(operation("cart", command_id=first.command_id), "request")
    assert again == first
    with pytest.raises(CommandDiffers, match=first.command_id):
        await store.add_operation(operation("cart", command_id=first.command_id), "another request")


async def test_a_service_has_one_open_operation_until_that_is_done(store: Store) -> None:
    epoch = await store.lead("a")
    first = await store.add_operation(operation("cart", "search"), "r")
    with pytest.raises(ServiceBusy) as caught:
        await store.add_operation(operation("pay", "search"), "r")
    assert (caught.value.service, caught.value.operation) == ("search", first.id)
    other = await store.add_operation(operation("pay"), "r")  # nothing of the refused one has stayed
    assert await store.holders() == {"cart": first.id, "search": first.id, "pay": other.id}
    await store.add_operation(operation(), "r")
    first.state = OperationState.FAILED
    await store.save(first, epoch=epoch)
    assert await store.holders() == {"pay": other.id}
    await store.add_operation(operation("search", "cart"), "r")


async def test_of_many_centers_that_begin_at_once_one_gets_the_service(store: Store, place: Place) -> None:
    centers = await place.centers(store)
    asked = [operation(*services, targets=3) for services in [("a", "b", "c"), ("c", "b", "a")] * 5]
    outcomes = await asyncio.gather(
        *(centers[number % len(centers)].add_operation(each, "r") for number, each in enumerate(asked)),
        return_exceptions=True,
    )
    kept = [outcome for outcome in outcomes if isinstance(outcome, Operation)]
    assert [type(outcome) for outcome in outcomes if outcome not in kept] == [ServiceBusy] * 9
    assert [each.id for each in await store.open_operations()] == [each.id for each in kept]
    assert set(await store.counts(each.id for each in asked)) == {kept[0].id}


async def test_the_same_command_at_once_begins_one_operation(store: Store, place: Place) -> None:
    centers = await place.centers(store)
    asked = [operation("cart", command_id="same") for _ in range(8)]
    kept = await asyncio.gather(
        *(centers[number % len(centers)].add_operation(each, "r") for number, each in enumerate(asked))
    )
    assert len({each.id for each in kept}) == 1
    assert len(await store.operations()) == 1


async def test_operations_are_paged_newest_first(store: Store) -> None:
    epoch = await store.lead("a")
    services = [("a",), ("b",), ("c", "x"), ("d",), ("e",)]
    kept = [await store.add_operation(operation(*each), "r") for each in services]
    kept[3].state = OperationState.SUCCEEDED
    await store.save(kept[3], epoch=epoch)
    names = [each.id for each in kept]

    async def listed(**filters: object) -> list[str]:
        return [each.id for each in await store.operations(**filters)]  # type: ignore[arg-type]

    assert await listed() == names[::-1]
    assert await listed(limit=2) == [names[4], names[3]]
    assert await listed(limit=2, before=names[3]) == [names[2], names[1]]
    assert await listed(before="unknown") == []
    assert await listed(open_only=True) == [names[4], names[2], names[1], names[0]]
    assert await listed(service="x") == [names[2]]
    assert [each.id for each in await store.open_operations()] == [names[0], names[1], names[2], names[4]]


async def test_saving_keeps_the_header_the_batches_and_those_targets_that_are_given(store: Store) -> None:
    epoch = await store.lead("a")
    kept = await store.add_operation(operation("cart", targets=3, batches=[Batch(0, "all")]), "r")
    kept.state, kept.waiting_for, kept.epoch = OperationState.RUNNING, "two of three", epoch
    kept.batches[0].state = "running"
    for each in kept.targets:
        each.detail = "changed"
    await store.save(kept, kept.targets[1:], epoch=epoch)
    assert kept.version == 2
    kept.targets[0].detail = ""
    assert await store.operation(kept.id) == kept
    assert await store.versions([kept.id]) == {kept.id: (2, "running")}
    with pytest.raises(StoreError, match="does not know"):
        await store.save(operation(), epoch=epoch)


async def test_two_thousand_targets_are_kept_and_counted(store: Store) -> None:
    epoch = await store.lead("a")
    kept = await store.add_operation(operation("cart", targets=2000), "r")
    for each in kept.targets[:700]:
        each.state = TargetState.SENT
    await store.save(kept, kept.targets[:700], epoch=epoch)
    assert await store.operation(kept.id) == kept
    assert await store.counts([kept.id]) == {kept.id: kept.counts()} == {kept.id: {"sent": 700, "pending": 1300}}


async def test_a_wish_is_kept_beside_what_the_leader_saves(store: Store) -> None:
    epoch = await store.lead("a")
    kept = await store.add_operation(operation("cart", targets=1), "r")
    wished = await store.wish(kept.id, Wish.PAUSE, "me", "lunch")
    assert wished is not None and (wished.wish, wished.version, len(wished.targets)) == (Wish.PAUSE, 2, 1)
    kept.state = OperationState.RUNNING
    await store.save(kept, epoch=epoch)
    assert kept.version == 3  # no version is given twice
    found = await store.operation(kept.id)
    assert found is not None and found.wish is Wish.PAUSE
    again = await store.wish(kept.id, Wish.PAUSE, "me", "lunch")
    assert again is not None and again.version == 3


async def test_an_abort_is_not_taken_back_and_the_end_is_the_end(store: Store) -> None:
    epoch = await store.lead("a")
    kept = await store.add_operation(operation("cart"), "r")
    await store.wish(kept.id, Wish.ABORT, "me", "no")
    wished = await store.wish(kept.id, Wish.RUN, "me", "yes")
    assert wished is not None and wished.wish is Wish.ABORT
    done = await store.add_operation(operation("pay"), "r")
    done.state = OperationState.SUCCEEDED
    await store.save(done, epoch=epoch)
    wished = await store.wish(done.id, Wish.ABORT, "me", "no")
    assert wished is not None and (wished.wish, wished.version) == (Wish.RUN, done.version)


async def test_a_node_fetches_its_open_commands_in_the_order_of_their_numbers(store: Store) -> None:
    epoch = await store.lead("a")
    first = await store.add_operation(operation("cart", targets=[target("n1"), target("n2")]), "r")
    second = await store.add_operation(operation("pay", targets=[target("n1", "pay:0"), target("n1", "pay:1")]), "r")
    assert await store.commands_for("n1", 0) == []
    second.targets[0].state = first.targets[0].state = first.targets[1].state = TargetState.SENT
    await store.save(second, second.targets[:1], epoch=epoch)
    await store.save(first, first.targets, epoch=epoch)
    fetched = await store.commands_for("n1", 0)
    assert [each for _, each in fetched] == [second.targets[0], first.targets[0]]
    assert [each.id for each, _ in fetched] == [second.id, first.id]
    assert 0 < second.targets[0].seq < first.targets[0].seq
    numbers = [each.seq for each in first.targets]
    assert await store.commands_for("n1", second.targets[0].seq) == fetched[1:]
    first.targets[0].state = TargetState.SUCCEEDED
    second.state = OperationState.ABORTED
    await store.save(first, first.targets, epoch=epoch)
    await store.save(second, epoch=epoch)
    assert await store.commands_for("n1", 0) == []
    assert len(await store.commands_for("n2", 0)) == 1
    assert [each.seq for each in first.targets] == numbers


async def test_who_does_not_lead_any_more_changes_nothing(store: Store, place: Place) -> None:
    old = await store.lead("a")
    kept = await store.add_operation(operation("cart", targets=1), "r", epoch=old)
    await store.put_fact("f", 1, epoch=old)
    new = await (await place.centers(store))[-1].lead("b")
    assert new == old + 1
    before = await store.operation(kept.id)
    kept.state, kept.targets[0].state = OperationState.SUCCEEDED, TargetState.SENT
    decision = Decision("at", "cart", "n1/cart:0", 1, Verdict.WAIT, "quorum", "why")
    for attempt in (
        store.save(kept, kept.targets, epoch=old),
        store.add_operation(operation("pay"), "r", epoch=old),
        store.add_decision(decision, epoch=old),
        store.put_fact("f", 2, epoch=old),
    ):
        with pytest.raises(Superseded) as caught:
            await attempt
        assert (caught.value.ours, caught.value.theirs) == (old, new)
    assert await store.operation(kept.id) == before
    assert [each.id for each in await store.operations()] == [kept.id]
    assert (await store.decisions(), await store.facts()) == ([], {"f": 1})
    await store.save(kept, kept.targets, epoch=new)
    await store.add_decision(decision, epoch=None)


async def test_a_write_that_has_begun_ends_whole_when_its_caller_is_cancelled(store: Store, place: Place) -> None:
    for turns in range(12):
        kept = operation(f"s{turns}", targets=50)
        writing = asyncio.create_task(store.add_operation(kept, "r"))
        for _ in range(turns):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    await store.add_operation(operation("last"), "r")  # and the store goes on
    await place.close()  # and waits for what has begun
    again = await place.open()
    found = await again.open_operations()
    assert sorted({len(each.targets) for each in found}) in ([0], [0, 50])
    assert set(await again.holders()) == {each.services[0] for each in found}


async def test_old_things_are_forgotten(store: Store) -> None:
    epoch = await store.lead("a")
    done = await store.add_operation(operation("cart", targets=2), "r")
    still = await store.add_operation(operation("pay", targets=2), "r")
    done.state = OperationState.SUCCEEDED
    await store.save(done, epoch=epoch)
    await store.put_result("n1", "c", 202, {})
    await store.put_heartbeat("n1", {}, time.time())
    decision = Decision("at", "cart", "n1/cart:0", 1, Verdict.WAIT, "quorum", "why")
    await store.add_decision(decision, epoch=epoch)
    await store.prune(time.time() - 60)
    assert len(await store.operations()) == 2
    await store.prune(time.time() + 60)
    assert await store.operations() == [await store.operation(still.id, targets=False)]
    assert set(await store.counts([done.id, still.id])) == {still.id}
    assert (await store.result("c"), await store.heartbeats(0), await store.decisions()) == (None, {}, [])
    await store.add_operation(operation("cart", command_id=done.command_id), "another request")


async def test_what_no_database_can_keep_is_the_callers_fault(store: Store) -> None:
    with pytest.raises(BadRequest, match="cannot be kept"):
        await store.operation("\ud800")
    with pytest.raises(BadRequest, match="cannot be kept"):
        await store.decisions(before=10**30)
    with pytest.raises(BadRequest, match="cannot be kept"):
        await store.audit("\ud800", "x", {})


async def test_a_nul_is_kept_or_refused(store: Store) -> None:
    try:
        kept = await store.add_operation(operation(command_id="a\0b"), "r")
    except BadRequest:
        return  # PostgreSQL has no NUL in texts
    assert await store.operation_of_command("a\0b") == kept
