"""Real parts, put together: a daemon with units, a real gateway before them, and unit-gateway between the two.

A *stage* is one kind of gateway. Clients connect to `port`; what the gateway is told comes from the daemon's registry,
or from another one. The unit ends at once on SIGTERM, in the middle of its answers (bench/loaded_server.py), so whatever
a restart spares, the project has spared.
"""

from __future__ import annotations

import contextlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from tests.end_to_end.gateways.gateway_process import GatewayProcess, ask, names_of
from tests.end_to_end.host import ROOT, Host, Json
from tests.end_to_end.machine import DEADLINE_SECONDS, until
from tests.servers.server import Server

SERVICE = "web"
COUNT = 4
MOST = 6  # processes after scaling up
ADDRESS = "127.0.0.1"
SERVER = f"{sys.executable} -S {ROOT / 'bench' / 'loaded_server.py'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the units leave and come back. `more`: further lines of the unit's table.

    `as_documented`: the gateway looks at servers itself, and tries again what can be repeated, as its page says. Without
    that it tries nothing again, which would hide what is looked for.
    """

    ttl_seconds: float = 2.0
    removal: str = "deregister"
    settle_seconds: float = 0.5
    gateway_seconds: float = 10.0
    drain: str = 'timeout = 30, quiet = 0.1, in_flight = "gateways"'
    warmup: str = "initial = 50, step = 50, period = 0.2"
    more: str = ""
    as_documented: bool = False


class Stage(ABC):
    """One kind of gateway with all around it. `start` leaves all at full weight; `close` ends everything."""

    kind = ""

    def __init__(self, settings: Settings | None = None, registry_url: str | None = None) -> None:
        """`registry_url`: where the entries are kept; None: in the daemon itself."""
        self.settings = settings or Settings()
        self.host = Host()
        self.first_port = self.host.port(MOST)
        self.api_port = self.host.port()
        self.checks_port = self.host.port()
        self.registry_url = registry_url or f"http://{ADDRESS}:{self.api_port}"
        self._registry = f'backend = "http", url = "{registry_url}"' if registry_url else 'backend = "embedded"'
        self.count, self._revision = COUNT, 0
        self.unit_gateway: GatewayProcess | None = GatewayProcess()
        self.more_main = ""  # further lines of the daemon's configuration, above its tables
        self.more_gateway = ""  # further tables of unit-gateway's configuration

    # What a kind of gateway says about itself.

    @property
    @abstractmethod
    def port(self) -> int:
        """Where clients connect."""

    @abstractmethod
    def open(self) -> None:
        """Start the gateway itself."""

    @abstractmethod
    def feeder(self) -> str:
        """The tables of unit-gateway's configuration that are about it; the gateway runs."""

    @abstractmethod
    def end(self) -> None:
        """End the gateway itself."""

    # The units.

    def configure(self, *, count: int | None = None, changed: bool = False) -> None:
        """Write the daemon's configuration: so many processes, and with `changed` another command than before."""
        self.count = self.count if count is None else count
        self._revision += changed
        settings = self.settings
        units = f"""
        {self.more_main}
        [unit.{SERVICE}]
        command = "{SERVER} {{port}} 0 {self._revision / 1000}"
        numprocs = {self.count}
        startsecs = 0.1
        service = {{ port = {self.first_port}, ttl_seconds = {settings.ttl_seconds} }}
        restart = {{ removal = "{settings.removal}", {self._waits()} }}
        drain = {{ {settings.drain} }}
        warmup = {{ {settings.warmup} }}
        {settings.more}
        """
        self.host.configure(units, registry=self._registry, http=f"{ADDRESS}:{self.api_port}")

    def _waits(self) -> str:
        settings = self.settings
        return f"settle_seconds = {settings.settle_seconds}, gateway_seconds = {settings.gateway_seconds}"

    def entries(self) -> list[Json]:
        """What the registry lists of the service."""
        answer = ask(self.registry_url, f"/v1/registry/services/{SERVICE}")
        assert answer.status == 200, answer
        return list(answer.json["entries"])

    def is_warm(self) -> bool:
        """All processes are listed at full weight."""
        entries = self.entries()
        return len(entries) == self.count and all(
            (entry["status"], entry["weight"]) == ("up", entry["full_weight"]) for entry in entries
        )

    # All of it.

    def start(self) -> None:
        """Start everything, and wait until the gateway sends to all units."""
        self.configure()
        self.host.run()
        until("all units are at full weight", self.is_warm)
        self.open()
        self.run_unit_gateway()
        self.until_right()

    def run_unit_gateway(self) -> None:
        """Start unit-gateway, where there is one, and wait until it is ready."""
        if self.unit_gateway is not None:
            self.unit_gateway.configure(self.feeder(), registry_url=self.registry_url, more=self.more_gateway)
            self.unit_gateway.run()

    def until_right(self, seconds: float = DEADLINE_SECONDS) -> None:
        """All units are at full weight, and the gateway has just these in its pool."""
        until("all units are at full weight", self.is_warm, seconds)
        try:
            until(f"the {self.kind} gateway's pool is what the registry lists", self.is_right, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.explain()}") from error

    def is_right(self) -> bool:
        """The gateway has in its pool what the registry lists, all in the same state."""
        assert self.unit_gateway is not None
        pool = self.unit_gateway.pool(SERVICE)
        serving = [server for server in pool if server["standing"] == "serving"]
        return names_of(pool) == names_of(serving) == names_of(self.entries()) and all(map(self._is_fed, pool))

    def _is_fed(self, server: Json) -> bool:
        """The gateway itself shows the server, as one that can be sent to."""
        views = server["gateways"].values()
        return bool(views) and all(view["health"] != "down" and view["weight"] != 0 for view in views)

    def explain(self) -> str:
        """What everybody knows now."""
        words = []
        with contextlib.suppress(OSError):
            words.append(f"registry: {self.entries()}")
        if self.unit_gateway is not None:
            with contextlib.suppress(OSError):
                words.append(f"pool: {self.unit_gateway.pool(SERVICE)}")
            words.append(self.unit_gateway.said()[-4000:])
        return "\n".join(words)

    def close(self) -> None:
        """End everything; complains about what was left."""
        problems: list[str] = []
        steps: list[Callable[[], None]] = [self.host.close, self.end]  # the daemon waits for who sends to its units
        if self.unit_gateway is not None:
            steps.insert(1, self.unit_gateway.close)
        for step in steps:
            try:
                step()
            except AssertionError as error:
                problems.append(str(error))
        assert not problems, "\n".join(problems)


class ServerStage(Stage):
    """A gateway that is a program of its own."""

    def __init__(self, settings: Settings | None = None, registry_url: str | None = None) -> None:
        super().__init__(settings, registry_url)
        self.server = self.make_server()

    @abstractmethod
    def make_server(self) -> Server:
        """The program, not started."""

    @property
    def port(self) -> int:
        return self.server.port

    def open(self) -> None:
        self.server.start()

    def end(self) -> None:
        self.server.stop()
