"""Every verb, for every kind of selection: what the store keeps of it, and what has become of the units."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.fleet.center import Center, explain
from tests.end_to_end.fleet.nodes import ALONE, LIGHT, Fleet, more_lives
from tests.end_to_end.fleet.watching import watched
from tests.end_to_end.host import Json
from tests.end_to_end.machine import state_of, until

pytestmark = pytest.mark.timeout(60)

SERVICES = ("cart", "stock")
NODES = ("n0", "n1", "n2", "n3")
AT_ONCE = {"strategy": None}


@pytest.fixture(scope="module")
def center() -> Iterator[Center]:
    center = Center(ttl_seconds=2.0)
    center.configure()
    center.run()
    yield center
    center.close()


@pytest.fixture(scope="module")
def whole(center: Center) -> Iterator[Fleet]:
    """Zones z0 and z1, teams t0 and t1, in turn."""
    fleet = Fleet(center, len(NODES))
    fleet.configure(SERVICES, command=ALONE, settings=LIGHT)
    try:
        fleet.run()
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def fleet(whole: Fleet) -> Fleet:
    """All of it at full weight."""
    for service in SERVICES:
        whole.until_warm(service)
    return whole


def on(service: str, *nodes: str) -> set[str]:
    return {f"{node}/{service}" for node in nodes}


def targets(operation: Json) -> set[str]:
    return {target["instance"] for target in operation["targets"]}


def states(fleet: Fleet, unit: str, *nodes: str) -> set[str]:
    return {fleet.host(node).unit(unit)["state"] for node in nodes or NODES}


def instances(center: Center, service: str) -> set[str]:
    return {entry["instance"] for entry in center.entries(service)}


def assert_kept(center: Center, operation: Json) -> None:
    """The store has the outcome of each target, and the audit log who began it and why."""
    kept = center.operation(operation["id"])
    assert {target["state"] for target in kept["targets"]} == {"succeeded"}, explain(kept)
    assert kept["counts"] == {"succeeded": len(kept["targets"])}
    audited = [record for record in center.get("/v1/audit?limit=50")["records"] if operation["id"] in str(record)]
    assert audited, "begun by somebody"


# Selections.


def test_a_dry_run_changes_nothing_and_says_what_then_happens(center: Center, fleet: Fleet) -> None:
    before, known = fleet.lives(), center.get("/v1/operations")["operations"]
    seq = last_event(center)
    asked = {
        "verb": "restart", "selection": {"services": list(SERVICES)}, "reason": "a test",
        "strategy": {"batch": "50%", "canary": 1, "bake_seconds": 0, "floor_percent": 25, "by_zone": True},
    }  # fmt: skip
    answer = center.ask("POST", "/v1/operations", {**asked, "dry_run": True})
    assert answer.status == 200, answer
    planned = answer.json
    assert planned["id"] == "" and planned["state"] == "pending"
    assert center.get("/v1/operations")["operations"] == known and last_event(center) == seq
    assert fleet.lives() == before
    ended = center.follow(center.ask("POST", "/v1/operations", asked).json["id"])
    assert ended["state"] == "succeeded", explain(ended)

    def plan(operation: Json) -> Json:
        return (
            [(batch["number"], batch["name"]) for batch in operation["batches"]],
            [(target["instance"], target["batch"], target["generation"]) for target in operation["targets"]],
        )

    assert plan(planned) == plan(ended)
    assert more_lives(before, fleet.lives()) == dict.fromkeys(before, 1)


def last_event(center: Center) -> str:
    """The number of the last one about an operation."""
    told = center.ask("GET", "/v1/events?since=0&follow=0").body.decode().split("\n\n")
    operations = [event for event in told if "event: operation" in event]
    return operations[-1].split("\n")[0] if operations else ""


def test_a_restart_by_zone_reaches_that_zone_only_and_all_of_a_zone_before_the_next(
    center: Center, fleet: Fleet
) -> None:
    before = fleet.lives()
    ended = center.do("restart", {"services": ["cart"], "labels": {"zone": "z1"}}, **AT_ONCE)
    assert targets(ended) == on("cart", "n1", "n3")
    assert more_lives(before, fleet.lives()) == dict.fromkeys(targets(ended), 1)
    assert_kept(center, ended)
    fleet.until_warm("cart")
    rolled = center.do(
        "restart", {"services": ["cart"]},
        strategy={"batch": "1", "canary": 0, "bake_seconds": 0, "floor_percent": 50, "by_zone": True},
    )  # fmt: skip
    by_time = sorted(rolled["targets"], key=lambda target: target["started"])
    assert [target["zone"] for target in by_time] == ["z0", "z0", "z1", "z1"]
    ends = [max(each["finished"] for each in by_time[:2]), min(each["started"] for each in by_time[2:])]
    assert ends == sorted(ends), "the first zone is through"


def test_a_selection_by_labels_takes_what_bears_all_of_them(center: Center, fleet: Fleet) -> None:
    before = fleet.lives()
    ended = center.do("restart", {"labels": {"team": "t0", "zone": "z0"}, "units": ["st*"]}, **AT_ONCE)
    assert targets(ended) == on("stock", "n0", "n2")
    assert more_lives(before, fleet.lives()) == dict.fromkeys(targets(ended), 1)
    refused = center.ask(
        "POST", "/v1/operations", {"verb": "stop", "selection": {"labels": {"team": "t9"}}, "reason": ""}
    )
    assert (refused.status, refused.json["code"]) == (422, "nothing_selected")


# Verbs.


def test_a_host_is_drained_and_comes_back(center: Center, fleet: Fleet) -> None:
    before = fleet.lives()
    ended = center.do("drain", {"nodes": ["n1"]}, parameters={"owner": "a person"}, **AT_ONCE)
    assert targets(ended) == on("cart", "n1") | on("stock", "n1")
    assert {unit["state"] for unit in fleet.host("n1").units().values()} == {"DRAINED"}
    assert fleet.host("n1").unit("cart")["maintenance"]["owner"] == "a person"
    assert instances(center, "cart") == on("cart", "n0", "n2", "n3")
    assert_kept(center, ended)
    back = center.do("undrain", {"nodes": ["n1"]}, **AT_ONCE)
    assert targets(back) == targets(ended)
    assert_kept(center, back)
    for service in SERVICES:
        fleet.until_warm(service)
    assert fleet.lives() == before, "the processes have lived on"


def test_a_service_is_stopped_and_started_again(center: Center, fleet: Fleet) -> None:
    before = fleet.lives()
    ended = center.do("stop", {"services": ["stock"]}, **AT_ONCE)
    assert targets(ended) == on("stock", *NODES)
    assert states(fleet, "stock") == {"STOPPED"} and instances(center, "stock") == set()
    assert states(fleet, "cart") == {"RUNNING"}
    assert_kept(center, ended)
    back = center.do("start", {"services": ["stock"]}, **AT_ONCE)
    assert targets(back) == targets(ended)
    assert_kept(center, back)
    fleet.until_warm("stock")
    assert more_lives(before, fleet.lives()) == dict.fromkeys(on("stock", *NODES), 1)


def test_a_floor_that_a_stop_would_break_is_refused_before_anything_happens(center: Center, fleet: Fleet) -> None:
    before = fleet.lives()
    body = {"verb": "stop", "selection": {"services": ["cart"]}, "strategy": {"floor_percent": 50}, "reason": ""}
    refused = center.ask("POST", "/v1/operations", body)
    assert (refused.status, refused.json["code"], refused.json["service"]) == (422, "floor", "cart")
    assert fleet.lives() == before and states(fleet, "cart") == {"RUNNING"}


def test_a_weight_holds_until_it_is_given_back(center: Center, fleet: Fleet) -> None:
    ended = center.do("weight", {"instances": ["n2/cart"]}, parameters={"weight": 40}, **AT_ONCE)
    assert_kept(center, ended)
    until("it is in the registry", lambda: weights(center, "cart")["n2/cart"] == 40)
    assert {name: weight for name, weight in weights(center, "cart").items() if weight != 100} == {"n2/cart": 40}
    center.do("weight", {"instances": ["n2/cart"]}, parameters={"weight": "auto"}, **AT_ONCE)
    fleet.until_warm("cart")


def weights(center: Center, service: str) -> dict[str, int]:
    return {entry["instance"]: entry["weight"] for entry in center.entries(service)}


def test_a_signal_reaches_the_process(center: Center, fleet: Fleet) -> None:
    pid = fleet.host("n0").unit("cart")["pid"]
    ended = center.do("signal", {"instances": ["n0/cart"]}, parameters={"signal": "STOP"}, **AT_ONCE)
    until("it is stopped", lambda: state_of(pid) == "T")
    assert_kept(center, ended)
    # By its node and name: it does not answer, so by now it may have left the registry.
    center.do("signal", {"nodes": ["n0"], "units": ["cart"]}, parameters={"signal": "CONT"}, **AT_ONCE)
    until("it goes on", lambda: state_of(pid) == "S")
    assert fleet.host("n0").unit("cart")["pid"] == pid
    fleet.until_warm("cart")


def test_a_warm_start_has_the_ramp_that_was_asked_for(center: Center, fleet: Fleet) -> None:
    before = fleet.lives()
    with watched(center.url, ()) as outside:
        ended = center.do(
            "warm", {"instances": ["n3/cart"]}, parameters={"initial": 10, "step": 30, "period": 0.3}, **AT_ONCE
        )
        until("it is at full weight again", lambda: outside.weights("n3/cart")[-2:] == [70, 100])
    assert outside.weights("n3/cart") == [100, 10, 40, 70, 100], "as the registry's watch showed it"
    assert fleet.lives() == before
    assert_kept(center, ended)


def test_a_changed_configuration_is_applied_on_all_nodes(center: Center, fleet: Fleet) -> None:
    before = fleet.lives()
    fleet.configure(SERVICES, command=ALONE, settings={"cart": LIGHT + 'environment = { NEW = "1" }\n', "stock": LIGHT})
    ended = center.do("apply", {"nodes": ["*"]}, **AT_ONCE)
    assert targets(ended) == set(NODES)
    assert_kept(center, ended)
    fleet.until_warm("cart")
    assert more_lives(before, fleet.lives()) == dict.fromkeys(on("cart", *NODES), 1), "of what has changed"


def test_a_wrong_configuration_fails_on_its_node_and_changes_nothing(center: Center, fleet: Fleet) -> None:
    before, config = fleet.lives(), fleet.host("n2").config
    right = config.read_text()
    config.write_text(right + "colour = 1\n")
    try:
        ended = center.follow(center.begin("apply", {"nodes": ["*"]}, **AT_ONCE)["id"])
    finally:
        config.write_text(right)
    assert ended["state"] == "failed" and ended["counts"] == {"succeeded": 3, "failed": 1}, explain(ended)
    (failed,) = [target for target in ended["targets"] if target["state"] == "failed"]
    assert failed["node"] == "n2" and "n2" in failed["detail"]
    assert fleet.lives() == before
