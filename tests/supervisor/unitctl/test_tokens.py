"""`new-token` and `audit` without a daemon."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from supervisor.core.access import token_hash
from supervisor.core.audit import AuditRecord, Mark, audit_line
from supervisor.unitctl.codes import DONE, FAILED, USAGE
from supervisor.unitctl.main import run


def test_each_token_is_another_one_and_comes_with_its_hash(capsys: pytest.CaptureFixture[str]) -> None:
    seen = set()
    for _ in range(3):
        assert run(["new-token", "-o", "json"]) == DONE
        value = json.loads(capsys.readouterr().out)
        assert value["token_sha256"] == token_hash(value["token"]) and value["file"] is None
        seen.add(value["token"])
    assert len(seen) == 3 and all(len(token) == 43 for token in seen)
    assert run(["new-token"]) == DONE
    token, line = capsys.readouterr().out.splitlines()
    assert line == f'token_sha256 = "{token_hash(token.removeprefix("token: "))}"'


def test_a_token_in_a_file_is_only_its_owners_and_replaces_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, before = tmp_path / "t", os.umask(0)
    try:
        assert run(["new-token", "--file", str(path)]) == DONE
    finally:
        os.umask(before)
    token = path.read_text().strip()
    assert path.stat().st_mode & 0o777 == 0o600
    assert token not in capsys.readouterr().out
    assert run(["new-token", "--file", str(path)]) == FAILED
    assert "it exists" in capsys.readouterr().err and path.read_text().strip() == token
    assert run(["new-token", "--file", str(tmp_path / "no" / "t")]) == FAILED
    assert "No such file" in capsys.readouterr().err


def test_the_audit_log_of_a_configuration_is_found_shown_and_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, path = tmp_path / "u.toml", tmp_path / "a.jsonl"
    config.write_text('node = "here"\ndaemon.audit_log = "a.jsonl"\n')
    command = ["-c", str(config), "audit"]
    assert run(command) == USAGE, "it is not there"
    assert "a.jsonl: cannot read it" in capsys.readouterr().err
    mark, data = Mark(), b""
    for number in range(30):
        line, mark = audit_line(AuditRecord("t", "ann", "unix", "stop", f"web:{number}"), mark)
        data += line
    path.write_bytes(data + b"torn")
    assert run(command) == DONE
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 19 and shown[-1] == "t  ann (unix)  stop web:29: accepted"
    assert run([*command, "--verify"]) == FAILED
    assert "line 31 is no record" in capsys.readouterr().err
    path.write_bytes(data)
    assert run([*command, "--verify"]) == DONE
    assert mark.digest in capsys.readouterr().out
    assert run([*command, "-n", "0"]) == DONE and capsys.readouterr().out == ""
    path.write_bytes(b"")
    assert run([*command, "--verify"]) == DONE and "no lines" in capsys.readouterr().out


def test_a_configuration_without_an_audit_log_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "u.toml"
    config.write_text('node = "here"\ndaemon.audit_log = ""\n')
    assert run(["-c", str(config), "audit"]) == USAGE
    assert "no commands are written down" in capsys.readouterr().err
