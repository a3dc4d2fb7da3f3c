"""The connection to the admin socket, with programs behind it that are no HAProxy, or a sick one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.errors import GatewayRefused, GatewayUnreachable
from gateway.feeders.haproxy.session import answering, open_session, parse_info

INFO = "Name: HAProxy\nPid: 41\nStart_time_sec: 1795537989\nStopping: 1\nJobs: 3\nUnstoppable Jobs: 1\nCurrConns: 2\n"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def behind(path: Path, handler: Handler) -> AsyncIterator[str]:
    """A program that listens there."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_unix_server(handle, path):
        yield str(path)


async def test_another_program_is_refused(tmp_path: Path) -> None:
    """It says what it says, and hangs up."""

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"-ERR unknown command 'prompt'\r\n")
        await writer.drain()

    async with behind(tmp_path / "s", other) as path:
        with pytest.raises(GatewayRefused, match='what answers there is no HAProxy: b"-ERR unknown'):
            await open_session(path, 5.0)


async def test_another_program_with_a_prompt_is_refused(tmp_path: Path) -> None:
    """Only what answers `show info` is a HAProxy."""

    async def shell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(b"command not found\n> ")

    async with behind(tmp_path / "s", shell) as path:
        with pytest.raises(GatewayRefused, match="no HAProxy: 'command not found'"):
            await open_session(path, 5.0)


async def test_silence_is_unreachable_after_the_time_limit(tmp_path: Path) -> None:
    """And so is somebody who hangs up at once."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def absent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        return

    async with behind(tmp_path / "a", silent) as path:
        with pytest.raises(GatewayUnreachable, match="no answer within"):
            await open_session(path, 0.1)
    async with behind(tmp_path / "b", absent) as path:
        with pytest.raises(GatewayUnreachable):
            await open_session(path, 5.0)


async def test_after_a_late_answer_the_connection_is_not_used_again(tmp_path: Path) -> None:
    """The next answer would be that to another command."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line != b"slow\n":
                writer.write(b"\n> " if line != b"show info\n" else INFO.encode() + b"\n> ")

    async with behind(tmp_path / "s", slow) as path:
        session = await open_session(path, 0.1)
        with pytest.raises(GatewayUnreachable, match="no answer within"):
            await session.ask("slow")
        assert session.closed


async def test_hundreds_of_commands_are_answered_in_order(tmp_path: Path) -> None:
    """More than are sent at once."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(INFO.encode() + b"\n> " if line == b"show info\n" else line + b"\n> ")

    async with behind(tmp_path / "s", echo) as path:
        session = await open_session(path, 5.0)
        commands = [f"set {number}" for number in range(300)]
        assert await session.ask_all(commands) == commands
        session.close()


async def test_a_socket_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    """With the reason."""
    with pytest.raises(GatewayUnreachable, match="No such file or directory"):
        await open_session(str(tmp_path / "none"), 5.0)


def test_a_process_says_who_it_is() -> None:
    """Jobs that nobody waits for are none."""
    process = parse_info(INFO)
    assert (process.pid, process.started, process.stopping, process.jobs, process.clients) == (
        41,
        1795537989,
        True,
        2,
        2,
    )


def test_clients_with_a_request_at_a_server_are_told_from_those_without() -> None:
    """Each once, whatever number of streams it has; connections to the socket itself are no clients."""
    text = (
        "0x1: proto=tcpv4 src=127.0.0.1:1 fe=clients be=cart srv=cart-1 ts=00 age=0s\n"
        "0x2: proto=tcpv4 src=127.0.0.1:1 fe=clients be=cart srv=cart-2 ts=00 age=0s\n"
        "0x3: proto=tcpv4 src=127.0.0.1:3 fe=clients be=cart srv=<none> ts=00 age=0s\n"
        "0x4: proto=unix_stream src=unix:1 fe=GLOBAL be=<NONE> srv=<none> ts=00 age=0s\n"
    )
    assert answering(text) == 1
    assert answering("") == 0
