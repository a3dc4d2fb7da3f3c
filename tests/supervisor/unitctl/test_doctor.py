"""`unitctl doctor`: what it makes of the daemon's answer, and what it sees without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.installation import version
from supervisor.unitctl.address import parse_address
from supervisor.unitctl.doctor_local import find_stop_limit, look_at_socket, read_span

FINE = {"outcome": "ok", "check": "registry", "subject": "registry main", "message": "consul 1.8.7 at x, 1.2 ms (0.9 to 2.1)",
        "action": ""}  # fmt: skip
BROKEN = {"outcome": "problem", "check": "missing", "subject": "entries in main", "message": "web serves, and nobody finds it",
          "action": "unitctl why web"}  # fmt: skip


def examined(daemon: Any, *findings: dict[str, str], **more: Any) -> None:
    """What the daemon answers."""
    answer = {"version": version(), "findings": list(findings), "may_not_command": None, "manager_unit": None,
              "way_out_seconds": 60.0, "way_out_groups": ["web", "db"], **more}  # fmt: skip
    daemon.routes["GET", "/v1/doctor"] = lambda _: (200, answer)
    plan = {"items": [{"unit": "web", "effect": "none", "keys": []}], "errors": []}
    daemon.routes["POST", "/v1/config/plan"] = lambda _: (200, plan)


def found(done: subprocess.CompletedProcess[str], check: str) -> dict[str, str]:
    """The finding of a check in the JSON that was printed."""
    (finding,) = [item for item in json.loads(done.stdout)["findings"] if item["check"] == check]
    return dict(finding)


def test_findings_are_lines_with_what_to_do_below(daemon: Any, unitctl: Any) -> None:
    examined(daemon, FINE, BROKEN)
    done = unitctl("doctor")
    assert (done.returncode, done.stderr) == (1, "")
    assert "ok       registry main    consul 1.8.7 at x, 1.2 ms (0.9 to 2.1)\n" in done.stdout
    assert "problem  entries in main  web serves, and nobody finds it\n         -> unitctl why web\n" in done.stdout


def test_all_well_is_0_and_warnings_are_well(daemon: Any, unitctl: Any) -> None:
    examined(daemon, FINE, {**BROKEN, "outcome": "warning"}, {**BROKEN, "outcome": "unknown"})
    done = unitctl("doctor")
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_is_printed_when_quiet_and_the_exit_code_tells(daemon: Any, unitctl: Any) -> None:
    examined(daemon, BROKEN)
    done = unitctl("-q", "doctor")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_what_the_daemon_says_cannot_steer_the_terminal(daemon: Any, unitctl: Any) -> None:
    examined(daemon, {**FINE, "message": "a\x1b[2Jb\nc"})
    assert "\x1b" not in unitctl("doctor").stdout


def test_a_daemon_of_another_version_is_told(daemon: Any, unitctl: Any) -> None:
    examined(daemon, version="0.0.9")
    done = unitctl("-o", "json", "doctor")
    assert done.returncode == 0
    assert found(done, "version")["outcome"] == "warning" and "0.0.9" in found(done, "version")["message"]


def test_a_daemon_without_a_doctor_is_older(daemon: Any, unitctl: Any) -> None:
    done = unitctl("-o", "json", "doctor")
    assert done.returncode == 1
    assert found(done, "version")["outcome"] == "problem"


@pytest.mark.parametrize(("refusal", "outcome"), [(None, "ok"), ("uid 7 may not", "warning")])
def test_whether_this_user_may_command_is_told(daemon: Any, unitctl: Any, refusal: str | None, outcome: str) -> None:
    examined(daemon, may_not_command=refusal)
    done = unitctl("-o", "json", "doctor")
    assert found(done, "rights")["outcome"] == outcome and str(refusal or "you may") in found(done, "rights")["message"]


def test_a_daemon_that_refuses_this_user_is_a_problem_and_4(daemon: Any, unitctl: Any) -> None:
    daemon.problem("GET", "/v1/doctor", 403, "uid 7 may not use unitd")
    done = unitctl("-o", "json", "doctor")
    assert done.returncode == 4
    assert "uid 7" in next(
        item["message"] for item in json.loads(done.stdout)["findings"] if item["outcome"] == "problem"
    )


def test_mistakes_in_the_files_are_problems(daemon: Any, unitctl: Any) -> None:
    examined(daemon)
    mistakes = [{"path": "/etc/u.toml", "line": 3, "key": "unit.a", "reason": "is wrong"}]
    daemon.routes["POST", "/v1/config/plan"] = lambda _: (200, {"items": [], "errors": mistakes})
    done = unitctl("-o", "json", "doctor")
    assert done.returncode == 1
    assert found(done, "configuration")["message"] == "/etc/u.toml:3: unit.a: is wrong"


@pytest.mark.parametrize(("unit", "action"), [("web", "unitctl apply"), ("unitd", "restart unitd")])
def test_changes_that_wait_are_told(daemon: Any, unitctl: Any, unit: str, action: str) -> None:
    examined(daemon)
    items = [{"unit": unit, "effect": "restart", "keys": ["command"]}]
    daemon.routes["POST", "/v1/config/plan"] = lambda _: (200, {"items": items, "errors": []})
    finding = found(unitctl("-o", "json", "doctor"), "configuration")
    assert finding["outcome"] == "warning" and action in finding["action"]


def test_files_that_this_user_may_not_have_compared_are_unknown(daemon: Any, unitctl: Any) -> None:
    examined(daemon)
    daemon.problem("POST", "/v1/config/plan", 403, "only root may")
    done = unitctl("-o", "json", "doctor")
    assert (done.returncode, found(done, "configuration")["outcome"]) == (0, "unknown")


@pytest.mark.parametrize(
    "answer", [[], {"findings": 3}, {"findings": [{"outcome": "ok"}]}, {"findings": [{**FINE, "message": 5}]}]
)
def test_an_answer_that_is_no_examination_is_an_error(daemon: Any, unitctl: Any, answer: Any) -> None:
    examined(daemon)
    daemon.routes["GET", "/v1/doctor"] = lambda _: (200, answer)
    done = unitctl("doctor")
    assert done.returncode == 1 and "cannot read the answer" in done.stderr


# systemd


@pytest.fixture
def systemctl(folder: Path) -> Any:
    """A PATH on which `systemctl` says what a test wants."""

    def make(script: str) -> str:
        path = folder / "systemctl"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return f"{folder}:{os.environ['PATH']}"

    return make


@pytest.mark.parametrize(
    ("says", "outcome"),
    [
        ("echo infinity", "ok"),
        ("echo 1min 30s", "ok"),
        ("echo 30s", "problem"),
        ("echo what", "unknown"),
        ("exit 1", "unknown"),
    ],
)
def test_the_time_that_systemd_gives_is_compared_with_the_way_out(
    daemon: Any, unitctl: Any, systemctl: Any, says: str, outcome: str
) -> None:
    examined(daemon, manager_unit="unitd.service")
    done = unitctl("-o", "json", "doctor", PATH=systemctl(says))
    assert found(done, "stop_limit")["outcome"] == outcome
    assert done.returncode == (1 if outcome == "problem" else 0)


def test_systemctl_is_asked_for_the_daemons_own_unit(systemctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", systemctl('test "$4" = my.service && echo 5min'))
    assert find_stop_limit("my.service") == 300.0


def test_a_host_without_systemctl_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(OSError):
        find_stop_limit("unitd.service")


@pytest.mark.parametrize(
    ("text", "seconds"), [("1min 30s", 90.0), ("500ms", 0.5), ("1h 2min", 3720.0), ("1d", 86400.0), ("infinity", None)]
)
def test_lengths_of_time_are_read_as_systemd_prints_them(text: str, seconds: float | None) -> None:
    assert read_span(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "1 min", "5x"])
def test_what_is_no_length_of_time_is_not_guessed(text: str) -> None:
    with pytest.raises(ValueError):
        read_span(text)


# The socket.


def test_who_may_use_the_socket_is_told(daemon: Any, folder: Path) -> None:
    address = parse_address(str(daemon.path))
    daemon.path.chmod(0o660)
    (finding,) = look_at_socket(address)
    assert finding.outcome == "ok" and "mode 0660" in finding.message
    if os.geteuid() == 0:
        os.chown(daemon.path, 0, 65533)  # a group that nobody has given a name
        assert ":65533 " in look_at_socket(address)[0].message
    daemon.path.chmod(0o666)
    assert look_at_socket(address)[0].outcome == "warning"


def test_where_there_is_no_socket_there_are_no_rights(folder: Path) -> None:
    assert look_at_socket(parse_address("http://127.0.0.1:9")) == []
    assert look_at_socket(parse_address(str(folder / "no"))) == []
    (folder / "file").write_text("")
    assert look_at_socket(parse_address(str(folder / "file"))) == []


# Without a daemon.


def configured(folder: Path, **more: str) -> str:
    lines = {"socket": folder / "s", "state_dir": folder, "log_dir": folder, **more}
    path = folder / "unitd.toml"
    path.write_text('node = "here"\n[daemon]\n' + "".join(f'{key} = "{value}"\n' for key, value in lines.items()))
    return str(path)


def test_without_a_daemon_what_is_seen_is_told_and_what_is_not_is_unknown(folder: Path, unitctl: Any) -> None:
    done = unitctl("-c", configured(folder), "-o", "json", "doctor")
    assert done.returncode == 69
    outcomes = {item["check"]: item["outcome"] for item in json.loads(done.stdout)["findings"]}
    assert outcomes["configuration"] == "ok" and outcomes["registry"] == "unknown"
    assert outcomes["journal"] == "ok" and outcomes["sockets"] == "ok"
    assert set(outcomes) >= {"state_dir", "log_dir", "socket_dir"}


def test_without_a_daemon_folders_that_are_missing_are_problems(folder: Path, unitctl: Any) -> None:
    done = unitctl("-c", configured(folder, state_dir=str(folder / "no")), "-o", "json", "doctor")
    assert (done.returncode, found(done, "state_dir")["outcome"]) == (69, "problem")


def test_a_daemon_that_was_killed_has_left_its_socket(daemon: Any, folder: Path, unitctl: Any) -> None:
    daemon.stop()
    done = unitctl("-c", configured(folder, socket=str(daemon.path)), "-o", "json", "doctor")
    assert (done.returncode, found(done, "sockets")["outcome"]) == (69, "warning")


def test_without_a_daemon_every_mistake_in_the_files_is_a_problem(folder: Path, unitctl: Any) -> None:
    path = configured(folder, wrong="a", wronger="b")
    done = unitctl("-c", path, "doctor")
    assert done.returncode == 69
    assert done.stdout.count("unknown key") == 2 and done.stderr == ""


@pytest.mark.parametrize("text", ["[daemon\nsocket", None])
def test_a_file_that_cannot_be_read_at_all_is_a_problem(folder: Path, unitctl: Any, text: str | None) -> None:
    path = folder / "unitd.toml"
    if text is not None:
        path.write_text(text)
    done = unitctl("-c", str(path), "-o", "json", "doctor")
    assert (done.returncode, found(done, "configuration")["outcome"]) == (1, "problem")


PRELOADED = (
    "difflib, grp, pwd, supervisor.config, supervisor.folders, supervisor.unitctl.diagnosis, supervisor.unitctl.doctor"
)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_user_who_may_not_use_the_socket_gets_4_and_how_to_change_that(daemon: Any, folder: Path) -> None:
    daemon.path.chmod(0o600)
    folder.chmod(0o755)
    script = f"""
import os, {PRELOADED}  # this installation may be out of that user's reach
from supervisor.unitctl.main import run
os.setgroups([])
os.setuid(65534)
raise SystemExit(run(["-s", "unix://{daemon.path}", "doctor"]))
"""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 4, done
    assert "use sudo" in done.stdout
