"""The daemon's JSON to messages."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.errors import WireError
from supervisor.unitctl import decode
from supervisor.wire import (
    ExitStatus,
    LeaseStatus,
    MaintenanceStatus,
    Operation,
    PlanItem,
    ProbeStatus,
    Step,
    UnitStatus,
    to_json,
)

UNIT = UnitStatus(
    unit="a", service="s", state="RUNNING", wanted="up", phase="running", ready=True, live=True, pid=1, generation=2,
    uptime_seconds=3.0, weight=4, full_weight=5, lease=LeaseStatus("held", 10.0, 1.0), in_flight=0, restarts=6,
    last_exit=ExitStatus(1, None, "t", "exited with 1"), operation=None, why="serving", warmup="warming",
    probes=[ProbeStatus("readiness", "http", False, -3, "503", 0.4)],
    maintenance=MaintenanceStatus("ops", "disk", "t", None),
)  # fmt: skip
OPERATION = Operation("op-1", "c", "a", "start", "running", [Step("spawn", "running", "t")])


def test_messages_survive_the_way_over_the_wire() -> None:
    assert decode.unit_statuses([to_json(UNIT)]) == [UNIT]
    assert decode.operations([to_json(OPERATION)]) == [OPERATION]
    assert decode.plan_items([{"unit": "a", "effect": "live", "keys": ["user"]}]) == [PlanItem("a", "live", ("user",))]


def test_keys_of_a_newer_daemon_are_passed_over() -> None:
    assert decode.unit_statuses([{**to_json(UNIT), "mood": "good"}]) == [UNIT]


@pytest.mark.parametrize("key", ["state", "lease", "last_exit", "maintenance", "probes"])
def test_a_missing_key_is_an_error_that_names_it(key: str) -> None:
    item = to_json(UNIT)
    del item[key]
    with pytest.raises(WireError, match=f"UnitStatus lacks '{key}'"):
        decode.unit_statuses([item])


@pytest.mark.parametrize("probes", [None, [3], [{}], {"a": 1}])
def test_probes_that_are_none_are_an_error(probes: Any) -> None:
    with pytest.raises(WireError):
        decode.unit_statuses([{**to_json(UNIT), "probes": probes}])


@pytest.mark.parametrize("steps", [None, [3], [{}], {"a": 1}])
def test_steps_that_are_none_are_an_error(steps: Any) -> None:
    with pytest.raises(WireError):
        decode.operations([{**to_json(OPERATION), "steps": steps}])


@pytest.mark.parametrize("answer", [None, [], {}, {"units": None}, {"units": ["a"]}])
def test_an_answer_without_the_list_is_an_error(answer: Any) -> None:
    with pytest.raises(WireError, match="no list 'units'"):
        decode.raw_list(answer, "units")
