"""Which requests are sent once more, to whom, and which never are."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace

import pytest

from gateway.model import Failure, Recovery, Standing, Symptom
from tests.end_to_end.machine import free_ports
from tests.gateway.proxy.running import (
    Clogged,
    Place,
    Talk,
    Unit,
    Visit,
    asynchronous,
    echoing,
    get,
    ok,
    post,
    running,
    until,
)


def breaking(before: int = 0) -> Talk:
    """Answers so many requests of a connection, reads one more, and closes."""

    async def talk(visit: Visit) -> None:
        for _ in range(before):
            await visit.request()
            visit.send(ok(b"broken soon"))
        await visit.request()

    return talk


async def silent(visit: Visit) -> None:
    """Takes requests and answers none."""
    await visit.reader.read()


def refusing(place: Place, number: int) -> None:
    """Nobody listens there any more."""
    place.units[number].port = free_ports(1)


@asynchronous
async def test_no_connection_means_another_server_whatever_the_method() -> None:
    async with running(echoing(b"good"), echoing()) as place:
        refusing(place, 1)
        await place.apply(place.server(0), place.server(1))
        for _ in range(4):
            assert (await place.ask(post(b"once"))).body == b"good"
        retries = place.count("proxy_retries_total", service="cart")
        assert retries >= 2
        await place.look()
        (failure,) = place.found
        assert isinstance(failure, Failure)
        assert (failure.instance, failure.symptom, failure.down) == ("n/1", Symptom.CONNECT_REFUSED, False)
        assert failure.count == retries


@asynchronous
async def test_when_nobody_can_be_connected_to_the_client_is_told_whom_it_was() -> None:
    async with running(echoing(), echoing()) as place:
        refusing(place, 0)
        refusing(place, 1)
        await place.apply(place.server(0), place.server(1))
        answer = await place.ask(get())
        assert (answer.status, json.loads(answer.body)["code"]) == (502, "connect_refused")
        assert f":{place.units[0].port})" in answer.body.decode() or f":{place.units[1].port})" in answer.body.decode()


@asynchronous
async def test_a_kept_connection_that_turns_out_closed_costs_an_idempotent_request_nothing() -> None:
    async with running(breaking(before=1)) as place:
        client = await place.client()
        assert (await client.ask(get())).body == b"broken soon"
        assert (await client.ask(get())).body == b"broken soon"
        assert (await client.ask(post(b"x", method="PUT"))).body == b"broken soon"
        assert place.units[0].connections == 3
        assert (await client.ask(post(b"x"))).status == 502, "it may have been read"
        await place.look()
        assert place.found == [], "closing an idle connection is no fault"
        await client.close()


@asynchronous
async def test_a_connection_that_the_unit_has_closed_is_not_used_again_even_for_a_post() -> None:
    async def once(visit: Visit) -> None:
        await visit.request()
        visit.send(ok())

    async with running(once) as place:
        client = await place.client()
        for _ in range(20):
            assert (await client.ask(post(b"x"))).status == 200
            await until("the unit has closed", lambda: place.units[0].open == 0)
        await client.close()


@asynchronous
async def test_an_answer_that_never_began_is_asked_of_another_if_that_does_no_harm() -> None:
    async with running(breaking(), echoing(b"good")) as place:
        assert {(await place.ask(get())).body for _ in range(4)} == {b"good"}
        assert sorted([(await place.ask(post(b"x"))).status for _ in range(2)]) == [200, 502]


@asynchronous
async def test_part_of_a_head_is_no_answer_yet() -> None:
    async def half(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nX-A")

    async with running(half, echoing(b"good")) as place:
        assert {(await place.ask(get())).body for _ in range(4)} == {b"good"}


@asynchronous
async def test_a_body_is_sent_again_only_if_all_of_it_was_kept() -> None:
    async with running(breaking(), echoing()) as place:
        small, large = b"s" * 60_000, b"l" * 400_000
        for _ in range(2):
            assert (await place.ask(post(small, method="PUT"))).body.endswith(small)
        statuses = sorted([(await place.ask(post(large, method="PUT"))).status for _ in range(2)])
        assert statuses == [200, 502]


@asynchronous
async def test_there_is_an_end_to_trying() -> None:
    units = [Unit(breaking()) for _ in range(5)]
    async with running(*units, retries=2) as place:
        answer = await place.ask(get())
        assert (answer.status, json.loads(answer.body)["code"]) == (502, "broken_answer")
        assert sum(unit.connections for unit in units) == 3
        assert sorted(unit.connections for unit in units) == [0, 0, 1, 1, 1], "each another one"


@asynchronous
async def test_no_answer_in_time_is_asked_of_another_and_else_a_timeout() -> None:
    async with running(silent, echoing(b"good"), response_seconds=0.1) as place:
        assert {(await place.ask(get())).body for _ in range(2)} == {b"good"}
        answers = [await place.ask(post(b"x")) for _ in range(2)]
        assert sorted(answer.status for answer in answers) == [200, 504]
        await place.look()
        assert {finding.symptom for finding in place.found if isinstance(finding, Failure)} == {
            Symptom.RESPONSE_TIMEOUT
        }


@asynchronous
async def test_a_server_that_says_503_is_passed_over_while_there_is_another() -> None:
    async def closing(visit: Visit) -> None:
        while True:
            await visit.request()
            visit.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 7\r\n\r\nclosing")

    async with running(closing, echoing(b"good")) as place:
        assert {(await place.ask(get())).body for _ in range(2)} == {b"good"}
        assert sorted([(await place.ask(post(b"x"))).status for _ in range(2)]) == [200, 503]
        await place.apply(place.server(0))
        answer = await place.ask(get())
        assert (answer.status, answer.body) == (503, b"closing")


@asynchronous
async def test_who_waits_for_a_server_that_died_without_a_word_gets_the_answer_of_another() -> None:
    async with running(silent, echoing(b"good")) as place:
        await place.apply(place.server(0))
        waiting = asyncio.create_task(place.ask(get()))
        await until("it is there", lambda: place.count("proxy_in_flight", service="cart") == 1)
        await place.units[0].stop_listening()
        await place.apply(place.server(1))
        assert (await waiting).body == b"good"


@asynchronous
async def test_who_waits_for_a_server_that_only_left_gets_its_answer() -> None:
    finish = asyncio.Event()

    async def slow(visit: Visit) -> None:
        first, _, _ = await visit.request()
        if first.startswith("OPTIONS *"):
            visit.send(ok())
            probed.set()
        else:
            await finish.wait()
            visit.send(ok(b"slow"))

    probed = asyncio.Event()
    async with running(slow, echoing(b"good")) as place:
        await place.apply(place.server(0))
        waiting = asyncio.create_task(place.ask(get()))
        await until("it is there", lambda: place.count("proxy_in_flight", service="cart") == 1)
        await place.apply(place.server(1))
        view = (await place.look())["n/0"]
        assert (view.in_flight, view.detail) == (1, "gone from the pool, with requests still open")
        await probed.wait()
        finish.set()
        assert (await waiting).body == b"slow"
        assert set(await place.look()) == {"n/1"}


@asynchronous
async def test_who_fails_again_and_again_is_left_out_asked_and_taken_back() -> None:
    answers = asyncio.Event()

    async def sick(visit: Visit) -> None:
        first, _, _ = await visit.request()
        if first.startswith("OPTIONS * "):
            probes.append(first)
        if answers.is_set():
            visit.send(ok(b"well"))

    probes: list[str] = []
    async with running(sick, echoing(b"good"), eject_seconds=0.1, eject_errors=3) as place:
        for _ in range(8):
            assert (await place.ask(get())).body == b"good"
        assert place.count("proxy_ejections_total", service="cart") == 1
        assert place.count("proxy_retries_total", service="cart") == 3
        view = (await place.look())["n/0"]
        assert (view.health, view.detail.split(",")[0]) == ("down", "ejected for error_answers")
        assert [(failure.symptom, failure.down) for failure in place.found if isinstance(failure, Failure)] == [
            (Symptom.ERROR_ANSWERS, True)
        ]
        await until("it is asked more than once", lambda: len(probes) >= 2)
        answers.set()
        await until("it is taken back", lambda: place.gateway._services["cart"].outliers.ejected == frozenset())
        assert {(await place.ask(get())).body for _ in range(4)} == {b"good", b"well"}
        assert (await place.look())["n/0"].health == "up"
        assert place.found[-1] == Recovery("cart", "n/0", 1)


@asynchronous
async def test_the_last_server_is_never_left_out() -> None:
    async with running(breaking(), eject_errors=1) as place:
        for _ in range(5):
            assert (await place.ask(get())).status == 502
        assert place.units[0].connections == 5
        assert (await place.look())["n/0"].health == "up"
        assert place.found[0].count == 5  # type: ignore[union-attr]


@asynchronous
async def test_a_freshly_drained_server_gets_nothing_that_was_on_its_way_to_it() -> None:
    async with running(echoing(b"new"), connect_seconds=6.0) as place:
        with contextlib.closing(Clogged()) as clogged:
            old = place.server(0, instance="n/old", port=clogged.port)
            await place.apply(old)
            client = await place.client()
            client.send(get())
            await until("it has been chosen", lambda: _is_connecting(place))
            await place.apply(replace(old, weight=0, standing=Standing.DRAINING), place.server(0))
            clogged.clear()
            assert (await client.answer()).body == b"new"
            assert (await place.look())["n/old"].total == 0
            await client.close()


def _is_connecting(place: Place) -> bool:
    """A request has chosen its server, and has no connection yet."""
    connections = place.gateway._connections
    return any(each._exchange is not None and each._exchange._connecting is not None for each in connections)


@asynchronous
async def test_a_server_that_cannot_be_reached_in_time_is_told_apart() -> None:
    async with running(echoing(b"good"), connect_seconds=0.2) as place:
        with contextlib.closing(Clogged()) as clogged:
            await place.apply(place.server(0, port=clogged.port))
            answer = await place.ask(get())
            assert (answer.status, json.loads(answer.body)["code"]) == (504, "connect_timeout")
            await place.apply(place.server(0), place.server(0, instance="n/1", port=clogged.port))
            assert [(await place.ask(post(b"x"))).body for _ in range(2)] == [b"good"] * 2


@pytest.mark.parametrize("generation", [2])
@asynchronous
async def test_a_new_generation_gets_none_of_the_connections_of_the_old_one(generation: int) -> None:
    async with running(echoing()) as place:
        client = await place.client()
        await client.ask(get())
        await place.apply(place.server(0, generation=generation))
        await until("the idle connection is closed", lambda: place.units[0].open == 0)
        await client.ask(get())
        assert place.units[0].connections == 2
        assert (await place.look())["n/0"].total == 1
        await client.close()


@asynchronous
async def test_an_answer_that_has_begun_is_cut_when_its_server_died_without_a_word() -> None:
    async def half(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await visit.reader.read()

    async with running(half, echoing(b"good")) as place:
        await place.apply(place.server(0))
        client = await place.client()
        client.send(get())
        assert (await client.head())[0] == 200
        await place.units[0].stop_listening()
        await place.apply(place.server(1))
        assert await client.rest() in (b"half", b"RESET")
        await client.close()


@asynchronous
async def test_when_a_server_is_left_out_for_its_silence_all_who_wait_there_are_served_by_others() -> None:
    async with running(silent, echoing(b"good"), response_seconds=0.4, eject_failures=1) as place:
        await place.apply(place.server(0))
        first = asyncio.create_task(place.ask(get()))
        await until("it is there", lambda: place.count("proxy_in_flight", service="cart") == 1)
        await asyncio.sleep(0.2)
        later = [asyncio.create_task(place.ask(get())) for _ in range(5)]
        await until("they are there", lambda: place.count("proxy_in_flight", service="cart") == 6)
        await place.apply(place.server(0), place.server(1))
        assert {(await each).body for each in (first, *later)} == {b"good"}
        await place.look()
        assert sum(finding.count for finding in place.found if isinstance(finding, Failure)) == 1, (
            "nobody else had to wait so long"
        )


@asynchronous
async def test_a_broken_chunk_of_a_request_ends_it_for_the_unit_too() -> None:
    cut = asyncio.Event()

    async def talk(visit: Visit) -> None:
        try:
            await visit.request()
        finally:
            cut.set()

    async with running(talk) as place:
        client = await place.client()
        client.send(get("/", "Transfer-Encoding: chunked", method="PUT") + b"3\r\nabc\r\n")
        await until("it is there", lambda: place.count("proxy_in_flight", service="cart") == 1)
        client.send(b"nonsense\r\n")
        assert (await client.answer()).status == 400
        await cut.wait()
        await client.close()


@asynchronous
async def test_a_request_whose_client_ends_in_the_middle_is_not_completed() -> None:
    broken = asyncio.Event()

    async def talk(visit: Visit) -> None:
        try:
            await visit.request()
        except asyncio.IncompleteReadError:
            broken.set()

    async with running(talk) as place:
        client = await place.client()
        client.send(post(b"abc")[:-1])
        await until("it is there", lambda: place.count("proxy_in_flight", service="cart") == 1)
        client.writer.write_eof()
        await broken.wait()
        assert await client.rest() in (b"", b"RESET")
        await client.close()
