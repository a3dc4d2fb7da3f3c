"""A private nginx as gateway of one service: the configuration of a user, with the file that unit-gateway writes included."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from .server import POLL_SECONDS, NotReady, Server, find_program

RELOAD_SECONDS = 10.0

CONFIGURATION = """\
daemon off;
user {user};
worker_processes {workers};
worker_shutdown_timeout {shutdown_seconds}s;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
error_log {folder}/notice.log notice;

events {{
    worker_connections 4096;
}}

http {{
    client_body_temp_path {folder}/temp/body;
    proxy_temp_path {folder}/temp/proxy;
    fastcgi_temp_path {folder}/temp/fastcgi;
    uwsgi_temp_path {folder}/temp/uwsgi;
    scgi_temp_path {folder}/temp/scgi;

    log_format unitd '$msec $status $request_time | $upstream_addr | $upstream_status | $upstream_response_time';
    access_log {folder}/access.log unitd;

    include {folder}/upstreams.conf;

    map $http_upgrade $connection_upgrade {{
        default upgrade;
        ''      '';
    }}

    server {{
        listen 127.0.0.1:{port} backlog=4096;
        keepalive_requests 1000000;
        {extra}

        location / {{
            proxy_pass http://{service};
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_connect_timeout {connect_seconds}s;
            proxy_read_timeout {read_seconds}s;
            proxy_next_upstream error timeout;
            proxy_next_upstream_tries 2;
        }}
    }}
}}
"""


class Nginx(Server):
    """`service` is the upstream that all requests go to. The port and the paths stay the same until `stop`.

    Until unit-gateway has written `upstreams`, there is an upstream without any server that takes requests (502).
    """

    install_hint = "apt-get install nginx-light"

    def __init__(
        self,
        service: str = "cart",
        *,
        workers: int = 2,
        connect_seconds: int = 1,
        read_seconds: int = 2,
        shutdown_seconds: int = 30,
        extra: str = "",
    ) -> None:
        self.program = find_program("nginx", self.install_hint, "/usr/sbin/nginx")
        super().__init__(("http",))
        self.service = service
        self._options = {
            "workers": workers,
            "connect_seconds": connect_seconds,
            "read_seconds": read_seconds,
            "shutdown_seconds": shutdown_seconds,
            "extra": extra,
        }

    @property
    def port(self) -> int:
        """Where clients connect."""
        return self.ports["http"]

    @property
    def url(self) -> str:
        """What clients ask."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def version(self) -> str:
        """As it tells in its answers."""
        head = self._ask("HEAD")
        return head.partition("Server: nginx/")[2].split("\r", 1)[0]

    @property
    def conf(self) -> Path:
        """The main configuration file, which includes `upstreams`."""
        return self.folder / "nginx.conf"

    @property
    def upstreams(self) -> Path:
        """The file that unit-gateway writes."""
        return self.folder / "upstreams.conf"

    @property
    def pid_file(self) -> Path:
        """Where the master's pid stands."""
        return self.folder / "nginx.pid"

    @property
    def error_log(self) -> Path:
        """From level `warn` on."""
        return self.folder / "error.log"

    @property
    def access_log(self) -> Path:
        """In the format that unit-gateway reads."""
        return self.folder / "access.log"

    def settings(self, name: str = "front", services: Iterable[str] = (), extra: str = "") -> str:
        """The table [nginx.NAME] of unit-gateway's configuration for this nginx."""
        listed = ", ".join(f'"{each}"' for each in services or (self.service,))
        return f"""\
[nginx.{name}]
services = [{listed}]
nginx = ["{self.program}"]
conf = "{self.conf}"
file = "{self.upstreams}"
pid_file = "{self.pid_file}"
error_log = "{self.error_log}"
access_log = "{self.access_log}"
{extra}
"""

    @property
    def reloads(self) -> int:
        """How often it has been told to reload, since its folder was made."""
        return (self.folder / "notice.log").read_text().count(": reconfiguring\n")

    def command(self) -> list[str]:
        """Write the configuration, and the upstreams where nobody has written them, and name it."""
        (self.folder / "temp").mkdir(exist_ok=True)
        words = {"folder": self.folder, "port": self.port, "service": self.service, "user": _user()}
        if not self.conf.exists():
            self.conf.write_text(CONFIGURATION.format(**words, **self._options))
        if not self.upstreams.exists():
            self.upstreams.write_text(f"upstream {self.service} {{\n    server 127.0.0.1:1 down;\n}}\n")
        return [self.program, "-c", str(self.conf)]

    def move(self) -> None:
        """Take another port, for the next start."""
        super().move()
        self.conf.unlink(missing_ok=True)

    def answers(self) -> bool:
        """It answers anything at all."""
        return self._ask("HEAD").startswith("HTTP/1.1 ")

    def workers(self) -> dict[int, str]:
        """The workers of the master, pid -> title."""
        found = {}
        if self.pid is not None:
            for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
                title = _title(int(pid))
                if title.startswith("nginx: worker process"):
                    found[int(pid)] = title
        return found

    def reload(self) -> None:
        """As an operator does, after a change of the configuration; returns when new workers serve, and old ones end."""
        before = set(self.workers())
        os.kill(self.pid or -1, signal.SIGHUP)
        deadline = time.monotonic() + RELOAD_SECONDS
        while not self._reloaded(before):
            if time.monotonic() > deadline:
                raise NotReady(f"nginx does not reload: {self.error_log.read_text()[-2000:]}")
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """`stop`."""
        self.stop()

    def _reloaded(self, before: set[int]) -> bool:
        now = self.workers()
        serving = {pid for pid, title in now.items() if "shutting down" not in title}
        return bool(serving) and before.isdisjoint(serving)

    def _ask(self, method: str) -> str:
        with socket.create_connection(("127.0.0.1", self.port), 2.0) as connection:
            connection.sendall(
                f"{method} /?nginx-of-the-tests HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode()
            )
            return connection.makefile("rb").read().decode(errors="replace")


def _user() -> str:
    """The folder belongs to us, and a master of root gives up its rights otherwise. Only root may name a user."""
    return "root" if os.geteuid() == 0 else "nobody"


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
    except OSError:
        return ""
