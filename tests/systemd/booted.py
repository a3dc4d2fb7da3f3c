"""A booted host with unitd installed as a package or an administrator would, and what looks at it from outside."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.systemd.container import PROJECT, SOURCE, Container, wait_for

REGISTRY_PORT = 9301
TTL_SECONDS = 5
UNITS = ("web:0", "web:1")
SYSTEM = "/etc/systemd/system"

_SCRIPT = """#!{python} -P
import sys
sys.path.insert(0, "{source}")
from {module} import main
sys.exit(main())
"""
_SCRIPTS = {"unitd": "supervisor.boot", "unitctl": "supervisor.unitctl.main", "unit-center": "control_center.boot"}

WEB = f"""
[unit.web]
command = "{sys.executable} {SOURCE}/tests/systemd/serve.py {{port}}"
numprocs = 2
[unit.web.service]
port = 9080
[unit.web.readiness]
http = "/"
period = 1
"""

# Stands for what brings the network up and takes it down.
NETWORK = """
[Unit]
Before=network.target
Wants=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/sh -c 'date +%%s.%%N > /shared/network-gone; ip link set lo down'
[Install]
WantedBy=multi-user.target
"""


def files(units: str = WEB, **more: str) -> dict[str, str]:
    """What an installation by hand puts on a host, and the units of a test."""
    found = {f"{SYSTEM}/{item.name}": item.read_text() for item in (PROJECT / "systemd").glob("*.service")}
    found["/usr/lib/sysusers.d/unitd.conf"] = (PROJECT / "systemd/sysusers.d/unitd.conf").read_text()
    found["/usr/lib/tmpfiles.d/unitd.conf"] = (PROJECT / "systemd/tmpfiles.d/unitd.conf").read_text()
    for name, module in _SCRIPTS.items():
        found[f"/opt/unitd/bin/{name}"] = _SCRIPT.format(python=sys.executable, source=SOURCE, module=module)
    packaged = (PROJECT / "etc/unitd.toml").read_text()
    head, _, tail = packaged.partition("[registry]")
    head = head.replace('# node = "web-7"', 'node = "host"')
    found["/etc/unitd/unitd.toml"] = head + _registry(tail)
    found["/etc/unitd/units.d/web.toml"] = units
    found[f"{SYSTEM}/net.service"] = NETWORK
    for name in ("net", "unitd"):
        found[f"{SYSTEM}/multi-user.target.wants/{name}.service"] = f"-> {SYSTEM}/{name}.service"
    return found | more


def _registry(text: str) -> str:
    """The packaged registry is inside of the daemon; here it is outside of the host."""
    _, _, rest = text.partition("[include]")
    return f'[registry]\nbackend = "http"\nurl = "http://127.0.0.1:{REGISTRY_PORT}"\nttl_seconds = {TTL_SECONDS}\n[include]{rest}'


@dataclass(frozen=True)
class Look:
    """What was seen from outside at a time."""

    at: float
    seen: dict[str, str]  # instance -> what its process answered
    trouble: str  # why the registry did not answer


class Booted:
    """The host, a registry outside of it, and somebody who follows that."""

    def __init__(self, folder: Path, given: dict[str, str]) -> None:
        self.container = Container(folder, given)
        self._looks = folder / "looks.txt"
        self._registry = self.container.start_outside(self._registry_command(folder), folder / "registry.txt")
        watch = [sys.executable, "-u", str(PROJECT / "tests/systemd/watch.py"), str(REGISTRY_PORT), "web"]
        self._watch = self.container.start_outside(watch, self._looks)

    def _registry_command(self, folder: Path) -> list[str]:
        path, state = folder / "registry.toml", folder / "registry"
        lines = ['node = "registry"', f'daemon.socket = "{state}/s"', f'daemon.state_dir = "{state}"']
        lines += [f'daemon.log_dir = "{state}"', 'daemon.socket_group = ""', 'daemon.cgroup = "off"']
        path.write_text("\n".join([*lines, f'http.listen = "127.0.0.1:{REGISTRY_PORT}"', ""]))
        program = "import sys; from supervisor.boot import main; sys.exit(main())"
        return [sys.executable, "-c", program, "-c", str(path)]

    def close(self) -> None:
        """End everything."""
        for process in (self._watch, self._registry):
            process.end()
        self.container.close()

    # The daemon.

    @property
    def daemon(self) -> int:
        """The pid of unitd inside; 0: there is none."""
        return int(self.container.show("unitd", "MainPID") or 0)

    def wait_serving(self, seconds: float = 20.0) -> dict[str, int]:
        """Both units are registered and answer; their pids inside."""

        def look() -> bool:
            looks = self.looks()
            return bool(looks) and tuple(looks[-1].seen) == UNITS and self.is_active()

        wait_for(look, f"units that serve: {self.looks()[-3:]} {self.journal()}", seconds)
        return self.pids()

    def is_active(self) -> bool:
        """systemd says that unitd is up."""
        return self.container.show("unitd", "ActiveState") == "active"

    def wait_daemon_other_than(self, pid: int) -> int:
        """Another unitd has taken over and says that it is ready."""
        wait_for(lambda: self.is_active() and self.daemon not in (0, pid), f"another unitd: {self.journal()}")
        return self.daemon

    def statuses(self) -> list[dict[str, Any]]:
        """What unitctl tells of the units."""
        answer = json.loads(self.container.run("/opt/unitd/bin/unitctl", "-o", "json", "status", check=False) or "{}")
        found: list[dict[str, Any]] = answer["units"] if isinstance(answer, dict) else answer
        return found

    def pids(self) -> dict[str, int]:
        """unit -> pid inside, as unitctl tells."""
        return {status["unit"]: status["pid"] for status in self.statuses()}

    def journal(self) -> str:
        """What systemd has logged of the daemon."""
        return self.container.run("journalctl", "--no-pager", "-u", "unitd", "-n", "300", "-o", "cat", check=False)

    # What was seen.

    def looks(self) -> list[Look]:
        """All looks so far."""
        found = []
        for line in self._looks.read_text().splitlines():
            at, _, rest = line.partition(" ")
            if at[:1].isdigit() and not rest.startswith("!"):
                found.append(Look(float(at), dict(item.split("=", 1) for item in rest.split(",") if item), ""))
            elif at[:1].isdigit():
                found.append(Look(float(at), {}, rest[1:]))
        return found

    def wait_looked(self, at: float) -> list[Look]:
        """The looks until one that began after this time."""
        wait_for(lambda: (looks := self.looks()) and looks[-1].at > at, "a look at the registry")
        return self.looks()

    def assert_served(self, since: float, pids: dict[str, int]) -> None:
        """From then to now every look saw all units, and the same processes answered."""
        looks = [look for look in self.wait_looked(time.time()) if look.at >= since]
        expected = {unit: str(pid) for unit, pid in pids.items()}
        wrong = [look for look in looks if look.seen != expected]
        assert not wrong, f"{len(wrong)} of {len(looks)}: {wrong[:3]} {self.journal()}"

    def lines(self, unit: str) -> dict[int, list[int]]:
        """pid -> the numbers of its lines in the unit's log, in order; every line is whole."""
        found: dict[int, list[int]] = {}
        text = self.container.read(f"/var/log/unitd/{unit.replace(':', '-')}.out.log")
        for line in text[: text.rfind("\n") + 1].splitlines():
            pid, number, rest = line.split(" ")
            assert rest == "x" * (int(number) % 200) + ".", line
            found.setdefault(int(pid), []).append(int(number))
        return found

    def wait_lines(self, unit: str, pid: int, more_than: int) -> None:
        """The log goes on, and no line is missing, twice or in another place."""
        wait_for(lambda: self.lines(unit).get(pid, [0])[-1] > more_than, f"more lines of {unit}")
        numbers = self.lines(unit)[pid]
        assert numbers == list(range(1, len(numbers) + 1))
