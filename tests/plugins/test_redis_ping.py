"""The probe kind `redis`, against a real Redis where there is one, and against a few lines of its protocol."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from plugins.redis_ping import RedisPing
from supervisor.plugin_api import OptionError, ProbeResult, Target
from tests.end_to_end.conftest import RequiresProgram, requires_program
from tests.end_to_end.machine import until as until_now
from tests.supervisor.host.answering import Speak, answering, closed_port, open_sockets, until_it_hangs_up
from tests.supervisor.running import run, until

__all__ = ["requires_program"]  # the fixture

PASSWORD = 'a "b" \\ c\tä'


def target(port: int | None) -> Target:
    return Target("cache", 1, 1, "127.0.0.1", port)


def ping(port: int | None, options: Any = True, seconds: float = 10.0) -> ProbeResult:
    return run(RedisPing(options).check(target(port), seconds))


@contextmanager
def redis(program: str, folder: Path, *options: str) -> Iterator[int]:
    port = closed_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            until_now("it listens", lambda: "refused" not in ping(port).detail)
            yield port
        finally:
            server.kill()


@pytest.mark.real
def test_a_redis_answers(requires_program: RequiresProgram, tmp_path: Path) -> None:
    with redis(requires_program("redis-server", "redis-server"), tmp_path) as port:
        assert ping(port) == ProbeResult(True, "answered PONG")
        assert ping(None, {"port": str(port), "host": "localhost"}) == ProbeResult(True, "answered PONG")
        unasked = ping(port, {"password": "x"})
        assert not unasked.ok and "to AUTH, expected '+OK'" in unasked.detail


@pytest.mark.real
def test_a_redis_with_a_password(requires_program: RequiresProgram, tmp_path: Path) -> None:
    program = requires_program("redis-server", "redis-server")
    file = tmp_path / "redis.conf"
    quoted = "".join(f"\\x{byte:02x}" for byte in PASSWORD.encode())
    file.write_text(f'requirepass "{quoted}"\nuser probe on "#{_sha256("other")}" +ping\n')
    port = closed_port()
    command = [program, str(file), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            until_now("it listens", lambda: "refused" not in ping(port).detail)
            assert ping(port, {"password": PASSWORD}).ok
            assert ping(port, {"username": "probe", "password": "other"}).ok
            assert "NOAUTH" in ping(port).detail
            wrong = ping(port, {"password": "not this"})
            assert not wrong.ok and "WRONGPASS" in wrong.detail and "not this" not in wrong.detail
        finally:
            server.kill()


def _sha256(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def saying(answer: bytes) -> Speak:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        for byte in answer:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)

    return speak


def answered(speak: Speak, seconds: float = 10.0) -> ProbeResult:
    async def scenario() -> ProbeResult:
        async with answering(speak) as server:
            before = open_sockets()
            result = await RedisPing(True).check(target(server.port), seconds)
            await server.all_gone()
            assert open_sockets() <= before
            return ProbeResult(result.ok, result.detail.replace(str(server.port), "PORT"))

    return run(scenario())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"+PONG\r\n", ProbeResult(True, "answered PONG")),
        (
            b"-LOADING Redis is loading the dataset in memory\r\n",
            ProbeResult(False, "answered '-LOADING Redis is loading the dataset in memory' to PING, expected '+PONG'"),
        ),
        (b"+PO", ProbeResult(False, "port PORT: it closed the connection before it answered")),
        (b"HTTP/1.1 400 Bad\r\n", ProbeResult(False, "answered 'HTTP/1.1 400 Bad' to PING, expected '+PONG'")),
    ],
)
def test_only_pong_is_an_answer(answer: bytes, expected: ProbeResult) -> None:
    assert answered(saying(answer)) == expected


def test_a_line_without_an_end_is_not_read_for_ever() -> None:
    assert answered(saying(b"x" * 5000)).ok is False


def test_a_redis_that_hangs() -> None:
    assert answered(until_it_hangs_up, 0.2) == ProbeResult(False, "port PORT: no answer within 0.2 s")


def test_a_port_where_nobody_listens() -> None:
    port = closed_port()
    assert ping(port) == ProbeResult(False, f"port {port}: connection refused")
    unknown = ping(port, {"host": "no-such-host.invalid"})
    assert not unknown.ok and unknown.detail.startswith(f"port {port}: ")


def test_a_unit_without_a_port_cannot_be_asked() -> None:
    assert not ping(None).ok


def test_a_cancelled_check_hangs_up() -> None:
    async def scenario() -> None:
        async with answering(until_it_hangs_up) as server:
            checking = asyncio.create_task(RedisPing(True).check(target(server.port), 100))
            await until(lambda: server.open)
            checking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await checking
            await server.all_gone()

    run(scenario())


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (False, ""), ("6379", ""), ({"prt": 1}, "prt"), ({"port": 0}, "port"), ({"port": True}, "port"), ({"port": "x"}, "port"),
        ({"host": ""}, "host"), ({"password": 7}, "password"), ({"username": "x"}, "username"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_used_are_refused_by_their_key(options: Any, key: str) -> None:
    with pytest.raises(OptionError) as caught:
        RedisPing(options)
    assert caught.value.key == key
