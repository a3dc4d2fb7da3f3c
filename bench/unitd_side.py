"""Our side of the benches: the unitd of this checkout."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from sides import IDLE_COMMAND, Side

PROGRAMS = Path(__file__).parents[1] / ".venv" / "bin"

CONFIGURATION = """\
node = "bench"
[daemon]
socket = "unitd.sock"
state_dir = "state"
log_dir = "logs"
"""
IDLE = """\
[unit.idle]
command = "{command}"
numprocs = {count}
autostart = {autostart}
"""
# Default policies but for the delay before a restart, which grows when the same unit is killed again and again.
SINGLE = """\
[unit.{name}]
command = "{command}"
[unit.{name}.restart]
backoff_initial = 0
"""


class Unitd(Side):
    """unitd without a registry's entries: no unit has a service."""

    name = "unitd"

    def configure(self) -> list[str]:
        text = CONFIGURATION
        if self.units.idle:
            autostart = str(self.units.idle_starts).lower()
            text += IDLE.format(command=IDLE_COMMAND, count=self.units.idle, autostart=autostart)
        for name, command in self.units.single:
            text += SINGLE.format(name=name, command=command)
        (self.folder / "unitd.toml").write_text(text)
        return [str(PROGRAMS / "unitd"), "-c", f"{self.folder}/unitd.toml"]

    def ctl(self, *words: str) -> list[str]:
        return [str(PROGRAMS / "unitctl"), "-s", f"unix://{self.folder}/unitd.sock", *words]

    def unit(self, number: int) -> str:
        return f"idle:{number}" if self.units.idle > 1 else "idle"

    def count_running(self) -> int | None:
        done = subprocess.run(self.ctl("status", "-o", "json"), capture_output=True, text=True, check=False)
        if done.returncode not in (0, 3):  # 3: some do not run
            return None
        units: list[dict[str, object]] = json.loads(done.stdout)
        return sum(unit["state"] == "RUNNING" for unit in units)
