"""How lines look in a log."""

from __future__ import annotations

import errno
import json

from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.model import LogFormat
from supervisor.host import lines


def rendered(shape: LogFormat, data: bytes, stream: str = "stdout", first: int = 1) -> bytes:
    return b"".join(lines.render(shape, "cart:0", 7, stream, data, 1795491706.123, first))


def test_a_stamp_is_utc_with_milliseconds() -> None:
    assert lines.stamp(1795491706.1239) == "2026-11-24T03:41:46.123Z"
    assert lines.stamp(0.0) == "1970-01-01T00:00:00.000Z"


@given(st.binary())
def test_raw_passes_any_byte_untouched(data: bytes) -> None:
    assert rendered(LogFormat.RAW, data) == data


def test_the_prefix_stands_before_every_line_and_an_unfinished_one_gets_its_newline() -> None:
    head = b"2026-11-24T03:41:46.123Z cart:0 "
    assert rendered(LogFormat.PREFIX, b"a\n\nb\n") == head + b"a\n" + head + b"\n" + head + b"b\n"
    assert rendered(LogFormat.PREFIX, b"a\nb") == head + b"a\n" + head + b"b\n"
    assert rendered(LogFormat.PREFIX, b"a\n", "stderr") == b"2026-11-24T03:41:46.123Z cart:0 (stderr) a\n"


@given(st.lists(st.binary().filter(lambda row: b"\n" not in row), min_size=1))
def test_prefixed_lines_are_the_same_lines_without_their_prefix(rows: list[bytes]) -> None:
    out = rendered(LogFormat.PREFIX, b"".join(row + b"\n" for row in rows))
    head = len(b"2026-11-24T03:41:46.123Z cart:0 ")
    assert [row[head:] for row in out.split(b"\n")[:-1]] == rows


@given(st.lists(st.binary().filter(lambda row: b"\n" not in row), min_size=1))
def test_each_json_line_is_an_object_with_the_text_and_its_number(rows: list[bytes]) -> None:
    out = rendered(LogFormat.JSON, b"".join(row + b"\n" for row in rows), first=5)
    objects = [json.loads(row) for row in out.split(b"\n")[:-1]]
    assert [one["message"] for one in objects] == [row.decode("utf-8", "replace") for row in rows]
    assert [one["seq"] for one in objects] == list(range(5, 5 + len(rows)))


def test_a_json_line_says_whose_it_is() -> None:
    assert json.loads(rendered(LogFormat.JSON, b'say "\\n"\xff', "stderr")) == {
        "time": "2026-11-24T03:41:46.123Z",
        "unit": "cart:0",
        "generation": 7,
        "stream": "stderr",
        "seq": 1,
        "message": 'say "\\n"\ufffd',
    }


def test_an_unfinished_line_counts() -> None:
    assert [lines.count(data) for data in (b"", b"a", b"a\n", b"a\nb", b"\n\n")] == [0, 1, 1, 2, 2]


def test_reasons_read_like_our_messages() -> None:
    assert lines.reason_of(OSError(errno.ENOSPC, "x")) == "no space left on device"
    assert lines.reason_of(OSError(errno.ENXIO, "x")) == "nobody reads it"
    assert lines.reason_of(OSError("Odd")) == "odd"
