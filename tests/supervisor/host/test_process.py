"""Processes: real ones, with and without cgroups."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from supervisor.core.events import Event, Exited, Spawned, TreeEmpty
from supervisor.core.model import Limits, UnitSpec
from supervisor.host import process, tree
from supervisor.host.setup import keep_descriptors_private
from supervisor.host.signals import signal_name
from tests.supervisor.host.trees import (
    PYTHON,
    Host,
    cgroup_base,
    hosting,
    lives,
    pids_in,
    python,
    quoted,
    shell,
    unit,
)  # fmt: skip
from tests.supervisor.running import run, until

IGNORES_TERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
# Forks, lets the child have a session of its own, forks again, and ends the one between: nothing ties it to its unit.
DAEMONIZE = """
import os, sys, time
path, cleared = sys.argv[1], sys.argv[2] == "cleared"
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        if cleared:
            code = "import sys, os, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\\\n'); time.sleep(1000)"
            os.execve(sys.executable, [sys.executable, "-I", "-c", code, path], {})
        open(path, "a").write(f"{os.getpid()}\\n")
        time.sleep(1000)
    os._exit(0)
os.wait()
"""


@pytest.fixture(params=["groups", "cgroups"])
def base(request: pytest.FixtureRequest) -> Iterator[Path | None]:
    """Both ways to hold a tree together."""
    if request.param == "groups":
        yield None
        return
    with cgroup_base() as made:
        if made is None:
            pytest.skip("this machine lets nobody make cgroups v2")
        yield made


# Exits.


def test_an_exit_is_told_with_its_code_and_how_long_it_lived(base: Path | None) -> None:
    async def scenario() -> None:
        async with hosting(base) as host:
            pid = await host.spawned(shell("exit 3"))
            exited = await host.exited()
            assert (exited.exit.code, exited.exit.signal, exited.exit.stage) == (3, None, None)
            assert exited.exit.reason.startswith("exited with code 3 after 0.")
            assert exited.exit.can_heal and exited.exit.wall > 0
            assert not exited.leftovers and 0 <= exited.jitter < 1
            assert host.events() == [Spawned(1, pid), exited]
            assert tree.stat(pid) is None, "it was reaped"

    run(scenario())


def test_a_death_by_signal_is_told_with_its_name(base: Path | None) -> None:
    async def scenario() -> None:
        async with hosting(base) as host:
            await host.spawned(shell("kill -SEGV $$"))
            exited = await host.exited()
            assert (exited.exit.code, exited.exit.signal) == (None, signal.SIGSEGV)
            assert exited.exit.reason.startswith("killed by SIGSEGV after 0.")

    run(scenario())


def test_signals_without_a_name_have_a_number() -> None:
    assert signal_name(15) == "SIGTERM"
    assert signal_name(40) == "signal 40"


def test_a_second_attempt_has_nothing_to_do_with_the_first(base: Path | None) -> None:
    async def scenario() -> None:
        async with hosting(base) as host:
            await host.spawned(shell("exit 1"))
            await host.exited()
            second = await host.spawned(unit(), attempt=2)
            host.processes.terminate("web", 1)
            host.processes.kill("web", 1)
            assert lives(second), "orders for an old attempt touch nobody"
            host.processes.terminate("web", 2)
            assert (await host.exited(attempt=2)).exit.signal == signal.SIGTERM

    run(scenario())


def test_orders_for_units_without_a_process_do_nothing() -> None:
    async def scenario() -> None:
        async with hosting() as host:
            host.processes.terminate("web", 1)
            host.processes.kill("web", 1)
            assert not host.processes.signal("web", signal.SIGHUP)
            assert host.posted == []

    run(scenario())


def test_close_leaves_units_alive() -> None:
    async def scenario() -> None:
        async with hosting() as host:
            pid = await host.spawned(unit())
            host.processes.close()
            assert lives(pid)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            host.processes = Host(None).processes  # for the end of the test

    run(scenario())


# Stopping.


def test_the_stop_signal_goes_to_the_whole_group(base: Path | None, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosting(base) as host:
            pids = tmp_path / "pids"
            await host.spawned(shell(f"sleep 1000 & echo $! >> {pids}; sleep 1000 & echo $! >> {pids}; wait"))
            children = await pids_in(pids, 2)
            host.processes.terminate("web", 1)
            await host.ended()
            assert not any(map(lives, children))

    run(scenario())


def test_the_units_own_stop_signal_is_used(base: Path | None, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosting(base) as host:
            ready = tmp_path / "ready"
            script = f"trap 'exit 42' QUIT; echo $$ > {ready}; while :; do sleep 0.01; done"
            await host.spawned(shell(script, stopsignal=int(signal.SIGQUIT)))
            await pids_in(ready)
            host.processes.terminate("web", 1)
            assert (await host.exited()).exit.code == 42

    run(scenario())


def test_a_stopped_unit_can_be_terminated(base: Path | None) -> None:
    async def scenario() -> None:
        async with hosting(base) as host:
            pid = await host.spawned(unit())
            os.kill(pid, signal.SIGSTOP)
            await until(lambda: (place := tree.stat(pid)) is not None and place.state == "T")
            host.processes.terminate("web", 1)
            assert (await host.exited()).exit.signal == signal.SIGTERM

    run(scenario())


def test_a_unit_that_ignores_its_stop_signal_is_killed(base: Path | None, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosting(base) as host:
            ready = tmp_path / "ready"
            code = (
                IGNORES_TERM
                + f"import os, time; open({str(ready)!r}, 'w').write(f'{{os.getpid()}}\\n'); time.sleep(1000)"
            )
            pid = await host.spawned(python(code))
            await pids_in(ready)
            host.processes.terminate("web", 1)
            await asyncio.sleep(0.1)
            assert lives(pid)
            host.processes.kill("web", 1)
            assert (await host.exited()).exit.signal == signal.SIGKILL

    run(scenario())


def test_terminating_before_the_process_was_started_starts_none() -> None:
    async def scenario() -> None:
        async with hosting() as host:
            host.processes.spawn(unit(), 1)
            host.processes.terminate("web", 1)
            exited = await host.exited()
            assert exited.exit.reason == "stopped before it was started"
            assert not exited.leftovers
            await asyncio.sleep(0.05)
            assert host.events(kind=Spawned) == []
            assert all(not batch for batch in host.journal)

    run(scenario())


def test_killing_before_the_process_was_started_signals_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    signalled = list[int]()
    monkeypatch.setattr(os, "killpg", lambda pgrp, number: signalled.append(pgrp))

    async def scenario() -> None:
        async with hosting() as host:
            host.processes.spawn(unit(), 1)
            host.processes.kill("web", 1)
            assert signalled == [], "0 would be the daemon's own group"
            monkeypatch.undo()
            await until(lambda: host.posted)

    run(scenario())


def test_terminating_one_of_the_same_batch_from_anothers_event_starts_none() -> None:
    async def scenario() -> None:
        async with hosting() as host:
            other = replace(unit(), name="other")

            def stop_other(name: str, event: Event) -> None:
                if name == "web" and isinstance(event, Spawned):
                    host.processes.terminate("other", 1)

            host.on_post = stop_other
            host.processes.spawn(unit(), 1)
            host.processes.spawn(other, 1)
            exited = await host.exited("other")
            assert exited.exit.reason == "stopped before it was started"
            assert host.events("other", Spawned) == []

    run(scenario())


# What is left behind.


def test_group_members_that_ignore_the_stop_signal_are_found_and_killed(base: Path | None, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosting(base) as host:
            pids = tmp_path / "pids"
            stubborn = quoted(
                (
                    *PYTHON,
                    IGNORES_TERM
                    + f"import os, time; open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(1000)",
                )
            )
            await host.spawned(shell(f"{stubborn} & sleep 1000"))
            (child,) = await pids_in(pids)
            host.processes.terminate("web", 1)
            exited = await host.exited()
            assert exited.leftovers and exited.exit.signal == signal.SIGTERM
            assert lives(child) and not host.events(kind=TreeEmpty)
            host.processes.kill("web", 1)
            assert (await host.emptied()).attempt == 1
            assert not lives(child)

    run(scenario())


def test_what_a_crashed_unit_left_in_its_group_is_terminated_then_gone(base: Path | None, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosting(base) as host:
            pids = tmp_path / "pids"
            await host.spawned(shell(f"sleep 1000 & echo $! >> {pids}; exit 7"))
            exited = await host.exited()
            assert exited.leftovers and exited.exit.code == 7
            (child,) = await pids_in(pids)
            host.processes.terminate("web", 1)
            await host.emptied()
            assert not lives(child)

    run(scenario())


def test_leftovers_that_end_by_themselves_are_noticed(base: Path | None, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosting(base) as host:
            go_on = tmp_path / "go_on"
            os.mkfifo(go_on)
            await host.spawned(shell(f"(read line < {go_on}) & exit 0"))
            assert (await host.exited()).leftovers
            assert not host.events(kind=TreeEmpty)
            await asyncio.to_thread(go_on.write_text, "now\n")
            await host.emptied()

    run(scenario())


@pytest.mark.parametrize("environment", ["kept", "cleared"])
def test_a_child_with_a_session_of_its_own_is_stopped_with_its_unit(
    base: Path | None, tmp_path: Path, environment: str
) -> None:
    async def scenario() -> None:
        async with hosting(base) as host:
            pids = tmp_path / "pids"
            clear = "env -i" if environment == "cleared" else ""
            await host.spawned(shell(f"{clear} setsid sh -c 'echo $$ >> {pids}; exec sleep 1000' & wait"))
            (child,) = await pids_in(pids)
            await until(lambda: (place := tree.stat(child)) is not None and place.session == child)
            host.processes.terminate("web", 1)
            await host.ended()
            assert not lives(child)

    run(scenario())


@pytest.mark.parametrize("environment", ["kept", "cleared"])
def test_a_daemonized_grandchild_is_stopped_with_its_unit(base: Path | None, tmp_path: Path, environment: str) -> None:
    """With its environment cleared, a session of its own and no living parent, only a cgroup can tell whose it is."""
    if base is None and environment == "cleared":
        pytest.skip("nothing but a cgroup ties such a process to its unit")

    async def scenario() -> None:
        async with hosting(base) as host:
            pids = tmp_path / "pids"
            code = DAEMONIZE + "time.sleep(1000)"
            if environment == "cleared":  # a moment later, when it has been put into its cgroup
                code = "while '/web-1' not in open('/proc/self/cgroup').read():\n    pass\n" + code
            leader = await host.spawned(unit(*PYTHON, code, str(pids), environment))
            (orphan,) = await pids_in(pids)
            await until(lambda: (place := tree.stat(orphan)) is not None and place.ppid == os.getpid())
            host.processes.terminate("web", 1)
            await host.ended()
            assert not lives(orphan) and not lives(leader)
            assert not host.events(kind=TreeEmpty) or host.events(kind=TreeEmpty)[0].attempt == 1

    run(scenario())


def test_a_unit_that_daemonizes_itself_leaves_something_that_can_be_stopped(base: Path | None, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosting(base) as host:
            pids = tmp_path / "pids"
            await host.spawned(unit(*PYTHON, DAEMONIZE, str(pids), "kept"))
            exited = await host.exited()
            assert exited.leftovers and exited.exit.code == 0
            (orphan,) = await pids_in(pids)
            assert lives(orphan)
            host.processes.terminate("web", 1)
            await host.emptied()
            assert not lives(orphan)

    run(scenario())


def test_a_daemonized_process_that_ignores_the_stop_signal_is_killed(base: Path | None, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosting(base) as host:
            pids = tmp_path / "pids"
            await host.spawned(unit(*PYTHON, IGNORES_TERM + DAEMONIZE + "time.sleep(1000)", str(pids), "kept"))
            (orphan,) = await pids_in(pids)
            host.processes.terminate("web", 1)
            await asyncio.sleep(0.1)
            assert lives(orphan)
            host.processes.kill("web", 1)
            await host.ended()
            assert not lives(orphan)

    run(scenario())


def test_what_escaped_after_the_stop_signal_is_killed_with_the_rest(base: Path | None, tmp_path: Path) -> None:
    """Its unit starts it in a session of its own only when it is asked to stop."""

    async def scenario() -> None:
        async with hosting(base) as host:
            pids, ready = tmp_path / "pids", tmp_path / "ready"
            child = f'trap "" TERM; echo $$ >> {pids}; exec sleep 1000'
            script = f"trap 'setsid sh -c \"{child.replace(chr(34), chr(92) + chr(34))}\" &' TERM; echo $$ > {ready}; while :; do sleep 0.01; done"
            await host.spawned(shell(script))
            await pids_in(ready)
            host.processes.terminate("web", 1)
            (escaped,) = await pids_in(pids)
            host.processes.kill("web", 1)
            await host.ended()
            assert not lives(escaped)

    run(scenario())


def test_zombies_that_belong_to_no_unit_are_reaped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with hosting() as host:
            await host.spawned(unit())
            # Not one of the host's: its grandchild is left to us, lives a little, and ends.
            code = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(0.2)\n    os._exit(0)\n"
            stranger = subprocess.Popen([*PYTHON, code], env={})
            stranger.wait()
            await until(lambda: tree.children(os.getpid()) == [next(iter(host.pids))], "the stranger is reaped")

    run(scenario())


def test_hundreds_of_orphans_that_end_while_the_loop_is_busy_are_reaped(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosting() as host:
            code = "import os\nfor _ in range(300):\n    if os.fork() == 0:\n        os._exit(0)\n"
            await host.spawned(python(code))
            time.sleep(0.5)
            await host.ended()
            await until(lambda: tree.children(os.getpid()) == [], "all are reaped")

    run(scenario())


# Limits of the host.


def test_when_descriptors_run_out_the_start_fails_and_can_heal() -> None:
    async def scenario() -> None:
        async with hosting() as host:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            highest = max(int(name) for name in os.listdir("/proc/self/fd"))
            spare = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)]
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2, hard))
                while True:
                    try:
                        spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
                    except OSError:
                        break
                host.processes.spawn(unit(), 1)
                exited = await host.exited()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for descriptor in spare:
                    os.close(descriptor)
            assert exited.exit.errno == errno.EMFILE and exited.exit.can_heal
            assert host.events(kind=Spawned) == []
            await host.spawned(unit(), attempt=2)

    run(scenario())


def test_a_child_that_cannot_be_watched_does_not_live(base: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list[int]()

    def refuse(pid: int, flags: int = 0) -> int:
        tried.append(pid)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def scenario() -> None:
        async with hosting(base) as host:
            monkeypatch.setattr(os, "pidfd_open", refuse)
            host.processes.spawn(unit(), 1)
            exited = await host.exited()
            monkeypatch.undo()
            assert (exited.exit.stage, exited.exit.errno) == ("descriptors", errno.EMFILE)
            assert exited.exit.can_heal and not exited.leftovers
            assert exited.exit.reason == "cannot start it: Too many open files"
            assert len(tried) == 1 and tree.stat(tried[0]) is None

    run(scenario())


def test_a_journal_that_cannot_be_written_starts_nothing() -> None:
    async def scenario() -> None:
        async with hosting() as host:

            def fail(batch: Sequence[tuple[str, int]]) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            host.processes._before_spawn = fail
            host.processes.spawn(unit(), 1)
            exited = await host.exited()
            assert exited.exit.stage == "journal" and exited.exit.can_heal
            assert "No space left on device" in exited.exit.reason

    run(scenario())


def test_a_unit_gets_the_notify_socket_that_is_opened_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosting() as host:
            host.sink.path = str(tmp_path / "out")
            host.processes._notify = lambda spec, attempt: f"/run/{spec.name}-{attempt}" if attempt == 2 else None
            for attempt in (1, 2):
                await host.spawned(shell("echo ${NOTIFY_SOCKET-none}"), attempt)
                await host.exited(attempt=attempt)
            assert Path(host.sink.path).read_text() == "none\n/run/web-2\n"

    run(scenario())


def test_a_notify_socket_that_cannot_be_opened_fails_the_start() -> None:
    async def scenario() -> None:
        async with hosting() as host:

            def refuse(spec: UnitSpec, attempt: int) -> str | None:
                raise OSError(errno.ENAMETOOLONG, "the path of the notify socket is too long")

            host.processes._notify = refuse
            host.processes.spawn(unit(), 1)
            assert (await host.exited()).exit.reason == "cannot start it: the path of the notify socket is too long"
            assert host.events(kind=Spawned) == []

    run(scenario())


def test_200_lives_leave_no_descriptor_and_no_zombie(base: Path | None) -> None:
    async def scenario() -> None:
        async with hosting(base) as host:
            await host.spawned(replace(shell("sleep 0.3 & sleep 0.15"), name="first"))
            await host.ended("first")
            before = sorted(os.listdir("/proc/self/fd"))
            empties = 0
            for attempt in range(1, 201):
                spec = unit("true") if attempt % 3 else unit("/no/such/program")
                host.processes.spawn(spec if attempt % 10 else shell("sleep 0.01 & exit 0"), attempt)
                await host.exited(attempt=attempt)
                empties += host.events(kind=Exited)[-1].leftovers
                await until(partial(host.has_emptied, empties))
            await until(lambda: len(os.listdir("/proc/self/fd")) == len(before), f"descriptors as before ({before})")
            await until(lambda: tree.children(os.getpid()) == [])
            if base is not None:
                await until(lambda: [item for item in base.iterdir() if item.is_dir()] == [], "no cgroup is left")

    run(scenario(), seconds=18)


def test_children_have_only_stdin_stdout_and_stderr(base: Path | None, tmp_path: Path) -> None:
    async def scenario() -> None:
        keep_descriptors_private()  # as the daemon does at its start
        async with hosting(base) as host:
            host.sink.path = str(tmp_path / "out")
            for attempt, limits in enumerate((Limits(), Limits(nice=1)), start=1):
                await host.spawned(unit("ls", "-1", "/proc/self/fd", limits=limits), attempt)
                await host.exited(attempt=attempt)
            out = Path(host.sink.path).read_text().split()
            assert out == ["0", "1", "2", "3"] * 2, "3 is the folder that ls reads"

    run(scenario())


def test_a_process_leads_its_own_session_and_reads_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosting() as host:
            host.sink.path = str(tmp_path / "out")
            pid = await host.spawned(shell("cat; echo ended; exec sleep 1000"))
            place = tree.stat(pid)
            assert place is not None and (place.pgrp, place.session, place.ppid) == (pid, pid, os.getpid())
            await until(lambda: Path(tmp_path / "out").read_text() == "ended\n", "its stdin is at its end")

    run(scenario())


# Order.


def test_starting_many_leaves_turns_for_others_and_keeps_their_order() -> None:
    async def scenario() -> None:
        async with hosting() as host:
            units = [replace(unit(), name=f"web:{number}") for number in range(3 * process.SPAWNS_PER_TURN)]
            turns = list[int]()

            def tick() -> None:
                turns.append(len(host.posted))
                if len(host.posted) < len(units):
                    asyncio.get_running_loop().call_soon(tick)

            for spec in units:
                host.processes.spawn(spec, 1)
            assert host.posted == [], "nothing is started before the loop turns"
            tick()
            await until(lambda: len(host.posted) == len(units))
            assert [name for name, _ in host.posted] == [spec.name for spec in units]
            assert all(later - earlier <= process.SPAWNS_PER_TURN for earlier, later in zip(turns, turns[1:]))
            assert [len(batch) for batch in host.journal] == [process.SPAWNS_PER_TURN] * 3
            assert [item for batch in host.journal for item in batch] == [(spec.name, 1) for spec in units]

    run(scenario())


def test_a_unit_that_cannot_be_started_does_not_keep_the_next_from_starting() -> None:
    async def scenario() -> None:
        async with hosting() as host:
            host.processes.spawn(replace(unit("/no/such/program"), name="bad"), 1)
            host.processes.spawn(unit("sh", "-c", "nul\0inside"), 1)
            host.processes.spawn(replace(unit(), name="good"), 1)
            await until(lambda: len(host.posted) == 3)
            assert [(name, type(event)) for name, event in host.posted] == [
                ("bad", Exited), ("web", Exited), ("good", Spawned),
            ]  # fmt: skip

    run(scenario())


def test_failed_starts_say_whether_they_can_heal() -> None:
    async def scenario() -> None:
        async with hosting() as host:
            host.processes.spawn(unit("/no/such/program"), 1)
            exit_ = (await host.exited()).exit
            assert (exit_.stage, exit_.errno, exit_.code, exit_.signal) == ("exec", errno.ENOENT, None, None)
            assert exit_.reason == "no such file: /no/such/program" and not exit_.can_heal

    run(scenario())


# Other words.


def test_any_signal_can_be_sent_to_the_leader(base: Path | None, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosting(base) as host:
            host.sink.path = str(tmp_path / "out")
            await host.spawned(shell("trap 'echo hup' HUP; echo ready; while :; do sleep 0.01; done"))
            out = tmp_path / "out"
            await until(lambda: out.read_text() == "ready\n")
            assert host.processes.signal("web", signal.SIGHUP)
            await until(lambda: out.read_text() == "ready\nhup\n")
            host.processes.kill("web", 1)
            await host.ended()
            assert not host.processes.signal("web", signal.SIGHUP)

    run(scenario())


def test_limits_that_need_a_cgroup_are_named_where_there_is_none(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with hosting() as host:
            await host.spawned(unit(limits=Limits(memory_max=10**9)))

    run(scenario())
    assert "web: memory_max and pids_max need a delegated cgroup v2; there is none" in caplog.text


def test_each_attempt_has_a_cgroup_that_goes_with_it() -> None:
    async def scenario(base: Path) -> None:
        async with hosting(base) as host:
            pid = await host.spawned(unit(), attempt=9)
            folder = base / "web-9"
            await until(lambda: (folder / "cgroup.procs").read_text().split() == [str(pid)])
            host.processes.terminate("web", 9)
            await host.exited(attempt=9)
            assert not folder.exists()

    with cgroup_base() as base:
        if base is None:
            pytest.skip("this machine lets nobody make cgroups v2")
        run(scenario(base))


def test_a_cgroup_that_cannot_be_made_fails_the_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosting(tmp_path / "missing") as host:
            host.processes.spawn(unit(), 1)
            exit_ = (await host.exited()).exit
            assert exit_.errno == errno.ENOENT and exit_.reason.startswith("cannot start it: ")

    run(scenario())


assert sys.platform == "linux"
