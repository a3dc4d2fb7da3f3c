"""A daemon that speaks the control API over a unix socket and does what a test tells it, and `unitctl` as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest

DEADLINE_SECONDS = 15.0
Raw = dict[str, Any]
UNITCTL = [sys.executable, "-c", "from supervisor.unitctl.main import main; main()"]
EVENT = "2026-11-24T03:41:46.123Z"


class Request:
    """What the daemon was asked."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method
        self.path, _, query = target.partition("?")
        self.query = dict(parse_qsl(query, keep_blank_values=True))
        self.headers, self.body = headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


Answer = tuple[int, Any]  # status; a JSON value, bytes, or an iterator of chunks
Route = Callable[[Request], Answer]


class FakeDaemon:
    """Units and operations in memory. Operations end at once, or with `hold()` when `finish()` is called."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.units: dict[str, Raw] = {}
        self.operations: dict[str, Raw] = {}
        self.requests: list[Request] = []
        self.connections = 0
        self.routes: dict[tuple[str, str], Route] = {}  # answers that differ from the usual ones
        self.held = False
        self.changed = threading.Condition()
        self.server: _Server | None = None
        self._numbers = 0

    # Life.

    def start(self) -> None:
        self.server = _Server(self)
        threading.Thread(target=self.server.serve_forever, args=(0.02,)).start()

    def stop(self) -> None:
        """End as a killed daemon does: its connections break, its socket file stays."""
        server, self.server = self.server, None
        if server is not None:
            with self.changed:
                self.changed.notify_all()
            server.shutdown()
            server.cut_all()
            server.server_close()

    # What a test sets.

    def add(self, name: str, state: str = "RUNNING", **more: Any) -> Raw:
        up = state not in ("STOPPED", "EXITED", "FATAL", "BACKOFF")
        self.units[name] = {
            "unit": name, "service": None, "state": state, "wanted": "up" if up else "down",
            "phase": state.lower(), "ready": state == "RUNNING", "live": up,
            "pid": 4000 + len(self.units) if up else None, "generation": 7,
            "uptime_seconds": 125.0 if up else None, "weight": None, "full_weight": None, "lease": None,
            "in_flight": None, "restarts": 0, "last_exit": None, "operation": None, "why": "",
            "warmup": None, "probes": [], "maintenance": None, "leases": [], **more,
        }  # fmt: skip
        return self.units[name]

    def problem(self, method: str, path: str, status: int, detail: str, **more: Any) -> None:
        self.routes[method, path] = lambda _: (
            status,
            {"title": "t", "status": status, "detail": detail, **more},
        )

    def hold(self) -> None:
        self.held = True

    def step(self, id_: str, name: str, detail: str = "", state: str = "running") -> None:
        """An operation enters a step."""
        with self.changed:
            operation = self.operations[id_]
            operation["state"] = "running"
            for step in operation["steps"]:
                step["state"], step["finished"] = "succeeded", "2026-11-24T03:41:48.000Z"
            operation["steps"].append(
                {"name": name, "state": state, "started": EVENT, "finished": None, "detail": detail}
            )

    def finish(self, id_: str, state: str = "succeeded", error: str | None = None) -> None:
        with self.changed:
            operation = self.operations[id_]
            for step in operation["steps"]:
                step["state"] = "succeeded" if step["state"] == "running" else step["state"]
            if not operation["steps"]:
                operation["steps"].append(
                    {"name": "spawn", "state": state, "started": EVENT, "finished": EVENT, "detail": ""}
                )
            operation.update(state=state, error=error, finished=EVENT)
            self.changed.notify_all()

    def operation(self, unit: str, verb: str = "restart", command_id: str = "c", **more: Any) -> Raw:
        self._numbers += 1
        made = {
            "id": f"op-{self._numbers}", "command_id": command_id, "unit": unit, "verb": verb, "state": "pending",
            "steps": [], "error": None, "reason": "", "issued_by": "alice", "created": EVENT, "finished": None,
            "deadline": None, "cut": None, **more,
        }  # fmt: skip
        self.operations[made["id"]] = made
        return made

    # What a test waits for.

    def wait_for(self, method: str, path: str, count: int = 1) -> Request:
        """The `count`th request of that kind, once it has come."""
        with self.changed:
            found = self.changed.wait_for(lambda: len(self._asked(method, path)) >= count, DEADLINE_SECONDS)
            assert found, [(item.method, item.path) for item in self.requests]
            return self._asked(method, path)[count - 1]

    def _asked(self, method: str, path: str) -> list[Request]:
        return [item for item in self.requests if item.method == method and re.fullmatch(path, item.path)]

    # Answers.

    def answer(self, request: Request) -> Answer:
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()
        route = self.routes.get((request.method, request.path)) or self.routes.get(("*", request.path))
        if route is not None:
            return route(request)
        for method, pattern, handler in _ROUTES:
            match = re.fullmatch(pattern, request.path)
            if match and method == request.method:
                return handler(self, request, *map(unquote, match.groups()))
        return 404, {"title": "Not Found", "status": 404, "detail": f"there is nothing at {request.path}"}

    def _select(self, patterns: str) -> list[str] | None:
        found: dict[str, None] = {}
        for pattern in patterns.split(","):
            names = [
                name
                for name in self.units
                if pattern in (name, "all", name.partition(":")[0]) or fnmatchcase(name, pattern)
            ]
            if not names:
                return None
            found.update(dict.fromkeys(names))
        return list(found)

    def _unknown(self, patterns: str) -> Answer:
        detail = f"no unit is called {patterns.rpartition(',')[2]}"
        return 404, {
            "title": "Not Found",
            "status": 404,
            "detail": detail,
            "nearest": next(iter(self.units), None),
        }

    def list_units(self, request: Request) -> Answer:
        names = self._select(request.query.get("names", "all")) if self.units else []
        if names is None:
            return self._unknown(request.query["names"])
        return 200, {"units": [self.units[name] for name in names]}

    def command(self, request: Request, patterns: str, verb: str) -> Answer:
        names = self._select(patterns)
        if names is None:
            return self._unknown(patterns)
        made = [self.operation(name, verb, request.json["command_id"]) for name in names]
        for operation in made:
            if not self.held:
                self.finish(operation["id"])
        return 202, {"operations": made}

    def mark(self, request: Request, patterns: str, verb: str) -> Answer:
        names = self._select(patterns)
        return self._unknown(patterns) if names is None else (200, {"units": names})

    def list_operations(self, request: Request) -> Answer:
        command_id = request.query.get("command_id")
        found = [item for item in self.operations.values() if command_id is None or item["command_id"] == command_id]
        if not found and command_id is not None:
            return 404, {"title": "Not Found", "status": 404, "detail": f"no command {command_id} is known"}
        self._wait(request, found)
        return 200, {"operations": found}

    def one_operation(self, request: Request, id_: str) -> Answer:
        if id_ not in self.operations:
            return 404, {"title": "Not Found", "status": 404, "detail": f"no operation {id_} is known"}
        self._wait(request, [self.operations[id_]])
        return 200, self.operations[id_]

    def _wait(self, request: Request, operations: list[Raw]) -> None:
        server = self.server
        with self.changed:
            self.changed.wait_for(
                lambda: all(item["finished"] for item in operations) or self.server is not server,
                float(request.query.get("wait", "0")),
            )

    def abort(self, request: Request, id_: str) -> Answer:
        if self.operations[id_]["finished"]:
            return 409, {
                "title": "Conflict",
                "status": 409,
                "detail": f"cannot abort {id_}: it has succeeded already",
            }
        self.finish(id_, "aborted", "aborted")
        return 200, self.operations[id_]


_ROUTES: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
    ("GET", "/v1/units", FakeDaemon.list_units),
    ("POST", "/v1/units/([^/]+)/(start|stop|restart|signal|drain|undrain|warm|weight)", FakeDaemon.command),
    ("POST", "/v1/units/([^/]+)/(enable|disable)", FakeDaemon.mark),
    ("GET", "/v1/operations", FakeDaemon.list_operations),
    ("GET", "/v1/operations/([^/]+)", FakeDaemon.one_operation),
    ("POST", "/v1/operations/([^/]+)/abort", FakeDaemon.abort),
)


class _Server(socketserver.ThreadingUnixStreamServer):
    request_queue_size = 64

    def __init__(self, daemon: FakeDaemon) -> None:
        daemon.path.unlink(missing_ok=True)
        self.fake = daemon
        self.open: set[socket.socket] = set()
        super().__init__(str(daemon.path), _Handler)

    def cut_all(self) -> None:
        for connection in list(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)
        self.server.fake.connections += 1

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        with suppress(OSError):  # the client has gone
            super().finish()

    def handle(self) -> None:
        with suppress(OSError):
            super().handle()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, value = self.server.fake.answer(Request(self.command, self.path, headers, body))
        if self.server.fake.server is not self.server:  # killed while it was thinking
            self.close_connection = True
            return
        if isinstance(value, Iterator):
            self._stream(value)
        else:
            self._whole(status, value)

    do_POST = do_GET  # noqa: N815

    def _whole(self, status: int, value: Any) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, chunks: Iterator[bytes]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class Unitctl:
    """Runs `unitctl` as a process of its own against a daemon."""

    def __init__(self, socket_path: Path) -> None:
        self.environment = {
            "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "UNITCTL_SERVER": f"unix://{socket_path}",
            "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "error",
        }  # fmt: skip
        self.processes: list[subprocess.Popen[str]] = []

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.begin(*arguments, **environment)
        out, err = process.communicate(timeout=DEADLINE_SECONDS)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def begin(
        self,
        *arguments: str,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        **environment: str,
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*UNITCTL, *arguments],
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            errors="surrogateescape",
        )
        self.processes.append(process)
        return process

    def interrupt(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        """Press Ctrl-C; exit code, stdout, stderr."""
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_SECONDS)
        return process.returncode, out, err

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder whose path is short enough for a socket."""
    import shutil
    import tempfile

    path = Path(tempfile.mkdtemp(prefix="unitctl-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def daemon(folder: Path) -> Iterator[FakeDaemon]:
    """A daemon without units."""
    fake = FakeDaemon(folder / "unitd.sock")
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def unitctl(folder: Path) -> Iterator[Unitctl]:
    """`unitctl` that is led to the daemon by UNITCTL_SERVER, and that Ctrl-C reaches.

    Tests that were started in the background ignore SIGINT, and so would what they start; a signal with a handler
    is back at its default in a new program.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    program = Unitctl(folder / "unitd.sock")
    yield program
    program.close()
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Wait until something is true, up to the deadline."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it did not come true in time"
            time.sleep(0.01)

    return wait
