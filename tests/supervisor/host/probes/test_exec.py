"""The probe kind `exec`."""

from __future__ import annotations

import errno
import os
import signal
from typing import Any

import pytest

from supervisor.host.probes.exec import ExecProbe
from supervisor.plugin_api import CommandResult, ProbeResult
from tests.supervisor.host.probes.probing import Tools, check, refusal, target


def test_the_daemon_runs_the_command_as_it_is() -> None:
    tools = Tools(CommandResult(0, None, b""))
    probe = ExecProbe(["/bin/check", "", "a b"])
    assert check(probe, target(tools=tools), 3.0) == ProbeResult(True, "ended with code 0")
    assert tools.ran == [("shop:0", ("/bin/check", "", "a b"), 3.0)]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (CommandResult(0, None, b"all is well\n"), ProbeResult(True, "ended with code 0: all is well")),
        (CommandResult(3, None, b"one\ntwo\n\n  \n"), ProbeResult(False, "ended with code 3: two")),
        (CommandResult(1, None, b"\xff\x1b[31mred\n"), ProbeResult(False, "ended with code 1: \ufffd?[31mred")),
        (CommandResult(1, None, b"x" * 4096), ProbeResult(False, "ended with code 1: " + "x" * 200)),
        (CommandResult(None, signal.SIGSEGV, b""), ProbeResult(False, "was killed by SIGSEGV")),
        (CommandResult(None, 40, b""), ProbeResult(False, "was killed by signal 40")),
        (CommandResult(None, None, b"asking\n"), ProbeResult(False, "did not end within 10 s: asking")),
        (
            OSError(errno.ENOENT, os.strerror(errno.ENOENT)),
            ProbeResult(False, "cannot run /bin/check: no such file or directory"),
        ),
    ],
)
def test_how_it_ended_and_its_last_line_are_told(result: CommandResult | OSError, expected: ProbeResult) -> None:
    assert check(ExecProbe(["/bin/check"]), target(tools=Tools(result))) == expected


def test_nobody_else_than_the_daemon_runs_commands() -> None:
    assert check(ExecProbe(["/bin/true"]), target()) == ProbeResult(False, "a command can only be run by the daemon")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("/bin/true", "must be a list of strings"),
        (True, "must be a list of strings"),
        ([], "must name a program"),
        ([""], "must name a program"),
        (["/bin/true", 1], "item 2 must be a string without NUL, not 1"),
        (["/bin/true", "a\0b"], "item 2 must be a string without NUL"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: Any, words: str) -> None:
    key, reason = refusal(ExecProbe, options)
    assert key == "" and words in reason
