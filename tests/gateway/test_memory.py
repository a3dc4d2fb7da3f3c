"""The last good pools survive, and nothing that happens to their file stops anybody."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import memory
from gateway.errors import GatewayError
from gateway.memory import FILE, VERSION, Memory, decode, encode
from gateway.model import Pool, Standing
from tests.gateway.fakes import pool, server, until

POOLS = (
    pool(3, server("n/1", zone="a"), server("n/2", standing=Standing.DRAINING, held="the registry is silent")),
    pool(0, service="empty", epoch="another"),
)


def by_service(*pools: Pool) -> dict[str, Pool]:
    return {each.service: each for each in pools}


def test_what_was_saved_is_read_again(tmp_path: Path) -> None:
    folder = str(tmp_path / "state")
    first = Memory(folder)
    assert first.load() == ()
    first.note(by_service(*POOLS))
    first.close()
    again = Memory(folder)
    assert again.load() == POOLS
    again.close()
    assert sorted(os.listdir(folder)) == ["lock", FILE], "nothing is left over"


def test_nothing_is_remembered_without_a_folder() -> None:
    nowhere = Memory(None)
    nowhere.note(by_service(*POOLS))
    nowhere.save()
    assert nowhere.load() == ()
    nowhere.close()


def test_the_newest_is_saved_soon_and_not_each_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    replace = memory._replace
    monkeypatch.setattr(memory, "_replace", lambda path, data: (written.append(data), replace(path, data)))

    async def scene() -> None:
        kept = Memory(str(tmp_path))
        task = asyncio.create_task(kept.run())
        for revision in range(100):
            kept.note(by_service(pool(revision)))
        await until("it is saved", lambda: written)
        assert decode(written[0])[0].revision == 99
        kept.note(by_service(pool(100)))
        kept.close()
        assert decode(written[-1])[0].revision == 100, "the end does not wait"
        assert len(written) == 2
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (encode(POOLS)[:-20], "it is torn"),
        (b"", "it is torn"),
        (b"[" * 100_000, "it is torn"),
        (b"\xff\xfe", "it is torn"),
        (b"[]", "it is of version None"),
        (json.dumps({"version": VERSION + 1, "pools": []}).encode(), f"it is of version {VERSION + 1}"),
        (json.dumps({"version": VERSION}).encode(), "it has another form"),
        (json.dumps({"version": VERSION, "pools": [{"service": "x"}]}).encode(), "it has another form"),
        (json.dumps({"version": VERSION, "pools": 7}).encode(), "it has another form"),
        (encode(POOLS).replace(b'"serving"', b'"flying"'), "it has another form"),
        (encode(POOLS).replace(b'"port":1', b'"port":"1"'), "it has another form"),
        (encode(POOLS).replace(b'"port":1', b'"port":-1'), "it has another form"),
        (encode(POOLS).replace(b'"revision":3', b'"revision":"3"'), "it has another form"),
        (encode(POOLS).replace(b'"zone":"a"', b'"zone":5'), "it has another form"),
        (encode(POOLS).replace(b'"address":"127.0.0.1"', b'"address":null'), "it has another form"),
    ],
)
def test_a_file_that_cannot_be_used_is_said_and_done_without(
    tmp_path: Path, content: bytes, complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_bytes(content)
    kept = Memory(str(tmp_path))
    assert kept.load() == ()
    assert f"cannot use {tmp_path / FILE}, and go on without" in caplog.text and complaint in caplog.text
    kept.note(by_service(*POOLS))
    kept.save()
    assert kept.load() == POOLS, "it is replaced by a good one"
    kept.close()


def test_a_folder_that_cannot_be_is_said_and_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no folder")
    kept = Memory(str(tmp_path / "file" / "state"))
    assert "cannot use" in caplog.text and "Not a directory" in caplog.text
    assert kept.load() == ()
    kept.note(by_service(*POOLS))
    kept.save()
    kept.close()


def test_a_folder_that_vanishes_is_said_once_and_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "state"
    kept = Memory(str(folder))
    (folder / "lock").unlink()
    folder.rmdir()
    for _ in range(3):
        kept.note(by_service(*POOLS))
        kept.save()
    assert caplog.text.count("cannot save what is known") == 1
    folder.mkdir()
    kept.note(by_service(*POOLS))
    kept.save()
    assert kept.load() == POOLS
    kept.close()


def test_what_could_not_be_saved_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SAVE_SECONDS", 0.01)
    monkeypatch.setattr(memory, "FAILED_SECONDS", 0.01)
    folder = tmp_path / "state"

    async def scene() -> None:
        kept = Memory(str(folder))
        (folder / "lock").unlink()
        folder.rmdir()
        task = asyncio.create_task(kept.run())
        kept.note(by_service(*POOLS))
        await until("it was tried", lambda: kept._told)
        folder.mkdir()
        await until("it is saved", (folder / FILE).exists)
        assert kept.load() == POOLS
        task.cancel()
        await asyncio.wait([task])
        kept.close()

    asyncio.run(scene())


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Memory(str(tmp_path))
    kept.note(by_service(*POOLS))
    kept.save()

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    kept.note(by_service(pool(9)))
    kept.save()
    monkeypatch.undo()
    assert kept.load() == POOLS and sorted(os.listdir(tmp_path)) == ["lock", FILE]
    kept.close()


def test_two_on_one_folder_are_refused_and_the_second_is_told_who_has_it(tmp_path: Path) -> None:
    first = Memory(str(tmp_path))
    with pytest.raises(GatewayError, match=rf"another unit-gateway runs on .* \(pid {os.getpid()}\); stop it"):
        Memory(str(tmp_path))
    first.close()
    Memory(str(tmp_path)).close()


def test_one_that_was_killed_leaves_no_lock(tmp_path: Path) -> None:
    program = "import sys, time; from gateway.memory import Memory; m = Memory(sys.argv[1]); print('has it', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"has it\n"
        with pytest.raises(GatewayError, match=rf"\(pid {child.pid}\)"):
            Memory(str(tmp_path))
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    Memory(str(tmp_path)).close()
