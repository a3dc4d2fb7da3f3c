"""What the doctor thinks of facts: each judgement has a fact that makes it good, and one that makes it bad."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.core import doctor
from supervisor.core.doctor import OK, PROBLEM, WARNING, Held
from supervisor.core.model import DrainSpec, RestartPolicy, ServiceSpec, UnitSpec

GIB = 1024**3


def unit(
    name: str, *, service: bool = True, depends_on: tuple[str, ...] = (), settle: float = 0.5, **more: Any
) -> UnitSpec:
    return UnitSpec(
        name, name.partition(":")[0], 0, ("true",), depends_on=depends_on,
        service=ServiceSpec(name, "127.0.0.1", 80) if service else None,
        restart=RestartPolicy(settle_seconds=settle), **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00002, "0.02 ms"), (0.0012, "1.2 ms"), (0.34, "340 ms"), (0.9996, "1.0 s"), (12.5, "12.5 s")],
)
def test_lengths_of_time_are_short_and_never_rounded_to_nothing(seconds: float, text: str) -> None:
    assert doctor.span(seconds) == text


def test_an_answer_within_half_of_the_calls_limit_is_fast_enough() -> None:
    found = doctor.judge_latency("registry main", "consul 1.8.7 at x", [0.0009, 0.0012, 0.0021], 1.0)
    assert (found.outcome, found.message) == (OK, "consul 1.8.7 at x, 1.2 ms (0.9 to 2.1)")


def test_a_registry_that_needs_more_than_half_of_the_calls_limit_is_slow() -> None:
    found = doctor.judge_latency("registry main", "consul", [0.1, 1.2, 0.2], 2.0)
    assert found.outcome == WARNING and found.action
    assert "200 ms (100 ms to 1.2 s)" in found.message


def test_a_call_of_a_sixth_of_the_ttl_leaves_room_for_one_that_is_lost() -> None:
    assert doctor.judge_ttl("ttl", 15, 15, 2.5, 0.01, 15.3).outcome == OK


@pytest.mark.parametrize(("timeout", "outcome"), [(5.0, OK), (8.0, WARNING), (14.0, PROBLEM)])
def test_a_call_that_may_take_too_much_of_the_ttl_loses_the_lease(timeout: float, outcome: str) -> None:
    found = doctor.judge_ttl("ttl", 15, 15, timeout, 0.01, 15.3)
    assert found.outcome == outcome
    assert outcome == OK or "2.5 s" in found.action


@pytest.mark.parametrize(("granted", "words"), [(20.0, "longer"), (8.0, "earlier")])
def test_another_ttl_than_was_asked_for_is_told(granted: float, words: str) -> None:
    found = doctor.judge_ttl("ttl", 10, granted, 1.0, 0.01, 21)
    assert found.outcome == WARNING and words in found.message


def test_settling_must_be_longer_than_the_slowest_answer() -> None:
    units = [unit("a", settle=0.2), unit("b", settle=1.0), unit("job", service=False)]
    found = doctor.judge_settle(units, 0.3)
    assert found is not None and found.outcome == WARNING and found.message.startswith("a: ")
    good = doctor.judge_settle(units, 0.1)
    assert good is not None and good.outcome == OK
    assert doctor.judge_settle([unit("job", service=False)], 9.0) is None


def test_a_clock_that_is_away_by_more_than_can_be_doubted_is_told() -> None:
    assert doctor.judge_clock("clock", 1000.0, 1.0, 1000.4, 1000.5).outcome == OK
    ahead = doctor.judge_clock("clock", 1060.0, 1.0, 1000.4, 1000.6)
    assert ahead.outcome == WARNING and "60.0 s ahead" in ahead.message
    behind = doctor.judge_clock("clock", 940.0, 0.0, 1000.0, 1000.0)
    assert behind.outcome == WARNING and "60.0 s behind" in behind.message


def test_a_slow_answer_is_no_proof_against_a_clock() -> None:
    assert doctor.judge_clock("clock", 1000.0, 0.0, 1000.0, 1004.0).outcome == OK


@pytest.mark.parametrize(
    ("now", "outcome", "word"), [(0.5, OK, "not set"), (90.0, WARNING, "forward"), (-90.0, WARNING, "back")]
)
def test_a_clock_that_was_set_is_told(now: float, outcome: str, word: str) -> None:
    found = doctor.judge_jump(0.0, now)
    assert found.outcome == outcome and word in found.message


def test_entries_that_units_hold_are_not_stale() -> None:
    mine = Held("cart", "n/cart", "cart", 3)
    (found,) = doctor.judge_entries(
        "registry", [mine], [mine, Held("cart", "n/other", "other", 1)], 5.0, can_delete=True
    )
    assert found.outcome == OK and "1 of this node" in found.message


@pytest.mark.parametrize(("can_delete", "by_hand"), [(True, True), (False, False)])
def test_an_entry_of_an_older_generation_or_of_no_unit_is_stale_and_goes_by_itself(
    can_delete: bool, by_hand: bool
) -> None:
    found = doctor.judge_entries(
        "registry", [Held("cart", "n/cart", "cart", 2), Held("gone", "n/gone", "gone", 9)],
        [Held("cart", "n/cart", "cart", 3)], 5.3, can_delete=can_delete,
    )  # fmt: skip
    assert [item.outcome for item in found] == [WARNING, WARNING]
    assert "n/cart of cart (generation 2)" in found[0].message
    assert all("5.3 s" in item.action and ("delete" in item.action) is by_hand for item in found)


def test_an_entry_of_a_newer_generation_is_another_daemons() -> None:
    known = [Held("cart", "n/cart", "cart", 3), Held("cart", "n/cart", "cart", 2)]
    (found,) = doctor.judge_entries("registry", [Held("cart", "n/cart", "cart", 7)], known, 5.0, can_delete=True)
    assert found.outcome == PROBLEM and "node name" in found.action


def test_units_that_serve_and_are_nowhere_are_a_problem() -> None:
    assert doctor.judge_missing("registry", {}).outcome == OK
    found = doctor.judge_missing("registry", dict.fromkeys("abcde", "not registered: permission denied"))
    assert found.outcome == PROBLEM and found.action == "unitctl why a"
    assert found.message.startswith("a, b, c and 2 more serve") and "permission denied" in found.message


def test_the_way_out_is_everything_that_is_waited_for() -> None:
    drained = unit("web", stopwaitsecs=7.0, drain=DrainSpec(timeout=20.0))
    assert doctor.way_out(drained, 10.5) == 7.0 + 10.5 + 10.0 + 0.5 + 20.0
    assert doctor.way_out(unit("web", stopwaitsecs=7.0), 10.5) == 7.0 + 10.5 + 10.0 + 0.5 + 30.0
    assert doctor.way_out(unit("job", service=False, stopwaitsecs=7.0), 10.5) == 7.0


def test_units_go_after_those_that_depend_on_them() -> None:
    specs = {
        name: unit(name, service=False, stopwaitsecs=seconds, depends_on=needs)
        for name, seconds, needs in (
            ("db", 5.0, ()),
            ("api", 10.0, ("db", "cache")),
            ("cache", 1.0, ()),
            ("web", 2.0, ("api", "db")),
            ("alone", 9.0, ()),
        )
    }
    assert doctor.longest_way_out(specs, {}) == (17.0, ("web", "api", "db"))
    assert doctor.longest_way_out({}, {}) == (0.0, ())


def test_a_very_long_chain_of_dependencies_has_an_end() -> None:
    specs = {
        f"u{n}": unit(f"u{n}", service=False, stopwaitsecs=1.0, depends_on=(f"u{n - 1}",) if n else ())
        for n in range(5000)
    }
    assert doctor.longest_way_out(specs, {})[0] == 5000.0


@pytest.mark.parametrize(("limit", "outcome"), [(None, OK), (90.0, OK), (30.0, PROBLEM)])
def test_systemd_must_wait_longer_than_the_longest_way_out(limit: float | None, outcome: str) -> None:
    found = doctor.judge_stop_limit(limit, 60.0, ["web", "db"])
    assert found.outcome == outcome
    assert outcome == OK or ("TimeoutStopSec=82" in found.action and "web then db" in found.message)


@pytest.mark.parametrize(
    ("setting", "home", "controllers", "limited", "outcome"),
    [
        ("auto", "/sys/fs/cgroup/x", ("memory", "pids"), ("a",), OK),
        ("auto", "/sys/fs/cgroup/x", (), (), OK),
        ("auto", "/sys/fs/cgroup/x", ("memory",), ("a",), PROBLEM),
        ("auto", None, (), (), WARNING),
        ("auto", None, (), ("a",), PROBLEM),
        ("/sys/fs/cgroup/x", None, (), (), PROBLEM),
        ("off", None, (), (), OK),
        ("off", None, (), ("a",), PROBLEM),
    ],
)
def test_missing_cgroups_matter_as_much_as_what_is_lost(
    setting: str, home: str | None, controllers: tuple[str, ...], limited: tuple[str, ...], outcome: str
) -> None:
    found = doctor.judge_cgroup(setting, home, controllers, limited)
    assert found.outcome == outcome
    assert bool(found.action) is (outcome != OK)


@pytest.mark.parametrize(("limit", "outcome"), [(None, OK), (65536, OK), (4500, WARNING), (1024, PROBLEM)])
def test_open_files_must_suffice_for_all_units(limit: int | None, outcome: str) -> None:
    found = doctor.judge_descriptors(limit, 30, 1000)
    assert found.outcome == outcome and "1000 units" in found.message


def test_open_files_that_are_used_up_are_a_problem_with_few_units_as_well() -> None:
    assert doctor.judge_descriptors(1024, 1020, 1).outcome == WARNING


@pytest.mark.parametrize(("limit", "outcome"), [(None, OK), (5000, OK), (1300, WARNING), (1000, PROBLEM)])
def test_processes_must_suffice_for_all_units(limit: int | None, outcome: str) -> None:
    assert doctor.judge_processes("pids.max", limit, 700, 500).outcome == outcome


@pytest.mark.parametrize(
    ("free", "inodes", "writable", "outcome"),
    [
        (GIB, 5000, True, OK), (GIB, None, True, OK), (100 << 20, 5000, True, WARNING), (1 << 20, 5000, True, PROBLEM),
        (GIB, 500, True, WARNING), (GIB, 3, True, PROBLEM), (GIB, 5000, False, PROBLEM),
    ],
)  # fmt: skip
def test_a_folder_needs_room_inodes_and_the_right_to_write(
    free: int, inodes: int | None, writable: bool, outcome: str
) -> None:
    found = doctor.judge_room("log_dir", "/var/log/unitd", free, inodes, writable=writable)
    assert found.outcome == outcome and "/var/log/unitd" in found.message
    assert bool(found.action) is (outcome != OK)


def test_one_unit_is_no_units() -> None:
    assert [doctor.units_of(count) for count in (0, 1, 2)] == ["0 units", "1 unit", "2 units"]
