"""Names and patterns, dependencies, waves of starting and stopping."""

from __future__ import annotations

import pytest

from supervisor.core.model import UnitSpec
from supervisor.core.order import (
    dependencies_of,
    dependents_of,
    find_cycle,
    groups_of,
    select,
    start_order,
    startable,
    stop_order,
    waits_for,
)
from supervisor.errors import ConfigError, UnknownUnit


def units(*groups: tuple[str, int, tuple[str, ...]], priority: dict[str, int] | None = None) -> dict[str, UnitSpec]:
    """Groups as (name, processes, what it depends on)."""
    made = {}
    for group, count, depends_on in groups:
        for number in range(count):
            name = group if count == 1 else f"{group}:{number}"
            level = (priority or {}).get(group, 999)
            made[name] = UnitSpec(name, group, number, ("x",), depends_on=depends_on, priority=level)
    return made


SHOP = units(("web", 2, ("api",)), ("api", 1, ("database", "cache")), ("database", 1, ()), ("cache", 2, ()))


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        ([], []),
        (["all"], ["web:0", "web:1", "api", "database", "cache:0", "cache:1"]),
        (["api"], ["api"]),
        (["web:1"], ["web:1"]),
        (["web"], ["web:0", "web:1"]),
        (["web:*"], ["web:0", "web:1"]),
        (["api:*"], ["api"]),
        (["w*"], ["web:0", "web:1"]),
        (["*:1"], ["web:1", "cache:1"]),
        (["*a*:*"], ["api", "database", "cache:0", "cache:1"]),
        (["[wd]*"], ["web:0", "web:1", "database"]),
        (["ap?"], ["api"]),
        (["*"], ["web:0", "web:1", "api", "database", "cache:0", "cache:1"]),
        (["cache:1", "web", "cache:1", "web:0"], ["web:0", "web:1", "cache:1"]),
    ],
)
def test_patterns_name_units_each_once_in_the_order_of_the_configuration(
    patterns: list[str], chosen: list[str]
) -> None:
    assert select(patterns, SHOP) == chosen


@pytest.mark.parametrize(
    ("pattern", "nearest"),
    [
        ("databse", "database"),
        ("web:7", "web:1"),
        ("zzz", None),
        ("z*", None),
        ("", None),
        ("WEB", None),
        ("[z-a]", None),
    ],
)
def test_a_pattern_that_names_nothing_is_an_error_with_the_nearest_name(pattern: str, nearest: str | None) -> None:
    with pytest.raises(UnknownUnit) as caught:
        select(["api", pattern], SHOP)
    assert caught.value.name == pattern
    assert caught.value.nearest == nearest


def test_all_of_nothing_is_nothing() -> None:
    assert select(["all"], {}) == []


def test_groups_list_their_processes() -> None:
    assert groups_of(SHOP) == {
        "web": ("web:0", "web:1"), "api": ("api",), "database": ("database",), "cache": ("cache:0", "cache:1"),
    }  # fmt: skip


def test_units_start_in_waves_after_what_they_depend_on() -> None:
    assert start_order(SHOP) == (("database", "cache:0", "cache:1"), ("api",), ("web:0", "web:1"))


def test_units_stop_in_the_reverse_order() -> None:
    assert stop_order(SHOP) == (("web:1", "web:0"), ("api",), ("cache:1", "cache:0", "database"))


def test_within_a_wave_lower_priority_starts_first_and_then_the_order_of_the_configuration() -> None:
    specs = units(("a", 1, ()), ("b", 1, ()), ("c", 2, ()), ("d", 1, ()), priority={"c": 5, "d": 5})
    assert start_order(specs) == (("c:0", "c:1", "d", "a", "b"),)
    assert stop_order(specs) == (("b", "a", "d", "c:1", "c:0"),)


def test_priority_does_not_overrule_a_dependency() -> None:
    specs = units(("web", 1, ("database",)), ("database", 1, ()), priority={"web": 1})
    assert start_order(specs) == (("database",), ("web",))


def test_dependencies_through_units_that_are_not_asked_for_still_order_the_others() -> None:
    assert start_order(SHOP, ["web:1", "database"]) == (("database",), ("web:1",))
    assert stop_order(SHOP, ["web:1", "database"]) == (("web:1",), ("database",))


def test_no_units_make_no_waves() -> None:
    assert start_order({}) == ()
    assert start_order(SHOP, []) == ()


def test_a_unit_waits_for_the_longest_of_its_chains() -> None:
    specs = units(("a", 1, ("d", "b")), ("b", 1, ("c",)), ("c", 1, ("d",)), ("d", 1, ()))
    assert start_order(specs) == (("d",), ("c",), ("b",), ("a",))


def test_a_dependency_that_does_not_exist_orders_nothing() -> None:
    assert start_order(units(("a", 1, ("gone",)))) == (("a",),)


def test_units_that_wait_for_each_other_cannot_be_ordered() -> None:
    specs = units(("a", 1, ("b",)), ("b", 1, ("a",)))
    with pytest.raises(ConfigError, match="a -> b -> a"):
        start_order(specs)


@pytest.mark.parametrize(
    ("depends_on", "cycle"),
    [
        ({}, None),
        ({"a": ["b"], "b": []}, None),
        ({"a": ["gone"]}, None),
        ({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}, None),
        ({"a": ["a"]}, ("a", "a")),
        ({"top": ["a"], "a": ["leaf", "b"], "b": ["c"], "c": ["a"], "leaf": []}, ("a", "b", "c", "a")),
    ],
)
def test_a_cycle_is_found_without_what_only_leads_to_it(
    depends_on: dict[str, list[str]], cycle: tuple[str, ...] | None
) -> None:
    assert find_cycle(depends_on) == cycle


def test_a_chain_of_ten_thousand_dependencies_is_no_problem() -> None:
    names = [f"u{number}" for number in range(10_000)]
    chain = units(*((name, 1, tuple(names[at + 1 : at + 2])) for at, name in enumerate(names)))
    assert start_order(chain)[0] == (names[-1],)
    assert len(dependencies_of([names[0]], chain)) == 9_999
    ring = {name: [names[at - 1]] for at, name in enumerate(names)}
    assert len(find_cycle(ring) or ()) == 10_001


def test_a_unit_may_start_when_every_process_of_what_it_depends_on_is_ready() -> None:
    groups = groups_of(SHOP)
    api = SHOP["api"]
    assert startable(SHOP["database"], groups, set())
    assert waits_for(api, groups, set()) == "database"
    assert waits_for(api, groups, {"database", "cache:0"}) == "cache:1"
    assert not startable(api, groups, {"database", "cache:0"})
    assert startable(api, groups, {"database", "cache:0", "cache:1"})


def test_a_unit_waits_for_a_group_that_does_not_exist() -> None:
    assert waits_for(SHOP["api"], {"cache": ("cache:0",)}, {"cache:0"}) == "database"


def test_dependencies_are_followed_to_their_end() -> None:
    assert dependencies_of(["web:0"], SHOP) == ["api", "database", "cache:0", "cache:1"]
    assert dependencies_of(["database"], SHOP) == []
    assert dependencies_of(["web:0", "cache:1"], SHOP) == ["api", "database", "cache:0"]


def test_dependents_are_followed_to_their_end() -> None:
    assert dependents_of(["cache:1"], SHOP) == ["web:0", "web:1", "api"]
    assert dependents_of(["web:0"], SHOP) == []
    assert dependents_of(["api", "web:0"], SHOP) == ["web:1"]


def test_a_group_on_two_ways_is_found_once_even_around_a_cycle() -> None:
    diamond = units(("a", 1, ("b", "c")), ("b", 1, ("d",)), ("c", 1, ("d",)), ("d", 1, ()))
    assert dependencies_of(["a"], diamond) == ["b", "c", "d"]
    ring = units(("a", 1, ("b",)), ("b", 1, ("a",)))
    assert dependencies_of(["a"], ring) == ["b"]
