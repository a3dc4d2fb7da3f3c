"""A journal that cannot be read, or written: nothing is done blindly, and no unit pays for it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.end_to_end.killed.scene import Scene
from tests.end_to_end.machine import is_alive, until

PAGE = 4096
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


def _garbage(journal: Path) -> None:
    journal.write_bytes(b"this is no database" * 1000)


def _torn(journal: Path) -> None:
    """Its first page is whole, and nothing else."""
    size = journal.stat().st_size
    with open(journal, "r+b") as file:
        file.seek(PAGE)
        file.write(b"\xff" * (size - PAGE))


def _not_a_file(journal: Path) -> None:
    journal.unlink()
    journal.mkdir()


def _later(journal: Path) -> None:
    with closing(sqlite3.connect(journal, isolation_level=None)) as database:
        database.execute("PRAGMA user_version = 99")


def _foreign(journal: Path) -> None:
    """Another program's tables."""
    with closing(sqlite3.connect(journal, isolation_level=None)) as database:
        database.execute("DROP TABLE unit")
        database.execute("CREATE TABLE unit (something TEXT)")


@pytest.mark.parametrize("damage", [_garbage, _torn, _not_a_file, _later, _foreign], ids=lambda damage: damage.__name__)
def test_with_a_journal_that_it_cannot_use_the_daemon_says_so_and_touches_nothing(
    scene: Scene, damage: Callable[[Path], None]
) -> None:
    journal = scene.host.folder / "state/journal.sqlite"
    scene.kill()
    with closing(sqlite3.connect(journal, isolation_level=None)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        kept = database.serialize()
    damage(journal)
    said, notes = scene.host.said(), scene.notes("web")
    scene.run(wait=False)

    assert scene.host.wait() == 2
    words = scene.host.said().removeprefix(said)
    assert str(journal) in words and "move it away" in words and "Traceback" not in words
    assert scene.notes("web") == notes
    assert is_alive(notes[-1].pid)

    _put_back(journal, kept)
    scene.run()
    scene.check_registered("web")
    assert scene.notes("web") == notes, "it goes on with the same process"
    scene.check_alone()


def _put_back(journal: Path, kept: bytes) -> None:
    if journal.is_dir():
        journal.rmdir()
    for path in journal.parent.glob("journal.sqlite*"):
        path.unlink()
    journal.write_bytes(kept)


@pytest.fixture
def full_disk() -> Iterator[Scene]:
    """A scene whose state is on a small file system of its own; `fill` takes what is left of it."""
    made = Scene()
    state = made.host.folder / "state"
    state.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(state)], check=True)
    try:
        made.run()
        made.check_registered("web")
        yield made
    finally:
        subprocess.run(["umount", "-l", str(state)], check=True)
        made.close()


def _fill(scene: Scene) -> Path:
    filler = scene.host.folder / "state/filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 512)
        except OSError:
            return filler


@needs_root
def test_a_full_disk_stops_no_unit_and_no_order(full_disk: Scene) -> None:
    scene = full_disk
    filler = _fill(scene)
    until("the journal is full", lambda: scene.host.do("restart", "web") and "cannot write the journal" in _said(scene))
    scene.host.do("drain", "web")
    scene.host.do("undrain", "web")
    scene.check_registered("web")
    generation = scene.registered()["web"]

    filler.unlink()
    scene.host.do("restart", "web")
    scene.kill()
    scene.run()

    scene.check_registered("web")
    assert scene.registered() == {"web": generation + 1}, "it goes on with the same process"
    scene.check_alone()


@needs_root
def test_a_daemon_that_is_killed_while_the_disk_is_full_takes_up_its_units(full_disk: Scene) -> None:
    scene = full_disk
    _fill(scene)
    until("the journal is full", lambda: scene.host.do("restart", "web") and "cannot write the journal" in _said(scene))
    scene.host.do("restart", "web")
    generation = scene.registered()["web"]
    scene.kill()
    scene.run()

    until("there is another process", lambda: scene.registered().get("web", 0) > generation)
    scene.check_registered("web")
    scene.check_alone()


def _said(scene: Scene) -> str:
    return scene.host.said()
