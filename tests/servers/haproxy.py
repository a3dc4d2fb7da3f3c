"""A real HAProxy: one frontend on `port` before the backend of one service, and an admin socket."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

from .processes import Process, free_port
from .server import POLL_SECONDS, START_SECONDS, NotReady, Server, find_program

CONFIG = """\
global
    stats socket {socket} mode 600 level admin expose-fd listeners
    stats timeout 1m
    server-state-file {state_file}
    hard-stop-after 30s
    node {node}
{extra_global}
defaults
    mode http
    balance roundrobin
    timeout connect 1s
    timeout client 30s
    timeout server 30s
    timeout queue 2s
    timeout http-request 5s
    timeout http-keep-alive 4s
    retries 3
    retry-on conn-failure empty-response
    option redispatch 1
    http-reuse safe
    load-server-state-from-file global
{extra_defaults}
frontend clients
    bind 127.0.0.1:{port}
    default_backend {service}
{extra_frontend}
backend {service}
    http-request disable-l7-retry if !METH_GET
{backend}
"""
SLOTS = """\
    default-server check inter 250ms fastinter 100ms downinter 250ms fall 2 rise 1 pool-purge-delay 2s
    server-template {service}- 1-{slots} 127.0.0.1:1 disabled
"""


MASTER_RELOADS = "Reloading HAProxy"  # what the master logs


class Haproxy(Server):
    """A HAProxy that clients reach at `http://127.0.0.1:<port>`; its commands at `socket` (a path), level admin.

    `backend` are the lines of the backend (default: `slots` slots that check by connecting); `extra_*` more lines for the
    other sections; `config` a whole file instead, with the fields that CONFIG has. `state_file` is loaded at each start.
    """

    install_hint = "install the package haproxy of your distribution"
    port_taken = "cannot bind socket"

    def __init__(
        self,
        service: str = "cart",
        *,
        slots: int = 8,
        backend: str = SLOTS,
        extra_global: str = "",
        extra_defaults: str = "",
        extra_frontend: str = "",
        config: str = CONFIG,
        node: str = "haproxy-1",
        master: bool = False,
    ) -> None:
        super().__init__(("http",))
        self._program = find_program("haproxy", self.install_hint, "/usr/sbin/haproxy")
        self.service, self.slots, self.node, self.master = service, slots, node, master
        self._backend, self._config = backend, config
        self._extra = {"extra_global": extra_global, "extra_defaults": extra_defaults, "extra_frontend": extra_frontend}
        self._old: list[Process] = []
        self._reloading = ""

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """Where clients connect."""
        return self.ports["http"]

    @property
    def socket(self) -> Path:
        """The admin socket; there from the first `start` on."""
        return self.folder / "admin.sock"

    @property
    def master_socket(self) -> Path:
        """The master's socket, with `master`."""
        return self.folder / "master.sock"

    @property
    def state_file(self) -> Path:
        """What it loads the servers' state from at each start."""
        return self.folder / "servers.state"

    @property
    def config_file(self) -> Path:
        """What `start`, `restart` and `reload` write, and read."""
        return self.folder / "haproxy.cfg"

    @property
    def version(self) -> str:
        """Such as `2.6.12`."""
        found = re.search(r"^Version: ([0-9.]+)", self.ask("show info"), re.MULTILINE)
        return found[1] if found else ""

    @property
    def worker_pid(self) -> int:
        """The process that answers at the admin socket."""
        return int(self.ask("show info").partition("\nPid: ")[2].split()[0])

    def command(self) -> list[str]:
        """The program and its arguments; the configuration is written."""
        fields = {"service": self.service, "slots": self.slots}
        self.config_file.write_text(
            self._config.format(
                socket=self.socket,
                state_file=self.state_file,
                node=self.node,
                port=self.port,
                backend=self._backend.format(**fields),
                **fields,
                **self._extra,
            )
        )
        mode = ["-W", "-S", f"{self.master_socket},mode,600"] if self.master else ["-db"]
        return [self._program, *mode, "-f", str(self.config_file), *self._reloading.split()]

    def change(self, *, slots: int | None = None, backend: str | None = None, config: str | None = None) -> None:
        """Another configuration, from the next `reload` or `restart` on."""
        self.slots = self.slots if slots is None else slots
        self._backend = self._backend if backend is None else backend
        self._config = self._config if config is None else config

    def check_config(self, path: Path) -> str:
        """What `haproxy -c` says against a configuration file; "": nothing."""
        command = [self._program, "-c", "-f", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10.0, check=False)
        return "" if done.returncode == 0 else done.stderr

    def answers(self) -> bool:
        """It answers at its admin socket."""
        return b"Pid: " in _ask(self.socket, "show info")

    def ask(self, command: str) -> str:
        """The answer to a command at the admin socket; OSError when there is none."""
        return _ask(self.socket, command).decode()

    def reload(self) -> None:
        """A new process takes the listening sockets over, and the old one ends when its clients have gone."""
        if self._process is None:
            raise NotReady("it does not run")
        if self.master:
            self._reload_master()
            return
        before = self.worker_pid
        self._reloading = f"-sf {before} -x {self.socket}"
        try:
            self._old.append(self._process)
            self._spawn()
        finally:
            self._reloading = ""
        self._wait_other(before)

    def old_pids(self) -> list[int]:
        """The processes of before the last reloads that still finish (not with `master`)."""
        return [process.pid for process in self._old if process.lives()]

    def close(self) -> None:
        """The same as `stop`."""
        self.stop()

    def _reload_master(self) -> None:
        before = self.worker_pid
        self.command()
        begun = self.log.count(MASTER_RELOADS)
        deadline = time.monotonic() + START_SECONDS
        while self.log.count(MASTER_RELOADS) == begun and time.monotonic() < deadline and self.pid is not None:
            os.kill(self.pid, signal.SIGUSR2)  # to the master alone; it misses one that comes too early
            time.sleep(0.1)
        self._wait_other(before)

    def _wait_other(self, pid: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if self.worker_pid != pid and self.answers():
                    return
            except (OSError, IndexError):
                pass  # the socket is handed over
            if self.pid is None or time.monotonic() > deadline:
                raise NotReady(f"the reload has not worked: {self.log[-2000:]}")
            time.sleep(POLL_SECONDS)

    def _answers_now(self) -> bool:
        """Its worker, a child of the process that was started, is who listens."""
        if not self.master:
            return super()._answers_now()
        try:
            return self.answers()
        except OSError:
            return False

    def _end(self, patience_seconds: float = 0.0) -> None:
        super()._end(patience_seconds)
        for process in self._old:
            process.end()
        self._old = []

    def move(self) -> None:
        """Another port, for the next start."""
        self.ports = {"http": free_port()}


def _ask(path: Path, command: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5.0)
        connection.connect(str(path))
        connection.sendall(command.encode() + b"\n")
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer
