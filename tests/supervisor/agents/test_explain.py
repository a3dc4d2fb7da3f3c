"""What a unit's state rests on, in lines for people."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor.agents.explain import details
from supervisor.wire import ExitStatus, MaintenanceStatus, Operation, ProbeStatus, Step, UnitStatus

UNIT = UnitStatus(
    unit="web", service="web", state="RUNNING", wanted="up", phase="running", ready=True, live=True, pid=1,
    generation=2, uptime_seconds=3.0, weight=40, full_weight=100, lease=None, in_flight=0, restarts=0, last_exit=None,
    operation=None, why="serving",
)  # fmt: skip
STATE = "state: RUNNING, wanted up, generation 2"


def an_operation(id_: str, state: str = "succeeded", error: str | None = None, by: str = "ann") -> Operation:
    return Operation(
        id_, "c", "web", "stop", state, [Step("gone", "succeeded", detail="1 s of 2 s"), Step("drain", "running")],
        error, issued_by=by, created="T",
    )  # fmt: skip


def test_of_a_unit_that_simply_runs_there_is_little_to_say() -> None:
    assert details(UNIT, []) == [STATE]


def test_every_fact_has_its_line() -> None:
    unit = replace(
        UNIT, maintenance=MaintenanceStatus("ops", "disk", "T1", "T2"), warmup="fixed at 40 of 100",
        last_exit=ExitStatus(1, None, "T3", "exited with code 1"),
    )  # fmt: skip
    assert details(unit, []) == [
        STATE,
        "maintenance: kept out of traffic by ops since T1, until T2: disk",
        "weight: fixed at 40 of 100",
        "last exit: exited with code 1 (at T3)",
    ]


def test_a_maintenance_of_nobody_without_an_end_says_so() -> None:
    [_, line] = details(replace(UNIT, maintenance=MaintenanceStatus("", "", "T1", None)), [])
    assert line == "maintenance: kept out of traffic since T1, until it is undrained"


@pytest.mark.parametrize(
    ("ok", "streak", "seconds_ago", "detail", "words"),
    [
        (True, 12, 0.44, "200", "ok, 12 successes in a row, the last 0.4 s ago: 200"),
        (True, -1, 1.0, "", "ok, 1 failure in a row, the last 1.0 s ago"),
        (False, -3, 2.0, "503", "failed, 3 failures in a row, the last 2.0 s ago: 503"),
        (False, 1, 2.0, "", "failed, 1 success in a row, the last 2.0 s ago"),
        (None, -2, 2.0, "", "undecided, 2 failures in a row, the last 2.0 s ago"),
        (None, 0, None, "", "undecided, not answered yet"),
    ],
)
def test_a_probe_says_whether_it_holds_and_what_it_was_told_last(
    ok: bool | None, streak: int, seconds_ago: float | None, detail: str, words: str
) -> None:
    unit = replace(UNIT, probes=[ProbeStatus("readiness", "http", ok, streak, detail, seconds_ago)])
    assert details(unit, []) == [STATE, f"probe: readiness (http): {words}"]


def test_the_newest_operation_and_those_that_go_on_come_with_their_steps() -> None:
    operations = [
        an_operation("op-1"), an_operation("op-2", "running"), an_operation("op-3", "failed", "it hangs"),
        an_operation("op-4", by=""),
    ]  # fmt: skip
    steps = ["  gone succeeded: 1 s of 2 s", "  drain running"]
    assert details(UNIT, operations) == [
        STATE,
        "ordered: stop by ann at T: running", *steps,
        "ordered: stop by ann at T: it hangs",
        "ordered: stop at T: succeeded", *steps,
    ]  # fmt: skip
