"""The reference page of the HTTP API tells of every field, verb and key of a command, and of none that does not exist."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from supervisor import wire

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "http-api.md"


def tables() -> list[set[str]]:
    """The code in the first column of each table."""
    found = []
    for block in PAGE.read_text().split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("| `")]
        found.append({name for row in rows for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])})
    return [table for table in found if table]


@pytest.mark.parametrize(
    "kind",
    [
        wire.UnitStatus, wire.LeaseStatus, wire.ExitStatus, wire.ProbeStatus, wire.MaintenanceStatus, wire.Operation,
        wire.Step, wire.Command,
    ],
)  # fmt: skip
def test_a_message_has_a_table_with_exactly_its_fields(kind: type) -> None:
    assert {field.name for field in fields(kind)} in tables()  # type: ignore[arg-type]


def test_the_verbs_have_a_table_of_their_parameters() -> None:
    assert set(wire.VERBS) in tables()


def test_every_step_is_told() -> None:
    from supervisor.agents import operations

    made = {name for name, _ in operations._STEP_OF_PHASE.values()} | set(operations._STEP_WORDS) | {"resume", "none"}
    assert made in tables()


def test_every_state_of_an_operation_is_told() -> None:
    text = PAGE.read_text()
    assert all(f"`{state}`" in text for state in wire.OPERATION_STATES)
