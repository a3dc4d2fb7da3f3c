"""A host with units in a real registry behind a proxy, and a reader that asks the registry itself."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from registry_client import BlockingRegistryClient, Entry, RegistryError, open_backend
from tests.end_to_end.host import SERVE, Host
from tests.end_to_end.machine import POLL_SECONDS, kill
from tests.servers import Consul, Etcd, Proxy, Redis, Server, Unitd, ZooKeeper

COUNT = 3  # units
TTL = 2.0
SETTLE_SECONDS = TTL + 5  # within which the registry must be right again after a fault
STEADY_SECONDS = 0.4 * TTL  # and for how long it must be so: each unit is renewed once meanwhile
KINDS: dict[str, Callable[..., Server]] = {
    "consul": Consul, "etcd": Etcd, "zookeeper": ZooKeeper, "redis": Redis, "http": Unitd,
}  # fmt: skip
# Registries whose keys have a prefix; the others have only the names of services.
PREFIXED = ("etcd", "zookeeper", "redis")


def url_of(kind: str, url: str) -> str:
    """With a scheme, which the servers of some kinds do not need in theirs."""
    return url if "://" in url else f"{kind}://{url}"


class Site:
    """Units named `shop:0`, `shop:1`, ... in the registry; `namespace` is the service's name and the keys' prefix."""

    def __init__(self, kind: str, host: Host, server: Server, proxy: Proxy, namespace: str) -> None:
        self.kind, self.host, self.server, self.proxy, self.namespace = kind, host, server, proxy, namespace
        self._removal = ""
        self._client: BlockingRegistryClient | None = None

    def table(self, url: str) -> str:
        """The registry's part of the configuration, as an inline table's inside."""
        prefix = f", prefix = {json.dumps(self.namespace)}" if self.kind in PREFIXED else ""
        return f'backend = "{self.kind}", url = "{url_of(self.kind, url)}", ttl_seconds = {TTL:g}{prefix}'

    def units(self, removal: str) -> str:
        """The configuration of the units, and of one that is in no registry."""
        port = self.host.port(COUNT)
        return f"""
            [unit.shop]
            command = "{SERVE} {{port}}"
            numprocs = {COUNT}
            startsecs = 0
            stopwaitsecs = 2
            service = {{ name = "{self.namespace}", port = {port} }}
            restart = {{ removal = "{removal}", settle_seconds = 0, backoff_initial = 0.1 }}
            drain = {{ quiet = 0.1, timeout = 2 }}
            [unit.alone]
            command = "sleep 1000"
            startsecs = 0
        """

    def start(self, removal: str = "deregister") -> None:
        """Start the daemon."""
        self._removal = removal
        self.host.configure(self.units(removal), registry=self.table(self.proxy.url))
        self.host.run()

    def run(self, removal: str = "deregister") -> None:
        """Start the daemon; returns when the registry has all units."""
        self.start(removal)
        self.until("all are registered", lambda: len(self.entries()) == COUNT and not self.wrong())

    def reader(self) -> BlockingRegistryClient:
        """A client of the registry itself, not through the proxy; made anew after the server was ended."""
        if self._client is None:
            options = {"prefix": self.namespace} if self.kind in PREFIXED else {}
            url = url_of(self.kind, self.server.url)
            self._client = BlockingRegistryClient(open_backend(self.kind, url=url, timeout_seconds=1.0, **options))
        return self._client

    def close(self) -> None:
        """End the reader."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def end(self) -> None:
        """End the daemon in order, while its registry answers: then there is nothing of it in the registry."""
        try:
            self.proxy.mend()
            self.server.heal()
            if self._removal == "expire":
                end_at_once(self.host)
            elif self.host.daemon is not None and self.host.daemon.poll() is None:
                self.host.stop()
                self.until("nothing is left in the registry", lambda: not self.entries())
        finally:
            self.close()

    def entries(self) -> dict[str, Entry]:
        """What the registry has now, by unit. Raises RegistryError."""
        return {entry.unit: entry for entry in self.reader().list(self.namespace).entries}

    def living(self) -> dict[str, int]:
        """The generation of each unit that is to be in the registry."""
        return _living(self.host.units())

    def wrong(self) -> str:
        """What the registry or the daemon says that is not so; "" when all is right."""
        try:
            found = {unit: (entry.generation, entry.status, entry.weight) for unit, entry in self.entries().items()}
        except RegistryError as error:
            return str(error)
        units = self.host.units()
        wanted = {unit: (generation, "up", units[unit]["weight"]) for unit, generation in _living(units).items()}
        doubtful = {unit: units[unit]["lease"] for unit in wanted if units[unit]["lease"]["state"] != "held"}
        return "" if wanted and found == wanted and not doubtful else f"{found}, not {wanted}; {doubtful}"

    def until_right(self, seconds: float = SETTLE_SECONDS) -> None:
        """Wait until exactly the living units are registered and held, each in its generation, and stay so."""
        deadline = time.monotonic() + seconds
        right_since = None
        while (now := time.monotonic()) < deadline or right_since is not None:
            if problem := self.wrong():
                right_since = None
                assert now < deadline, f"not within {seconds:g} s: {problem}\n{self.host.said()[-3000:]}"
            elif right_since is None:
                right_since = now
            elif now - right_since > STEADY_SECONDS:
                return
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"not within {seconds:g} s: {problem}\n{self.host.said()[-3000:]}")

    def until(self, what: str, check: Callable[[], Any], seconds: float = SETTLE_SECONDS) -> Any:
        """Wait for something that the registry may be unable to answer meanwhile."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if found := check():
                    return found
            except RegistryError:
                pass
            assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s\n{self.host.said()[-3000:]}"
            time.sleep(POLL_SECONDS)

    def stays(self, what: str, check: Callable[[], bool], seconds: float = 1.2 * TTL) -> None:
        """See that it is so for longer than a ttl, each time that the registry answers."""
        deadline, answers = time.monotonic() + seconds, 0
        while time.monotonic() < deadline or not answers:
            assert time.monotonic() < deadline + SETTLE_SECONDS, "the registry does not answer"
            try:
                assert check(), f"not any more: {what}\n{self.host.said()[-3000:]}"
                answers += 1
            except RegistryError:
                pass
            time.sleep(POLL_SECONDS)

    def until_lease(self, *states: str, seconds: float = 2 * TTL + 5) -> None:
        """Wait until the daemon says one of that of every unit's lease."""

        def check() -> bool:
            leases = [status["lease"] for status in self.host.units().values() if status["service"]]
            return all(lease["state"] in states for lease in leases)

        self.until(f"all leases are {' or '.join(states)}", check, seconds)

    @contextmanager
    def untouched(self, *except_for: str) -> Iterator[None]:
        """Whatever happens inside: no unit is restarted or stopped, and the registry is right in time at the end."""
        before = self.host.pids()
        yield
        self.until_right()
        after = {name: (status["pid"], status["restarts"]) for name, status in self.host.units().items()}
        wanted = {name: (pid, 0) for name, pid in before.items()}
        changed = {name: (wanted[name], after[name]) for name in wanted if after[name] != wanted[name]}
        assert set(changed) <= set(except_for), f"(pid, restarts) before and after: {changed}\n{self.host.said()}"


def end_at_once(host: Host) -> None:
    """End daemon and units by force, where an end in order would wait for a registry once more."""
    if host.daemon is not None and host.daemon.poll() is None:
        host.signal(signal.SIGKILL)
        host.wait()
    kill(host.processes())
    Path(host.socket).unlink(missing_ok=True)


def _living(units: dict[str, Any]) -> dict[str, int]:
    return {
        name: status["generation"]
        for name, status in units.items()
        if status["service"] and status["ready"] and status["pid"]
    }
