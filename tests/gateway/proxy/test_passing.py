"""What goes through the proxy comes out as it went in."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.proxy.running import Visit, asynchronous, echoing, get, ok, post, reset, running, until


def saying(*answers: bytes):
    """A unit that gives these answers, one after the other, and closes."""

    async def talk(visit: Visit) -> None:
        for answer in answers:
            await visit.request()
            visit.send(answer)

    return talk


@asynchronous
async def test_many_requests_share_one_connection_on_either_side() -> None:
    async with running(echoing()) as place:
        client = await place.client()
        for number in range(5):
            answer = await client.ask(get(f"/{number}?a=b%20c"))
            assert (answer.status, answer.body) == (200, f"GET /{number}?a=b%20c HTTP/1.1|".encode())
        assert (await client.ask(post(b"body"))).body.endswith(b"|body")
        assert place.units[0].connections == 1
        assert place.count("proxy_requests_total", service="cart", code="200") == 6
        assert place.count("proxy_connections") == 1
        await client.close()


@asynchronous
async def test_a_chunked_body_is_passed_on_chunked() -> None:
    async with running(echoing()) as place:
        answer = await place.ask(
            get("/", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nT: 1\r\n\r\n"
        )
        assert answer.body.endswith(b"|abcdefg")


@asynchronous
async def test_a_chunked_answer_is_passed_on_as_it_comes_and_its_trailers_are_dropped() -> None:
    go_on = asyncio.Event()

    async def talk(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfi")
        await asyncio.sleep(0)
        visit.send(b"rst\r\n")
        await go_on.wait()
        visit.send(b"6\r\nsecond\r\n0\r\nTrailer: 1\r\n\r\n")

    async with running(talk) as place:
        client = await place.client()
        client.send(get())
        await client.head()
        first = await client.reader.readuntil(b"rst\r\n")
        assert b"fi" in first
        go_on.set()
        assert (await client.reader.readuntil(b"0\r\n\r\n")).startswith(b"6\r\nsecond\r\n")
        await client.close()


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 77\r\n\r\n",
])  # fmt: skip
@asynchronous
async def test_answers_that_have_no_body_keep_the_connection(answer: bytes) -> None:
    async with running(saying(answer, ok(b"next"))) as place:
        client = await place.client()
        first = await client.ask(get())
        assert first.status == int(answer[9:12])
        assert "transfer-encoding" not in first.fields
        assert (await client.ask(get())).body == b"next"
        assert place.units[0].connections == 1
        await client.close()


@asynchronous
async def test_head_gets_the_length_and_no_body() -> None:
    async with running(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", ok(b"next"))) as place:
        client = await place.client()
        answer = await client.ask(get(method="HEAD"))
        assert answer.fields["content-length"] == "1234"
        assert (await client.ask(get())).body == b"next"
        await client.close()


@asynchronous
async def test_an_answer_that_ends_with_its_connection_becomes_a_chunked_one() -> None:
    async with running(saying(b"HTTP/1.0 200 OK\r\n\r\nall of it")) as place:
        client = await place.client()
        answer = await client.ask(get())
        assert (answer.body, answer.fields["transfer-encoding"]) == (b"all of it", "chunked")
        await client.close()


@asynchronous
async def test_an_http_1_0_client_gets_an_answer_that_ends_with_its_connection() -> None:
    chunked = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    async with running(saying(chunked)) as place:
        told = await place.say(b"GET / HTTP/1.0\r\n\r\n")
        head, _, body = told.partition(b"\r\n\r\n")
        assert body == b"abc"
        assert b"transfer-encoding" not in head.lower()
        assert b"Early" not in told


@asynchronous
async def test_requests_that_are_sent_ahead_are_answered_in_their_order() -> None:
    async with running(echoing()) as place:
        client = await place.client()
        client.send(b"\r\n" + get("/1") + post(b"x" * 1000, "/2") + get("/none", method="HEAD") + get("/3"))
        assert (await client.answer()).body.startswith(b"GET /1 ")
        assert (await client.answer()).body == b"POST /2 HTTP/1.1|" + b"x" * 1000
        await client.answer("HEAD")
        await client.close()


@asynchronous
async def test_a_client_that_closes_its_direction_still_gets_its_answer() -> None:
    async with running(echoing()) as place:
        client = await place.client()
        client.send(get("/last"))
        client.writer.write_eof()
        answer = await client.answer()
        assert answer.body.startswith(b"GET /last")
        assert answer.fields["connection"] == "close"
        assert await client.rest() == b""
        await client.close()


@asynchronous
async def test_all_that_was_sent_before_the_client_closed_its_direction_is_answered() -> None:
    async with running(echoing()) as place:
        client = await place.client()
        client.send(get("/1") + get("/2") + get("/3") + b"GET /ha")
        client.writer.write_eof()
        for number in (1, 2, 3):
            assert (await client.answer()).body.startswith(f"GET /{number} ".encode())
        assert await client.rest() == b""
        await client.close()


@asynchronous
async def test_fields_of_one_hop_stay_on_it_and_the_way_is_told() -> None:
    seen: list[dict[str, str]] = []

    async def talk(visit: Visit) -> None:
        _, fields, _ = await visit.request()
        seen.append(fields)
        visit.send(
            ok(b"", b"Connection: X-Own", b"X-Own: 1", b"Keep-Alive: timeout=5", b"Via: 1.1 app", b"Set-Cookie: a=1")
        )

    async with running(talk) as place:
        fields = ("Connection: X-Mine, close, Host", "X-Mine: 1", "TE: trailers", "Keep-Alive: 1", "Upgrade: h2c",
                  "X-Forwarded-For: 6.6.6.6", "x_forwarded_for: 6.6.6.6", "X-Real-IP: 6.6.6.6", "Via: 1.0 a", "Cookie: b=2",
                  "Proxy: http://evil", "Content_Length: 5")  # fmt: skip
        answer = await place.ask(get("/", *fields))
        assert seen[0] == {
            "host": "shop.example", "cookie": "b=2", "x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http",
            "x-forwarded-host": "shop.example", "via": "1.0 a, 1.1 serve",
        }  # fmt: skip
        assert answer.fields == {
            "content-length": "0",
            "set-cookie": "a=1",
            "via": "1.1 app, 1.1 serve",
            "connection": "close",
        }


@asynchronous
async def test_a_proxy_in_front_is_believed_only_where_it_is_configured() -> None:
    seen: list[dict[str, str]] = []

    async def talk(visit: Visit) -> None:
        _, fields, _ = await visit.request()
        seen.append(fields)
        visit.send(ok())

    async with running(talk, trust_forwarded=True) as place:
        await place.ask(get("/", "X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: a.example"))
    assert seen[0]["x-forwarded-for"] == "9.9.9.9, 127.0.0.1"
    assert (seen[0]["x-forwarded-proto"], seen[0]["x-forwarded-host"]) == ("https", "a.example")


@asynchronous
async def test_a_client_that_waits_for_100_continue_is_told_by_the_unit_and_once() -> None:
    async def talk(visit: Visit) -> None:
        await visit.reader.readuntil(b"\r\n\r\n")
        visit.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        body = await visit.reader.readexactly(4)
        visit.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok(body))

    async with running(talk) as place:
        client = await place.client()
        client.send(get("/", "Content-Length: 4", "Expect: 100-Continue", method="PUT"))
        assert (await client.answer()).status == 100
        client.send(b"body")
        hint = await client.answer()
        assert (hint.status, hint.fields["link"]) == (103, "</a>")
        assert (await client.answer()).body == b"body"
        await client.close()


@asynchronous
async def test_a_refusal_instead_of_100_continue_ends_the_connection_for_nobody_knows_whether_the_body_comes() -> None:
    async def talk(visit: Visit) -> None:
        await visit.reader.readuntil(b"\r\n\r\n")
        visit.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        await visit.reader.read()

    async with running(talk) as place:
        client = await place.client()
        answer = await client.ask(get("/", "Content-Length: 4", "Expect: 100-continue", method="PUT"))
        assert (answer.status, answer.fields["connection"]) == (413, "close")
        assert await client.rest() == b""
        await client.close()


@asynchronous
async def test_an_answer_before_the_body_was_read_reaches_the_client_and_the_connection_goes_on() -> None:
    async def talk(visit: Visit) -> None:
        await visit.reader.readuntil(b"\r\n\r\n")
        visit.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        await visit.reader.read()

    async with running(talk) as place:
        client = await place.client()
        client.send(get("/", "Content-Length: 100000", method="POST") + b"x" * 5)
        answer = await client.answer()
        assert (answer.status, answer.body) == (403, b"no")
        client.send(b"x" * 99_995 + get("/none"))
        assert (await client.answer()).status == 403
        assert place.units[0].connections == 2, "the first one had half a request in it"
        await client.close()


@asynchronous
async def test_bytes_after_an_answer_are_nobodys_answer() -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        visit.send(ok(b"right") + ok(b"FALSE"))
        await visit.request()
        visit.send(ok(b"FALSE"))

    async with running(talk) as place:
        client = await place.client()
        for _ in range(3):
            assert (await client.ask(get())).body == b"right"
        assert place.units[0].connections == 3
        await client.close()


@asynchronous
async def test_a_late_byte_on_an_idle_connection_is_nobodys_answer() -> None:
    more = asyncio.Event()

    async def talk(visit: Visit) -> None:
        await visit.request()
        visit.send(ok(b"right"))
        await more.wait()
        visit.send(ok(b"FALSE"))
        await visit.reader.read()

    async with running(talk) as place:
        client = await place.client()
        assert (await client.ask(get())).body == b"right"
        more.set()
        assert (await client.ask(post(b"x"))).body == b"right"
        await client.close()


@asynchronous
async def test_idle_connections_to_units_are_closed_before_the_units_would() -> None:
    async with running(echoing(), unit_idle_seconds=0.05) as place:
        await place.ask(get())
        await until("the idle connection is closed", lambda: place.units[0].open == 0)
        assert (await place.ask(get())).status == 200
        assert place.units[0].connections == 2


@asynchronous
async def test_the_connection_that_was_used_last_is_used_first() -> None:
    hold = asyncio.Event()
    used: list[int] = []

    async def talk(visit: Visit) -> None:
        me = place.units[0].connections
        while True:
            await visit.request()
            used.append(me)
            if not hold.is_set() and len(used) < 3:
                await hold.wait()
            visit.send(ok())

    async with running(talk) as place:
        clients = [await place.client() for _ in range(3)]
        for client in clients:
            client.send(get())
        await until("three are at work", lambda: len(used) == 3)
        hold.set()
        for client in clients:
            await client.answer()
        for _ in range(4):
            await clients[0].ask(get())
        assert len(set(used[3:])) == 1
        for client in clients:
            await client.close()


@asynchronous
async def test_when_the_client_has_reset_its_connection_the_unit_is_told() -> None:
    gone = asyncio.Event()

    async def talk(visit: Visit) -> None:
        await visit.request()
        await visit.reader.read()
        gone.set()

    async with running(talk) as place:
        client = await place.client()
        client.send(get())
        await until("the unit has it", lambda: place.units[0].open)
        await until("it counts", lambda: place.count("proxy_in_flight", service="cart"))
        reset(client)
        await gone.wait()
        assert place.count("proxy_in_flight", service="cart") == 0
        await client.close()


@asynchronous
async def test_an_answer_that_breaks_off_is_cut_for_the_client_too() -> None:
    async with running(
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nha"),
    ) as place:
        for _ in range(2):
            client = await place.client()
            client.send(get())
            assert (await client.head())[0] == 200
            told = await client.rest()
            assert told in (b"RESET", b"half", b"2\r\nha\r\n"), "and no end that looks right"
            await client.close()
