"""Real servers in front of the test applications, and a client that sees the bytes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

COMMANDS = {
    "uvicorn": ["uvicorn", "tests.unit_app.asgi_app:app", "--port", "{port}"],
    "uvicorn-2": ["uvicorn", "tests.unit_app.asgi_app:app", "--port", "{port}", "--workers", "2"],
    "sync-4": ["gunicorn", "tests.unit_app.wsgi_app:app", "-b", "127.0.0.1:{port}", "-w", "4"],
    "gthread-4": [
        "gunicorn", "tests.unit_app.wsgi_app:app", "-b", "127.0.0.1:{port}", "-w", "4", "-k", "gthread", "--threads", "4",
        "--keep-alive", "60",
    ],
    "uvicorn-main": ["tests.unit_app.uvicorn_main", "{port}"],
    "sync-conf": [
        "gunicorn", "tests.unit_app.wsgi_app:app", "-b", "127.0.0.1:{port}", "-w", "4",
        "-c", str(Path(__file__).with_name("gunicorn_conf.py")),
    ],
    "hypercorn": ["hypercorn", "tests.unit_app.asgi_app:app", "-b", "127.0.0.1:{port}"],
    "preload-4": ["gunicorn", "tests.unit_app.wsgi_app:app", "-b", "127.0.0.1:{port}", "-w", "4", "--preload"],
}  # fmt: skip
# With preloading the master imports the application, and a worker is seen with its first request.
PROCESSES = {
    "uvicorn": 1,
    "uvicorn-2": 2,
    "sync-4": 4,
    "gthread-4": 4,
    "preload-4": 1,
    "hypercorn": 1,
    "uvicorn-main": 3,
    "sync-conf": 5,
}


def eventually(check: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Return once `check` gives something true."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class Client(http.client.HTTPConnection):
    """A connection that can be closed with all that came of it."""

    answer: http.client.HTTPResponse | None = None

    def getresponse(self) -> http.client.HTTPResponse:
        self.answer = super().getresponse()
        return self.answer

    def leave(self) -> None:
        self.close()
        if self.answer is not None:
            self.answer.close()


class Server:
    """A real server, its clients' side, and the files that steer the application."""

    def __init__(self, kind: str, folder: Path, **environment: str) -> None:
        self.kind, self.folder = kind, folder
        self.clients: list[Client] = []
        self.release, self.log, self.broken = (folder / name for name in ("release", "log", "broken"))
        # The port stays reserved: nobody else is given it, no client's own end either, but the server may listen on it.
        self.reserved = socket.socket()
        self.reserved.bind(("127.0.0.1", 0))
        self.reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.port = self.reserved.getsockname()[1]
        own = {
            "APP_RELEASE": str(self.release), "APP_LOG": str(self.log), "APP_BROKEN": str(self.broken),
            "UNIT_APP_DIR": str(folder / "board"), "UNITD_UNIT": "cart:0", "UNITD_GENERATION": "1",
        }  # fmt: skip
        command = [word.format(port=self.port) for word in COMMANDS[kind]]
        self.output = folder / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command], env={**os.environ, **own, **environment}, stdout=output, stderr=output
            )
        try:
            eventually(self._all_up, f"{kind} is up", 15)
        except AssertionError:
            self.stop()
            raise

    def _all_up(self) -> bool:
        with contextlib.suppress(OSError):
            return self.state()["processes"] >= PROCESSES[self.kind]
        return False

    def stop(self) -> None:
        self.release.touch()
        for client in self.clients:
            client.leave()
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reserved.close()

    def connect(self, source: str = "127.0.0.1") -> Client:
        self.clients.append(Client("127.0.0.1", self.port, timeout=10, source_address=(source, 0)))
        return self.clients[-1]

    def begin(self, path: str) -> Client:
        """A request that is on its way, and has been noted by the application."""
        before = len(self.noted(path))
        connection = self.connect()
        connection.request("GET", path)
        eventually(lambda: len(self.noted(path)) > before, f"{path} has come to the application")
        return connection

    def ask(self, method: str, path: str, **headers: str) -> tuple[int, dict]:
        connection = self.connect()
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.leave()
            self.clients.remove(connection)

    def state(self) -> dict:
        return self.ask("GET", "/-/in-flight")[1]

    def in_flight(self) -> int:
        return self.state()["in_flight"]

    def noted(self, word: str) -> list[int]:
        """The pids that noted the word."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == word]

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)


def is_closed(connection: Client, seconds: float = 10.0) -> bool:
    """The server closed it, and sent nothing more."""
    if connection.sock is None:  # http.client did as it was told by `Connection: close`
        return True
    connection.sock.settimeout(seconds)
    return connection.sock.recv(1) == b""


def refused_as_promised(answer: http.client.HTTPResponse) -> bool:
    """503 with all that a caller needs to go elsewhere."""
    value = json.loads(answer.read())
    return (
        answer.status == 503
        and answer.getheader("Connection", "").lower() == "close"
        and answer.getheader("Retry-After") == "1"
        and answer.getheader("Content-Type") == "application/problem+json"
        and value["status"] == 503
    )
