"""The newest events, for looking back and for following."""

from __future__ import annotations

import asyncio
from itertools import islice

from supervisor.agents.history import KEPT, History, HistoryEvent
from tests.supervisor.running import run, until


def filled(count: int) -> History:
    history = History()
    for number in range(1, count + 1):
        history.add("web", "running", f"event {number}")
    return history


def test_events_are_numbered_and_have_a_time() -> None:
    async def scenario() -> None:
        first, second = filled(2).since(0)
        assert (first.seq, first.unit, first.type, first.text) == (1, "web", "running", "event 1")
        assert second.seq == 2
        assert len(first.at) == len("2026-11-24T03:41:46.123Z") and first.at.endswith("Z")

    run(scenario())


def test_what_was_seen_is_not_given_again() -> None:
    async def scenario() -> None:
        history = filled(5)
        assert [event.seq for event in history.since(3)] == [4, 5]
        assert history.since(5) == []

    run(scenario())


def test_who_comes_from_an_earlier_life_of_the_daemon_gets_all_of_this_one() -> None:
    async def scenario() -> None:
        history, seen = filled(2), list[int]()
        assert [event.seq for event in history.since(99)] == [1, 2]

        async def read() -> None:
            async for event in history.follow(99):
                seen.append(event.seq)

        reader = asyncio.ensure_future(read())
        await until(lambda: seen == [1, 2])
        history.add("web", "stopped", "")
        await until(lambda: seen == [1, 2, 3])
        reader.cancel()

    run(scenario())


def test_only_the_newest_are_kept_and_their_numbers_go_on() -> None:
    async def scenario() -> None:
        kept = filled(KEPT + 10).since(0)
        assert len(kept) == KEPT
        assert [event.seq for event in islice(kept, 2)] == [11, 12]

    run(scenario())


def test_following_gives_what_is_there_then_what_comes_to_everybody() -> None:
    async def scenario() -> None:
        history, seen = filled(2), {"a": list[int](), "b": list[int]()}

        async def read(name: str, since: int) -> None:
            async for event in history.follow(since):
                seen[name].append(event.seq)

        readers = [asyncio.ensure_future(read("a", 0)), asyncio.ensure_future(read("b", 1))]
        await until(lambda: seen == {"a": [1, 2], "b": [2]})
        history.add("web", "stopped", "")
        history.add("web", "running", "")
        await until(lambda: seen == {"a": [1, 2, 3, 4], "b": [2, 3, 4]})
        history.add("web", "stopped", "")
        await until(lambda: seen["a"][-1] == seen["b"][-1] == 5)
        for reader in readers:
            reader.cancel()

    run(scenario())


def test_who_reads_too_slowly_misses_some_and_can_tell() -> None:
    async def scenario() -> None:
        history = filled(1)
        following = history.follow(0)
        assert (await anext(following)).seq == 1
        for _ in range(KEPT + 100):
            history.add("web", "running", "")
        assert (await anext(following)).seq == 102
        await following.aclose()  # type: ignore[attr-defined]

    run(scenario())


def test_an_event_is_a_value() -> None:
    assert HistoryEvent(1, "t", "web", "running", "") == HistoryEvent(1, "t", "web", "running", "")
