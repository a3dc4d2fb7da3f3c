"""Trees that an earlier daemon started and left: found by their marks, adopted, ended. All of it with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.core.events import Exited, TreeEmpty
from supervisor.core.model import UnitSpec
from supervisor.host import tree
from supervisor.host.process import Processes
from tests.supervisor.host.trees import PYTHON, Host, hosting, lives, pids_in, shell, unit
from tests.supervisor.running import run, until

STATE = f"test-{os.getpid()}"
UNKNOWN = "ended; its exit status is unknown, for an earlier unitd started it"
# Starts a unit as a daemon does, says the pid of its leader, and is killed: like that daemon.
EARLIER = """
import os, signal, subprocess, sys
marks = {"UNITD_UNIT": sys.argv[1], "UNITD_GENERATION": sys.argv[2], "UNITD_STATE": sys.argv[3], "PATH": os.environ["PATH"]}
process = subprocess.Popen(["sh", "-c", sys.argv[4]], env=marks, start_new_session=True, stdout=2)
print(process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


class Later(Host):
    """A host of a later daemon."""

    async def ended_of(self, attempt: int) -> None:
        if (await self.exited(attempt=attempt)).leftovers:
            await until(lambda: [event for event in self.events(kind=TreeEmpty) if event.attempt == attempt])

    def __init__(self, base: Path | None) -> None:
        super().__init__(base)
        self.processes.close()
        self.processes = Processes(
            self._post, self.sink, base_cgroup=base, environment={"PATH": os.environ["PATH"]}, nofile=None,
            before_spawn=lambda batch: self.journal.append(list(batch)), state_id=STATE,
        )  # fmt: skip


@asynccontextmanager
async def later() -> AsyncIterator[Later]:
    """Not the subreaper of what it finds; all of that is ended when it is left."""
    async with hosting() as outer:
        outer.processes.close()
        host = Later(None)
        try:
            yield host
        finally:
            outer.processes = host.processes
            for pids in tree.leftovers(STATE).values():
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def left_by_earlier(script: str, name: str = "web", attempt: int = 4) -> int:
    """The leader of a unit whose daemon was killed. Nobody of this process's children: a shell of its own adopts it."""
    # A subreaper between keeps the orphans from becoming children of this very process.
    between = (
        "import ctypes, subprocess, sys, time\nctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"
        "subprocess.run([sys.executable, '-I', '-c', *sys.argv[1:]])\n"
        "import os, signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"  # reaps as init does
        "print('left', flush=True)\n"
        "while True: time.sleep(1000)\n"
    )
    process = subprocess.Popen(
        [*PYTHON, between, EARLIER, name, str(attempt), STATE, script],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert process.stdout.readline() == "left\n"
    process.stdout.close()
    process.returncode = 0  # its end is the end of the test: it is killed as a child of ours
    return pid


def others(pid: int, name: str = "web", attempt: int = 4) -> list[int]:
    return [found for found in tree.leftovers(STATE).get((name, attempt), []) if found != pid]


def adopt(host: Later, leader: int | None, spec: UnitSpec | None = None, attempt: int = 4) -> None:
    spec = spec or unit()
    found = tree.leftovers(STATE).get((spec.name, attempt), [])
    host.processes.adopt(spec, attempt, leader, [pid for pid in found if pid != leader])


def gone(*pids: int) -> bool:
    return not any(map(lives, pids))


# Finding them.


def test_what_an_earlier_daemon_left_is_found_by_unit_and_attempt(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with later():
            pids = tmp_path / "pids"
            web = left_by_earlier(f"sleep 1000 & echo $! >> {pids}; setsid sleep 1000 & echo $! >> {pids}; wait")
            old = left_by_earlier("exec sleep 1000", attempt=3)
            cart = left_by_earlier("exec sleep 1000", "cart:0", 12)
            left_by_earlier("UNITD_COMMAND=1 exec sleep 1000", "command", 1)
            left_by_earlier("UNITD_STATE=another exec sleep 1000", "foreign", 1)
            children = await pids_in(pids, 2)
            expected = {("web", 4): sorted([web, *children]), ("web", 3): [old], ("cart:0", 12): [cart]}
            await until(lambda: tree.leftovers(STATE) == expected)
            assert tree.leftovers("nobody's") == {}

    run(scenario())


def test_a_process_has_an_identity() -> None:
    first = subprocess.Popen(["sleep", "1000"])
    try:
        ticks = tree.start_ticks(first.pid)
        assert ticks is not None and ticks == tree.start_ticks(first.pid)
        own = tree.start_ticks(os.getpid())
        assert own is not None and own < ticks
        age, older = tree.age_seconds(first.pid), tree.age_seconds(os.getpid())
        assert age is not None and older is not None and 0 <= age < older
    finally:
        first.kill()
        first.wait()
    assert tree.start_ticks(first.pid) is None and tree.age_seconds(first.pid) is None
    assert tree.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip() != ""


def test_every_process_is_marked_with_the_state_folder_of_its_daemon(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with later() as host:
            pid = await host.spawned(unit(environment=(("UNITD_STATE", "another"), ("UNITD_COMMAND", "1"))), 9)
            assert tree.leftovers(STATE) == {("web", 9): [pid]}

    run(scenario())


# Ending them.


def test_an_adopted_leader_that_ends_is_told_with_its_status_where_the_kernel_tells(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with later() as host:
            leader = left_by_earlier("exec sleep 1000")
            adopt(host, leader)
            assert host.processes.signal("web", signal.SIGINT)
            exited = await host.exited(attempt=4)
            assert (exited.exit.code, exited.exit.stage) == (None, None)
            assert exited.exit.signal in (signal.SIGINT, None), "older kernels tell nothing of what others reap"
            assert exited.exit.reason.startswith("killed by SIGINT after") or exited.exit.reason == UNKNOWN
            assert exited.exit.wall > 0 and not exited.leftovers
            assert not host.processes.signal("web", signal.SIGINT)
            assert host.events() == [exited]

    run(scenario())


@pytest.mark.parametrize("order", ["terminate", "kill"])
def test_an_adopted_tree_ends_as_a_whole(tmp_path: Path, order: str) -> None:
    async def scenario() -> None:
        async with later() as host:
            pids = tmp_path / "pids"
            script = (
                f"sleep 1000 & echo $! >> {pids}; setsid sleep 1000 & echo $! >> {pids};"
                f"(setsid sh -c 'echo $$ >> {pids}; exec sleep 1000' &); exec sleep 1000"
            )
            leader = left_by_earlier(script)
            started = await pids_in(pids, 3)
            adopt(host, leader)
            getattr(host.processes, order)("web", 4)
            await host.ended_of(4)
            assert gone(leader, *started)

    run(scenario())


def test_what_an_adopted_unit_starts_later_is_found_when_it_is_stopped(tmp_path: Path) -> None:
    """It daemonizes after the adoption: its orphan goes to init, and only its marks tell whose it is."""

    async def scenario() -> None:
        async with later() as host:
            pids, go_on = tmp_path / "pids", tmp_path / "go_on"
            os.mkfifo(go_on)
            leader = left_by_earlier(
                f"read x < {go_on}; (setsid sh -c 'echo $$ >> {pids}; exec sleep 1000' &); exec sleep 1000"
            )
            adopt(host, leader)
            go_on.write_text("x\n")
            (orphan,) = await pids_in(pids)
            await until(lambda: orphan not in tree.descendants(leader), "its parent has ended")
            host.processes.terminate("web", 4)
            await host.ended_of(4)
            assert gone(leader, orphan)

    run(scenario())


def test_what_ignores_the_stop_signal_is_killed_with_what_it_starts_meanwhile(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with later() as host:
            pids = tmp_path / "pids"
            stubborn = f'trap "" TERM; echo $$ >> {pids}; while :; do sleep 0.01; done'
            leader = left_by_earlier(f"(setsid sh -c '{stubborn}' &); exec sleep 1000")
            (orphan,) = await pids_in(pids)
            adopt(host, leader)
            host.processes.terminate("web", 4)
            exited = await host.exited(attempt=4)
            assert exited.leftovers and lives(orphan) and not host.events(kind=TreeEmpty)
            host.processes.kill("web", 4)
            await host.emptied()
            assert gone(orphan) and tree.leftovers(STATE) == {}

    run(scenario())


def test_leftovers_without_a_leader_are_an_exit_that_left_something(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with later() as host:
            pids = tmp_path / "pids"
            leader = left_by_earlier(f"sleep 1000 & echo $! >> {pids}; setsid sleep 1000 & echo $! >> {pids}")
            started = await pids_in(pids, 2)
            await until(lambda: not lives(leader))
            adopt(host, None)
            assert host.posted == [], "it is told in a later turn"
            exited = await host.exited(attempt=4)
            assert exited.leftovers and exited.exit.reason == UNKNOWN
            assert not host.processes.signal("web", signal.SIGTERM), "there is no leader"
            host.processes.terminate("web", 4)
            await host.emptied()
            assert gone(*started) and len(host.events(kind=Exited)) == 1

    run(scenario())


def test_leftovers_without_a_leader_can_be_killed_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with later() as host:
            pids = tmp_path / "pids"
            leader = left_by_earlier(f"trap '' TERM; sleep 1000 & echo $! >> {pids}")
            (left,) = await pids_in(pids)
            await until(lambda: not lives(leader))
            adopt(host, leader)  # it has gone between the look and the adoption
            host.processes.kill("web", 4)
            await host.ended_of(4)
            assert gone(left)

    run(scenario())


def test_leftovers_that_end_by_themselves_are_noticed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with later() as host:
            go_on = tmp_path / "go_on"
            os.mkfifo(go_on)
            leader = left_by_earlier(f"(read x < {go_on}) & exit 0")
            await until(lambda: not lives(leader))
            adopt(host, None)
            assert (await host.exited(attempt=4)).leftovers
            go_on.write_text("x\n")
            await host.emptied()

    run(scenario())


def test_a_tree_of_which_nothing_is_left_is_an_exit() -> None:
    async def scenario() -> None:
        async with later() as host:
            host.processes.adopt(unit(), 4, None, [])
            exited = await host.exited(attempt=4)
            assert not exited.leftovers and exited.exit.reason == UNKNOWN
            await host.spawned(unit(), attempt=5)

    run(scenario())


def test_other_units_and_attempts_are_left_alone() -> None:
    async def scenario() -> None:
        async with later() as host:
            leader, other = left_by_earlier("exec sleep 1000"), left_by_earlier("exec sleep 1000", "other")
            older = left_by_earlier("exec sleep 1000", attempt=3)
            adopt(host, leader)
            adopt(host, other, replace(unit(), name="other"))
            host.processes.terminate("web", 3)
            host.processes.terminate("web", 4)
            await host.exited(attempt=4)
            assert lives(other) and lives(older)
            assert len(host.posted) == 1

    run(scenario())


def test_a_child_of_ours_that_is_adopted_has_a_status() -> None:
    """A daemon that replaces its own program (execve(2)) keeps its children."""

    async def scenario() -> None:
        async with later() as host:
            pid = await host.spawned(shell("trap 'exit 5' TERM; while :; do sleep 0.01; done"))
            host.processes.close()
            second = Later(None)
            second.processes.adopt(unit(), 1, pid, [])
            await until(lambda: tree.children(pid), "its shell has set the trap")
            second.processes.terminate("web", 1)
            exited = await second.exited()
            assert exited.exit.code == 5 and exited.exit.reason.startswith("exited with code 5 after ")
            host.processes = second.processes  # for the end of the test

    run(scenario())


def test_adoption_leaves_no_descriptor() -> None:
    async def scenario() -> None:
        async with later() as host:
            before = len(os.listdir("/proc/self/fd"))
            for attempt in range(1, 6):
                leader = left_by_earlier("setsid sleep 1000 & exec sleep 1000", attempt=attempt)
                await until(lambda a=attempt, pid=leader: others(pid, attempt=a))  # type: ignore[misc]
                adopt(host, leader, attempt=attempt)
                host.processes.kill("web", attempt)
                await host.ended_of(attempt)
            await until(lambda: len(os.listdir("/proc/self/fd")) == before)

    run(scenario())
