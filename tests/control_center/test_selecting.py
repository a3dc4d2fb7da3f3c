"""selecting.py: what a selection means among what is registered."""

from __future__ import annotations

from typing import Any

import pytest

from control_center.errors import BadRequest
from control_center.fleet import Fleet
from control_center.model import Selection, Target
from control_center.selecting import choose, nodes_for_apply, select, targets_on_nodes
from tests.control_center.entries import entry, fleet_of, node_entry

ENTRIES = [
    node_entry("web-1", zone="a", metadata={"rack": "r1"}),
    node_entry("web-2", zone="b"),
    node_entry("db-1"),
    entry("web-1", zone="a", version="1.2", metadata={"team": "shop"}, generation=7, weight=40, status="warming"),
    entry("web-2", zone="b", version="1.3", metadata={"team": "shop"}),
    entry("web-1", "pay", "pay:0"),
    entry("web-1", "pay", "pay:1"),
]
FLEET = fleet_of(*ENTRIES)


def names(targets: list[Target]) -> list[str]:
    return [target.instance for target in targets]


def chosen(**what: Any) -> list[str]:
    return names(choose(Selection(**what), ENTRIES))


def refusal(verb: str, fleet: Fleet = FLEET, **what: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        select(verb, Selection(**what), fleet)
    assert (caught.value.code, caught.value.status) == ("nothing_selected", 422)
    return str(caught.value)


def test_a_target_has_what_the_registry_says_of_it() -> None:
    assert choose(Selection(instances=("web-1/cart",)), ENTRIES) == [
        Target("web-1", "cart", "web-1/cart", service="cart", zone="a", generation=7, weight=100)
    ]


def test_names_and_globs_choose_services_nodes_units_and_instances() -> None:
    assert chosen(services=("cart",)) == ["web-1/cart", "web-2/cart"]
    assert chosen(services=("*",)) == ["web-1/cart", "web-2/cart", "web-1/pay:0", "web-1/pay:1"]
    assert chosen(nodes=("web-2",)) == ["web-2/cart"]
    assert chosen(units=("pay:?", "cart")) == ["web-1/cart", "web-2/cart", "web-1/pay:0", "web-1/pay:1"]
    assert chosen(instances=("web-1/*:1",)) == ["web-1/pay:1"]


def test_a_name_with_a_bracket_means_itself() -> None:
    odd = entry("web-1", unit="cart[1]")
    assert names(choose(Selection(units=("cart[1]",)), [odd])) == ["web-1/cart[1]"]


def test_what_is_given_must_all_hold() -> None:
    assert chosen(services=("cart",), nodes=("web-1",)) == ["web-1/cart"]
    assert chosen(nodes=("web-*",), labels={"team": "shop", "version": "1.3"}) == ["web-2/cart"]
    assert chosen(labels={"zone": "a"}) == ["web-1/cart"]
    message = refusal("restart", services=("pay",), nodes=("web-2",), labels={"team": "shop"})
    assert "no registered unit is all of that: service pay, node web-2, label team=shop" in message


def test_daemons_are_no_units() -> None:
    assert "no unit in the registry is called unitd" in refusal("restart", units=("unitd",))
    assert "no service in the registry is called unitd" in refusal("restart", services=("unitd",))
    assert "no registered unit is all of that: node db-1" in refusal("drain", nodes=("db-1",))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"services": ("cart", "pya")}, "no service in the registry is called pya (did you mean pay?)"),
        ({"services": ("zzz*",)}, "no service in the registry matches zzz*"),
        ({"nodes": ("wbe-1",)}, "no node in the registry is called wbe-1 (did you mean web-1?)"),
        ({"units": ("pay:7",)}, "no unit in the registry is called pay:7 (did you mean pay:1?)"),
        ({"units": ("zzz",)}, "what is stopped or drained is in no registry"),
        ({"instances": ("web-1/crat",)}, "did you mean web-1/cart?"),
        ({"labels": {"taem": "shop"}}, "no unit has the label taem (did you mean team?)"),
        ({"labels": {"qqqq": "shop"}}, "no unit has the label qqqq"),
        ({"labels": {"team": "shpo"}}, "no unit has the label team=shpo (did you mean shop?)"),
        ({"labels": {"version": "99"}}, "no unit has the label version=99"),
    ],
)
def test_what_nothing_bears_is_refused_with_the_nearest_name(what: dict[str, Any], words: str) -> None:
    assert words in refusal("restart", **what)


def test_of_very_many_names_one_that_begins_alike_is_nearest() -> None:
    fleet = fleet_of(*(entry(f"web-{number}") for number in range(5000)))
    assert "did you mean web-4711?" in refusal("drain", fleet, nodes=("web-4711x",))


def test_a_label_that_no_unit_has_is_refused_though_it_could_be_a_field() -> None:
    assert refusal("restart", fleet_of(entry("web-1")), labels={"zone": "a"}) == "no unit has the label zone"


@pytest.mark.parametrize("verb", ["restart", "apply"])
def test_a_selection_that_says_nothing_is_refused(verb: str) -> None:
    with pytest.raises(BadRequest, match="would mean everything") as caught:
        select(verb, Selection(), FLEET)
    assert caught.value.status == 400


def test_named_units_of_named_nodes_need_no_entry() -> None:
    found = select("start", Selection(nodes=("web-1", "db-1"), units=("cart", "batch")), FLEET)
    assert names(found) == ["db-1/batch", "db-1/cart", "web-1/batch", "web-1/cart"]
    assert found[0] == Target("db-1", "batch", "db-1/batch")
    assert (found[3].service, found[3].generation) == ("cart", 7)


def test_patterns_of_units_and_nodes_mean_what_is_registered() -> None:
    assert names(targets_on_nodes(Selection(nodes=("*",), units=("cart",)), FLEET)) == ["web-1/cart", "web-2/cart"]
    assert names(targets_on_nodes(Selection(nodes=("web-1",), units=("pay:*",)), FLEET)) == [
        "web-1/pay:0",
        "web-1/pay:1",
    ]
    assert "no registered unit is all of that: node db-*, unit cart" in refusal(
        "start", nodes=("db-*",), units=("cart",)
    )
    assert "no node in the registry is called db-2 (did you mean db-1?)" in refusal(
        "start", nodes=("db-2",), units=("a",)
    )


def test_named_units_with_more_conditions_must_be_registered() -> None:
    selection = Selection(services=("pay",), nodes=("web-1",), units=("pay:0",))
    assert names(select("stop", selection, FLEET)) == ["web-1/pay:0"]
    assert "no unit in the registry is called batch" in refusal(
        "stop", services=("*",), nodes=("web-1",), units=("batch",)
    )


def test_a_node_is_known_by_its_units_too() -> None:
    fleet = fleet_of(entry("web-1"))
    assert names(select("stop", Selection(nodes=("web-1",), units=("batch",)), fleet)) == ["web-1/batch"]


def test_configuration_is_for_nodes() -> None:
    found = select("apply", Selection(nodes=("web-*",)), FLEET)
    assert found == [Target("web-1", "", "web-1", zone="a"), Target("web-2", "", "web-2", zone="b")]
    assert names(nodes_for_apply(Selection(labels={"rack": "r1"}), FLEET)) == ["web-1"]
    assert names(nodes_for_apply(Selection(services=("cart",)), FLEET)) == ["web-1", "web-2"]
    assert "no node in the registry is called web-9" in refusal("apply", nodes=("web-9",))
    assert "no node has the label rack=r7" in refusal("apply", labels={"rack": "r7"})
    assert "no registered node is all of that: node db-1, label rack=r1" in refusal(
        "apply", nodes=("db-1",), labels={"rack": "r1"}
    )


def test_units_of_a_node_that_is_not_registered_cannot_be_reached_for_configuration() -> None:
    assert "no registered node" in refusal("apply", fleet_of(entry("web-1")), services=("cart",))
