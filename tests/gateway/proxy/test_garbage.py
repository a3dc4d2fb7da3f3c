"""Damaged and torn bytes from both sides: the proxy answers or closes, and neither stumbles nor mixes anything up."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.gateway.proxy.running import Visit, asynchronous, echoing, get, ok, post, running, until

REQUESTS = (
    get("/a", "X-A: 1"),
    post(b"body"),
    get("/", "Transfer-Encoding: chunked", method="PUT") + b"3\r\nabc\r\n0\r\n\r\n",
    get("/", "Connection: Upgrade", "Upgrade: raw/1"),
    get("/", "Content-Length: 4", "Expect: 100-continue", method="POST") + b"body",
)
ANSWERS = (
    ok(b"body", b"X-A: 1"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\n" + ok(b""),
    b"HTTP/1.0 200 OK\r\n\r\nto the end",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw/1\r\n\r\nraw",
)


def damaged(dice: random.Random, data: bytes) -> bytes:
    """With one to three bytes changed, left out or doubled, or a piece cut off."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 3)):
        place = dice.randrange(len(changed))
        match dice.randrange(4):
            case 0:
                changed[place] = dice.randrange(256)
            case 1:
                del changed[place]
            case 2:
                changed.insert(place, changed[place])
            case _:
                del changed[max(1, place) :]
    return bytes(changed)


def no_complaints(caplog: pytest.LogCaptureFixture) -> None:
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.parametrize("seed", range(3))
@asynchronous
async def test_damaged_requests(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    dice = random.Random(seed)
    async with running(echoing()) as place:
        for _ in range(100):
            client = await place.client()
            client.send(damaged(dice, dice.choice(REQUESTS)) + dice.choice(REQUESTS))
            client.writer.write_eof()
            told = await client.rest()
            assert told.startswith((b"HTTP/1.1 ", b"RESET")) or not told
            await client.close()
        assert (await place.ask(get("/still"))).body.startswith(b"GET /still ")
        await until("nothing is left open", lambda: not place.count("proxy_in_flight", service="cart"))
    no_complaints(caplog)


@pytest.mark.parametrize("seed", range(3))
@asynchronous
async def test_damaged_answers(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    dice = random.Random(seed)

    async def talk(visit: Visit) -> None:
        await visit.request()
        visit.send(damaged(dice, dice.choice(ANSWERS)))

    async with running(talk, retries=0) as place:
        for _ in range(100):
            client = await place.client()
            client.send(get("/", "Connection: Upgrade", "Upgrade: raw/1"))
            client.writer.write_eof()
            told = await client.rest()
            assert told.startswith((b"HTTP/1.1 ", b"RESET")) or not told
            await client.close()
        await until("nothing is left open", lambda: not place.count("proxy_in_flight", service="cart"))
    no_complaints(caplog)


@asynchronous
async def test_torn_requests_and_answers_are_the_whole_ones(caplog: pytest.LogCaptureFixture) -> None:
    dice = random.Random(7)

    async def tear(send, data: bytes) -> None:
        while data:
            size = dice.randint(1, 20)
            send(data[:size])
            data = data[size:]
            await asyncio.sleep(0)

    async def talk(visit: Visit) -> None:
        while True:
            first, _, body = await visit.request()
            answer = first.encode() + b"|" + body
            if dice.random() < 0.5:
                await tear(visit.send, ok(answer))
            else:
                chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (answer[:5], answer[5:]))
                await tear(visit.send, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")

    async with running(talk, talk) as place:
        client = await place.client()
        paths = [f"/{number}" for number in range(60)]
        requests = [post(b"x" * number, path) if number % 2 else get(path) for number, path in enumerate(paths)]
        sending = asyncio.create_task(tear(client.send, b"".join(requests)))
        for number, path in enumerate(paths):
            first, body = (f"POST {path}", b"x" * number) if number % 2 else (f"GET {path}", b"")
            assert (await client.answer()).body == f"{first} HTTP/1.1|".encode() + body
        await sending
        await client.close()
    no_complaints(caplog)
