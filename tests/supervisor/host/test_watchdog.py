"""The service manager's watchdog."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.host.watchdog import Watchdog, watchdog_seconds
from tests.supervisor.host.manager import Manager


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    made = Manager(tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", made.path)
    monkeypatch.setenv("WATCHDOG_USEC", "80000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    was_enabled = faulthandler.is_enabled()
    yield made
    if not was_enabled:
        faulthandler.disable()
    made.close()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0", "WATCHDOG_PID": "7"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
    ],
)
def test_beats_are_wanted_of_the_process_that_the_environment_names(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert watchdog_seconds(environ, 7) == seconds


def test_beats_come_again_and_again_while_nothing_is_overdue(manager: Manager) -> None:
    async def scenario() -> None:
        watchdog = Watchdog(lambda: "")
        watchdog.start()
        for _ in range(3):
            assert (await asyncio.to_thread(manager.read))[0] == ["WATCHDOG=1"]
        watchdog.close()

    asyncio.run(scenario())


def test_a_beat_is_withheld_while_something_is_overdue_and_comes_when_it_is_done(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    trouble = ["the writing is late"]

    async def scenario() -> None:
        watchdog = Watchdog(lambda: trouble[0])
        watchdog.start()
        assert (await asyncio.to_thread(manager.read))[0] == ["STATUS=overdue: the writing is late"]
        trouble[0] = ""
        assert (await asyncio.to_thread(manager.read))[0] == ["WATCHDOG=1"]
        assert (await asyncio.to_thread(manager.read))[0] == ["STATUS="]
        watchdog.close()

    asyncio.run(scenario())
    assert [record.getMessage() for record in caplog.records if "overdue" in record.getMessage()] == [
        "overdue: the writing is late; without a change the watchdog ends unitd",
        "no longer overdue",
    ]


def test_a_look_that_fails_is_no_sign_of_life(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    def look() -> str:
        raise KeyError("agent")

    async def scenario() -> None:
        watchdog = Watchdog(look)
        watchdog.start()
        assert (await asyncio.to_thread(manager.read))[0] == ["STATUS=overdue: cannot look: KeyError('agent')"]
        watchdog.close()

    asyncio.run(scenario())
    assert "cannot look at what is overdue" in caplog.text


def test_a_loop_that_stands_still_gives_no_beats(manager: Manager) -> None:
    async def scenario() -> list[list[str]]:
        watchdog = Watchdog(lambda: "")
        watchdog.start()
        manager.read_all()
        for _ in range(20):  # all of this is one turn of the loop, longer than the manager would wait
            os.sched_yield()
            _stand_still(0.01)
        said = manager.read_all()
        watchdog.close()
        return said

    assert asyncio.run(scenario()) == []


def _stand_still(seconds: float) -> None:
    """Stand still."""
    time.sleep(seconds)


def test_after_the_end_and_without_a_manager_nothing_is_said(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> list[list[str]]:
        watchdog = Watchdog(lambda: "")
        watchdog.start()
        watchdog.start()  # once is enough
        watchdog.close()
        manager.read_all()
        monkeypatch.delenv("WATCHDOG_USEC")
        silent = Watchdog(lambda: "")
        silent.start()
        await asyncio.sleep(0.1)
        silent.close()
        return manager.read_all()

    assert asyncio.run(scenario()) == []
