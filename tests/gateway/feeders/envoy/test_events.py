"""Following the log of ejections, whatever happens to the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.feeders.envoy_events import MAX_BYTES, EventLog, parse
from gateway.model import Symptom


def _line(port: int = 80, action: str = "EJECT", **more: object) -> str:
    event = {"type": "CONSECUTIVE_5XX", "cluster_name": "web", "upstream_url": f"10.0.0.1:{port}", "action": action}
    return json.dumps({**event, "enforced": True, "num_ejections": 2, **more}) + "\n"


def test_only_what_is_appended_after_the_first_look_counts(tmp_path: Path) -> None:
    """And a line only when it has ended."""
    path = tmp_path / "log"
    path.write_text(_line(1))
    log = EventLog(str(path))
    assert log.read() == []
    with path.open("a") as file:
        file.write(_line(2) + _line(3)[:20])
        file.flush()
        assert [event.place for event in log.read()] == [("10.0.0.1", 2)]
        file.write(_line(3)[20:])
    assert [event.place for event in log.read()] == [("10.0.0.1", 3)]
    assert log.read() == []


def test_a_log_that_comes_later_or_is_rotated_or_truncated_is_read_from_its_beginning(tmp_path: Path) -> None:
    """Nothing of it is history."""
    path = tmp_path / "log"
    log = EventLog(str(path))
    assert log.read() == []
    path.write_text(_line(1) + _line(2))
    assert len(log.read()) == 2
    path.rename(tmp_path / "log.1")
    assert log.read() == []
    path.write_text(_line(3))
    assert [event.place[1] for event in log.read()] == [3]
    path.write_text("")
    assert log.read() == []
    path.write_text(_line(4))
    assert [event.place[1] for event in log.read()] == [4]


def test_of_a_flood_only_the_end_is_read(tmp_path: Path) -> None:
    """What is old proves nothing."""
    path = tmp_path / "log"
    path.write_text("")
    log = EventLog(str(path))
    log.read()
    path.write_text(_line(1) + "x" * MAX_BYTES + "\n" + _line(2))
    assert [event.place[1] for event in log.read()] == [2]


@pytest.mark.parametrize(
    "line",
    [b"", b"nonsense", b"[]", b"7", b"{}", _line(action="UNEJECT").encode(), _line(enforced=False).encode(),
     _line(upstream_url="unix:///x").encode(), b"\xff"],
)  # fmt: skip
def test_what_is_no_ejection_is_passed_over(line: bytes) -> None:
    """Also what Envoy only would have done."""
    assert parse(line) is None


def test_an_ejection_says_who_and_why() -> None:
    """Its own words, and ours where they can be told."""
    event = parse(_line(type="CONSECUTIVE_LOCAL_ORIGIN_FAILURE", upstream_url="[::1]:80").encode())
    assert event is not None
    assert (event.place, event.symptom, event.number) == (("::1", 80), Symptom.CONNECT_REFUSED, 2)
