"""Several real daemons, each with its folder, ports and node name, that register with one control center."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from tests.end_to_end.fleet.center import Center
from tests.end_to_end.host import ROOT, SERVE, Host
from tests.end_to_end.machine import until

LOADED = f"{sys.executable} -S {ROOT / 'bench' / 'loaded_server.py'}"  # ends in the middle of whatever it does
QUICK = """
startsecs = 0.1
restart = { removal = "deregister", settle_seconds = 0.3 }
warmup = { initial = 50, step = 50, period = 0.3 }
drain = { timeout = 10, quiet = 0.2 }
"""


class Fleet:
    """Nodes n0, n1, ... of a center. `close` ends them all."""

    def __init__(self, center: Center, count: int) -> None:
        self.center = center
        self.hosts = [Host() for _ in range(count)]
        self.names = [f"n{number}" for number in range(count)]

    def configure(
        self, services: Iterable[str], *, command: str = LOADED, settings: str = QUICK, more: str = ""
    ) -> None:
        """Each node gets a unit of each service, called as the service is."""
        for number, (name, host) in enumerate(zip(self.names, self.hosts, strict=True)):
            units = "".join(
                f'[unit.{service}]\ncommand = "{command} {{port}}"\nservice = {{ port = {host.port()}, '
                f'zone = "z{number % 2}", metadata = {{ team = "t{number % 2}" }} }}\n{settings}\n'
                for service in services
            )
            ttl = self.center.ttl_seconds
            registry = f'backend = "http", url = "{self.center.url}", ttl_seconds = {ttl}'
            host.configure(units + more, registry=registry, http=f"127.0.0.1:{host.port()}", node=name)

    def run(self, services: Iterable[str] = ()) -> None:
        """Start all daemons, and wait until all units are registered at full weight."""
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(lambda host: host.run(), self.hosts))
        for service in services:
            self.until_warm(service)

    def until_warm(self, service: str, count: int | None = None) -> None:
        """So many instances (all) are in the registry at full weight."""
        wanted = len(self.hosts) if count is None else count

        def warm() -> bool:
            entries = self.center.entries(service)
            return sum(entry["weight"] == entry["full_weight"] for entry in entries) == wanted

        until(f"{wanted} instances of {service} are warm", warm, 30.0)

    def host(self, node: str) -> Host:
        """The one of that name."""
        return self.hosts[self.names.index(node)]

    def close(self) -> None:
        """End all daemons; says what each left."""
        problems: list[str] = []
        lock = threading.Lock()

        def end(host: Host) -> None:
            try:
                host.close()
            except AssertionError as error:
                with lock:
                    problems.append(str(error))

        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(end, self.hosts))
        assert not problems, "\n".join(problems)


__all__ = ["LOADED", "QUICK", "SERVE", "Fleet"]
