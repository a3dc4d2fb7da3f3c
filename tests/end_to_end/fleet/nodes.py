"""Several real daemons, each with its folder, ports and node name, that register with one control center."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.end_to_end.fleet.center import Center
from tests.end_to_end.host import ROOT, SERVE, Host
from tests.end_to_end.killed.scene import LIFE
from tests.end_to_end.machine import until

# Each life of a unit notes that it has begun. {port} is for unitd to fill in, {notes} is filled in here.
_LOADED = f"{sys.executable} -S {ROOT / 'bench' / 'loaded_server.py'}"  # ends in the middle of whatever it does
LOADED = f"sh -c 'echo begin 0 $$ $UNITD_GENERATION >>{{notes}}; exec {_LOADED} {{port}}'"
ALONE = f"{sys.executable} -S {LIFE} {{port}} {{notes}} {{notes}}.lock"  # notes, too, if it is not alone
QUICK = """
startsecs = 0.1
restart = { removal = "deregister", settle_seconds = 0.3 }
warmup = { initial = 50, step = 50, period = 0.3 }
drain = { timeout = 10, quiet = 0.2 }
"""
EXPIRING = QUICK.replace("deregister", "expire")
LIGHT = """
startsecs = 0.05
restart = { removal = "deregister", settle_seconds = 0.05 }
warmup = { initial = 50, step = 50, period = 0.1 }
drain = { timeout = 1, quiet = 0.05 }
"""


class Fleet:
    """Nodes n0, n1, ... of a center. `close` ends them all."""

    def __init__(self, center: Center, count: int, *, registry_url: str | None = None) -> None:
        """`center` shows the registry; the nodes register at that url (None: at the center)."""
        self.center, self.registry_url = center, registry_url or center.url
        self.hosts = [Host() for _ in range(count)]
        self.names = [f"n{number}" for number in range(count)]
        self._ports: dict[tuple[str, str], int] = {}

    def configure(
        self,
        services: Iterable[str],
        *,
        command: str = LOADED,
        settings: str | Mapping[str, str] = QUICK,
        more: str = "",
        is_reached: bool = True,
    ) -> None:
        """Each node gets a unit of each service, called as the service is; `settings` of all units, or by service.

        `is_reached`: nodes have an HTTP API.
        """
        services = tuple(services)
        for number, (name, host) in enumerate(zip(self.names, self.hosts, strict=True)):
            units = "".join(
                f'[unit.{service}]\ncommand = "{self._filled(command, name, service)}"\n'
                f'service = {{ port = {self._port(name, service)}, zone = "z{number % 2}", '
                f'metadata = {{ team = "t{number % 2}" }} }}\n'
                f"{settings if isinstance(settings, str) else settings[service]}\n"
                for service in services
            )
            registry = f'backend = "http", url = "{self.registry_url}", ttl_seconds = {self.center.ttl_seconds}'
            http = f"127.0.0.1:{self._port(name, '')}" if is_reached else ""
            host.configure(units + more, registry=registry, http=http, node=name)

    def _port(self, node: str, service: str) -> int:
        """Of the unit, or of the daemon itself; the same however often it is asked for."""
        if (node, service) not in self._ports:
            self._ports[node, service] = self.host(node).port()
        return self._ports[node, service]

    def _filled(self, command: str, node: str, service: str) -> str:
        return command.replace("{notes}", str(self.host(node).folder / f"{service}.notes"))

    def run(self, services: Iterable[str] = (), **how: Any) -> None:
        """Start all daemons, and wait until all units are registered at full weight. Keywords are those of Host.run."""
        self.each(lambda host: host.run(**how))
        for service in services:
            self.until_warm(service)

    def each(self, act: Callable[[Host], object], hosts: Sequence[Host] | None = None) -> None:
        """Do something to all of them at the same time."""
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(act, self.hosts if hosts is None else hosts))

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

    # What has happened, as the units' programs say.

    def lives(self, *services: str) -> dict[str, int]:
        """Instance -> how many lives of it have begun; none ever beside another."""
        return {
            f"{name}/{path.stem}": _begun(path.read_text())
            for name, host in zip(self.names, self.hosts, strict=True)
            for path in sorted(host.folder.glob("*.notes"))
            if not services or path.stem in services
        }

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

        self.each(end)
        assert not problems, "\n".join(problems)


def _begun(notes: str) -> int:
    words = Counter(line.split()[0] for line in notes.splitlines())
    assert not words["twice"], f"two lives at a time:\n{notes}"
    return words["begin"]


def more_lives(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Instance -> how many lives have begun meanwhile; who had none is left out."""
    assert before.keys() <= after.keys()
    return {
        instance: count - before.get(instance, 0) for instance, count in after.items() if count != before.get(instance)
    }


__all__ = ["ALONE", "EXPIRING", "LIGHT", "LOADED", "QUICK", "SERVE", "Fleet", "more_lives"]
