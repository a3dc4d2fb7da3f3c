"""The probe kind `kernel`, of real processes and sockets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from supervisor.host.probes import kernel
from supervisor.host.probes.kernel import KernelProbe
from supervisor.plugin_api import ProbeResult
from tests.end_to_end.machine import state_of
from tests.end_to_end.machine import until as until_now
from tests.supervisor.host.answering import closed_port, listening, process
from tests.supervisor.host.probes.probing import Tools, check, refusal, target

SLEEP = "import time; print('here', flush=True); time.sleep(60)"
STATE = {"queue": False}
QUEUE = {"state": False}


def state(pid: int, *, times: int = 1) -> list[ProbeResult]:
    probe = KernelProbe(STATE)
    return [check(probe, target(pid=pid)) for _ in range(times)]


# The state of the process.


def test_a_process_that_sleeps_is_well() -> None:
    with process(SLEEP) as sleeper:
        until_now("it sleeps", lambda: state_of(sleeper.pid) == "S")
        assert state(sleeper.pid, times=2) == [ProbeResult(True, "its process is in state S")] * 2


def test_a_stopped_process_is_not_well_until_it_goes_on() -> None:
    with process(SLEEP) as sleeper:
        os.kill(sleeper.pid, signal.SIGSTOP)
        until_now("it stops", lambda: state_of(sleeper.pid) == "T")
        (result,) = state(sleeper.pid)
        assert result == ProbeResult(
            False, f"its process {sleeper.pid} is stopped by a signal (SIGCONT wakes it) (state T)"
        )
        os.kill(sleeper.pid, signal.SIGCONT)
        until_now("it goes on", lambda: state_of(sleeper.pid) == "S")
        assert state(sleeper.pid)[0].ok


def test_a_process_that_has_ended_is_not_well() -> None:
    with process(SLEEP) as sleeper:
        sleeper.kill()
        until_now("it ends", lambda: state_of(sleeper.pid) == "Z")
        assert state(sleeper.pid) == [ProbeResult(False, f"its process {sleeper.pid} has ended (state Z)")]
        sleeper.wait()
        assert state(sleeper.pid) == [ProbeResult(False, f"its process {sleeper.pid} has gone")]


LEADER_ENDS = """
import ctypes, platform, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("here", flush=True)
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
"""


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="the number of exit(2) is not known")
def test_a_process_whose_first_thread_has_ended_goes_on() -> None:
    with process(LEADER_ENDS) as made:
        until_now("its first thread ends", lambda: state_of(made.pid) == "Z")
        assert state(made.pid) == [ProbeResult(True, "its first thread has ended, others go on")]


VFORK = """
import ctypes, os
libc, parent = ctypes.CDLL(None), os.getpid()
print("here", flush=True)
if libc.vfork() == 0:  # the parent cannot be interrupted until its child execs or ends
    libc.prctl(1, 9)
    if libc.getppid() == parent:  # else it was killed before the child could ask to end with it
        libc.pause()
    libc._exit(0)
"""


def test_a_process_that_cannot_be_interrupted_is_not_well_at_the_second_look() -> None:
    with process(VFORK) as made:
        until_now("it waits", lambda: state_of(made.pid) == "D")
        first, second, third = state(made.pid, times=3)
        assert first == ProbeResult(True, "its process is in state D")
        assert not second.ok and "waits for the disk or another device" in second.detail
        assert third == second


def test_a_process_that_has_run_meanwhile_is_well_however_often_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen in the same state by chance, with other figures of context switches."""
    looks = iter(range(100))

    def read(*_: Any, **__: Any) -> Any:
        import io

        return io.BytesIO(
            b"Name:\tx\nState:\tD (disk sleep)\nThreads:\t1\nvoluntary_ctxt_switches:\t%d\n" % next(looks)
        )

    monkeypatch.setattr("builtins.open", read)
    probe = KernelProbe(STATE)
    coroutines = [probe.check(target(pid=1), 1.0) for _ in range(4)]
    results = []
    for coroutine in coroutines:
        with pytest.raises(StopIteration) as ended:
            coroutine.send(None)
        results.append(ended.value.value)
    monkeypatch.undo()
    assert [result.ok for result in results] == [True] * 4


# The queue of its port.


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "MIN_WAIT_SECONDS", 0.05)


class Queue:
    """A listening socket, its clients, and a probe of it."""

    def __init__(self, stack: ExitStack, listener: socket.socket) -> None:
        self.stack, self.listener = stack, listener
        self.port = listener.getsockname()[1]
        self.probe = KernelProbe(QUEUE)

    def connect(self, count: int = 1) -> list[socket.socket]:
        host = self.listener.getsockname()[0]
        return [self.stack.enter_context(socket.create_connection((host, self.port))) for _ in range(count)]

    def accept(self) -> None:
        self.stack.enter_context(self.listener.accept()[0])

    def look(self) -> ProbeResult:
        time.sleep(0.06)  # longer than MIN_WAIT_SECONDS
        return check(self.probe, target(self.port, tools=Tools(), address=self.listener.getsockname()[0]))


@contextmanager
def queue(host: str = "127.0.0.1") -> Iterator[Queue]:
    with listening(host=host) as listener, ExitStack() as stack:
        yield Queue(stack, listener)


def test_a_port_without_clients_is_well() -> None:
    with queue() as it:
        assert [it.look() for _ in range(2)] == [ProbeResult(True, "no connection waits to be accepted")] * 2


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_when_all_that_waited_still_wait_nothing_was_accepted(host: str) -> None:
    with queue(host) as it:
        it.connect(2)
        assert it.look() == ProbeResult(True, f"2 connections wait to be accepted on port {it.port}")
        it.connect()
        result = it.look()
        assert not result.ok
        assert result.detail.startswith(
            f"3 connections wait to be accepted on port {it.port} and none was accepted in "
        )
        assert not it.look().ok


def test_the_first_look_blames_nobody() -> None:
    with queue() as it:
        it.connect(3)
        assert it.look().ok


def test_clients_that_gave_up_wait_still() -> None:
    with queue() as it:
        for client in it.connect(2):
            client.close()
        assert it.look().ok
        assert not it.look().ok


def test_a_queue_as_long_as_before_is_well_when_its_first_was_accepted() -> None:
    """An overloaded server: always three wait, but they are others."""
    with queue() as it:
        it.connect(3)
        for _ in range(4):
            assert it.look().ok
            it.accept()
            it.connect()


def test_an_accepted_connection_ends_the_blame() -> None:
    with queue() as it:
        it.connect(2)
        it.look()
        assert not it.look().ok
        it.accept()
        assert it.look().ok
        it.accept()
        assert it.look() == ProbeResult(True, "no connection waits to be accepted")


def test_two_looks_in_quick_succession_do_not_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "MIN_WAIT_SECONDS", 60.0)
    with queue() as it:
        it.connect()
        assert all(it.look().ok for _ in range(3))


def test_a_busy_server_is_well() -> None:
    """It accepts slower than clients come, for the whole test."""
    with queue() as it:
        ended = threading.Event()

        def serve() -> None:
            while not ended.wait(0.01):
                try:
                    it.listener.accept()[0].close()
                except BlockingIOError:
                    continue

        it.listener.setblocking(False)
        it.connect(10)
        server = threading.Thread(target=serve)
        server.start()
        try:
            for _ in range(10):
                it.connect(8)
                assert it.look().ok
        finally:
            ended.set()
            server.join()


DEAF = """
import socket, time
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    time.sleep(60)
"""


def test_a_process_that_hangs_shows_in_its_queue_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, text=True) as made:
        try:
            assert made.stdout is not None
            port = int(made.stdout.readline())
            asked, probe = target(port, made.pid, tools=Tools()), KernelProbe(True)
            result = check(probe, asked)
            assert result.ok and result.detail.endswith("; no connection waits to be accepted")
            with socket.create_connection(("127.0.0.1", port)):
                check(probe, asked)
                time.sleep(0.06)
                result = check(probe, asked)
                assert not result.ok
                assert result.detail.startswith(
                    f"1 connection waits to be accepted on port {port} and none was accepted"
                )
        finally:
            made.kill()


def test_a_port_where_nobody_listens_is_not_well() -> None:
    port = closed_port()
    assert check(KernelProbe(QUEUE), target(port, tools=Tools())) == ProbeResult(
        False, f"nothing listens on port {port}"
    )


def test_a_unit_without_a_port_is_asked_for_its_state_alone() -> None:
    asked = target(None, os.getpid(), tools=Tools())
    assert check(KernelProbe(True), asked).ok
    wanted = check(KernelProbe({"queue": True}), asked)
    assert not wanted.ok and "no service" in wanted.detail


def test_without_a_daemon_the_queue_is_not_looked_at() -> None:
    result = check(KernelProbe(QUEUE), target(closed_port()))
    assert result == ProbeResult(True, "its queue can only be looked at by the daemon")


@pytest.mark.parametrize(
    ("options", "key", "words"),
    [
        (False, "", "must be true or a table, not false"),
        ({"stat": True}, "stat", "did you mean state?"),
        ({"state": 1}, "state", "must be true or false"),
        ({"state": False, "queue": False}, "", "both are false"),
    ],
)
def test_options_that_cannot_be_used_are_refused_by_their_key(options: Any, key: str, words: str) -> None:
    found, reason = refusal(KernelProbe, options)
    assert found == key and words in reason
