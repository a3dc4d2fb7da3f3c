"""`logs` and `events`: once, and as it comes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from supervisor.unitctl.sse import EventParser, ServerEvent

Until = Callable[[Callable[[], object]], None]


class Source:
    """A stream that a test feeds."""

    def __init__(self) -> None:
        self.pieces: list[bytes | None] = []
        self.changed = threading.Condition()
        self.left = False  # the client has gone

    def feed(self, piece: bytes | None) -> None:
        with self.changed:
            self.pieces.append(piece)
            self.changed.notify_all()

    def __iter__(self) -> Iterator[bytes]:
        try:
            position = 0
            while True:
                with self.changed:
                    assert self.changed.wait_for(lambda at=position: len(self.pieces) > at, 20)  # type: ignore[misc]
                    piece = self.pieces[position]
                if piece is None:
                    return
                position += 1
                yield piece
        finally:
            self.left = True

    def answer(self, request: Any) -> tuple[int, Any]:
        return 200, iter(self)


@pytest.fixture
def source() -> Iterator[Source]:
    """A stream; it ends with the test."""
    made = Source()
    yield made
    made.feed(None)


# logs


def test_logs_are_printed_byte_for_byte(daemon: Any, unitctl: Any) -> None:
    daemon.routes["GET", "/v1/units/a:0/logs"] = lambda _: (200, b"one\ntw\xff\x1b[1mo\nno end")
    done = unitctl("logs", "a:0")
    assert done.returncode == 0
    assert done.stdout.encode(errors="surrogateescape") == b"one\ntw\xff\x1b[1mo\nno end"
    assert daemon.requests[0].query == {"stream": "stdout", "lines": "10"}


def test_logs_may_be_stderr_and_longer(daemon: Any, unitctl: Any) -> None:
    daemon.routes["GET", "/v1/units/a/logs"] = lambda _: (200, b"")
    assert unitctl("logs", "--stderr", "-n", "500", "a").returncode == 0
    assert daemon.requests[0].query == {"stream": "stderr", "lines": "500"}


def test_logs_as_json_are_a_list_of_lines(daemon: Any, unitctl: Any) -> None:
    daemon.routes["GET", "/v1/units/a/logs"] = lambda _: (200, b"one\ntw\xff\nthree")
    assert json.loads(unitctl("logs", "a", "-o", "json").stdout) == ["one", "tw\ufffd", "three"]


def test_logs_of_an_unknown_unit_are_4(daemon: Any, unitctl: Any) -> None:
    daemon.problem("GET", "/v1/units/nope/logs", 404, "no unit is called nope")
    done = unitctl("logs", "nope")
    assert (done.returncode, done.stdout, done.stderr) == (4, "", "unitctl: no unit is called nope\n")


def test_following_prints_lines_as_they_come_until_ctrl_c(daemon: Any, unitctl: Any, source: Source) -> None:
    daemon.routes["GET", "/v1/units/a/logs"] = source.answer
    process = unitctl.begin("logs", "-f", "-n", "3", "a")
    assert daemon.wait_for("GET", "/v1/units/a/logs").query == {
        "stream": "stdout",
        "lines": "3",
        "follow": "1",
    }
    for line in ("one\n", "two\n"):
        source.feed(line.encode())
        assert process.stdout.readline() == line
    assert unitctl.interrupt(process) == (130, "", "\n")


def test_following_as_json_prints_an_object_a_line(daemon: Any, unitctl: Any, source: Source) -> None:
    daemon.routes["GET", "/v1/units/a/logs"] = source.answer
    process = unitctl.begin("logs", "-f", "a", "-o", "json")
    source.feed(b"on")
    source.feed(b"e\ntwo\n")
    lines = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert lines == [{"unit": "a", "stream": "stdout", "line": text} for text in ("one", "two")]
    unitctl.interrupt(process)


def test_following_ends_when_the_daemon_ends_it(daemon: Any, unitctl: Any, source: Source) -> None:
    daemon.routes["GET", "/v1/units/a/logs"] = source.answer
    process = unitctl.begin("logs", "-f", "a")
    source.feed(b"one\n")
    source.feed(None)
    assert process.communicate(timeout=15) == ("one\n", "")
    assert process.returncode == 0


def test_a_daemon_that_dies_under_a_follower_is_69(daemon: Any, unitctl: Any, source: Source) -> None:
    daemon.routes["GET", "/v1/units/a/logs"] = source.answer
    process = unitctl.begin("logs", "-f", "a")
    source.feed(b"one\n")
    assert process.stdout.readline() == "one\n"
    source.feed(None)
    daemon.server.cut_all()
    assert process.wait(15) in (0, 69)  # the end may have got through before the cut


@pytest.mark.parametrize("path", ["/v1/units/a/logs", "/v1/events"])
def test_a_follower_whose_reader_has_left_ends_though_nothing_comes(
    daemon: Any, unitctl: Any, source: Source, path: str
) -> None:
    event = b'id: 1\ndata: {"seq": 1, "at": "t", "unit": "a", "type": "running", "text": "x"}\n\n'
    daemon.routes["GET", "/v1/units/a/logs"] = source.answer
    daemon.routes["GET", "/v1/events"] = lambda request: (
        (200, iter([])) if request.query.get("follow") == "0" else source.answer(request)
    )
    process = unitctl.begin(*(("logs", "-f", "a") if "logs" in path else ("events", "-f")))
    source.feed(b"one\n" if "logs" in path else event)
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(15) == 0
    assert process.stderr.read() == ""


# events

EVENTS = [
    {"seq": number, "at": f"2026-11-24T03:41:4{number}.000Z", "unit": unit, "type": kind, "text": text}
    for number, unit, kind, text in (
        (1, "addToCart:0", "starting", "pid 4242"),
        (2, "db", "fatal", "given up\x1b[2J"),
        (3, "addToCart:0", "running", "ready"),
    )
]


def framed(event: dict[str, Any]) -> bytes:
    return f"id: {event['seq']}\nevent: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def record(daemon: Any, events: list[dict[str, Any]], source: Source | None = None) -> None:
    """Answer as the daemon does: what is recorded, and what comes when followed."""

    def answer(request: Any) -> tuple[int, Any]:
        last = int(request.headers.get("last-event-id", "0"))
        if last > max((event["seq"] for event in events), default=last):
            last = 0  # it lost its folder, and counts from the beginning
        if request.query.get("follow") == "0":
            return 200, iter([b": events\n\n", *(framed(event) for event in events if event["seq"] > last)])
        assert source is not None
        return source.answer(request)

    daemon.routes["GET", "/v1/events"] = answer


def test_events_are_what_has_happened(daemon: Any, unitctl: Any) -> None:
    record(daemon, EVENTS)
    done = unitctl("events")
    assert done.returncode == 0
    assert done.stdout == (
        "2026-11-24T03:41:41.000Z  addToCart:0  starting  pid 4242\n"
        "2026-11-24T03:41:42.000Z  db           fatal     given up\\x1b[2J\n"
        "2026-11-24T03:41:43.000Z  addToCart:0  running   ready\n"
    )
    assert unitctl("events", "-n", "1").stdout.count("\n") == 1
    assert unitctl("events", "-n", "0").stdout == ""
    assert unitctl("events", "-n", "99").stdout.count("\n") == 3
    assert json.loads(unitctl("events", "-o", "json").stdout) == EVENTS


def test_no_events_are_no_error(daemon: Any, unitctl: Any) -> None:
    record(daemon, [])
    assert (unitctl("events").returncode, unitctl("events").stdout) == (0, "")
    assert json.loads(unitctl("events", "-o", "json").stdout) == []


def test_followed_events_begin_with_the_last_and_go_on_without_a_gap(daemon: Any, unitctl: Any, source: Source) -> None:
    record(daemon, EVENTS[:2], source)
    process = unitctl.begin("events", "-f", "-n", "1", "-o", "json")
    assert json.loads(process.stdout.readline()) == EVENTS[1]
    assert daemon.wait_for("GET", "/v1/events", count=2).headers["last-event-id"] == "2"
    source.feed(b": ping\n\n")
    source.feed(framed(EVENTS[2])[:20])
    source.feed(framed(EVENTS[2])[20:])
    assert json.loads(process.stdout.readline()) == EVENTS[2]
    assert unitctl.interrupt(process)[0] == 130


NEW_LIFE = 1 << 32


@pytest.mark.parametrize(
    "first", [NEW_LIFE + 1, 1], ids=["its ids grow on", "it lost its folder and counts from the beginning"]
)
def test_followed_events_survive_a_restart_of_the_daemon(daemon: Any, unitctl: Any, source: Source, first: int) -> None:
    after = [{**EVENTS[0], "seq": first}, {**EVENTS[1], "seq": first + 1}]
    record(daemon, EVENTS, source)
    process = unitctl.begin("events", "-f", "-n", "0", "-o", "json")
    source.feed(framed({**EVENTS[2], "seq": 4}))
    assert json.loads(process.stdout.readline())["seq"] == 4
    source.feed(None)
    daemon.stop()
    fresh = Source()
    record(daemon, after[:1], fresh)
    daemon.start()
    assert json.loads(process.stdout.readline()) == after[0]
    fresh.feed(framed(after[1]))
    assert json.loads(process.stdout.readline()) == after[1]
    fresh.feed(None)
    unitctl.interrupt(process)


def test_what_happened_while_the_stream_was_cut_is_made_up_for(daemon: Any, unitctl: Any, source: Source) -> None:
    recorded = EVENTS[:1]
    record(daemon, recorded, source)
    process = unitctl.begin("events", "-f", "-o", "json")
    assert json.loads(process.stdout.readline()) == EVENTS[0]
    recorded.append(EVENTS[1])
    source.feed(None)
    assert json.loads(process.stdout.readline()) == EVENTS[1]
    unitctl.interrupt(process)


def test_events_since_an_id_are_those_after_it(daemon: Any, unitctl: Any) -> None:
    record(daemon, EVENTS)
    assert json.loads(unitctl("events", "--since", "1", "-o", "json").stdout) == EVENTS[1:]
    assert unitctl("events", "--since", "1", "-n", "1", "-v").stdout == (
        "3  2026-11-24T03:41:43.000Z  addToCart:0  running  ready\n"
    )
    assert unitctl("events", "--since", "3").stdout == ""
    assert unitctl("events", "--since", "x").returncode == 2


def test_following_since_an_id_prints_all_after_it_first(daemon: Any, unitctl: Any, source: Source) -> None:
    many = [{**EVENTS[0], "seq": number} for number in range(1, 30)]
    record(daemon, many, source)
    process = unitctl.begin("events", "-f", "--since", "3", "-o", "json")
    assert [json.loads(process.stdout.readline())["seq"] for _ in range(26)] == list(range(4, 30))
    source.feed(framed({**EVENTS[0], "seq": 30}))
    assert json.loads(process.stdout.readline())["seq"] == 30
    unitctl.interrupt(process)


def test_following_since_the_newest_id_waits_for_what_comes(daemon: Any, unitctl: Any, source: Source) -> None:
    record(daemon, [], source)
    process = unitctl.begin("events", "-f", "--since", "7", "-o", "json")
    assert daemon.wait_for("GET", "/v1/events", count=2).headers["last-event-id"] == "7"
    source.feed(framed({**EVENTS[0], "seq": 8}))
    assert json.loads(process.stdout.readline())["seq"] == 8
    unitctl.interrupt(process)


def test_an_event_that_is_none_is_an_error(daemon: Any, unitctl: Any) -> None:
    daemon.routes["GET", "/v1/events"] = lambda _: (200, iter([b"data: 3\n\n"]))
    done = unitctl("events")
    assert done.returncode == 1
    assert "cannot read an event" in done.stderr


# Server-sent events


def test_events_come_out_whole_however_the_bytes_are_cut() -> None:
    first, second = ": hello\n\nid: 1\nevent: a\ndata: {ü\ndata: }\n\r\n", "id:2\r\ndata:x\r\n\r\ndata: y\n\n"
    text = f"{first}{second}id: 9\n\ndata: un".encode()
    expected = [ServerEvent("1", "{ü\n}"), ServerEvent("2", "x"), ServerEvent("2", "y")]
    for size in range(1, len(text) + 1):
        parser = EventParser()
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        assert [event for piece in pieces for event in parser.feed(piece)] == expected
