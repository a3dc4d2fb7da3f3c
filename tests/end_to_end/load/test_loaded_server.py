"""The unit under load serves well, and has no grace of its own: what a restart spares, the supervisor has spared."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection, RemoteDisconnected

import pytest

from tests.end_to_end.host import ROOT
from tests.end_to_end.machine import DEADLINE_SECONDS, free_ports, until


class Unit:
    """The server as a process."""

    def __init__(self) -> None:
        self.port = free_ports(2) + 1
        program = ROOT / "bench" / "loaded_server.py"
        self.process = subprocess.Popen([sys.executable, "-S", program, str(self.port - 1), "1"])
        until("it listens", self._listens)

    def _listens(self) -> bool:
        assert self.process.poll() is None
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def connect(self) -> HTTPConnection:
        """A client."""
        return HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS)

    def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
        """One request on a connection of its own."""
        client = self.connect()
        try:
            client.request(method, path, body, {"Connection": "close"})
            response = client.getresponse()
            return response.status, response.read()
        finally:
            client.close()


@pytest.fixture
def unit() -> Iterator[Unit]:
    """It runs."""
    made = Unit()
    yield made
    made.process.kill()
    made.process.wait()


def test_it_answers_each_path(unit: Unit) -> None:
    pid = b"%d\n" % unit.process.pid

    assert unit.ask("/fast") == (200, pid)
    assert unit.ask("/slow?seconds=0.01") == (200, pid)
    assert unit.ask("/echo", "POST", b"x" * 300_000) == (200, b"x" * 300_000)
    assert unit.ask("/healthz") == (200, b"ok\n")
    assert unit.ask("/count") == (200, b"0\n")
    assert unit.ask("/other")[0] == 404
    assert unit.ask("/slow?seconds=nan")[0] == 400
    assert unit.ask("/slow?seconds=x")[0] == 400


def test_one_connection_serves_many_requests_also_such_as_were_sent_ahead(unit: Unit) -> None:
    with (
        socket.create_connection(("127.0.0.1", unit.port), DEADLINE_SECONDS) as client,
        client.makefile("rb") as reader,
    ):
        ahead = b"GET /slow?seconds=0.05 HTTP/1.1\r\n\r\nPOST /echo HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi"
        client.sendall(ahead + b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
        answers = reader.read().split(b"HTTP/1.1 200 OK\r\n")[1:]

    assert [answer.partition(b"\r\n\r\n")[2] for answer in answers] == [b"%d\n" % unit.process.pid, b"hi", b"ok\n"]


def test_what_is_no_request_is_refused(unit: Unit) -> None:
    for sent in (b"nonsense\r\n\r\n", b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"x" * 20_000):
        with socket.create_connection(("127.0.0.1", unit.port), DEADLINE_SECONDS) as client:
            client.sendall(sent)
            assert client.makefile("rb").readline().startswith(b"HTTP/1.1 4")


def test_sigterm_ends_it_at_once_in_the_middle_of_its_work(unit: Unit) -> None:
    clients = [unit.connect(), unit.connect()]
    for client in clients:
        client.request("GET", "/slow?seconds=60")
    until("it works on both", lambda: unit.ask("/count") == (200, b"2\n"))

    unit.process.send_signal(signal.SIGTERM)

    assert unit.process.wait(DEADLINE_SECONDS) == 0
    for client in clients:
        with pytest.raises((RemoteDisconnected, ConnectionResetError)):
            client.getresponse()
        client.close()
