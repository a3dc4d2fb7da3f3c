"""Four units before which a real HAProxy stands that knows nothing but what it asks on the daemon's checks port."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from typing import Any

from tests.end_to_end.host import SERVE, Host
from tests.end_to_end.machine import until
from tests.servers.haproxy import Haproxy

COUNT = 4
NAMES = [f"cart:{number}" for number in range(COUNT)]

# Everything on the checks port: HAProxy tells its state, and what is open.
STATE = """\
    option httpchk
    http-check send meth GET uri /check ver HTTP/1.1 hdr Host checks
    http-check send-state
    http-check disable-on-404
"""
STATE_SERVER = "check port {checks} inter 200ms"
# Units are checked by themselves, and the daemon is asked as an agent.
AGENT_SERVER = "check inter 200ms fall 2"

Json = Any


class Stage:
    """`close` ends everything, and complains about what was left."""

    def __init__(self, start_haproxy: Callable[..., Haproxy], *, sends_state: bool) -> None:
        self.host, self.sends_state = Host(), sends_state
        self.ports, self.checks = self.host.port(COUNT), self.host.port()
        try:
            self._run()
            self.haproxy = start_haproxy(backend=self._backend(sends_state))
            until("all are sent to", lambda: {row["status"] for row in self.servers().values()} == {"UP"})
        except BaseException:
            self.host.close()
            raise

    def _run(self) -> None:
        self.host.configure(f"""
        checks.listen = "127.0.0.1:{self.checks}"
        [unit.cart]
        command = "{SERVE} {{port}}"
        numprocs = {COUNT}
        startsecs = 0.05
        service = {{ port = {self.ports}, ttl_seconds = 1 }}
        readiness = {{ tcp = true, period = 0.2 }}
        warmup = {{ initial = 20, step = 40, period = 0.4 }}
        drain.quiet = 0.1
        restart = {{ removal = "deregister", settle_seconds = 0.2 }}
        """)
        self.host.run()
        for name in NAMES:
            self.host.until_state(name, "RUNNING")

    def _backend(self, sends_state: bool) -> str:
        how = STATE_SERVER.format(checks=self.checks) if sends_state else AGENT_SERVER
        servers = (
            f"    server {name} 127.0.0.1:{self.ports + number} weight 100 {how} agent-check agent-addr 127.0.0.1 "
            f'agent-port {self.checks} agent-inter 100ms agent-send "{name}\\n"\n'
            for number, name in enumerate(NAMES)
        )
        return (STATE if sends_state else "") + "".join(servers)

    def close(self) -> None:
        """End all but the HAProxy, which is its maker's."""
        self.host.close()

    def servers(self) -> dict[str, dict[str, str]]:
        """What HAProxy shows of each server: `status`, `weight`, ... by name."""
        rows = csv.DictReader(io.StringIO(self.haproxy.ask("show stat").lstrip("# ")))
        return {row["svname"]: row for row in rows if row["svname"] in NAMES}


class Load:
    """Clients of HAProxy that ask without a pause. Leaving the block ends them; `failed` must be empty then."""

    def __init__(self, port: int, clients: int = 3) -> None:
        self._port, self._stop = port, threading.Event()
        self.answered, self.failed = 0, list[str]()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
            try:
                connection.request("GET", "/")
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    self.failed.append(str(response.status))
                self.answered += 1
            except (OSError, HTTPException) as error:
                self.failed.append(repr(error))
            finally:
                connection.close()


class Watch:
    """What HAProxy has shown of a server, change by change, while the block runs."""

    def __init__(self, stage: Stage, name: str) -> None:
        self._stage, self._name, self._stop = stage, name, threading.Event()
        self.seen: list[tuple[str, int]] = []  # (status, weight)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            row = self._stage.servers()[self._name]
            look = row["status"], int(row["weight"])
            if not self.seen or self.seen[-1] != look:
                self.seen.append(look)
