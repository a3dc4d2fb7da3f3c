"""nginx's logs: what their lines say, and that none is missed or read twice."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from gateway.feeders.nginx_logs import BEHIND_BYTES, STEP_BYTES, Tail, Trouble, attempts, trouble
from gateway.model import Symptom

WHEN = "2026/11/24 16:37:34 [error] 30791#30791: *1 "
REST = ', client: 127.0.0.1, server: , request: "GET /x HTTP/1.1", upstream: "http://10.0.0.1:80/x", host: "test"'


@pytest.mark.parametrize(
    ("words", "symptom"),
    [
        ("connect() failed (111: Connection refused) while connecting to upstream", Symptom.CONNECT_REFUSED),
        ("connect() failed (113: No route to host) while connecting to upstream", Symptom.CONNECT_REFUSED),
        ("connect() failed (110: Connection timed out) while connecting to upstream", Symptom.CONNECT_TIMEOUT),
        ("upstream timed out (110: Connection timed out) while connecting to upstream", Symptom.CONNECT_TIMEOUT),
        ("upstream timed out (110: Connection timed out) while reading response header from upstream", Symptom.RESPONSE_TIMEOUT),
        ("upstream timed out (110: Connection timed out) while reading upstream", Symptom.RESPONSE_TIMEOUT),
        ("upstream prematurely closed connection while reading response header from upstream", Symptom.ERROR_ANSWERS),
        ("recv() failed (104: Connection reset by peer) while reading response header from upstream", Symptom.ERROR_ANSWERS),
        ("upstream sent no valid HTTP/1.0 header while reading response header from upstream", Symptom.ERROR_ANSWERS),
    ],
)  # fmt: skip
def test_a_line_of_the_error_log_is_a_symptom_of_a_server(words: str, symptom: Symptom) -> None:
    assert trouble(WHEN + words + REST) == Trouble("10.0.0.1:80", symptom, False, words)


def test_a_server_that_nginx_disables_and_one_that_none_is_left_of() -> None:
    words = "upstream server temporarily disabled while connecting to upstream"
    assert trouble(WHEN.replace("error", "warn") + words + REST) == Trouble(
        "10.0.0.1:80", Symptom.CONNECT_REFUSED, True, words
    )
    words = "no live upstreams while connecting to upstream"
    rest = REST.replace("10.0.0.1:80", "cart")
    assert trouble(WHEN + words + rest) == Trouble("cart", None, False, words)


def test_an_address_of_ipv6_is_told_as_in_the_configuration() -> None:
    found = trouble(
        WHEN
        + "connect() failed (111: Connection refused) while connecting to upstream"
        + REST.replace("10.0.0.1", "[fd00::1]")
    )
    assert found is not None and found.name == "[fd00::1]:80"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "2026/11/24 16:37:34 [notice] 1#1: start worker process 7",
        WHEN + "open() \"/x\" failed (2: No such file or directory), client: 127.0.0.1, server: , request: \"GET / HTTP/1.1\"",
        WHEN + "client intended to send too large body" + REST,
        WHEN + "an upstream response is buffered to a temporary file /tmp/1 while reading upstream" + REST,
    ],
)  # fmt: skip
def test_other_lines_say_nothing_of_servers(line: str) -> None:
    assert trouble(line) is None


def test_a_client_cannot_accuse_a_server_by_what_it_sends() -> None:
    forged = ', client: 1, server: , request: "", upstream: "http://10.0.0.9:80/"'
    line = (
        WHEN
        + "connect() failed (111: Connection refused) while connecting to upstream"
        + REST
        + f', referrer: "{forged}"'
    )
    found = trouble(line)
    assert found is not None and found.name == "10.0.0.1:80"
    assert (
        trouble(
            WHEN
            + 'access forbidden by rule, client: 1, server: , request: "GET / HTTP/1.1", host: "x"'
            + f', referrer: "connect() failed {forged}"'
        )
        is None
    )


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("1.5 200 0.001 | 10.0.0.1:80 | 200 | 0.001", [("10.0.0.1:80", 200)]),
        ("1.5 200 0.001 | 10.0.0.1:80, [::1]:80 | 502, 200 | 0.001, 0.002", [("10.0.0.1:80", 502), ("[::1]:80", 200)]),
        ("1.5 200 0.001 | 10.0.0.1:80 : 10.0.0.2:80 | 404 : 200 | 0.001 : 0.002", [("10.0.0.1:80", 404), ("10.0.0.2:80", 200)]),
        ("1.5 499 0.001 | 10.0.0.1:80 | - | 0.001", [("10.0.0.1:80", 0)]),
        ("1.5 502 0.000 | cart | 502 | 0.000", [("cart", 502)]),
        ("1.5 200 0.000 | - | - | -", []),
        ('127.0.0.1 - - [24/Nov/2026:16:37:34 +0000] "GET / HTTP/1.1" 200 1 "-" "-"', []),
        ("", []),
    ],
)  # fmt: skip
def test_a_line_of_the_access_log_tells_who_was_asked_and_what_came(line: str, found: list[tuple[str, int]]) -> None:
    assert attempts(line) == found


def all_of(tail: Tail) -> list[str]:
    lines: list[str] = []
    while (some := tail.step()) is not None:
        lines += some
    return lines


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "error.log"


def write(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_what_is_there_already_is_passed_over_and_half_a_line_with_its_rest(log: Path) -> None:
    write(log, "old\nhalf")
    tail = Tail(str(log))
    tail.begin()
    write(log, " a line\nnew\nbegun")
    assert all_of(tail) == ["new"]
    write(log, " and ended\n")
    assert all_of(tail) == ["begun and ended"]
    assert all_of(tail) == []
    tail.close()
    tail.close()


def test_a_log_that_comes_later_is_read_from_its_beginning(log: Path) -> None:
    tail = Tail(str(log))
    tail.begin()
    assert all_of(tail) == []
    write(log, "first\n")
    assert all_of(tail) == ["first"]
    tail.close()


def test_a_log_that_is_rotated_is_read_to_its_end_and_the_new_one_from_its_beginning(log: Path) -> None:
    write(log, "old\n")
    tail = Tail(str(log))
    tail.begin()
    write(log, "a\n")
    moved = log.rename(log.with_suffix(".1"))
    write(moved, "b\n")
    write(log, "c\n")
    write(moved, "d\n")  # by a worker that has not opened its logs again yet
    assert sorted(all_of(tail)) == ["a", "b", "c", "d"]
    write(moved, "e\n")
    write(log, "f\n")
    assert sorted(all_of(tail)) == ["e", "f"]
    tail.close()


def test_many_rotations_keep_few_files_open(log: Path) -> None:
    tail = Tail(str(log))
    tail.begin()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        write(log, f"{number}\n")
        assert all_of(tail) == [str(number)]
        log.rename(log.with_suffix(f".{number}"))
    assert len(os.listdir("/proc/self/fd")) <= before + 4
    tail.close()


@pytest.mark.parametrize("after", ["x\n", "other line\n", "a much longer line than there was before\n"])
def test_a_log_that_is_truncated_is_read_from_its_beginning(log: Path, after: str) -> None:
    tail = Tail(str(log))
    tail.begin()
    write(log, "first line\n")
    assert all_of(tail) == ["first line"]
    os.truncate(log, 0)
    write(log, after)
    assert all_of(tail) == [after.strip()]
    tail.close()


def test_a_log_that_has_grown_huge_is_passed_over_in_little_memory(log: Path) -> None:
    tail = Tail(str(log))
    tail.begin()
    write(log, "first\n")
    assert all_of(tail) == ["first"]
    os.truncate(log, 1024**3)  # a hole: nobody writes so much in a test
    write(log, "\nlast\n")
    tracemalloc.start()
    lines = all_of(tail)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lines == ["last"]
    assert tail.skipped_bytes > 1024**3 - BEHIND_BYTES
    assert peak < 8 * STEP_BYTES
    tail.close()


def test_a_line_without_end_is_passed_over(log: Path) -> None:
    tail = Tail(str(log))
    tail.begin()
    write(log, "x" * (3 * STEP_BYTES) + "\nnext\n")
    assert all_of(tail) == ["next"]
    tail.close()


def test_what_is_no_regular_file_is_complained_about_and_holds_up_nothing(log: Path) -> None:
    os.mkfifo(log)
    tail = Tail(str(log))
    tail.begin()
    assert all_of(tail) == []
    assert tail.complaint == "it is no regular file"
    log.unlink()
    write(log, "now\n")
    assert all_of(tail) == ["now"]
    assert tail.complaint == ""
    tail.close()
