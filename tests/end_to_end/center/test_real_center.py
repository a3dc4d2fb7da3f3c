"""A real control center and a real daemon that fetches its commands from it, both killed in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.host import ROOT, SERVE, Host
from tests.end_to_end.machine import free_ports, until

CENTER = (sys.executable, "-W", "error", "-c", "import sys; from control_center.boot import main; sys.exit(main())")
Json = Any


class Center:
    """A unit-center that hosts the registry, as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.port, self.folder = free_ports(1), folder
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "center.toml").write_text(
            f'name = "center"\ncenter.state_dir = "{folder}/state"\nhttp.listen = "127.0.0.1:{self.port}"\n'
            "registry.ttl_seconds = 1\nnodes = { heartbeat_seconds = 0.5, timeout_seconds = 1 }\n"
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self) -> None:
        with (self.folder / "center.err").open("ab") as stderr:
            self.process = subprocess.Popen(
                [*CENTER, "-c", str(self.folder / "center.toml")], cwd=ROOT, stdout=stderr, stderr=stderr
            )
        until("the center is ready", self._is_ready)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def ask(self, method: str, path: str, body: Json = None) -> tuple[int, Json]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text.startswith(b"{") else text
        finally:
            connection.close()

    def said(self) -> str:
        return (self.folder / "center.err").read_text()

    def _is_ready(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.said()
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False


@pytest.fixture
def center(tmp_path: Path) -> Iterator[Center]:
    made = Center(tmp_path)
    made.run()
    yield made
    assert made.process is not None
    made.process.terminate()
    assert made.process.wait(10) == 0, made.said()


def _run(host: Host, center: Center, ends_in: float = 0.0) -> None:
    port = host.port()
    host.configure(
        f'[center]\nurl = "{center.url}"\n[unit.web]\ncommand = "{SERVE} {port} /dev/null 0 {ends_in}"\n'
        f"startsecs = 0.05\nservice = {{ port = {port}, ttl_seconds = 1 }}\n"
        'restart = { settle_seconds = 0.05, removal = "deregister" }\ndrain = { timeout = 0.1, quiet = 0.05 }\n',
        registry=f'backend = "http", url = "{center.url}", ttl_seconds = 1',
    )
    host.run()
    until("the center knows the unit", lambda: _services(center).get("web", {}).get("up"))
    until("the center knows the node", lambda: center.ask("GET", "/v1/nodes/here")[1].get("state") == "up")


def _services(center: Center) -> dict[str, Json]:
    return {item["service"]: item for item in center.ask("GET", "/v1/services")[1]["services"]}


def _restart(center: Center) -> str:
    body = {"verb": "restart", "selection": {"services": ["web"]}, "strategy": None, "reason": "a test"}
    status, operation = center.ask("POST", "/v1/operations", body)
    assert status == 202, operation
    return str(operation["id"])


def _ended(center: Center, id_: str) -> Json:
    def look() -> Json:
        operation = center.ask("GET", f"/v1/operations/{id_}")[1]
        return operation if operation.get("finished") else None

    return until("the operation of the fleet has ended", look)


def test_an_operation_of_the_fleet_reaches_a_node_that_fetches(center: Center, host: Host) -> None:
    _run(host, center)
    status = center.ask("GET", "/v1/nodes/here")[1]
    assert (status["via"], status["units"]) == ("pull", 1)
    assert [each["unit"] for each in center.ask("GET", "/v1/nodes/here/units")[1]["units"]] == ["web"]
    operation = _ended(center, _restart(center))
    assert operation["state"] == "succeeded", operation
    assert host.unit("web")["generation"] == 2


@pytest.mark.parametrize("who", ["the center", "the daemon"])
def test_whoever_is_killed_in_the_middle_the_command_is_carried_out_once(center: Center, host: Host, who: str) -> None:
    _run(host, center, ends_in=0.5)
    id_ = _restart(center)
    until("the node has begun", lambda: host.unit("web")["operation"])
    if who == "the center":
        center.kill()
        center.run()
    else:
        host.signal(signal.SIGKILL)
        host.wait()
        host.run()
    operation = _ended(center, id_)
    assert operation["state"] == "succeeded", (operation, center.said())
    assert host.unit("web")["generation"] == 2
    command_id = operation["targets"][0]["command_id"]
    assert len(host.ask("GET", f"/v1/operations?command_id={command_id}").json["operations"]) == 1
