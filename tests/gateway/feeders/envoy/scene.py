"""What tests of the Envoy feeder act on: servers that can be killed and frozen, an Envoy, its feeder, and clients."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from gateway.feeders.envoy import EnvoyFeeder, make
from gateway.model import Applied, Finding, Look, Pool, Server, ServerView, Standing
from gateway.settings.envoy import EnvoySpec
from tests.end_to_end.machine import until
from tests.servers.envoy import Envoy
from tests.servers.processes import Process, free_port

SERVICE = "web"
UNITS = 4


class Unit:
    """One process that serves; `generation` grows with each of its lives."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.generation = 0
        self._log = folder / f"unit-{self.port}.log"
        self._process: Process | None = None

    def launch(self) -> None:
        """Begin a life, if there is none."""
        if self._process is None:
            script = str(Path(__file__).with_name("unit.py"))
            self._process = Process([sys.executable, "-I", "-S", script, str(self.port)], self._log, {})
            self.generation += 1

    def wait(self) -> None:
        """Return when it answers."""
        until("the unit answers", self._answers)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP."""
        assert self._process is not None
        self._process.signal(signal.SIGSTOP)
        self._process.wait_stopped()

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.signal(signal.SIGCONT)

    @property
    def count(self) -> int:
        """How many requests it has got."""
        return int(ask(self.port, "/count")[1])

    def _answers(self) -> bool:
        try:
            return ask(self.port, "/count")[0] == 200
        except OSError:
            return False


def ask(port: int, path: str = "/", method: str = "GET") -> tuple[int, str]:
    """One request on a new connection: status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def server(unit: Unit, *, weight: int = 100, draining: bool = False, zone: str | None = None) -> Server:
    """The unit as unit-gateway knows it."""
    return Server(
        service=SERVICE,
        instance=f"node/{unit.port}",
        generation=unit.generation,
        address="127.0.0.1",
        port=unit.port,
        weight=0 if draining else weight,
        full_weight=weight or 100,
        standing=Standing.DRAINING if draining else Standing.SERVING,
        zone=zone,
    )


class Fed:
    """A feeder with an event loop of its own, called as if it blocked."""

    def __init__(self, *envoys: Envoy, **options: object) -> None:
        settings: dict[str, object] = {
            "folder": str(envoys[0].eds),
            "admin": tuple(envoy.admin for envoy in envoys),
            "event_log": tuple(str(envoy.event_log) for envoy in envoys),
            "apply_seconds": 3.0,
        }
        self.feeder: EnvoyFeeder = make(EnvoySpec("mesh", **{**settings, **options}))  # type: ignore[arg-type]
        self._runner = asyncio.Runner()
        self._revision = 0
        self._unread: list[Finding] = []
        self._runner.run(self.feeder.start())

    def apply(self, *servers: Server, full: bool = False) -> Applied:
        """Make these the pool of the service."""
        self._revision += 1
        pool = Pool(servers[0].service if servers else SERVICE, self._revision, "epoch", tuple(servers))
        return self._runner.run(self.feeder.apply(pool, full=full))

    def look(self) -> Look:
        """One look."""
        return self._runner.run(self.feeder.look())

    def view(self, unit: Unit) -> ServerView | None:
        """What a look shows of the unit."""
        return next((view for view in self.look().views if view.instance == f"node/{unit.port}"), None)

    def finding(self, what: str, wanted: Callable[[Finding], bool], seconds: float = 10.0) -> Finding:
        """Look until there is one as wanted, of this look or of those before that were not asked for."""

        def found() -> Finding | None:
            self._unread += self.look().findings
            return next((each for each in self._unread if wanted(each)), None)

        result: Finding = until(what, found, seconds)
        self._unread.remove(result)
        return result

    def close(self) -> None:
        """Let go of it, twice, as is allowed."""
        self._runner.run(self.feeder.close())
        self._runner.run(self.feeder.close())
        self._runner.close()


class Load:
    """Clients that send one request after the other on kept-alive connections, until it ends.

    `statuses`: how often each was answered (0: no answer). `by_port`: who answered.
    """

    def __init__(self, port: int, clients: int = 4, path: str = "/", pause: float = 0.002) -> None:
        self._port, self._path, self._pause = port, path, pause
        self.statuses: Counter[int] = Counter()
        self.by_port: Counter[str] = Counter()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def sent(self) -> int:
        """How many requests have ended."""
        with self._lock:
            return self.statuses.total()

    def goes_on(self, requests: int = 100) -> None:
        """Return when so many more have ended."""
        wanted = self.sent + requests
        until("more requests have ended", lambda: self.sent >= wanted)

    def _run(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        while not self._over.wait(self._pause):
            status, body = 0, ""
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("POST" if number % 2 else "GET", self._path)
                response = connection.getresponse()
                status, body = response.status, response.read().decode()
            if not status:
                connection.close()
            with self._lock:
                self.statuses[status] += 1
                self.by_port[body] += 1
        connection.close()


@contextlib.contextmanager
def in_background(port: int, path: str) -> Iterator[list[tuple[int, str]]]:
    """A request that is under way inside of the block; its answer is in the list after it."""
    answers: list[tuple[int, str]] = []
    thread = threading.Thread(target=lambda: answers.append(ask(port, path)))
    thread.start()
    try:
        yield answers
    finally:
        thread.join()
