"""drain, undrain, warm and weight, and what every order may say besides: what is sent, and what is printed."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest

from supervisor.unitctl.moments import Moment


def sent(daemon: Any) -> dict[str, Any]:
    """The parameters of the only command that the daemon was given."""
    (request,) = [item for item in daemon.requests if item.method == "POST"]
    return dict(request.json["parameters"])


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        (("drain", "a"), {}),
        (("drain", "a", "--for", "2h"), {"for_seconds": 7200.0}),
        (("drain", "a", "--for", "3d", "--owner", "ops"), {"for_seconds": 259200.0, "owner": "ops"}),
        (("drain", "a", "--until", "2026-11-24T18:00Z"), {"until": "2026-11-24T18:00:00.000Z"}),
        (("drain", "a", "--until", "2026-11-24T18:00+02:00"), {"until": "2026-11-24T16:00:00.000Z"}),
        (("undrain", "a"), {}),
        (("warm", "a"), {}),
        (("warm", "a", "--initial", "5", "--step", "20", "--period", "2m"), {"initial": 5, "step": 20, "period": 120}),
        (("warm", "a", "--pause"), {"pause": True}),
        (("warm", "a", "--resume"), {"resume": True}),
        (("warm", "a", "--jump", "80"), {"jump": 80}),
        (("weight", "a", "40"), {"weight": 40}),
        (("weight", "a", "auto"), {"weight": "auto"}),
    ],
)
def test_options_become_parameters(
    daemon: Any, unitctl: Any, arguments: tuple[str, ...], parameters: dict[str, Any]
) -> None:
    daemon.add("a")
    assert unitctl(*arguments).returncode == 0
    assert sent(daemon) == parameters


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("drain",), "say: unitctl drain all"),
        (("undrain",), "say: unitctl undrain all"),
        (("warm",), "say: unitctl warm all"),
        (("weight", "50"), "say: unitctl weight all 50"),
        (("signal", "HUP"), "say: unitctl signal HUP all"),
        (("weight", "a"), "say for example 'unitctl weight addToCart:0 40'"),
        (("weight", "a", "4.5"), "neither a weight nor auto"),
        (("drain", "a", "--for", "1h", "--until", "18:00"), "give one of them"),
        (("drain", "a", "--for", "0"), "give a time such as 90s"),
        (("drain", "a", "--for", "soon"), "not a length of time such as 5, 500ms, 10s or 2m"),
        (("drain", "a", "--until", "soon"), "not a time such as 18:00"),
        (("warm", "a", "--pause", "--resume"), "--pause and --resume cannot be given together"),
        (("warm", "a", "--step", "5", "--jump", "50"), "--step and --jump cannot be given together"),
        (("warm", "a", "--jump", "101"), "not in the range 1<=x<=100"),
        (("warm", "a", "--period", "0"), "use --jump 100"),
        (("stop", "a", "--command-id", " "), "--command-id must not be empty"),
        (("stop", "a", "--deadline", "x"), "not a time such as 18:00"),
    ],
)
def test_wrong_usage_is_2_says_what_to_do_and_sends_nothing(
    daemon: Any, unitctl: Any, arguments: tuple[str, ...], hint: str
) -> None:
    daemon.add("a")
    done = unitctl(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert hint in done.stderr
    assert daemon.requests == []


def test_what_the_daemon_refuses_is_2_with_its_words(daemon: Any, unitctl: Any) -> None:
    daemon.problem("POST", "/v1/units/a/weight", 400, "cannot set the weight of a: it has no service")
    done = unitctl("weight", "a", "3")
    assert (done.returncode, done.stderr) == (2, "unitctl: cannot set the weight of a: it has no service\n")


def test_an_order_may_have_an_id_and_a_deadline(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    for verb in ("start", "stop", "restart", "drain", "undrain", "warm"):
        assert unitctl(verb, "a", "--command-id", "mine", "--deadline", "2026-11-24T18:00Z").returncode == 0
        body = daemon.wait_for("POST", f"/v1/units/a/{verb}").json
        assert (body["command_id"], body["deadline"]) == ("mine", "2026-11-24T18:00:00.000Z")


def test_an_id_that_asked_for_something_else_is_2(daemon: Any, unitctl: Any) -> None:
    daemon.problem("POST", "/v1/units/a/stop", 422, "the command mine asked for something else before; use another id")
    done = unitctl("stop", "a", "--command-id", "mine")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "unitctl: the command mine asked for something else before; use another id\n"


def test_requests_that_a_drain_could_not_wait_for_are_a_warning(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    made = daemon.operation("a", "drain", state="succeeded", finished="t", cut=3)
    daemon.routes["POST", "/v1/units/a/drain"] = lambda _: (202, {"operations": [made]})
    done = unitctl("drain", "a")
    warning = "a: warning: 3 requests were still open when the time for draining was over\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "a: drained\n", warning)
    assert unitctl("drain", "a", "-q").stderr == ""
    document = unitctl("drain", "a", "-o", "json")
    assert (json.loads(document.stdout)[0]["cut"], document.stderr) == (3, warning)


def test_the_progress_of_a_drain_says_what_is_waited_for_and_until_when(daemon: Any, unitctl: Any) -> None:
    daemon.add("a", "DRAINED", maintenance={"owner": "ops", "reason": "", "since": "t", "until": "t2"})
    daemon.hold()
    process = unitctl.begin("drain", "a")
    daemon.wait_for("GET", "/v1/operations")
    daemon.step("op-1", "drain", "3 requests in flight: 2.1 s of at most 30.0 s")
    assert process.stderr.readline() == (
        "a: waiting for the work in flight: 3 requests in flight: 2.1 s of at most 30.0 s\n"
    )
    daemon.finish("op-1")
    assert process.communicate(timeout=15) == ("a: drained until t2\n", "")


def test_ctrl_c_leaves_a_drain_alone_and_says_how_to_go_on(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    daemon.hold()
    process = unitctl.begin("drain", "a")
    daemon.wait_for("GET", "/v1/operations")
    code, out, err = unitctl.interrupt(process)
    assert (code, out) == (130, "")
    assert "follow: unitctl ops -f op-1" in err and "abort:  unitctl abort op-1" in err


def test_no_wait_and_timeout_work_for_a_drain(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    daemon.hold()
    assert unitctl("drain", "a", "--no-wait").stdout == "op-1\n"
    assert unitctl("drain", "a", "--timeout", "0.2").returncode == 75


def test_the_shutdown_says_what_a_unit_waits_for_once(daemon: Any, unitctl: Any) -> None:
    daemon.add("a", "DRAINING", why="3 requests in flight: 2.1 s of at most 30 s")
    daemon.add("b")
    daemon.routes["POST", "/v1/shutdown"] = lambda _: (202, {"detail": "it stops"})
    process = unitctl.begin("shutdown")
    daemon.wait_for("GET", "/v1/units")
    daemon.units["a"]["why"] = "3 requests in flight: 2.6 s of at most 30 s"
    daemon.wait_for("GET", "/v1/units", count=3)
    daemon.stop()
    out, err = process.communicate(timeout=15)
    assert (process.returncode, out) == (0, "unitd has ended\n")
    assert err == "2 units of 2 still to stop; a DRAINING: 3 requests in flight: 2.1 s of at most 30 s\n"


def test_an_order_whose_answer_was_lost_says_how_to_find_out(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    daemon.routes["POST", "/v1/units/a/drain"] = lambda _: (daemon.stop(), None)
    done = unitctl("drain", "a", "--command-id", "my id")
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr.endswith("ops --command-id 'my id'\n")


# Moments


def test_a_clock_time_is_the_next_moment_at_which_this_hosts_clock_shows_it() -> None:
    now = datetime.now()
    for minutes in (-90, 90):
        text = Moment().convert(f"{now + timedelta(minutes=minutes):%H:%M}", None, None)
        moment = datetime.fromisoformat(text)
        assert timedelta(0) < moment - datetime.now(UTC) <= timedelta(days=1)
        assert f"{moment.astimezone():%H:%M}" == f"{now + timedelta(minutes=minutes):%H:%M}"


def test_a_time_without_a_zone_is_this_hosts() -> None:
    text = Moment().convert("2026-11-24T18:00", None, None)
    assert re.fullmatch(r"2026-11-2\dT\d\d:\d\d:00\.000Z", text)
    assert datetime.fromisoformat(text) == datetime(2026, 11, 24, 18).astimezone()


@pytest.mark.parametrize("text", ["", "soon", "5", "25:00", "2026-13-01", "30s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="such as 18:00"):
        Moment().convert(text, None, None)
