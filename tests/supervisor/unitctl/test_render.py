"""What people read, from the daemon's messages alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from supervisor.unitctl import render, render_operations, words
from supervisor.wire import ExitStatus, LeaseStatus, MaintenanceStatus, Operation, PlanItem, Step, UnitStatus


def a_unit(name: str = "addToCart:0", state: str = "RUNNING", **more: Any) -> UnitStatus:
    usual: dict[str, Any] = {
        "service": "addToCart", "wanted": "up", "phase": state.lower(), "ready": state == "RUNNING", "live": True,
        "pid": 4242, "generation": 7, "uptime_seconds": 125.9, "weight": 60, "full_weight": 100,
        "lease": LeaseStatus("held", 10.0, 1.23), "in_flight": None, "restarts": 1, "last_exit": None,
        "operation": None, "why": "serving",
    }  # fmt: skip
    return UnitStatus(unit=name, state=state, **{**usual, **more})


def a_dead_unit(name: str, state: str, why: str, **more: Any) -> UnitStatus:
    gone = {
        "pid": None,
        "uptime_seconds": None,
        "weight": None,
        "full_weight": None,
        "live": False,
        "ready": False,
    }
    return a_unit(name, state, **{**gone, "lease": None, "why": why, **more})


def an_operation(unit: str = "addToCart:0", verb: str = "restart", state: str = "running", **more: Any) -> Operation:
    return Operation("op-1", "c", unit, verb, state, **more)


def running(name: str, detail: str = "") -> Step:
    return Step(name, "running", "2026-11-24T03:41:46.000Z", None, detail)


# Units.


def test_a_running_unit_is_shown_as_people_know_it() -> None:
    assert render.status_text([a_unit()]) == (
        "addToCart:0  RUNNING  pid 4242, uptime 0:02:05, weight 60/100, lease held (renewed 1.2 s ago)\n"
    )


def test_states_of_several_units_stand_in_one_column() -> None:
    text = render.status_text(
        [
            a_unit("a", service=None, weight=None, lease=None),
            a_dead_unit("database", "BACKOFF", "next start in 2.0 s"),
        ]
    )
    assert text == "a         RUNNING  pid 4242, uptime 0:02:05\ndatabase  BACKOFF  next start in 2.0 s\n"


def test_without_units_there_is_no_text() -> None:
    assert render.status_text([]) == ""


def test_an_unconfirmed_lease_is_called_so() -> None:
    assert "lease unconfirmed (renewed 8.0 s ago)" in render.status_text(
        [a_unit(lease=LeaseStatus("suspended", 10, 8))]
    )


def test_of_several_registries_each_lease_is_shown_to_who_asks_for_more() -> None:
    leases = [LeaseStatus("held", 10, 1.23, "main"), LeaseStatus("suspended", 15, 8, "old")]
    unit = a_unit(lease=leases[1], leases=leases)
    assert "registry" not in render.status_text([unit])
    shown = render.status_text([unit], verbose=True)
    assert "registry main: lease held (renewed 1.2 s ago), registry old: lease unconfirmed (renewed 8.0 s ago)" in shown


def test_a_lease_never_renewed_has_no_age() -> None:
    assert render.status_text([a_unit(lease=LeaseStatus("held", 10, None))]).endswith("lease held\n")


def test_the_lease_of_a_dead_unit_is_shown_only_while_it_lives_on() -> None:
    held = a_dead_unit("a", "BACKOFF", "waiting", lease=LeaseStatus("held", 10, 3))
    absent = a_dead_unit("a", "STOPPED", "not started", lease=LeaseStatus("absent", 10, None))
    assert render.status_text([held]) == "a  BACKOFF  lease held (renewed 3.0 s ago), waiting\n"
    assert render.status_text([absent]) == "a  STOPPED  not started\n"


@pytest.mark.parametrize("state", ["STARTING", "STOPPING", "EXPIRING", "DRAINING"])
def test_a_unit_on_its_way_says_what_it_waits_for(state: str) -> None:
    assert render.status_text([a_unit(state=state, why="waiting for X")]).endswith(", waiting for X\n")


def test_a_running_unit_that_is_not_ready_says_why() -> None:
    assert render.status_text([a_unit(ready=False, why="its probe fails")]).endswith(", its probe fails\n")


def test_work_in_flight_is_shown() -> None:
    assert "3 in flight" in render.status_text([a_unit(state="DRAINING", in_flight=3)])


def test_verbose_tells_more_below_the_line() -> None:
    exit_ = ExitStatus(None, "SIGKILL", "2026-11-24T03:41:46.123Z", "was killed by SIGKILL")
    _, more = render.status_text([a_unit(last_exit=exit_, operation="op-3")], verbose=True).splitlines()
    assert more == (
        "    wanted up, generation 7, 1 restart, operation op-3, "
        "last exit at 2026-11-24T03:41:46.123Z: was killed by SIGKILL"
    )


def test_colours_wrap_the_state_and_nothing_else() -> None:
    plain = render.status_text([a_unit(), a_dead_unit("b", "FATAL", "why")])
    colored = render.status_text([a_unit(), a_dead_unit("b", "FATAL", "why")], color=True)
    assert "\x1b" not in plain
    assert "\x1b[32mRUNNING\x1b[0m" in colored and "\x1b[31mFATAL  \x1b[0m" in colored
    stripped = colored.replace("\x1b[32m", "").replace("\x1b[31m", "").replace("\x1b[0m", "")
    assert stripped == plain


def test_an_unknown_state_is_shown_as_it_is() -> None:
    assert "DREAMING" in render.status_text([a_unit(state="DREAMING")], color=True)


@pytest.mark.parametrize(("state", "code"), [("WARMING", "36"), ("UNHEALTHY", "31"), ("DRAINED", "35")])
def test_a_unit_that_does_not_get_all_its_traffic_says_why_and_is_coloured(state: str, code: str) -> None:
    text = render.status_text([a_unit(state=state, why="the reason", in_flight=2)], color=True)
    assert f"\x1b[{code}m{state}\x1b[0m" in text
    assert text.endswith(", weight 60/100, lease held (renewed 1.2 s ago), 2 in flight, the reason\n")


def test_a_unit_that_is_down_or_on_its_way_says_that_it_is_drained() -> None:
    drained = MaintenanceStatus("ops", "disk", "t", None)
    assert render.status_text([a_dead_unit("a", "STOPPED", "not started", maintenance=drained)]) == (
        "a  STOPPED  drained by ops, not started\n"
    )
    nobody = replace(drained, owner="")
    assert ", drained, waiting" in render.status_text([a_unit(state="EXPIRING", why="waiting", maintenance=nobody)])
    assert ", drained" not in render.status_text([a_unit(state="DRAINED", why="kept out", maintenance=drained)])


def test_a_weight_that_somebody_has_fixed_is_told_of_a_running_unit() -> None:
    assert render.status_text([a_unit(warmup="fixed at 60 of 100")]).endswith(" ago), fixed at 60 of 100\n")


def test_what_a_unit_wrote_cannot_steer_the_terminal() -> None:
    text = render.why_text("it said \x1b[2J", ["stderr: \x07\ttab", "bell\u202e"])
    assert text == "it said \\x1b[2J\n  stderr: \\x07 tab\n  bell\\u202e\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00:00"),
        (125.9, "0:02:05"),
        (3600, "1:00:00"),
        (86400, "1 day, 0:00:00"),
        (269999, "3 days, 2:59:59"),
    ],
)
def test_uptimes(seconds: float, text: str) -> None:
    assert words.uptime(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (119.9, "119.9 s"), (120, "2 min"), (7200, "2 h"), (172800, "2 days")],
)
def test_spans_of_time(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


# Operations on their way.


def test_the_daemons_own_words_for_a_step_are_taken() -> None:
    operation = an_operation(steps=[running("gone", "waiting for the registry entry to go: 6.2 s of 10 s")])
    assert (
        render_operations.progress_line([operation])
        == "addToCart:0: waiting for the registry entry to go: 6.2 s of 10 s"
    )


def test_a_step_without_words_gets_ours() -> None:
    assert render_operations.step_words(an_operation(steps=[running("gone")])) == "waiting for the registry entry to go"


def test_a_step_that_tells_only_a_time_gets_our_words_before_it() -> None:
    operation = an_operation(steps=[running("gone", "6.2 s of 10 s")])
    assert render_operations.step_words(operation) == "waiting for the registry entry to go: 6.2 s of 10 s"


def test_an_unknown_step_is_named() -> None:
    assert render_operations.step_words(an_operation(steps=[running("polish")])) == "polish"


def test_a_pending_operation_waits_for_its_turn() -> None:
    assert render_operations.step_words(an_operation(state="pending")) == "waiting for its turn"


def test_several_operations_are_counted_and_a_running_one_is_shown() -> None:
    operations = [
        an_operation("a", state="succeeded"),
        an_operation("b", state="pending"),
        an_operation("c", steps=[running("ready")]),
    ]
    assert render_operations.progress_line(operations) == "1 of 3 done; c: waiting until it is ready"


def test_no_progress_is_shown_when_all_is_done() -> None:
    assert render_operations.progress_line([an_operation(state="succeeded")]) == ""


def told_of(operation: Operation, told: set[render_operations.Told]) -> list[str]:
    lines = render_operations.new_steps(operation, told)
    told.update(lines)
    return list(lines.values())


def test_each_step_is_told_once() -> None:
    told: set[render_operations.Told] = set()
    steps = [replace(running("withdraw"), state="succeeded"), running("gone"), Step("drain", "pending")]
    operation = an_operation("a", steps=steps)
    assert told_of(operation, told) == ["a: stopping the heartbeat", "a: waiting for the registry entry to go"]
    assert told_of(operation, told) == []
    steps[1] = replace(running("gone", "waiting for the registry entry to go: 1.0 s of 10 s"), state="succeeded")
    steps[2] = running("drain", "3 requests in flight: 2.1 s of at most 30.0 s")
    assert told_of(operation, told) == [
        "a: waiting for the work in flight: 3 requests in flight: 2.1 s of at most 30.0 s"
    ]


def test_a_step_is_told_again_only_when_it_waits_for_something_else() -> None:
    told: set[render_operations.Told] = set()
    lines = []
    for detail in (
        "waits for the restart of web:0", "waits for the full weight of web:0: warming: 50 of 100",
        "waits for the full weight of web:0: warming: 75 of 100", "waits for the restart of web:0",
    ):  # fmt: skip
        lines += told_of(an_operation("web:1", steps=[running("wait", detail)]), told)
    assert lines == [
        "web:1: waits for the restart of web:0",
        "web:1: waits for the full weight of web:0: warming: 50 of 100",
    ]


# How operations ended.


@pytest.mark.parametrize(
    ("verb", "line"),
    [
        ("start", "a: started (pid 4242, generation 7)"),
        ("restart", "a: restarted (pid 4242, generation 7)"),
        ("stop", "a: stopped"),
        ("signal", "a: signalled"),
        ("drain", "a: drained"),
        ("undrain", "a: undrained"),
        ("warm", "a: warms up"),
        ("weight", "a: weight set"),
        ("reregister", "a: reregister done"),
    ],
)
def test_successes(verb: str, line: str) -> None:
    operation = an_operation("a", verb, "succeeded", steps=[Step("spawn", "succeeded")])
    assert render_operations.result_line(operation, a_unit("a")) == line


def test_a_success_without_a_process_to_tell_of() -> None:
    operation = an_operation("a", "start", "succeeded", steps=[Step("spawn", "succeeded")])
    assert render_operations.result_line(operation) == "a: started"
    assert render_operations.result_line(operation, a_dead_unit("a", "EXITED", "")) == "a: started"


@pytest.mark.parametrize("verb", ["warm", "weight"])
def test_where_a_weight_is_now_is_said_in_the_daemons_words(verb: str) -> None:
    operation = an_operation("a", verb, "succeeded", steps=[Step("none", "succeeded", detail="fixed at 40 of 100")])
    assert render_operations.result_line(operation) == "a: fixed at 40 of 100"


def test_a_unit_that_is_kept_out_says_until_when() -> None:
    kept = a_unit("a", "DRAINED", maintenance=MaintenanceStatus("ops", "disk", "t", "2026-11-24T18:00:00Z"))
    forever = a_unit("a", "DRAINED", maintenance=MaintenanceStatus("ops", "disk", "t", None))
    drain, restart = (an_operation("a", verb, "succeeded") for verb in ("drain", "restart"))
    assert render_operations.result_line(drain, kept) == "a: drained until 2026-11-24T18:00:00Z"
    assert render_operations.result_line(drain, forever) == "a: drained"
    assert render_operations.result_line(restart, forever) == (
        "a: restarted (pid 4242, generation 7); still kept out of traffic"
    )


def test_requests_that_a_drain_could_not_wait_for_are_counted() -> None:
    assert render_operations.cut_line(an_operation("a", "stop", "succeeded", cut=1)) == (
        "a: warning: 1 request was still open when the time for draining was over"
    )
    assert render_operations.cut_line(an_operation("a", "stop", "succeeded", cut=0)) == ""
    assert render_operations.operation_lines([an_operation("a", "drain", "succeeded", cut=3)]) == [
        "op-1  a  drain  succeeded  3 requests were still open when the time for draining was over"
    ]


def test_the_signal_that_was_sent_is_named() -> None:
    operation = an_operation("a", "signal", "succeeded", steps=[Step("none", "skipped", detail="sent SIGHUP")])
    assert render_operations.result_line(operation, None, "HUP") == "a: sent HUP"


@pytest.mark.parametrize(
    ("verb", "line"), [("start", "a: already running"), ("stop", "a: already stopped"), ("undrain", "a: not drained")]
)
def test_nothing_to_do_is_a_success(verb: str, line: str) -> None:
    assert render_operations.result_line(an_operation("a", verb, "succeeded", steps=[Step("none", "skipped")])) == line


def test_an_operation_without_a_step_to_tell_of_has_still_done_something() -> None:
    assert render_operations.result_line(an_operation("a", "start", "succeeded"), a_unit("a")) == (
        "a: started (pid 4242, generation 7)"
    )
    assert render_operations.result_line(an_operation("a", "stop", "succeeded")) == "a: stopped"


def test_the_daemons_words_for_nothing_to_do_are_taken() -> None:
    operation = an_operation(
        "a", "start", "succeeded", steps=[Step("none", "skipped", detail="already running (pid 1)")]
    )
    assert render_operations.result_line(operation, a_unit("a")) == "a: already running (pid 1)"


@pytest.mark.parametrize(
    ("state", "error", "line"),
    [
        ("failed", "cannot start: no such file: /srv/x", "a: cannot start: no such file: /srv/x"),
        ("failed", "it did not stay up: exited with 1", "a: cannot start: it did not stay up: exited with 1"),
        ("failed", None, "a: cannot start: unitd gave no reason"),
        ("failed", "", "a: cannot start: unitd gave no reason"),
        ("aborted", "a later stop took its place", "a: the start was called off: a later stop took its place"),
        ("expired", "its deadline passed", "a: the start was not begun in time: its deadline passed"),
        ("failed", "cannot start: x\nTrace\x1b\nlast", "a: cannot start: x\n    Trace\\x1b\n    last"),
    ],
)  # fmt: skip
def test_failures(state: str, error: str | None, line: str) -> None:
    assert render_operations.failure_line(an_operation("a", "start", state, error=error)) == line


def test_a_list_of_operations_says_what_each_does_or_how_it_failed() -> None:
    lines = render_operations.operation_lines(
        [
            an_operation("addToCart:0", steps=[running("ready")]),
            replace(an_operation("db", "start", "failed", error="cannot start: x\ny"), id="op-10"),
            an_operation("db", "stop", "succeeded"),
        ]
    )
    assert lines == [
        "op-1   addToCart:0  restart  running    waiting until it is ready",
        "op-10  db           start    failed     cannot start: x",
        "op-1   db           stop     succeeded",
    ]


def test_everything_about_one_operation() -> None:
    steps = [
        Step("gone", "succeeded", "2026-11-24T03:41:46.000Z", "2026-11-24T03:41:56.200Z", "6 s of 10 s"),
        Step("ready", "failed", "2026-11-24T03:41:56.200Z", None, "no answer"),
    ]
    operation = an_operation(
        "a", state="failed", steps=steps, error="not ready", created="2026-11-24T03:41:46.000Z", issued_by="alice",
        reason="new build", deadline="2026-11-24T04:00:00Z", finished="2026-11-24T03:42:00.000Z", cut=2,
    )  # fmt: skip
    assert render_operations.operation_text(operation) == (
        "op-1: restart of a: failed\n"
        "  ordered at 2026-11-24T03:41:46.000Z by alice: new build\n"
        "  command c, not to begin after 2026-11-24T04:00:00Z, finished at 2026-11-24T03:42:00.000Z\n"
        "    2026-11-24T03:41:46.000Z  gone   succeeded  10.2 s  6 s of 10 s\n"
        "    2026-11-24T03:41:56.200Z  ready  failed             no answer\n"
        "  a: warning: 2 requests were still open when the time for draining was over\n"
        "  a: cannot restart: not ready\n"
    )


def test_a_step_with_an_unreadable_time_has_no_length() -> None:
    operation = an_operation(steps=[Step("gone", "succeeded", "yesterday", "today")])
    assert render_operations.step_lines(operation) == ["    gone  succeeded"]


# The configuration.


def test_a_plan_leaves_out_what_stays_as_it_is() -> None:
    items = [
        PlanItem("a", "none"),
        PlanItem("addToCart:0", "restart", ("command", "user")),
        PlanItem("b", "new"),
    ]
    assert render.plan_lines(items) == ["addToCart:0  restart  command, user", "b            new"]
    assert render.plan_lines(items, verbose=True)[0] == "a            none"
    assert render.plan_lines([]) == []


@pytest.mark.parametrize(
    ("path", "line", "key", "text"),
    [
        ("/etc/x.toml", 3, "unit.a.user", "/etc/x.toml:3: unit.a.user: no"),
        ("/etc/x.toml", 0, "", "/etc/x.toml: no"),
        (None, 3, "unit.a", "unit.a: no"),
    ],
)
def test_mistakes(path: str | None, line: int, key: str, text: str) -> None:
    assert render.mistake_line(path, line, key, "no") == text
