"""reports.py: when the control center is told that a server is dead, and when that it is well again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Failure, Pool, Recovery, Server, Standing, Symptom
from gateway.reports import MAX_DETAIL, ReportPolicy, Reports

POLICY = ReportPolicy(failures=3, within_seconds=5, repeat_seconds=5, clear_seconds=10)
WALL = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def server(instance: str = "n/a", generation: int = 1, service: str = "cart", **more: Any) -> Server:
    values: dict[str, Any] = {"address": "10.0.0.1", "port": 1, "weight": 100, "full_weight": 100} | more
    return Server(service=service, instance=instance, generation=generation, **values)


def pools(*servers: Server) -> dict[str, Pool]:
    services = {each.service for each in servers}
    return {name: Pool(name, 1, "e", tuple(each for each in servers if each.service == name)) for name in services}


DRAINING = server(standing=Standing.DRAINING, weight=0)
POOLS = pools(server(), server("n/b"), server("n/x", service="other"))
NEW_LIFE = pools(server(generation=2))


def failure(
    *, down: bool = False, count: int = 1, detail: str = "", symptom: Symptom = Symptom.CONNECT_REFUSED
) -> Failure:
    return Failure("cart", "n/a", 1, symptom, count, down, detail)


def recovery() -> Recovery:
    return Recovery("cart", "n/a", 1)


def noted(*times: float, down: bool = False) -> Reports:
    """Failures at these instants; the wall clock is ahead by WALL."""
    reports = Reports(POLICY)
    for now in times:
        reports.note(failure(down=down), "edge", now, WALL + now)
    return reports


def states(reports: Reports, now: float, among: dict[str, Pool] | None = None) -> list[str]:
    return [each["state"] for each in reports.due(POOLS if among is None else among, now)]


# Dead.


def test_some_failures_in_a_short_time_make_a_report() -> None:
    """It says which life of which server, what it is like, since when, and how many others there are."""
    reports = noted(0, 1)
    assert states(reports, 1) == []
    reports.note(failure(symptom=Symptom.RESPONSE_TIMEOUT, detail="after 3 s"), "edge", 2, WALL + 2)
    assert reports.due(POOLS, 2) == [
        {
            "service": "cart", "instance": "n/a", "generation": 1, "symptom": "response_timeout", "count": 3,
            "first_seen": "2027-01-15T08:00:00.000Z", "state": "dead", "detail": "after 3 s",
            "backends": 3, "service_backends": 2,
        }
    ]  # fmt: skip


def test_failures_far_from_each_other_make_none() -> None:
    """And are forgotten; the moment of the first one that counts is told."""
    reports = noted(0, 4, 6)
    assert states(reports, 6) == []
    reports.note(failure(), "edge", 8, WALL + 8)
    assert [(each["count"], each["first_seen"]) for each in reports.due(POOLS, 8)] == [(3, "2027-01-15T08:00:04.000Z")]
    reports = noted(0)
    assert not reports.is_idle
    assert (states(reports, 5), reports.is_idle) == ([], True)


def test_several_failures_found_at_once_count_as_many() -> None:
    """A gateway's counters tell how many there were."""
    reports = Reports(POLICY)
    reports.note(failure(count=3), "edge", 0, WALL)
    assert reports.due(POOLS, 0)[0]["count"] == 3


def test_what_a_gateway_has_taken_out_is_reported_at_once() -> None:
    """One finding is enough."""
    assert states(noted(0, down=True), 0) == ["dead"]


def test_it_is_said_until_it_is_confirmed_and_then_now_and_then() -> None:
    """As long as it is true; the count goes on."""
    reports = noted(0, down=True)
    told = reports.due(POOLS, 0)
    assert states(reports, 1) == ["dead"]
    reports.confirm(told, 1)
    assert states(reports, 5.9) == []
    reports.note(failure(), "edge", 5.9, WALL)
    assert reports.due(POOLS, 6)[0]["count"] == 2
    assert reports.current(POOLS)[0]["count"] == 2


# Well again.


def test_a_server_that_is_well_for_a_while_is_cleared_until_somebody_has_heard() -> None:
    """Then there is nothing more to say."""
    reports = noted(0, 1, 2)
    reports.confirm(reports.due(POOLS, 2), 2)
    assert states(reports, 11.9) == ["dead"]
    assert states(reports, 12) == ["cleared"]
    assert reports.current(POOLS) == []
    told = reports.due(POOLS, 20)
    assert [each["state"] for each in told] == ["cleared"]
    reports.confirm(told, 20)
    assert (states(reports, 20), reports.is_idle) == ([], True)


def test_what_nobody_was_told_needs_no_clearing() -> None:
    """Nothing was due before it was over."""
    reports = noted(0, 1, 2)
    assert (states(reports, 30), reports.is_idle) == ([], True)


def test_who_is_down_is_not_cleared_by_silence() -> None:
    """Nothing fails there, because nothing is sent there."""
    reports = noted(0, down=True)
    assert states(reports, 1000) == ["dead"]
    reports.note(recovery(), "edge", 1001, WALL)
    assert states(reports, 1001) == ["cleared"]


def test_a_good_answer_now_and_then_clears_nothing() -> None:
    """Half of its answers fail: that is no recovery."""
    reports = noted(0, 1, 2)
    assert states(reports, 2) == ["dead"]
    for now in range(3, 30):
        reports.note(recovery() if now % 2 else failure(), "edge", now, WALL)
    assert states(reports, 30) == ["dead"]


def test_a_recovery_of_nothing_is_nothing() -> None:
    """Gateways say so when they start."""
    reports = Reports(POLICY)
    reports.note(recovery(), "edge", 0, WALL)
    assert reports.is_idle
    assert (reports.due(POOLS, 0), reports.current(POOLS)) == ([], [])


def test_it_is_down_as_long_as_one_gateway_says_so() -> None:
    """Of two, one may reach it again before the other. One that is away says nothing any more."""
    reports = noted(0, down=True)
    reports.note(failure(down=True), "mesh", 1, WALL)
    reports.note(recovery(), "mesh", 2, WALL)
    assert states(reports, 30) == ["dead"]
    reports.lose("edge")
    assert states(reports, 30) == ["cleared"]


def test_a_server_that_fails_again_before_its_clearing_was_heard_is_dead_again() -> None:
    """One failure does not withdraw the clearing; enough of them do."""
    reports = noted(0, 1, 2)
    cleared = reports.due(POOLS, 2) and reports.due(POOLS, 12)
    reports.note(failure(), "edge", 13, WALL)
    assert states(reports, 13) == ["cleared"]
    for now in (14, 15):
        reports.note(failure(), "edge", now, WALL)
    assert states(reports, 15) == ["dead"]
    reports.confirm(cleared, 15)  # it was on its way
    assert states(reports, 15) == ["dead"]


def test_what_was_cleared_and_fails_again_without_being_told_needs_no_second_clearing() -> None:
    """Nobody was told a second time that it is dead."""
    reports = noted(0, 1, 2)
    cleared = reports.due(POOLS, 2) and reports.due(POOLS, 12)
    reports.note(failure(), "edge", 13, WALL)
    reports.confirm(cleared, 13)
    for now in (14, 15):
        reports.note(failure(), "edge", now, WALL)
    assert (states(reports, 40), reports.is_idle) == ([], True)


def test_failures_since_its_clearing_was_said_still_count_when_that_is_heard() -> None:
    """They are of a new story."""
    reports = noted(0, 1, 2)
    cleared = reports.due(POOLS, 2) and reports.due(POOLS, 12)
    for now in (13, 14):
        reports.note(failure(), "edge", now, WALL + now)
    reports.confirm(cleared, 14)
    assert states(reports, 14) == []
    reports.note(failure(), "edge", 15, WALL + 15)
    assert [(each["state"], each["count"]) for each in reports.due(POOLS, 15)] == [("dead", 3)]


# Of whom nothing is said.


@pytest.mark.parametrize("now_there", [pools(server("n/b")), NEW_LIFE, {}], ids=["gone", "in a new life", "no service"])
def test_who_is_not_there_any_more_is_forgotten_without_a_word(now_there: dict[str, Pool]) -> None:
    """Nobody can act on it; a confirmation that is late does no harm."""
    reports = noted(0, down=True)
    told = reports.due(POOLS, 0)
    assert (states(reports, 1, now_there), reports.is_idle) == ([], True)
    reports.confirm(told, 1)
    assert states(reports, 2) == []


def test_who_drains_is_not_reported_as_long_as_it_drains() -> None:
    """It is on its way out."""
    reports = noted(0, down=True)
    assert states(reports, 1, pools(DRAINING)) == []
    assert states(reports, 2) == ["dead"]


def test_what_a_gateway_says_of_it_is_made_fit_to_be_sent() -> None:
    """It may hold anything that was in a log."""
    reports = Reports(POLICY)
    reports.note(failure(down=True, detail="\0\ud800é" + "x" * 5000), "edge", 0, WALL)
    detail = reports.due(POOLS, 0)[0]["detail"]
    assert (detail[:3], len(detail)) == ("??é", MAX_DETAIL)


STEPS = st.tuples(
    st.sampled_from(["fail", "fail", "down", "recover", "heard", "lost", "drain", "leave"]),
    st.sampled_from([0, 1, 6, 11]),
)


@given(st.lists(STEPS, max_size=25))
def test_whatever_happens_what_is_told_is_true(steps: list[tuple[str, float]]) -> None:
    """Dead only with failures not long ago or while it is down; cleared only after dead; in the end all is quiet."""
    reports, now, last, is_down, heard_of_dead = Reports(POLICY), 0.0, -1000.0, False, False
    for what, pause in steps:
        now += pause
        among = {"drain": pools(DRAINING), "leave": {}}.get(what, POOLS)
        if what in ("fail", "down"):
            reports.note(failure(down=what == "down"), "edge", now, WALL + now)
            last, is_down = now, is_down or what == "down"
        elif what == "recover":
            reports.note(recovery(), "edge", now, WALL + now)
            is_down = False
        due = reports.due(among, now)
        if what == "leave":
            is_down = heard_of_dead = False
        for each in due:
            assert what not in ("drain", "leave")
            if each["state"] == "dead":
                assert is_down or now - last < POLICY.clear_seconds
                heard_of_dead = True
            else:
                assert heard_of_dead and not is_down
        if what == "heard":
            reports.confirm(due, now)
    reports.note(recovery(), "edge", now, WALL)
    reports.confirm(reports.due(POOLS, now + 100), now + 100)
    assert (reports.due(POOLS, now + 100), reports.is_idle) == ([], True)
