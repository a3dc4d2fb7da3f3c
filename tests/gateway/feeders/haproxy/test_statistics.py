"""What counters tell: pure."""

from __future__ import annotations

import pytest

from gateway.feeders.haproxy.statistics import Row, Sight, in_flight, judge, parse_stat, symptom_of
from gateway.model import Failure, Health, Recovery, Symptom
from tests.gateway.feeders.haproxy.scene import server

ME = server(7001)
UP = Row(status="UP", check_status="L4OK", lastchg=60, stot=100, hrsp_2xx=100)
DOWN = Row(status="DOWN", check_status="L4CON", last_chk="Connection refused", stot=100, hrsp_2xx=100)


def findings(now: Row, before: Row | None = UP, *, down: bool = False, who=ME, was=ME, percent: float = 50.0):
    sight = Sight(was, before, down) if before is not None else None
    return judge(who, sight, now, percent)


def row(base: Row = UP, **changes) -> Row:
    return Row(**{name: changes.get(name, getattr(base, name)) for name in Row.__slots__})


def test_columns_are_found_by_their_names() -> None:
    """Other versions have more of them, in the same or another order; texts with commas are quoted."""
    text = '# pxname,svname,scur,status,last_chk,stot,new\ncart,cart-1,3,UP 1/2,"refused, it says",7,x\n\n'
    assert parse_stat(text) == {("cart", "cart-1"): Row(scur=3, status="UP 1/2", last_chk="refused, it says", stot=7)}


@pytest.mark.parametrize("text", ["", "\n", "# pxname,svname\n", "Unknown command\n"])
def test_an_answer_without_servers_is_empty(text: str) -> None:
    """Nothing is made up."""
    assert parse_stat(text) == {}


@pytest.mark.parametrize(
    ("status", "check", "health"),
    [
        ("UP", "L7OK", Health.UP),
        ("UP 1/2", "L4CON", Health.UP),
        ("DOWN", "L4CON", Health.DOWN),
        ("DOWN 1/2", "L4OK", Health.DOWN),
        ("DOWN (agent)", "", Health.DOWN),
        ("DRAIN", "L4OK", Health.UP),
        ("NOLB", "* L7OKC", Health.UP),
        ("DRAIN", "", Health.UNKNOWN),
        ("MAINT", "", Health.UNKNOWN),
        ("no check", "", Health.UNKNOWN),
    ],
)
def test_health_is_what_the_status_says(status: str, check: str, health: Health) -> None:
    """Without checks HAProxy does not say."""
    assert Row(status=status, check_status=check).health is health


def test_down_is_reported_once_and_recovery_when_it_lasts() -> None:
    """A server that was up for a moment only has not recovered, and is not reported as down again."""
    sight, found = findings(DOWN)
    assert found == [
        Failure("cart", ME.instance, 1, Symptom.CONNECT_REFUSED, down=True, detail="L4CON Connection refused")
    ]
    sight, found = judge(ME, sight, DOWN, 50.0)
    assert found == []
    sight, found = judge(ME, sight, row(lastchg=1), 50.0)
    assert found == []
    sight, found = judge(ME, sight, DOWN, 50.0)
    assert found == []
    sight, found = judge(ME, sight, row(lastchg=2), 50.0)
    assert found == [Recovery("cart", ME.instance, 1)]
    assert judge(ME, sight, UP, 50.0)[1] == []


def test_down_at_the_first_look_is_reported() -> None:
    """unit-gateway was not there when it happened."""
    assert findings(DOWN, None)[1][0].down


def test_down_and_up_between_two_looks_is_a_failure() -> None:
    """HAProxy counts it."""
    (failure,) = findings(row(chkdown=2))[1]
    assert (failure.count, failure.down, failure.detail) == (2, False, "was down: L4OK")


@pytest.mark.parametrize(
    ("changes", "symptom", "count"),
    [
        ({"econ": 2, "wredis": 1}, Symptom.CONNECT_REFUSED, 3),
        ({"econ": 1, "check_status": "L4TOUT"}, Symptom.CONNECT_TIMEOUT, 1),
        ({"eresp": 4}, Symptom.RESPONSE_TIMEOUT, 4),
        ({"eresp": 4, "srv_abrt": 4}, Symptom.ERROR_ANSWERS, 4),
        ({"hrsp_5xx": 5, "hrsp_2xx": 105}, Symptom.ERROR_ANSWERS, 5),
    ],
)
def test_what_requests_have_met_is_a_failure(changes: dict[str, int], symptom: Symptom, count: int) -> None:
    """As many as there were since the last look."""
    (failure,) = findings(row(**changes))[1]
    assert (failure.symptom, failure.count, failure.down) == (symptom, count, False)


def test_a_few_5xx_among_good_answers_are_no_failure() -> None:
    """Less than `error_percent` of the answers since the last look."""
    now = row(hrsp_5xx=4, hrsp_2xx=105)
    assert findings(now)[1] == []
    assert findings(now, percent=40.0)[1] != []


def test_counters_of_somebody_else_are_not_compared() -> None:
    """Another generation in the slot, another process of HAProxy, or nothing to compare with."""
    bad = row(econ=9, chkdown=1)
    assert findings(bad, None)[1] == []
    assert findings(bad, was=server(7001, generation=0))[1] == []
    assert findings(row(econ=9, stot=3))[1] == []


def test_a_draining_server_is_not_reported() -> None:
    """Neither down nor failing."""
    assert findings(row(DOWN, econ=5), who=server(7001, weight=0))[1] == []


def test_a_server_that_is_down_in_its_next_generation_is_reported_for_that() -> None:
    """The report of the generation before is nobody's any more."""
    (failure,) = findings(DOWN, DOWN, down=True, was=server(7001, generation=0))[1]
    assert (failure.generation, failure.down) == (1, True)


@pytest.mark.parametrize(
    ("status", "symptom"),
    [
        ("L4CON", Symptom.CONNECT_REFUSED),
        ("* L4TOUT", Symptom.CONNECT_TIMEOUT),
        ("L7TOUT", Symptom.RESPONSE_TIMEOUT),
        ("L7STS", Symptom.CHECK_FAILED),
        ("PROCERR", Symptom.CHECK_FAILED),
    ],
)
def test_a_check_has_a_symptom(status: str, symptom: Symptom) -> None:
    """What the control center knows; the rest is a check that failed."""
    assert symptom_of(Row(check_status=status)) is symptom


def test_requests_are_counted_in_all_processes_queued_ones_too() -> None:
    """Of the slots that are asked for."""
    new = {("cart", "cart-1"): Row(scur=1, qcur=1), ("cart", "cart-2"): Row(scur=7)}
    assert in_flight([new, {("cart", "cart-1"): Row(scur=2)}, {}], "cart", {"cart-1"}) == 4
