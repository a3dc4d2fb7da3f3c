"""Units of a daemon that has gone, in the hands of the next one: the same processes, entries and lines."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from tests.end_to_end.host import ROOT, UNITD, Host
from tests.end_to_end.machine import is_alive, until

SPEAKS = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.005; done"
LISTENS = """
import socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    listening.accept()[0].close()
"""


def _kill(host: Host) -> None:
    host.signal(signal.SIGKILL)
    host.wait()


def _whole_lines(host: Host) -> list[int]:
    """The numbers in the log, which must follow each other from 1 on."""
    text = (host.folder / "log/talk.out.log").read_text()
    numbers = [int(line.removeprefix("line ")) for line in text[: text.rfind("\n") + 1].splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))
    return numbers


def _talk(host: Host, **daemon: object) -> int:
    host.configure(f'unit.talk = {{ command = ["/bin/sh", "-c", "{SPEAKS}"], startsecs = 0.05 }}', **daemon)
    host.run()
    until("it speaks", (host.folder / "log/talk.out.log").exists)
    return int(host.until_state("talk", "RUNNING")["pid"])


# Ends that are not deaths.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_daemon_that_leaves_takes_nothing_along(host: Host, number: int) -> None:
    pid = _talk(host, sigterm="leave")
    for _ in range(3):
        host.signal(number)
        assert host.wait() == 0
        said = len(_whole_lines(host))
        host.run()
        unit = host.unit("talk")
        assert (unit["pid"], unit["generation"], unit["state"]) == (pid, 1, "RUNNING")
        until("it is heard again", lambda said=said: len(_whole_lines(host)) > said)
    host.signal(signal.SIGINT)
    assert host.wait() == 0


def test_sigint_stops_all_units_whatever_sigterm_does(host: Host) -> None:
    pid = _talk(host, sigterm="leave")
    host.signal(signal.SIGINT)
    assert host.wait() == 0
    assert not is_alive(pid)
    assert not list(host.folder.glob("*.spool")), "nothing is left for a next daemon"


def test_a_shutdown_that_has_begun_is_not_cut_short_by_a_sigterm_that_leaves(host: Host) -> None:
    host.configure(
        """
        [unit.slow]
        command = ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"]
        startsecs = 0.05
        stopwaitsecs = 1
        """,
        sigterm="leave",
    )
    host.run()
    pid = host.until_state("slow", "RUNNING")["pid"]
    assert host.ask("POST", "/v1/shutdown", {}).status == 202
    host.signal(signal.SIGTERM)
    assert host.wait() == 0
    assert not is_alive(pid)


def test_after_an_orderly_end_units_begin_afresh(host: Host) -> None:
    """One had ended by itself, one was given up: both are tried again, as after a boot."""
    host.configure(
        """
        [unit.once]
        command = ["/bin/sh", "-c", "exit 0"]
        startsecs = 0
        [unit.never]
        command = "/nowhere/x"
        """
    )
    host.run()
    for _ in range(2):
        generations = [host.until_state(*each)["generation"] for each in (("once", "EXITED"), ("never", "FATAL"))]
        _kill(host)
        host.run()
        assert [host.unit(name)["generation"] for name in ("once", "never")] == generations, "not after a death"
        assert [host.unit(name)["state"] for name in ("once", "never")] == ["EXITED", "FATAL"]
    host.stop()
    host.run()
    until("both were tried", lambda: all(host.unit(name)["generation"] == 2 for name in ("once", "never")))


# Readers of the embedded registry.


def test_nobody_reads_a_registry_that_the_units_are_not_in_again_yet(host: Host) -> None:
    api, ports = host.port(), host.port(3)
    host.configure(
        f"""
        [unit.web]
        command = "{sys.executable} -S {host.file("listens.py", LISTENS)} {{port}}"
        numprocs = 3
        startsecs = 0.05
        service = {{ port = {ports} }}
        """,
        http=f"127.0.0.1:{api}",
        registry="ttl_seconds = 1",
    )
    host.run()
    until("all are registered", lambda: len(host.entries("web")) == 3)
    with _reading(api) as seen:
        for _ in range(4):
            _kill(host)
            before = len(seen)
            host.run()
            until("it is read again", lambda before=before: len(seen) > before + 5)
    assert set(seen) == {3}


@contextmanager
def _reading(port: int) -> Iterator[list[int]]:
    """How many instances each answer holds that is given within it; asked all the time, as soon as somebody listens."""
    seen, enough = list[int](), threading.Event()

    def read() -> None:
        while not enough.is_set():
            connection = HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                connection.request("GET", "/v1/registry/services/web")
                seen.append(connection.getresponse().read().count(b'"instance"'))
            except (OSError, HTTPException):
                pass
            finally:
                connection.close()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield seen
    finally:
        enough.set()
        thread.join()


# Who is who.


def test_a_copy_of_the_folder_is_refused_while_its_original_is_used(host: Host) -> None:
    pid = _talk(host)
    shutil.copytree(host.folder / "state", host.folder / "copy", ignore=shutil.ignore_patterns("pipes"))
    first = host.config
    host.config = host.folder / "second.toml"
    host.configure("", state_dir="copy", socket="s2")
    ended = subprocess.run(
        [*UNITD, "-c", str(host.config)], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False
    )
    host.config = first
    assert ended.returncode == 2 and "copy is a copy of what another unitd (pid" in ended.stderr
    assert host.unit("talk")["pid"] == pid


REUSE = """
import json, os, pathlib, signal, subprocess, sys, time
folder, config = sys.argv[1], sys.argv[2]
unitd = [sys.executable, "-c", "import sys; from supervisor.boot import main; sys.exit(main())", "-c", config]
log = pathlib.Path(folder, "log/web.out.log")

def until(look):
    end = time.monotonic() + 10
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found

daemon = subprocess.Popen(unitd)
pid = int(until(lambda: log.exists() and log.read_text().split()[:1])[0])
time.sleep(0.3)
daemon.kill(); daemon.wait()
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)  # we are the namespace's init
while True:  # until the kernel gives the same number to another process
    pathlib.Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
    stranger = subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True, env={})
    if stranger.pid == pid:
        break
    stranger.kill(); stranger.wait()
daemon = subprocess.Popen(unitd)
second = int(until(lambda: log.read_text().split()[1:2])[0])
daemon.terminate()
assert daemon.wait(10) == 0
print(json.dumps({"first": pid, "second": second, "stranger": stranger.poll(), "left": os.path.exists(f"/proc/{second}")}))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace needs root")
def test_a_stranger_with_the_number_of_a_units_process_is_left_alone(host: Host) -> None:
    """In a pid namespace of its own, where the kernel is told which number to give next."""
    host.configure('unit.web = { command = ["/bin/sh", "-c", "echo $$; exec sleep 1000"], startsecs = 0.05 }')
    script = host.file("reuse.py", REUSE)
    done = subprocess.run(
        ["unshare", "-pf", "--kill-child", "--mount-proc", sys.executable, str(script), str(host.folder), str(host.config)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, capture_output=True, text=True, timeout=18, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = re.search(r'"first": (\d+), "second": (\d+), "stranger": null, "left": false', done.stdout)
    assert found is not None and found[1] != found[2], done.stdout


def test_a_program_that_writes_over_its_environment_is_known_by_the_record(host: Host) -> None:
    script = host.file(
        "hides.py", "import os, time\nos.environ.clear()\nos.execve('/bin/sleep', ['sleep', '1000'], {})\n"
    )
    host.configure(f'unit.hides = {{ command = "{sys.executable} -S {script}", startsecs = 0.3 }}')
    host.run()
    pid = host.until_state("hides", "RUNNING")["pid"]
    assert b"UNITD" not in Path(f"/proc/{pid}/environ").read_bytes()
    _kill(host)
    host.run()
    assert host.unit("hides")["pid"] == pid
    host.do("stop", "hides")
    assert not is_alive(pid)
