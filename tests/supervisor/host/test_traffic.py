"""What the kernel says of real connections, beside what their servers say."""

from __future__ import annotations

import errno
import http.client
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.core.traffic import CLOSE_WAIT, ESTABLISHED, FIN_WAIT_2, Connection, Traffic, count
from supervisor.host import traffic as module
from supervisor.host.traffic import Listener, Sockets, local_host
from tests.http2_client import Http2Client

LOOPBACK = "127.0.0.1"
QUIET_SECONDS = 0.2
DOUBT_SECONDS = 3.0
DEADLINE_SECONDS = 12.0
NOBODY = 65534
APP = Path(__file__).with_name("traffic_app.py")


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with closing(Sockets()) as asked:
        yield asked


def eventually(condition: Callable[[], object], what: str = "") -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"it did not come true: {what}"
        time.sleep(0.01)


class Place:
    """A listening socket of ours, and the traffic that the kernel sees on its port."""

    def __init__(self, sockets: Sockets, listening: socket.socket) -> None:
        self.sockets, self.listening = sockets, listening
        self.port: int = listening.getsockname()[1]
        self.opened = ExitStack()
        self.opened.enter_context(listening)

    def traffic(self, quiet_seconds: float = QUIET_SECONDS, **more: Any) -> Traffic:
        return count(
            self.connections(), quiet_seconds=quiet_seconds, **{"ignored": (), "doubt_seconds": DOUBT_SECONDS, **more}
        )

    def connections(self, address: str = "") -> list[Connection]:
        return self.sockets.connections(address, self.port)

    def becomes(self, **expected: int) -> None:
        wanted, seen = Traffic(**expected), list[Traffic]()

        def holds() -> bool:
            seen.append(self.traffic())
            return seen[-1] == wanted

        try:
            eventually(holds)
        except AssertionError:
            raise AssertionError(f"{seen[-1]} instead of {wanted}; {self.connections()}") from None

    def stays(self, **expected: int) -> None:
        """It becomes so, and still is after twice the quiet time."""
        self.becomes(**expected)
        end = time.monotonic() + 2 * QUIET_SECONDS
        while time.monotonic() < end:
            assert self.traffic() == Traffic(**expected), self.connections()
            time.sleep(0.05)

    def connect(self, host: str = LOOPBACK) -> socket.socket:
        client = socket.create_connection((host, self.port), timeout=DEADLINE_SECONDS)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.opened.enter_context(client)
        return client

    def accept(self) -> socket.socket:
        self.listening.settimeout(DEADLINE_SECONDS)
        accepted = self.opened.enter_context(self.listening.accept()[0])
        accepted.settimeout(DEADLINE_SECONDS)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return accepted

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """A client's end and the unit's."""
        client = self.connect()
        return client, self.accept()


@pytest.fixture
def place(sockets: Sockets) -> Iterator[Place]:
    made = Place(sockets, socket.create_server((LOOPBACK, 0), backlog=128))
    with made.opened:
        yield made


@pytest.fixture
def both(sockets: Sockets) -> Iterator[Place]:
    """One that takes IPv4 and IPv6."""
    made = Place(sockets, socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
    with made.opened:
        yield made


def exchange(client: socket.socket, unit: socket.socket) -> None:
    client.sendall(b"question")
    assert unit.recv(100) == b"question"
    unit.sendall(b"answer")
    assert client.recv(100) == b"answer"


# One connection, both of whose ends are ours


def test_a_connection_goes_from_unaccepted_over_unused_and_in_flight_to_trailing_and_idle(place: Place) -> None:
    client = place.connect()
    place.becomes(unaccepted=1)
    unit = place.accept()
    place.stays(unused=1)
    client.sendall(b"question")
    place.becomes(in_flight=1)
    unit.recv(100)
    place.stays(in_flight=1)
    unit.sendall(b"answer")
    place.becomes(idle=1)
    assert place.traffic(quiet_seconds=60) == Traffic(trailing=1)
    assert not place.traffic(quiet_seconds=60).quiet
    assert place.traffic().quiet


def test_an_ended_connection_is_not_listed(place: Place) -> None:
    client, unit = place.pair()
    client.close()
    unit.close()
    place.becomes()


def test_figures_are_bytes_and_a_fin_is_none(place: Place) -> None:
    client, unit = place.pair()
    client.sendall(b"12345")
    client.shutdown(socket.SHUT_WR)
    eventually(lambda: place.connections()[0].state == CLOSE_WAIT)
    (waiting,) = place.connections()
    assert (waiting.received, waiting.receive_queue, waiting.acked, waiting.send_queue) == (5, 5, 0, 0)
    unit.recv(5)
    unit.sendall(b"123")
    eventually(lambda: place.connections()[0].acked)
    (answered,) = place.connections()
    assert (answered.received, answered.receive_queue, answered.acked, answered.send_queue) == (5, 0, 3, 0)
    assert answered.peer == client.getsockname()


def test_a_client_that_leaves_without_a_word_leaves_nothing_in_flight(place: Place) -> None:
    client, _ = place.pair()
    client.shutdown(socket.SHUT_WR)
    eventually(lambda: place.connections()[0].state == CLOSE_WAIT)
    assert place.traffic() == Traffic(unused=1)


def test_a_question_and_a_half_close_are_in_flight_until_the_answer_is_out(place: Place) -> None:
    client, unit = place.pair()
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    eventually(lambda: place.connections()[0].state == CLOSE_WAIT)
    place.stays(in_flight=1)
    while unit.recv(100):
        pass
    place.stays(in_flight=1)
    unit.sendall(b"answer")
    place.stays(idle=1)


def test_a_half_close_long_after_the_question_is_not_taken_for_an_answer(place: Place) -> None:
    client, unit = place.pair()
    for _ in range(3):
        exchange(client, unit)
    client.sendall(b"question")
    place.stays(in_flight=1)
    client.shutdown(socket.SHUT_WR)
    eventually(lambda: place.connections()[0].state == CLOSE_WAIT)
    assert place.traffic() == Traffic(in_flight=1)
    assert unit.recv(100) == b"question"
    place.stays(in_flight=1)


def fill(unit: socket.socket) -> int:
    """Send until nothing goes any more."""
    unit.setblocking(False)
    sent = 0
    with pytest.raises(BlockingIOError):
        while True:
            sent += unit.send(b"x" * 65536)
    return sent


def drink(client: socket.socket, size: int) -> None:
    while size:
        size -= len(client.recv(min(size, 1 << 20)))


def test_an_answer_that_the_client_does_not_take_is_in_flight(place: Place) -> None:
    client, unit = place.pair()
    client.sendall(b"question")
    unit.recv(100)
    size = fill(unit)
    place.stays(in_flight=1)
    drink(client, size)
    place.becomes(idle=1)


def test_the_rest_of_an_answer_is_in_flight_after_the_unit_has_closed_or_half_closed(place: Place) -> None:
    closed, halved = place.pair(), place.pair()
    sizes = []
    for client, unit in (closed, halved):
        client.sendall(b"question")
        unit.recv(100)
        sizes.append(fill(unit))
    closed[1].close()
    halved[1].shutdown(socket.SHUT_WR)
    place.stays(in_flight=2)
    drink(halved[0], sizes[1])
    place.becomes(in_flight=1, idle=1)
    drink(closed[0], sizes[0])
    eventually(lambda: place.traffic().quiet)


def test_the_rest_of_an_answer_is_in_flight_after_both_have_closed_their_direction(place: Place) -> None:
    client, unit = place.pair()
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    while unit.recv(100):
        pass
    size = fill(unit)
    unit.close()
    place.stays(in_flight=1)
    drink(client, size)
    assert client.recv(1) == b""
    place.becomes()


def test_a_half_closed_unit_owes_nothing_more(place: Place) -> None:
    client, unit = place.pair()
    exchange(client, unit)
    unit.shutdown(socket.SHUT_WR)
    eventually(lambda: place.connections()[0].state == FIN_WAIT_2)
    (ending,) = place.connections()
    assert (ending.acked, ending.send_queue, ending.accepted) == (6, 0, True)
    place.becomes(idle=1)


@pytest.mark.parametrize("exchanges", [1, 2, 3, 50])
def test_quick_answers_are_told_from_questions_right_after_them(place: Place, exchanges: int) -> None:
    answered, asked = [place.pair() for _ in range(10)], [place.pair() for _ in range(10)]
    for client, unit in answered + asked:
        for _ in range(exchanges):
            exchange(client, unit)
        if (client, unit) in asked:
            client.sendall(b"question")
            unit.recv(100)
    place.stays(in_flight=10, idle=10)


def test_our_own_probes_are_left_out(place: Place) -> None:
    probe, _ = place.pair()
    client, _ = place.pair()
    probe.sendall(b"are you well")
    client.sendall(b"question")
    place.becomes(in_flight=2)
    assert place.traffic(ignored={probe.getsockname()}) == Traffic(in_flight=1)


# Addresses


def test_ipv4_clients_of_a_socket_for_both_families_are_shown_as_ipv4(both: Place) -> None:
    four, six = both.connect(LOOPBACK), both.connect("::1")
    assert [found.peer for found in both.connections(LOOPBACK)] == [four.getsockname()]
    assert [found.peer for found in both.connections("::1")] == [six.getsockname()[:2]]


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::", "localhost", "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"])
def test_wildcards_names_and_addresses_of_other_hosts_mean_any_address(both: Place, address: str) -> None:
    peers = {both.connect(LOOPBACK).getsockname(), both.connect("::1").getsockname()[:2]}
    assert {found.peer for found in both.connections(address)} == peers


def test_an_address_of_this_host_is_told_from_another_and_spelled_as_usual() -> None:
    assert [local_host(name) for name in (LOOPBACK, "0:0::1", "::ffff:127.0.0.1")] == [LOOPBACK, "::1", LOOPBACK]
    assert [local_host(name) for name in ("", "host", "0.0.0.0", "::", "192.0.2.1", "1.2.3", "a:b")] == [""] * 7


def test_only_connections_to_the_asked_address_are_listed(sockets: Sockets, place: Place) -> None:
    other = Place(sockets, socket.create_server(("127.0.0.2", place.port)))
    with other.opened:
        here, there = place.connect(), other.connect("127.0.0.2")
        assert [found.peer for found in place.connections(LOOPBACK)] == [here.getsockname()]
        assert [found.peer for found in place.connections("127.0.0.2")] == [there.getsockname()]
        assert len(place.connections("0.0.0.0")) == 2
        assert place.connections("127.0.0.3") == []


def test_many_places_are_answered_in_one_go_each_with_its_own(sockets: Sockets, place: Place, both: Place) -> None:
    here, there = place.connect(), both.connect("::1")
    places = [(LOOPBACK, place.port), ("", both.port), (LOOPBACK, both.port), ("", 1), ("", 65535)]
    found = sockets.connections_of(places)
    assert {key: [one.peer for one in value] for key, value in found.items()} == {
        places[0]: [here.getsockname()], places[1]: [there.getsockname()[:2]], places[2]: [], places[3]: [], places[4]: [],
    }  # fmt: skip
    assert sockets.connections_of([]) == {}


def test_more_connections_than_one_answer_of_the_kernel_holds(place: Place) -> None:
    peers = {place.connect().getsockname() for _ in range(120)} | {place.pair()[0].getsockname() for _ in range(300)}
    assert {found.peer for found in place.connections()} == peers
    assert len(place.connections()) == 420


# Listeners


def inode(listening: socket.socket) -> int:
    return os.fstat(listening.fileno()).st_ino


def test_listeners_are_listed_by_port_with_what_waits_for_them(sockets: Sockets, place: Place, both: Place) -> None:
    assert sockets.listeners()[place.port] == [Listener(LOOPBACK, place.port, inode(place.listening), 0, True)]
    for _ in range(3):
        both.connect()
    assert sockets.listeners()[both.port] == [Listener("::", both.port, inode(both.listening), 3, True)]
    both.accept()
    assert sockets.listeners()[both.port][0].queue == 2
    place.listening.close()
    assert place.port not in sockets.listeners()


def test_a_listener_serves_the_addresses_that_it_takes_connections_for(sockets: Sockets, both: Place) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6) as six_only:
        (only,) = sockets.listeners()[six_only.getsockname()[1]]
    (dual,) = sockets.listeners()[both.port]
    four, exact = Listener("0.0.0.0", 1, 1, 0, True), Listener(LOOPBACK, 1, 1, 0, True)
    asked = ("", LOOPBACK, "127.0.0.2", "::1")
    assert [dual.serves(host) for host in asked] == [True, True, True, True]
    assert [only.serves(host) for host in asked] == [True, False, False, True]
    assert [four.serves(host) for host in asked] == [True, True, True, False]
    assert [exact.serves(host) for host in asked] == [True, True, False, False]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_it_works_for_sockets_of_others_without_privileges(place: Place) -> None:
    client, _ = place.pair()
    client.sendall(b"question")
    place.connect()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        asked = Sockets()
        traffic = count(asked.connections("", place.port), quiet_seconds=1, ignored=())
        answer = f"{traffic.in_flight} {traffic.unaccepted} {asked.listeners()[place.port][0].queue}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as answer:
        assert answer.read() == "1 1 1"
    os.waitpid(pid, 0)


# What the kernel may answer


class Kernel:
    """A netlink socket that gives prepared answers: lists of (kind, flags, body), one list for each question."""

    def __init__(self, *answers: list[tuple[int, int, bytes]] | OSError) -> None:
        self.answers, self.pending = list(answers), list[bytes]()
        self.questions = self.closed = 0

    def send(self, question: bytes) -> None:
        sequence = struct.unpack_from("=I", question, 8)[0]
        self.questions += 1
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        late = struct.pack("=IHHII", 16, module._NLMSG_DONE, 0, sequence - 1, 0)
        self.pending = [late] + [
            struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body for kind, flags, body in answer
        ]

    def recv(self, size: int) -> bytes:
        return self.pending.pop(0)

    def close(self) -> None:
        self.closed += 1


DONE = (module._NLMSG_DONE, 0, struct.pack("=i", 0))
SHORT_INFO = struct.pack("=BB70x", socket.AF_INET, ESTABLISHED) + struct.pack("=HH", 108, module._EXT_INFO) + bytes(104)


def failing(number: int) -> list[tuple[int, int, bytes]]:
    return [(module._NLMSG_ERROR, 0, struct.pack("=i", -number))]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kernel]:
    def install(*answers: Any) -> Kernel:
        made = Kernel(*answers)
        monkeypatch.setattr(module, "_open", lambda: made)
        return made

    return install


def test_a_list_that_changed_under_the_kernels_hands_is_taken_again(kernel: Callable[..., Kernel]) -> None:
    disturbed = [(*DONE[:1], module._NLM_F_DUMP_INTR, DONE[2])]
    made = kernel(disturbed, [DONE], [DONE])
    assert Sockets().listeners() == {}
    assert made.questions == 3
    kernel(*[disturbed] * 10)
    with pytest.raises(OSError, match="changes too fast"):
        Sockets().listeners()


def test_a_kernel_without_ipv6_is_fine_and_one_without_ipv4_is_not(kernel: Callable[..., Kernel]) -> None:
    kernel([DONE], failing(errno.ENOENT))
    assert Sockets().listeners() == {}
    kernel(failing(errno.ENOENT))
    with pytest.raises(FileNotFoundError, match="cannot list sockets"):
        Sockets().listeners()


@pytest.mark.parametrize(
    "answer",
    [
        failing(errno.EBUSY),
        [(module._NLMSG_DONE, 0, struct.pack("=i", -errno.EBUSY))],
        OSError(errno.EBUSY, "busy"),
        pytest.param([(module._SOCK_DIAG_BY_FAMILY, 0, SHORT_INFO), DONE], id="Linux 4.5"),
    ],
)  # fmt: skip
def test_what_the_kernel_refuses_is_an_error(kernel: Callable[..., Kernel], answer: Any) -> None:
    kernel(answer)
    with pytest.raises(OSError) as caught:
        Sockets().connections("", 0)
    assert caught.value.errno in (errno.EBUSY, errno.ENOTSUP)


def test_after_an_error_the_next_question_gets_its_own_answer(kernel: Callable[..., Kernel], place: Place) -> None:
    broken = kernel(failing(errno.ENOBUFS), [DONE], [DONE])
    asked = Sockets()
    with pytest.raises(OSError):
        asked.listeners()
    assert broken.closed == 1
    assert asked.listeners() == {}


def test_a_cut_answer_is_an_error(kernel: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch) -> None:
    kernel([DONE])
    monkeypatch.setattr(Kernel, "recv", lambda self, size: struct.pack("=IHHII", 400, 20, 0, 1, 0))
    with pytest.raises(OSError, match="is cut"):
        Sockets().listeners()


def test_an_interrupted_answer_is_not_taken_for_the_next_one(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    asked = Sockets()
    peers = [place.connect().getsockname() for _ in range(100)]
    split = module._split
    monkeypatch.setattr(module, "_split", lambda data: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        asked.connections("", place.port)
    monkeypatch.setattr(module, "_split", split)
    with closing(asked):
        assert len(asked.connections("", place.port)) == len(peers)


def test_it_can_be_asked_again_after_it_was_closed(place: Place, sockets: Sockets) -> None:
    sockets.close()
    sockets.close()
    assert place.port in sockets.listeners()


# Real servers


@contextmanager
def serving(kind: str, place: Place, folder: Path) -> Iterator[SimpleNamespace]:
    """A server on the place's socket: its process, its own count of what is open, and `release` for what waits."""
    counted, released = folder / "count", folder / "release"
    number = place.listening.fileno()
    os.set_inheritable(number, True)
    process = subprocess.Popen(
        [sys.executable, str(APP), kind, str(number), str(counted), str(released)], pass_fds=[number]
    )
    place.listening.close()

    def becomes(number: int) -> None:
        eventually(lambda: counted.exists() and counted.read_text().strip() == str(number), f"{kind} counts {number}")

    try:
        yield SimpleNamespace(process=process, counts=becomes, release=released.touch)
    finally:
        process.kill()
        process.wait()


def http_client(place: Place) -> http.client.HTTPConnection:
    made = http.client.HTTPConnection(LOOPBACK, place.port, timeout=DEADLINE_SECONDS)
    place.opened.callback(made.close)
    return made


def get(client: http.client.HTTPConnection, path: str = "/") -> None:
    client.request("GET", path)
    client.getresponse().read()


@pytest.mark.parametrize("waiting", [0, 1, 7, 20])
def test_http_requests_in_flight_are_as_many_as_the_server_says(place: Place, tmp_path: Path, waiting: int) -> None:
    with serving("uvicorn", place, tmp_path) as server:
        clients = [http_client(place) for _ in range(waiting)]
        idle = [http_client(place) for _ in range(5)]
        for client in idle:
            get(client)
        for number, client in enumerate(clients):
            if number % 2:  # every other one has been used before, just now
                get(client)
            client.request("GET", "/wait")
        place.connect()
        server.counts(waiting)
        place.stays(in_flight=waiting, idle=5, unused=1)
        assert place.traffic().quiet == (waiting == 0)
        server.release()
        for client in clients:
            assert client.getresponse().read() == b"ok"
        place.becomes(idle=5 + waiting, unused=1)


def test_half_a_request_is_in_flight_although_the_server_does_not_count_it(place: Place, tmp_path: Path) -> None:
    with serving("uvicorn", place, tmp_path) as server:
        client = place.connect()
        client.sendall(b"GET / HTTP/1.1\r\nHost: ")
        place.stays(in_flight=1)
        server.counts(0)
        client.sendall(b"here\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        place.becomes(idle=1)


def test_a_frozen_server_leaves_connections_unaccepted(place: Place, tmp_path: Path, sockets: Sockets) -> None:
    with serving("uvicorn", place, tmp_path) as server:
        get(http_client(place))
        place.becomes(idle=1)
        server.process.send_signal(signal.SIGSTOP)
        clients = [http_client(place) for _ in range(5)]
        for client in clients:
            client.request("GET", "/")
        place.stays(idle=1, unaccepted=5)
        assert [found.queue for found in sockets.listeners()[place.port]] == [5]
        server.process.send_signal(signal.SIGCONT)
        for client in clients:
            assert client.getresponse().read() == b"ok"
        place.becomes(idle=6)


def test_of_a_websocket_the_kernel_knows_only_who_spoke_last(place: Place, tmp_path: Path) -> None:
    from websockets.sync.client import connect

    with serving("uvicorn", place, tmp_path) as server, connect(f"ws://{LOOPBACK}:{place.port}/") as client:
        server.counts(1)
        place.stays(idle=1)  # the server's answer to the upgrade came last, and so it looks done although it is open
        client.send("remember this")
        place.stays(in_flight=1)  # nothing will ever answer that
        client.send("echo")
        assert client.recv(timeout=DEADLINE_SECONDS) == "echo"
        place.becomes(idle=1)
        assert place.traffic(quiet_seconds=60) == Traffic(trailing=1)
        server.counts(1)


def test_of_http2_the_kernel_knows_the_connection_and_who_spoke_last(place: Place, tmp_path: Path) -> None:
    with serving("hypercorn", place, tmp_path) as server:
        client = Http2Client(place.connect())
        slow = [client.ask("/wait") for _ in range(3)]
        server.counts(3)
        place.becomes(in_flight=1)  # three streams are one connection
        client.read_until_answered(client.ask("/"))
        server.counts(3)
        place.stays(idle=1)  # a fourth was answered, and now the three cannot be seen
        server.release()
        for stream in slow:
            client.read_until_answered(stream)
        server.counts(0)
        place.becomes(idle=1)
        client.state.increment_flow_control_window(1000)
        client.flush()
        place.stays(in_flight=1)  # a word that nothing answers, and now it looks busy
