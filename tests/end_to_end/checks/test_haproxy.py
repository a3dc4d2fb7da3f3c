"""HAProxy without anything beside it: what it is told on the checks port is enough to lose no request."""

from __future__ import annotations

import signal

import pytest

from tests.end_to_end.checks.stage import NAMES, Load, Stage, Watch
from tests.end_to_end.machine import until
from tests.servers.asking import ask

pytestmark = pytest.mark.real


def test_a_restart_of_all_units_under_load_fails_no_request(stage: Stage) -> None:
    with Load(stage.haproxy.port) as load, Watch(stage, "cart:1") as watch:
        ended = stage.host.do("restart", "cart")
        until("it is at full weight there too", lambda: watch.seen[-1] == ("UP", 100))
    assert load.failed == [] and load.answered > 100

    left = next(status for status, _ in watch.seen if not status.startswith("UP"))
    assert left in ("DRAIN (agent)", "NOLB"), watch.seen
    down = max(number for number, (status, _) in enumerate(watch.seen) if not status.startswith("UP"))
    weights = [weight for _, weight in watch.seen[down + 1 :]]
    assert weights == sorted(weights) and set(weights) == {20, 60, 100}, watch.seen
    steps = [[step["name"] for step in operation["steps"]] for operation in ended]
    assert all("gateways" in names for names in steps), "each was waited for"
    assert all(("settle" in names) is not stage.sends_state for names in steps), "its own word counts, an agent's not"


def test_a_drained_unit_gets_nothing_and_comes_back_when_it_is_undrained(stage: Stage) -> None:
    stage.host.do("drain", "cart:2")
    until("it drains there", lambda: stage.servers()["cart:2"]["status"] in ("DRAIN (agent)", "NOLB"))
    before = int(stage.servers()["cart:2"]["stot"])
    with Load(stage.haproxy.port) as load:
        until("some were asked", lambda: load.answered > 40)
    assert load.failed == [] and int(stage.servers()["cart:2"]["stot"]) == before
    stage.host.do("undrain", "cart:2")
    until("it is sent to again", lambda: stage.servers()["cart:2"]["status"] == "UP")
    until("at full weight", lambda: stage.servers()["cart:2"]["weight"] == "100")


def test_a_stopped_unit_is_down_there_and_comes_back_when_it_is_started(stage: Stage) -> None:
    stage.host.do("stop", "cart:3")
    until("it is down", lambda: "DOWN" in stage.servers()["cart:3"]["status"])
    stage.host.do("start", "cart:3")
    until("it is sent to again", lambda: stage.servers()["cart:3"]["status"] == "UP")
    until("at full weight", lambda: stage.servers()["cart:3"]["weight"] == "100")


def test_http_checks_of_anybody_else_are_answered_on_the_same_port(stage: Stage) -> None:
    assert ask(stage.checks, "GET", "/check/cart:0") == (200, "ready up 100%\n")
    assert ask(stage.checks, "GET", "/check/cart:9")[0] == 503
    assert ask(stage.checks, "GET", "/check")[0] == 503, "it says of no unit"


def test_a_daemon_that_is_away_changes_nothing_for_agents_and_fails_the_checks_that_it_answers(stage: Stage) -> None:
    with Load(stage.haproxy.port) as load:
        until("some were asked", lambda: load.answered > 10)
        stage.host.signal(signal.SIGKILL)
        stage.host.wait()
        if stage.sends_state:
            until("checks fail", lambda: all("DOWN" in row["status"] for row in stage.servers().values()))
        else:
            until("agents notice", lambda: {row["agent_status"] for row in stage.servers().values()} == {"L4CON"})
            assert {row["status"] for row in stage.servers().values()} == {"UP"}
            asked = load.answered
            until("they are still sent to", lambda: load.answered > asked + 50)
            assert load.failed == []
    stage.host.run()
    for name in NAMES:
        stage.host.until_state(name, "RUNNING")
    until("all are sent to", lambda: {row["status"] for row in stage.servers().values()} == {"UP"})
