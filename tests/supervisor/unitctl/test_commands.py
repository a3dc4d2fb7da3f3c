"""The commands as people and scripts use them: what is printed where, what is asked of the daemon, the exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

# status and is-active


def test_status_shows_every_unit_on_stdout(daemon: Any, unitctl: Any) -> None:
    daemon.add("addToCart:0", service="addToCart", weight=60, full_weight=100,
               lease={"state": "held", "ttl_seconds": 10.0, "renewed_seconds_ago": 1.2, "registry": None})  # fmt: skip
    daemon.add("db")
    done = unitctl("status")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "addToCart:0  RUNNING  pid 4000, uptime 0:02:05, weight 60/100, lease held (renewed 1.2 s ago)\n"
        "db           RUNNING  pid 4001, uptime 0:02:05\n"
    )


def test_status_asks_once_and_only_for_the_named(daemon: Any, unitctl: Any) -> None:
    for name in ("a:0", "a:1", "b"):
        daemon.add(name)
    assert unitctl("status", "a:*", "b").stdout.count("\n") == 3
    assert unitctl("status", "b").stdout.count("\n") == 1
    assert [item.query for item in daemon.requests] == [{"names": "a:*,b"}, {"names": "b"}]


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("RUNNING", 0), ("STARTING", 0), ("STOPPING", 0), ("EXPIRING", 0), ("DRAINING", 0),
        ("WARMING", 0), ("UNHEALTHY", 0), ("DRAINED", 0),
        ("STOPPED", 3), ("EXITED", 3), ("FATAL", 3), ("BACKOFF", 3),
    ],
)  # fmt: skip
def test_status_is_3_when_a_unit_does_not_run(daemon: Any, unitctl: Any, state: str, code: int) -> None:
    daemon.add("a")
    daemon.add("b", state)
    assert unitctl("status").returncode == code
    assert unitctl("status", "a").returncode == 0


@pytest.mark.parametrize("state", ["STARTING", "UNHEALTHY", "DRAINED", "DRAINING", "STOPPED", "FATAL"])
def test_is_active_is_0_only_when_all_serve(daemon: Any, unitctl: Any, state: str) -> None:
    daemon.add("a")
    daemon.add("w", "WARMING")
    assert (unitctl("is-active", "a", "w").returncode, unitctl("is-active", "w").stdout) == (0, "WARMING\n")
    daemon.add("b", state)
    assert unitctl("is-active", "a").returncode == 0
    done = unitctl("is-active", "a", "b")
    assert (done.returncode, done.stdout) == (3, f"RUNNING\n{state}\n")
    assert unitctl("is-active", "-q", "b").stdout == ""
    assert unitctl("is-active", "nope").returncode == 4


def test_status_without_any_unit_says_so(daemon: Any, unitctl: Any) -> None:
    done = unitctl("status")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no units are configured\n")


@pytest.mark.parametrize("arguments", [("-o", "json", "status"), ("status", "-o", "json"), ("status", "--output=json")])
def test_status_as_json_is_the_list_of_the_daemons_own_objects(
    daemon: Any, unitctl: Any, arguments: tuple[str, ...]
) -> None:
    daemon.add("a", "FATAL", why="ü", a_newer_key=[1])
    done = unitctl(*arguments)
    assert json.loads(done.stdout) == [daemon.units["a"]]
    assert done.returncode == 3


@pytest.mark.parametrize("locale", ["C.UTF-8", "POSIX"])
def test_json_is_whole_whatever_the_locale(daemon: Any, unitctl: Any, locale: str) -> None:
    daemon.add("a", why="ü \ud800 ✓")
    done = unitctl("status", "-o", "json", LC_ALL=locale, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert json.loads(done.stdout)[0]["why"] == "ü \ud800 ✓"


def test_text_never_fails_over_a_character(daemon: Any, unitctl: Any) -> None:
    daemon.add("a", "FATAL", why="ü ✓")
    done = unitctl("status", LC_ALL="POSIX", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (done.returncode, done.stderr) == (3, "")
    assert "\\u2713" in done.stdout


def test_a_thousand_units_take_one_request(daemon: Any, unitctl: Any) -> None:
    for number in range(1000):
        daemon.add(f"unit:{number}")
    assert unitctl("status").stdout.count("RUNNING") == 1000
    assert len(daemon.requests) == 1


def test_a_pipe_sees_no_colours(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    assert "\x1b" not in unitctl("status").stdout


def on_a_terminal(unitctl: Any, *arguments: str, **environment: str) -> str:
    ours, theirs = pty.openpty()
    process = unitctl.begin(*arguments, stdout=theirs, TERM="xterm", **environment)
    os.close(theirs)
    text = b""
    try:
        while chunk := os.read(ours, 65536):
            text += chunk
    except OSError:  # EIO: the other side is closed
        pass
    os.close(ours)
    process.communicate(timeout=15)
    return text.decode().replace("\r\n", "\n")


def test_a_terminal_sees_colours_unless_they_are_unwanted(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    assert "\x1b[32mRUNNING\x1b[0m" in on_a_terminal(unitctl, "status")
    assert "\x1b" not in on_a_terminal(unitctl, "status", NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(unitctl, "status", "--no-color")
    assert "\x1b" not in on_a_terminal(unitctl, "--no-color", "status")


def test_why_tells_the_reason_and_what_it_rests_on(daemon: Any, unitctl: Any) -> None:
    daemon.add("a:0")
    answer = {"unit": "a:0", "why": "given up: no such file", "details": ["last exit: x", "stderr: boom"]}
    daemon.routes["GET", "/v1/units/a:0/why"] = lambda _: (200, answer)
    done = unitctl("why", "a:0")
    assert (done.returncode, done.stdout) == (0, "given up: no such file\n  last exit: x\n  stderr: boom\n")
    assert json.loads(unitctl("why", "a:0", "-o", "json").stdout) == answer


# start, stop, restart, signal


def test_restart_says_which_process_there_is_now(daemon: Any, unitctl: Any) -> None:
    daemon.add("addToCart:0", pid=4242)
    done = unitctl("restart", "addToCart:0")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "addToCart:0: restarted (pid 4242, generation 7)\n",
        "",
    )


def test_a_command_is_one_request_that_says_who_and_why(daemon: Any, unitctl: Any) -> None:
    daemon.add("a:0")
    daemon.add("b")
    assert unitctl("stop", "a:*", "b", "--reason", "new disk", "--force").returncode == 0
    (request,) = [item for item in daemon.requests if item.method == "POST"]
    body = request.json
    assert request.path == "/v1/units/a:*,b/stop"
    assert re.fullmatch("[0-9a-f]{32}", body.pop("command_id"))
    assert body.pop("issued_by")
    assert body == {"reason": "new disk", "parameters": {"force": True}}


def test_each_command_has_an_id_of_its_own(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    unitctl("start", "a")
    unitctl("start", "a")
    first, second = [item.json["command_id"] for item in daemon.requests if item.method == "POST"]
    assert first != second


@pytest.mark.parametrize("name", ["HUP", "hup", "SIGHUP", "sighup", "1"])
def test_signals_may_be_named_in_any_way(daemon: Any, unitctl: Any, name: str) -> None:
    daemon.add("a")
    done = unitctl("signal", name, "a")
    assert (done.returncode, done.stdout) == (0, "a: sent HUP\n")
    assert daemon.wait_for("POST", "/v1/units/a/signal").json["parameters"] == {"signal": "HUP"}


def test_stopping_a_thousand_units_is_one_command_and_one_print(daemon: Any, unitctl: Any) -> None:
    for number in range(1000):
        daemon.add(f"unit:{number}")
    done = unitctl("stop", "all")
    assert done.stdout.count(": stopped\n") == 1000
    assert [item.path for item in daemon.requests] == ["/v1/units/all/stop"]


def test_starting_a_thousand_units_asks_for_them_once_more(daemon: Any, unitctl: Any) -> None:
    for number in range(1000):
        daemon.add(f"unit:{number}")
    done = unitctl("start", "all")
    assert done.stdout.count(", generation 7)\n") == 1000
    assert [item.path for item in daemon.requests] == ["/v1/units/all/start", "/v1/units"]


def test_a_failure_is_told_on_stderr_and_successes_on_stdout(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    daemon.add("b")
    good, bad = (
        daemon.operation("a", "start", state="succeeded"),
        daemon.operation("b", "start", state="failed"),
    )
    good["steps"] = [
        {"name": "none", "state": "skipped", "started": None, "finished": None, "detail": "already running"}
    ]
    bad["error"] = "cannot start: exited with 1\nlast words"
    daemon.routes["POST", "/v1/units/all/start"] = lambda _: (202, {"operations": [good, bad]})
    done = unitctl("start", "all")
    assert done.returncode == 1
    assert done.stdout == "a: already running\n"
    assert done.stderr == "b: cannot start: exited with 1\n    last words\n"


@pytest.mark.parametrize("state", ["failed", "aborted", "expired"])
def test_whatever_does_not_succeed_is_exit_code_1(daemon: Any, unitctl: Any, state: str) -> None:
    daemon.add("a")
    made = daemon.operation("a", "stop", state=state, error="because")
    daemon.routes["POST", "/v1/units/a/stop"] = lambda _: (202, {"operations": [made]})
    for option in ((), ("-q",), ("-o", "json")):
        done = unitctl("stop", "a", *option)
        assert done.returncode == 1
        assert "because" in done.stderr


def test_the_outcome_as_json_is_a_list_of_operations(daemon: Any, unitctl: Any) -> None:
    daemon.add("a:0")
    daemon.add("a:1")
    done = unitctl("-o", "json", "restart", "a")
    assert [item["unit"] for item in json.loads(done.stdout)] == ["a:0", "a:1"]
    assert {item["state"] for item in json.loads(done.stdout)} == {"succeeded"}


def test_quiet_prints_no_results(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    for arguments in (
        ("stop", "-q", "a"),
        ("-q", "stop", "a"),
        ("-q", "status"),
        ("stop", "--no-wait", "-q", "a"),
    ):
        done = unitctl(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_verbose_tells_the_steps(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    assert unitctl("restart", "-v", "a").stdout.splitlines()[1] == "    spawn  succeeded  0.0 s"


def test_no_wait_prints_the_ids_and_does_not_wait(daemon: Any, unitctl: Any) -> None:
    daemon.add("a:0")
    daemon.add("a:1")
    daemon.hold()
    assert unitctl("restart", "a", "--no-wait").stdout == "op-1\nop-2\n"
    assert [item["id"] for item in json.loads(unitctl("restart", "a", "--no-wait", "-o", "json").stdout)] == [
        "op-3",
        "op-4",
    ]
    assert {item.method for item in daemon.requests} == {"POST"}


def test_a_success_counts_even_if_the_unit_cannot_be_shown_after_it(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    daemon.problem("GET", "/v1/units", 503, "busy")
    done = unitctl("start", "a")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a: started\n", "")


# enable, disable


def test_enable_and_disable_name_what_they_marked(daemon: Any, unitctl: Any) -> None:
    daemon.add("a:0")
    daemon.add("a:1")
    done = unitctl("enable", "a")
    assert (done.returncode, done.stdout) == (
        0,
        "a:0: enabled: started with unitd\na:1: enabled: started with unitd\n",
    )
    assert unitctl("disable", "a:0").stdout == "a:0: disabled: not started with unitd\n"
    assert json.loads(unitctl("disable", "a", "-o", "json").stdout) == ["a:0", "a:1"]


# ops, abort


def test_ops_lists_operations(daemon: Any, unitctl: Any) -> None:
    daemon.operation("addToCart:0", state="running")
    daemon.step("op-1", "gone", "waiting for the registry entry to go: 6.2 s of 10 s")
    done = unitctl("ops")
    assert done.stdout == ("op-1  addToCart:0  restart  running  waiting for the registry entry to go: 6.2 s of 10 s\n")
    assert json.loads(unitctl("ops", "-o", "json").stdout) == [daemon.operations["op-1"]]


def test_ops_tells_all_about_named_ones(daemon: Any, unitctl: Any) -> None:
    daemon.operation("a", reason="new build")
    daemon.finish("op-1")
    daemon.operation("b")
    text = unitctl("ops", "op-1", "op-2").stdout
    assert "op-1: restart of a: succeeded\n" in text and "by alice: new build\n" in text
    assert "op-2: restart of b: pending\n" in text
    assert len(json.loads(unitctl("ops", "op-1", "-o", "json").stdout)) == 1


def test_ops_of_a_command(daemon: Any, unitctl: Any) -> None:
    daemon.operation("a", command_id="x")
    daemon.operation("b", command_id="y")
    assert unitctl("ops", "--command-id", "y").stdout.startswith("op-2  b")
    assert unitctl("ops", "--command-id", "z").returncode == 4


def test_following_tells_how_it_ended(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    daemon.operation("a", "stop")
    process = unitctl.begin("ops", "-f", "op-1")
    daemon.wait_for("GET", "/v1/operations")
    daemon.finish("op-1", "failed", "it hangs")
    out, err = process.communicate(timeout=15)
    assert (process.returncode, out) == (1, "")
    assert err.endswith("a: cannot stop: it hangs\n")


def test_abort_calls_operations_off(daemon: Any, unitctl: Any) -> None:
    daemon.operation("a")
    done = unitctl("abort", "op-1")
    assert (done.returncode, done.stdout) == (0, "op-1: called off\n")
    again = unitctl("abort", "op-1")
    assert (again.returncode, again.stdout) == (1, "")
    assert "it has succeeded already" in again.stderr


def test_abort_of_a_command_leaves_out_what_is_done(daemon: Any, unitctl: Any) -> None:
    for unit in ("a", "b", "c"):
        daemon.operation(unit, command_id="x")
    daemon.finish("op-1")
    assert unitctl("abort", "--command-id", "x").stdout == "op-2: called off\nop-3: called off\n"


# check, diff, apply


def test_check_counts_units_when_all_is_well(unitctl: Any, tmp_path: Path) -> None:
    file = tmp_path / "unitd.toml"
    file.write_text('[unit.a]\ncommand = "/bin/true"\n[unit.b]\ncommand = "/bin/true"\nnumprocs = 2\n')
    done = unitctl("check", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 units, no mistakes\n", "")
    assert unitctl("check", "-c", str(file)).stdout == "3 units, no mistakes\n"
    assert json.loads(unitctl("check", str(file), "-o", "json").stdout) == {"units": 3, "errors": []}


def test_check_lists_every_mistake_with_its_place(unitctl: Any, tmp_path: Path) -> None:
    file = tmp_path / "unitd.toml"
    file.write_text('[unit.a]\ncomand = "/bin/true"\nnumprocs = "two"\n')
    done = unitctl("check", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(rf"^{file}:2: unit\.a\.comand: .*command", done.stderr, re.MULTILINE)
    assert re.search(rf"^{file}:3: unit\.a\.numprocs: ", done.stderr, re.MULTILINE)
    document = json.loads(unitctl("check", str(file), "-o", "json").stdout)
    assert {(item["line"], item["key"]) for item in document["errors"]} >= {
        (2, "unit.a.comand"),
        (3, "unit.a.numprocs"),
    }


@pytest.mark.parametrize("text", [None, "[unit.a\n", "\udcff"])
def test_check_of_a_file_that_cannot_be_read_is_2(unitctl: Any, tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "unitd.toml"
    if text is not None:
        file.write_bytes(text.encode(errors="surrogateescape"))
    done = unitctl("check", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(str(file))


PLAN = [
    {"unit": "a:0", "effect": "restart", "keys": ["command"]},
    {"unit": "b", "effect": "none", "keys": []},
    {"unit": "c", "effect": "new", "keys": []},
]
MISTAKES = [{"path": "/etc/unitd/units.d/a.toml", "line": 3, "key": "unit.a.user", "reason": "no such user"}]


def test_diff_tells_what_would_change(daemon: Any, unitctl: Any) -> None:
    daemon.routes["POST", "/v1/config/plan"] = lambda _: (200, {"items": PLAN, "errors": []})
    done = unitctl("diff")
    assert (done.returncode, done.stdout) == (0, "a:0  restart  command\nc    new\n")
    assert unitctl("diff", "-v").stdout == "a:0  restart  command\nb    none\nc    new\n"
    assert json.loads(unitctl("diff", "-o", "json").stdout) == {"items": PLAN, "errors": []}


def test_diff_without_a_change(daemon: Any, unitctl: Any) -> None:
    daemon.routes["POST", "/v1/config/plan"] = lambda _: (200, {"items": PLAN[1:2], "errors": []})
    assert unitctl("diff").stdout == "nothing to do\n"


def test_diff_with_mistakes_is_2_and_lists_them(daemon: Any, unitctl: Any) -> None:
    daemon.routes["POST", "/v1/config/plan"] = lambda _: (200, {"items": [], "errors": MISTAKES})
    done = unitctl("diff")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "/etc/unitd/units.d/a.toml:3: unit.a.user: no such user\n"


def test_apply_shows_the_plan_and_waits(daemon: Any, unitctl: Any) -> None:
    daemon.add("a:0")
    made = daemon.operation("a:0", "restart")
    daemon.routes["POST", "/v1/config/apply"] = lambda _: (202, {"items": PLAN, "operations": [made]})
    process = unitctl.begin("apply")
    daemon.wait_for("GET", "/v1/operations")
    daemon.finish("op-1")
    out, _ = process.communicate(timeout=15)
    assert process.returncode == 0
    assert out == "a:0  restart  command\nc    new\na:0: restarted (pid 4000, generation 7)\n"


def test_apply_with_mistakes_is_2_and_lists_them(daemon: Any, unitctl: Any) -> None:
    daemon.problem("POST", "/v1/config/apply", 422, "the configuration is wrong", errors=MISTAKES)
    done = unitctl("apply")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "/etc/unitd/units.d/a.toml:3: unit.a.user: no such user\n"


def test_apply_without_a_change_is_done(daemon: Any, unitctl: Any) -> None:
    daemon.routes["POST", "/v1/config/apply"] = lambda _: (202, {"items": [], "operations": []})
    done = unitctl("apply")
    assert (done.returncode, done.stdout) == (0, "nothing to do\n")
    assert json.loads(unitctl("apply", "-o", "json").stdout) == []


# shutdown


def test_shutdown_waits_until_unitd_has_ended(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    daemon.routes["POST", "/v1/shutdown"] = lambda _: (202, {"detail": "it stops"})
    process = unitctl.begin("shutdown", "--reason", "moving house")
    assert daemon.wait_for("POST", "/v1/shutdown").json["reason"] == "moving house"
    daemon.wait_for("GET", "/v1/units", count=2)
    assert process.poll() is None
    daemon.stop()
    out, err = process.communicate(timeout=15)
    assert (process.returncode, out) == (0, "unitd has ended\n")
    assert err == "1 unit of 1 still to stop\n"


def test_shutdown_goes_on_after_the_time_is_over(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    daemon.routes["POST", "/v1/shutdown"] = lambda _: (202, {"detail": "it stops"})
    done = unitctl("shutdown", "--timeout", "50ms")
    assert (done.returncode, done.stdout) == (75, "")
    assert "unitd goes on stopping its units" in done.stderr


def test_shutdown_without_waiting(daemon: Any, unitctl: Any) -> None:
    daemon.routes["POST", "/v1/shutdown"] = lambda _: (202, {"detail": "it stops"})
    done = unitctl("shutdown", "--no-wait")
    assert (done.returncode, done.stdout) == (0, "unitd is shutting down\n")


# Usage and errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("start",), "unitctl start all"), (("stop",), "unitctl stop all"), (("restart",), "unitctl restart all"),
        (("signal", "HUP"), "unitctl signal HUP all"), (("enable",), "all"), (("is-active",), "NAME"),
        (("signal", "BANG", "a"), "'BANG' is not a signal"), (("logs",), "UNIT"), (("logs", "a", "b"), "b"),
        (("why",), "UNIT"), (("abort",), "name the operations"), (("ops", "-f"), "name the operations"),
        (("statsu",), "did you mean 'status'?"), (("xyzzy",), "unitctl -h"), (("status", "--color"), "--color"),
        (("status", "-o", "xml"), "xml"), (("status", "--timeout", "soon"), "not a length of time"),
        (("status", "--timeout", "-1"), "not a length of time"), (("status", "--timeout", "nan"), "not a length"),
        (("-s", "ftp://x", "status"), "cannot tell where unitd is"), (("logs", "-n", "x", "a"), "x"),
        (("status", "-s", "http://10.0.0.1:1"), "not a loopback address"), (("completion", "tcsh"), "tcsh"),
        (("help", "xyzzy"), "xyzzy"), ((), "Usage: unitctl"),
    ],
)  # fmt: skip
def test_wrong_usage_is_2_and_told_on_stderr(unitctl: Any, arguments: tuple[str, ...], words: str) -> None:
    done = unitctl(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "enable", "disable", "status", "is-active"])
def test_an_unknown_unit_is_4_with_the_nearest_name(daemon: Any, unitctl: Any, verb: str) -> None:
    daemon.add("addToCart:0")
    done = unitctl(verb, "adToCart:0")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == "unitctl: no unit is called adToCart:0 (did you mean addToCart:0?)\n"


def test_one_unknown_name_among_others_leaves_them_alone(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    assert unitctl("stop", "a", "nope").returncode == 4
    assert daemon.operations == {}


@pytest.mark.parametrize("arguments", [("stop", "a"), ("status",), ("ops",), ("why", "a"), ("logs", "a"), ("apply",)])
def test_no_permission_is_4(daemon: Any, unitctl: Any, arguments: tuple[str, ...]) -> None:
    daemon.add("a")
    daemon.answer = lambda _: (403, {"title": "Forbidden", "status": 403, "detail": "bob may only look"})
    done = unitctl(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (4, "", "unitctl: bob may only look\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("status",), 4), (("is-active", "a"), 4), (("start", "a"), 69), (("stop", "all"), 69), (("logs", "a"), 69),
        (("restart", "a"), 69), (("signal", "HUP", "a"), 69), (("ops",), 69), (("ops", "op-1"), 69), (("why", "a"), 69),
        (("abort", "op-1"), 69), (("enable", "a"), 69), (("disable", "a"), 69), (("diff",), 69), (("apply",), 69),
        (("shutdown",), 69), (("events",), 69), (("events", "-f"), 69), (("logs", "-f", "a"), 69),
    ],
)  # fmt: skip
def test_a_daemon_that_does_not_run_is_told_with_the_way_out(
    unitctl: Any, arguments: tuple[str, ...], code: int
) -> None:
    done = unitctl(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert "there is no such socket: unitd is not running" in done.stderr
    assert "(from UNITCTL_SERVER)" in done.stderr


def test_a_wrong_file_for_the_address_is_2(unitctl: Any, tmp_path: Path) -> None:
    done = unitctl("-c", str(tmp_path / "none.toml"), "status")
    assert done.returncode == 2
    assert "none.toml: cannot read it: No such file" in done.stderr


def test_the_socket_may_come_from_the_configuration_or_the_option(daemon: Any, unitctl: Any, tmp_path: Path) -> None:
    daemon.add("a")
    file = tmp_path / "unitd.toml"
    file.write_text(f'[daemon]\nsocket = "{daemon.path}"\n')
    for arguments in (
        ("-c", str(file), "status"),
        ("status", "-c", str(file)),
        ("status", "-s", f"unix://{daemon.path}"),
    ):
        assert unitctl(*arguments, UNITCTL_SERVER="unix:///nowhere").returncode == 0


def test_a_hint_reaches_the_same_daemon(daemon: Any, unitctl: Any) -> None:
    done = unitctl("-s", str(daemon.path), "start")
    assert f"unitctl -s {daemon.path} start all" in done.stderr


def test_a_daemon_of_another_version_is_suspected(daemon: Any, unitctl: Any) -> None:
    answers: list[Any] = [{}, [], {"units": [{}]}, {"units": [3]}, {"units": {}}]
    for answer in answers:
        daemon.routes["GET", "/v1/units"] = lambda _, answer=answer: (200, answer)
        done = unitctl("status")
        assert (done.returncode, done.stdout) == (1, "")
        assert "do unitd and unitctl fit together?" in done.stderr


def test_help_and_version(unitctl: Any) -> None:
    assert re.fullmatch(r"unitctl \d+\.\d+\.\d+\n", unitctl("--version").stdout)
    for flag in ("-h", "--help", "help"):
        assert "is-active" in unitctl(flag).stdout
    for arguments in (("restart", "-h"), ("help", "restart")):
        done = unitctl(*arguments)
        assert done.returncode == 0 and done.stdout.startswith("Usage: unitctl restart [OPTIONS] NAME...")


# Output that nobody takes


def test_a_reader_that_leaves_early_is_no_error(daemon: Any, unitctl: Any) -> None:
    for number in range(3000):  # more than a pipe holds
        daemon.add(f"unit:{number}")
    process = unitctl.begin("status")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("unit:0")
    process.stdout.close()
    assert process.wait(15) == 0
    assert process.stderr is not None and process.stderr.read() == ""


@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&-"])
def test_a_closed_stdout_changes_no_exit_code(daemon: Any, unitctl: Any, redirection: str) -> None:
    daemon.add("a", "FATAL")
    command = f'"$0" -c "from supervisor.unitctl.main import main; main()" status {redirection}'
    python = unitctl.begin("--version").args[0]
    done = subprocess.run(
        ["bash", "-c", command, python],
        check=False,
        env=unitctl.environment,
        stderr=subprocess.PIPE,
        timeout=15,
    )
    assert (done.returncode, done.stderr) == (3, b"")


def test_a_full_disk_is_a_failure(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    with open("/dev/full", "w") as full:
        process = unitctl.begin("status", stdout=full)
        _, err = process.communicate(timeout=15)
    assert process.returncode == 1
    assert "No space left on device" in err and "Traceback" not in err
