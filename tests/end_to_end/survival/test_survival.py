"""What units and hosts can do to a daemon: it goes on, answers, and leaves nothing."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end.host import SERVE, Host
from tests.end_to_end.machine import is_alive, until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch users and mount")

SLEEP = "/bin/sleep 1000"
ANSWER_SECONDS = 1.0  # for a status, whatever units do; 0.01 where nothing else wants the processors
MIB = 1024 * 1024


def _slowest_answer(host: Host, seconds: float, path: str = "/v1/units") -> float:
    """Ask all the time; the longest that an answer took."""
    slowest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.monotonic()
        assert host.ask("GET", path).status == 200
        slowest = max(slowest, time.monotonic() - begun)
        time.sleep(0.01)
    return slowest


def _cpu_seconds(pid: int) -> float:
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def test_units_that_shout_delay_no_answer_and_no_other_unit(host: Host) -> None:
    host.configure(
        f"""
        unit.shout = {{ command = "yes shouting as loud as it can", startsecs = 0.1, logs.max_bytes = "8MB", logs.backups = 1 }}
        unit.away = {{ command = "yes thrown away", startsecs = 0.1, logs.stdout = "/dev/null" }}
        unit.torn = {{ command = "cat /dev/zero", startsecs = 0.1, logs.max_bytes = "8MB", logs.backups = 1 }}
        unit.quiet = {{ command = "{SLEEP}", startsecs = 0.1 }}
        """
    )
    host.run()
    for name in host.units():
        host.until_state(name, "RUNNING")

    assert _slowest_answer(host, 2.0) < ANSWER_SECONDS
    host.do("restart", "quiet")
    host.do("stop", "shout,away,torn")

    assert _memory_bytes(host.pid) < 150 * MIB
    written = sum(path.stat().st_size for path in (host.folder / "log").glob("shout*"))
    assert 0 < written <= 17 * MIB, "its logs are as long as they may be"
    assert host.processes() == host.processes("quiet")


def test_units_that_say_nothing_cost_nothing(host: Host) -> None:
    host.configure(f'unit.quiet = {{ command = "{SLEEP}", startsecs = 0.1, numprocs = 50 }}')
    host.run()
    until("all are up", lambda: all(status["state"] == "RUNNING" for status in host.units().values()))
    time.sleep(0.3)

    before = _cpu_seconds(host.pid)
    time.sleep(2)

    assert _cpu_seconds(host.pid) - before <= 0.05
    assert not list((host.folder / "log").glob("quiet*")), "a log begins with the first line"


def test_a_unit_that_dies_in_its_start_each_time_leaves_nothing(any_host: Host) -> None:
    host = any_host
    host.configure(
        f"""
        [unit.dying]
        command = ["/bin/sh", "-c", "sleep 1000 & echo dying; kill -9 $$"]
        startsecs = 1
        startretries = 5
        stopwaitsecs = 1
        restart = {{ backoff_initial = 0.02, backoff_factor = 1 }}
        [unit.steady]
        command = "{SLEEP}"
        startsecs = 0.1
        """
    )
    host.run()

    status = host.until_state("dying", "FATAL")

    assert status["last_exit"]["signal"] == "SIGKILL" and status["generation"] == 6
    assert host.processes("dying") == set() and host.zombies() == []
    log = host.folder / "log/dying.out.log"
    until("its last words are all there", lambda: log.read_text() == "dying\n" * 6)
    assert host.unit("steady")["state"] == "RUNNING"


def test_100_units_that_exit_for_ever_leave_the_daemon_able_to_answer(host: Host) -> None:
    host.configure(
        f"""
        [unit.exits]
        command = "/bin/true"
        numprocs = 100
        startsecs = 0
        autorestart = "always"
        restart = {{ backoff_initial = 0.3, backoff_factor = 1 }}
        [unit.web]
        command = "{SERVE} {{port}}"
        startsecs = 0.1
        service = {{ port = {host.port()}, ttl_seconds = 1 }}
        restart.removal = "deregister"
        """,
        restarts_per_minute=100_000,
        log_level="error",
    )
    host.run()
    entry = host.until_registered("web")
    until("they exit and exit", lambda: host.unit("exits:99")["generation"] > 3)

    assert _slowest_answer(host, 2.0) < ANSWER_SECONDS
    assert host.entry("web", "web")["generation"] == entry["generation"], "heartbeats go on"
    generations = [status["generation"] for name, status in host.units().items() if name != "web"]
    assert min(generations) > 3
    host.do("stop", "exits")
    assert host.processes("exits:0") == set() and host.zombies() == []
    begun, before = time.monotonic(), _cpu_seconds(host.pid)
    time.sleep(1)
    assert _cpu_seconds(host.pid) - before <= 0.1 * (time.monotonic() - begun)


def test_the_hosts_budget_bounds_restarts_of_all_units_together(host: Host) -> None:
    host.configure(
        """
        [unit.exits]
        command = "/bin/false"
        numprocs = 40
        startsecs = 0
        autorestart = "always"
        restart = { backoff_initial = 0 }
        """,
        restarts_per_minute=60,
        log_level="error",
    )
    host.run()
    begun = time.monotonic()

    def restarts() -> int:
        return sum(int(status["restarts"]) for status in host.units().values())

    until("the first hundred are used up", lambda: restarts() >= 100)
    time.sleep(2)
    started = sum(int(status["generation"]) for status in host.units().values()) - 40

    assert started <= 100 + (time.monotonic() - begun) + 1


@needs_root
def test_a_unit_that_forks_without_end_within_its_limit_is_stopped_with_all_it_made(any_host: Host) -> None:
    host = any_host
    bomb = host.file(
        "bomb.py",
        """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        time.sleep(0.01)
""",
    )
    host.configure(
        f"""
        [unit.bomb]
        command = "{_python()} -S -E {bomb}"
        user = "nobody"
        startsecs = 0.3
        stopwaitsecs = 0.5
        limits.nproc = 120
        [unit.steady]
        command = "{SLEEP}"
        startsecs = 0.1
        """
    )
    host.run()
    host.until_state("bomb", "RUNNING")
    until("it has forked", lambda: len(host.processes("bomb")) >= 100)

    assert _slowest_answer(host, 0.5, "/healthz") < 5, "the processors are shared with a hundred busy processes"
    host.do("stop", "bomb")

    assert host.processes("bomb") == set()
    assert host.unit("steady")["state"] == "RUNNING"
    until("all were reaped", lambda: not host.zombies())


def _python() -> str:
    """One that every user may execute."""
    for path in (Path(sys.executable).resolve(), Path("/usr/bin/python3"), Path("/usr/local/bin/python3")):
        if path.exists() and all(each.stat().st_mode & 0o001 for each in (path, *path.parents)):
            return str(path)
    pytest.skip("there is no Python that every user may execute")


def test_out_of_descriptors_the_daemon_answers_what_it_can_and_recovers(host: Host) -> None:
    limit = 64
    host.configure(
        f"""
        [unit.web]
        command = "{SLEEP}"
        numprocs = 30
        startsecs = 0.1
        autostart = false
        startretries = 1000
        restart = {{ backoff_initial = 0.2, backoff_factor = 1 }}
        [unit.steady]
        command = "{SLEEP}"
        startsecs = 0.1
        """
    )
    host.run(before_exec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
    steady = host.until_state("steady", "RUNNING")

    host.order("start", "web")
    until("it says that it has run out", lambda: "Too many open files" in host.said())
    before = _cpu_seconds(host.pid)
    time.sleep(2)
    assert _cpu_seconds(host.pid) - before < 1, "it must not spin"
    assert is_alive(steady["pid"])
    until("it answers", lambda: _answers(host))
    assert host.unit("steady")["pid"] == steady["pid"]
    states = {status["state"] for name, status in host.units().items() if name != "steady"}
    assert states <= {"RUNNING", "BACKOFF", "STARTING"} and "BACKOFF" in states
    waiting = next(status for status in host.units().values() if status["state"] == "BACKOFF")
    assert "Too many open files" in waiting["why"]

    up = [name for name, status in host.units().items() if status["state"] == "RUNNING" and name != "steady"]
    down = [name for name, status in host.units().items() if status["state"] != "RUNNING"]
    host.finish(host.order("stop", ",".join(down)))
    host.finish(host.order("stop", ",".join(up)))
    host.do("start", "web:0,web:1,web:2")
    assert host.unit("steady")["pid"] == steady["pid"]
    assert len(host.processes()) == 4
    assert len(os.listdir(f"/proc/{host.pid}/fd")) < limit - 10, "what was open for them has been closed"


def _answers(host: Host) -> bool:
    try:
        return host.ask("GET", "/v1/units", timeout=3).status == 200
    except OSError:
        return False


def test_clients_that_take_all_descriptors_are_survived(host: Host) -> None:
    limit = 64
    host.configure(f'unit.web = {{ command = "{SLEEP}", startsecs = 0.1 }}')
    host.run(before_exec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
    pid = host.until_state("web", "RUNNING")["pid"]
    clients = []
    try:
        for _ in range(limit + 20):
            client = socket.socket(socket.AF_UNIX)
            client.connect(host.socket)
            clients.append(client)
        before = _cpu_seconds(host.pid)
        time.sleep(1.5)
        assert _cpu_seconds(host.pid) - before < 0.5, "it must not spin"
        os.kill(pid, 9)
        time.sleep(0.3)
    finally:
        for client in clients:
            client.close()

    until("it answers again", lambda: _answers(host))
    until(
        "the unit is up again",
        lambda: host.unit("web")["state"] == "RUNNING" and host.unit("web")["pid"] != pid,
    )


@pytest.fixture
def full_disk(host: Host) -> Iterator[Path]:
    """A file system of one MiB for logs."""
    folder = host.folder / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@needs_root
def test_a_full_log_disk_never_stops_a_unit_and_logs_go_on_when_there_is_room(host: Host, full_disk: Path) -> None:
    count = host.folder / "count"
    host.configure(
        f"""
        [unit.chatty]
        command = ["/bin/sh", "-c", "i=0; while :; do i=$((i+1)); echo $i {"x" * 1000}; echo $i > {count}; done"]
        startsecs = 0.1
        logs.max_bytes = 0
        [unit.steady]
        command = "{SLEEP}"
        startsecs = 0.1
        """,
        log_dir=str(full_disk),
    )
    host.run()
    host.until_state("chatty", "RUNNING")
    log = full_disk / "chatty.out.log"
    until("the disk is full", lambda: os.statvfs(full_disk).f_bavail == 0)
    until("the daemon says so", lambda: "no space left on device" in host.said())

    def counted() -> int:
        return int(count.read_text() or 0)

    for _ in range(3):
        goal = counted() + 100
        until("the unit goes on", partial(_reaches, counted, goal), seconds=5)
    assert _slowest_answer(host, 0.5) < ANSWER_SECONDS
    assert host.unit("chatty")["state"] == "RUNNING"
    details = host.ask("GET", "/v1/units/chatty/why").json["details"]
    assert any("lines were dropped" in detail and "no space left" in detail for detail in details), details
    assert host.said().count("no space left on device") < 10, "it says so once, not for every line"

    host.do("restart", "chatty")
    with open(log, "r+b") as file:
        file.truncate(0)
    seen = counted()
    until("the log goes on", lambda: _last_number(log) > seen, seconds=10)


def _reaches(count: Callable[[], int], goal: int) -> bool:
    return count() >= goal


def _last_number(log: Path) -> int:
    lines = log.read_bytes()[-4000:].split(b"\n")
    numbers = [int(line.split()[0]) for line in lines[1:-1] if line.split()[:1] and line.split()[0].isdigit()]
    return numbers[-1] if numbers else -1


@needs_root
def test_a_full_state_disk_never_stops_a_unit(host: Host, full_disk: Path) -> None:
    host.configure(f'unit.web = {{ command = "{SLEEP}", startsecs = 0.1 }}', state_dir=str(full_disk / "state"))
    host.run()
    pid = host.until_state("web", "RUNNING")["pid"]
    with (
        open(full_disk / "ballast", "wb", buffering=0) as file,
        pytest.raises(OSError, match="No space left"),
    ):
        while True:
            file.write(b"x" * 4096)

    for generation in (2, 3):
        os.kill(host.unit("web")["pid"], 9)
        until("it is up again", partial(_reaches, lambda: host.unit("web")["generation"], generation))
        host.until_state("web", "RUNNING")
    host.do("restart", "web")

    assert host.unit("web")["pid"] != pid and host.unit("web")["generation"] == 4
    assert _answers(host)
