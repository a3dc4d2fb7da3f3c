"""Mistakes in the configuration, as a daemon meets them: it says where they are, and what runs goes on."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.host import ROOT, UNITCTL, UNITD, Host
from tests.end_to_end.machine import until
from tests.supervisor.config_draft import MAIN, valid_files, write
from tests.supervisor.config_mistakes import Mistake, mistakes

ALL = mistakes()
NEW_UNIT = b'\n[unit.new]\ncommand = "/bin/sleep 1000"\n'


@pytest.fixture
def folder(host: Host) -> Iterator[Path]:
    """A folder with the valid configuration, run by a daemon with one of its units up."""
    files = valid_files()
    host.config = write(files, host.folder)
    host.socket = str(host.folder / "u.sock")
    (host.folder / "log").mkdir(exist_ok=True)
    host.run()
    host.do("start", "clock")
    yield host.folder


def _replace(folder: Path, files: dict[str, bytes]) -> None:
    """Other files in place of those that are there; what the daemon itself made stays."""
    shutil.rmtree(folder / "units.d", ignore_errors=True)
    for name in (MAIN, "cart.env"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    write(files, folder)


def _names_the_place(mistake: Mistake, folder: Path, errors: list[dict[str, Any]]) -> bool:
    path = str(folder / mistake.file)
    if mistake.key is None:
        return bool(errors) and errors[0]["path"] == path
    return any((error["path"], error["key"]) == (path, mistake.key) for error in errors)


def test_200_mistakes_are_refused_with_file_and_key_and_touch_no_unit(host: Host, folder: Path) -> None:
    before = host.units()
    wrong = []
    for mistake in ALL:
        _replace(folder, mistake.files)
        answer = host.ask("POST", "/v1/config/apply", {})
        if answer.status != 422 or not _names_the_place(mistake, folder, answer.json["errors"]):
            wrong.append((str(mistake), answer))
    after = host.units()

    assert not wrong
    assert len(ALL) == 200
    for name, status in before.items():
        assert [after[name][key] for key in ("pid", "generation", "state")] == [
            status[key] for key in ("pid", "generation", "state")
        ]
    assert list(before) == list(after)
    files = valid_files()
    files[MAIN] += NEW_UNIT
    _replace(folder, files)
    assert host.ask("POST", "/v1/config/apply", {}).status == 202
    assert host.until_state("new", "RUNNING")["generation"] == 1
    assert host.unit("clock")["pid"] == before["clock"]["pid"]


def test_hup_logs_file_and_key_of_a_mistake(host: Host, folder: Path) -> None:
    clock = host.unit("clock")["pid"]
    for mistake in [mistake for mistake in ALL if mistake.key][::40]:
        _replace(folder, mistake.files)
        seen = len(host.said())
        host.signal(signal.SIGHUP)
        until(f"it complains about {mistake}", lambda: "not applied" in host.said()[seen:])  # noqa: B023
        assert f"{folder / mistake.file}" in host.said()[seen:] and str(mistake.key) in host.said()[seen:]
    assert host.unit("clock")["pid"] == clock


def test_plan_shows_mistakes_and_changes_without_doing_anything(host: Host, folder: Path) -> None:
    files = valid_files()
    files[MAIN] += NEW_UNIT
    _replace(folder, files)
    plan = host.ask("POST", "/v1/config/plan").json
    assert {item["unit"]: item["effect"] for item in plan["items"]}["new"] == "new" and plan["errors"] == []

    mistake = next(mistake for mistake in ALL if mistake.key)
    _replace(folder, mistake.files)
    plan = host.ask("POST", "/v1/config/plan").json

    assert plan["items"] == [] and _names_the_place(mistake, folder, plan["errors"])
    assert "new" not in host.units()


@pytest.mark.parametrize("mistake", [mistake for mistake in ALL if mistake.key][::25], ids=str)
def test_a_daemon_does_not_start_with_a_mistake_and_says_where_it_is(mistake: Mistake, tmp_path: Path) -> None:
    main = mistake.write(tmp_path)

    ended = _run([*UNITD, "-c", str(main)])

    assert ended.returncode == 2, ended
    assert str(tmp_path / mistake.file) in ended.stderr and str(mistake.key) in ended.stderr
    assert "Traceback" not in ended.stderr and ended.stdout == ""
    assert not (tmp_path / "state").exists() and not (tmp_path / "u.sock").exists()


@pytest.mark.parametrize("mistake", [mistake for mistake in ALL if mistake.key][::25], ids=str)
def test_unitctl_check_finds_it_before_the_daemon_does(mistake: Mistake, tmp_path: Path) -> None:
    main = mistake.write(tmp_path)

    ended = _run([*UNITCTL, "check", str(main)])

    assert ended.returncode == 2, ended
    said = ended.stdout + ended.stderr
    assert str(tmp_path / mistake.file) in said and str(mistake.key) in said
    assert "Traceback" not in said


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    ended = _run([*UNITD, "-c", str(tmp_path / "none.toml")])

    assert ended.returncode == 2
    assert ended.stderr == f"unitd: {tmp_path}/none.toml: cannot read it: No such file or directory\n"


@pytest.mark.parametrize("arguments", [["-x"], ["-c"], ["start"]])
def test_wrong_usage(arguments: list[str]) -> None:
    ended = _run([*UNITD, *arguments])

    assert ended.returncode == 2 and ended.stderr.startswith("unitd: ") and "--help" in ended.stderr


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=15, check=False)
