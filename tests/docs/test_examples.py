"""The programs in examples/ do what their first lines say."""

from __future__ import annotations

import queue
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import pytest

from registry_client import BlockingRegistryClient, open_backend
from tests.registry_client.serving import ServedRegistry, heeding_ctrl_c, make_entry

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def ctrl_c_counts() -> Iterator[None]:
    with heeding_ctrl_c():
        yield


class Program:
    """An example as a process, whose lines come with a deadline."""

    def __init__(self, name: str, *arguments: str) -> None:
        command = [sys.executable, str(EXAMPLES / name), *arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)
        self.out, self.err = queue.Queue[str](), list[str]()
        collectors = (self.process.stdout, self.out.put), (self.process.stderr, self.err.append)
        self.threads = [threading.Thread(target=self._collect, args=collector) for collector in collectors]
        for thread in self.threads:
            thread.start()

    @staticmethod
    def _collect(stream: IO[str], keep: Callable[[str], None]) -> None:
        with stream:
            for line in stream:
                keep(line.rstrip("\n"))

    def line(self) -> str:
        return self.out.get(timeout=10)

    def end(self, with_signal: signal.Signals) -> int:
        self.process.send_signal(with_signal)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(10)
        for thread in self.threads:
            thread.join(10)
        return code


@contextmanager
def running(name: str, *arguments: str) -> Iterator[Program]:
    program = Program(name, *arguments)
    try:
        yield program
    finally:
        if program.process.poll() is None:
            program.end(signal.SIGKILL)


class Instance(socketserver.ThreadingTCPServer):
    """One instance of the service: answers every request with its name."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, name: str, weight: int) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.name = name
        self.entry = make_entry(f"web/{name}", "cart", port=self.server_address[1], weight=weight, full_weight=300)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.die()

    def die(self) -> None:
        self.shutdown()
        self.server_close()


class Answer(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\nhello")


def answers(client: Program, count: int) -> list[tuple[str, int]]:
    """(instance, how many were tried before it) of the next requests, each of which was answered well."""
    rows = [client.line().split() for _ in range(count)]
    assert {status for _, status, _ in rows} == {"200"}
    return [(instance, int(tried)) for instance, _, tried in rows]


def test_the_weighted_client_loses_no_request_while_instances_drain_and_die_and_the_registry_is_away() -> None:
    with ExitStack() as stack:
        registry = stack.enter_context(ServedRegistry())
        a, b, c, d = (stack.enter_context(Instance(name, weight)) for name, weight in zip("abcd", (100, 300, 100, 100)))
        for instance in (a, b, c, d):
            registry.register(instance.entry)
        client = stack.enter_context(running("weighted_client.py", registry.url, "cart", "/"))
        shares = Counter(instance for instance, _ in answers(client, 240))
        assert set(shares) == {"web/a", "web/b", "web/c", "web/d"}
        assert 70 < shares["web/b"] < 170  # half of them, by weight

        registry.register(
            make_entry("web/c", "cart", port=c.entry.port, weight=100, full_weight=300, status="draining")
        )
        wait_for_silence_of("web/c", client)
        c.die()
        assert sum(tried for _, tried in answers(client, 60)) == 0  # nobody has asked it

        d.die()  # and stays registered
        while not sum(tried for _, tried in answers(client, 1)):
            pass
        after = answers(client, 60)
        assert "web/d" not in dict(after)
        assert sum(tried for _, tried in after) < 10  # it is avoided, not tried each time

        registry.deafen()
        assert set(dict(answers(client, 60))) == {"web/a", "web/b"}
        assert (client.end(signal.SIGINT), client.err[1:]) == (0, [])
        assert "trying again" in client.err[0]  # what the watch says of the outage


def wait_for_silence_of(instance: str, client: Program) -> None:
    """Until 60 answers in a row are of others: before, each was from it with a chance of 1 in 6."""
    deadline, others = time.monotonic() + 12, 0
    while others < 60:
        assert time.monotonic() < deadline
        others = 0 if answers(client, 1)[0][0] == instance else others + 1


SERVER = """
import signal, socket, sys, urllib.request
port, code = int(sys.argv[1]), sys.argv[2]
listener = socket.create_server(("127.0.0.1", port))
def ask(*_):
    with urllib.request.urlopen(sys.argv[3]) as answer:
        print("entries:", answer.read().decode().count('"instance"'), flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, ask)
while True:
    listener.accept()[0].close()
    if code != "0":
        import time
        time.sleep(0.3)
        sys.exit(int(code))
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_a_registered_command_leaves_the_registry_before_it_is_told_to_end() -> None:
    with ServedRegistry() as registry:
        port, names = free_port(), f"{registry.url}/v1/registry/services/legacy"
        command = (sys.executable, "-c", SERVER, str(port), "0", names)
        with running("registered_command.py", registry.url, "legacy", str(port), "--", *command) as program:
            assert program.line().startswith("registered ")
            with BlockingRegistryClient(open_backend("http", url=registry.url)) as client:
                entry = client.select("legacy")
                assert entry is not None and (entry.address, entry.port) == ("127.0.0.1", port)
            assert program.end(signal.SIGTERM) == 0
            assert (program.line(), program.err) == ("entries: 0", [])


def test_a_registered_command_that_ends_by_itself_leaves_no_entry_and_hands_on_its_exit_code() -> None:
    with ServedRegistry() as registry:
        port = free_port()
        command = (sys.executable, "-c", SERVER, str(port), "3")
        with running("registered_command.py", registry.url, "legacy", str(port), "--", *command) as program:
            assert program.wait() == 3
            assert program.line().startswith("registered ")
        with BlockingRegistryClient(open_backend("http", url=registry.url)) as client:
            assert client.list("legacy").entries == ()


def test_a_registered_command_waits_for_a_registry_that_is_away() -> None:
    with ServedRegistry() as registry:
        registry.deafen()
        port = free_port()
        command = (sys.executable, "-c", SERVER, str(port), "0", f"{registry.url}/v1/registry/services")
        with running("registered_command.py", registry.url, "legacy", str(port), "--", *command) as program:
            deadline = time.monotonic() + 10
            while not program.err:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            registry.listen()
            assert program.line().startswith("registered ")
            assert program.end(signal.SIGTERM) == 0


def test_the_examples_are_typed_and_so_is_what_they_import() -> None:
    pytest.importorskip("mypy", reason="mypy is not installed (extra check)")
    command = [sys.executable, "-m", "mypy", "--strict", *map(str, sorted(EXAMPLES.glob("*.py")))]
    checked = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=18)
    assert checked.returncode == 0, checked.stdout + checked.stderr
