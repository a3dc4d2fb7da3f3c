"""The audit log's lines: how they hold together, and what shows when they do not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.audit import MAX_TEXT, AuditRecord, Mark, audit_line, mark_of, verify
from supervisor.core.digest import sha256_hex

RECORD = AuditRecord("2026-11-24T00:00:00Z", "center", "10.0.0.2:5", "restart", "cart:0", "c1", "why", "ann")


def written(count: int, before: Mark | None = None) -> tuple[list[bytes], Mark]:
    """So many lines without their newlines, and the mark after them."""
    lines, mark = [], before or Mark()
    for number in range(count):
        line, mark = audit_line(replace(RECORD, command_id=f"c{number}"), mark)
        assert line.endswith(b"\n") and line.count(b"\n") == 1
        lines.append(line[:-1])
    return lines, mark


def test_a_line_has_all_that_is_known_and_the_hash_of_the_line_before() -> None:
    (first, second), mark = written(2)
    value = json.loads(second)
    assert list(value) == [
        "seq", "at", "who", "peer", "action", "target", "command_id", "reason", "issued_by", "verdict", "code", "detail",
        "before",
    ]  # fmt: skip
    assert (value["seq"], value["before"]) == (2, sha256_hex(first))
    assert mark == Mark(2, sha256_hex(second)) == mark_of(second, Mark())


def test_what_was_written_is_found_in_order() -> None:
    lines, mark = written(5)
    found = verify(lines, mark)
    assert (found.lines, found.first, found.mark, found.torn, found.faults) == (5, 1, mark, 0, [])


def test_nothing_is_in_order_too() -> None:
    assert verify([]).faults == [] and verify([]).first is None


@given(st.integers(0, 5), st.sampled_from(["change", "remove", "repeat", "swap", "insert"]))
def test_a_line_that_was_touched_shows(at: int, how: str) -> None:
    lines, mark = written(7)
    if how == "change":
        lines[at] = lines[at].replace(b"restart", b"destart")
    elif how == "remove":
        del lines[at]
    elif how == "repeat":
        lines.insert(at, lines[at])
    elif how == "swap":
        lines[at], lines[at + 1] = lines[at + 1], lines[at]
    else:
        lines.insert(at, audit_line(RECORD, Mark(at, "0" * 64))[0][:-1])
    found = verify(lines, mark)
    # What was cut off at the beginning may have been moved away: then the numbers do not begin with 1.
    assert found.faults or ((how, at) == ("remove", 0) and found.first == 2)


def test_a_number_that_was_skipped_shows_although_the_hashes_fit() -> None:
    first, mark = audit_line(RECORD, Mark())
    second, _ = audit_line(RECORD, Mark(5, mark.digest))
    assert verify([first[:-1], second[:-1]]).faults == ["line 2 has the number 6 after 1"]


def test_a_last_line_that_was_changed_or_cut_off_shows_to_who_has_kept_the_mark() -> None:
    lines, mark = written(4)
    assert verify([*lines[:3], lines[3].replace(b"ann", b"bob")], mark).faults
    assert verify(lines[:2], mark).faults == ["2 lines are missing at the end: 4 were written"]
    assert verify([], mark).faults == ["4 lines are missing at the end: 4 were written"]


def test_a_log_that_goes_on_in_a_new_file_begins_with_a_higher_number() -> None:
    _, mark = written(3)
    found = verify(written(2, mark)[0])
    assert (found.first, found.mark.seq, found.faults) == (4, 5, [])


def test_a_torn_line_is_part_of_the_chain_and_hides_no_other() -> None:
    lines, mark = written(2)
    torn = lines[1][:20]
    line, last = audit_line(RECORD, mark_of(torn, Mark(1, sha256_hex(lines[0]))))
    found = verify([lines[0], torn, line[:-1]], last)
    assert (found.torn, found.faults, found.mark.seq) == (1, [], 2)
    assert verify([lines[0], torn]).faults == ["line 2 is no record, and nothing follows it"]
    assert verify([lines[0], b"something else", line[:-1]]).faults
    assert verify([torn, line[:-1]]).torn == 1


def test_a_first_line_that_follows_another_one_which_is_not_there_shows() -> None:
    line, _ = audit_line(RECORD, Mark(0, "0" * 64))
    assert verify([line[:-1]]).faults


@pytest.mark.parametrize(
    "junk", [b"", b"[]", b"{}", b'{"seq": true, "before": ""}', b'{"seq": 1, "before": 2}', b"\xff", b"[" * 10**5]
)
def test_what_is_no_record_is_said_to_be_none(junk: bytes) -> None:
    found = verify([junk])
    assert (found.torn, len(found.faults)) == (1, 1)


def test_long_and_strange_texts_stay_on_one_short_line() -> None:
    odd = json.loads('"\\ud800\\n\\u2028"')
    line, _ = audit_line(replace(RECORD, reason="x" * 10**6, detail=odd * 10**5, who="grün"), Mark())
    assert len(line) < 10 * MAX_TEXT * 2 and line.count(b"\n") == 1
    assert verify([line[:-1]]).faults == []


def test_the_hash_is_sha256() -> None:
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
