"""What a registry that is away leaves in the log."""

from __future__ import annotations

import logging

import pytest

from supervisor.agents.outage import Outage, counted

REASON = "unconfirmed: cannot reach the registry"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def test_one_unit_is_named_when_it_begins_and_when_it_ends(lines: pytest.LogCaptureFixture) -> None:
    outage = Outage("registry old: ")
    outage.failed(["cart"], REASON, 10.0)
    outage.failed(["cart"], REASON, 11.0)
    outage.answered("cart", 12.5)
    outage.answered("cart", 13.0)
    assert lines.messages == [
        "cart: registry old: unconfirmed: cannot reach the registry; tried again",
        "cart: registry old: confirmed again, after 2.5 s",
    ]


def test_two_thousand_units_that_fail_one_after_the_other_are_a_few_lines(lines: pytest.LogCaptureFixture) -> None:
    outage = Outage("")
    units = [f"cart:{number:04}" for number in range(2000)]
    for unit in units:
        outage.failed([unit], REASON, 0.0)
    for unit in units:
        outage.failed([unit], REASON, 1.0)
    assert [line.partition(": un")[0] for line in lines.messages] == [
        "cart:0000",
        "10 units (cart:0000, cart:0001, cart:0002, ...)",
        "100 units (cart:0000, cart:0001, cart:0002, ...)",
        "1000 units (cart:0000, cart:0001, cart:0002, ...)",
    ]
    lines.clear()
    for unit in units[:-1]:
        outage.answered(unit, 2.0)
    assert not lines.messages, "it is over when the last one is answered"
    outage.answered(units[-1], 3.0)
    assert lines.messages == ["2000 units (cart:0000, cart:0001, cart:0002, ...): confirmed again, after 3.0 s"]


def test_the_next_outage_is_said_again(lines: pytest.LogCaptureFixture) -> None:
    outage = Outage("")
    for _ in range(2):
        outage.failed(["a", "b"], REASON, 0.0)
        outage.answered("a", 1.0)
        outage.answered("b", 1.0)
    assert lines.messages == 2 * [
        "2 units (a, b): unconfirmed: cannot reach the registry; tried again",
        "2 units (a, b): confirmed again, after 1.0 s",
    ]


def test_units_that_leave_meanwhile_do_not_hold_it_open(lines: pytest.LogCaptureFixture) -> None:
    outage = Outage("")
    outage.failed(["a", "b"], REASON, 0.0)
    outage.forget("b")
    outage.answered("a", 1.0)
    assert len(lines.messages) == 2
    outage.failed(["c"], REASON, 2.0)
    outage.forget("c")
    assert len(lines.messages) == 3, "nobody knows that it is over"
    outage.failed([], REASON, 3.0)
    outage.failed(["d"], REASON, 3.0)
    assert lines.messages[-1].startswith("d: ")


def test_an_outage_of_one_does_not_hide_one_of_all(lines: pytest.LogCaptureFixture) -> None:
    outage = Outage("")
    outage.failed(["always"], REASON, 0.0)
    outage.failed([f"cart:{number}" for number in range(50)], REASON, 9.0)
    assert len(lines.messages) == 2
    assert lines.messages[1].startswith("51 units ")


@pytest.mark.parametrize(
    ("units", "words"),
    [({"b"}, "b"), ({"c", "b", "a"}, "3 units (a, b, c)"), ({"d", "c", "b", "a"}, "4 units (a, b, c, ...)")],
)
def test_units_are_counted_and_the_first_are_named(units: set[str], words: str) -> None:
    assert counted(units) == words
