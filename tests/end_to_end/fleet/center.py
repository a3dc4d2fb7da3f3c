"""A real unit-center as a process of its own, with its folder and its port."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.end_to_end.host import ROOT, Answer, Json
from tests.end_to_end.machine import DEADLINE_SECONDS, POLL_SECONDS, free_ports, until

UNIT_CENTER = (
    sys.executable,
    "-W",
    "error",
    "-c",
    "import sys; from control_center.boot import main; sys.exit(main())",
)
OPERATION_SECONDS = 90.0


class Center:
    """One unit-center on one configuration. `close` ends it and complains about what was left."""

    def __init__(self, name: str = "center-1", *, ttl_seconds: float = 1.0) -> None:
        self.name, self.ttl_seconds = name, ttl_seconds
        self.folder = Path(tempfile.mkdtemp(prefix="uc", dir="/tmp"))
        self.config = self.folder / "unit-center.toml"
        self.stderr = self.folder / "unit-center.err"
        self.port = free_ports(1)
        self.token: str | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.expects_tracebacks = False

    @property
    def url(self) -> str:
        """Where its API is."""
        return f"http://127.0.0.1:{self.port}"

    def configure(self, *, registry: str = "", center: str = "", more: str = "") -> None:
        """Write the configuration; `registry` and `center` are lines of these tables, `more` follows."""
        registry = registry or f'backend = "embedded"\nttl_seconds = {self.ttl_seconds}'
        lines = [f'name = "{self.name}"', "[center]", 'state_dir = "state"', center, "[http]"]
        lines += [f'listen = "127.0.0.1:{self.port}"', "[registry]", registry, more]
        self.config.write_text("\n".join(lines))

    def run(self, *, wait: bool = True) -> None:
        """Start it, and wait until it is ready."""
        with open(self.stderr, "ab") as stderr:
            self.process = subprocess.Popen(
                [*UNIT_CENTER, "-c", str(self.config)], cwd=ROOT, env=os.environ.copy(), stdin=subprocess.DEVNULL,
                stdout=stderr, stderr=stderr,
            )  # fmt: skip
        if wait:
            until(f"{self.name} is ready", self._is_ready)

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"unit-center ended with {self.process.returncode}: {self.said()}"
        try:
            return self.ask("GET", "/readyz").status == 200
        except (OSError, HTTPException):
            return False

    def said(self) -> str:
        """Its own log."""
        return self.stderr.read_text(errors="replace") if self.stderr.exists() else ""

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """As power that fails."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(DEADLINE_SECONDS)

    # Its API.

    def ask(self, method: str, path: str, body: Json = None, timeout: float = DEADLINE_SECONDS) -> Answer:
        """One request."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return Answer(response.status, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Json:
        """What is there."""
        answer = self.ask("GET", path)
        assert answer.status == 200, answer
        return answer.json

    def begin(self, verb: str, selection: dict[str, Any], **more: Any) -> Json:
        """Begin an operation that must be accepted."""
        answer = self.ask("POST", "/v1/operations", {"verb": verb, "selection": selection, "reason": "a test", **more})
        assert answer.status == 202, answer
        return answer.json

    def operation(self, id_: str) -> Json:
        """As it is now; also while the center is being started again."""
        return self.get(f"/v1/operations/{id_}")

    def follow(self, id_: str, seconds: float = OPERATION_SECONDS) -> Json:
        """The operation as it has ended; the center may be away meanwhile."""
        deadline, last = time.monotonic() + seconds, None
        while time.monotonic() < deadline:
            try:
                last = self.ask("GET", f"/v1/operations/{id_}?wait=5", timeout=10).json
            except (OSError, HTTPException):
                time.sleep(POLL_SECONDS * 5)
                continue
            if last["finished"] is not None:
                return last
        raise AssertionError(f"{id_} has not ended within {seconds:g} s: {last}\n{self.said()[-4000:]}")

    def do(self, verb: str, selection: dict[str, Any], **more: Any) -> Json:
        """An operation that must succeed."""
        ended = self.follow(self.begin(verb, selection, **more)["id"])
        assert ended["state"] == "succeeded", explain(ended)
        return ended

    def until_operation(self, id_: str, what: str, look: Any, seconds: float = OPERATION_SECONDS) -> Json:
        """The operation as soon as `look` is true of it."""

        def there() -> Json:
            operation = self.operation(id_)
            return operation if look(operation) else None

        return until(f"{id_}: {what}", there, seconds)

    def entries(self, service: str) -> list[Json]:
        """What the registry lists of a service, as the center shows it."""
        answer = self.ask("GET", f"/v1/services/{quote(service)}")
        return [] if answer.status == 404 else list(answer.json["entries"])

    def decisions(self, **query: str) -> list[Json]:
        """The newest first."""
        words = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        return list(self.get(f"/v1/decisions?{words}")["decisions"])

    def close(self) -> None:
        """End it as its manager would; then nothing may be left."""
        complaints = []
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                if (code := self.process.wait(DEADLINE_SECONDS)) != 0:
                    complaints.append(f"unit-center ended with {code}")
            except subprocess.TimeoutExpired:
                complaints.append(f"unit-center did not end within {DEADLINE_SECONDS:g} s")
                self.process.kill()
                self.process.wait()
        said = self.said()
        if not self.expects_tracebacks and ("Traceback" in said or "never retrieved" in said):
            complaints.append("unit-center logged a traceback")
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not complaints, "; ".join(complaints) + f"\n{said[-8000:]}"


def explain(operation: Json) -> str:
    """Why an operation is as it is."""
    targets = "\n".join(
        f"  {target['instance']}: {target['state']} {target['steps']} {target['detail']}"
        for target in operation.get("targets", ())
    )
    return f"{operation['id']} {operation['state']}: {operation['error'] or operation['waiting_for']}\n{targets}"
