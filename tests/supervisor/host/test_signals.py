"""Signals by name and number."""

from __future__ import annotations

import signal

import pytest

from supervisor.errors import WireError
from supervisor.host.signals import signal_name, signal_number


@pytest.mark.parametrize("value", ["TERM", "SIGTERM", "term", "SigTerm", "15", 15])
def test_a_signal_has_many_spellings(value: object) -> None:
    assert signal_number(value) == signal.SIGTERM


@pytest.mark.parametrize("number", [1, 64])
def test_the_first_and_the_last_number_are_signals(number: int) -> None:
    assert signal_number(number) == signal_number(str(number)) == number


@pytest.mark.parametrize(
    "value",
    [
        0,
        65,
        -1,
        "0",
        "65",
        "015",
        "²",
        "9" * 5000,
        "",
        "SIG",
        "_DFL",
        "NOSUCH",
        " TERM",
        None,
        True,
        1.0,
        [],
        {},
    ],
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(WireError, match=r"it is no signal; use a name such as HUP, or a number from 1 to 64$"):
        signal_number(value)


def test_signals_have_names_and_those_without_have_numbers() -> None:
    assert signal_name(9) == "SIGKILL"
    assert signal_name(40) == "signal 40"
