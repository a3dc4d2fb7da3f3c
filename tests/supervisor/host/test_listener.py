"""Listening sockets: whose they are, who may connect, and what happens when descriptors run out."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.host import listener
from supervisor.host.listener import Listener, bind_tcp, bind_unix, peer_of


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "l.sock")


@pytest.fixture
def umask() -> Iterator[Callable[[], int]]:
    """Sets a careless umask, and tells the present one."""
    before = os.umask(0)

    def present() -> int:
        mask = os.umask(0)
        os.umask(mask)
        return mask

    yield present
    os.umask(before)


async def accepted_by(listening: socket.socket, count: int, clients: list[socket.socket]) -> None:
    """Accept `count` connections and close them."""
    got: list[socket.socket] = []
    accepting = Listener(listening, got.append)
    try:
        async with asyncio.timeout(10):
            while len(got) < count:
                await asyncio.sleep(0.005)
    finally:
        accepting.close()
        for each in (*got, *clients):
            each.close()


def connect(path: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(path)
    except OSError:
        client.close()
        raise
    return client


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_socket_file_has_the_mode_asked_for(path: str, mode: int, umask: Callable[[], int]) -> None:
    with bind_unix(path, mode=mode, gid=None):
        assert Path(path).stat().st_mode & 0o777 == mode
    assert umask() == 0, "the process's own umask must be as before"


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files to any group")
def test_the_socket_file_belongs_to_the_group_asked_for(path: str) -> None:
    with bind_unix(path, mode=0o660, gid=12345):
        assert Path(path).stat().st_gid == 12345


@pytest.mark.skipif(os.getuid() != 0, reason="root cannot be refused a group otherwise")
def test_a_group_that_cannot_be_given_leaves_no_socket_file(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(PermissionError):
        bind_unix(path, mode=0o660, gid=1)
    assert not Path(path).exists()


def test_a_socket_file_that_nobody_answers_on_is_replaced(path: str) -> None:
    bind_unix(path, mode=0o660, gid=None).close()
    assert Path(path).exists()
    with bind_unix(path, mode=0o660, gid=None), connect(path):
        pass


@pytest.mark.parametrize("backlog_is_full", [False, True])
def test_a_socket_file_in_use_is_left_alone(path: str, backlog_is_full: bool) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen(0 if backlog_is_full else 5)
        waiting = [connect(path)] if backlog_is_full else []
        with pytest.raises(OSError) as caught:
            bind_unix(path, mode=0o660, gid=None)
        assert caught.value.errno == errno.EADDRINUSE
        connected = waiting or [connect(path)]
        for each in connected:
            each.close()


def test_a_file_that_is_no_socket_is_left_alone(path: str) -> None:
    Path(path).write_text("precious")
    with pytest.raises(OSError) as caught:
        bind_unix(path, mode=0o660, gid=None)
    assert caught.value.errno == errno.EADDRINUSE
    assert Path(path).read_text() == "precious"


def test_the_folder_must_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bind_unix(str(tmp_path / "none" / "l.sock"), mode=0o660, gid=None)


def test_a_tcp_port_in_use_is_an_error() -> None:
    with bind_tcp("127.0.0.1", 0) as first, pytest.raises(OSError) as caught:
        bind_tcp("127.0.0.1", first.getsockname()[1])
    assert caught.value.errno == errno.EADDRINUSE


def test_closing_removes_the_socket_file(path: str) -> None:
    async def scenario() -> None:
        Listener(bind_unix(path, mode=0o660, gid=None), socket.socket.close).close()

    asyncio.run(scenario())
    assert not Path(path).exists()


def test_closing_leaves_a_socket_file_that_is_anothers(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as other:

        def take_over() -> None:
            Path(path).rename(path + ".old")  # its inode stays in use, so that the new file gets another one
            other.bind(path)

        async def scenario() -> None:
            mine = Listener(bind_unix(path, mode=0o660, gid=None), socket.socket.close)
            take_over()
            mine.close()

        asyncio.run(scenario())
        assert Path(path).exists()


def test_a_burst_of_clients_is_accepted(path: str) -> None:
    async def scenario() -> None:
        listening = bind_unix(path, mode=0o660, gid=None)
        await accepted_by(listening, 100, [connect(path) for _ in range(100)])

    asyncio.run(scenario())


def test_out_of_descriptors_it_waits_and_goes_on_when_there_are_some(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "ACCEPT_RETRY_SECONDS", 0.2)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def scenario() -> None:
        listening = bind_unix(path, mode=0o660, gid=None)
        clients = [connect(path) for _ in range(5)]
        accepting = asyncio.create_task(accepted_by(listening, 5, clients))
        await asyncio.sleep(0)
        with os.scandir("/proc/self/fd") as entries:
            highest = max(int(entry.name) for entry in entries)
        held = [os.dup(0) for _ in range(highest)]  # no free number below the limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1, hard))
        try:
            async with asyncio.timeout(10):
                while len(caplog.records) < 2:
                    await asyncio.sleep(0.01)
            started = asyncio.get_running_loop().time()
            await asyncio.sleep(0.5)
            passed = asyncio.get_running_loop().time() - started
            assert len(caplog.records) <= 2 + passed / 0.2 + 1, "it must not spin"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for each in held:
                os.close(each)
        await accepting

    asyncio.run(scenario())
    assert "Too many open files" in caplog.text


def test_closing_while_it_waits_for_descriptors_leaves_nothing_behind(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "ACCEPT_RETRY_SECONDS", 0.05)

    async def scenario() -> None:
        accepting = Listener(bind_unix(path, mode=0o660, gid=None), socket.socket.close)
        accepting._pause(OSError(errno.EMFILE, "Too many open files"))
        accepting.close()
        await asyncio.sleep(0.15)

    asyncio.run(scenario(), debug=True)


def test_the_address_that_means_everywhere_takes_both_kinds_of_clients() -> None:
    with bind_tcp("::", 0) as listening:
        port = listening.getsockname()[1]
        for family, host in ((socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")):
            with socket.socket(family) as client:
                client.settimeout(5)
                client.connect((host, port))
                accepted, _ = listening.accept()
                with accepted:
                    assert peer_of(accepted).address.endswith(f":{client.getsockname()[1]}")
