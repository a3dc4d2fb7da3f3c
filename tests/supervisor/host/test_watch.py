"""Files that change, seen through real folders."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.host import watch
from supervisor.host.clock import monotonic
from supervisor.host.watch import Folder, Folders
from tests.supervisor.running import run, until


@pytest.fixture(autouse=True)
def _soon_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "CALM_SECONDS", 0.15)


def write(path: Path) -> None:
    path.write_text("x")


def replace(path: Path) -> None:
    """As editors and deployments do it."""
    path.with_suffix(".tmp").write_text("y")
    path.with_suffix(".tmp").rename(path)


def touch_mode(path: Path) -> None:
    path.chmod(0o600)


@pytest.mark.parametrize("change", [write, replace, Path.unlink, touch_mode])
def test_a_change_is_told_in_the_loop(tmp_path: Path, change: Callable[[Path], object]) -> None:
    async def scenario() -> None:
        file = tmp_path / "unitd.toml"
        file.write_text("")
        told = list[threading.Thread]()
        folders = Folders(lambda: told.append(threading.current_thread()))
        folders.watch([str(file)])
        change(file)
        await until(lambda: told)
        assert told == [threading.main_thread()]
        folders.close()

    run(scenario())


def test_a_new_file_beside_the_known_ones_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        told = list[int]()
        folders = Folders(lambda: told.append(1))
        folders.watch([str(tmp_path / "unitd.toml")])
        (tmp_path / "new.toml").write_text("")
        await until(lambda: told)
        folders.close()

    run(scenario())


def test_reading_and_other_files_are_not_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        file = tmp_path / "unitd.toml"
        file.write_text("")
        told = list[int]()
        folders = Folders(lambda: told.append(1))
        folders.watch([str(file)])
        file.read_text()
        os.listdir(tmp_path)
        (tmp_path / "notes.txt").write_text("")
        (tmp_path / "unitd.toml.swp").write_text("")
        await asyncio.sleep(0.4)
        assert told == []
        folders.close()

    run(scenario())


def test_many_changes_are_told_once_when_they_are_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        told = list[float]()
        folders = Folders(lambda: told.append(monotonic()))
        folders.watch([str(tmp_path / "unitd.toml")])
        for number in range(10):
            (tmp_path / f"unit{number}.toml").write_text("")
            last = monotonic()
            await asyncio.sleep(0.02)
        await until(lambda: told)
        await asyncio.sleep(0.3)
        assert len(told) == 1
        assert told[0] - last >= 0.14

    run(scenario())


def test_folders_that_are_not_wanted_any_more_are_left(tmp_path: Path) -> None:
    async def scenario() -> None:
        old, new = tmp_path / "old", tmp_path / "new"
        for folder in (old, new):
            folder.mkdir()
        told = list[int]()
        folders = Folders(lambda: told.append(1))
        folders.watch([str(old / "a.toml")])
        folders.watch([str(new / "a.toml"), str(new / "b.toml")])
        (old / "a.toml").write_text("")
        await asyncio.sleep(0.4)
        assert told == []
        (new / "a.toml").write_text("")
        await until(lambda: told)
        folders.close()

    run(scenario())


def test_after_close_nothing_is_told_even_if_it_was_about_to_be(tmp_path: Path) -> None:
    async def scenario() -> None:
        told = list[int]()
        folders = Folders(lambda: told.append(1))
        folders.watch([str(tmp_path / "unitd.toml")])
        (tmp_path / "unitd.toml").write_text("")
        await asyncio.sleep(0.08)
        folders.close()
        (tmp_path / "unitd.toml").write_text("more")
        await asyncio.sleep(0.3)
        assert told == []

    run(scenario())


def test_a_folder_that_is_not_there_is_an_error_and_leaves_no_thread(tmp_path: Path) -> None:
    async def scenario() -> None:
        before = set(threading.enumerate())
        with pytest.raises(FileNotFoundError):
            Folder(str(tmp_path / "missing"), ".toml", lambda: None)
        await until(lambda: set(threading.enumerate()) <= before)

    run(scenario())


def test_any_name_counts_where_no_suffix_is_asked_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        told = list[int]()
        folder = Folder(str(tmp_path), "", lambda: told.append(1))
        (tmp_path / "program").write_text("")
        await until(lambda: told)
        folder.close()

    run(scenario())
