"""The proxy: each fault, and that nothing of it is left after mend()."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.servers import Proxy, Redis

OpenProxy = Callable[[int], Proxy]
WAIT_SECONDS = 5.0


class EchoServer:
    """Answers each line with itself, and remembers them all."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """End all threads; the clients have to be gone."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(WAIT_SECONDS)

    def _accept(self) -> None:
        with suppress(OSError):
            self._accept_each()

    def _accept_each(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            thread = threading.Thread(target=self._echo, args=[connection])
            self._threads.append(thread)
            thread.start()

    def _echo(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream, suppress(OSError):
            for line in stream:
                self.lines.append(line)
                connection.sendall(line)


class Client:
    """One connection through the proxy."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), WAIT_SECONDS)

    def ask(self, line: bytes, *, within_seconds: float = WAIT_SECONDS) -> bytes:
        """Send a line and read what comes."""
        self.socket.sendall(line)
        self.socket.settimeout(within_seconds)
        return self.socket.recv(65536)


@pytest.fixture
def echo(proxies: list[Proxy]) -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    for proxy in proxies:
        proxy.close()
    server.close()


@pytest.fixture
def proxies() -> list[Proxy]:
    return []


@pytest.fixture
def proxy(echo: EchoServer, proxies: list[Proxy]) -> Proxy:
    made = Proxy(echo.port)
    made.open()
    proxies.append(made)
    return made


@pytest.fixture
def connect(proxy: Proxy) -> Iterator[Callable[[], Client]]:
    clients: list[Client] = []

    def one() -> Client:
        clients.append(Client(proxy.port))
        return clients[-1]

    yield one
    for client in clients:
        client.socket.close()


Connect = Callable[[], Client]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_one_side_says_the_other_hears(connect: Connect, proxy: Proxy, echo: EchoServer) -> None:
    client, other = connect(), connect()
    assert client.ask(b"one\n") == b"one\n"
    assert other.ask(b"two\n") == b"two\n"
    assert (proxy.accepted, proxy.connections, echo.lines) == (2, 2, [b"one\n", b"two\n"])


def test_much_goes_through_while_the_reader_is_slow(connect: Connect) -> None:
    client = connect()
    sent = (b"x" * 8191 + b"\n") * 1024
    thread = threading.Thread(target=client.socket.sendall, args=[sent])
    thread.start()
    received = bytearray()
    while len(received) < len(sent):
        received += client.socket.recv(1 << 20)
    thread.join()
    assert received == sent


def test_the_end_of_one_side_reaches_the_other(connect: Connect, proxy: Proxy) -> None:
    client = connect()
    client.socket.sendall(b"last\n")
    client.socket.shutdown(socket.SHUT_WR)
    answer = b"".join(iter(lambda: client.socket.recv(100), b""))
    assert answer == b"last\n"
    until(lambda: proxy.connections == 0)


def test_a_cut_resets_what_is_open_and_refuses_what_comes(connect: Connect, proxy: Proxy) -> None:
    client = connect()
    client.ask(b"one\n")
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.socket.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect()
    proxy.mend()
    assert connect().ask(b"two\n") == b"two\n"


def test_after_reset_connections_new_ones_are_welcome(connect: Connect, proxy: Proxy) -> None:
    client = connect()
    client.ask(b"one\n")
    proxy.reset_connections()
    with pytest.raises(ConnectionResetError):
        client.socket.recv(1)
    assert connect().ask(b"two\n") == b"two\n"


def test_in_a_stall_connections_are_accepted_and_nothing_is_answered(
    connect: Connect, proxy: Proxy, echo: EchoServer
) -> None:
    old, quiet = connect(), connect()
    old.ask(b"one\n")
    quiet.ask(b"quiet\n")
    proxy.stall()
    new = connect()
    for client in (old, new):
        with pytest.raises(TimeoutError):
            client.ask(b"lost\n", within_seconds=0.1)
    proxy.mend()
    for client in (old, new):
        with pytest.raises(ConnectionResetError):
            client.socket.recv(1)
    assert quiet.ask(b"two\n") == b"two\n"
    assert b"lost\n" not in echo.lines


def test_a_call_cut_after_its_request_is_done_and_not_answered(
    connect: Connect, proxy: Proxy, echo: EchoServer
) -> None:
    client, other = connect(), connect()
    client.ask(b"one\n")
    other.ask(b"other\n")
    proxy.cut_after_request()
    with pytest.raises(ConnectionResetError):
        client.ask(b"two\n")
    assert b"two\n" in echo.lines
    assert proxy.calls_cut == 1
    assert other.ask(b"other\n") == b"other\n"
    assert connect().ask(b"three\n") == b"three\n"


def test_only_the_call_that_was_meant_is_cut(connect: Connect, proxy: Proxy) -> None:
    client = connect()
    proxy.cut_after_request(b"register")
    assert client.ask(b"renew\n") == b"renew\n"
    with pytest.raises(ConnectionResetError):
        client.ask(b"register\n")
    proxy.cut_after_request(b"register")
    proxy.mend()
    assert connect().ask(b"register\n") == b"register\n"


def test_delayed_answers_come_late_and_requests_do_not(connect: Connect, proxy: Proxy, echo: EchoServer) -> None:
    client = connect()
    proxy.delay(0.3)
    started = time.monotonic()
    client.socket.sendall(b"one\n")
    until(lambda: echo.lines == [b"one\n"])
    assert client.socket.recv(100) == b"one\n"
    assert time.monotonic() - started >= 0.3


def test_a_delayed_request_arrives_after_its_client_has_gone(connect: Connect, proxy: Proxy, echo: EchoServer) -> None:
    client = connect()
    proxy.delay_requests(0.3)
    started = time.monotonic()
    client.socket.sendall(b"late\n")
    client.socket.close()
    until(lambda: echo.lines == [b"late\n"])
    assert time.monotonic() - started >= 0.3


def test_rubbish_comes_instead_of_answers(connect: Connect, proxy: Proxy, echo: EchoServer) -> None:
    client = connect()
    proxy.answer_with(b"rubbish")
    assert client.ask(b"one\n") == b"rubbish"
    assert connect().ask(b"one\n") == b"rubbish"
    proxy.mend()
    with pytest.raises(ConnectionResetError):
        client.socket.recv(1)
    assert connect().ask(b"two\n") == b"two\n"
    assert echo.lines == [b"two\n"]


def test_a_server_that_is_away_is_a_reset_for_the_client(connect: Connect, proxy: Proxy, echo: EchoServer) -> None:
    echo.close = lambda: None  # type: ignore[method-assign]  # it is closed here
    EchoServer.close(echo)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        connect().ask(b"one\n")


def test_an_idle_proxy_burns_no_processor_time(connect: Connect, proxy: Proxy) -> None:
    """Half-closed connections, and data that is not yet due, must not wake it again and again."""
    client = connect()
    client.ask(b"one\n")
    proxy.delay(1.0)
    client.socket.sendall(b"two\n")
    client.socket.shutdown(socket.SHUT_WR)
    before = time.process_time()
    assert client.socket.recv(100) == b"two\n"
    assert time.process_time() - before < 0.5


@pytest.mark.real
def test_the_url_is_the_servers_with_the_port_of_the_proxy(
    redis_server: Redis, open_proxy: Callable[[Redis], Proxy]
) -> None:
    proxy = open_proxy(redis_server)
    assert proxy.url == f"redis://127.0.0.1:{proxy.port}"
    with socket.create_connection(("127.0.0.1", proxy.port), WAIT_SECONDS) as client:
        client.sendall(b"PING\r\n")
        assert client.recv(100) == b"+PONG\r\n"


def test_an_event_loop_goes_on_while_the_proxy_works(proxy: Proxy, echo: EchoServer) -> None:
    """The proxy needs no turn of the loop: an answer is there although the loop was blocked all the time."""

    async def scenario() -> bytes:
        client = Client(proxy.port)
        try:
            return client.ask(b"one\n")
        finally:
            client.socket.close()

    assert asyncio.run(scenario()) == b"one\n"
