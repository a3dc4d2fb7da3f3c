"""On which line a key stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.config.document import key_lines

LINES: list[tuple[str, dict[tuple[str, ...], int]]] = [
    ("a = 1\n# b = 2\nc.d = 3", {("a",): 1, ("c",): 3, ("c", "d"): 3}),
    ("[a.b]\nc = 1\n[a]\nd = 2", {("a",): 3, ("a", "b"): 1, ("a", "b", "c"): 2, ("a", "d"): 4}),
    ("[ a . 'b.c' ]\n\"d\\u0065\" = 1", {("a",): 1, ("a", "b.c"): 1, ("a", "b.c", "de"): 2}),
    (
        "a = '''\nb = 1\n''''\nc = \"\"\"\n[x]\n\\\"\"\"\"\"\"\nd = 1",
        {("a",): 1, ("c",): 4, ("d",): 7},
    ),
    ("a = [ # [x]\n 1,\n { b = 2,\n c = 3 },\n]\nd = 1", {("a",): 1, ("a", "b"): 3, ("a", "c"): 4, ("d",): 6}),
    ("a = { b = { c = [1, 2] }, d = 1 }\ne = 1979-05-27 07:32:00", {
        ("a",): 1, ("a", "b"): 1, ("a", "b", "c"): 1, ("a", "d"): 1, ("e",): 2,
    }),
    ("[[a]]\nb = 1.5\r\n\r\n[[a]]\r\nb = '[c]'", {("a",): 4, ("a", "b"): 5}),
    ("a = '#'\nb = \"\\\"#\"\nc = +1e3", {("a",): 1, ("b",): 2, ("c",): 3}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "lines"), LINES)
def test_the_lines_of_keys_are_found_whatever_stands_between_them(text: str, lines: dict[tuple[str, ...], int]) -> None:
    assert key_lines(text) == lines


def test_keys_deeper_than_any_that_means_something_have_the_line_of_what_is_around_them() -> None:
    lines = key_lines("\n" + ".".join("abcdefghijklm") + " = 1\na.x = 1")
    assert lines[tuple("abcdefgh")] == 2
    assert lines["a", "x"] == 3
    assert tuple("abcdefghi") not in lines


def test_a_quoted_key_that_is_no_toml_is_taken_as_it_stands() -> None:
    assert key_lines('"\\q" = 1') == {('"\\q"',): 1}


@given(st.text(alphabet="ab.=[]{}\"'\\#\n, 1", max_size=60))
def test_the_scanner_takes_any_text_at_all(text: str) -> None:
    assert all(1 <= line <= text.count("\n") + 1 for line in key_lines(text).values())
