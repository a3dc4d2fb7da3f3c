"""The real program: what it does with its arguments, and with a service manager."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gateway.memory import FILE
from registry_client.gateways import GATEWAY_SERVICE
from tests.end_to_end.host import ROOT
from tests.end_to_end.machine import DEADLINE_SECONDS, free_ports
from tests.end_to_end.machine import until as wait_until
from tests.registry_client.serving import ServedRegistry, make_entry

PROGRAM = (sys.executable, "-W", "error", "-c", "import sys; from gateway.boot import main; sys.exit(main())")


@pytest.fixture
def registry() -> Iterator[ServedRegistry]:
    with ServedRegistry() as served:
        yield served


def ask(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


class _Unit(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b"the unit"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def unit() -> Iterator[int]:
    """The port of a small unit."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _Unit)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield httpd.server_address[1]
    httpd.shutdown()
    httpd.server_close()
    thread.join()


class Process:
    """The real program with these arguments."""

    def __init__(self, log: Path, *words: str, **environment: str) -> None:
        self.log = log
        with open(log, "ab") as stderr:
            self.process = subprocess.Popen(
                [*PROGRAM, *words], cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=stderr,
                stderr=stderr,
            )  # fmt: skip

    def until(self, what: str, look: Callable[[], Any]) -> Any:
        def there() -> Any:
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.said()}"
            try:
                return look()
            except (OSError, HTTPException):
                return False

        return wait_until(f"{what}; it said: {self.said()}", there)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_SECONDS)


@contextmanager
def running(log: Path, *words: str, **environment: str) -> Iterator[Process]:
    started = Process(log, *words, **environment)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()
    assert "Traceback" not in started.said() and "never retrieved" not in started.said(), started.said()


def settings(folder: Path, registry: str, api: int, listen: int) -> str:
    path = folder / "unit-gateway.toml"
    path.write_text(
        f'name = "gw-1"\n[gateway]\nstate_dir = "state"\nttl_seconds = 1\n[http]\nlisten = "127.0.0.1:{api}"\n'
        f'[registry]\nbackend = "http"\nurl = "{registry}"\n'
        f'[proxy.shop]\nlisten = "127.0.0.1:{listen}"\nroutes = [{{ service = "cart" }}]\n'
    )
    return str(path)


def test_serve_is_a_gateway_without_a_file(registry: ServedRegistry, unit: int, tmp_path: Path) -> None:
    registry.register(make_entry("n/1", "cart", port=unit))
    listen, api = free_ports(1), free_ports(1)
    words = ("--registry", registry.url, "--listen", f"127.0.0.1:{listen}", "--service", "cart", "--name", "gw-9")
    with running(tmp_path / "log", "serve", *words, "--api", f"127.0.0.1:{api}") as process:
        process.until("a request goes through", lambda: ask(listen, "/") == (200, "the unit"))
        process.until("it is ready", lambda: ask(api, "/readyz")[0] == 200)
        ours = make_entry("gw-9.serve/cart", GATEWAY_SERVICE)
        process.until("it is said", lambda: registry.get(ours))
        assert process.end() == 0
        assert registry.get(ours) is None
        with pytest.raises(OSError):
            ask(listen, "/")


def test_the_service_manager_is_told_and_the_last_good_set_survives(
    registry: ServedRegistry, unit: int, tmp_path: Path
) -> None:
    """Started, killed, and started again while the registry is away: requests go through from the beginning."""
    registry.register(make_entry("n/1", "cart", port=unit))
    listen, api = free_ports(1), free_ports(1)
    path = settings(tmp_path, registry.url, api, listen)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(DEADLINE_SECONDS)
        with running(tmp_path / "log", "-c", path, NOTIFY_SOCKET=str(tmp_path / "notify")) as process:
            assert manager.recv(100) == b"READY=1"
            assert ask(listen, "/") == (200, "the unit"), "ready means that gateways have been told"
            process.until("it is saved", (tmp_path / "state" / FILE).exists)
            second = subprocess.run(
                [*PROGRAM, "-c", path], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
            )
            assert second.returncode == 1 and f"(pid {process.process.pid}); stop it, or give" in second.stderr
            process.process.kill()
            process.process.wait()
        registry.deafen()
        with running(tmp_path / "log", "-c", path, NOTIFY_SOCKET=str(tmp_path / "notify")) as process:
            assert manager.recv(100) == b"READY=1"
            assert ask(listen, "/") == (200, "the unit")
            assert json.loads(ask(api, "/v1/pools")[1])["registry"]["state"] == "unknown"
            assert process.end(signal.SIGINT) == 0
            assert manager.recv(100) == b"STOPPING=1"


def test_serve_with_a_file_needs_an_embedded_gateway_in_it(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    path.write_text(
        '[registry]\nbackend = "http"\nurl = "http://127.0.0.1:1"\n[haproxy.edge]\nsocket = "/run/h.sock"\n'
    )
    assert said("serve", "-c", str(path)) == (
        2, f"unit-gateway: {path}: there is no embedded gateway to run: write [proxy.NAME]\n",
    )  # fmt: skip
    assert said("-c", str(path), "--check") == (0, f"{path}: no mistakes\n")


def said(*words: str) -> tuple[int, str]:
    ended = subprocess.run(
        [*PROGRAM, *words], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_mistakes_are_told_with_file_line_and_key(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    path.write_text('[registry]\nbackend = "htp"\n[haproxy.edge]\nsockets = "x"\n[gateway]\nresync = 1\n')
    code, text = said("-c", str(path))
    assert code == 2 and "Traceback" not in text
    assert f"unit-gateway: {path}:2: registry.backend: " in text
    assert f"unit-gateway: {path}:4: haproxy.edge.sockets: unknown key; did you mean socket?" in text
    assert f"unit-gateway: {path}:6: gateway.resync: unknown key; did you mean resync_seconds?" in text


def test_a_listening_port_that_is_taken_ends_it_with_a_reason(registry: ServedRegistry, tmp_path: Path) -> None:
    code, text = said(
        "serve", "--registry", registry.url, "--listen", f"127.0.0.1:{registry.port}", "--service", "cart"
    )  # fmt: skip
    assert code == 1 and f"127.0.0.1:{registry.port}" in text and "Traceback" not in text


@pytest.mark.parametrize("package", ["aiohttp", "prometheus_client"])
def test_a_package_that_is_missing_is_named_with_its_extra(package: str) -> None:
    program = f"import sys; sys.modules['{package}'] = None; from gateway.boot import main; sys.exit(main())"
    words = ("serve", "--registry", "http://127.0.0.1:1", "--listen", "127.0.0.1:1", "--service", "cart")
    ended = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=DEADLINE_SECONDS,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr == f"unit-gateway: cannot run: the package {package} is missing; install unitd[gateway]\n"


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--help",), 0, "unit-gateway serve [-c FILE]"),
        (("serve", "--help"), 0, "unit-gateway serve [-c FILE]"),
        (("--version",), 0, "unit-gateway "),
        (("-c", "/nowhere/g.toml"), 2, "/nowhere/g.toml: cannot read it: No such file or directory"),
        (("--listen", "127.0.0.1:1"), 2, "option --listen not recognized; see unit-gateway --help"),
        (("srve",), 2, "cannot use 'srve': unit-gateway takes no arguments"),
        (("serve", "--service", "cart"), 2, "serve without a file needs --registry, --listen and --service"),
        (("serve", "-c", "/x", "--service", "cart"), 2, "--service is for `serve` without a file"),
        (
            ("serve", "--service", "cart", "--registry", "http://127.0.0.1:1", "--listen", "x"),
            2,
            "--listen: must be an IP address and a port",
        ),
    ],
)
def test_arguments_are_judged(words: tuple[str, ...], code: int, text: str) -> None:
    ended, output = said(*words)
    assert ended == code and text in output and "Traceback" not in output
