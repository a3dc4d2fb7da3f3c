"""The two languages of the checks port: what is asked, however it arrives, and what is answered."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.checking import (
    MAX_HEAD_BYTES,
    MAX_LINE_BYTES,
    MAX_NAME,
    Question,
    Reader,
    Standing,
    View,
    Word,
    answer,
    parse_state,
)

STATE = "UP; address=127.0.0.1; port=9080; name=cart/cart:0; node=gw-1; weight=40/140; scur=2/5; qcur=0"
VIEW = View("gw-1", "cart/cart:0", "127.0.0.1", 9080, True, 2)
READY, DRAIN, DOWN = Standing(Word.READY, 40), Standing(Word.DRAIN), Standing(Word.DOWN, why="starting:\n it  waits")


def asked(data: bytes) -> list[Question]:
    return Reader().feed(data)


def test_an_agent_asks_with_the_name_of_the_unit_in_one_line() -> None:
    assert asked(b"cart:0\n") == [Question("cart:0")]
    assert asked(b"cart:0\r\n") == [Question("cart:0")]
    assert asked(b"cart:0") == [], "the line is not whole"


def test_after_an_agents_question_nothing_is_read() -> None:
    reader = Reader()
    assert len(reader.feed(b"cart:0\ncart:1\n")) == 1
    assert reader.ended and reader.feed(b"cart:2\n") == []


@pytest.mark.parametrize(
    ("standing", "line"),
    [
        (READY, b"ready up 40%\n"),
        (Standing(Word.READY), b"ready up 100%\n"),
        (DRAIN, b"drain\n"),
        (DOWN, b"down # starting: it waits\n"),
        (Standing(Word.DOWN), b"down\n"),
    ],
)
def test_an_agent_is_answered_in_one_line(standing: Standing, line: bytes) -> None:
    assert answer(Question("cart:0"), standing) == line


def test_a_long_reason_is_cut() -> None:
    assert len(answer(Question("x"), Standing(Word.DOWN, why="why " * 1000))) < 300


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_http_asks_with_the_units_name_in_the_path(method: str, version: str) -> None:
    for path in ("/check/cart:0", "/check/cart%3A0", "/check/cart:0?verbose=1"):
        (question,) = asked(f"{method} {path} HTTP/{version}\r\nHost: x\r\n\r\n".encode())
        assert (question.unit, question.http, question.problem) == ("cart:0", True, 0)
        assert question.has_body is (method != "HEAD")


@pytest.mark.parametrize("path", ["/check", "/check/", "/", "*"])
def test_a_request_that_names_no_unit_leaves_it_to_the_gateways_state(path: str) -> None:
    (question,) = asked(f"OPTIONS {path} HTTP/1.0\r\nX-Haproxy-Server-State: {STATE}\r\n\r\n".encode())
    assert (question.unit, question.view, question.problem) == ("", VIEW, 0)
    (question,) = asked(f"OPTIONS {path} HTTP/1.0\r\n\r\n".encode())
    assert question.problem == 503, "nobody could say of which unit it speaks"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", 503),
        (b"POST /check/cart HTTP/1.1\r\n\r\n", 405),
        (b"GET /check/cart HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 413),
        (b"GET /check/cart HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
        (b"GET /" + b"x" * 9000, 414),
        (b"GET /check/cart HTTP/1.1\r\n" + b"a: b\r\n" * 2000, 431),
        (b"GET /check/cart HTTP/1.1\r\n\r\nnonsense\r\n", 400),
    ],
)
def test_what_cannot_be_answered_is_never_answered_with_what_means_drain(request_: bytes, status: int) -> None:
    reader = Reader()
    question = reader.feed(request_)[-1]
    assert question.problem == status and status != 404
    assert answer(question, READY).startswith(b"HTTP/1.1 %d " % status)
    assert reader.ended is not question.keeps_open


def test_a_line_that_never_ends_is_not_kept() -> None:
    (question,) = asked(b"x" * (MAX_LINE_BYTES + 1))
    assert answer(question, READY) == b"down # the line is too long\n"
    assert asked(b"x" * MAX_LINE_BYTES) == []


def test_headers_that_never_end_are_not_kept() -> None:
    reader = Reader()
    assert reader.feed(b"GET /check/cart HTTP/1.1\r\n") == []
    asked_ = [question for _ in range(MAX_HEAD_BYTES) for question in reader.feed(b"a:b\r\n")]
    assert [question.problem for question in asked_] == [431]


@pytest.mark.parametrize(
    ("standing", "status"), [(READY, b"200 OK"), (DRAIN, b"404 Not Found"), (DOWN, b"503 Service Unavailable")]
)
def test_http_is_answered_with_a_status_and_the_agents_words(standing: Standing, status: bytes) -> None:
    said = answer(Question("cart", http=True), standing)
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert b"Content-Length: %d\r\n" % len(body) in head and b"Connection: close" in head
    assert body == answer(Question("cart"), standing)
    silent = answer(Question("cart", http=True, has_body=False), standing)
    assert silent.partition(b"\r\n\r\n") == (head, b"\r\n\r\n", b"")


@pytest.mark.parametrize(
    ("version", "header", "keeps"),
    [
        ("1.1", "", True),
        ("1.1", "Connection: close", False),
        ("1.0", "", False),
        ("1.0", "Connection: Keep-Alive", True),
    ],
)
def test_a_connection_is_kept_where_http_says_so(version: str, header: str, keeps: bool) -> None:
    request_ = f"GET /check/cart HTTP/{version}\r\n{header}\r\n".encode() + (b"\r\n" if header else b"")
    found = asked(request_ * 2)
    assert [question.keeps_open for question in found] == [keeps] * (2 if keeps else 1)
    assert (b"keep-alive" in answer(found[0], READY)) is keeps


def test_a_gateway_says_where_it_sends_and_what_is_open_there() -> None:
    assert parse_state(STATE) == VIEW


@pytest.mark.parametrize(
    ("state", "sends"),
    [
        ("UP", True), ("UP 1/3", True), ("NOLB", False), ("NOLB 2/3", False), ("DOWN", False), ("DOWN 1/2", False),
        ("no check", False), ("DRAIN", False), ("MAINT", False),
    ],
)  # fmt: skip
def test_only_a_server_that_is_up_is_sent_to(state: str, sends: bool) -> None:
    view = parse_state(STATE.replace("UP;", f"{state};"))
    assert view is not None and view.sends is sends


def test_a_server_without_weight_is_not_sent_to() -> None:
    view = parse_state(STATE.replace("40/140", "0/140"))
    assert view is not None and not view.sends


@pytest.mark.parametrize(
    "text",
    [
        "",
        "UP",
        ";;;",
        "UP; name=a/b",
        "UP; name=a/b; port=x",
        "; name=a/b; port=1",
        "UP; port=80; name=",
        f"UP; name=a/b; port={'9' * 5000}",
        "UP; name=a/b; port=80; node=\x1b[31mgw",
    ],
)
def test_what_is_no_state_is_none(text: str) -> None:
    assert parse_state(text) is None


def test_long_names_are_cut() -> None:
    view = parse_state(f"UP; port=80; name={'a' * 1000}; node={'b' * 1000}; address={'c' * 1000}")
    assert view is not None and {len(view.name), len(view.node), len(view.address)} == {MAX_NAME}


def test_what_a_gateway_leaves_out_is_not_known() -> None:
    assert parse_state("UP; port=80; name=a/b; scur=x/2") == View("haproxy", "a/b", "", 80, True, None)


PIECES = st.sampled_from([b"cart\n", b"GET /check/a HTTP/1.1\r\n", b"\r\n", b"Host: x\r\n", b"a", b"\n", b"\xff\0"])


@settings(deadline=None)
@given(st.lists(PIECES | st.binary(max_size=20), max_size=12), st.lists(st.integers(0, 200), max_size=6))
def test_the_same_bytes_ask_the_same_however_they_are_cut(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pieces)
    reader, found, last = Reader(), list[Question](), 0
    for cut in (*sorted(cuts), len(data)):
        found += reader.feed(data[last:cut])
        last = max(last, min(cut, len(data)))
    assert found == asked(data)
    assert all(answer(question, READY) for question in found)
