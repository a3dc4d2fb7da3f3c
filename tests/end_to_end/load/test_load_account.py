"""What is read from a load's records: the share of an instance by its weight, and what a supervisor did at an instant."""

from __future__ import annotations

import random

import pytest

from bench.load_account import Choice, Spell, doing, percentile, periods, spells_of


def _choices(weight: int, chosen: str, count: int) -> list[Choice]:
    others = {"b": 100, "c": 100}
    return [Choice(others | ({"a": weight} if weight else {}), chosen)] * count


def test_a_period_lasts_as_long_as_the_weight_stays_and_has_the_share_that_was_chosen() -> None:
    recorded = [*_choices(50, "a", 3), *_choices(50, "b", 7), *_choices(0, "b", 4), *_choices(100, "a", 2)]

    found = periods(recorded, "a")

    assert [(p.weight, p.choices, p.chosen) for p in found] == [(50, 10, 3), (0, 4, 0), (100, 2, 2)]
    assert found[0].share == pytest.approx(0.3)
    assert found[0].expected == pytest.approx(50 / 250)
    assert found[0].deviation == pytest.approx(0.1)
    assert found[0].errors == pytest.approx(0.1 / (0.2 * 0.8 / 10) ** 0.5)


def test_what_is_expected_is_the_mean_when_the_others_change_within_a_period() -> None:
    [period] = periods([Choice({"a": 50, "b": 50}, "a"), Choice({"a": 50, "b": 150}, "b")], "a")

    assert period.expected == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_an_instance_that_is_not_there_is_expected_to_get_nothing_and_what_it_got_shows() -> None:
    [quiet] = periods([Choice({"b": 100}, "b"), Choice({}, "")], "a")
    [loud] = periods([Choice({"b": 100}, "a")], "a")

    assert (quiet.expected, quiet.deviation, quiet.errors) == (0, 0, None)
    assert (loud.deviation, loud.errors) == (1, None)


@pytest.mark.parametrize(("factor", "fits"), [(1.0, True), (2.0, False)])
def test_choices_by_weight_fit_what_is_expected_and_choices_by_twice_the_weight_do_not(
    factor: float, fits: bool
) -> None:
    draw, recorded = random.Random(7), []
    for weight in range(10, 60, 10):
        odds = factor * weight / (weight + 300)
        recorded += [Choice({"a": weight, "b": 300}, "a" if draw.random() < odds else "b") for _ in range(5000)]

    errors = [period.errors for period in periods(recorded, "a")]

    assert len(errors) == 5
    assert all((abs(error or 0) < 4) == fits for error in errors), errors


def _step(name: str, started: str | None, finished: str | None) -> dict[str, str | None]:
    return {"name": name, "started": started, "finished": finished}


def test_steps_become_spells_but_for_those_that_were_not_made_and_the_wait_for_others() -> None:
    steps = [
        _step("wait", "2026-11-24T00:00:00.000Z", "2026-11-24T00:00:01.000Z"),
        _step("gone", "2026-11-24T00:00:01.000Z", "2026-11-24T00:00:02.500Z"),
        _step("kill", None, None),
    ]

    [spell] = spells_of([{"unit": "web:0", "steps": steps}])

    assert (spell.unit, spell.what, spell.ended - spell.begun) == ("web:0", "gone", 1.5)


def test_what_was_done_is_the_units_own_last_step_or_the_one_that_ends_the_process() -> None:
    spells = [Spell("a", "drain", 10, 12), Spell("a", "terminate", 12, 13), Spell("a", "spawn", 13, 14)]

    assert doing(spells, "a", 9.9) == "-"
    assert doing(spells, "a", 11) == "drain"
    assert doing(spells, "b", 11) == "-"
    assert doing(spells, "a", 13.5) == "spawn"
    assert doing(spells, "a", 11.5, 13.5) == "terminate"
    assert doing(spells, "a", 14.5) == "-"


def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed() -> None:
    assert percentile([], 50) is None
    assert percentile([3.0], 99) == 3.0
    assert [percentile([4.0, 1.0, 3.0, 2.0], percent) for percent in (0, 25, 50, 51, 100)] == [1, 1, 2, 3, 4]
