"""Connections that the daemon opens."""

from __future__ import annotations

import asyncio
import socket

import pytest

from supervisor.host.connect import connect, reason_of
from tests.supervisor.host.answering import answering, closed_port, listening, open_sockets
from tests.supervisor.running import run, until


@pytest.mark.parametrize(("address", "host"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("localhost", "127.0.0.1")])
def test_numbers_and_names_are_connected_to(address: str, host: str) -> None:
    async def scenario() -> None:
        async with answering(host=host) as server:
            with await connect(address, server.port) as connection:
                assert connection.getpeername()[:2] == (host, server.port)
                assert connection.getblocking() is False
                assert not connection.get_inheritable()

    run(scenario())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_our_own_end_is_told_before_the_connection_is_used(host: str) -> None:
    async def scenario() -> None:
        told = list[tuple[str, int]]()
        async with answering(host=host) as server:
            with await connect(host, server.port, told.append) as connection:
                assert told == [connection.getsockname()[:2]]
                await until(lambda: server.clients)
                assert server.clients == told

    run(scenario())


def test_our_own_end_is_told_of_connections_that_never_come_about() -> None:
    async def scenario() -> None:
        told = list[tuple[str, int]]()
        with pytest.raises(ConnectionRefusedError):
            await connect("127.0.0.1", closed_port(), told.append)
        assert [host for host, _ in told] == ["127.0.0.1"]

    run(scenario())


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1", "connection refused"),
        ("no-such-host.invalid", "cannot find the host no-such-host.invalid ("),
        ("a..b", "a..b is no name of a host"),
        ("x" * 70, f"{'x' * 70} is no name of a host"),
    ],
)
def test_what_goes_wrong_has_a_sentence(address: str, words: str) -> None:
    async def scenario() -> None:
        before = open_sockets()
        with pytest.raises(OSError) as caught:
            await connect(address, closed_port())
        assert reason_of(caught.value).startswith(words)
        assert open_sockets() == before

    run(scenario())


def test_reaching_ourselves_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens, the kernel may choose the port we connect to for our own end."""

    class Bound(socket.socket):
        def connect_ex(self, address: tuple[str, int], /) -> int:  # type: ignore[override]
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.bind(address)
            return super().connect_ex(address)

    async def scenario() -> None:
        port = closed_port()
        monkeypatch.setattr("supervisor.host.connect.socket.socket", Bound)
        with pytest.raises(ConnectionRefusedError):
            await connect("127.0.0.1", port)

    run(scenario())


def test_cancelled_while_it_connects_it_leaves_no_socket_open() -> None:
    async def scenario() -> None:
        with listening(backlog=0) as listener:
            port = listener.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)):  # the backlog is full
                before = open_sockets()
                told = list[tuple[str, int]]()
                asking = asyncio.create_task(connect("127.0.0.1", port, told.append))
                await until(lambda: told)
                assert len(open_sockets()) == len(before) + 1
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
                assert open_sockets() == before

    run(scenario())
