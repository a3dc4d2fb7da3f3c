"""What another daemon would make of units: who goes on, who would notice, and what stands against it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from supervisor.core import upgrade
from supervisor.core.doctor import OK, PROBLEM, UNKNOWN, WARNING, Finding
from supervisor.core.model import Phase, Unit, UnitSpec
from supervisor.core.stored import to_plain
from supervisor.core.upgrade import Kept

BOOT = "this-boot"
SPEC = UnitSpec("web", "web", 0, ("/bin/serve",))
RUNNING = Unit(phase=Phase.RUNNING, wanted=True, attempt=3, live=True, pid=42)


def kept(
    unit: Unit = RUNNING, spec: UnitSpec = SPEC, *, leader: int | None = 42, others: tuple[int, ...] = (), **more: Any
) -> Kept:
    """What the journal holds of a unit; keywords replace members of the record."""
    record = {"unit": to_plain(unit), "since": 1.0, "boot": BOOT, "due": None, "started_wall": 1.0, **more}
    return Kept(json.dumps(record), json.dumps(to_plain(spec)), leader, others)


def judged(each: Kept) -> Finding:
    """What becomes of a unit of which that is known."""
    [finding] = upgrade.judge_units({"web": each}, BOOT).findings
    return finding


def test_a_unit_whose_process_lives_goes_on_with_it() -> None:
    verdicts = upgrade.judge_units({"web": kept()}, BOOT)
    [finding] = verdicts.findings
    assert finding.outcome == OK and "process 42" in finding.message
    assert verdicts.bound == {"web": SPEC}


def test_a_unit_without_a_process_stays_as_it_is_and_is_bound_to_nothing() -> None:
    verdicts = upgrade.judge_units({"web": kept(Unit(phase=Phase.FATAL), leader=None)}, BOOT)
    assert verdicts.findings[0].outcome == OK and not verdicts.bound


def test_a_unit_whose_entry_may_be_registered_is_bound_to_its_spec_without_a_process() -> None:
    gone = Unit(phase=Phase.BACKOFF, wanted=True, published=True)
    assert upgrade.judge_units({"web": kept(gone, leader=None)}, BOOT).bound == {"web": SPEC}


@pytest.mark.parametrize("others", [(), (43,)])
def test_a_process_that_has_ended_is_no_fault_of_the_upgrade(others: tuple[int, ...]) -> None:
    assert judged(kept(leader=None, others=others)).outcome == WARNING


@pytest.mark.parametrize(
    "broken",
    [
        Kept(None, None, 42),
        Kept(None, None, None, (43,)),
        Kept("{", "{}", 42),
        Kept("[]", "{}", 42),
        Kept('{"boot": "this-boot"}', "{}", 42),
        replace(kept(), spec=None),
        kept(unit={"phase": "levitating"}),
        kept(unit={**to_plain(RUNNING), "member_of_a_later_version": 1}),
    ],
)
def test_a_process_of_which_nothing_can_be_read_would_be_restarted(broken: Kept) -> None:
    finding = judged(broken)
    assert finding.outcome == PROBLEM
    assert "started again" in finding.message and "unitctl restart web" in finding.action


def test_what_an_earlier_boot_has_left_is_nothing() -> None:
    assert judged(kept(leader=None, boot="another")).outcome == OK
    assert judged(kept(leader=42, boot="another")).outcome == PROBLEM


def test_units_that_are_well_are_counted_and_the_others_come_first() -> None:
    every = {f"web:{number}": kept() for number in range(5)} | {
        "db": kept(Unit(), leader=None),
        "odd": Kept(None, None, 7),
    }
    findings = upgrade.judge_units(every, BOOT).findings
    first, second = upgrade.sum_up(findings, each=False)
    assert (first.subject, first.outcome) == ("odd", PROBLEM)
    assert second.message == "going on with the processes that they have: 5; without one, as before: 1"
    assert len(upgrade.sum_up(findings, each=True)) == 7
    assert [finding.outcome for finding in upgrade.sum_up((), each=False)] == [OK]


def test_what_the_files_would_do_to_units_is_told() -> None:
    new = {
        "same": SPEC,
        "live": replace(SPEC, stopwaitsecs=77.0),
        "other": replace(SPEC, argv=("/bin/other",)),
        "fresh": SPEC,
        "idle": replace(SPEC, autostart=False),
        "known": SPEC,
    }
    new = {name: replace(spec, name=name, group=name) for name, spec in new.items()}
    bound = dict.fromkeys(("same", "live", "other", "gone"), SPEC)
    bound = {name: replace(spec, name=name, group=name) for name, spec in bound.items()}
    findings = {finding.subject: finding for finding in upgrade.judge_plan(bound, {*bound, "known"}, new)}
    assert {name: finding.outcome for name, finding in findings.items()} == {
        "live": OK, "other": PROBLEM, "gone": PROBLEM, "fresh": WARNING,
    }  # fmt: skip
    assert "command" in findings["other"].message and "stopwaitsecs" in findings["live"].message


def test_files_that_change_nothing_are_well() -> None:
    [finding] = upgrade.judge_plan({"web": SPEC}, {"web"}, {"web": SPEC})
    assert finding.outcome == OK


@pytest.mark.parametrize(
    ("written", "changed", "outcome"),
    [
        ("leave", (), OK),
        ("leave", ("sigterm",), PROBLEM),  # written since it was started
        ("stop", (), PROBLEM),
        ("stop", ("sigterm", "node"), OK),
        ("leave", None, UNKNOWN),
    ],
)
def test_sigterm_counts_as_the_daemon_runs_with_it(written: str, changed: tuple[str, ...] | None, outcome: str) -> None:
    finding = upgrade.judge_sigterm(written, changed)
    assert finding.outcome == outcome
    assert bool(finding.action) is (outcome != OK)


def test_another_state_folder_would_lose_the_units() -> None:
    assert upgrade.judge_state_dir(()) is None and upgrade.judge_state_dir(None) is None
    moved = upgrade.judge_state_dir(("state_dir",))
    assert moved is not None and moved.outcome == PROBLEM


@pytest.mark.parametrize(
    ("mode", "inside", "outcome"),
    [("process", ["web"], OK), ("none", ["web"], OK), ("mixed", [], OK), ("mixed", ["web"], PROBLEM),
     ("control-group", ["web"], PROBLEM)],
)  # fmt: skip
def test_systemd_must_leave_units_alone(mode: str, inside: list[str], outcome: str) -> None:
    [finding] = upgrade.judge_manager("unitd.service", {"KillMode": mode, "NeedDaemonReload": "no"}, inside)
    assert finding.outcome == outcome


def test_a_service_file_that_was_not_read_again_is_a_warning() -> None:
    findings = upgrade.judge_manager("unitd.service", {"KillMode": "process", "NeedDaemonReload": "yes"}, [])
    assert [finding.outcome for finding in findings] == [OK, WARNING]


@pytest.mark.parametrize("running", [None, "0.1.0", "0.0.9"])
def test_both_versions_are_told(running: str | None) -> None:
    said = upgrade.judge_versions("0.1.0", running, 42 if running else None).message
    assert "0.1.0" in said and (running or "no unitd runs") in said


def test_ready_is_what_nothing_stands_against() -> None:
    def finding(outcome: str) -> Finding:
        return Finding(outcome, "check", "subject", "message")

    assert upgrade.is_ready([finding(OK), finding(WARNING)])
    assert not upgrade.is_ready([finding(OK), finding(PROBLEM)])
    assert not upgrade.is_ready([finding(OK), finding(UNKNOWN)])
