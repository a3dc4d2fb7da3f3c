"""Messages of the control API: decoded strictly, encoded so that everybody can read them."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor import wire
from supervisor.errors import WireError
from supervisor.wire import (
    Command,
    ExitStatus,
    LeaseStatus,
    MaintenanceStatus,
    Operation,
    PlanItem,
    ProbeStatus,
    Step,
    UnitStatus,
)


@pytest.mark.parametrize("body", [b"", b"  \n", b"{}"])
def test_an_empty_body_is_a_command_with_nothing_said(body: bytes) -> None:
    assert wire.decode_command(body) == Command()


def test_every_field_of_a_command_is_read_and_null_is_absent() -> None:
    said: dict[str, Any] = {
        "command_id": "c1", "deadline": "2027-01-01T00:00:00Z", "reason": "deploy", "issued_by": "ann",
        "parameters": {"force": True}, "expected_generation": 0, "center": "c", "epoch": 3,
    }  # fmt: skip
    assert wire.decode_command(json.dumps(said).encode()) == Command(**said)
    assert wire.decode_command(json.dumps(dict.fromkeys(said)).encode()) == Command()
    assert set(said) == {field.name for field in fields(Command)}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "cannot read the body: it is not JSON ("),
        (b"\xff\xfe{}", "cannot read the body: it is not JSON ("),
        (b"[" * 100_000, "cannot read the body: it is not JSON ("),
        (b"[]", "cannot read the command: its body must be a JSON object"),
        (b'"start"', "cannot read the command: its body must be a JSON object"),
        (
            b'{"reson": "x"}',
            "cannot read the command: unknown key 'reson'; known: command_id, deadline, reason",
        ),
        (b'{"reason": 1}', "cannot read the command: 'reason' must be a JSON string"),
        (b'{"command_id": ["x"]}', "cannot read the command: 'command_id' must be a JSON string"),
        (b'{"parameters": "x"}', "cannot read the command: 'parameters' must be a JSON object"),
        (b'{"parameters": []}', "cannot read the command: 'parameters' must be a JSON object"),
    ],
)
def test_a_body_that_cannot_be_understood_is_refused_in_words(body: bytes, words: str) -> None:
    with pytest.raises(WireError) as caught:
        wire.decode_command(body)
    assert str(caught.value).startswith(words)


@given(st.binary(max_size=200))
def test_no_bytes_end_in_another_error(body: bytes) -> None:
    with suppress(WireError):
        assert isinstance(wire.decode_command(body), Command)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=9))
def test_what_is_encoded_is_one_line_and_can_be_decoded(value: object) -> None:
    encoded = wire.encode(value)
    assert encoded.count(b"\n") == 1 and encoded.endswith(b"\n")
    assert wire.decode(encoded) == value


def test_text_is_encoded_as_it_is_and_half_a_character_as_its_escape() -> None:
    assert wire.encode("grün 東") == '"grün 東"\n'.encode()
    half = json.loads('"\\ud800"')
    assert wire.encode(half) == b'"\\ud800"\n'
    assert wire.decode(wire.encode({half: half})) == {half: half}


def test_messages_become_plain_values_with_null_for_what_is_absent() -> None:
    operation = Operation("op-1", "c1", "web", "stop", "running", [Step("withdraw", "running", started="t")])
    assert wire.to_json(operation) == {
        "id": "op-1", "command_id": "c1", "unit": "web", "verb": "stop", "state": "running",
        "steps": [{"name": "withdraw", "state": "running", "started": "t", "finished": None, "detail": ""}],
        "error": None, "reason": "", "issued_by": "", "created": "", "finished": None,
        "deadline": None, "cut": None,
    }  # fmt: skip
    assert wire.to_json(PlanItem("web", "restart", ("command", "user"))) == {
        "unit": "web", "effect": "restart", "keys": ["command", "user"],
    }  # fmt: skip


def test_parts_of_a_status_become_plain_values_too() -> None:
    status = UnitStatus(
        "web", "shop", "RUNNING", "up", "running", True, True, 42, 1, 1.5, 10, 100,
        LeaseStatus("held", 10.0, 1.2), None, 0, ExitStatus(None, "SIGKILL", "t", "killed"), None, "serving",
    )  # fmt: skip
    status.probes = [ProbeStatus("readiness", "http", True, 3, "200 OK", 0.5)]
    status.maintenance = MaintenanceStatus("ops", "disk swap", "t", None)
    plain = wire.to_json(status)
    assert plain["probes"] == [
        {"role": "readiness", "kind": "http", "ok": True, "streak": 3, "detail": "200 OK", "seconds_ago": 0.5}
    ]
    assert plain["maintenance"] == {"owner": "ops", "reason": "disk swap", "since": "t", "until": None}
    assert plain["lease"] == {"state": "held", "ttl_seconds": 10.0, "renewed_seconds_ago": 1.2, "registry": None}
    assert plain["last_exit"] == {"code": None, "signal": "SIGKILL", "at": "t", "reason": "killed"}
    assert json.loads(wire.encode(plain)) == plain


@pytest.mark.parametrize("state", wire.OPERATION_STATES)
def test_an_operation_is_done_when_nothing_more_will_happen(state: str) -> None:
    assert Operation("op-1", "c1", "web", "stop", state).done == (state not in ("pending", "running"))


def test_a_problem_has_what_rfc_9457_wants_and_more() -> None:
    assert wire.problem(404, "Not Found", "no unit is called x", nearest=None) == {
        "type": "about:blank", "title": "Not Found", "status": 404, "detail": "no unit is called x", "nearest": None,
    }  # fmt: skip
