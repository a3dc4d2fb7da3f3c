"""planning.py: who goes with whom, and which floors can never be kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_center.errors import BadRequest
from control_center.fleet import Fleet
from control_center.model import Strategy, Target
from control_center.rollout import baseline, batch_size, check_strategy, plan
from registry_client.model import Entry
from tests.control_center.entries import entry, fleet_of, target_of

ANY = Strategy(batch="1", canary=0, floor_percent=0)


def carts(count: int, zones: str = "", service: str = "cart", **more: Any) -> list[Entry]:
    """Instances on web-0, web-1, ..., in zones by turns."""
    return [
        entry(f"web-{number}", service, zone=zones[number % len(zones)] if zones else None, **more)
        for number in range(count)
    ]


def planned(entries: list[Entry], strategy: Strategy | None, verb: str = "restart") -> list[tuple[str, list[str]]]:
    batches, targets = plan(verb, [target_of(each) for each in entries], strategy, fleet_of(*entries))
    assert [batch.number for batch in batches] == list(range(len(batches)))
    return [(batch.name, [each.instance for each in targets if each.batch == batch.number]) for batch in batches]


def refusal(verb: str, targets: list[Target], fleet: Fleet, floor_percent: float) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        plan(verb, targets, replace(ANY, floor_percent=floor_percent), fleet)
    assert (caught.value.code, caught.value.status) == ("floor", 422)
    return caught.value


def test_without_a_strategy_all_go_at_once() -> None:
    assert planned(carts(2), None) == [("all at once", ["web-0/cart", "web-1/cart"])]


def test_a_plan_leaves_the_targets_that_it_was_given_alone() -> None:
    found = target_of(entry("web-1"), batch=7)
    _, targets = plan("restart", [found], ANY, fleet_of(entry("web-1")))
    assert (found.batch, targets[0].batch) == (7, 0)


def test_the_same_unit_twice_is_one_target_and_the_one_with_its_service_is_kept() -> None:
    known, unknown = target_of(entry("web-1")), Target("web-1", "cart", "web-1/cart")
    for given_ in ([known, unknown, known], [unknown, known]):
        assert [each.service for each in plan("restart", given_, None, fleet_of())[1]] == ["cart"]


@pytest.mark.parametrize(
    ("batch", "sizes"),
    [("1", [1] * 5), ("2", [2, 2, 1]), ("40%", [2, 2, 1]), ("59.9%", [2, 2, 1]), ("1%", [1] * 5), ("100 %", [5])],
)
def test_batches_are_a_number_or_a_share_rounded_down(batch: str, sizes: list[int]) -> None:
    assert [len(names) for _, names in planned(carts(5), replace(ANY, batch=batch))] == sizes


def test_batches_are_called_by_their_place() -> None:
    assert [name for name, _ in planned(carts(3), ANY)] == ["1/3", "2/3", "3/3"]
    assert [name for name, _ in planned(carts(3), replace(ANY, batch="3"))] == ["all"]
    assert [name for name, _ in planned(carts(3), replace(ANY, batch="3", canary=1))] == ["canary", "rest"]


def test_one_zone_goes_after_another_and_those_without_one_first() -> None:
    entries = [*carts(6, "ba"), entry("web-9")]
    assert planned(entries, replace(ANY, batch="2")) == [
        ("no zone", ["web-9/cart"]),
        ("zone a 1/2", ["web-1/cart", "web-3/cart"]),
        ("zone a 2/2", ["web-5/cart"]),
        ("zone b 1/2", ["web-0/cart", "web-2/cart"]),
        ("zone b 2/2", ["web-4/cart"]),
    ]


def test_without_by_zone_zones_do_not_matter() -> None:
    found = planned(carts(4, "ba"), replace(ANY, batch="50%", by_zone=False))
    assert found == [("1/2", ["web-0/cart", "web-1/cart"]), ("2/2", ["web-2/cart", "web-3/cart"])]


def test_the_canary_is_from_the_first_zone_and_one_of_each_service() -> None:
    entries = [*carts(4, "ba"), *carts(2, "b", "pay")]
    assert planned(entries, replace(ANY, batch="100%", canary=1)) == [
        ("canary", ["web-1/cart", "web-0/pay"]),
        ("zone a", ["web-3/cart"]),
        ("zone b", ["web-0/cart", "web-2/cart", "web-1/pay"]),
    ]


def test_more_canaries_than_the_first_zone_has_are_all_of_it() -> None:
    assert planned(carts(3, "aab"), replace(ANY, batch="3", canary=5)) == [
        ("canary", ["web-0/cart", "web-1/cart"]),
        ("zone b", ["web-2/cart"]),
    ]
    assert planned(carts(2), replace(ANY, canary=5)) == [("canary", ["web-0/cart", "web-1/cart"])]


def test_services_go_side_by_side_each_in_steps_of_its_own_size() -> None:
    found = planned([*carts(6), *carts(2, service="pay")], replace(ANY, batch="50%"))
    assert found == [
        ("1/2", ["web-0/cart", "web-1/cart", "web-2/cart", "web-0/pay"]),
        ("2/2", ["web-3/cart", "web-4/cart", "web-5/cart", "web-1/pay"]),
    ]


def test_nodes_and_units_without_a_service_have_batches_and_no_floor() -> None:
    nodes = [Target(f"web-{number}", "", f"web-{number}") for number in range(3)]
    batches, targets = plan("apply", nodes, replace(ANY, batch="2", floor_percent=75), fleet_of())
    assert [each.batch for each in targets] == [0, 0, 1]
    units = [Target("web-1", "batch", "web-1/batch")]
    assert len(plan("restart", units, replace(ANY, floor_percent=75), fleet_of())[0]) == 1
    assert len(batches) == 2


@given(st.lists(st.tuples(st.sampled_from(["cart", "pay", None]), st.sampled_from(["a", "b", None])), max_size=30),
       st.sampled_from(["1", "3", "25%", "100%"]), st.integers(0, 3), st.booleans())  # fmt: skip
def test_any_plan_has_each_target_once_and_its_batches_are_never_too_big(
    made: list[tuple[str | None, str | None]], batch: str, canary: int, by_zone: bool
) -> None:
    targets = [Target(f"n{i}", "u", f"n{i}/u", service, zone) for i, (service, zone) in enumerate(made)]
    strategy = Strategy(batch=batch, canary=canary, floor_percent=0, by_zone=by_zone)
    batches, found = plan("restart", targets, strategy, fleet_of())
    assert sorted(each.instance for each in found) == sorted(each.instance for each in targets)
    assert {each.batch for each in found} == {each.number for each in batches}
    for service in {each.service for each in found}:
        mine = [each for each in found if each.service == service]
        for number in range(len(batches)):
            limit = batch_size(batch, len(mine))
            count = len([each for each in mine if each.batch == number])
            assert count <= (max(limit, canary) if number == 0 and canary else limit)
    if by_zone:
        rest = sorted((each for each in found if not canary or each.batch > 0), key=lambda each: each.batch)
        zones = list(dict.fromkeys(each.zone or "" for each in rest))  # in the order in which they begin
        assert zones == sorted(zones)
        assert len({(each.batch, each.zone) for each in rest}) == len({each.batch for each in rest})


# Floors.


def test_a_floor_that_one_step_breaks_is_refused_with_what_would_do() -> None:
    entries = carts(3)
    error = refusal("restart", [target_of(entries[0])], fleet_of(*entries), 75)
    assert str(error) == (
        "cannot restart cart: while web-0/cart is away, 66 % of its weight are left, and floor_percent is 75; "
        "lower floor_percent to 66, or add an instance"
    )
    assert error.more == {"service": "cart", "floor_percent": 75, "possible_percent": 66}
    assert planned(entries, replace(ANY, floor_percent=66))


def test_the_heaviest_target_decides() -> None:
    entries = [entry("web-1", full_weight=300, weight=300), entry("web-2"), entry("web-3")]
    assert "while web-1/cart is away, 40 %" in str(
        refusal("restart", list(map(target_of, entries)), fleet_of(*entries), 50)
    )
    plan("restart", list(map(target_of, entries[1:])), replace(ANY, floor_percent=80), fleet_of(*entries))


def test_a_single_instance_is_refused_with_that_reason() -> None:
    one = entry("web-1")
    message = str(refusal("restart", [target_of(one)], fleet_of(one), 10))
    assert "it has a single instance, web-1/cart" in message
    assert "lower floor_percent to 0, or add an instance" in message
    assert planned([one], ANY)


def test_what_stays_away_is_counted_together() -> None:
    entries = carts(4)
    targets = list(map(target_of, entries))
    message = str(refusal("stop", targets[:2], fleet_of(*entries), 75))
    assert message == (
        "cannot stop cart: without these 2 instances, 50 % of its weight are left, and floor_percent is 75; "
        "lower floor_percent to 50, or name fewer"
    )
    assert "without web-0/cart, 75 %" in str(refusal("drain", targets[:1], fleet_of(*entries), 80))
    assert "lower floor_percent to 0, or name fewer" in str(refusal("stop", targets, fleet_of(*entries), 1))
    plan("stop", targets[:1], replace(ANY, floor_percent=75), fleet_of(*entries))


@pytest.mark.parametrize("verb", ["start", "undrain", "apply"])
def test_what_takes_nothing_away_has_no_floor(verb: str) -> None:
    assert planned(carts(1), replace(ANY, floor_percent=100), verb)


def test_each_service_has_its_own_floor() -> None:
    entries = [*carts(4), *carts(2, service="pay")]
    assert "cannot restart pay:" in str(refusal("restart", list(map(target_of, entries)), fleet_of(*entries), 75))


def test_a_service_without_any_weight_has_nothing_to_keep() -> None:
    assert planned(carts(2, full_weight=0, weight=0), replace(ANY, floor_percent=75))


def test_the_baseline_is_what_instances_are_meant_to_have() -> None:
    entries = [entry("web-1", status="warming", weight=10), entry("web-2", weight=50, warmup_seconds=0), entry("web-3")]
    gone = Target("web-9", "pay", "web-9/pay", service="pay", weight=70)
    plain = Target("web-9", "batch", "web-9/batch")
    assert baseline([target_of(entries[0]), gone, plain], fleet_of(*entries)) == {"cart": 250, "pay": 70}
    with pytest.raises(BadRequest, match="single instance"):
        plan("restart", [gone], replace(ANY, floor_percent=50), fleet_of(*entries))


# Strategies that cannot be.


@pytest.mark.parametrize("text", ["", "0", "0%", "-1", "101%", "1.5", "a", "25%%", "1e3", "٣", "nan%"])
def test_a_batch_that_is_no_number_and_no_share_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="cannot use the batch"):
        batch_size(text, 10)


@pytest.mark.parametrize(
    "wrong",
    [
        {"floor_percent": -1}, {"floor_percent": 101}, {"floor_percent": float("nan")}, {"canary": -1},
        {"bake_seconds": -0.1}, {"bake_seconds": float("inf")}, {"max_failures": -1}, {"target_seconds": 0},
        {"target_seconds": float("nan")},
    ],
)  # fmt: skip
def test_a_number_out_of_its_range_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=f"cannot use {next(iter(wrong))}: it must be"):
        check_strategy(replace(Strategy(), **wrong))


def test_the_defaults_are_a_possible_strategy() -> None:
    check_strategy(Strategy())
