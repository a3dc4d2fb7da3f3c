"""The load generator counts what it says it counts: every way to fail, every request once, and nobody whom it must not ask."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import pytest

import bench.load
from bench.load import Load, Mix, Request, following, listed
from bench.load_account import Choice, periods
from registry_client.testing import FakeBackend
from tests.end_to_end.load.servers import RIGHT, Server

FAST = Mix(slow=0.0, echo=0.0)
KEPT, NEW = replace(FAST, kept=1.0), replace(FAST, kept=0.0)
RATE = 500.0
DEADLINE_SECONDS = 15.0

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Its result, in time."""

    async def limited() -> T:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await work

    return asyncio.run(limited())


async def send(load: Load, count: int) -> list[Request]:
    """At least so many requests, and what became of them."""
    enough, before = asyncio.Event(), len(load.requests)
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(enough))
        while len(load.requests) < before + count:
            await asyncio.sleep(0.005)
        enough.set()
    return load.requests[before:]


BAD = {
    "closed": Server(b"", "closed"),
    "reset": Server(b"", "reset"),
    "truncated": Server(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n1\n", "closed"),
    "status 503": Server(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"),
    "status 404": Server(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    "wrong answer": Server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"),
    "too long": Server(RIGHT + b"HTTP"),
    "no HTTP": Server(b"SSH-2.0\r\n\r\n"),
    "timeout": Server(RIGHT, delay=60.0),
}


@pytest.mark.parametrize("kept", [0.0, 1.0], ids=["new", "kept"])
@pytest.mark.parametrize("symptom", BAD)
def test_each_bad_answer_is_a_failure_with_its_symptom_and_is_not_asked_for_again(
    symptom: str, kept: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if symptom == "timeout":
        monkeypatch.setattr(bench.load, "PATIENCE_SECONDS", 1.0)  # each must have been sent by then

    async def work() -> tuple[list[Request], int]:
        server = BAD[symptom].fresh()
        async with server.running():
            requests = await send(Load(RATE, replace(FAST, kept=kept), [server.entry()]), 20)
            return requests, server.requests

    requests, asked = run(work())

    assert {request.failure for request in requests} == {symptom}
    assert asked == len(requests)


def test_a_port_that_nobody_listens_on_is_a_failure() -> None:
    with socket.socket() as bound:  # and therefore nobody else's
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        requests = run(_send_to(listed("web", "127.0.0.1", [port])))

    assert {request.failure for request in requests} == {"refused"}


def test_having_nobody_to_ask_is_a_failure() -> None:
    assert {request.failure for request in run(_send_to([]))} == {"nobody known"}


async def _send_to(entries: Any) -> list[Request]:
    return await send(Load(RATE, FAST, entries), 20)


def test_good_answers_are_no_failures_and_kept_connections_are_used_again() -> None:
    async def work() -> None:
        async with Server(RIGHT).running() as kept, Server(RIGHT).running() as new:
            answered = await send(Load(RATE, KEPT, [kept.entry()]), 100)
            answered += await send(Load(RATE, NEW, [new.entry()]), 100)

            assert [request.failure for request in answered if request.failure] == []
            assert kept.requests >= 100 and kept.connections < 20
            assert new.connections == new.requests >= 100

    run(work())


def test_requests_are_begun_at_the_rate_and_timed_from_then_however_slow_the_answers() -> None:
    async def work() -> list[Request]:
        async with Server(RIGHT, delay=0.5).running() as server:
            return await send(Load(RATE, FAST, [server.entry()]), 200)

    requests = run(work())

    gaps = [later.intended - earlier.intended for earlier, later in zip(requests, requests[1:], strict=False)]
    assert gaps == pytest.approx([1 / RATE] * len(gaps), abs=1e-5), "none may wait for an answer"
    assert all(request.took_seconds >= 0.5 for request in requests)
    assert all(request.took_seconds > request.late_seconds >= 0 for request in requests), "its own delay counts too"


def test_a_draining_instance_is_not_chosen_and_its_idle_connections_stay_until_its_generation_is_gone() -> None:
    async def work() -> None:
        async with Server(RIGHT).running() as leaving, Server(RIGHT).running() as staying:
            load, enough = Load(RATE, KEPT, [leaving.entry("a"), staying.entry("b")]), asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(load.run(enough))
                await leaving.until(lambda: leaving.requests > 10)
                load.learn([leaving.entry("a", status="draining", weight=0), staying.entry("b")])
                first = len(load.requests)
                await staying.until(lambda: len(load.requests) > first + 50)
                assert {r.chosen.instance for r in load.requests[first:] if r.chosen} == {"b"}
                assert leaving.closed_by_client == 0

                before = leaving.connections
                load.learn([leaving.entry("a", generation=2), staying.entry("b")])
                await leaving.until(lambda: leaving.closed_by_client == before)
                await leaving.until(lambda: leaving.connections > before)
                enough.set()
            assert Counter(r.failure for r in load.requests) == {"": len(load.requests)}

    run(work())


def test_what_the_registry_lists_is_what_the_load_knows() -> None:
    async def work() -> list[Request]:
        async with Server(RIGHT).running() as server:
            backend, load, enough = FakeBackend(), Load(RATE, FAST), asyncio.Event()
            entry = server.entry("a", generation=3)
            async with following(load, backend, "web"), asyncio.TaskGroup() as group:
                await backend.register(entry, 60)
                await load.until(lambda entries: entries == (entry,), DEADLINE_SECONDS)
                group.create_task(load.run(enough))
                await load.steady.wait()
                await backend.deregister(entry.key)
                await load.until(lambda entries: entries == (), DEADLINE_SECONDS)
                gone = len(load.requests)
                await server.until(lambda: len(load.requests) > gone)
                enough.set()
            assert load.requests[gone].failure == "nobody known"
            return load.requests[:gone]

    requests = run(work())

    assert {(r.failure, r.chosen.generation) for r in requests if r.chosen} == {("", 3)}


def test_an_instance_that_warms_up_gets_the_share_that_its_weight_gives_it() -> None:
    async def work() -> list[Request]:
        async with Server(RIGHT).running() as server:
            backend, load, enough = FakeBackend(), Load(2 * RATE, FAST), asyncio.Event()
            entries = [server.entry(name) for name in ("a", "b", "c", "d")]
            for entry in entries:
                await backend.register(entry, 60)
            async with following(load, backend, "web"), asyncio.TaskGroup() as group:
                await load.until(lambda known: len(known) == 4, DEADLINE_SECONDS)
                group.create_task(load.run(enough))
                for weight in (10, 40, 70, 100):
                    await backend.update(replace(entries[0], weight=weight, status="warming"))
                    await load.until(lambda known, weight=weight: known[0].weight == weight, DEADLINE_SECONDS)
                    first = len(load.requests)
                    await server.until(lambda first=first: len(load.requests) >= first + 500)
                enough.set()
            return load.requests

    choices = [Choice({e.instance: e.weight for e in r.known}, r.chosen.instance) for r in run(work()) if r.chosen]

    found = [period for period in periods(choices, "a") if period.choices >= 500]
    assert [(period.weight, period.expected) for period in found] == [
        (weight, pytest.approx(weight / (weight + 300))) for weight in (10, 40, 70, 100)
    ]
    assert all(abs(period.errors or 0) < 4 for period in found), found


def test_a_watch_that_has_ended_is_not_taken_for_a_registry_without_news() -> None:
    async def work() -> None:
        backend, load, others = FakeBackend(), Load(RATE, FAST), len(asyncio.all_tasks())
        await backend.register(listed("web", "127.0.0.1", [1])[0], 60)
        async with following(load, backend, "web"):
            await load.until(lambda entries: len(entries) == 1, DEADLINE_SECONDS)
            await backend.close()
            while len(asyncio.all_tasks()) > others:
                await asyncio.sleep(0.005)

    with pytest.raises(RuntimeError, match="watch has ended"):
        run(work())
