"""A daemon and another one, or what a dead one left."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess

from tests.end_to_end.host import ROOT, UNITD, Host
from tests.end_to_end.machine import state_of

SLEEP = "/bin/sleep 1000"


def _second(host: Host, name: str, **daemon: str) -> subprocess.CompletedProcess[str]:
    """Run another daemon on a configuration that differs so; it must end by itself."""
    first = host.config
    host.config = host.folder / name
    host.configure(f'unit.web = {{ command = "{SLEEP}", startsecs = 0.1 }}', **daemon)
    ended = subprocess.run(
        [*UNITD, "-c", str(host.config)], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False
    )
    host.config = first
    return ended


def test_a_second_daemon_on_the_same_state_is_refused(host: Host) -> None:
    host.configure(f'unit.web = {{ command = "{SLEEP}", startsecs = 0.1 }}')
    host.run()
    pid = host.until_state("web", "RUNNING")["pid"]

    ended = _second(host, "second.toml", socket="s2")

    assert ended.returncode == 2
    assert host.daemon is not None
    who = rf"another unitd \(pid {host.daemon.pid}, since \S+Z, {host.config}\)"
    assert re.search(f"{who} runs on {host.folder}/state; stop it, or give this one another state_dir", ended.stderr)
    assert "Traceback" not in ended.stderr
    assert host.unit("web")["pid"] == pid and len(host.processes()) == 1


def test_a_second_daemon_on_the_same_socket_is_refused_and_the_first_goes_on(host: Host) -> None:
    host.configure(f'unit.web = {{ command = "{SLEEP}", startsecs = 0.1 }}')
    host.run()
    pid = host.until_state("web", "RUNNING")["pid"]

    ended = _second(host, "second.toml", state_dir="state2")

    assert ended.returncode == 2 and f"cannot listen on {host.socket}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert host.unit("web")["pid"] == pid and len(host.processes()) == 1


def test_a_second_daemon_on_the_same_port_is_refused(host: Host) -> None:
    port = host.port()
    host.configure("", http=f"127.0.0.1:{port}")
    host.run()
    first = host.config
    host.config = host.folder / "second.toml"
    host.configure("", http=f"127.0.0.1:{port}", socket="s2", state_dir="state2")

    ended = subprocess.run(
        [*UNITD, "-c", str(host.config)], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False
    )

    host.config = first
    assert ended.returncode == 2 and f"cannot listen on 127.0.0.1:{port}: Address already in use" in ended.stderr
    assert not (host.folder / "s2").exists()
    assert "Traceback" not in ended.stderr


def test_the_socket_of_a_dead_daemon_is_replaced(host: Host) -> None:
    host.configure("")
    host.run()
    host.signal(signal.SIGKILL)
    host.wait()
    assert stat.S_ISSOCK(os.stat(host.socket).st_mode)

    host.run()

    assert host.ask("GET", "/healthz").status == 200


def test_a_file_in_the_place_of_the_socket_is_left_alone(host: Host) -> None:
    host.configure("")
    host.file("s", "precious")

    host.run(wait=False)

    assert host.wait() == 2
    assert f"cannot listen on {host.socket}" in host.said()
    assert (host.folder / "s").read_text() == "precious"
    (host.folder / "s").unlink()


def test_a_daemon_that_hangs_is_not_taken_for_dead(host: Host) -> None:
    host.configure("")
    host.run()
    host.signal(signal.SIGSTOP)
    try:
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.connect(host.socket)
            ended = _second(host, "second.toml", state_dir="state2")
        assert state_of(host.pid) == "T"
    finally:
        host.signal(signal.SIGCONT)

    assert ended.returncode == 2 and "cannot listen on" in ended.stderr
    assert host.ask("GET", "/healthz").status == 200
