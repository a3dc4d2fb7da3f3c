"""The service manager's store of open files."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from supervisor.host import fd_store
from supervisor.host.fd_store import FdStore, name_of, passed
from tests.supervisor.host.manager import Manager

Answer = TypeVar("Answer")


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    made = Manager(tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", made.path)
    yield made
    made.close()


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[int]:
    """The reading end of a unit's pipe."""
    os.mkfifo(tmp_path / "fifo")
    made = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    yield made
    os.close(made)


def _with_store(use: Callable[[FdStore], Awaitable[Answer]]) -> Answer:
    async def scenario() -> Answer:
        return await use(FdStore())

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {}),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}, {3: "a", 4: "b"}),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a"}, {3: "a", 4: ""}),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "1"}, {3: ""}),
        ({"LISTEN_PID": "8", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"}, {}),
        ({"LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"}, {}),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "many"}, {}),
    ],
)
def test_what_the_manager_passes_is_in_the_environment(environ: dict[str, str], expected: dict[int, str]) -> None:
    assert passed(environ, 7) == expected


def test_the_names_of_all_pipes_fit_into_one_variable(fifo: int) -> None:
    """The unit file allows 8192; execve(2) allows 128 KiB for one variable."""
    longest = len(name_of(fifo)) - len(f"{os.fstat(fifo).st_ino:x}") + 8  # inodes of 32 bits
    assert 8192 * (longest + 1) < 128 * 1024
    assert not set(name_of(fifo)) & set(":\n")


def test_a_pipe_is_given_once_with_what_is_in_it_and_taken_out_at_its_end(
    manager: Manager, fifo: int, tmp_path: Path
) -> None:
    async def use(store: FdStore) -> None:
        writing = os.open(tmp_path / "fifo", os.O_WRONLY)
        os.write(writing, b"last words\n")
        os.close(writing)
        store.keep(fifo)
        store.keep(fifo)
        again = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)  # another descriptor of the same pipe
        store.keep(again)
        os.close(again)
        lines, (held,) = manager.read()
        assert lines == ["FDSTORE=1", f"FDNAME={name_of(fifo)}", "FDPOLL=0"]
        assert os.read(held, 100) == b"last words\n"
        os.close(held)
        store.drop(fifo)
        store.drop(fifo)
        assert manager.read_all() == [["FDSTOREREMOVE=1", f"FDNAME={name_of(fifo)}"]]

    _with_store(use)


def test_what_comes_back_is_not_given_again_and_what_nobody_wants_is_forgotten(
    manager: Manager, fifo: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "of a unit that is no more")
    stale = os.open(tmp_path / "of a unit that is no more", os.O_RDONLY | os.O_NONBLOCK)
    wanted = os.dup(fifo)
    by_name = {wanted: name_of(wanted), stale: name_of(stale)}
    monkeypatch.setattr(fd_store, "passed", lambda environ, pid: by_name)
    monkeypatch.setenv("LISTEN_FDS", "2")

    async def use(store: FdStore) -> None:
        store.keep(fifo)
        assert manager.read_all() == []
        store.settle()
        assert manager.read_all() == [["FDSTOREREMOVE=1", f"FDNAME={by_name[stale]}"]]
        assert "LISTEN_FDS" not in os.environ
        for descriptor in by_name:
            with pytest.raises(OSError):
                os.fstat(descriptor)

    _with_store(use)


def test_a_pipe_that_ends_before_all_is_taken_up_is_forgotten_once(
    manager: Manager, fifo: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    returned = os.dup(fifo)
    monkeypatch.setattr(fd_store, "passed", lambda environ, pid: {returned: name_of(fifo)})

    async def use(store: FdStore) -> None:
        store.keep(fifo)
        store.drop(fifo)
        store.settle()
        assert manager.read_all() == [["FDSTOREREMOVE=1", f"FDNAME={name_of(fifo)}"]]

    _with_store(use)


def test_variables_that_promise_too_much_harm_nobody(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fd_store, "passed", lambda environ, pid: {999_999: "pipe-1"})

    async def use(store: FdStore) -> list[list[str]]:
        store.settle()
        return manager.read_all()

    assert _with_store(use) == []


def test_without_a_manager_nothing_is_kept(fifo: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    async def use(store: FdStore) -> None:
        before = sorted(os.listdir("/proc/self/fd"))
        store.keep(fifo)
        store.drop(fifo)
        store.settle()
        assert sorted(os.listdir("/proc/self/fd")) == before

    _with_store(use)


def test_a_manager_that_does_not_read_for_a_while_is_told_in_the_end_in_the_right_order(
    manager: Manager, tmp_path: Path
) -> None:
    """systemd does not read while it loads its files anew; the pipe may be closed by the time it does."""
    fifos = []
    for number in range(600):  # more than its queue takes
        os.mkfifo(tmp_path / str(number))
        fifos.append(os.open(tmp_path / str(number), os.O_RDONLY | os.O_NONBLOCK))
    names = [name_of(fd) for fd in fifos]
    expected = [["FDSTORE=1", f"FDNAME={name}", "FDPOLL=0"] for name in names]
    expected += [["FDSTOREREMOVE=1", f"FDNAME={name}"] for name in names]

    async def use(store: FdStore) -> list[list[str]]:
        for fd in fifos:
            store.keep(fd)
        for fd in fifos:
            store.drop(fd)
            os.close(fd)
        said: list[list[str]] = []
        while len(said) < len(expected):
            said += manager.read_all()
            await asyncio.sleep(0.01)
        return said

    assert _with_store(use) == expected


def test_a_manager_that_never_reads_again_is_given_up_and_costs_no_descriptors(
    manager: Manager, fifo: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fd_store, "PATIENCE_SECONDS", 0.1)
    manager.close()
    before = len(os.listdir("/proc/self/fd"))

    async def use(store: FdStore) -> None:
        around = len(os.listdir("/proc/self/fd")) - before
        store.keep(fifo)
        deadline = asyncio.get_running_loop().time() + 10
        while "does not read" not in caplog.text:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)
        assert len(os.listdir("/proc/self/fd")) == before + around
        store.drop(fifo)

    _with_store(use)
