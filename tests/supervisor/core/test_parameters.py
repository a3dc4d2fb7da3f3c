"""What a verb may be told: known names of the right type, and nothing else."""

from __future__ import annotations

import pytest

from supervisor.core.parameters import check_parameters
from supervisor.errors import WireError


@pytest.mark.parametrize(
    ("verb", "parameters"),
    [
        ("start", {}), ("stop", {}), ("stop", {"force": True}), ("restart", {"force": False}), ("restart", {"force": None}),
        ("drain", {"owner": "me", "for_seconds": 3}), ("drain", {"until": "2026-11-24T00:00:00Z"}), ("signal", {"signal": 1}),
        ("undrain", {}), ("warm", {"anything": 1}), ("weight", {"anything": 1}),
    ],
)  # fmt: skip
def test_what_a_verb_takes(verb: str, parameters: dict[str, object]) -> None:
    """`warm` and `weight` have checks of their own."""
    check_parameters(verb, parameters)


@pytest.mark.parametrize(
    ("verb", "parameters", "message"),
    [
        ("start", {"force": True}, "cannot start: unknown parameter 'force'; it takes none"),
        ("stop", {"forc": True}, "cannot stop: unknown parameter 'forc'; it takes force"),
        ("restart", {"force": "no"}, "cannot restart: force must be true or false, not 'no'"),
        ("restart", {"force": 1}, "cannot restart: force must be true or false, not 1"),
        ("drain", {"for": 3}, "cannot drain: unknown parameter 'for'; it takes owner, for_seconds, until"),
        ("drain", {"owner": 3}, "cannot drain: owner must be a string, not 3"),
        ("undrain", {"until": "x"}, "cannot undrain: unknown parameter 'until'; it takes none"),
    ],
)  # fmt: skip
def test_what_it_does_not_take(verb: str, parameters: dict[str, object], message: str) -> None:
    """A slip must not look as if it had been heeded."""
    with pytest.raises(WireError) as caught:
        check_parameters(verb, parameters)
    assert str(caught.value) == message
