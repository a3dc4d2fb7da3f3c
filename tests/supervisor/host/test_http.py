"""The HTTP server as its clients meet it: raw bytes over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from supervisor.host import http_connection
from supervisor.host.http import Handler, HttpServer, Peer, Request, Response
from supervisor.host.http_message import coded_refusal

DEADLINE_SECONDS = 10.0
HEAD_END = b"\r\n\r\n"


class Client:
    """Speaks raw HTTP to the server under test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        raw = (await self.reader.readuntil(HEAD_END)).decode()
        first, *lines = raw.rstrip().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return int(first.split()[1]), {name.lower(): value for name, value in pairs}

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        status, headers = await self.head()
        return status, headers, await self.reader.readexactly(int(headers.get("content-length", 0)))

    async def ask(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        await self.send(data)
        return await self.answer()

    async def chunk(self) -> bytes:
        size = int(await self.reader.readline(), 16)
        return (await self.reader.readexactly(size + 2))[:size]

    async def rest(self) -> bytes:
        return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class Served:
    """A server and the clients made for it."""

    def __init__(self, server: HttpServer, path: str) -> None:
        self.server, self.path = server, path
        self.clients: list[Client] = []

    async def connect(self) -> Client:
        self.clients.append(Client(*await asyncio.open_unix_connection(self.path)))
        return self.clients[-1]

    async def connect_tcp(self) -> Client:
        address = next(a for a in self.server.addresses if isinstance(a, tuple))
        self.clients.append(Client(*await asyncio.open_connection(*address)))
        return self.clients[-1]


Serve = Callable[..., contextlib.AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """A server on a unix socket in a folder of its own, ended with its clients."""

    @contextlib.asynccontextmanager
    async def serving(handler: Handler, *, max_body_bytes: int = 1000, **more: Any) -> AsyncIterator[Served]:
        server = HttpServer(handler, max_body_bytes=max_body_bytes, **more)
        served = Served(server, str(tmp_path / "http.sock"))
        await server.listen_unix(served.path)
        try:
            yield served
        finally:
            for client in served.clients:
                await client.close()
            await server.close(1.0)

    return serving


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine; what it forgets to end fails it."""

    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await work
        assert asyncio.all_tasks() == {asyncio.current_task()}, "tasks were left over"

    asyncio.run(bounded())


async def echo(request: Request) -> Response:
    told = [request.method, request.path, request.query, request.headers, request.body.decode()]
    return Response(200, json.dumps(told).encode())


async def until(true: Callable[[], bool]) -> None:
    """Wait for a condition; run() bounds the wait."""
    while not true():
        await asyncio.sleep(0.005)


def is_gone(path: str) -> bool:
    return not Path(path).exists()


def get(path: str = "/", *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def post(body: bytes, *headers: str) -> bytes:
    return get("/", f"Content-Length: {len(body)}", *headers, method="POST") + body


# requests and answers


def test_a_request_reaches_the_handler_whole_and_its_answer_comes_back(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(echo) as served:
            client = await served.connect()
            sent = get(
                "/v1/a%2Fb?wait=30&name=a%20b+c&empty=",
                "X-A: 1",
                "x-a: 2",
                "Content-Length: 5",
                method="POST",
            )
            status, headers, body = await client.ask(sent + b"hello")
            assert status == 200
            assert headers["content-type"] == "application/json"
            assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", headers["date"])
            assert json.loads(body) == [
                "POST",
                "/v1/a%2Fb",
                {"wait": "30", "name": "a b c", "empty": ""},
                {"host": "x", "x-a": "1, 2", "content-length": "5"},
                "hello",
            ]

    run(scenario())


def test_the_absolute_form_of_a_target_is_understood(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(echo) as served:
            client = await served.connect()
            assert json.loads((await client.ask(get("http://x/a/b?c=d")))[2])[1:3] == ["/a/b", {"c": "d"}]
            assert json.loads((await client.ask(get("http://x")))[2])[1] == "/"

    run(scenario())


def test_a_chunked_body_is_put_together(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(echo) as served:
            client = await served.connect()
            sent = get("/", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            assert json.loads((await client.ask(sent))[2])[4] == "abcde"

    run(scenario())


def test_bytes_that_come_one_at_a_time_make_the_same_request(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(echo) as served:
            client = await served.connect()
            for byte in post(b"slow"):
                await client.send(bytes([byte]))
                await asyncio.sleep(0)
            assert json.loads((await client.answer())[2])[4] == "slow"

    run(scenario())


def test_the_handler_learns_who_is_at_the_other_end(serve: Serve) -> None:
    seen: list[Peer] = []

    async def note(request: Request) -> Response:
        seen.append(request.peer)
        return Response(204)

    async def scenario() -> None:
        async with serve(note) as served:
            await served.server.listen_tcp("127.0.0.1", 0)
            for client in await served.connect(), await served.connect_tcp():
                assert (await client.ask(get()))[0] == 204
            host, port = served.clients[1].writer.get_extra_info("sockname")
            assert seen[0] == Peer(os.getuid(), os.getgid(), os.getpid(), "unix")
            assert seen[1] == Peer(None, None, None, f"{host}:{port}")

    run(scenario())


def test_a_connection_serves_many_requests(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(echo) as served:
            client = await served.connect()
            for number in range(50):
                assert json.loads((await client.ask(get(f"/{number}")))[2])[1] == f"/{number}"

    run(scenario())


def test_requests_sent_ahead_are_answered_in_order_one_at_a_time(serve: Serve) -> None:
    running = 0

    async def slower_first(request: Request) -> Response:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.02 if request.path == "/0" else 0)
        running -= 1
        return Response(200, request.path.encode())

    async def scenario() -> None:
        async with serve(slower_first) as served:
            client = await served.connect()
            await client.send(b"".join(get(f"/{number}") for number in range(20)))
            assert [(await client.answer())[2] for _ in range(20)] == [b"/%d" % number for number in range(20)]

    run(scenario())


def test_requests_sent_ahead_and_a_half_close_are_still_answered(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(echo) as served:
            client = await served.connect()
            await client.send(get("/1") + get("/2"))
            client.writer.write_eof()
            assert (await client.rest()).count(b"HTTP/1.1 200") == 2

    run(scenario())


def test_a_client_may_ask_for_the_end_of_the_connection(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(echo) as served:
            client = await served.connect()
            await client.send(get("/", "Connection: close"))
            assert b"connection: close" in (await client.rest()).lower()

    run(scenario())


def test_an_old_client_gets_its_answer_and_the_end(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(echo) as served:
            client = await served.connect()
            await client.send(b"GET /old HTTP/1.0\r\n\r\n")
            assert b"/old" in await client.rest()

    run(scenario())


@pytest.mark.parametrize("status", [200, 404])
def test_head_gets_the_headers_alone(serve: Serve, status: int) -> None:
    async def fixed(request: Request) -> Response:
        return Response(status, b"12345", "text/plain")

    async def scenario() -> None:
        async with serve(fixed) as served:
            client = await served.connect()
            await client.send(get(method="HEAD") + get())
            assert (await client.head())[1]["content-length"] == "5"
            assert (await client.answer())[2] == b"12345"

    run(scenario())


def test_garbage_after_a_head_request_gets_a_whole_answer(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(echo) as served:
            client = await served.connect()
            await client.send(get(method="HEAD"))
            await client.head()
            status, _, body = await client.ask(b"garbage\r\n\r\n")
            assert (status, json.loads(body)["status"]) == (400, 400)

    run(scenario())


def test_an_answer_without_content_has_no_length(serve: Serve) -> None:
    async def nothing(request: Request) -> Response:
        return Response(204, headers=(("X-Why", "done"),))

    async def scenario() -> None:
        async with serve(nothing) as served:
            client = await served.connect()
            status, headers, _ = await client.ask(get())
            assert (status, headers["x-why"]) == (204, "done")
            assert "content-length" not in headers and "transfer-encoding" not in headers
            assert (await client.ask(get()))[0] == 204

    run(scenario())


def test_a_client_that_waits_to_be_told_is_told_to_go_on(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(echo) as served:
            client = await served.connect()
            await client.send(get("/", "Content-Length: 2", "Expect: 100-continue", method="POST"))
            assert (await client.head())[0] == 100
            assert json.loads((await client.ask(b"ok"))[2])[4] == "ok"

    run(scenario())


# refusals


def refused_with(serve: Serve, sent: bytes, status: int, **options: Any) -> dict[str, Any]:
    """What a client is told that sends this; the connection must end, and the server must serve the next one."""
    told: list[dict[str, Any]] = []

    async def scenario() -> None:
        async with serve(echo, **options) as served:
            client = await served.connect()
            got, headers, body = await client.ask(sent)
            assert (got, headers["content-type"]) == (status, "application/problem+json")
            assert headers["connection"] == "close"
            assert await client.rest() == b""
            told.append(json.loads(body))
            if "authorize" not in options:
                assert (await (await served.connect()).ask(get()))[0] == 200

    run(scenario())
    assert told[0]["status"] == status and told[0]["title"]
    return told[0]


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    ],
)
def test_garbage_is_refused(serve: Serve, sent: bytes) -> None:
    refused_with(serve, sent, 400)


def test_an_unknown_transfer_encoding_is_refused(serve: Serve) -> None:
    refused_with(serve, get("/", "Transfer-Encoding: gzip", method="POST"), 501)


def test_an_announced_body_that_is_too_large_is_refused_unread(serve: Serve) -> None:
    sent = get("/", "Content-Length: 1001", "Expect: 100-continue", method="POST")
    assert "1000 bytes" in refused_with(serve, sent, 413)["detail"]


def test_a_chunked_body_that_grows_too_large_is_refused(serve: Serve) -> None:
    chunks = b"".join(b"64\r\n" + b"x" * 100 + b"\r\n" for _ in range(11))
    refused_with(serve, get("/", "Transfer-Encoding: chunked", method="POST") + chunks, 413)


def test_a_refused_client_that_still_sends_reads_its_answer(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(echo) as served:
            await served.server.listen_tcp("127.0.0.1", 0)
            client = await served.connect_tcp()
            await client.send(get("/", "Content-Length: 3000000", method="POST") + b"x" * 3_000_000)
            assert (await client.answer())[0] == 413

    run(scenario())


@pytest.mark.parametrize("ended", [True, False])
def test_headers_are_bounded(serve: Serve, ended: bool) -> None:
    refused_with(serve, get("/", "X-Long: " + "x" * 20_000)[: None if ended else -4], 431)


def test_a_peer_without_permission_is_told_so(serve: Serve) -> None:
    def nobody(head: Request) -> Response | None:
        return coded_refusal("forbidden", f"uid {head.peer.uid} may not {head.method} {head.path}: {head.body!r}")

    refused = refused_with(serve, post(b"{}"), 403, authorize=nobody)
    assert refused["detail"] == f"uid {os.getuid()} may not POST /: b''", "before the body is read"
    assert refused["code"] == "forbidden"


def test_a_check_of_permission_that_fails_lets_nobody_in(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def broken(head: Request) -> Response | None:
        raise KeyError("role")

    refused_with(serve, get(), 500, authorize=broken)
    assert "KeyError" in caplog.text


# slow clients


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time limits that a test can wait for."""
    for name in ("HEAD_SECONDS", "BODY_SECONDS", "IDLE_SECONDS", "STALL_SECONDS", "HALF_CLOSED_SECONDS"):
        monkeypatch.setattr(http_connection, name, 0.2)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("sent", [b"GET / HT", get("/", "Content-Length: 5", method="POST") + b"123"])
def test_a_request_that_does_not_come_to_its_end_is_refused(serve: Serve, sent: bytes) -> None:
    refused_with(serve, sent, 408)


@pytest.mark.usefixtures("hasty")
def test_bytes_that_trickle_in_do_not_move_the_deadline(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(echo) as served:
            client = await served.connect()
            trickle = asyncio.create_task(forever(client))
            assert (await client.answer())[0] == 408
            trickle.cancel()
            await asyncio.wait([trickle])

    async def forever(client: Client) -> None:
        await client.send(b"GET / HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                await client.send(b"X: y\r\n")
                await asyncio.sleep(0.02)

    run(scenario())


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("sent", [b"", get()])
def test_an_idle_connection_is_cut(serve: Serve, sent: bytes) -> None:
    async def scenario() -> None:
        async with serve(echo) as served:
            client = await served.connect()
            await client.send(sent)
            assert (await client.rest()).count(b"HTTP/1.1") == (1 if sent else 0)

    run(scenario())


@pytest.mark.usefixtures("hasty")
def test_a_handler_may_take_longer_than_any_limit_of_the_connection(serve: Serve) -> None:
    async def slow(request: Request) -> Response:
        await asyncio.sleep(0.5)
        return Response(200, b"at last")

    async def scenario() -> None:
        async with serve(slow) as served:
            assert (await (await served.connect()).ask(get()))[2] == b"at last"

    run(scenario())


@pytest.mark.usefixtures("hasty")
def test_a_client_that_does_not_take_its_answer_is_cut(serve: Serve) -> None:
    async def large(request: Request) -> Response:
        return Response(200, b"x" * 8_000_000)

    async def scenario() -> None:
        async with serve(large) as served:
            client = await served.connect()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(get())
            await until(lambda: bool(served.server._connections))
            await until(lambda: not served.server._connections)

    run(scenario())


def test_requests_sent_ahead_do_not_pile_up(serve: Serve) -> None:
    go = asyncio.Event()

    async def waits(request: Request) -> Response:
        await go.wait()
        return Response(200)

    async def scenario() -> None:
        async with serve(waits) as served:
            client = await served.connect()
            flood = asyncio.create_task(client.send(get("/", "X-Long: " + "x" * 1000) * 3000))
            done, _ = await asyncio.wait([flood], timeout=0.3)
            assert not done, "the server took megabytes of requests that it cannot answer yet"
            go.set()
            for _ in range(3000):
                assert (await client.answer())[0] == 200
            await flood

    run(scenario())


# clients that leave


def test_a_client_that_leaves_cancels_what_only_reads(serve: Serve) -> None:
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def poll(request: Request) -> Response:
        asked.set()
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return Response(200)

    async def scenario() -> None:
        async with serve(poll) as served:
            client = await served.connect()
            await client.send(get())
            await asked.wait()
            await client.close()
            await cancelled.wait()
            await until(lambda: not served.server._connections)

    run(scenario())


def test_a_client_that_leaves_does_not_cancel_a_command(serve: Serve) -> None:
    asked, left, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def command(request: Request) -> Response:
        asked.set()
        await left.wait()
        await asyncio.sleep(0.02)
        finished.set()
        return Response(202)

    async def scenario() -> None:
        async with serve(command) as served:
            client = await served.connect()
            await client.send(post(b"{}"))
            await asked.wait()
            await client.close()
            left.set()
            await finished.wait()
            await until(lambda: not served.server._connections)

    run(scenario())


def test_a_client_that_has_said_all_still_gets_a_quick_answer(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(echo) as served:
            client = await served.connect()
            await client.send(get("/quick"))
            client.writer.write_eof()
            assert b"/quick" in await client.rest()

    run(scenario())


def test_half_a_request_and_the_end_is_no_harm(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(echo) as served:
            client = await served.connect()
            await client.send(b"GET / HTTP/1.1\r\n")
            client.writer.write_eof()
            assert (await client.rest()).startswith(b"HTTP/1.1 400")
            await until(lambda: not served.server._connections)

    run(scenario())


# streams


def streaming(chunks: AsyncIterator[bytes]) -> Handler:
    async def handler(request: Request) -> Response:
        return Response(200, content_type="text/event-stream", stream=chunks)

    return handler


def test_a_stream_comes_chunk_by_chunk_and_the_connection_lives_on(serve: Serve) -> None:
    more = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"first"
        await more.wait()
        yield b""
        yield b"second"

    async def scenario() -> None:
        async with serve(streaming(chunks())) as served:
            client = await served.connect()
            await client.send(get())
            headers = (await client.head())[1]
            assert headers["transfer-encoding"] == "chunked" and "content-length" not in headers
            assert await client.chunk() == b"first"
            more.set()
            assert [await client.chunk(), await client.chunk()] == [b"second", b""]
            await client.send(get(method="HEAD"))
            assert (await client.head())[0] == 200

    run(scenario())


def test_a_client_that_leaves_ends_its_stream(serve: Serve) -> None:
    closed = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.sleep(1000)
        finally:
            closed.set()

    async def scenario() -> None:
        async with serve(streaming(chunks())) as served:
            client = await served.connect()
            await client.send(post(b"even of a request that does more than read"))
            await client.head()
            await client.close()
            await closed.wait()

    run(scenario())


def test_a_client_that_does_not_read_holds_its_stream_up(serve: Serve) -> None:
    produced = 0
    closed = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal produced
        try:
            while True:
                produced += 1
                yield b"x" * 10_000
        finally:
            closed.set()

    async def scenario() -> None:
        async with serve(streaming(chunks())) as served:
            client = await served.connect()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(get())
            before = -1
            while produced != before:  # until it stands still
                before = produced
                await asyncio.sleep(0.1)
            assert 0 < produced * 10_000 < 2_000_000
            client.writer.transport.abort()
            await closed.wait()

    run(scenario())


def test_a_stream_that_fails_ends_short_so_that_the_client_can_tell(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"first"
        raise ValueError("lost the file")

    async def scenario() -> None:
        async with serve(streaming(chunks())) as served:
            client = await served.connect()
            await client.send(get())
            rest = await client.rest()
            assert b"first" in rest and not rest.endswith(b"0\r\n\r\n")

    run(scenario())
    assert "lost the file" in caplog.text


# failing handlers


@pytest.mark.parametrize(
    "answer",
    [
        ValueError("broken"),
        Response(200, headers=(("Bad\nName", "x"),)),
        Response(200, headers=(("X", "split\r\nX-Other: 1"),)),
        Response(99),
        None,
    ],
)
def test_a_handler_that_fails_is_answered_for_and_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture, answer: Any
) -> None:
    async def broken(request: Request) -> Response:
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    async def scenario() -> None:
        async with serve(broken) as served:
            client = await served.connect()
            for _ in range(2):  # on the same connection
                status, headers, body = await client.ask(get())
                assert (status, headers["content-type"]) == (500, "application/problem+json")
                assert b"broken" not in body

    run(scenario())
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "Traceback" in caplog.text


def test_a_handler_that_is_cancelled_from_elsewhere_ends_its_connection(serve: Serve) -> None:
    async def cancelled(request: Request) -> Response:
        raise asyncio.CancelledError

    async def scenario() -> None:
        async with serve(cancelled) as served:
            client = await served.connect()
            await client.send(get())
            with contextlib.suppress(ConnectionError):
                assert await client.rest() == b""

    run(scenario())


# many clients


def test_connections_beyond_the_maximum_are_told_so(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(echo, max_connections=3) as served:
            early = [await served.connect() for _ in range(3)]
            await until(lambda: len(served.server._connections) == 3)
            late = await served.connect()
            status, headers, body = await late.ask(get())
            assert (status, headers["connection"]) == (503, "close")
            assert "too many connections" in json.loads(body)["detail"]
            for client in early:
                assert (await client.ask(get()))[0] == 200
            await early[0].close()
            await late.close()
            await until(lambda: len(served.server._connections) == 2)
            assert (await (await served.connect()).ask(get()))[0] == 200

    run(scenario())


def test_a_crowd_beyond_that_is_cut_at_once(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(echo, max_connections=1) as served:
            for _ in range(60):
                await served.connect()
            ended = [asyncio.create_task(client.rest()) for client in served.clients]
            await until(lambda: sum(task.done() for task in ended) == 27)
            assert len(served.server._connections) == 33
            for task in ended:
                task.cancel()
            await asyncio.wait(ended)

    run(scenario())


def test_a_crowd_on_tcp_keeps_nobody_off_the_unix_socket(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(echo, max_connections=1) as served:
            await served.server.listen_tcp("127.0.0.1", 0)
            assert (await (await served.connect_tcp()).ask(get()))[0] == 200
            assert (await (await served.connect_tcp()).ask(get()))[0] == 503
            assert (await (await served.connect()).ask(get()))[0] == 200

    run(scenario())


# the end


def test_closing_lets_a_running_request_finish_and_ends_idle_connections(serve: Serve) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        asked.set()
        await go.wait()
        return Response(200, b"finished")

    async def scenario() -> None:
        async with serve(slow) as served:
            idle, busy = await served.connect(), await served.connect()
            await busy.send(get() + get("/never"))
            await asked.wait()
            closing = asyncio.create_task(served.server.close(5.0))
            assert await idle.rest() == b""
            assert is_gone(served.path)
            go.set()
            status, headers, body = await busy.answer()
            assert (status, headers["connection"], body) == (200, "close", b"finished")
            assert await busy.rest() == b""
            await closing

    run(scenario())


def test_closing_cancels_what_outlasts_the_grace(serve: Serve) -> None:
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def endless(request: Request) -> Response:
        asked.set()
        try:
            await asyncio.sleep(1000)
        finally:
            cancelled.set()
        return Response(200)

    async def scenario() -> None:
        async with serve(endless) as served:
            client = await served.connect()
            await client.send(post(b""))
            await asked.wait()
            await served.server.close(0.1)
            assert cancelled.is_set()
            with contextlib.suppress(ConnectionError):
                assert await client.rest() == b""

    run(scenario())


def test_closing_ends_streams_at_once(serve: Serve) -> None:
    closed = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.sleep(1000)
        finally:
            closed.set()

    async def scenario() -> None:
        async with serve(streaming(chunks())) as served:
            client = await served.connect()
            await client.send(get())
            await client.head()
            started = asyncio.get_running_loop().time()
            await served.server.close(DEADLINE_SECONDS)
            assert asyncio.get_running_loop().time() - started < DEADLINE_SECONDS / 2
            assert closed.is_set()

    run(scenario())


def test_closing_twice_or_without_a_client_is_fine(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(echo) as served:
            await served.server.close(1.0)
            await served.server.close(1.0)
            assert served.server.addresses == []

    run(scenario())


def test_the_server_imports_no_client_and_no_mail_library() -> None:
    code = "import sys, supervisor.host.http; print(*{'http.client', 'email', 'requests', 'psutil'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
