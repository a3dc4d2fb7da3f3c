"""A private host for one scenario: a real unitd as a process of its own, its folder, its ports, and what it leaves.

Everything that the daemon starts inherits the host's marker in its environment; that is how leftovers are found.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from tests.end_to_end.machine import (
    CGROUPS,
    DEADLINE_SECONDS,
    POLL_SECONDS,
    command_of,
    free_ports,
    kill,
    listening_ports,
    marked,
    remove_cgroup,
    sessions,
    state_of,
    until,
)

MARKER = "UNITD_SCENARIO"
UNITD = (sys.executable, "-W", "error", "-c", "import sys; from supervisor.boot import main; sys.exit(main())")  # fmt: skip
UNITCTL = (sys.executable, "-W", "error", "-c", "from supervisor.unitctl.main import main; main()")
SERVE = f"{sys.executable} -S {Path(__file__).with_name('serve.py')}"  # a small server, see there
ROOT = Path(__file__).parents[2]

Json = Any


class UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Instead of TCP."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Answer:
    """What the daemon answered."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status, self.body = status, body

    @property
    def json(self) -> Json:
        """The body's value."""
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"{self.status} {self.body[:2000]!r}"


class Host:
    """One unitd on one configuration. `close` ends everything and complains about what was left."""

    def __init__(self, cgroup: str = "off") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ue", dir="/tmp"))  # short: a socket's path has 107 bytes
        self.folder.chmod(0o755)
        self.marker = f"{MARKER}={uuid4().hex}"
        self.cgroup = cgroup
        self.cgroup_folder = self._make_cgroup() if cgroup == "auto" else None
        self.config = self.folder / "unitd.toml"
        self.socket = str(self.folder / "s")
        self.ports: list[int] = []
        self.daemon: subprocess.Popen[bytes] | None = None
        self._leaders: dict[int, str] = {}  # pids that the daemon has named, and of which unit they were
        self.stderr = self.folder / "unitd.err"
        self.expects_tracebacks = False

    def _make_cgroup(self) -> Path:
        """One for the daemon alone, as a service manager would give it."""
        assert CGROUPS is not None
        folder = CGROUPS / f"scenario-{uuid4().hex[:8]}"
        folder.mkdir()
        if os.path.exists("/run/systemd/system"):
            os.setxattr(folder, "trusted.delegate", b"1")
        return folder

    def port(self, count: int = 1) -> int:
        """A free TCP port, or the first of several neighbours."""
        first = free_ports(count)
        self.ports.extend(range(first, first + count))
        return first

    def file(self, name: str, text: str, mode: int = 0o644) -> Path:
        """A file in the host's folder."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return path

    # The daemon.

    def configure(
        self, units: str, *, registry: str = "", http: str = "", node: str = "here", **daemon: object
    ) -> None:
        """Write the configuration; keywords become keys of [daemon]."""
        own: dict[str, object] = {"socket": "s", "state_dir": "state", "log_dir": "log", "socket_group": "",
                                  "cgroup": self.cgroup, **daemon}  # fmt: skip
        lines = [f'node = "{node}"', *(f"daemon.{key} = {json.dumps(value)}" for key, value in own.items())]
        if registry:
            lines.append(f"registry = {{ {registry} }}")
        if http:
            lines.append(f'http.listen = "{http}"')
        new = self.config.with_suffix(".new")
        new.write_text("\n".join([*lines, units]))
        new.rename(self.config)
        (self.folder / "log").mkdir(exist_ok=True)

    def run(
        self,
        *,
        wait: bool = True,
        before_exec: Callable[[], object] | None = None,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = UNITD,
    ) -> None:
        """Start the daemon, and wait until it is ready."""
        name, _, value = self.marker.partition("=")
        procs = None if self.cgroup_folder is None else self.cgroup_folder / "cgroup.procs"

        def prepare() -> None:
            if procs is not None:
                procs.write_text("0")
            if before_exec is not None:
                before_exec()

        with open(self.stderr, "ab") as stderr:
            self.daemon = subprocess.Popen(
                [*program, "-c", str(self.config)],
                cwd=ROOT,
                env={**os.environ, name: value, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                preexec_fn=prepare,  # noqa: PLW1509 - it only makes system calls
            )
        if wait:
            until("the daemon is ready", self._is_ready)

    def _is_ready(self) -> bool:
        assert self.daemon is not None
        assert self.daemon.poll() is None, f"unitd ended with {self.daemon.returncode}: {self.said()}"
        try:
            return self.ask("GET", "/readyz").status == 200
        except OSError:
            return False

    def said(self) -> str:
        """The daemon's own log."""
        return self.stderr.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The daemon's."""
        assert self.daemon is not None
        return self.daemon.pid

    def signal(self, number: int) -> None:
        """Send the daemon a signal."""
        os.kill(self.pid, number)

    def wait(self, seconds: float = DEADLINE_SECONDS) -> int:
        """The daemon's exit code, once it has ended."""
        assert self.daemon is not None
        return self.daemon.wait(seconds)

    def stop(self, seconds: float = DEADLINE_SECONDS) -> None:
        """Stop all units and the daemon, in order."""
        self.signal(signal.SIGTERM)
        assert self.wait(seconds) == 0, self.said()

    # Its API.

    def connection(self, timeout: float = DEADLINE_SECONDS) -> HTTPConnection:
        """To the daemon's unix socket."""
        return UnixConnection(self.socket, timeout)

    def ask(self, method: str, path: str, body: Json = None, timeout: float = DEADLINE_SECONDS) -> Answer:
        """One request."""
        connection = self.connection(timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return Answer(response.status, response.read())
        finally:
            connection.close()

    def unit(self, name: str) -> Json:
        """The status of a unit."""
        answer = self.ask("GET", f"/v1/units/{quote(name, safe='')}")
        assert answer.status == 200, answer
        return self._seen(answer.json)

    def units(self) -> dict[str, Json]:
        """All of them by name."""
        return {status["unit"]: self._seen(status) for status in self.ask("GET", "/v1/units").json["units"]}

    def _seen(self, status: Json) -> Json:
        if status["pid"] is not None:
            self._leaders[status["pid"]] = status["unit"]
        return status

    def pids(self) -> dict[str, int | None]:
        """The leading process of every unit."""
        return {name: status["pid"] for name, status in self.units().items()}

    def order(self, verb: str, pattern: str, **parameters: object) -> list[Json]:
        """Give an order and do not wait; its operations."""
        path = f"/v1/units/{quote(pattern, safe='')}/{verb}"
        answer = self.ask("POST", path, {"parameters": parameters})
        assert answer.status == 202, answer
        return list(answer.json["operations"])

    def finish(self, operations: list[Json], seconds: float = DEADLINE_SECONDS) -> list[Json]:
        """The operations as they have ended."""
        deadline = time.monotonic() + seconds
        ended = []
        for operation in operations:
            left = max(0.0, deadline - time.monotonic())
            answer = self.ask("GET", f"/v1/operations/{operation['id']}?wait={left:.2f}", timeout=left + 5)
            assert answer.json["finished"] is not None, f"not within {seconds:g} s: {answer}"
            ended.append(answer.json)
        return ended

    def do(self, verb: str, pattern: str, **parameters: object) -> list[Json]:
        """Give an order that must succeed, and wait for it."""
        ended = self.finish(self.order(verb, pattern, **parameters))
        assert all(operation["state"] == "succeeded" for operation in ended), ended
        return ended

    def until_state(self, name: str, state: str, seconds: float = DEADLINE_SECONDS) -> Json:
        """The unit's status, once it is in that state."""
        deadline = time.monotonic() + seconds
        while True:
            status = self.unit(name)
            if status["state"] == state:
                return status
            assert time.monotonic() < deadline, f"{name} is not {state} within {seconds:g} s: {status}"
            time.sleep(POLL_SECONDS)

    def until_registered(self, name: str, after: int = 0, seconds: float = DEADLINE_SECONDS) -> Json:
        """The unit's registry entry, once there is one of a generation above `after`."""
        status = self.unit(name)

        def look() -> Json:
            entry = self.entry(status["service"], name)
            return entry if entry is not None and entry["generation"] > after else None

        return until(f"{name} is registered", look, seconds)

    def entry(self, service: str, unit: str) -> Json:
        """The registry's entry of a unit; None: there is none."""
        entries = self.entries(service)
        return next((entry for entry in entries if entry["unit"] == unit), None)

    def entries(self, service: str) -> list[Json]:
        """All of a service."""
        answer = self.ask("GET", f"/v1/registry/services/{service}")
        assert answer.status == 200, answer
        return list(answer.json["entries"])

    def unitctl(self, *arguments: str, seconds: float = DEADLINE_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run unitctl on this daemon."""
        return subprocess.run(
            [*UNITCTL, "--server", f"unix://{self.socket}", *arguments],
            cwd=ROOT, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip

    # What is there.

    def processes(self, unit: str | None = None, generation: int | None = None) -> set[int]:
        """What lives of all units, of one, or of one attempt of one; never the daemon itself.

        Some programs write over their environment. They are found by their session if their leader was seen; of which
        attempt they are cannot be said.
        """
        words = [self.marker]
        if unit is not None:
            words.append(f"UNITD_UNIT={unit}")
        if generation is not None:
            words.append(f"UNITD_GENERATION={generation}")
        found = marked(*words)
        if generation is None:
            leaders = {pid for pid, name in self._leaders.items() if unit in (None, name)}
            found |= {pid for pid, session in sessions() if session in leaders}
        return found - ({self.daemon.pid} if self.daemon is not None else set())

    def cgroups(self) -> list[str]:
        """The cgroups of units."""
        if self.cgroup_folder is None:
            return []
        return sorted(entry.name for entry in self.cgroup_folder.glob("unitd-*/*/") if entry.name != "daemon")

    def zombies(self) -> list[int]:
        """Children of the daemon that it has not reaped."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(child) for child in children if state_of(int(child)) == "Z"]

    def close(self) -> None:
        """End the daemon as its manager would; then nothing may be left."""
        complaints = list(self._end_daemon())
        complaints += [f"process {pid} is left: {command_of(pid)}" for pid in self.processes()]
        kill(self.processes())
        left = listening_ports().intersection(self.ports)
        complaints += [f"port {port} is listened on" for port in sorted(left)]
        if self.cgroup_folder is not None:
            complaints += [f"cgroup {left} is left" for left in self.cgroup_folder.glob("*/")]
            remove_cgroup(self.cgroup_folder)
        said = self.said() if self.stderr.exists() else ""
        if "Traceback" in said and not self.expects_tracebacks:
            complaints.append("the daemon logged a traceback")
        if Path(self.socket).exists() and not complaints:
            complaints.append("the daemon left its socket")
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not complaints, "; ".join(complaints) + f"\n{said[-8000:]}"

    def _end_daemon(self) -> Iterator[str]:
        if self.daemon is None or self.daemon.poll() is not None:
            return
        self.daemon.terminate()
        try:
            code = self.daemon.wait(DEADLINE_SECONDS)
            if code != 0:
                yield f"unitd ended with {code}"
        except subprocess.TimeoutExpired:
            yield f"unitd did not end within {DEADLINE_SECONDS:g} s"
            self.daemon.kill()
            self.daemon.wait()
