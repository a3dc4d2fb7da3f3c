"""WebSocket and other protocols that a connection is switched to."""

from __future__ import annotations

import asyncio

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from tests.gateway.proxy.running import Visit, asynchronous, get, ok, reset, running, until

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: %s\r\n\r\n"


@asynchronous
async def test_websockets_work_with_large_messages_both_ways_and_a_proper_close() -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)
        closed.append((connection.close_code, connection.close_reason))

    closed: list[tuple[int | None, str | None]] = []
    async with running(_never) as place, serve(echo, "127.0.0.1", 0, max_size=None) as server:
        await place.apply(place.server(0, port=next(iter(server.sockets)).getsockname()[1]))
        async with connect(f"ws://127.0.0.1:{place.port}/chat", max_size=None, subprotocols=None) as client:
            for message in ("hello", b"x" * 3_000_000, ""):
                await client.send(message)
                assert await client.recv() == message
            assert (await place.look())["n/0"].in_flight == 1
            await client.close(1001, "going away")
        await until("the unit knows why", lambda: closed == [(1001, "going away")])
        await until("it is counted no more", lambda: place.count("proxy_in_flight", service="cart") == 0)
        assert place.count("proxy_requests_total", service="cart", code="101") == 1


async def _never(visit: Visit) -> None:
    await visit.reader.read()


@asynchronous
async def test_a_tunnel_goes_on_in_one_direction_when_the_other_has_ended() -> None:
    async def talk(visit: Visit) -> None:
        first, fields, _ = await visit.request()
        assert fields["upgrade"] == "raw/1"
        assert fields["connection"] == "upgrade"
        visit.send(SWITCH % b"raw/1" + b"at once ")
        visit.send(b"got " + await visit.reader.read() + b" bye")

    async with running(talk) as place:
        client = await place.client()
        client.send(get("/", "Connection: keep-alive, Upgrade", "Upgrade: raw/1") + b"ahead, ")
        status, fields, _ = await client.head()
        assert (status, fields["upgrade"], fields["connection"]) == (101, "raw/1", "upgrade")
        client.send(b"and more")
        client.writer.write_eof()
        assert await client.rest() == b"at once got ahead, and more bye"
        await until("it is counted no more", lambda: place.count("proxy_in_flight", service="cart") == 0)
        await client.close()


@asynchronous
async def test_with_one_direction_closed_silence_in_the_other_does_not_last_for_ever() -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        visit.send(SWITCH % b"raw/1" + b"bye")
        visit.writer.write_eof()
        await visit.reader.read()

    async with running(talk, stall_seconds=0.1) as place:
        client = await place.client()
        client.send(get("/", "Connection: Upgrade", "Upgrade: raw/1"))
        await client.head()
        assert await client.reader.readexactly(3) == b"bye"
        await until("both are closed", lambda: place.units[0].open == 0)
        assert await client.rest() in (b"", b"RESET")
        await client.close()


@asynchronous
async def test_a_client_that_closed_its_direction_before_the_switch_ends_the_tunnel_with_the_unit() -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        await visit.reader.read(0)
        visit.send(SWITCH % b"raw/1" + b"all")
        assert await visit.reader.read() == b""

    async with running(talk) as place:
        client = await place.client()
        client.send(get("/", "Connection: Upgrade", "Upgrade: raw/1"))
        client.writer.write_eof()
        await client.head()
        assert await client.rest() == b"all"
        await client.close()


@asynchronous
async def test_an_offer_that_the_unit_does_not_take_is_an_ordinary_request() -> None:
    async def talk(visit: Visit) -> None:
        while True:
            await visit.request()
            visit.send(ok(b"plain"))

    async with running(talk) as place:
        client = await place.client()
        for _ in range(3):
            assert (await client.ask(get("/", "Connection: Upgrade", "Upgrade: raw/1"))).body == b"plain"
        assert place.units[0].connections == 1
        await client.close()


@asynchronous
async def test_an_offer_of_http_2_is_not_passed_on_for_nobody_could_look_into_it() -> None:
    seen: list[dict[str, str]] = []

    async def talk(visit: Visit) -> None:
        _, fields, _ = await visit.request()
        seen.append(fields)
        visit.send(ok())

    async with running(talk) as place:
        await place.ask(
            get("/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
        )
    assert not {"upgrade", "connection", "http2-settings"} & seen[0].keys()


@asynchronous
async def test_a_tunnel_ends_for_the_client_when_the_unit_is_gone() -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        visit.send(SWITCH % b"raw/1")
        await visit.reader.readexactly(1)
        visit.writer.transport.abort()

    async with running(talk) as place:
        client = await place.client()
        client.send(get("/", "Connection: Upgrade", "Upgrade: raw/1"))
        await client.head()
        client.send(b"x")
        assert await client.rest() in (b"", b"RESET")
        await client.close()


@asynchronous
async def test_a_draining_server_keeps_its_tunnels_and_the_gateways_end_is_bounded() -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        visit.send(SWITCH % b"raw/1")
        while data := await visit.reader.read(100):
            visit.send(data.upper())

    async with running(talk, shutdown_seconds=0.2) as place:
        client = await place.client()
        client.send(get("/", "Connection: Upgrade", "Upgrade: raw/1"))
        await client.head()
        await place.apply(place.draining(0))
        await place.apply()
        client.send(b"still")
        assert await client.reader.readexactly(5) == b"STILL"
        assert (await place.look())["n/0"].in_flight == 1
        closing = asyncio.create_task(place.gateway.close())
        assert await client.rest() in (b"", b"RESET")
        await closing
        await client.close()


async def _pouring(visit: Visit) -> None:
    """Says as much as it can after the switch, and reads nothing."""
    await visit.request()
    visit.send(SWITCH % b"raw/1")
    for _ in range(40):
        visit.send(b"x" * 1024 * 1024)
        await visit.writer.drain()
        poured.append(1)
    await visit.reader.read()


poured: list[int] = []


@asynchronous
async def test_in_a_tunnel_too_the_slower_end_sets_the_pace() -> None:
    poured.clear()
    async with running(_pouring) as place:
        client = await place.client()
        client.send(get("/", "Connection: Upgrade", "Upgrade: raw/1"))
        await client.head()
        await asyncio.sleep(0.3)  # enough for what the buffers on the way take, and for much more
        assert len(poured) < 30
        size = 40 * 1024 * 1024
        assert len(await client.reader.readexactly(size)) == size
        client.send(b"y" * size)  # the unit reads it at its end only
        client.writer.write_eof()
        assert await client.rest() == b""
        await client.close()


@asynchronous
async def test_the_tunnels_of_a_server_that_died_without_a_word_are_cut() -> None:
    async def frozen(visit: Visit) -> None:
        await visit.request()
        visit.send(SWITCH % b"raw/1")
        await asyncio.Event().wait()

    async with running(frozen) as place:
        client = await place.client()
        client.send(get("/", "Connection: Upgrade", "Upgrade: raw/1"))
        await client.head()
        await place.units[0].stop_listening()
        await place.apply()
        assert await client.rest() in (b"", b"RESET")
        assert await place.look() == {}
        await client.close()


@asynchronous
async def test_the_unit_is_told_when_the_client_of_a_tunnel_is_gone() -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        visit.send(SWITCH % b"raw/1")
        await visit.reader.read()

    async with running(talk) as place:
        client = await place.client()
        client.send(get("/", "Connection: Upgrade", "Upgrade: raw/1"))
        await client.head()
        reset(client)
        await until("the unit knows", lambda: place.units[0].open == 0)
        assert place.count("proxy_in_flight", service="cart") == 0
        await client.close()
