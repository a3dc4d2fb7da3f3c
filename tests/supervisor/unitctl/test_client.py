"""The client on the wire: what it makes of a daemon that is not there, hangs up, hangs, or is something else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor.unitctl.address import Address, parse_address
from supervisor.unitctl.client import Client, Refused, Unreachable
from supervisor.unitctl.diagnosis import explain

Serve = Callable[..., Address]


@pytest.fixture
def serve(folder: Path) -> Iterator[Serve]:
    """Serve connections with a function, one after another, on a unix socket."""
    path = folder / "raw.sock"
    listener = socket.socket(socket.AF_UNIX)
    threads = []

    def begin(*handlers: Callable[[socket.socket], None]) -> Address:
        listener.bind(str(path))
        listener.listen()

        def work() -> None:
            for handler in handlers:
                connection, _ = listener.accept()
                with connection, suppress(OSError):  # the client may hang up at any time
                    handler(connection)

        threads.append(threading.Thread(target=work))
        threads[0].start()
        return parse_address(str(path))

    yield begin
    for thread in threads:
        thread.join()
    listener.close()


def read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    return data


def answering(*raw: bytes) -> Callable[[socket.socket], None]:
    """Read a request, then send this, piece by piece, and hang up."""

    def handler(connection: socket.socket) -> None:
        read_request(connection)
        for piece in raw:
            connection.sendall(piece)

    return handler


def until_closed(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def cause_of(address: Address, seconds: float = 10.0) -> tuple[str, str]:
    client = Client(address, seconds)
    with pytest.raises(Unreachable) as caught:
        client.get("/v1/units")
    client.close()
    return caught.value.cause, str(caught.value)


# Not there.


def test_a_missing_socket_means_not_running_or_elsewhere(folder: Path) -> None:
    cause, message = cause_of(parse_address(f"{folder}/none.sock"))
    assert cause == "missing"
    assert message.startswith(f"cannot reach unitd at unix://{folder}/none.sock: there is no such socket")
    assert "systemctl start unitd" in message and "-s URL" in message and "-c FILE" in message


def test_a_missing_folder_is_the_same(folder: Path) -> None:
    assert cause_of(parse_address(f"{folder}/none/unitd.sock"))[0] == "missing"


def test_a_socket_file_removed_under_a_running_daemon_is_told_apart(folder: Path) -> None:
    path = f"{folder}/removed.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        os.unlink(path)
        cause, message = cause_of(parse_address(path))
    assert cause == "missing"
    assert "the socket file was removed while unitd runs" in message and "restart unitd" in message


def test_a_stale_socket_means_that_the_daemon_died(folder: Path) -> None:
    path = f"{folder}/stale.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
    cause, message = cause_of(parse_address(path))
    assert cause == "refused"
    assert "nobody listens on that socket any more" in message


def test_a_file_that_is_no_socket_is_called_so(folder: Path) -> None:
    (folder / "file").write_text("")
    cause, message = cause_of(parse_address(f"{folder}/file"))
    assert cause == "refused"
    assert "not a socket" in message


def test_nobody_on_the_port_is_told_with_what_turns_it_on() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        cause, message = cause_of(parse_address(f"http://127.0.0.1:{taken.getsockname()[1]}"))
    assert cause == "refused"
    assert "[http] listen is not set" in message


def test_a_path_too_long_for_a_socket_is_an_error_of_the_same_kind(folder: Path) -> None:
    assert cause_of(parse_address(f"{folder}/{'x' * 200}"))[0] == "other"


# Not allowed.


def test_without_permission_the_owner_of_the_socket_and_the_way_in_are_told(folder: Path) -> None:
    path = folder / "private.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    path.chmod(0o660)
    os.chown(path, os.getuid(), 12345)
    cause, message = explain(parse_address(str(path)), PermissionError(13, "Permission denied"))
    assert cause == "permission"
    assert ":12345 with mode 0660" in message and "usermod -aG 12345" in message


def test_a_socket_for_its_owner_alone_is_reached_with_sudo(folder: Path) -> None:
    path = folder / "private.sock"
    path.touch(0o600)
    _, message = explain(parse_address(str(path)), PermissionError(13, "Permission denied"))
    assert message.endswith(": use sudo")


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")
@pytest.mark.parametrize(("folder_mode", "words"), [(0o755, "the socket belongs to root"), (0o700, "may not enter")])
def test_a_user_without_permission_gets_exit_code_4(folder: Path, folder_mode: int, words: str) -> None:
    path = folder / "unitd.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o660)
        folder.chmod(folder_mode)
        # the modules are loaded first: that user may not be allowed to read them
        program = (
            "import difflib, os, pwd\nimport supervisor.unitctl.orders, supervisor.unitctl.diagnosis\n"
            "from supervisor.unitctl.main import run\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            f"raise SystemExit(run(['-s', '{path}', 'stop', 'all']))"
        )
        done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=15)
    assert done.returncode == 4, done.stderr
    assert words in done.stderr


# There, but strange.


def test_no_answer_in_time_is_told_with_the_time(serve: Serve) -> None:
    cause, message = cause_of(serve(until_closed), 0.1)
    assert cause == "timeout"
    assert "no answer within 0.1 s" in message


def test_half_an_answer_in_time_is_no_answer(serve: Serve) -> None:
    def handler(connection: socket.socket) -> None:
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")(connection)
        until_closed(connection)

    assert cause_of(serve(handler), 0.1)[0] == "timeout"


def test_a_full_queue_of_connections_is_waited_for_and_then_told(folder: Path) -> None:
    path = f"{folder}/full.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(path)
        listener.listen(0)
        other.connect(path)
        cause, message = cause_of(parse_address(path), 0.1)
    assert cause == "timeout"
    assert "does not take the connection" in message


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x00\x01\x02",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    ],
)
def test_something_that_is_not_unitd_is_suspected(serve: Serve, raw: bytes) -> None:
    cause, message = cause_of(serve(answering(raw, b"\r\n" * 2)), 2.0)
    assert cause == "garbage", message
    assert "is it unitd?" in message


@pytest.mark.parametrize(
    "raw", [b"", b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"]
)
def test_a_daemon_that_hangs_up_is_told_apart(serve: Serve, raw: bytes) -> None:
    assert cause_of(serve(answering(raw)))[0] == "lost"


def test_the_client_recovers_with_a_new_connection(serve: Serve) -> None:
    good = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    client = Client(serve(answering(), answering(good)))
    with pytest.raises(Unreachable):
        client.get("/v1/units")
    assert client.get("/v1/units") == {}
    client.close()


def test_an_early_refusal_is_read_although_the_request_was_not_taken(serve: Serve) -> None:
    body = json.dumps({"detail": "send at most 10 bytes of body", "title": "t", "status": 413}).encode()

    def refuse(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(
            b"HTTP/1.1 413 Large\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
        )
        connection.shutdown(socket.SHUT_WR)
        until_closed(connection)

    client = Client(serve(refuse))
    with pytest.raises(Refused, match="send at most 10 bytes"):
        client.post("/v1/units/all/stop", {"reason": "x" * 1_000_000})
    client.close()


# As it should be.


def test_one_connection_serves_many_requests(daemon: Any) -> None:
    daemon.add("a")
    client = Client(parse_address(str(daemon.path)))
    for _ in range(5):
        assert client.get("/v1/units")["units"][0]["unit"] == "a"
    client.close()
    assert daemon.connections == 1


def test_names_reach_the_daemon_whole(daemon: Any) -> None:
    daemon.add("ä b/c?:0")
    client = Client(parse_address(str(daemon.path)))
    assert len(client.get("/v1/units", {"names": "ä b/c?:0"})["units"]) == 1
    client.close()


def test_a_pause_between_pieces_of_an_answer_does_no_harm(serve: Serve) -> None:
    pieces = [b"HTTP/1.1 200 OK\r\nTransfer-", b"Encoding: chunked\r\n\r\n1\r\n[\r", b"\n1\r\n]\r\n0\r\n\r\n"]
    client = Client(serve(answering(*pieces)))
    assert client.get("/v1/units") == []
    client.close()


def test_a_stream_comes_as_it_is_sent(serve: Serve) -> None:
    sent, seen = threading.Event(), threading.Event()

    def handler(connection: socket.socket) -> None:
        answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")(connection)
        assert seen.wait(10)  # the second piece is sent when the first has been read
        connection.sendall(b"3\r\ntwo\r\n0\r\n\r\n")
        sent.set()

    stream = Client(serve(handler)).stream("/x")
    assert next(stream) == b"one"
    seen.set()
    assert list(stream) == [b"two"] and sent.wait(10)


def test_a_stream_with_a_length_ends_with_it(serve: Serve) -> None:
    def handler(connection: socket.socket) -> None:
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")(connection)
        until_closed(connection)  # kept open: the end is known without it

    assert list(Client(serve(handler)).stream("/x")) == [b"one"]


def test_a_stream_that_is_cut_is_an_error(serve: Serve) -> None:
    cut = answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
    stream = Client(serve(cut)).stream("/x")
    assert next(stream) == b"one"
    with pytest.raises(Unreachable) as caught:
        next(stream)
    assert caught.value.has_ended


def test_a_stream_that_is_not_followed_must_not_stall(serve: Serve) -> None:
    def handler(connection: socket.socket) -> None:
        answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")(connection)
        until_closed(connection)

    stream = Client(serve(handler), 0.1).stream("/x")
    assert next(stream) == b"one"
    with pytest.raises(Unreachable) as caught:
        next(stream)
    assert caught.value.cause == "timeout"


def test_a_refused_stream_says_why(daemon: Any) -> None:
    daemon.problem("GET", "/x", 404, "its stdout is thrown away")
    with pytest.raises(Refused, match="thrown away"):
        list(Client(parse_address(str(daemon.path))).stream("/x"))


def test_loopback_tcp_is_spoken_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work() -> None:
            connection, _ = listener.accept()
            with connection:
                answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")(connection)

        thread = threading.Thread(target=work)
        thread.start()
        client = Client(parse_address(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        assert client.get("/v1/units") == {}
        client.close()
        thread.join()


@pytest.mark.parametrize(
    ("status", "code"), [(400, 2), (403, 4), (404, 4), (409, 1), (422, 2), (429, 1), (500, 1), (503, 1)]
)
def test_refusals_have_an_exit_code(status: int, code: int) -> None:
    assert Refused(status, {"detail": "no"}).exit_code == code


def test_a_refusal_without_words_still_says_something() -> None:
    assert str(Refused(503, {})) == "unitd answered with HTTP status 503"
    assert str(Refused(503, {"title": "Busy"})) == "Busy"


def test_the_nearest_name_is_told_once() -> None:
    assert (
        str(Refused(404, {"detail": "no unit is called x", "nearest": "y"})) == "no unit is called x (did you mean y?)"
    )
    assert str(Refused(404, {"detail": "no x (did you mean y?)", "nearest": "y"})) == "no x (did you mean y?)"
