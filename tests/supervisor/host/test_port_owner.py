"""Who listens on a unit's port: the unit or somebody else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor.host.port_owner import PortOwners
from supervisor.host.traffic import Listener, Sockets

LOOPBACK = "127.0.0.1"
PROGRAM = Path(__file__).with_name("listening.py")
NOBODY = 65534
GONE = 2**22 + 1  # beyond any pid

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do that")


class Listening:
    """A process that listens where it is told."""

    def __init__(self, *prefix: str) -> None:
        reading, self._held = os.pipe()
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-I", str(PROGRAM), str(reading)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True, pass_fds=[reading],
        )  # fmt: skip
        os.close(reading)
        self.pid = self._process.pid

    def tell(self, command: str) -> int | str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        return int(answer) if answer.isdigit() else answer

    def listen(self, host: str = LOOPBACK, port: int = 0) -> int:
        answer = self.tell(f"listen {host} {port}")
        assert isinstance(answer, int), answer
        return answer

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        os.close(self._held)


@pytest.fixture
def start() -> Iterator[Callable[..., Listening]]:
    with ExitStack() as stack:

        def started(*prefix: str) -> Listening:
            made = Listening(*prefix)
            stack.callback(made.end)
            return made

        yield started


class Counting(Sockets):
    """Knows how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.fault: OSError | None = None

    def listeners(self) -> dict[int, list[Listener]]:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return super().listeners()


@pytest.fixture
def sockets() -> Iterator[Counting]:
    with closing(Counting()) as asked:
        yield asked


@pytest.fixture
def owners(sockets: Counting) -> PortOwners:
    return PortOwners(sockets)


def now(owners: PortOwners, pid: int, port: int, address: str = LOOPBACK) -> str:
    owners.refresh()
    return owners.doubt(pid, address, port)


def foreign(port: int, owner: int) -> str:
    name = Path(f"/proc/{owner}/comm").read_text().strip()
    return f"port {port} is listened on by process {owner} ({name}), which is not the unit's"


def test_a_port_that_the_units_leader_listens_on_is_not_doubted(owners: PortOwners, start: Any) -> None:
    unit = start()
    port = unit.listen()
    assert [now(owners, unit.pid, port, address) for address in (LOOPBACK, "0.0.0.0", "localhost")] == ["", "", ""]


@pytest.mark.parametrize("way", ["fork", "daemonize"])
def test_nor_is_one_of_a_child_or_of_a_member_of_its_session(owners: PortOwners, start: Any, way: str) -> None:
    unit = start()
    port = unit.listen()
    child = unit.tell(way)
    assert child != unit.pid
    assert now(owners, unit.pid, port) == ""
    assert now(owners, unit.pid, port) == ""


def test_a_port_on_which_nobody_listens_is_said_to_be_so(owners: PortOwners, start: Any) -> None:
    unit = start()
    port = unit.listen()
    assert now(owners, unit.pid, port) == ""
    unit.tell("close")
    assert now(owners, unit.pid, port) == f"nothing listens on port {port}"
    assert now(owners, unit.pid, 1) == "nothing listens on port 1"


def test_a_unit_that_listens_on_another_address_only_is_told_where(owners: PortOwners, start: Any) -> None:
    unit = start()
    port = unit.listen("127.0.0.2")
    assert now(owners, unit.pid, port) == f"nothing listens on port {port} of 127.0.0.1, only on that of 127.0.0.2"
    assert now(owners, unit.pid, port, "127.0.0.2") == ""
    assert now(owners, unit.pid, port, "192.0.2.1") == ""  # not an address of this host: something translates it


def test_a_port_that_another_process_listens_on_is_doubted_with_its_name(owners: PortOwners, start: Any) -> None:
    unit, other = start(), start()
    port = other.listen()
    assert now(owners, unit.pid, port) == foreign(port, other.pid)
    assert now(owners, unit.pid, port) == foreign(port, other.pid)
    assert now(owners, other.pid, port) == ""


def test_the_one_that_took_the_port_on_the_units_address_is_who_counts(owners: PortOwners, start: Any) -> None:
    unit, other = start(), start()
    port = other.listen(LOOPBACK)
    unit.listen("127.0.0.2", port)
    assert now(owners, unit.pid, port, LOOPBACK) == foreign(port, other.pid)
    assert now(owners, unit.pid, port, "127.0.0.2") == ""


def test_of_several_sockets_on_one_port_one_is_enough(owners: PortOwners, start: Any) -> None:
    units = [start(), start()]
    port = units[0].listen()
    units[1].listen(LOOPBACK, port)
    units[1].listen(LOOPBACK, port)
    stranger = start()
    assert [now(owners, unit.pid, port) for unit in units] == ["", ""]
    assert now(owners, stranger.pid, port) == foreign(port, min(unit.pid for unit in units))


def test_a_port_that_changes_hands_changes_the_answer(owners: PortOwners, start: Any) -> None:
    unit, other = start(), start()
    port = unit.listen()
    assert now(owners, unit.pid, port) == ""
    other.listen(LOOPBACK, port)  # both may, and so nobody else gets the port meanwhile
    unit.tell("close")
    assert now(owners, unit.pid, port) == foreign(port, other.pid)
    unit.listen(LOOPBACK, port)
    other.tell("close")
    assert now(owners, unit.pid, port) == ""


def test_a_stranger_that_hands_its_socket_on_is_named_anew(owners: PortOwners, start: Any) -> None:
    unit, other = start(), start()
    port = other.listen()
    assert now(owners, unit.pid, port) == foreign(port, other.pid)
    heir = other.tell("fork")
    assert now(owners, unit.pid, port) == foreign(port, heir)


def test_it_cannot_be_said_of_a_unit_that_has_ended(owners: PortOwners, start: Any) -> None:
    other = start()
    port = other.listen()
    assert now(owners, GONE, port) == ""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert now(owners, pid, port) == ""
    os.waitpid(pid, 0)


@only_root
def test_it_cannot_be_said_of_a_unit_in_another_network_namespace(owners: PortOwners, start: Any) -> None:
    unit, other = start("unshare", "--net"), start()
    unit.tell("close")  # answered by the program, so unshare is through
    assert now(owners, unit.pid, other.listen()) == ""
    assert now(owners, unit.pid, 1) == ""


@only_root
def test_it_cannot_be_said_where_descriptors_may_not_be_read(start: Any) -> None:
    unit, other = start(), start()
    port = other.listen()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        others_unit = PortOwners(Sockets()).doubt(unit.pid, LOOPBACK, port)
        others_socket = PortOwners(Sockets()).doubt(os.getpid(), LOOPBACK, port)
        os.write(writing, f"{others_unit!r} {others_socket!r}".encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as answer:
        assert answer.read() == "'' ''"
    os.waitpid(pid, 0)


def test_one_list_serves_all_questions_until_it_is_too_old(owners: PortOwners, sockets: Counting, start: Any) -> None:
    unit = start()
    port = unit.listen()
    for _ in range(3):
        owners.refresh(60.0)
        assert owners.doubt(unit.pid, LOOPBACK, port) == ""
    assert sockets.asked == 1
    owners.refresh(0.0)
    assert sockets.asked == 2


def test_without_a_list_the_first_question_takes_one(owners: PortOwners, sockets: Counting, start: Any) -> None:
    unit = start()
    port = unit.listen()
    assert owners.doubt(unit.pid, LOOPBACK, port) == ""
    unit.tell("close")
    assert owners.doubt(unit.pid, LOOPBACK, port) == ""  # as of the list
    assert sockets.asked == 1


def test_when_the_kernel_cannot_be_asked_the_last_list_stays(owners: PortOwners, sockets: Counting, start: Any) -> None:
    unit = start()
    port = unit.listen()
    owners.refresh()
    sockets.fault = OSError(12, "no memory")
    with pytest.raises(OSError):
        owners.refresh()
    assert owners.doubt(unit.pid, LOOPBACK, port) == ""
    sockets.fault = None
    owners.refresh(60.0)
    assert sockets.asked == 2


def test_a_known_owner_is_not_looked_up_again(
    owners: PortOwners, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    unit = start()
    port = unit.listen()
    assert now(owners, unit.pid, port) == ""
    monkeypatch.setattr("supervisor.host.port_owner.tree.stat", lambda pid: pytest.fail("looked up"))
    assert now(owners, unit.pid, port) == ""


def test_it_tells_how_many_connections_wait_to_be_accepted(owners: PortOwners) -> None:
    with socket.create_server((LOOPBACK, 0)) as listening, ExitStack() as opened:
        port = listening.getsockname()[1]
        for _ in range(3):
            opened.enter_context(socket.create_connection((LOOPBACK, port)))
        owners.refresh()
        assert owners.queue(port) == 3
    owners.refresh()
    assert owners.queue(port) is None


def test_units_that_have_ended_are_forgotten(owners: PortOwners) -> None:
    """Their number here is beyond what is kept without looking."""
    with ExitStack() as opened:
        ports = [opened.enter_context(socket.create_server((LOOPBACK, 0))).getsockname()[1] for _ in range(200)]
        pid = os.fork()
        if pid == 0:
            signal.pause()
        owners.refresh()
        assert {owners.doubt(pid, LOOPBACK, port) for port in ports} == {""}
        owners.refresh()
        known = len(owners)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        more = [opened.enter_context(socket.create_server((LOOPBACK, 0))).getsockname()[1] for _ in range(300)]
        owners.refresh()
        assert {owners.doubt(os.getpid(), LOOPBACK, port) for port in more} == {""}
        owners.refresh()
    assert (known, len(owners)) == (200, 300)
