"""The TAB key: scripts that the shells accept, names from the daemon, silence when it is down."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

PATIENT = "unitctl --timeout 10"  # a busy machine may take longer than a person waits after TAB


def needs(shell: str) -> Any:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@pytest.mark.parametrize(
    "shell", [pytest.param("bash", marks=needs("bash")), pytest.param("zsh", marks=needs("zsh")),
              pytest.param("fish", marks=needs("fish"))],
)  # fmt: skip
def test_the_shell_accepts_the_script(unitctl: Any, folder: Path, shell: str) -> None:
    done = unitctl("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    script = folder / "script"
    script.write_text(done.stdout)
    subprocess.run([shell, "-n", str(script)], check=True, timeout=15)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_bound_to_unitctl(unitctl: Any, shell: str) -> None:
    script = unitctl("completion", shell).stdout
    assert "_UNITCTL_COMPLETE" in script and f"{shell}_complete" in script


def offered(unitctl: Any, line: str, **environment: str) -> list[str]:
    """What is offered for a line, by the program's side of bash's completion."""
    done = unitctl(COMP_WORDS=line, _UNITCTL_COMPLETE="bash_complete", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return [item.partition(",")[2] for item in done.stdout.splitlines() if item]


def test_commands_are_completed(unitctl: Any) -> None:
    assert offered(unitctl, "unitctl sta") == ["status", "start"]
    assert "is-active" in offered(unitctl, "unitctl ")


def test_options_are_completed_those_of_every_command_too(unitctl: Any) -> None:
    assert offered(unitctl, "unitctl restart --no-w") == ["--no-wait"]
    assert offered(unitctl, "unitctl restart --serv") == ["--server"]
    assert offered(unitctl, "unitctl status -o j") == ["json"]
    assert offered(unitctl, "unitctl drain --f") == ["--for"]
    assert offered(unitctl, "unitctl warm --p") == ["--period", "--pause"]


def test_units_groups_and_all_are_completed(daemon: Any, unitctl: Any) -> None:
    for name in ("addToCart:0", "addToCart:1", "db"):
        daemon.add(name)
    names = ["addToCart:0", "addToCart:1", "db", "addToCart:*", "all"]
    assert offered(unitctl, f"{PATIENT} stop ") == names
    assert offered(unitctl, f"{PATIENT} stop db add") == ["addToCart:0", "addToCart:1", "addToCart:*"]
    assert offered(unitctl, f"{PATIENT} stop addToCart:") == ["addToCart:0", "addToCart:1", "addToCart:*"]
    assert offered(unitctl, f"{PATIENT} logs d") == ["db"]
    assert offered(unitctl, f"{PATIENT} signal HUP d") == ["db"]
    for verb in ("drain", "undrain", "warm", "weight"):
        assert offered(unitctl, f"{PATIENT} {verb} d") == ["db"]


def test_the_options_on_the_line_say_which_daemon_is_asked(daemon: Any, unitctl: Any) -> None:
    daemon.add("db")
    for line in (f"{PATIENT} -s {daemon.path} stop d", f"{PATIENT} stop -s {daemon.path} d"):
        assert offered(unitctl, line, UNITCTL_SERVER="unix:///nowhere") == ["db"]


def test_signals_are_completed(unitctl: Any) -> None:
    assert offered(unitctl, "unitctl signal us") == ["USR1", "USR2"]


@pytest.mark.parametrize("server", ["unix:///nowhere", "nonsense"])
def test_nothing_is_offered_and_nothing_said_when_the_daemon_is_down(unitctl: Any, server: str) -> None:
    assert offered(unitctl, "unitctl stop ", UNITCTL_SERVER=server) == []


def test_a_daemon_that_does_not_answer_soon_is_not_waited_for(daemon: Any, unitctl: Any) -> None:
    over = threading.Event()

    def stuck(request: Any) -> tuple[int, Any]:
        over.wait(15)
        return 503, {"detail": "too late"}

    daemon.routes["GET", "/v1/units"] = stuck
    assert offered(unitctl, "unitctl stop ") == []
    assert not over.is_set()
    over.set()


def test_an_unfinished_quote_does_no_harm(daemon: Any, unitctl: Any) -> None:
    daemon.add("db")
    assert offered(unitctl, f"{PATIENT} stop 'd") == ["db"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(  # bash puts a reply in the place of what follows the last word break
    ("line", "wordbreaks", "replies"),
    [
        (f"{PATIENT} stop addToCart:", " \t\n\"'><=;|&(:", ["0", "1", "*"]),
        (f"{PATIENT} stop addToCart:", " \t\n\"'><=;|&(", ["addToCart:0", "addToCart:1", "addToCart:*"]),
        (f"{PATIENT} stop addTo", " \t\n\"'><=;|&(:", ["addToCart:0", "addToCart:1", "addToCart:*"]),
        ("unitctl statu", " \t\n\"'><=;|&(:", ["status"]),
    ],
)  # fmt: skip
def test_bash_completes_names_with_colons(
    daemon: Any, unitctl: Any, folder: Path, line: str, wordbreaks: str, replies: list[str]
) -> None:
    daemon.add("addToCart:0")
    daemon.add("addToCart:1")
    program = folder / "unitctl"
    code = "from supervisor.unitctl.main import main; main()"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{code}" "$@"\n')
    program.chmod(0o755)
    script = folder / "script"
    script.write_text(unitctl("completion", "bash").stdout)
    asked = (
        f"source {script}; COMP_WORDBREAKS={shlex.quote(wordbreaks)}; COMP_LINE={shlex.quote(line + ' rest')}; "
        f"COMP_POINT={len(line)}; _unitctl_completion unitctl; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    environment = {**unitctl.environment, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", asked],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=15,
    )
    assert (done.stdout.splitlines(), done.stderr) == (replies, "")
