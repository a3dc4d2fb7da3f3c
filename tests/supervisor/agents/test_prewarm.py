"""The first requests of an attempt, to a client that does as it is told, and once to a real server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from supervisor.agents.prewarm import Prewarms, Request
from supervisor.core.events import Event, Prewarmed
from supervisor.core.model import HttpCall, ServiceSpec, UnitSpec, WarmupSpec
from supervisor.host.http_client import HttpFailed, request
from tests.supervisor.running import run, until

LONG = 3600.0


def spec(*calls: HttpCall, seconds: float = LONG, name: str = "cart", port: int = 9080) -> UnitSpec:
    service = ServiceSpec("shop", "127.0.0.5", port)
    return UnitSpec(
        name, name, 0, (name,), service=service, warmup=WarmupSpec(requests=calls, requests_timeout=seconds)
    )


def get(path: str) -> HttpCall:
    return HttpCall("GET", path)


@dataclass
class Answer:
    status: int


@dataclass
class Sent:
    address: str
    port: int
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]


class Client:
    """Answers by path: with a status, with an error, or (None) never."""

    def __init__(self, **answers: int | Exception | None) -> None:
        self.answers, self.sent, self.cut = answers, list[Sent](), list[str]()
        self.together = self.most_together = 0

    async def __call__(
        self,
        address: str,
        port: int,
        method: str,
        target: str,
        /,
        *,
        headers: Sequence[tuple[str, str]],
        timeout_seconds: float,
    ) -> Answer:
        self.sent.append(Sent(address, port, method, target, tuple(headers)))
        self.together += 1
        self.most_together = max(self.together, self.most_together)
        try:
            await asyncio.sleep(0)
            answer = self.answers.get(target.strip("/"), 200)
            if answer is None:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cut.append(target)
            raise
        finally:
            self.together -= 1
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return Answer(answer)

    @property
    def targets(self) -> list[str]:
        return [sent.target for sent in self.sent]


class Host:
    def __init__(self, client: Request) -> None:
        self.posted = list[tuple[str, Event]]()
        self.prewarms = Prewarms(lambda unit, event: self.posted.append((unit, event)), client)


@asynccontextmanager
async def host(client: Request) -> AsyncIterator[Host]:
    made = Host(client)
    try:
        yield made
    finally:
        await made.prewarms.close()


def test_requests_go_one_after_another_to_the_units_own_address_and_bear_a_mark() -> None:
    async def scenario() -> None:
        client = Client()
        async with host(client) as it:
            it.prewarms.send(
                spec(get("/a"), HttpCall("POST", "/b?c=d", 9999, (("Accept", "text/plain"),)), get("/a")), 4
            )
            assert it.posted == []
            await until(lambda: it.posted)
            assert it.posted == [("cart", Prewarmed(4))]
        mark = ("X-Warmup", "1")
        assert client.sent == [
            Sent("127.0.0.5", 9080, "GET", "/a", (mark,)),
            Sent("127.0.0.5", 9999, "POST", "/b?c=d", (("Accept", "text/plain"), mark)),
            Sent("127.0.0.5", 9080, "GET", "/a", (mark,)),
        ]
        assert client.most_together == 1
        assert it.prewarms.trouble("cart") == ""

    run(scenario())


def test_a_mark_that_is_configured_is_not_doubled() -> None:
    async def scenario() -> None:
        client = Client()
        async with host(client) as it:
            it.prewarms.send(spec(HttpCall("GET", "/", headers=(("x-warmup", "yes"),))), 1)
            await until(lambda: it.posted)
        assert client.sent[0].headers == (("x-warmup", "yes"),)

    run(scenario())


@pytest.mark.parametrize("unit", [spec(), replace(spec(), warmup=None), replace(spec(get("/a")), service=None)])
def test_a_unit_that_gets_none_goes_on_at_once(unit: UnitSpec) -> None:
    async def scenario() -> None:
        client = Client()
        async with host(client) as it:
            it.prewarms.send(unit, 2)
            assert it.posted == [("cart", Prewarmed(2))]
        assert client.sent == []

    run(scenario())


def test_failures_are_a_warning_that_names_each_once_and_the_others_are_sent_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        client = Client(a=503, b=HttpFailed("connection refused"), d=404, e=302)
        async with host(client) as it:
            it.prewarms.send(spec(*map(get, ("/a", "/b", "/c", "/d", "/e"))), 1)
            await until(lambda: it.posted)
            trouble = it.prewarms.trouble("cart")
        assert trouble == (
            "warm-up requests failed: GET /a: it answered 503; GET /b: connection refused; GET /d: it answered 404"
        )
        assert [record.getMessage() for record in caplog.records] == [f"cart: {trouble}"]
        assert client.targets == ["/a", "/b", "/c", "/d", "/e"]  # each once

    with caplog.at_level(logging.WARNING):
        run(scenario())


def test_of_many_failures_the_first_are_told_and_the_others_counted() -> None:
    async def scenario() -> None:
        calls = [get(f"/{letter}") for letter in "abcde"]
        async with host(Client(**dict.fromkeys("abcde", 500))) as it:
            it.prewarms.send(spec(*calls), 1)
            await until(lambda: it.posted)
            assert it.prewarms.trouble("cart").endswith("GET /c: it answered 500; and 2 more")

    run(scenario())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "no answer in time"),
        (TimeoutError("so late"), "so late"),
        (RuntimeError("x"), "RuntimeError('x')"),
    ],
)
def test_even_a_client_that_breaks_its_promise_keeps_no_unit_out_of_traffic(error: Exception, words: str) -> None:
    async def scenario() -> None:
        async with host(Client(a=error)) as it:
            it.prewarms.send(spec(get("/a"), get("/b")), 1)
            await until(lambda: it.posted)
            assert it.prewarms.trouble("cart") == f"warm-up requests failed: GET /a: {words}"

    run(scenario())


def test_when_the_time_for_all_is_over_the_unit_goes_on() -> None:
    async def scenario() -> None:
        client = Client(a=500, b=None)
        async with host(client) as it:
            it.prewarms.send(spec(*map(get, ("/a", "/b", "/c", "/d")), seconds=0.1), 1)
            await until(lambda: it.posted)
            assert it.prewarms.trouble("cart") == (
                "warm-up requests failed: GET /a: it answered 500; "
                "GET /b: not answered when the 0.1 s for all were over, and 2 more not sent"
            )
        assert client.cut == ["/b"]
        assert client.targets == ["/a", "/b"]

    run(scenario())


def test_the_last_request_that_is_late_leaves_none_unsent() -> None:
    async def scenario() -> None:
        async with host(Client(a=None)) as it:
            it.prewarms.send(spec(get("/a"), seconds=0.05), 1)
            await until(lambda: it.posted)
            assert it.prewarms.trouble("cart").endswith("GET /a: not answered when the 0.05 s for all were over")

    run(scenario())


def test_an_attempt_that_ends_is_sent_nothing_more_and_says_nothing() -> None:
    async def scenario() -> None:
        client = Client(a=None)
        async with host(client) as it:
            it.prewarms.send(spec(get("/a"), get("/b")), 1)
            await until(lambda: client.sent)
            it.prewarms.cancel("cart")
            it.prewarms.cancel("cart")
            await until(lambda: client.cut)
            assert client.targets == ["/a"]
            assert it.posted == []

    run(scenario())


def test_the_next_attempt_ends_the_requests_and_the_trouble_of_the_one_before() -> None:
    async def scenario() -> None:
        client = Client(a=500, b=None)
        async with host(client) as it:
            it.prewarms.send(spec(get("/a")), 1)
            await until(lambda: it.posted)
            it.prewarms.cancel("cart")  # its end is no reason to forget what went wrong
            assert it.prewarms.trouble("cart")
            it.prewarms.send(spec(get("/b")), 2)
            assert it.prewarms.trouble("cart") == ""
            await until(lambda: "/b" in client.targets)
            it.prewarms.send(spec(get("/c")), 3)
            await until(lambda: len(it.posted) == 2)
            assert client.cut == ["/b"]
            assert it.posted == [("cart", Prewarmed(1)), ("cart", Prewarmed(3))]

    run(scenario())


def test_units_do_not_wait_for_each_other() -> None:
    async def scenario() -> None:
        client = Client(a=None)
        async with host(client) as it:
            it.prewarms.send(spec(get("/a"), name="slow"), 1)
            it.prewarms.send(spec(get("/b"), name="quick"), 1)
            await until(lambda: it.posted == [("quick", Prewarmed(1))])
            it.prewarms.forget("slow")
            await until(lambda: client.cut)
        assert it.posted == [("quick", Prewarmed(1))]

    run(scenario())


def test_closing_ends_all_of_them() -> None:
    async def scenario() -> None:
        client = Client(a=None)
        async with host(client) as it:
            for name in ("x", "y"):
                it.prewarms.send(spec(get("/a"), name=name), 1)
            await until(lambda: len(client.sent) == 2)
            await it.prewarms.close()
            assert len(client.cut) == 2
            assert it.posted == []

    run(scenario())


def test_a_real_server_gets_them_and_a_closed_port_is_a_warning() -> None:
    async def scenario() -> None:
        heads = list[bytes]()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            status = b"200 OK" if heads[-1].startswith(b"GET /warm") else b"500 Internal Server Error"
            writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(serve, "127.0.0.5", 0) as server, host(request) as it:
            port = server.sockets[0].getsockname()[1]
            it.prewarms.send(spec(get("/warm?all=1"), HttpCall("DELETE", "/cache"), port=port), 1)
            await until(lambda: it.posted)
            assert it.prewarms.trouble("cart") == "warm-up requests failed: DELETE /cache: it answered 500"
            assert heads[0].startswith(b"GET /warm?all=1 HTTP/1.1\r\n")
            assert all(b"\r\nx-warmup: 1\r\n" in head.lower() for head in heads)
            server.close()
            it.prewarms.send(spec(get("/warm"), port=port), 2)
            await until(lambda: len(it.posted) == 2)
            assert "GET /warm: " in it.prewarms.trouble("cart")

    run(scenario())
