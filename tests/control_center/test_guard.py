"""guard.py and what it stands on: when reports are reason enough for a restart."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_center.guard import ASK, Case, GuardPolicy, Voice, Word, decide, unavailable_allowed
from control_center.guard_evidence import Evidence, weigh
from control_center.guard_limits import HEALTHY_SECONDS, Budgets, History, Limit
from control_center.model import Decision, Mode, Report, Verdict, to_json
from registry_client.model import Entry
from tests.control_center.entries import entry

NOW = 1_800_000_000.0
POLICY = GuardPolicy()
ENTRY = entry("web-1", generation=7, warmup_seconds=0)


def voice(gateway: str = "gw-1", generation: int = 7, doubt: str = "") -> Voice:
    return Voice(gateway, generation, "connect_refused", 12, 1.0, "", doubt)


BOTH = (voice("gw-1"), voice("gw-2"))
DOUBTED = (voice("gw-1", doubt="accuses 5 of 6 backends"),)


def case(**more: Any) -> Case:
    """Two gateways report an instance that is up; nothing speaks against a restart."""
    values: dict[str, Any] = {
        "now": NOW, "service": "cart", "instance": "web-1/cart", "mode": Mode.ASSIST, "entry": ENTRY, "voices": BOTH,
        "gateways": 2, "word": Word.UNHEALTHY, "word_detail": "its readiness probe fails", "instances": 8,
    }  # fmt: skip
    return Case(**values | more)


def spent(*scopes: str) -> Budgets:
    """Budgets with nothing left in these."""
    budgets = Budgets()
    for scope in scopes:
        limit = POLICY.limit(scope)
        for _ in range(limit.burst):
            budgets.take(limit, NOW)
    return budgets


def restarted(*seconds_ago: float, fatal: bool = False) -> History:
    return History(tuple(NOW - each for each in seconds_ago), NOW - 1 if fatal else None, NOW)


DRAINING = replace(ENTRY, status="draining")
RULES: list[tuple[str, dict[str, Any], Verdict, str]] = [
    ("not in the registry", {"entry": None}, Verdict.REFUSE, "unknown_instance"),
    ("about an older life", {"voices": (voice(generation=6),)}, Verdict.REFUSE, "generation"),
    ("about a life to come", {"voices": (voice(generation=8),)}, Verdict.WAIT, "generation"),
    ("restarted since, says its node", {"word": Word.NEWER}, Verdict.REFUSE, "generation"),
    ("draining", {"entry": DRAINING, "word": Word.BUSY}, Verdict.REFUSE, "not_up"),
    ("gone", {"has_left": True, "word": Word.HEALTHY}, Verdict.REFUSE, "not_up"),
    ("draining, and nobody was asked why", {"entry": DRAINING, "word": Word.NOT_ASKED}, Verdict.WAIT, ASK),
    ("draining, for its probe fails", {"entry": DRAINING, "word": Word.UNHEALTHY}, Verdict.RESTART, "quorum"),
    ("gone, for its probe fails", {"has_left": True, "voices": BOTH[:1]}, Verdict.RESTART, "node_agrees"),
    ("its own operation", {"operation": "fo-1", "operation_is_own": True}, Verdict.REFUSE, "under_way"),
    ("its service's operation", {"operation": "fo-1"}, Verdict.WAIT, "under_way"),
    ("its node is at it", {"word": Word.BUSY}, Verdict.REFUSE, "under_way"),
    ("doubted, and healthy", {"voices": DOUBTED, "word": Word.HEALTHY}, Verdict.REFUSE, "reporter"),
    ("doubted, and out of reach", {"voices": DOUBTED, "word": Word.UNREACHABLE}, Verdict.REFUSE, "reporter"),
    ("most of it looks dead", {"preserved": "6 of 8 look dead"}, Verdict.REFUSE, "self_preservation"),
    ("not asked yet", {"word": Word.NOT_ASKED}, Verdict.WAIT, ASK),
    ("its node is out of reach", {"word": Word.UNREACHABLE}, Verdict.WAIT, "node_unreachable"),
    ("one gateway, and healthy", {"voices": BOTH[:1], "word": Word.HEALTHY}, Verdict.REFUSE, "gateway_path_problem"),
    ("one gateway, its node cannot tell", {"voices": BOTH[:1], "word": Word.UNCLEAR}, Verdict.WAIT, "quorum"),
    ("fatal", {"history": restarted(3000, fatal=True)}, Verdict.FATAL, "fatal"),
    ("too often", {"history": restarted(500, 400, 300, 200, 100)}, Verdict.FATAL, "fatal"),
    ("too soon", {"history": restarted(59)}, Verdict.WAIT, "interval"),
    ("others are away", {"unavailable": 2}, Verdict.WAIT, "max_unavailable"),
    ("its service's budget", {"budgets": spent("service cart")}, Verdict.WAIT, "budget_service"),
    ("its node's budget", {"budgets": spent("node web-1")}, Verdict.WAIT, "budget_node"),
    ("the fleet's budget", {"budgets": spent("fleet")}, Verdict.WAIT, "budget_fleet"),
    ("only looking", {"mode": Mode.OBSERVE}, Verdict.WOULD_RESTART, "quorum"),
    ("nothing against it", {}, Verdict.RESTART, "quorum"),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "verdict", "rule"), [each[1:] for each in RULES], ids=[each[0] for each in RULES])
def test_each_rule_has_its_verdict_and_its_name(facts: dict[str, Any], verdict: Verdict, rule: str) -> None:
    decision = decide(case(**facts), POLICY)
    assert (decision.verdict, decision.rule) == (verdict, rule)
    assert decision.reason
    assert "\n" not in decision.reason


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({"entry": None}, {"operation": "fo-1"}),
        ({"voices": (voice(generation=6),)}, {"entry": replace(ENTRY, status="draining")}),
        ({"entry": DRAINING, "word": Word.BUSY}, {"operation": "fo-1", "operation_is_own": True}),
        ({"operation": "fo-1", "operation_is_own": True}, {"preserved": "most of it"}),
        ({"voices": DOUBTED, "word": Word.HEALTHY}, {"preserved": "most of it"}),
        ({"preserved": "most of it"}, {"word": Word.UNREACHABLE}),
        ({"word": Word.UNREACHABLE}, {"history": restarted(3000, fatal=True)}),
        ({"history": restarted(3000, fatal=True)}, {"history": restarted(3000, 59, fatal=True)}),
        ({"history": restarted(59)}, {"unavailable": 8}),
        ({"unavailable": 8}, {"budgets": spent("service cart", "node web-1", "fleet")}),
        ({"budgets": spent("service cart")}, {"budgets": spent("service cart", "node web-1", "fleet")}),
        ({"budgets": spent("node web-1")}, {"budgets": spent("node web-1", "fleet")}),
        ({"budgets": spent("fleet")}, {"mode": Mode.OBSERVE}),
    ],
)
def test_where_two_rules_have_an_answer_the_earlier_one_decides(earlier: dict[str, Any], later: dict[str, Any]) -> None:
    alone, both = decide(case(**earlier), POLICY), decide(case(**earlier | later), POLICY)
    assert (both.verdict, both.rule) == (alone.verdict, alone.rule)


@pytest.mark.parametrize(
    ("voices", "word", "verdicts"),  # in the modes observe, assist, full
    [
        (BOTH, Word.HEALTHY, "would restart restart"),
        (BOTH, Word.UNCLEAR, "would restart restart"),
        (BOTH, Word.UNHEALTHY, "would restart restart"),
        (BOTH, Word.UNREACHABLE, "wait wait wait"),
        (BOTH[:1], Word.UNHEALTHY, "would restart restart"),
        (BOTH[:1], Word.HEALTHY, "refuse refuse refuse"),
        (BOTH[:1], Word.UNCLEAR, "wait wait restart"),
        (BOTH[:1], Word.UNREACHABLE, "wait wait wait"),
        (DOUBTED, Word.UNHEALTHY, "would restart restart"),
        (DOUBTED, Word.UNCLEAR, "refuse refuse refuse"),
        (DOUBTED, Word.HEALTHY, "refuse refuse refuse"),
        ((DOUBTED[0], BOTH[1]), Word.HEALTHY, "refuse refuse refuse"),
        ((DOUBTED[0], BOTH[1]), Word.UNCLEAR, "wait wait restart"),
        (
            tuple(voice(f"gw-{number}", doubt="accuses all") for number in range(6)),
            Word.HEALTHY,
            "refuse refuse refuse",
        ),
    ],
)
def test_how_much_evidence_each_mode_needs(voices: tuple[Voice, ...], word: Word, verdicts: str) -> None:
    found = [decide(case(voices=voices, word=word, mode=mode), POLICY).verdict.value for mode in Mode]
    assert found == [{"would": "would_restart"}.get(each, each) for each in verdicts.split()]


def test_reports_about_an_older_life_do_not_count_beside_others() -> None:
    mixed = case(voices=(voice("gw-1"), voice("gw-2", generation=6)), word=Word.HEALTHY)
    assert decide(mixed, POLICY).rule == "gateway_path_problem"
    assert mixed.heard == 1


@pytest.mark.parametrize(
    ("quorum", "gateways", "needed"), [(2, 1, 2), (2, 9, 2), (3, 3, 2), (3, 9, 3), (9, 4, 3), (9, 5, 3), (1, 5, 1)]
)
def test_a_quorum_or_more_than_half_of_the_gateways_and_never_one_of_few(
    quorum: int, gateways: int, needed: int
) -> None:
    assert GuardPolicy(quorum=quorum).needed(gateways) == needed


@pytest.mark.parametrize(
    ("restarts", "seconds"), [(1, 60), (2, 60), (3, 60), (4, 80), (5, 160), (6, 300), (20, 300), (200, 300)]
)
def test_the_more_restarts_the_longer_the_wait_up_to_a_limit(restarts: int, seconds: float) -> None:
    policy = replace(POLICY, fatal_restarts=10_000)
    history = restarted(*(1000.0 + number for number in range(restarts - 1, 0, -1)), 0)
    decision = decide(case(history=history), policy)
    assert (decision.rule, decision.evidence["again_seconds"]) == ("interval", pytest.approx(seconds))
    later = decide(case(history=history, now=NOW + seconds), policy)
    assert later.verdict is Verdict.RESTART


def test_a_unit_that_warms_up_for_long_is_not_restarted_before_it_is_warm() -> None:
    slow = replace(ENTRY, warmup_seconds=500)
    assert decide(case(entry=slow, history=restarted(499)), POLICY).rule == "interval"
    assert decide(case(entry=slow, history=restarted(500)), POLICY).verdict is Verdict.RESTART


def test_restarts_are_forgotten_after_ten_healthy_minutes_and_being_fatal_is_not() -> None:
    history = History((NOW - 5000, NOW - 700), NOW - 700, blamed=NOW - HEALTHY_SECONDS + 1)
    assert history.at(NOW).restarts == history.restarts
    assert history.at(NOW + 1).restarts == ()
    assert history.at(NOW + 1).fatal_since == NOW - 700


@pytest.mark.parametrize(("instances", "allowed"), [(1, 1), (3, 1), (4, 1), (8, 2), (11, 2), (100, 25)])
def test_a_quarter_of_a_service_may_be_away_and_always_one(instances: int, allowed: int) -> None:
    assert unavailable_allowed(instances, 25) == allowed
    at_limit = case(instances=instances, unavailable=allowed)
    assert decide(at_limit, POLICY).rule == "max_unavailable"
    assert decide(replace(at_limit, unavailable=allowed - 1), POLICY).verdict is Verdict.RESTART


def test_the_only_instance_of_a_service_may_be_restarted() -> None:
    assert decide(case(instances=1), POLICY).verdict is Verdict.RESTART


def test_a_waiting_case_says_when_to_look_again_and_then_it_is_time() -> None:
    waiting = case(budgets=spent("service cart"))
    seconds = decide(waiting, POLICY).evidence["again_seconds"]
    assert seconds == pytest.approx(30)
    assert decide(replace(waiting, now=NOW + seconds + 0.001), POLICY).verdict is Verdict.RESTART


def test_a_budget_of_nothing_is_never_refilled() -> None:
    policy = replace(POLICY, fleet_per_minute=0, fleet_burst=0)
    decision = decide(case(), policy)
    assert (decision.rule, decision.evidence["again_seconds"]) == ("budget_fleet", None)
    assert "never" in decision.reason


def test_the_evidence_holds_what_the_decision_was_made_from() -> None:
    evidence = decide(case(budgets=spent("node web-1"), history=restarted(400, 100), unavailable=1), POLICY).evidence
    assert evidence["mode"] == "assist"
    assert [each["gateway"] for each in evidence["reports"]] == ["gw-1", "gw-2"]
    assert evidence["reports"][0]["symptom"] == "connect_refused"
    assert (evidence["heard"], evidence["needed"], evidence["gateways"]) == (2, 2, 2)
    assert evidence["node"] == {"word": "unhealthy", "detail": "its readiness probe fails"}
    assert evidence["registry"] == {"generation": 7, "status": "up", "weight": 100}
    assert (evidence["instances"], evidence["unavailable"], evidence["unavailable_allowed"]) == (8, 1, 2)
    assert (evidence["restarts"], evidence["last_restart_seconds_ago"]) == (2, 100)
    assert evidence["budgets"] == {"service cart": 2, "node web-1": 0, "fleet": 10}


@pytest.mark.parametrize("facts", [each[1] for each in RULES], ids=[each[0] for each in RULES])
def test_every_decision_can_be_kept_as_json(facts: dict[str, Any]) -> None:
    plain = to_json(decide(case(**facts), POLICY))
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


# Budgets.


def test_budgets_are_the_same_after_they_were_kept() -> None:
    limit = Limit("fleet", 6, 3)
    budgets = spent("service cart")
    budgets.take(limit, NOW)
    again = Budgets()
    again.load("fleet", json.loads(json.dumps(budgets.to_json("fleet"))))
    for later in (0, 1, 10, 1000):
        assert again.tokens(limit, NOW + later) == pytest.approx(budgets.tokens(limit, NOW + later))
    assert budgets.to_json("node web-9") is None
    assert again.scopes == ("fleet",)


def test_a_clock_that_is_set_back_neither_earns_nor_loses_anything() -> None:
    limit, budgets = Limit("fleet", 6, 3), Budgets()
    budgets.take(limit, NOW)
    assert budgets.tokens(limit, NOW - 3600) == 2
    budgets.take(limit, NOW - 3600)
    assert budgets.tokens(limit, NOW - 3600) == 1
    assert budgets.wait_seconds(limit, NOW - 3600) == 0


def test_a_policy_that_became_stricter_binds_at_once() -> None:
    budgets = Budgets()
    budgets.load("fleet", {"tokens": 9, "at": NOW})
    assert budgets.tokens(Limit("fleet", 30, 4), NOW) == 4


def test_what_is_given_back_can_be_taken_again() -> None:
    limit, budgets = Limit("fleet", 1, 1), Budgets()
    budgets.take(limit, NOW)
    assert budgets.wait_seconds(limit, NOW) == pytest.approx(60)
    budgets.give_back(limit, NOW)
    assert budgets.wait_seconds(limit, NOW) == 0


def test_a_history_is_the_same_after_it_was_kept() -> None:
    history = restarted(30, 20, fatal=True)
    again = History.from_json(json.loads(json.dumps(history.to_json())))
    assert (again.restarts, again.fatal_since) == (history.restarts, history.fatal_since)


@given(
    st.lists(
        st.tuples(st.floats(0, 90), st.integers(0, 3), st.integers(0, 4), st.sampled_from(list(Word))), max_size=150
    ),
    st.integers(1, 4),
    st.floats(0.5, 20),
)
def test_never_more_restarts_within_any_time_than_the_budgets_allow(
    reports: list[tuple[float, int, int, Word]], burst: int, per_minute: float
) -> None:
    policy = GuardPolicy(
        service_per_minute=per_minute, service_burst=burst, node_per_minute=per_minute * 2, node_burst=burst + 1,
        fleet_per_minute=per_minute * 3, fleet_burst=burst + 2, min_interval_seconds=0, backoff_initial=0,
        fatal_restarts=10_000,
    )  # fmt: skip
    budgets, now, done = Budgets(), NOW, dict[str, list[float]]()
    for seconds, service, node, word in reports:
        now += seconds
        found = entry(f"web-{node}", f"s{service}", warmup_seconds=0, generation=7)
        judged = case(now=now, service=found.service, instance=found.instance, entry=found, budgets=budgets, word=word)
        if decide(judged, policy).verdict is Verdict.RESTART:
            for limit in policy.limits(found.service, found.node).values():
                budgets.take(limit, now)
                done.setdefault(limit.scope, []).append(now)
    for scope, times in done.items():
        limit = policy.limit(scope)
        for first in range(len(times)):
            for last in range(first, len(times)):
                allowed = limit.burst + (times[last] - times[first]) * limit.per_minute / 60
                assert last - first + 1 <= allowed + 1e-6


# What all reports together say.


def report(gateway: str, node: str, service: str = "cart", **more: Any) -> Report:
    values: dict[str, Any] = {
        "generation": 1, "symptom": "connect_timeout", "count": 3, "first_seen": "2026-11-24T10:00:00.000Z",
        "backends": 20, "service_backends": 6,
    }  # fmt: skip
    return Report(gateway=gateway, service=service, instance=f"{node}/{service}", **values | more)


CARTS = {("cart", f"web-{number}/cart"): entry(f"web-{number}") for number in range(6)}
PAYS = {("pay", f"web-{number}/pay"): entry(f"web-{number}", "pay") for number in range(6)}


def weighed(
    reports: Iterable[Report], gateways: int = 3, ago: float = 1.0, entries: dict[tuple[str, str], Entry] = CARTS
) -> Evidence:
    kept = [(each, NOW - 60, NOW - ago) for each in reports]
    known = {name: gateways for name, _ in entries}
    return weigh(kept, entries, known, POLICY, NOW)


def test_reports_of_one_instance_come_together() -> None:
    evidence = weighed([report("gw-2", "web-1"), report("gw-1", "web-1"), report("gw-1", "web-2")])
    assert [each.gateway for each in evidence.voices["cart", "web-1/cart"]] == ["gw-1", "gw-2"]
    assert [each.seconds_ago for each in evidence.voices["cart", "web-2/cart"]] == [1.0]
    assert not evidence.doubts
    assert not evidence.preserved


@pytest.mark.parametrize(("ago", "counts"), [(0, True), (14.9, True), (15.1, False)])
def test_a_report_counts_within_the_window_only(ago: float, counts: bool) -> None:
    assert bool(weighed([report("gw-1", "web-1")], ago=ago).voices) is counts


def test_a_report_that_is_taken_back_does_not_count() -> None:
    assert not weighed([report("gw-1", "web-1", state="cleared")]).voices


@pytest.mark.parametrize(
    ("accused", "backends", "doubt"),
    [
        (2, 3, ""), (3, 10, ""), (3, 9, "accuses 3 of 9 backends"), (3, 0, "accuses 3 of 6 backends"),
        (4, 100, "accuses 4 of 6 instances of cart"),
    ],
)  # fmt: skip
def test_a_gateway_that_accuses_too_many_is_doubted(accused: int, backends: int, doubt: str) -> None:
    reports = [report("gw-1", f"web-{number}", backends=backends) for number in range(accused)]
    evidence = weighed([*reports, report("gw-2", "web-0")])
    assert evidence.doubts == ({"gw-1": doubt} if doubt else {})
    assert {each.doubt for each in evidence.voices["cart", "web-0/cart"]} == {doubt, ""}


def test_a_gateway_is_not_doubted_for_the_only_instance_of_a_service() -> None:
    alone = {("pay", "web-1/pay"): entry("web-1", "pay")}
    assert not weighed([report("gw-1", "web-1", "pay", service_backends=1)], entries=alone).doubts


def test_a_gateway_cannot_excuse_itself_with_instances_that_do_not_exist() -> None:
    reports = [report("gw-1", f"web-{number}", backends=10_000, service_backends=10_000) for number in range(5)]
    assert weighed(reports).doubts == {"gw-1": "accuses 5 of 6 instances of cart"}


def test_accusations_of_what_has_gone_drains_or_lives_anew_say_nothing_of_the_gateway() -> None:
    entries = CARTS | {("cart", "web-1/cart"): entry("web-1", generation=2)}
    entries |= {("cart", "web-2/cart"): entry("web-2", status="draining", weight=0)}
    reports = [report("gw-1", f"web-{number}", backends=6) for number in (0, 1, 2)]
    reports += [report("gw-1", f"old-{number}", backends=6) for number in range(9)]
    assert not weighed(reports, entries=entries).doubts


@pytest.mark.parametrize(
    ("dead", "by", "gateways", "frozen"),
    [(4, 2, 3, True), (3, 2, 3, False), (4, 1, 3, False), (4, 1, 1, True), (6, 1, 2, False), (6, 2, 2, True)],
)
def test_a_service_that_most_gateways_find_mostly_dead_is_left_alone(
    dead: int, by: int, gateways: int, frozen: bool
) -> None:
    reports = [report(f"gw-{gateway}", f"web-{number}") for gateway in range(by) for number in range(dead)]
    preserved = weighed(reports, gateways).preserved
    assert (list(preserved) == ["cart"]) is frozen
    if frozen:
        assert f"{dead} of 6 instances of cart look dead" in preserved["cart"]


def test_the_only_instance_of_a_service_is_no_majority() -> None:
    alone = {("pay", "web-1/pay"): entry("web-1", "pay")}
    assert not weighed([report("gw-1", "web-1", "pay")], 1, entries=alone).preserved


def test_one_service_is_frozen_and_another_is_not() -> None:
    reports = [report(f"gw-{gateway}", f"web-{number}", backends=60) for gateway in (1, 2) for number in range(5)]
    reports += [report(f"gw-{gateway}", "web-0", "pay", backends=60) for gateway in (3, 4)]
    evidence = weighed(reports, 2, entries=CARTS | PAYS)
    assert list(evidence.preserved) == ["cart"]
    assert set(evidence.doubts) == {"gw-1", "gw-2"}


def decision_on(reports: Iterable[Report], word: Word, node: str = "web-0", gateways: int = 3) -> Decision:
    """What becomes of these about one instance."""
    evidence = weighed(reports, gateways)
    key = ("cart", f"{node}/cart")
    judged = case(
        instance=key[1], entry=CARTS[key], voices=evidence.voices[key], gateways=gateways, word=word,
        preserved=evidence.preserved.get("cart", ""),
    )  # fmt: skip
    return decide(judged, POLICY)


def test_a_gateway_whose_network_is_cut_restarts_nothing() -> None:
    cut = [report("gw-1", f"web-{number}", backends=6) for number in range(6)]
    for number in range(6):
        decision = decision_on(cut, Word.HEALTHY, f"web-{number}")
        assert (decision.verdict, decision.rule) == (Verdict.REFUSE, "reporter")


def test_a_dead_unit_is_restarted_although_another_gateway_accuses_everything() -> None:
    cut = [report("gw-1", f"web-{number}", backends=6) for number in range(6)]
    decision = decision_on([*cut, report("gw-2", "web-0"), report("gw-3", "web-0")], Word.HEALTHY)
    assert (decision.verdict, decision.rule) == (Verdict.RESTART, "quorum")
