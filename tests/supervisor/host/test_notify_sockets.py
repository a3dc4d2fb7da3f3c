"""Notify sockets: spoken to by real programs, and by hand where no program would dare."""

from __future__ import annotations

import array
import asyncio
import os
import pwd
import shutil
import socket
import stat
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from supervisor.core.model import ProbeSpec
from supervisor.errors import SpawnError
from supervisor.host import notify_sockets
from supervisor.host.notify_sockets import NotifySockets, wants_socket
from supervisor.plugin_api import NotifyState
from tests.supervisor.host.trees import unit
from tests.supervisor.running import run, until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
NOTIFY = ProbeSpec("notify")


@dataclass
class Listening:
    """Notify sockets, and what they told."""

    folder: Path
    changes: list[tuple[str, int]] = field(default_factory=list)
    on_change: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.sockets = NotifySockets(str(self.folder), self._changed)

    def _changed(self, name: str, attempt: int) -> None:
        self.changes.append((name, attempt))
        self.on_change()

    def open(self, name: str = "web", attempt: int = 1) -> str:
        return self.sockets.open(name, attempt, os.geteuid(), os.getegid())

    def state(self, name: str = "web") -> NotifyState:
        state = self.sockets.state(name)
        assert state is not None
        return state


@asynccontextmanager
async def listening(folder: Path) -> AsyncIterator[Listening]:
    before = len(os.listdir("/proc/self/fd"))
    made = Listening(folder / "notify")
    yield made
    made.sockets.close_all()
    assert os.listdir(made.folder) == [], "no socket is left"
    assert len(os.listdir("/proc/self/fd")) == before, "no descriptor is left"


def say(path: str, *messages: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        for message in messages:
            channel.sendto(message, path)


def say_with(path: str, message: bytes, *descriptors: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        channel.sendmsg([message], passed, 0, path)


@pytest.fixture
def systemd_notify() -> str:
    path = shutil.which("systemd-notify")
    if path is None:
        reason = "systemd-notify is not installed (Debian package systemd)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


# Real programs.


@pytest.mark.real
@pytest.mark.parametrize("pid", [(), ("--pid",), ("--pid=1",)], ids=["plain", "own pid", "another pid"])
def test_systemd_notify_is_understood_and_waits_until_it_was(
    tmp_path: Path, systemd_notify: str, pid: tuple[str, ...]
) -> None:
    async def scenario() -> None:
        async with listening(tmp_path) as host:
            path = host.open()

            async def notify(*words: str) -> None:
                process = await asyncio.create_subprocess_exec(
                    systemd_notify, *pid, *words, env={"NOTIFY_SOCKET": path}
                )
                assert await process.wait() == 0

            await notify("--ready", "--status=serving 12 people")
            assert host.state() == NotifyState(ready=True, status="serving 12 people")
            assert host.changes == [("web", 1)]
            await notify("WATCHDOG=1")
            assert host.state().watchdog_at is not None and host.changes == [("web", 1)]
            await notify("STOPPING=1")
            assert (host.state().ready, host.state().stopping) == (False, True)

    run(scenario())


@pytest.mark.real
@as_root
def test_only_the_units_user_may_speak(tmp_path: Path, systemd_notify: str) -> None:
    async def scenario() -> None:
        for folder in (tmp_path, *tmp_path.parents):
            if folder.stat().st_uid == os.geteuid() and str(folder).startswith("/tmp/"):
                folder.chmod(0o755)
        async with listening(tmp_path) as host:
            spec = unit(user="nobody", readiness=NOTIFY)
            path = host.sockets.offer(spec, 1)
            assert path is not None
            place, nobody = os.stat(path), pwd.getpwnam("nobody")
            assert (place.st_uid, place.st_gid, stat.S_IMODE(place.st_mode)) == (nobody.pw_uid, nobody.pw_gid, 0o600)

            async def notify(user: int) -> int:
                process = await asyncio.create_subprocess_exec(
                    systemd_notify, "--ready", env={"NOTIFY_SOCKET": path}, user=user, stderr=subprocess.DEVNULL
                )
                return await process.wait()

            assert await notify(1) != 0 and not host.state().ready
            assert await notify(nobody.pw_uid) == 0 and host.state().ready

    run(scenario())


# Words.


@pytest.mark.parametrize(
    ("messages", "state"),
    [
        ([b"READY=1"], NotifyState(ready=True)),
        ([b"READY=1\nSTATUS=ok\n"], NotifyState(ready=True, status="ok")),
        ([b"READY=1\0"], NotifyState(ready=True)),
        ([b"READY=1", b"RELOADING=1\nMONOTONIC_USEC=5"], NotifyState()),
        ([b"READY=1", b"RELOADING=1", b"READY=1"], NotifyState(ready=True)),
        ([b"READY=1", b"STOPPING=1"], NotifyState(stopping=True)),
        ([b"READY=1", b"STOPPING=1", b"READY=1"], NotifyState(ready=True)),
        ([b"WATCHDOG=trigger"], NotifyState(trigger=True)),
        ([b"READY=0", b"READY=yes", b"ready=1", b" READY=1"], NotifyState()),
        ([b"MAINPID=1\nERRNO=2\nFDSTORE=1\nX_WHAT=ever\nnonsense\nREADY=1"], NotifyState(ready=True)),
        ([b"STATUS=" + b"x" * 500], NotifyState(status="x" * 200)),
        ([b"STATUS=" + "ü".encode() * 500], NotifyState(status="ü" * 200)),
        ([b"STATUS=a=b \x1b[2J\xff"], NotifyState(status="a=b ?[2J\ufffd")),
        ([b"STATUS=first", b"STATUS="], NotifyState()),
    ],
)  # fmt: skip
def test_what_is_said_becomes_the_state(tmp_path: Path, messages: list[bytes], state: NotifyState) -> None:
    async def scenario() -> None:
        async with listening(tmp_path) as host:
            path = host.open()
            say(path, *messages)
            await until_read(host, path)
            assert host.state() == state

    run(scenario())


async def until_read(host: Listening, path: str) -> None:
    """All that was said before has been read: the answer to a barrier."""
    reading, writing = os.pipe()
    say_with(path, b"BARRIER=1", writing)
    os.close(writing)
    os.set_blocking(reading, False)

    def ended() -> bool:
        try:
            return os.read(reading, 1) == b""
        except BlockingIOError:
            return False

    await until(ended, "the barrier is answered")
    os.close(reading)


def test_changes_are_told_with_the_attempt_and_only_changes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with listening(tmp_path) as host:
            path = host.open(attempt=7)
            say(path, b"READY=1", b"READY=1", b"WATCHDOG=1", b"MAINPID=4", b"STATUS=x", b"STATUS=x")
            await until_read(host, path)
            assert host.changes == [("web", 7), ("web", 7)]

    run(scenario())


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"", "a message without any VARIABLE=VALUE"),
        (b"hello", "a message without any VARIABLE=VALUE"),
        (b"READY=1\0STATUS=x", "a message with a NUL in it"),
        (b"READY=1\nSTATUS=" + b"x" * 8192, "a message of more than 8 KiB"),
    ],
)
def test_nonsense_is_ignored_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, message: bytes, words: str
) -> None:
    async def scenario() -> None:
        async with listening(tmp_path) as host:
            path = host.open()
            say(path, message, message, message)
            await until_read(host, path)
            assert host.state() == NotifyState() and host.changes == []

    run(scenario())
    assert [record.getMessage() for record in caplog.records] == [
        f"web: ignored {words} on its notify socket; more of the kind are not told"
    ]


def test_a_message_of_8_kib_is_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with listening(tmp_path) as host:
            path = host.open()
            say(path, b"READY=1\nX=" + b"x" * (8192 - 10))
            await until_read(host, path)
            assert host.state().ready

    run(scenario())


def test_descriptors_that_are_passed_are_closed_however_many(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with listening(tmp_path) as host:
            path = host.open()
            before = len(os.listdir("/proc/self/fd"))
            for count in (1, 3, 4, 5, 200):
                for message in (b"FDSTORE=1\nFDNAME=x", b"nonsense", b"X=" + b"x" * 9000):
                    say_with(path, message, *[0] * count)
                    await until_read(host, path)
            assert len(os.listdir("/proc/self/fd")) == before

    run(scenario())


def test_descriptors_are_closed_even_if_whoever_is_told_fails(tmp_path: Path) -> None:
    async def scenario() -> None:
        faults = list[object]()
        async with listening(tmp_path) as host:
            path = host.open()
            handler = asyncio.get_running_loop().get_exception_handler()
            asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))

            def fail() -> None:
                raise ValueError("not today")

            host.on_change = fail
            say_with(path, b"READY=1", 0, 1)
            await until_read(host, path)
            asyncio.get_running_loop().set_exception_handler(handler)
        assert [str(fault) for fault in faults] == ["not today"]

    run(scenario())


# Floods.


def test_a_flood_neither_stops_the_loop_nor_delays_other_units(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with listening(tmp_path) as host:
            loud, quiet = host.open("loud"), host.open("quiet")
            code = "import socket, sys\ns = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\nn = 0\nwhile True:\n    n += 1\n    s.sendto(b'STATUS=%d' % n, sys.argv[1])"
            shouting = await asyncio.create_subprocess_exec("python3", "-c", code, loud, stderr=subprocess.DEVNULL)
            await until(lambda: len(host.changes) > 1000)
            most = 0

            def count() -> None:
                nonlocal most
                most, host.changes[:] = max(most, len(host.changes)), []
                if not host.state("quiet").ready:
                    asyncio.get_running_loop().call_soon(count)

            host.changes.clear()
            count()
            say(quiet, b"READY=1")
            await until(lambda: host.state("quiet").ready)
            shouting.kill()
            await shouting.wait()
            assert most <= 2 * notify_sockets.MESSAGES_PER_SOCKET, "some of each unit in a turn"

    run(scenario())


# Opening and closing.


@pytest.mark.parametrize("key", ["startup", "readiness", "liveness"])
def test_a_unit_wants_a_socket_when_a_probe_listens_to_it(tmp_path: Path, key: str) -> None:
    async def scenario() -> None:
        async with listening(tmp_path) as host:
            wanting, other = unit(**{key: NOTIFY}), unit(**{key: ProbeSpec("tcp")})
            assert wants_socket(wanting) and not wants_socket(other) and not wants_socket(unit())
            assert host.sockets.offer(other, 1) is None and host.sockets.state("web") is None
            assert host.sockets.offer(wanting, 3) == f"{host.folder}/web-3"
            with pytest.raises(SpawnError, match="no such user: no-such-user"):
                host.sockets.offer(replace(wanting, user="no-such-user"), 4)

    run(scenario())


def test_a_new_attempt_hears_nothing_of_an_old_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with listening(tmp_path) as host:
            first = host.open(attempt=1)
            say(first, b"READY=1")
            await until(lambda: host.state().ready)
            second = host.open(attempt=2)
            assert not host.state().ready
            with pytest.raises(FileNotFoundError):
                say(first, b"READY=1")
            say(second, b"STATUS=new")
            await until(lambda: host.changes == [("web", 1), ("web", 2)])

    run(scenario())


def test_a_closed_unit_is_forgotten_even_from_within_its_own_change(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with listening(tmp_path) as host:
            path = host.open()
            host.on_change = lambda: host.sockets.close("web")
            say(path, b"READY=1", b"STOPPING=1", b"STATUS=x")
            await until(lambda: host.changes)
            assert host.sockets.state("web") is None and host.changes == [("web", 1)]
            host.sockets.close("web")
            host.sockets.close("other")

    run(scenario())


def test_closing_answers_barriers_that_nobody_has_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with listening(tmp_path) as host:
            path = host.open()
            reading, writing = os.pipe()
            say_with(path, b"BARRIER=1", writing)
            os.close(writing)
            host.sockets.close("web")
            assert os.read(reading, 1) == b""
            os.close(reading)

    run(scenario())


def test_sockets_of_an_earlier_daemon_are_removed_and_its_units_heard_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        folder = tmp_path / "notify"
        folder.mkdir()
        path = f"{folder}/web-5"
        for left in (path, f"{folder}/gone-1"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as killed:
                killed.bind(left)
        (folder / "a file").touch()
        async with listening(tmp_path) as host:
            assert os.listdir(folder) == ["a file"]
            (folder / "a file").unlink()
            assert host.open("web", 5) == path, "an adopted unit still has this path in its environment"
            say(path, b"READY=1")
            await until(lambda: host.state().ready)

    run(scenario())


def test_long_names_have_short_paths_and_their_own_ones() -> None:
    async def scenario() -> None:
        folder = Path("/tmp") / f"unitd-test-{os.getpid()}" / ("f" * 40)
        try:
            host = Listening(folder)
            one, two = host.open("x" * 66 + ":1", 12), host.open("x" * 66 + ":2", 12)
            assert len(one) <= 107 and len(two) <= 107 and one != two
            for path in (one, two):
                say(path, b"READY=1")
            await until(lambda: len(host.changes) == 2)
            host.sockets.close_all()
        finally:
            shutil.rmtree(folder.parent)

    run(scenario())


def test_a_folder_that_is_too_long_is_an_error_in_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with listening(tmp_path / ("f" * 120)) as host:
            with pytest.raises(OSError, match="the path of the notify socket is too long for a socket"):
                host.open()

    run(scenario())


def test_a_path_that_another_unit_has_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with listening(tmp_path) as host:
            host.open("a-1", 2)
            assert host.open("a", 1) != host.open("a-1", 2)
            host.sockets._path = lambda name, attempt: f"{host.folder}/a-1-2"  # type: ignore[method-assign]
            with pytest.raises(FileExistsError):
                host.open("b", 1)

    run(scenario())
