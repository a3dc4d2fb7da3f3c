"""Servers that leave, and the gateway's own end: what is being answered is answered."""

from __future__ import annotations

import asyncio
import errno

import pytest

from gateway.errors import GatewayRefused
from gateway.model import Standing
from gateway.proxy import make
from gateway.settings.proxy import alone
from tests.gateway.proxy.running import Client, Place, Visit, asynchronous, echoing, get, ok, running, until


class Gate:
    """A unit whose answers wait until they may go."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.asked = 0

    async def __call__(self, visit: Visit) -> None:
        while True:
            await visit.request()
            self.asked += 1
            visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n12")
            await self.open.wait()
            visit.send(b"34")


@asynchronous
async def test_a_draining_server_ends_what_it_has_and_gets_nothing_new() -> None:
    gate = Gate()
    async with running(gate, echoing(b"new")) as place:
        await place.apply(place.server(0))
        client, idle = await place.client(), await place.client()
        client.send(get())
        await until("it is asked", lambda: gate.asked)
        await place.apply(place.draining(0), place.server(1))
        for _ in range(4):
            assert (await idle.ask(get())).body == b"new"
        assert (await place.look())["n/0"].in_flight == 1
        gate.open.set()
        assert (await client.answer()).body == b"1234"
        await until("its connection is closed, not kept", lambda: place.units[0].open == 0)
        assert (await place.look())["n/0"].in_flight == 0
        assert gate.asked == 1
        for each in (client, idle):
            await each.close()


@asynchronous
async def test_idle_connections_are_closed_when_a_server_begins_to_drain_and_new_ones_made_when_it_is_back() -> None:
    async with running(echoing(b"a"), echoing(b"b")) as place:
        client = await place.client()
        for _ in range(2):
            await client.ask(get())
        await place.apply(place.draining(0), place.server(1))
        await until("closed", lambda: (place.units[0].open, place.units[1].open) == (0, 1))
        await place.apply(place.server(0), place.server(1))
        assert {(await client.ask(get())).body for _ in range(4)} == {b"a", b"b"}
        await client.close()


@asynchronous
async def test_shares_follow_the_weights() -> None:
    async with running(echoing(b"a"), echoing(b"b"), echoing(b"c")) as place:
        await place.apply(place.server(0, weight=10), place.server(1, weight=30), place.server(2, weight=60))
        client = await place.client()
        got = [(await client.ask(get())).body for _ in range(100)]
        assert [got.count(name) for name in (b"a", b"b", b"c")] == [10, 30, 60]
        views = await place.look()
        assert [(views[f"n/{number}"].weight, views[f"n/{number}"].total) for number in range(3)] == [
            (10, 10),
            (30, 30),
            (60, 60),
        ]
        await client.close()


async def _asked(place: Place, gate: Gate) -> Client:
    client = await place.client()
    client.send(get())
    await until("it is asked", lambda: gate.asked)
    return client


@asynchronous
async def test_at_its_end_the_gateway_lets_answers_finish_and_takes_nothing_new() -> None:
    gate = Gate()
    async with running(gate) as place:
        busy, idle, fresh = await _asked(place, gate), await place.client(), await place.client()
        gate.open.set()
        assert (await busy.answer()).body == b"1234"
        assert (await idle.ask(get())).body == b"1234"
        gate.open.clear()
        fresh.send(b"GET / HTTP/1.1\r\n")  # half a head: it may still become a request
        busy.send(get())
        await until("it is asked again", lambda: gate.asked == 3)
        await until("half a head is there", lambda: any(each._ahead for each in place.gateway._connections))
        port = place.port
        closing = asyncio.create_task(place.gateway.close())
        assert await idle.rest() == b""
        with pytest.raises(OSError) as refused:
            await asyncio.open_connection("127.0.0.1", port)
        assert refused.value.errno == errno.ECONNREFUSED
        fresh.send(b"Host: a\r\n\r\n")
        await until("that is asked, too", lambda: gate.asked == 4)
        assert not closing.done()
        gate.open.set()
        assert (await busy.answer()).body == b"1234"
        last = await fresh.answer()
        assert (last.body, last.fields["connection"]) == (b"1234", "close")
        await closing
        for each in (busy, idle, fresh):
            assert await each.rest() == b""
            await each.close()


@asynchronous
async def test_the_end_does_not_wait_for_ever() -> None:
    gate = Gate()
    async with running(gate, shutdown_seconds=0.1) as place:
        client = await _asked(place, gate)
        await place.gateway.close()
        told = await client.rest()
        assert told == b"RESET" or told.endswith(b"12")
        await place.gateway.close()
        await client.close()


@asynchronous
async def test_a_port_that_is_taken_is_refused_in_words() -> None:
    async with running(echoing()) as place:
        other = make(alone(("127.0.0.1", place.port), "cart"))
        with pytest.raises(GatewayRefused, match=f"cannot listen on 127.0.0.1:{place.port}: "):
            await other.start()
        await other.close()


@asynchronous
async def test_a_pool_is_in_force_when_apply_returns_and_only_services_with_a_route_are_wanted() -> None:
    async with running(echoing(b"a"), echoing(b"b")) as place:
        assert (place.gateway.wants("cart"), place.gateway.wants("other")) == (True, False)
        assert (place.gateway.kind, place.gateway.name) == ("embedded", "serve")
        client = await place.client()
        for number in (0, 1, 0, 1):
            await place.apply(place.server(number))
            assert (await client.ask(get())).body == (b"a", b"b")[number]
        assert place.server(0).standing is Standing.SERVING
        await client.close()


@asynchronous
async def test_a_client_that_asks_to_close_is_closed() -> None:
    async def talk(visit: Visit) -> None:
        while True:
            await visit.request()
            visit.send(ok())

    async with running(talk) as place:
        client = await place.client()
        assert (await client.ask(get("/", "Connection: close"))).fields["connection"] == "close"
        assert await client.rest() == b""
        assert place.units[0].open == 1, "the connection to the unit is kept all the same"
        await client.close()
