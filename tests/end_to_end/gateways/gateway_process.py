"""A real unit-gateway as a process of its own, with its folder and its port."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from tests.end_to_end.host import ROOT, Answer, Json
from tests.end_to_end.machine import DEADLINE_SECONDS, free_ports, until

UNIT_GATEWAY = (sys.executable, "-W", "error", "-c", "import sys; from gateway.boot import main; sys.exit(main())")


class GatewayProcess:
    """One unit-gateway on one configuration. `close` ends it and complains about what was left."""

    def __init__(self, name: str = "gw-1") -> None:
        self.name = name
        self.folder = Path(tempfile.mkdtemp(prefix="ug", dir="/tmp"))
        self.config = self.folder / "unit-gateway.toml"
        self.stderr = self.folder / "unit-gateway.err"
        self.port = free_ports(1)
        self.process: subprocess.Popen[bytes] | None = None
        self.expects_tracebacks = False

    def configure(self, feeders: str, *, registry_url: str, ttl_seconds: float = 2.0, more: str = "") -> None:
        """Write the configuration; `feeders` are the tables of the gateways, `more` follows."""
        self.config.write_text(
            f'name = "{self.name}"\n[gateway]\nstate_dir = "state"\nttl_seconds = {ttl_seconds}\nyoung_seconds = 3\n'
            f'[http]\nlisten = "127.0.0.1:{self.port}"\n'
            f'[registry]\nbackend = "http"\nurl = "{registry_url}"\n{feeders}\n{more}\n'
        )

    def run(self, *, wait: bool = True) -> None:
        """Start it, and wait until it is ready: every gateway has what it should have."""
        with open(self.stderr, "ab") as stderr:
            self.process = subprocess.Popen(
                [*UNIT_GATEWAY, "-c", str(self.config)], cwd=ROOT, env=os.environ.copy(), stdin=subprocess.DEVNULL,
                stdout=stderr, stderr=stderr,
            )  # fmt: skip
        if wait:
            self.until("it is ready", self._is_ready)

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"unit-gateway ended with {self.process.returncode}: {self.said()}"
        try:
            return self.ask("/readyz").status == 200
        except (OSError, HTTPException):
            return False

    def until(self, what: str, look: Callable[[], object]) -> object:
        """What `look` gives, once it is true; fails with what unit-gateway has logged."""
        try:
            return until(f"{self.name}: {what}", look)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said()[-4000:]}") from error

    def said(self) -> str:
        """Its own log."""
        return self.stderr.read_text(errors="replace") if self.stderr.exists() else ""

    def kill(self) -> None:
        """As power that fails."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(DEADLINE_SECONDS)

    def ask(self, path: str) -> Answer:
        """One request."""
        return ask(f"http://127.0.0.1:{self.port}", path)

    def pool(self, service: str) -> list[Json]:
        """Its servers of a service."""
        answer = self.ask(f"/v1/pools/{service}")
        return [] if answer.status == 404 else list(answer.json["servers"])

    def reports(self) -> list[Json]:
        """What it is telling the control center."""
        answer = self.ask("/v1/reports")
        assert answer.status == 200, answer
        return list(answer.json["reports"])

    def close(self) -> None:
        """End it as its manager would."""
        complaints = []
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                if (code := self.process.wait(DEADLINE_SECONDS)) != 0:
                    complaints.append(f"unit-gateway ended with {code}")
            except subprocess.TimeoutExpired:
                complaints.append(f"unit-gateway did not end within {DEADLINE_SECONDS:g} s")
                self.process.kill()
                self.process.wait()
        said = self.said()
        if not self.expects_tracebacks and ("Traceback" in said or "never retrieved" in said):
            complaints.append("unit-gateway logged a traceback")
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not complaints, "; ".join(complaints) + f"\n{said[-8000:]}"


def ask(url: str, path: str) -> Answer:
    """A GET."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=DEADLINE_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return Answer(response.status, response.read())
    finally:
        connection.close()


def names_of(servers: list[Json]) -> dict[str, int]:
    """Instance -> generation, of a pool's servers or a registry's entries."""
    return {server["instance"]: server["generation"] for server in servers}
