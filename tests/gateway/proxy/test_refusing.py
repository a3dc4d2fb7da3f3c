"""What the proxy answers itself: to what is no request, might be two, is too much, too slow, or for nobody."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.settings.proxy import Route
from tests.gateway.proxy.running import SERVICE, Answer, Visit, asynchronous, echoing, get, ok, post, running

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize("request_", [
    HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    HEAD + b"Content-Length: 3\r\ncontent-length: 4\r\n\r\nabc",
    HEAD + b"Content-Length: +3\r\n\r\nabc",
    HEAD + b"Content-Length: 3 3\r\n\r\nabc",
    HEAD + b"Content-Length : 3\r\n\r\nabc",
    HEAD + b"Content-Length: 0x3\r\n\r\nabc",
    HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    HEAD + b"X-A: 1\r\n Content-Length: 3\r\n\r\nabc",
    HEAD + b"X-A: 1\r\n\tfolded\r\n\r\n",
    HEAD + b"X-A: 1\nContent-Length: 3\r\n\r\nabc",
    HEAD + b"X-A: 1\rContent-Length: 3\r\n\r\nabc",
    HEAD + b"X-A: a\0b\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nZ\r\nabc\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
    b"GET shop HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET\n\n",
    b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
])  # fmt: skip
@asynchronous
async def test_what_others_might_read_differently_is_refused_and_the_connection_ends(request_: bytes) -> None:
    async with running(echoing()) as place:
        told = await place.say(request_ + get("/smuggled"))
        assert told.startswith(b"HTTP/1.1 400 "), told
        assert b'"code": "bad_request"' in told
        assert told.count(b"HTTP/1.1 ") == 1
        assert b"smuggled" not in told
        assert place.count("proxy_requests_total", service="cart", code="200") == 0


@asynchronous
async def test_what_is_not_done_is_said_to_be_so() -> None:
    async with running(echoing()) as place:
        assert (await place.say(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")).startswith(b"HTTP/1.1 501 ")
        assert (await place.say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")).startswith(b"HTTP/1.1 505 ")
        assert (await place.say(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n")).startswith(b"HTTP/1.1 505 ")
        assert (await place.say(HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n")).startswith(b"HTTP/1.1 501 ")


@asynchronous
async def test_heads_have_limits() -> None:
    async with running(echoing(), max_head_bytes=2000, max_headers=10) as place:
        assert (await place.say(get("/", "X: " + "x" * 3000))).startswith(b"HTTP/1.1 431 ")
        assert (await place.say(b"GET /" + b"x" * 3000)).startswith(b"HTTP/1.1 431 "), "before its end has come"
        assert (await place.say(get("/", *["X: 1"] * 10))).startswith(b"HTTP/1.1 431 ")
        assert (await place.ask(get("/", *["X: 1"] * 9))).status == 200


@asynchronous
async def test_a_slow_head_and_a_slow_body_are_not_waited_for() -> None:
    async with running(echoing(), head_seconds=0.1, idle_seconds=0.3) as place:
        client = await place.client()
        assert (await client.ask(get())).status == 200
        client.send(b"GET / HTT")
        answer = await client.answer()
        assert (answer.status, json.loads(answer.body)["code"]) == (408, "request_timeout")
        assert await client.rest() == b""
        await client.close()
        assert (await place.say(post(b"abc")[:-1])).startswith(b"HTTP/1.1 408 ")
        assert await place.say(b"") == b"", "who says nothing is told nothing"


@asynchronous
async def test_a_head_may_come_in_any_pieces() -> None:
    async with running(echoing()) as place:
        client = await place.client()
        for byte in get("/pieces", "X-A: 1"):
            client.send(bytes((byte,)))
            await asyncio.sleep(0)
        assert (await client.answer()).body.startswith(b"GET /pieces ")
        await client.close()


@asynchronous
async def test_a_connection_between_requests_is_closed_after_a_while() -> None:
    async with running(echoing(), idle_seconds=0.1) as place:
        client = await place.client()
        assert (await client.ask(get())).status == 200
        assert await client.rest() == b""
        await client.close()


def problem(answer: Answer) -> tuple[int, str, str]:
    assert answer.fields["content-type"] == "application/problem+json"
    body = json.loads(answer.body)
    assert body["status"] == answer.status
    return answer.status, body["code"], body["detail"]


@asynchronous
async def test_a_service_without_servers_says_who_is_left() -> None:
    async with running(echoing(), echoing(), connect_seconds=1.0) as place:
        await place.apply(place.draining(0), place.draining(1))
        answer = await place.ask(get())
        assert problem(answer) == (503, "no_server", "no server of cart can take requests; 2 drain, 0 ejected")
        assert answer.fields["retry-after"] == "1"
        await place.apply()
        client = await place.client()
        assert (await client.ask(get(method="HEAD"))).status == 503
        assert problem(await client.ask(post(b"a whole body")))[2].endswith("0 drain, 0 ejected")
        assert (await client.ask(get())).status == 503, "the connection can be used again"
        await client.close()
        assert place.count("proxy_requests_total", service="cart", code="503") == 4


@asynchronous
async def test_a_path_or_host_that_nobody_serves_is_not_found() -> None:
    routes = (Route(SERVICE, "/cart"), Route(SERVICE, "/", "*.shop.example"), Route(SERVICE, "/x", "only.example"))
    async with running(echoing(), routes=routes) as place:

        async def status(host: str, path: str) -> int:
            return (await place.ask(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())).status

        assert [await status("a", path) for path in ("/cart", "/cart/7", "/cart?a", "/cartoon", "/", "/cart%2f")] == [
            200,
            200,
            200,
            404,
            404,
            404,
        ]
        assert [await status(host, "/") for host in ("a.shop.example", "A.b.Shop.Example:80", "shop.example")] == [
            200,
            200,
            404,
        ]
        assert [await status("only.example", path) for path in ("/x", "/cart", "/y")] == [200, 200, 404]
        assert await status("a", "http://b.shop.example/y") == 200, "the target's host counts"
        client = await place.client()
        for request in (get("/"), post(b"a whole body", "/"), get("/", method="HEAD")):
            assert (await client.ask(request)).status == 404, "on one connection"
        assert problem(await client.ask(get("/")))[1] == "no_route"
        await client.close()
        assert place.count("proxy_requests_total", service="", code="404") == 9


@asynchronous
async def test_more_connections_than_allowed_are_told_so() -> None:
    async with running(echoing(), max_connections=1) as place:
        client = await place.client()
        assert (await client.ask(get())).status == 200
        answer = await place.ask(get())
        assert problem(answer)[:2] == (503, "too_many_connections")
        assert answer.fields["connection"] == "close"
        assert (await client.ask(get())).status == 200
        await client.close()


@asynchronous
async def test_requests_do_not_go_in_circles() -> None:
    async with running(echoing()) as place:
        assert problem(await place.ask(get("/", "Via: " + ", ".join(["1.1 a"] * 20))))[:2] == (508, "loop")


@pytest.mark.parametrize("answer", [
    b"garbage\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
])  # fmt: skip
@asynchronous
async def test_an_answer_that_is_none_is_a_bad_gateway(answer: bytes) -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        visit.send(answer)
        await visit.reader.read()

    async with running(talk) as place:
        client = await place.client()
        got = await client.ask(post(b""))
        assert problem(got)[:2] == (502, "broken_answer")
        assert problem(got)[2].startswith("n/0 (127.0.0.1:")
        await client.close()


@asynchronous
async def test_a_field_of_an_answer_cannot_begin_another_answer() -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        visit.send(ok(b"x", b"Location: /a\rSet-Cookie: evil=1\r\n\r\nHTTP/1.1 200 OK"))
        await visit.reader.read()

    async with running(talk) as place:
        told = await place.say(get("/", "Connection: close"))
        assert told.startswith(b"HTTP/1.1 502 ")
        assert told.count(b"HTTP/1.1") == 1
        assert b"\r\nset-cookie" not in told.lower()


@asynchronous
async def test_a_refused_body_is_read_so_that_the_client_can_read_the_refusal() -> None:
    async with running(echoing(), routes=(Route(SERVICE, "/cart"),)) as place:
        client = await place.client()
        client.send(post(b"x" * 300_000, "/none"))
        await asyncio.sleep(0)
        assert (await client.answer()).status == 404
        await client.rest()
        await client.close()
