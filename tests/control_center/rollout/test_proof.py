"""proof.py: what the registry must show of a target."""

from __future__ import annotations

from typing import Any

import pytest

from control_center.model import Target
from control_center.rollout import confirmed
from control_center.rollout.proof import unwell
from tests.control_center.entries import entry

TARGET = Target("web-1", "cart", "web-1/cart", service="cart", generation=7, weight=100)
NEW = {"generation": 8}


@pytest.mark.parametrize(
    ("verb", "shown", "missing"),
    [
        ("restart", None, "not in the registry yet"),
        ("restart", {"generation": 7}, "its entry is still the old one (generation 7)"),
        ("restart", NEW | {"status": "warming", "weight": 40}, "weight 40 of 100"),
        ("restart", NEW | {"status": "warming"}, "weight 100 of 100"),
        ("restart", NEW | {"weight": 40}, "weight 40 of 100"),
        ("restart", NEW | {"status": "draining"}, "it is draining"),
        ("start", {"generation": 7, "status": "warming", "weight": 0}, "weight 0 of 100"),
        ("undrain", None, "not in the registry yet"),
        ("stop", {"generation": 7}, "its entry is still in the registry"),
        ("drain", {"generation": 8}, "its entry is still in the registry"),
    ],
)
def test_it_says_what_is_missing(verb: str, shown: dict[str, Any] | None, missing: str) -> None:
    assert confirmed(TARGET, verb, None if shown is None else entry("web-1", **shown)) == missing


@pytest.mark.parametrize(
    ("verb", "shown"),
    [
        ("restart", NEW),
        ("restart", NEW | {"weight": 40, "warmup_seconds": 0}),  # an operator holds it there
        ("start", {"generation": 7}),
        ("undrain", {"generation": 7}),
        ("stop", None),
        ("drain", {"generation": 7, "status": "draining"}),
        ("warm", {"generation": 7, "status": "warming", "weight": 10}),
        ("weight", {"generation": 7, "weight": 10}),
        ("signal", None),
        ("apply", None),
    ],
)
def test_it_is_content_with_the_end_of_each_verb(verb: str, shown: dict[str, Any] | None) -> None:
    assert confirmed(TARGET, verb, None if shown is None else entry("web-1", **shown)) is True


def test_a_restart_of_an_unknown_generation_is_content_with_any() -> None:
    unknown = Target("web-1", "cart", "web-1/cart", service="cart")
    assert confirmed(unknown, "restart", entry("web-1")) is True


def test_the_nodes_word_is_all_there_is_of_a_unit_without_a_service() -> None:
    assert confirmed(Target("web-1", "batch", "web-1/batch"), "restart", None) is True


DONE = Target("web-1", "cart", "web-1/cart", service="cart", generation=7, generation_after=8)


@pytest.mark.parametrize(
    ("verb", "shown", "words"),
    [
        ("restart", None, "web-1/cart has left the registry"),
        ("restart", {"generation": 9}, "web-1/cart was started again (generation 9, not 8)"),
        ("restart", NEW | {"weight": 90}, "web-1/cart: weight 90 of 100"),
        ("signal", NEW | {"status": "draining"}, "web-1/cart: it is draining"),
        ("warm", None, "web-1/cart has left the registry"),
    ],
)
def test_it_says_what_speaks_against_a_canary(verb: str, shown: dict[str, Any] | None, words: str) -> None:
    assert unwell(DONE, verb, None if shown is None else entry("web-1", **shown), frozenset()) == words


@pytest.mark.parametrize(
    ("verb", "shown"),
    [("restart", NEW), ("warm", NEW | {"status": "warming", "weight": 10}), ("stop", None), ("drain", NEW)],
)
def test_a_canary_that_stays_as_it_should_is_well(verb: str, shown: dict[str, Any] | None) -> None:
    assert unwell(DONE, verb, None if shown is None else entry("web-1", **shown), frozenset(("web-2/cart",))) == ""


def test_complaints_of_gateways_speak_against_a_canary() -> None:
    doubts = frozenset(("web-1/cart",))
    assert unwell(DONE, "restart", entry("web-1", **NEW), doubts) == "gateways complain of web-1/cart"
    node = Target("web-1", "", "web-1")
    assert unwell(node, "apply", None, doubts) == "gateways complain of web-1/cart"
    assert unwell(node, "apply", None, frozenset(("web-11/cart",))) == ""
    batch = Target("web-1", "batch", "web-1/batch")
    assert unwell(batch, "restart", None, doubts) == ""
