"""cgroups v2, where this machine lets us make them."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from supervisor.core.model import Limits
from supervisor.host import cgroup
from supervisor.host.cgroup import GroupWatch, Mover, UnitGroup, find_base, make_home
from tests.supervisor.host.trees import cgroup_base
from tests.supervisor.running import run, until


@pytest.fixture
def base() -> Iterator[Path]:
    with cgroup_base() as made:
        if made is None:
            pytest.skip("this machine lets nobody make cgroups v2")
        yield made


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a child, in a session of its own."""
    script = ["sh", "-c", "sleep 1000 & echo started; wait"]
    started = subprocess.Popen(script, start_new_session=True, stdout=subprocess.PIPE)
    assert started.stdout is not None and started.stdout.readline()
    yield started
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    started.stdout.close()


def make(base: Path, limits: Limits = Limits()) -> UnitGroup:  # noqa: B008 - frozen
    return UnitGroup.make(base, "web", 1, limits)[0]


def readable(watch: GroupWatch, seconds: float) -> bool:
    return bool(select.select([watch.fileno()], [], [], seconds)[0])


# Where.


def test_off_means_none() -> None:
    assert find_base("off") is None


def test_a_folder_that_is_no_cgroup_is_none(tmp_path: Path) -> None:
    assert find_base(str(tmp_path)) is None
    assert find_base(str(tmp_path / "missing")) is None


def test_a_configured_cgroup_is_taken(base: Path) -> None:
    assert find_base(str(base)) == base


def test_a_cgroup_that_cannot_be_written_to_is_none(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, whose cgroup file system is there to be read only."""
    real = os.access
    for refused in (base, base / "cgroup.procs"):
        monkeypatch.setattr(os, "access", lambda path, mode, bad=refused: Path(path) != bad and real(path, mode))
        assert find_base(str(base)) is None
        monkeypatch.undo()


def test_the_daemons_own_cgroup_is_found_and_needs_to_be_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    own = cgroup.own_cgroup()
    if own is None:
        pytest.skip("this machine has no cgroup v2")
    assert own.is_dir()
    monkeypatch.setattr(cgroup, "_delegated", lambda folder: False)
    assert find_base("auto") is None


def test_each_daemon_has_a_home_of_its_own_and_clears_away_those_of_dead_ones(base: Path) -> None:
    old = base / "unitd-4194305"  # no process has this number
    (old / "web-1").mkdir(parents=True)
    home = make_home(base)
    assert home == base / f"unitd-{os.getpid()}"
    assert home.is_dir() and not old.exists()
    assert make_home(base) == home


# Life.


def test_a_process_is_taken_in_with_its_children_and_all_are_killed_at_once(
    base: Path, child: subprocess.Popen[bytes]
) -> None:
    group = make(base)
    assert not group.populated() and group.pids() == []
    group.take(child.pid)
    assert child.pid in group.pids() and len(group.pids()) == 2
    assert group.populated()
    group.kill()
    assert child.wait() == -signal.SIGKILL
    while group.populated():
        pass
    assert group.pids() == []
    group.remove()
    assert not Path(group.folder).exists()


def test_what_units_make_below_their_cgroup_counts_and_goes_with_it(base: Path, child: subprocess.Popen[bytes]) -> None:
    group = make(base)
    below = Path(group.folder) / "a" / "b"
    below.mkdir(parents=True)
    (below / "cgroup.procs").write_text(str(child.pid))
    assert group.pids() == [child.pid] and group.populated()
    group.kill()
    child.wait()
    while group.populated():
        pass
    group.remove()
    assert not Path(group.folder).exists()


def test_a_cgroup_in_use_stays(base: Path, child: subprocess.Popen[bytes]) -> None:
    group = make(base)
    group.take(child.pid)
    group.remove()
    assert child.pid in group.pids()


def test_a_cgroup_that_has_gone_is_empty_and_taking_somebody_in_changes_nothing(
    base: Path, child: subprocess.Popen[bytes]
) -> None:
    group = make(base)
    group.remove()
    assert not group.populated() and group.pids() == []
    group.kill()
    group.take(child.pid)
    group.remove()
    assert child.poll() is None


def test_limits_are_set_or_named(base: Path) -> None:
    group, unset = UnitGroup.make(base, "web", 1, Limits(memory_max=10**9, pids_max=50))
    for name, value in (("memory.max", 10**9 // 4096 * 4096), ("pids.max", 50)):
        file = Path(group.folder) / name
        problems = [problem for problem in unset if problem.startswith(f"{name}: ")]
        if file.exists():
            assert not problems and int(file.read_text()) == value
        else:
            assert len(problems) == 1


def test_a_second_cgroup_for_the_same_attempt_is_an_error(base: Path) -> None:
    make(base)
    with pytest.raises(FileExistsError):
        make(base)


# Becoming empty.


def test_it_is_told_when_a_cgroup_becomes_empty(base: Path, child: subprocess.Popen[bytes]) -> None:
    group, watch = make(base), GroupWatch()
    group.take(child.pid)
    watch.add(group)
    watch.add(group)
    assert not readable(watch, 0.05) and watch.emptied() == []
    group.kill()
    child.wait()
    assert readable(watch, 5)
    assert watch.emptied() == [group]
    assert not readable(watch, 0.05), "told once"
    watch.close()


def test_a_cgroup_that_is_emptied_and_removed_before_anybody_looks_disturbs_nobody(
    base: Path, child: subprocess.Popen[bytes]
) -> None:
    group, watch = make(base), GroupWatch()
    before = len(os.listdir("/proc/self/fd"))
    group.take(child.pid)
    watch.add(group)
    group.kill()
    child.wait()
    while group.populated():
        pass
    group.remove()
    assert watch.emptied() in ([], [group]), "kernels differ in whether they tell of what has gone"
    watch.discard(group)
    assert len(os.listdir("/proc/self/fd")) == before
    watch.close()


def test_what_is_not_watched_any_more_is_not_told(base: Path, child: subprocess.Popen[bytes]) -> None:
    group, watch = make(base), GroupWatch()
    group.take(child.pid)
    watch.add(group)
    watch.discard(group)
    watch.discard(group)
    group.kill()
    child.wait()
    assert not readable(watch, 0.1)
    watch.close()


# Moving.


def test_processes_are_moved_beside_the_loop_in_order(base: Path, child: subprocess.Popen[bytes]) -> None:
    async def scenario() -> None:
        group, mover = make(base), Mover()
        moved = list[int]()
        mover.move(group, child.pid, lambda: moved.append(1))
        mover.move(group, 2**22 + 1, lambda: moved.append(2))
        assert moved == [], "not in this turn"
        await until(lambda: moved == [1, 2])
        assert child.pid in group.pids()
        mover.close()

    run(scenario())


def test_a_mover_that_had_nothing_to_do_has_no_thread() -> None:
    async def scenario() -> None:
        Mover().close()
        await asyncio.sleep(0)

    run(scenario())
