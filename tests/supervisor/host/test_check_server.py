"""The checks port with real sockets: who is answered, who is cut, and that nobody can hold it up."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from supervisor.core.checking import Question, Standing, Word, answer
from supervisor.host import check_server
from supervisor.host.check_server import CheckServer
from tests.supervisor.running import run, until

READY = Standing(Word.READY, 40)


class Port:
    """A server that answers `ready up 40%` to everything, and remembers what it was asked."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.asked = list[tuple[Question, str]]()
        self.server = CheckServer(host, 0)

    def answer(self, question: Question, peer: str) -> bytes:
        self.asked.append((question, peer))
        if question.unit == "broken":
            raise ZeroDivisionError
        return answer(question, READY)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.server.address)

    async def ask(self, data: bytes) -> bytes:
        """All that is answered until the connection ends."""
        reader, writer = await self.connect()
        writer.write(data)
        try:
            return await reader.read()
        finally:
            writer.close()

    def open(self) -> int:
        return len(self.server._connections)


@asynccontextmanager
async def port(host: str = "127.0.0.1", *, start: bool = True) -> AsyncIterator[Port]:
    made = Port(host)
    if start:
        made.server.start(made.answer)
    try:
        yield made
    finally:
        made.server.close()
        made.server.close()


def test_an_agent_is_answered_and_the_connection_ends() -> None:
    async def scenario() -> None:
        async with port() as it:
            assert await it.ask(b"cart:0\n") == b"ready up 40%\n"
            assert it.asked == [(Question("cart:0"), "127.0.0.1")]
            await until(lambda: it.open() == 0)

    run(scenario())


def test_a_question_may_come_in_pieces() -> None:
    async def scenario() -> None:
        async with port() as it:
            reader, writer = await it.connect()
            for piece in (b"car", b"t:", b"0"):
                writer.write(piece)
                await writer.drain()
                await until(lambda: it.open() == 1)
            writer.write(b"\n")
            assert await reader.read() == b"ready up 40%\n"
            writer.close()

    run(scenario())


def test_http_keeps_the_connection_and_asks_again() -> None:
    async def scenario() -> None:
        async with port() as it:
            reader, writer = await it.connect()
            for _ in range(3):
                writer.write(b"GET /check/cart HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await reader.readuntil(b"%\n")).startswith(b"HTTP/1.1 200 OK\r\n")
            writer.write(b"GET /check/cart HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert b"Connection: close" in await reader.read()
            writer.close()

    run(scenario())


def test_who_connects_before_anybody_can_say_how_units_stand_is_answered_later() -> None:
    async def scenario() -> None:
        async with port(start=False) as it:
            asking = asyncio.create_task(it.ask(b"cart:0\n"))
            done, _ = await asyncio.wait([asking], timeout=0.1)
            assert not done
            it.server.start(it.answer)
            assert await asking == b"ready up 40%\n"

    run(scenario())


def test_a_port_that_is_taken_is_told_at_once() -> None:
    async def scenario() -> None:
        async with port() as it:
            with pytest.raises(OSError) as caught:
                CheckServer(*it.server.address)
            assert caught.value.errno == errno.EADDRINUSE

    run(scenario())


def test_ipv6_is_served_too() -> None:
    async def scenario() -> None:
        async with port("::1") as it:
            assert await it.ask(b"cart:0\n") == b"ready up 40%\n"
            assert it.asked[0][1] == "::1"

    run(scenario())


def test_who_asks_nothing_is_cut_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_server, "LIMIT_SECONDS", 0.1)
    monkeypatch.setattr(check_server, "_SWEEP_SECONDS", 0.02)

    async def scenario() -> None:
        async with port() as it:
            assert await it.ask(b"") == b""
            assert await it.ask(b"GET /check/cart HTTP/1.1\r\n") == b""
            kept = await it.ask(b"GET /check/cart HTTP/1.1\r\n\r\n")
            assert kept.endswith(b"ready up 40%\n"), "answered, and cut when no other question came"
            assert it.open() == 0

    run(scenario())


def test_of_too_many_connections_the_last_are_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_server, "MAX_CONNECTIONS", 2)

    async def scenario() -> None:
        async with port() as it:
            held = [await it.connect() for _ in range(2)]
            await until(lambda: it.open() == 2)
            reader, writer = await it.connect()
            with pytest.raises((ConnectionResetError, AssertionError)):
                writer.write(b"cart:0\n")
                assert await reader.read() == b"ready up 40%\n"
            assert it.asked == []
            held.pop()[1].close()
            await until(lambda: it.open() == 1)
            assert await it.ask(b"cart:0\n") == b"ready up 40%\n"
            for _, held_writer in held:
                held_writer.close()
            writer.close()

    run(scenario())


def test_who_leaves_in_the_middle_is_forgotten() -> None:
    async def scenario() -> None:
        async with port() as it:
            for data in (b"", b"car", b"GET /check/cart HTTP/1.1\r\n"):
                _, writer = await it.connect()
                writer.write(data)
                await until(lambda: it.open() == 1)
                writer.transport.abort()
                await until(lambda: it.open() == 0)

    run(scenario())


def test_who_asks_and_does_not_read_is_cut() -> None:
    async def scenario() -> None:
        async with port() as it:
            with socket.create_connection(it.server.address) as flood:
                flood.setblocking(False)
                await until(lambda: it.open() == 1)
                request = b"GET /check/cart HTTP/1.1\r\n\r\n" * 100

                def cut() -> bool:
                    try:
                        while flood.send(request):
                            pass
                    except BlockingIOError:
                        pass
                    except OSError:
                        return True
                    return it.open() == 0

                await until(cut, "the connection ends")
            assert await it.ask(b"cart\n") == b"ready up 40%\n"

    run(scenario())


def test_a_mistake_in_the_answer_costs_that_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with port() as it:
            assert await it.ask(b"broken\n") == b""
            assert await it.ask(b"cart\n") == b"ready up 40%\n"

    run(scenario())
    assert "cannot answer a check" in caplog.text


def test_nonsense_is_answered_as_nonsense() -> None:
    async def scenario() -> None:
        async with port() as it:
            assert b"413" in await it.ask(b"POST /check HTTP/1.1\r\nContent-Length: 100000\r\n\r\n")
            assert (await it.ask(b"\0" * 1000)).startswith(b"down # the line is too long")

    run(scenario())
