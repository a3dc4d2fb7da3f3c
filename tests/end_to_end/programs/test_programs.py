"""Programs as people run them: each is started, killed, restarted and stopped, and leaves nothing behind, ever."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from tests.end_to_end.conftest import RequiresProgram
from tests.end_to_end.host import Host
from tests.end_to_end.machine import is_alive, listening_ports, until

HERE = Path(__file__).parent
STOP_SECONDS = 0.3  # from SIGTERM to SIGKILL, for what does not heed the first


def _go_through_its_life(host: Host, *, least: int, port: int | None = None, serves: Callable[[], bool]) -> None:
    """Start, crash, restart, stop; after each, of the attempt before nothing is left. `least`: processes of one."""
    host.run()
    steps: tuple[Callable[[int], object], ...] = (
        lambda pid: os.kill(pid, signal.SIGKILL),
        lambda pid: host.order("restart", "web"),
    )
    _until_up(host, 1)
    _look_at(host, 1, least, serves)
    for generation, step in enumerate(steps, 2):
        old, before = host.processes("web"), host.unit("web")["pid"]
        step(before)
        new = _until_up(host, generation)
        assert new["pid"] != before
        assert not any(is_alive(pid) for pid in old), "what was before has ended before the next one began"
        _look_at(host, generation, least, serves)
    pids = host.processes("web")
    host.do("stop", "web")
    assert not any(is_alive(pid) for pid in pids), "the whole tree has ended when the stop has"
    assert host.processes() == set() and host.cgroups() == [] and host.zombies() == []
    assert port is None or port not in listening_ports()


def _look_at(host: Host, generation: int, least: int, serves: Callable[[], bool]) -> None:
    until("it serves", serves)
    until("all of its processes are there", lambda: len(host.processes("web")) >= least)
    assert not any(host.processes("web", older) for older in range(generation))
    assert len(host.cgroups()) == (host.cgroup == "auto")


def _until_up(host: Host, generation: int) -> dict[str, object]:
    def look() -> dict[str, object] | None:
        status: dict[str, object] = host.unit("web")
        return status if (status["state"], status["generation"]) == ("RUNNING", generation) else None

    found: dict[str, object] = until(f"generation {generation} is up: {host.said()[-500:]}", look)
    return found


def _answers(port: int, path: str = "/") -> bool:
    with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False


def _configure(host: Host, command: str, port: int, more: str = "") -> None:
    host.configure(
        f"""
        [unit.web]
        command = {command}
        directory = "{host.folder}"
        startsecs = 0.2
        stopwaitsecs = 5
        service = {{ port = {port}, ttl_seconds = 1 }}
        restart = {{ removal = "deregister", backoff_initial = 0.1 }}
        {more}
        """
    )


@pytest.mark.real
def test_redis(any_host: Host, requires_program: RequiresProgram) -> None:
    port = any_host.port()
    redis = requires_program("redis-server", "redis-server")
    any_host.file("redis.conf", f'daemonize no\nport {port}\nbind 127.0.0.1\nsave ""\ndir {any_host.folder}\n')

    def pongs() -> bool:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(100) == b"+PONG\r\n"

    _configure(any_host, f'"{redis} redis.conf"', port)
    _go_through_its_life(any_host, least=1, port=port, serves=pongs)


@pytest.mark.real
def test_nginx_with_workers(any_host: Host, requires_program: RequiresProgram) -> None:
    port, folder = any_host.port(), any_host.folder
    nginx = requires_program("nginx", "nginx-light")
    user = "user root;" if os.geteuid() == 0 else ""
    paths = "".join(
        f"{name}_temp_path {folder}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    any_host.file(
        "nginx.conf",
        f"daemon off; {user} worker_processes 2; pid {folder}/nginx.pid; error_log stderr; events {{ }}"
        f"http {{ {paths} access_log off; server {{ listen 127.0.0.1:{port}; return 200 ok; }} }}",
    )
    _configure(any_host, f'"{nginx} -p {folder} -e stderr -c {folder}/nginx.conf"', port)
    _go_through_its_life(any_host, least=3, port=port, serves=lambda: _answers(port))


def test_gunicorn_with_workers(any_host: Host) -> None:
    port = any_host.port()
    shutil.copy(HERE / "wsgi_app.py", any_host.folder)
    gunicorn = f"{sys.executable} -m gunicorn --no-control-socket"
    _configure(any_host, f'"{gunicorn} -w 2 -b 127.0.0.1:{port} --graceful-timeout 1 wsgi_app:app"', port)
    _go_through_its_life(any_host, least=3, port=port, serves=lambda: _answers(port))


def test_uvicorn_with_workers(any_host: Host) -> None:
    port = any_host.port()
    shutil.copy(HERE / "asgi_app.py", any_host.folder)
    uvicorn = f"{sys.executable} -m uvicorn --no-access-log"
    _configure(any_host, f'"{uvicorn} --workers 2 --host 127.0.0.1 --port {port} asgi_app:app"', port)
    _go_through_its_life(any_host, least=3, port=port, serves=lambda: _answers(port))


STUBBORN = 'trap "" TERM INT HUP; while :; do sleep 0.1; done'
PIPELINES = {
    "a pipeline that ignores TERM": (f"{{ {STUBBORN}; }} | cat | cat > /dev/null", 4),
    "children in the background that ignore TERM": (f"({STUBBORN}) & ({STUBBORN}) & wait", 3),
    "a grandchild with a session of its own that ignores TERM": (
        f"setsid sh -c '{STUBBORN}' & sleep 1000",
        3,
    ),
    "a grandchild of an own session whose parent has ended": (
        f"(setsid sh -c '{STUBBORN}' &) ; sleep 1000",
        3,
    ),
    "a child that ignores TERM beside a leader that ends": (f"({STUBBORN}) & sleep 1000", 3),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_shell_pipelines(any_host: Host, name: str) -> None:
    script, least = PIPELINES[name]
    path = any_host.file("web.sh", f"#!/bin/sh\n{script}\n", 0o755)
    _configure_plain(any_host, f'"{path}"')
    _go_through_its_life(any_host, least=least, serves=lambda: True)


def _configure_plain(host: Host, command: str) -> None:
    host.configure(
        f"""
        [unit.web]
        command = {command}
        startsecs = 0.1
        stopwaitsecs = {STOP_SECONDS}
        restart = {{ backoff_initial = 0.1 }}
        """
    )


def test_a_program_that_leaves_a_daemon_of_its_own_behind_and_stays(any_host: Host) -> None:
    _configure_plain(any_host, f'"{sys.executable} -S {HERE}/detach.py stay -"')
    _go_through_its_life(any_host, least=2, serves=lambda: True)


def test_a_program_that_makes_a_daemon_of_itself_has_ended_and_what_it_left_is_stopped(
    any_host: Host,
) -> None:
    host = any_host
    host.configure(
        f"""
        [unit.web]
        command = "{sys.executable} -S {HERE}/detach.py leave -"
        startsecs = 0.1
        stopwaitsecs = {STOP_SECONDS}
        autorestart = "never"
        startretries = 0
        """
    )
    host.run()

    until("it is given up", lambda: host.unit("web")["state"] in ("FATAL", "EXITED"))

    assert host.unit("web")["last_exit"]["code"] == 0
    assert host.processes() == set() and host.cgroups() == [] and host.zombies() == []


@pytest.mark.parametrize("ends_by", ["stop", "crash"])
def test_with_a_cgroup_not_even_a_daemon_that_has_thrown_its_environment_away_escapes(
    cgroup_host: Host, ends_by: str
) -> None:
    host = cgroup_host
    _configure_plain(host, f'"{sys.executable} -S {HERE}/detach.py clean {host.marker}"')
    host.run()
    host.until_state("web", "RUNNING")
    until("it has a daemon", lambda: len(host.processes()) == 2)

    old = host.processes()

    if ends_by == "stop":
        host.do("stop", "web")
        assert host.cgroups() == []
    else:
        os.kill(host.unit("web")["pid"], signal.SIGKILL)
        _until_up(host, 2)

    assert not any(is_alive(pid) for pid in old)
