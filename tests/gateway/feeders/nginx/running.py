"""What the tests of the nginx feeder have in common: units, clients, and the feeder behind calls that wait."""

from __future__ import annotations

import asyncio
import http.client
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from gateway.feeders.nginx import NginxFeeder, make
from gateway.model import Applied, Finding, Key, Look, Pool, Server, Standing
from gateway.settings.nginx import NginxSpec, read
from supervisor.config.document import Document
from supervisor.config.table import Problems
from tests.end_to_end.machine import until
from tests.servers.nginx import Nginx
from tests.servers.processes import Process, free_port

T = TypeVar("T")
SECONDS = 15.0


def spec_of(nginx: Nginx, extra: str = "", services: tuple[str, ...] = ()) -> NginxSpec:
    """As unit-gateway reads it from its configuration."""
    return read_spec(nginx.settings(services=services, extra=extra))


def read_spec(text: str, name: str = "front") -> NginxSpec:
    """The spec of a valid table."""
    problems = Problems()
    spec = read(Document("/etc/unitd/unit-gateway.toml", text.encode()), name, problems)
    assert not problems.errors, problems.errors
    return spec


class Unit:
    """A server as a process of its own, and its entry in pools."""

    def __init__(self, name: str, folder: Path, service: str = "cart") -> None:
        self.name, self.service, self.port, self.generation = name, service, free_port(), 1
        self._log = folder / f"{name}.log"
        self.process = self._start()

    def _start(self) -> Process:
        process = Process(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("unit.py")), str(self.port), self.name],
            self._log,
            {},
        )
        until(f"{self.name} listens", lambda: process.listens_on(self.port))
        return process

    def heal(self) -> None:
        """It runs and answers, at the same place, and is not another generation."""
        self.process.signal(signal.SIGCONT)
        if not self.process.lives():
            self.process.end()
            self.process = self._start()

    @property
    def key(self) -> Key:
        return self.name, self.generation

    def server(self, weight: int = 100, *, full_weight: int = 100) -> Server:
        """Weight 0: it drains."""
        standing = Standing.SERVING if weight else Standing.DRAINING
        return Server(
            service=self.service, instance=self.name, generation=self.generation, address="127.0.0.1",
            port=self.port, weight=weight, full_weight=full_weight, standing=standing,
        )  # fmt: skip


def pool(*servers: Server, service: str = "cart", revision: int = 1) -> Pool:
    return Pool(service, revision, "epoch", tuple(sorted(servers, key=lambda server: server.instance)))


class Running:
    """A feeder in an event loop of its own thread."""

    def __init__(self, spec: NginxSpec) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.feeder: NginxFeeder = self.call(self._made(spec))

    async def _made(self, spec: NginxSpec) -> NginxFeeder:
        feeder = make(spec)
        await feeder.start()
        return feeder

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)

    def apply(self, *pools: Pool, full: bool = False) -> list[Applied]:
        """All at once; raises what the first one raises."""

        async def together() -> list[Applied]:
            return list(await asyncio.gather(*(self.feeder.apply(each, full=full) for each in pools)))

        return self.call(together())

    def settled(self, of: Pool) -> Applied:
        """Apply until nobody sends to others any more."""
        wanted = {server.key for server in of.serving}
        return until("old workers have ended", lambda: (done := self.apply(of)[0]).serving == wanted and done)

    def look(self) -> Look:
        return self.call(self.feeder.look())

    def found(self, enough: Callable[[list[Finding]], Any]) -> list[Finding]:
        """Look until there are enough findings."""
        findings: list[Finding] = []
        until("enough is found", lambda: (findings.extend(self.look().findings), enough(findings))[1])
        return findings

    def close(self) -> None:
        self.call(self.feeder.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Client:
    """Asks over one kept-alive connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        self._used = False

    def ask(self, path: str = "/", method: str = "GET", body: str | None = None) -> tuple[int, str]:
        """Status and body. nginx closes idle connections when it reloads: a request on a used one that was answered with
        not a single byte is sent again, once, on a new one, as browsers do."""
        try:
            return self._asked(path, method, body)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            used, self._used = self._used, False
            self._connection.close()
            if not used:
                raise
        return self._asked(path, method, body)

    def _asked(self, path: str, method: str, body: str | None) -> tuple[int, str]:
        self._connection.request(method, path, body)
        answer = self._connection.getresponse()
        said = answer.status, answer.read().decode()
        self._used = True
        return said

    def close(self) -> None:
        self._connection.close()


def ask(port: int, path: str = "/") -> tuple[int, str]:
    """On a connection of its own."""
    client = Client(port)
    try:
        return client.ask(path)
    finally:
        client.close()


def shares(port: int, requests: int) -> Counter[str]:
    """Who answered how many requests."""
    client = Client(port)
    try:
        answers = [client.ask() for _ in range(requests)]
    finally:
        client.close()
    assert {status for status, _ in answers} == {200}
    return Counter(name for _, name in answers)


class Load:
    """Clients that ask without a pause, each over its kept-alive connection, until the block ends."""

    def __init__(self, port: int, clients: int = 4, wait: float = 0.005) -> None:
        self._port, self._wait = port, wait
        self._over = threading.Event()
        self.answers: list[tuple[float, int, str]] = []  # when it was asked, status, who
        self.errors: list[Exception] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]

    def _run(self, number: int) -> None:
        client, count = Client(self._port), 0
        while not self._over.is_set():
            count += 1
            method, body = ("POST", "x" * 100) if count % 4 == 0 else ("GET", None)
            wait = self._wait * 20 if count % 10 == 0 else self._wait
            at = time.monotonic()
            try:
                self.answers.append((at, *client.ask(f"/?wait={wait}", method, body)))
            except Exception as error:  # whatever it is, the test is told
                self.errors.append(error)
        client.close()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int) -> None:
        """So many more have been answered."""
        begun = len(self.answers)
        until(f"{count} more answers", lambda: len(self.answers) >= begun + count or self.errors)

    def failed(self) -> list[object]:
        return [*self.errors, *(answer for answer in self.answers if answer[1] != 200)]
