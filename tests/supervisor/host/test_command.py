"""Commands that are run for a unit: real ones, beside the unit's own processes."""

from __future__ import annotations

import asyncio
import errno
import os
import pwd
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from supervisor.host import command, tree
from supervisor.host.command import Commands
from supervisor.host.setup import units_environment
from tests.supervisor.host.trees import Host, hosting, lives, pids_in, unit
from tests.supervisor.running import run, until

LONG = 60.0  # seconds: a time that no test uses up


@asynccontextmanager
async def commanding(state_id: str = "") -> AsyncIterator[tuple[Host, Commands]]:
    """A host, and the commands that run beside its units; in the end nothing of them is left."""
    async with hosting() as host:
        before = len(os.listdir("/proc/self/fd"))
        environment = {"PATH": os.environ["PATH"]}
        commands = Commands(host.processes.left_alone, environment=environment, state_id=state_id)
        yield host, commands
        await until(lambda: not host.processes.left_alone, "all commands are reaped")
        commands.close()
        if not host.pids:  # the pidfds of units are not the commands'
            assert len(os.listdir("/proc/self/fd")) == before, "no descriptor is left"


def sh(script: str) -> tuple[str, ...]:
    return "sh", "-c", script


def test_the_exit_code_and_what_was_said_on_both_streams_come_back() -> None:
    async def scenario() -> None:
        async with commanding() as (_, commands):
            result = await commands.run(unit(), 1, sh("echo out; echo err >&2; exit 3"), LONG)
            assert (result.code, result.signal, result.output, result.ok) == (3, None, b"out\nerr\n", False)
            assert (await commands.run(unit(), 1, ("true",), LONG)).ok

    run(scenario())


def test_a_death_by_signal_is_told() -> None:
    async def scenario() -> None:
        async with commanding() as (_, commands):
            result = await commands.run(unit(), 1, sh("kill -SEGV $$"), LONG)
            assert (result.code, result.signal) == (None, signal.SIGSEGV)

    run(scenario())


def test_only_the_end_of_a_long_output_is_kept_and_nobody_is_held_up() -> None:
    async def scenario() -> None:
        async with commanding() as (_, commands):
            result = await commands.run(unit(), 1, sh("head -c 3000000 /dev/zero; printf end"), LONG)
            assert result.ok and result.output == bytes(4093) + b"end"

    run(scenario())


def test_it_runs_in_the_units_directory_umask_and_environment(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with commanding(state_id="f00") as (_, commands):
            spec = unit(directory=str(tmp_path), umask=0o027, environment=(("COLOUR", "red"), ("UNITD_COMMAND", "0")))
            script = "pwd; umask; cat; echo $COLOUR $MORE $UNITD_UNIT $UNITD_GENERATION $UNITD_COMMAND $UNITD_STATE"
            result = await commands.run(spec, 7, sh(script), LONG, [("MORE", "x y")])
            assert result.output.decode().splitlines() == [str(tmp_path), "0027", "red x y web 7 1 f00"]

    run(scenario())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_it_runs_as_the_units_user() -> None:
    async def scenario() -> None:
        async with commanding() as (_, commands):
            result = await commands.run(unit(user="nobody"), 1, sh("id -u; echo $HOME"), LONG)
            nobody = pwd.getpwnam("nobody")
            assert result.output.decode().split() == [str(nobody.pw_uid), nobody.pw_dir]

    run(scenario())


def test_a_late_command_is_killed_with_all_it_started(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with commanding() as (_, commands):
            pids = tmp_path / "pids"
            script = (
                f"trap '' TERM; echo said; sleep 1000 & echo $! >> {pids};"
                f"setsid sh -c 'echo $$ >> {pids}; exec sleep 1000' & echo $$ >> {pids}; wait"
            )
            late = asyncio.create_task(commands.run(unit(), 1, sh(script), 1.0))
            started = await pids_in(pids, 3)
            result = await late
            assert (result.code, result.signal, result.output, result.ok) == (None, None, b"said\n", False)
            await until(lambda: not any(map(lives, started)), "all of them are dead")
            await until(lambda: not tree.children(os.getpid()), "and reaped")

    run(scenario())


def test_a_cancelled_command_is_killed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with commanding() as (_, commands):
            pids = tmp_path / "pids"
            running = asyncio.create_task(commands.run(unit(), 1, sh(f"echo $$ >> {pids}; exec sleep 1000"), LONG))
            (pid,) = await pids_in(pids)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            await until(lambda: tree.stat(pid) is None, "it is dead and reaped")

    run(scenario())


def test_what_it_leaves_in_its_group_is_killed_and_does_not_delay_the_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with commanding() as (_, commands):
            pids = tmp_path / "pids"
            result = await commands.run(unit(), 1, sh(f"sleep 1000 & echo $! >> {pids}; echo done"), LONG)
            assert result.ok and result.output == b"done\n"
            (left,) = await pids_in(pids)
            await until(lambda: tree.stat(left) is None, "it is dead and reaped")

    run(scenario())
    assert "belongs to no unit" not in caplog.text


def test_what_it_daemonizes_is_nobodys_and_never_a_part_of_the_unit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with commanding() as (host, commands):
            pids = tmp_path / "pids"
            await host.spawned(unit())
            script = f"setsid sh -c 'echo $$ >> {pids}; exec sleep 1000' & while [ ! -s {pids} ]; do sleep 0.01; done"
            assert (await commands.run(unit(), 1, sh(script), LONG)).ok
            (left,) = await pids_in(pids)
            await until(lambda: f"process {left} was left" in caplog.text)
            assert tree.unit_of(left) is None
            host.processes.terminate("web", 1)
            assert not (await host.exited()).leftovers, "the unit has ended"
            assert lives(left)

    run(scenario())
    assert "by a command that was run for web; it belongs to no unit" in caplog.text


def test_a_running_command_is_no_part_of_its_unit(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with commanding() as (host, commands):
            pids = tmp_path / "pids"
            leader = await host.spawned(unit())
            hook = asyncio.create_task(
                commands.run(unit(), 1, sh(f"echo $$ >> {pids}; read x < {pids}.go; exit 5"), LONG)
            )
            os.mkfifo(f"{pids}.go")
            (pid,) = await pids_in(pids)
            assert tree.members(leader, "web") == [leader]
            host.processes.kill("web", 1)
            assert not (await host.exited()).leftovers
            assert lives(pid)
            hook.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hook

    run(scenario())


def test_statuses_are_not_lost_to_the_sweep_for_orphans() -> None:
    async def scenario() -> None:
        async with commanding() as (host, commands):
            await host.spawned(unit("sh", "-c", "while :; do (true &) ; sleep 0.002; done"))  # orphans all the time
            runs = [
                commands.run(unit(), 1, sh(f"sleep 0.0{number % 10}; exit {number}"), LONG) for number in range(100)
            ]
            assert [result.code for result in await asyncio.gather(*runs)] == list(range(100))

    run(scenario())


def test_what_cannot_be_started_is_an_error_in_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with commanding() as (_, commands):
            with pytest.raises(FileNotFoundError) as missing:
                await commands.run(unit(), 1, ("/no/such/program",), LONG)
            assert missing.value.strerror == "no such file: /no/such/program"
            with pytest.raises(OSError) as nobody:
                await commands.run(unit(user="no-such-user"), 1, ("true",), LONG)
            assert nobody.value.strerror == "no such user: no-such-user"
            with pytest.raises(OSError) as empty:
                await commands.run(unit(), 1, (), LONG)
            assert empty.value.strerror == "the command is empty"

    run(scenario())


def test_without_descriptors_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, flags: int = 0) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def scenario() -> None:
        async with commanding() as (_, commands):
            _, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
            highest = max(int(name) for name in os.listdir("/proc/self/fd"))
            spare = []
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
                with pytest.raises(OSError) as caught:
                    while True:
                        spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
                with pytest.raises(OSError) as caught:
                    await commands.run(unit(), 1, ("true",), LONG)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
                for descriptor in spare:
                    os.close(descriptor)
            assert caught.value.errno == errno.EMFILE
            monkeypatch.setattr(os, "pidfd_open", refuse)
            with pytest.raises(OSError) as unwatched:
                await commands.run(unit(), 1, ("sleep", "1000"), LONG)
            monkeypatch.undo()
            assert unwatched.value.errno == errno.EMFILE
            assert tree.children(os.getpid()) == [], "a command that cannot be watched does not live"

    run(scenario())


def test_only_so_many_run_at_once_and_waiting_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "COMMANDS", 2)

    async def scenario() -> None:
        async with commanding() as (_, commands):
            pids = tmp_path / "pids"
            busy = [
                asyncio.create_task(commands.run(unit(), 1, sh(f"echo $$ >> {pids}; exec sleep 1000"), LONG))
                for _ in range(2)
            ]
            await pids_in(pids, 2)
            with pytest.raises(OSError) as caught:
                await commands.run(unit(), 1, sh(f"echo 1 >> {pids}"), 0.1)
            assert (caught.value.errno, caught.value.strerror) == (
                errno.EAGAIN,
                "2 other commands were running all the time",
            )
            waiting = asyncio.create_task(commands.run(unit(), 1, ("true",), LONG))
            busy[0].cancel()
            assert (await waiting).ok, "a place has become free"
            busy[1].cancel()
            await asyncio.gather(*busy, return_exceptions=True)
            assert len(pids.read_text().split()) == 2

    run(scenario())


def test_a_unit_whose_killed_commands_do_not_end_gets_no_more_and_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with commanding() as (_, commands):
            with monkeypatch.context() as patched:
                patched.setattr(os, "killpg", lambda pgrp, number: None)  # as if they hung in the kernel
                for _ in range(command.DYING):
                    assert (await commands.run(unit(), 1, ("sleep", "1000"), 0.05)).code is None
                with pytest.raises(OSError) as caught:
                    await commands.run(unit(), 1, ("true",), 0.1)
                assert caught.value.errno == errno.EBUSY
            other = unit()
            assert (await commands.run(type(other)("other", "other", 0, ("x",)), 1, ("true",), LONG)).ok
            for pid in tree.children(os.getpid()):
                os.kill(pid, signal.SIGKILL)
            assert (await commands.run(unit(), 1, ("true",), LONG)).ok, "once they have ended"

    run(scenario())


def test_closing_kills_what_runs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with hosting() as host:
            commands = Commands(host.processes.left_alone, environment={"PATH": os.environ["PATH"]})
            pids = tmp_path / "pids"
            running = asyncio.create_task(commands.run(unit(), 1, sh(f"echo $$ >> {pids}; exec sleep 1000"), LONG))
            (pid,) = await pids_in(pids)
            commands.close()
            await until(lambda: not lives(pid))
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    run(scenario())


def test_a_daemon_that_was_started_by_a_command_does_not_mark_its_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITD_COMMAND", "1")
    monkeypatch.setenv("UNITD_STATE", "of the other daemon")
    assert not {"UNITD_COMMAND", "UNITD_STATE"} & set(units_environment())
