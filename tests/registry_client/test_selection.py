"""selection.py."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from registry_client import Entry, select
from registry_client.selection import eligible


def entry(instance: str, weight: int, status: str = "up") -> Entry:
    values: dict[str, Any] = {"node": "n", "unit": "u", "address": "127.0.0.1", "port": 1, "generation": 1}
    return Entry(
        service="s",
        instance=instance,
        weight=weight,
        status=status,
        started_at="2026-11-23T06:29:10.123Z",
        **values,
    )


def test_each_entry_gets_the_share_that_its_weight_gives_it() -> None:
    entries = [entry("a", 10), entry("b", 30), entry("c", 60, "warming")]
    chosen = [select(entries, number / 1000) for number in range(1000)]
    assert Counter(item.instance for item in chosen if item) == {"a": 100, "b": 300, "c": 600}


def test_draining_and_weightless_entries_are_never_selected() -> None:
    entries = [entry("a", 100, "draining"), entry("b", 1), entry("c", 0)]
    assert {select(entries, number / 50) for number in range(50)} == {entries[1]}
    assert eligible(entries) == [entries[1]]


def test_nothing_is_selected_from_nothing() -> None:
    assert select([], 0.5) is None
    assert select([entry("a", 0), entry("b", 9, "draining")], 0.0) is None


def test_the_largest_r_selects_the_last_candidate() -> None:
    entries = [entry(str(number), 65535) for number in range(3)]
    below_one = 1 - 2**-53
    assert select([*entries, entry("z", 0)], below_one) == entries[-1]


@pytest.mark.parametrize("r", [1.0, -0.1, float("nan")])
def test_an_r_outside_of_its_range_is_an_error(r: float) -> None:
    with pytest.raises(ValueError, match="r must be"):
        select([entry("a", 1)], r)
