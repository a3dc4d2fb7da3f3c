"""The book of operations: the daemon that comes after finds what was written, and nothing is kept for ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.agents import ledger as module
from supervisor.agents.ledger import Ledger, Tracked
from supervisor.host.journal import Journal
from supervisor.wire import Command, Operation, Step, to_json
from tests.supervisor.running import run

STATE = "abcdef0123456789"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(str(tmp_path))
    yield made
    made.close()


def operation(ledger: Ledger, unit: str = "web", command_id: str = "c1", **more: Any) -> Tracked:
    """One more, open."""
    made = Operation(ledger.next_id(), command_id, unit, "drain", "running", reason="why", issued_by="ann", **more)
    tracked = Tracked(made, Command(command_id, None, "why", "ann", {"owner": "ops"}), {"op-x-1"}, "drain web {}")
    ledger.add(tracked)
    return tracked


def end(ledger: Ledger, tracked: Tracked) -> None:
    tracked.operation.state = "succeeded"
    ledger.close(tracked)


def test_another_daemon_finds_all_of_an_operation(journal: Journal) -> None:
    async def scenario() -> None:
        ledger = Ledger(journal, STATE)
        tracked = operation(ledger, deadline="2030-01-01T00:00:00Z", created="t")
        tracked.begun, tracked.attempt, tracked.registers, tracked.deadline = True, 7, True, 1_893_456_000.0
        tracked.operation.steps.append(Step("drain", "running", "t1", None, "3 requests in flight"))
        tracked.operation.cut = 2
        ledger.touch(tracked, now=True)
        again = Ledger(journal, STATE)
        (found,) = again.load()
        for name in Tracked.__slots__:
            if name not in ("command", "operation", "accepted_at", "step_at"):  # the last two are of this life's clock
                assert getattr(found, name) == getattr(tracked, name), name
        assert to_json(found.operation) == to_json(tracked.operation)
        assert found.command == Command("c1", "2030-01-01T00:00:00Z", "why", "ann", {"owner": "ops"})
        assert again.of_command("c1") == [found.operation]
        assert again.request_of("c1") == "drain web {}"

    run(scenario())


def test_what_was_open_goes_on_only_when_somebody_says_so(journal: Journal) -> None:
    async def scenario() -> None:
        ledger = Ledger(journal, STATE)
        first, second = operation(ledger), operation(ledger, "cart", "c2")
        end(ledger, first)
        ledger.save()
        again = Ledger(journal, STATE)
        opened = again.load()
        assert [item.operation.id for item in opened] == [second.operation.id]
        assert again.open_of("cart") == ()
        again.reopen(opened[0])
        assert again.open_of("cart") == (opened[0],)
        assert again.of_command("c1") == [first.operation], "an answer is found however long ago it was given"

    run(scenario())


def test_numbers_go_on_where_they_were(journal: Journal) -> None:
    async def scenario() -> None:
        ledger = Ledger(journal, STATE)
        made = [operation(ledger, command_id=f"c{number}") for number in range(3)]
        assert [item.operation.id for item in made] == ["op-abcdef-1", "op-abcdef-2", "op-abcdef-3"]
        ledger.save()
        again = Ledger(journal, STATE)
        again.load()
        assert again.next_id() == "op-abcdef-4"

    run(scenario())


@pytest.mark.parametrize(
    "text",
    [
        "", "nonsense", "{}", "[]", "3", '{"operation": {}}',
        '{"operation": {"id": "op-a-2", "steps": [{"nome": 1}]}}',
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_read_is_left_out_and_its_number_not_used_again(journal: Journal, text: str) -> None:
    async def scenario() -> None:
        ledger = Ledger(journal, STATE)
        operation(ledger)
        ledger.save()
        journal.record_operations([(2, "op-abcdef-2", text, None)])
        again = Ledger(journal, STATE)
        assert [item.number for item in again.load()] == [1]
        assert again.next_id() == "op-abcdef-3"
        assert again.tracked("op-abcdef-2") is None

    run(scenario())


def test_a_record_with_a_field_of_another_version_is_left_out(journal: Journal) -> None:
    async def scenario() -> None:
        ledger = Ledger(journal, STATE)
        tracked = operation(ledger)
        value = json.loads(tracked.to_json())
        value["operation"]["mood"] = "good"
        journal.record_operations([(1, tracked.operation.id, json.dumps(value), None)])
        assert Ledger(journal, STATE).load() == []
        ledger.save()

    run(scenario())


def test_changes_are_written_once_for_all_of_a_turn(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        writes = list[int]()
        record = journal.record_operations
        monkeypatch.setattr(journal, "record_operations", lambda rows: (writes.append(len(rows)), record(rows)))
        ledger = Ledger(journal, STATE)
        made = [operation(ledger, command_id=f"c{number}") for number in range(3)]
        for tracked in made:
            ledger.touch(tracked)
            ledger.touch(tracked)
        assert writes == []
        await asyncio.sleep(0)
        assert writes == [3]
        ledger.touch(made[0])
        ledger.touch(made[1], now=True)
        await asyncio.sleep(0)
        assert writes == [3, 2], "what was written at once is not written again"
        ledger.save()
        assert writes == [3, 2]

    run(scenario())


def test_without_a_journal_it_is_a_book_all_the_same() -> None:
    ledger = Ledger(None, STATE)
    assert ledger.load() == []
    first = operation(ledger)
    assert ledger.open_of("web") == (first,)
    end(ledger, first)
    assert (ledger.open_of("web"), list(ledger)) == ((), [first])
    ledger.save()


def test_operations_are_found_by_unit_command_and_id(journal: Journal) -> None:
    async def scenario() -> None:
        ledger = Ledger(journal, STATE)
        first, second, third = operation(ledger), operation(ledger, "cart"), operation(ledger, "web", "c2")
        assert ledger.open_of("web") == (first, third)
        assert ledger.of_command("c1") == [first.operation, second.operation]
        assert (ledger.of_command("c9"), ledger.of_command(None), ledger.request_of("c9")) == (None, None, "")
        assert ledger.tracked(second.operation.id) is second
        assert ledger.latest(2) == [second, third]
        end(ledger, first)
        assert ledger.open_of("web") == (third,)
        end(ledger, third)
        end(ledger, third)
        assert ledger.open_of("web") == ()

    run(scenario())


def test_what_nobody_will_ask_for_any_more_is_forgotten(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 3)
    monkeypatch.setattr(module, "REMEMBERED", 2)
    now = 1000.0
    monkeypatch.setattr(module, "wall", lambda: now)

    async def scenario() -> None:
        nonlocal now
        ledger = Ledger(journal, STATE)
        unended = operation(ledger, command_id="open")
        named = [operation(ledger, command_id=f"n{number}") for number in range(4)]
        ours = [operation(ledger, command_id=f"o{number}") for number in range(4)]
        for tracked in ours:
            tracked.request = ""
        for tracked in (*named, *ours):
            end(ledger, tracked)
        ledger.save()
        ledger.prune()
        assert len(list(ledger)) == 9, "they are all young"
        now += module.KEPT_SECONDS + 1
        ledger.prune()
        kept = [item.operation.command_id for item in ledger]
        assert kept == ["open", "n2", "n3", "o1", "o2", "o3"]
        assert ledger.of_command("n0") is None and ledger.of_command("o0") is None
        assert [number for number, _ in journal.operations()] == [1, 4, 5, 7, 8, 9]
        assert ledger.open_of("web") == (unended,)
        ledger.prune()
        assert next(item.operation.command_id for item in ledger) == "open"

    run(scenario())


def test_forgetting_one_of_a_commands_operations_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 1)
    monkeypatch.setattr(module, "KEPT_SECONDS", -1.0)
    monkeypatch.setattr(module, "REMEMBERED", 0)
    ledger = Ledger(None, STATE)
    first, second = operation(ledger), operation(ledger, "cart")
    end(ledger, first)
    end(ledger, second)
    ledger.prune()
    assert ledger.of_command("c1") == [second.operation]
