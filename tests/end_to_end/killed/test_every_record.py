"""The daemon is killed before and after every record that it writes of an order, and the next one brings it to a true
end: nothing is started twice, nothing is in the registry that does not serve, nothing is forgotten."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from tests.end_to_end.killed.scene import Scene, until_equal
from tests.end_to_end.machine import CGROUPS

Json = Any
Records = tuple[str, int, int]
Act = Callable[..., None]
ALL = tuple((side, first, 2) for side in ("before", "after") for first in (1, 2))  # side, first record, then every n-th
HOUR = 3600.0


def _play(act: Act, *records: Records, **how: Any) -> None:
    """Each part of the records with a host of its own, all at the same time: mostly they wait."""
    with ThreadPoolExecutor(len(records)) as pool:
        for played in [pool.submit(_on_a_host, partial(act, records=item), how) for item in records]:
            played.result()


def _on_a_host(act: Callable[[Scene], None], how: dict[str, Any]) -> None:
    scene = Scene(**how)
    try:
        scene.run()
        scene.check_registered(*scene.names)
        act(scene)
        scene.check_alone()
        scene.check_fences()
    finally:
        scene.close()


def _restart(scene: Scene, records: Records) -> None:
    before = _generations(scene)
    for operations in scene.deaths("restart", *records):
        assert [operation["state"] for operation in operations] == ["succeeded"] * len(scene.names), operations
        scene.check_registered(*scene.names)
        scene.check_alone()
        after = _generations(scene)
        assert all(after[name] > before[name] for name in scene.names)
        before = after


def _generations(scene: Scene) -> dict[str, int]:
    return {name: status["generation"] for name, status in scene.host.units().items()}


@pytest.mark.timeout(90)
def test_a_restart_ends_with_a_new_registered_process_wherever_the_daemon_was_killed() -> None:
    _play(_restart, *ALL)


@pytest.mark.timeout(90)
@pytest.mark.skipif(os.geteuid() != 0 or CGROUPS is None, reason="a delegated cgroup v2 needs root and such a kernel")
def test_a_restart_of_a_unit_in_a_cgroup_ends_wherever_the_daemon_was_killed() -> None:
    _play(_restart, ("before", 3, 4), ("after", 4, 4), cgroup="auto")


@pytest.mark.timeout(90)
def test_a_restart_waits_for_the_entrys_end_wherever_the_daemon_was_killed() -> None:
    _play(_restart, ("before", 2, 5), ("before", 5, 5), ("after", 3, 5), ("after", 4, 5), removal="expire")


@pytest.mark.timeout(90)
def test_a_rolling_restart_replaces_every_process_wherever_the_daemon_was_killed() -> None:
    _play(_restart, ("before", 3, 9), ("after", 2, 9), ("after", 6, 9), ("after", 10, 9), processes=2)


def _stop_and_start(scene: Scene, records: Records) -> None:
    stops, starts = scene.deaths("stop", *records), scene.deaths("start", *records)
    for [stopped] in stops:
        assert stopped["state"] == "succeeded", stopped
        assert scene.host.unit("web")["state"] == "STOPPED"
        until_equal(scene.registered, {})
        assert scene.host.processes() == set()
        _start_again(scene, starts)
    for [started] in starts:
        assert started["state"] == "succeeded", started
        scene.check_registered("web")
        scene.host.do("stop", "web")


def _start_again(scene: Scene, starts: Iterator[list[Json]]) -> None:
    started = next(starts, None)
    if started is None:
        scene.host.do("start", "web")
        return
    assert started[0]["state"] == "succeeded", started
    scene.check_registered("web")
    scene.check_alone()


@pytest.mark.timeout(90)
def test_a_stop_and_a_start_come_true_wherever_the_daemon_was_killed() -> None:
    _play(_stop_and_start, *ALL)


def _drain_and_undrain(scene: Scene, records: Records) -> None:
    undrains = scene.deaths("undrain", *records)
    asked_at = time.time()
    for [drained] in scene.deaths("drain", *records, for_seconds=HOUR, owner="a person"):
        assert drained["state"] == "succeeded", drained
        _check_drained(scene, asked_at)
        undrained = next(undrains, None)
        if undrained is None:
            scene.host.do("undrain", "web")
        else:
            assert undrained[0]["state"] == "succeeded", undrained
        scene.check_registered("web")
        assert scene.host.unit("web")["maintenance"] is None
        asked_at = time.time()


def _check_drained(scene: Scene, asked_at: float) -> None:
    unit = scene.host.until_state("web", "DRAINED")
    until_equal(scene.registered, {})
    scene.check_alone()
    kept = unit["maintenance"]
    assert kept["owner"] == "a person"
    until = datetime.fromisoformat(kept["until"]).timestamp()
    assert asked_at + HOUR < until + 0.01 and until < time.time() + HOUR


@pytest.mark.timeout(90)
def test_a_drain_and_its_end_come_true_wherever_the_daemon_was_killed() -> None:
    _play(_drain_and_undrain, *ALL)
