"""What people see of a fleet: pure functions from the API's objects to text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from supervisor.unitctl.fleet_live import Changes, picture
from supervisor.unitctl.fleet_render import event_line, instances_text, nodes_text, service_text
from supervisor.unitctl.fleet_render_operations import most_at_once, outcome_line, plan_text, subject
from supervisor.unitctl.fleet_table import Column, Look, bar, table
from supervisor.unitctl.words import columns, cut, width

NOW = datetime(2026, 11, 24, 8, 1, 5, tzinfo=UTC)
AT = "2026-11-24T08:00:00.000Z"
Raw = dict[str, Any]


def entry(name: str = "web-1/cart:0", **more: Any) -> Raw:
    return {
        "instance": name, "node": name.partition("/")[0], "status": "up", "weight": 100, "full_weight": 100,
        "generation": 7, "started_at": AT, "zone": "a", "version": "1.4.2", "address": "10.0.0.7", "port": 9080,
        "operation": None, "reports": 0, **more,
    }  # fmt: skip


def target(name: str, state: str = "pending", **more: Any) -> Raw:
    return {"node": name.partition("/")[0], "instance": name, "service": "cart", "batch": 0, "state": state,
            "steps": "", "detail": "", "weight": 100, **more}  # fmt: skip


def operation(*targets: Raw, batches: tuple[str, ...] = ("running",), **more: Any) -> Raw:
    counts: dict[str, int] = {}
    for each in targets:
        counts[each["state"]] = counts.get(each["state"], 0) + 1
    return {
        "id": "fo-1", "verb": "restart", "services": ["cart"], "selection": {}, "state": "running", "created": AT,
        "started": AT, "finished": None, "deadline": "2026-11-24T09:00:00.000Z", "strategy": None, "baseline": {},
        "waiting_for": "", "error": None, "counts": counts, "targets": list(targets),
        "batches": [{"number": n, "name": f"batch {n}", "state": state} for n, state in enumerate(batches)], **more,
    }  # fmt: skip


# Tables.


def test_a_bar_is_full_only_if_it_is_all_and_empty_only_if_it_is_nothing() -> None:
    plain = Look(unicode=False)
    shown = [bar(part, 100, plain) for part in (0, 0.1, 50, 99.9, 100, 200)]
    assert shown == ["..........", "#.........", "#####.....", "#########.", "##########", "##########"]
    assert bar(0, 0, plain) == ".........."
    assert bar(50, 100, Look(), 4) == "██░░"


def test_wide_characters_keep_columns_aligned() -> None:
    assert (width("购物车"), width("é"), width("e\u0301"), width("ｆ")) == (6, 1, 1, 2)
    lines = columns([("购物车:0", "RUNNING", "x"), ("cart:0", "UP", "y")])
    assert [width(line[: line.index(end)]) for line, end in zip(lines, "xy", strict=True)] == [19, 19]
    first, second = instances_text([entry("節點/购物车:0"), entry()], NOW, Look()).splitlines()[1:]
    assert width(first[: first.index("up")]) == width(second[: second.index("up")])


@pytest.mark.parametrize(
    ("text", "room", "shown"),
    [
        ("cart", 4, "cart"),
        ("carts", 4, "car…"),
        ("购物车", 5, "购物…"),
        ("购物车", 4, "购…"),
        ("购", 1, "…"),
        ("a", 0, ""),
    ],
)
def test_a_text_is_cut_to_its_room(text: str, room: int, shown: str) -> None:
    assert cut(text, room) == shown and width(shown) <= max(room, 0)


@pytest.mark.parametrize("room", [1, 5, 20, 40, 60, 80, 100, 200])
def test_no_line_of_a_table_is_longer_than_the_terminal_is_wide(room: int) -> None:
    entries = [entry(f"web-{n}/购物车-with-a-long-name:{n}", status="draining", operation="fo-1") for n in range(3)]
    lines = instances_text(entries, NOW, Look(room)).splitlines()
    assert len(lines) == 4 and all(width(line) <= room for line in lines)


def test_what_matters_least_goes_first() -> None:
    wide, narrow = (instances_text([entry(reports=1)], NOW, Look(room)).splitlines()[0] for room in (200, 60))
    assert wide.split() == [
        "INSTANCE",
        "STATUS",
        "WEIGHT",
        "GENERATION",
        "UPTIME",
        "NODE",
        "ZONE",
        "VERSION",
        "ADDRESS",
        "NOTE",
    ]
    assert narrow.split() == ["INSTANCE", "STATUS", "WEIGHT", "GENERATION", "UPTIME", "ZONE"]


def test_colours_surround_the_words_and_nothing_else() -> None:
    text = nodes_text([{"node": "web-1", "state": "dead"}, {"node": "web-2", "state": "up"}], Look(color=True))
    assert text.splitlines()[1:] == ["web-1  \x1b[31mdead\x1b[0m", "web-2  \x1b[32mup\x1b[0m"]


def test_nothing_of_a_name_steers_the_terminal() -> None:
    text = table([Column("X", ["a\x1b[2Jb\nc"])], Look(color=True))
    assert "\x1b" not in text and text.count("\n") == 2


def test_instances_stand_in_the_order_of_their_numbers() -> None:
    entries = [entry(f"web-{number}/cart:0") for number in (10, 9, 1)]
    shown = [line.split()[0] for line in instances_text(entries, NOW, Look()).splitlines()[1:]]
    assert shown == ["web-1/cart:0", "web-9/cart:0", "web-10/cart:0"]


def test_what_is_not_known_is_left_empty() -> None:
    text = service_text({"service": "cart", "weight": 0, "full_weight": 0, "entries": [
        entry(zone=None, version=None, started_at="nonsense", address="")]}, NOW, Look())  # fmt: skip
    assert text.splitlines()[0] == "cart: ░░░░░░░░░░   0% (0/0), none"
    assert "None" not in text and "nonsense" not in text


# Operations.


@pytest.mark.parametrize(
    ("services", "selection", "words"),
    [
        (["cart", "pay"], {}, "restart of cart, pay"),
        ([], {"nodes": ["web-*"], "labels": {"team": "cart"}}, "restart of web-*, team=cart"),
    ],
)
def test_an_operation_is_called_after_what_it_is_about(services: list[str], selection: Raw, words: str) -> None:
    assert subject({**operation(), "services": services, "selection": selection}) == words


def test_a_plan_counts_how_many_the_floor_lets_out_whichever_they_are() -> None:
    targets = [target(f"web-{n}/cart:0", weight=weight) for n, weight in enumerate((100, 100, 50, 50))]
    strategy = {"floor_percent": 50, "bake_seconds": 0, "canary": 0, "target_seconds": 60, "max_failures": 1}
    text = plan_text(operation(*targets, strategy=strategy, baseline={"cart": 300}), {}, NOW)
    assert "floor: 50% of cart, 150 of 300, stays in the registry: 1 of 4 may be out at a time\n" in text
    assert "begins no target after 2026-11-24T09:00:00.000Z, in 0:58:55" in text
    assert "takes at least" not in text


def test_a_plan_names_no_more_of_a_batch_than_one_can_read() -> None:
    text = plan_text(operation(*(target(f"web-{n}/cart:0") for n in range(500))), {}, NOW)
    assert "web-7/cart:0, and 492 more\n" in text and len(text) < 1000


def test_how_many_go_at_once_is_the_largest_batch() -> None:
    assert most_at_once(operation(target("a", batch=0), target("b", batch=1), target("c", batch=1))) == 2
    assert most_at_once(operation()) == 0


def test_an_outcome_tells_how_many_and_how_long() -> None:
    ended = operation(target("a", "succeeded"), target("b", "failed"), state="failed", finished="2026-11-24T09:02:03Z",
                      error="1 failed\nnone may")  # fmt: skip
    assert outcome_line(ended) == "fo-1: restart of cart failed: 2 of 2 done, 1 failed in 1:02:03: 1 failed none may"


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 10, 100])
@pytest.mark.parametrize("room", [1, 20, 80])
def test_the_picture_of_an_operation_fits_any_terminal(rows: int, room: int) -> None:
    targets = [target(f"web-{n}/cart:0", "running", batch=n // 5, steps="waits " * 30) for n in range(20)]
    lines = picture(
        operation(*targets, batches=("succeeded", "running", "running", "pending"), waiting_for="x" * 99),
        NOW,
        room,
        rows,
    )
    assert 1 <= len(lines) <= rows
    assert all(width(line) <= room for line in lines)


def test_the_picture_shows_what_goes_on_and_what_is_waited_for() -> None:
    shown = operation(
        target("web-1/cart:0", "succeeded"),
        target("web-2/cart:0", "running", batch=1, steps="waiting for the work in flight"),
        target("web-10/cart:0", "confirming", batch=1),
        target("web-3/cart:0", "failed", batch=1, detail="given up"),
        target("web-4/cart:0", batch=2),
        batches=("succeeded", "running", "pending"), waiting_for="cart is at its floor",
    )  # fmt: skip
    assert picture(shown, NOW, 80, 24) == [
        "restart of cart: running 0:01:05, 2 of 5 done, 1 failed",
        "  batch 0  succeeded  1/1",
        "  batch 1  running    1/3",
        "    web-2/cart:0   waiting for the work in flight",
        "    web-10/cart:0  waits for the registry to show it",
        "    web-3/cart:0   failed: given up",
        "  batch 2  pending    0/1",
        "  waits: cart is at its floor",
    ]


def test_changes_of_many_targets_are_counted() -> None:
    changes = Changes()
    targets = [target(f"web-{n}/cart:0", "running") for n in range(50)]
    assert changes.of(operation(*targets)) == []
    targets[0]["state"], targets[1]["state"] = "succeeded", "failed"
    assert changes.of(operation(*targets)) == ["batch 0: 2 of 50 done, 1 failed"]
    assert changes.of(operation(*targets)) == []


def test_a_pause_and_its_end_are_told() -> None:
    changes = Changes()
    told = [
        changes.of(operation(target("a"), state=state))
        for state in ("running", "paused", "paused", "running", "running")
    ]
    assert told == [[], ["fo-1: paused"], [], ["fo-1: running"], []]


# Events.


@pytest.mark.parametrize(
    ("type_", "body", "words"),
    [
        ("operation", {"id": "fo-1", "verb": "restart", "state": "failed", "services": ["cart"], "error": "no"},
         "fo-1: restart of cart: failed: no"),
        ("decision", {"instance": "web-1/cart:0", "verdict": "wait", "rule": "quorum", "reason": "one gateway"},
         "web-1/cart:0: wait (quorum): one gateway"),
        ("mode", {"mode": "full", "before": "assist", "by": "bob", "reason": ""}, "full, by bob"),
        ("service", {"service": "cart", "frozen": None, "instances": ["a"]}, 'service cart, instances ["a"]'),
        ("new", {"x\x1b": "y\nz"}, "x\\x1b y z"),
    ],
)  # fmt: skip
def test_an_event_is_one_line(type_: str, body: Raw, words: str) -> None:
    assert event_line({"seq": 3, "at": AT, "type": type_, "body": body}, with_id=True) == f"3  {AT}  {type_}  {words}"
