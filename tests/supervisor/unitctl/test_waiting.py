"""Waiting for operations: progress, the end of patience, Ctrl-C, and a daemon that is restarted meanwhile."""

from __future__ import annotations

import os
import pty
import re
import signal
import threading
import time
from typing import Any

import pytest


@pytest.fixture
def restarting(daemon: Any, unitctl: Any) -> Any:
    """`unitctl restart` that waits for op-1, the restart of a."""
    daemon.add("a")
    daemon.hold()
    process = unitctl.begin("restart", "a")
    daemon.wait_for("GET", "/v1/operations")
    return process


def test_each_step_is_told_when_it_begins(daemon: Any, unitctl: Any, restarting: Any) -> None:
    lines = []
    for name, detail in (
        ("withdraw", "stopping the heartbeat"),
        ("gone", "waiting for the registry entry to go: 6.2 s of 10 s"),
        ("ready", ""),
    ):
        daemon.step("op-1", name, detail)
        lines.append(restarting.stderr.readline())
    daemon.finish("op-1")
    out, err = restarting.communicate(timeout=15)
    assert lines == [
        "a: stopping the heartbeat\n",
        "a: waiting for the registry entry to go: 6.2 s of 10 s\n",
        "a: waiting until it is ready\n",
    ]
    assert (out, err) == ("a: restarted (pid 4000, generation 7)\n", "")


def test_a_step_whose_time_runs_is_told_only_once(daemon: Any, unitctl: Any, restarting: Any) -> None:
    daemon.step("op-1", "gone", "1.0 s of 10 s")
    assert restarting.stderr.readline() == "a: waiting for the registry entry to go: 1.0 s of 10 s\n"
    seen = len(daemon.requests)
    daemon.operations["op-1"]["steps"][0]["detail"] = "2.0 s of 10 s"
    daemon.wait_for("GET", "/v1/operations", count=seen + 2)
    daemon.finish("op-1")
    assert restarting.communicate(timeout=15)[1] == ""


def test_the_progress_is_refreshed_no_more_than_twice_a_second(daemon: Any, unitctl: Any, restarting: Any) -> None:
    begun = time.monotonic()
    daemon.wait_for("GET", "/v1/operations", count=4)
    assert time.monotonic() - begun > 1.2
    waits = [float(item.query["wait"]) for item in daemon.requests if "wait" in item.query]
    assert all(0.5 <= wait <= 0.6 for wait in waits)
    daemon.finish("op-1")
    restarting.communicate(timeout=15)


def test_quiet_waits_with_long_questions_and_says_nothing(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    daemon.hold()
    process = unitctl.begin("restart", "-q", "a")
    request = daemon.wait_for("GET", "/v1/operations")
    daemon.step("op-1", "gone")
    daemon.finish("op-1")
    assert process.communicate(timeout=15) == ("", "")
    assert float(request.query["wait"]) > 10


def test_many_operations_are_summed_up(daemon: Any, unitctl: Any) -> None:
    for number in range(20):
        daemon.add(f"a:{number}")
    daemon.hold()
    process = unitctl.begin("stop", "a")
    daemon.wait_for("GET", "/v1/operations")
    assert process.stderr.readline() == "20 units to go; 0 of 20 done; a:0: waiting for its turn\n"
    for number in range(1, 6):
        daemon.finish(f"op-{number}")
    assert process.stderr.readline() == "5 of 20 done\n"
    for number in range(6, 21):
        daemon.finish(f"op-{number}")
    out, err = process.communicate(timeout=15)
    assert process.returncode == 0
    assert out.count(": stopped\n") == 20 and err == ""


def test_operations_of_several_commands_are_waited_for(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    daemon.operation("a", "stop", command_id="x")
    daemon.operation("a", "stop", command_id="y")
    daemon.operation("a", "stop", command_id="y")
    process = unitctl.begin("ops", "-f", "op-1", "op-2")
    daemon.wait_for("GET", "/v1/operations", count=3)
    daemon.finish("op-1")
    daemon.wait_for("GET", "/v1/operations", count=6)
    daemon.finish("op-2")
    out, _ = process.communicate(timeout=15)  # op-3 was not asked for and goes on
    assert (process.returncode, out) == (0, "a: stopped\na: stopped\n")


def read_terminal(descriptor: int) -> str:
    text = b""
    try:
        while chunk := os.read(descriptor, 65536):
            text += chunk
    except OSError:  # EIO: the other side is closed
        pass
    os.close(descriptor)
    return text.decode()


def test_on_a_terminal_one_line_is_rewritten_and_taken_away(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    daemon.hold()
    ours, theirs = pty.openpty()
    process = unitctl.begin("restart", "a", stderr=theirs, TERM="xterm")
    os.close(theirs)
    daemon.wait_for("GET", "/v1/operations")
    daemon.step("op-1", "gone", "waiting for the registry entry to go: 1.0 s of 10 s")
    daemon.wait_for("GET", "/v1/operations", count=3)
    daemon.operations["op-1"]["steps"][0]["detail"] = "waiting for the registry entry to go: 2.0 s of 10 s"
    daemon.wait_for("GET", "/v1/operations", count=5)
    daemon.finish("op-1")
    text = read_terminal(ours)
    assert process.communicate(timeout=15)[0] == "a: restarted (pid 4000, generation 7)\n"
    assert "\n" not in text
    assert "\ra: waiting for the registry entry to go: 1.0 s of 10 s\x1b[K" in text
    assert "\ra: waiting for the registry entry to go: 2.0 s of 10 s\x1b[K" in text
    assert text.endswith("\r\x1b[K")


# The end of the time, and Ctrl-C


def test_after_the_time_it_goes_on_and_the_way_to_follow_is_told(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    daemon.hold()
    begun = time.monotonic()
    done = unitctl("restart", "a", "--timeout", "0.3")
    assert (done.returncode, done.stdout) == (75, "")
    assert time.monotonic() - begun < 10
    assert done.stderr == (
        "unitctl: not done within 0.3 s: 1 operation goes on\n"
        "    follow: unitctl ops -f op-1\n"
        "    abort:  unitctl abort op-1\n"
    )
    assert not daemon.operations["op-1"]["finished"]


def test_the_time_may_be_nothing(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    daemon.hold()
    assert unitctl("--timeout", "0", "restart", "a").returncode == 75


def test_ctrl_c_detaches_and_says_how_to_follow(daemon: Any, unitctl: Any, restarting: Any) -> None:
    code, out, err = unitctl.interrupt(restarting)
    assert (code, out) == (130, "")
    assert err == (
        "unitctl: no longer waiting: 1 operation goes on\n"
        "    follow: unitctl ops -f op-1\n"
        "    abort:  unitctl abort op-1\n"
    )
    assert not daemon.operations["op-1"]["finished"]


def test_the_hint_for_many_operations_names_their_command(daemon: Any, unitctl: Any) -> None:
    for number in range(5):
        daemon.add(f"a:{number}")
    daemon.hold()
    process = unitctl.begin("-s", str(daemon.path), "restart", "a")
    command_id = daemon.wait_for("GET", "/v1/operations").query["command_id"]
    _, _, err = unitctl.interrupt(process)
    assert "5 operations go on\n" in err
    assert f"unitctl -s {daemon.path} ops -f --command-id {command_id}\n" in err


def test_the_hint_is_a_command_that_works(daemon: Any, unitctl: Any, restarting: Any) -> None:
    _, _, err = unitctl.interrupt(restarting)
    follow = re.search(r"follow: unitctl (.*)\n", err)
    assert follow is not None
    process = unitctl.begin(*follow[1].split())
    daemon.wait_for("GET", "/v1/operations", count=2)
    daemon.finish("op-1")
    assert process.communicate(timeout=15)[0] == "a: restarted (pid 4000, generation 7)\n"


def test_ctrl_c_before_the_answer_tells_how_to_find_out(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    asked, over = threading.Event(), threading.Event()

    def slow(request: Any) -> tuple[int, Any]:
        asked.set()
        over.wait(15)
        return 503, {"detail": "too late"}

    daemon.routes["POST", "/v1/units/a/restart"] = slow
    process = unitctl.begin("restart", "a")
    assert asked.wait(15)
    command_id = daemon.wait_for("POST", "/v1/units/a/restart").json["command_id"]
    code, out, err = unitctl.interrupt(process)
    over.set()
    assert (code, out) == (130, "")
    assert f"unitctl ops --command-id {command_id}" in err


def test_ctrl_c_while_looking_says_nothing(daemon: Any, unitctl: Any) -> None:
    over = threading.Event()

    def slow(request: Any) -> tuple[int, Any]:
        over.wait(15)
        return 503, {"detail": "too late"}

    daemon.routes["GET", "/v1/units"] = slow
    process = unitctl.begin("status")
    daemon.wait_for("GET", "/v1/units")
    code, out, err = unitctl.interrupt(process)
    over.set()
    assert (code, out, err.strip()) == (130, "", "")


def test_ctrl_c_during_shutdown_says_that_it_goes_on(daemon: Any, unitctl: Any) -> None:
    daemon.add("a")
    daemon.routes["POST", "/v1/shutdown"] = lambda _: (202, {"detail": "it stops"})
    process = unitctl.begin("shutdown")
    daemon.wait_for("GET", "/v1/units")
    code, _, err = unitctl.interrupt(process)
    assert code == 130
    assert "unitd goes on stopping its units" in err


def test_sigterm_ends_the_waiting_at_once(daemon: Any, unitctl: Any, restarting: Any) -> None:
    restarting.send_signal(signal.SIGTERM)
    assert restarting.wait(15) == -signal.SIGTERM


# A daemon that goes away


def test_a_daemon_that_is_restarted_is_waited_for(daemon: Any, unitctl: Any, restarting: Any) -> None:
    daemon.stop()
    assert restarting.stderr.readline().startswith("unitd does not answer (")
    daemon.start()
    daemon.finish("op-1")
    out, _ = restarting.communicate(timeout=15)
    assert (restarting.returncode, out) == (0, "a: restarted (pid 4000, generation 7)\n")


def test_a_daemon_that_forgot_the_operation_is_told(daemon: Any, unitctl: Any, restarting: Any) -> None:
    daemon.operations.clear()
    out, err = restarting.communicate(timeout=15)
    assert (restarting.returncode, out) == (1, "")
    assert "unitd no longer knows operation op-1" in err


def test_a_daemon_that_stays_away_is_69_with_the_way_to_follow(
    daemon: Any, unitctl: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from supervisor.unitctl import waiting
    from supervisor.unitctl.main import run

    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.0)
    daemon.add("a")
    daemon.hold()
    thread = threading.Thread(target=lambda: (daemon.wait_for("GET", "/v1/operations"), daemon.stop()))
    thread.start()
    code = run(["-s", str(daemon.path), "restart", "a"])
    thread.join()
    assert code == 69
    err = capsys.readouterr().err
    assert "cannot reach unitd" in err and f"unitctl -s {daemon.path} ops -f op-1" in err
