"""The daemon's HTTP client, against servers that behave, and servers that do not."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
from typing import Any

import pytest

from supervisor import __version__
from supervisor.errors import SupervisorError
from supervisor.host.http_client import HttpAnswer, HttpFailed, request
from tests.supervisor.host.answering import (
    OK,
    Speak,
    answering,
    closed_port,
    listening,
    open_sockets,
    process,
    saying,
    until_it_hangs_up,
)
from tests.supervisor.running import run, until

SHORT_SECONDS = 0.3
HTTP_SERVER = """
import http.server, sys
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
print(server.server_port, flush=True)
server.serve_forever()
"""


async def ask(port: int, method: str = "GET", target: str = "/", **options: Any) -> HttpAnswer:
    return await request("127.0.0.1", port, method, target, **{"timeout_seconds": 10.0, **options})


async def fails(port: int, **options: Any) -> str:
    """Why there is no answer."""
    with pytest.raises(HttpFailed) as caught:
        await ask(port, **options)
    assert isinstance(caught.value, SupervisorError) and str(caught.value) == caught.value.reason
    return caught.value.reason


def reason(speak: Speak | bytes, **options: Any) -> str:
    async def scenario() -> str:
        async with answering(speak) as server:
            before = open_sockets()
            why = await fails(server.port, **options)
            await server.all_gone()
            assert open_sockets() <= before
            return why

    return run(scenario())


def answer(speak: Speak | bytes, **options: Any) -> HttpAnswer:
    async def scenario() -> HttpAnswer:
        async with answering(speak) as server:
            before = open_sockets()
            got = await ask(server.port, **options)
            await server.all_gone()
            assert open_sockets() <= before
            return got

    return run(scenario())


def head(**options: Any) -> list[str]:
    """The lines of a request, without the port."""

    async def scenario() -> list[str]:
        async with answering() as server:
            await ask(server.port, **options)
            return server.heard[0].decode().replace(f":{server.port}", ":PORT").strip().split("\r\n")

    return run(scenario())


# Requests.


def test_a_request_says_who_asks_and_that_the_connection_ends() -> None:
    assert head(target="/health?deep=1") == [
        "GET /health?deep=1 HTTP/1.1",
        "Host: 127.0.0.1:PORT",
        f"User-Agent: unitd/{__version__}",
        "Accept: */*",
        "Connection: close",
    ]


def test_headers_of_the_caller_replace_ours_but_not_those_that_frame_the_request() -> None:
    lines = head(
        headers=(
            ("accept", "text/plain"),
            ("User-Agent", "kube-probe"),
            ("X-Deep", "1"),
            ("connection", "keep-alive"),
            ("Content-Length", "7"),
            ("Transfer-Encoding", "chunked"),
        )
    )
    assert sorted(lines[1:]) == [
        "Connection: close", "Host: 127.0.0.1:PORT", "User-Agent: kube-probe", "X-Deep: 1", "accept: text/plain",
    ]  # fmt: skip


@pytest.mark.parametrize("options", [{"host": "shop.test"}, {"headers": (("Host", "shop.test"),)}])
def test_the_host_can_be_another(options: dict[str, Any]) -> None:
    lines = head(**options)
    assert [line for line in lines if line.startswith("Host")] == ["Host: shop.test"]


def test_the_host_of_an_ipv6_address_stands_in_brackets() -> None:
    async def scenario() -> bytes:
        async with answering(host="::1") as server:
            await request("::1", server.port, "GET", "/", timeout_seconds=10)
            return server.heard[0].replace(b"%d" % server.port, b"PORT")

    assert b"\r\nHost: [::1]:PORT\r\n" in run(scenario())


def test_a_body_is_sent_with_its_length() -> None:
    async def scenario() -> None:
        got = list[bytes]()

        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.append(await reader.readuntil(b"\r\n\r\n"))
            got.append(await reader.readexactly(5))
            writer.write(OK)
            await writer.drain()

        async with answering(speak) as server:
            assert (await ask(server.port, "POST", body=b"hello")).status == 200
        assert b"\r\nContent-Length: 5\r\n" in got[0] and got[1] == b"hello"

    run(scenario())


def test_a_post_without_a_body_says_so() -> None:
    assert "Content-Length: 0" in head(method="POST")


@pytest.mark.parametrize(
    "wrong",
    [
        {"headers": (("X-A", "1\r\nX-B: 2"),)},
        {"headers": (("X A", "1"),)},
        {"headers": (("X-A", "é"),)},
        {"target": "/a b"},
        {"target": "/ä"},
        {"method": "GE T"},
    ],
)
def test_what_cannot_be_said_in_http_is_not_sent(wrong: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with answering() as server:
            assert (await fails(server.port, **wrong)).startswith("the request cannot be sent as HTTP: ")
            assert server.clients == []

    run(scenario())


def test_our_end_is_told() -> None:
    async def scenario() -> None:
        told = list[tuple[str, int]]()
        async with answering() as server:
            await ask(server.port, on_connected=told.append)
            assert told == server.clients

    run(scenario())


# Answers.


def test_an_answer_has_its_status_headers_and_body() -> None:
    got = answer(b"HTTP/1.1 500 Oh\r\nContent-Length: 4\r\nX-Why: it is broken\r\n\r\nsick")
    assert got == HttpAnswer(500, (("content-length", "4"), ("x-why", "it is broken")), b"sick", False)


@pytest.mark.parametrize(
    ("said", "body"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", b"abcde"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, b"ok"),
        (OK + b"and more that belongs to nothing", b"ok"),
    ],
    ids=["1.0", "to the end", "chunked", "204", "304", "1xx", "more"],
)
def test_every_way_to_end_a_body_is_understood(said: bytes, body: bytes) -> None:
    got = answer(said)
    assert (got.body, got.truncated) == (body, False)


def test_an_answer_to_head_has_no_body() -> None:
    assert answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", method="HEAD").body == b""


def test_a_redirect_is_an_answer() -> None:
    got = answer(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
    assert got.status == 302 and ("location", "http://127.0.0.1:1/") in got.headers


@pytest.mark.parametrize("size", [9, 10])
def test_a_body_within_the_limit_is_whole(size: int) -> None:
    got = answer(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * size, max_body_bytes=10)
    assert (len(got.body), got.truncated) == (size, False)


def test_of_an_endless_body_the_rest_is_not_awaited() -> None:
    endless = saying(b"HTTP/1.1 200 OK\r\n\r\n", for_ever=b"x" * 65536)
    got = answer(endless)
    assert (len(got.body), got.truncated) == (64 * 1024, True)


def test_a_server_may_answer_before_it_has_read_everything() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.write_eof()
        await until_it_hangs_up(reader, writer)

    assert answer(speak, method="POST", body=b"x" * 4_000_000).status == 413


# No answers.


def test_a_port_where_nobody_listens() -> None:
    assert run(fails(closed_port())) == "connection refused"


@pytest.mark.parametrize(
    ("speak", "words"),
    [
        (until_it_hangs_up, "no answer within 0.3 s"),
        (saying(b"HTTP/1.1 200 OK\r\nX-A: ", for_ever=b"b", pause_seconds=0.01), "no answer within 0.3 s"),
        (saying(for_ever=b"HTTP/1.1 100 Continue\r\n\r\n" * 5000), "no answer within 0.3 s"),
        (
            saying(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", for_ever=b"b", pause_seconds=0.01),
            "its answer did not end within 0.3 s",
        ),
    ],
    ids=["silence", "a header byte by byte", "a flood of 1xx", "a body byte by byte"],
)
def test_the_deadline_holds(speak: Speak, words: str) -> None:
    assert reason(speak, timeout_seconds=SHORT_SECONDS) == words


def test_the_deadline_holds_for_connecting() -> None:
    async def scenario() -> None:
        with listening(backlog=0) as listener:
            port = listener.getsockname()[1]
            assert await fails(port, timeout_seconds=SHORT_SECONDS) == "no answer within 0.3 s", "the backlog took it"
            assert await fails(port, timeout_seconds=SHORT_SECONDS) == "no connection within 0.3 s"

    run(scenario())


def test_the_deadline_holds_for_sending() -> None:
    async def speak(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * SHORT_SECONDS)  # reads nothing meanwhile

    got = reason(speak, method="POST", body=b"x" * 30_000_000, timeout_seconds=SHORT_SECONDS)
    assert got == "no answer within 0.3 s"


def test_a_stopped_server_is_connected_to_and_does_not_answer() -> None:
    with process(HTTP_SERVER) as server:
        assert server.stdout is not None
        os.kill(server.pid, signal.SIGSTOP)
        # The line with the port was read when it started; its listener is found by asking the kernel.
        port = _listening_port(server.pid)
        assert run(fails(port, timeout_seconds=SHORT_SECONDS)) == "no answer within 0.3 s"
        os.kill(server.pid, signal.SIGCONT)
        assert run(ask(port, target="/nothing-here")).status == 404


def _listening_port(pid: int) -> int:
    inodes = {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return next(int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "it closed the connection before it answered"),
        (b"HTTP", "it closed the connection in the middle of its answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "it closed the connection in the middle of its answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome", "it closed the connection in the middle of its answer"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "it closed the connection in the middle of its answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "answered something that is not HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", "answered something that is not HTTP"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", "answered something that is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "answered something that is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "answered something that is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000, "answered something that is not HTTP"),
        (b"\x9c\0\xff", "answered something that is not HTTP"),
        (b"\x15\x03\x01\0\x02\x02\x16", "answered something that is not HTTP but TLS"),
    ],
)
def test_answers_that_are_none(said: bytes, words: str) -> None:
    assert reason(said) == words


def test_what_is_no_http_is_known_before_its_line_ends() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-Open")
        await writer.drain()
        await until_it_hangs_up(reader, writer)

    assert reason(speak) == "answered something that is not HTTP"


def test_a_reset_connection_is_a_closed_one() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    assert reason(speak) == "it closed the connection before it answered"


@pytest.mark.parametrize(
    "speak", [until_it_hangs_up, saying(b"HTTP/1.1 200 OK\r\n\r\n", for_ever=b"x", pause_seconds=0.01)]
)
def test_a_cancelled_request_closes_its_connection(speak: Speak) -> None:
    async def scenario() -> None:
        async with answering(speak) as server:
            before = open_sockets()
            asking = asyncio.create_task(ask(server.port, timeout_seconds=100))
            await until(lambda: server.open)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await server.all_gone()
            assert open_sockets() <= before

    run(scenario())


def test_a_flood_does_not_keep_others_from_their_turn() -> None:
    """A server that always has more to say: the loop goes on meanwhile."""

    async def scenario() -> None:
        with process(FLOOD) as server:
            turns, port = 0, _listening_port(server.pid)
            asking = asyncio.create_task(fails(port, timeout_seconds=SHORT_SECONDS))
            while not asking.done():
                turns += 1
                await asyncio.sleep(0.001)
            assert await asking == "no answer within 0.3 s"
            assert turns > 3

    run(scenario())


FLOOD = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    client, _ = server.accept()
    try:
        while True:
            client.sendall(b"HTTP/1.1 100 Continue\\r\\n\\r\\n" * 3000)
    except OSError:
        pass
"""
