"""The other side of the benches: supervisord of PyPI's `supervisor`, in a virtual environment of its own."""

from __future__ import annotations

import subprocess
import sys

from sides import CACHE, IDLE_COMMAND, Side

VERSION = "4.3.0"
_FILES_PER_UNIT = 8  # pipes and log files

CONFIGURATION = """\
[unix_http_server]
file={folder}/supervisor.sock
[supervisord]
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
childlogdir={folder}
nodaemon=true
minfds={files}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{folder}/supervisor.sock
"""
IDLE = """\
[program:idle]
command={command}
process_name=%(process_num)d
numprocs={count}
autostart={autostart}
"""


def environment() -> str:
    """The folder with supervisord and supervisorctl; made at the first call, which needs a package index."""
    folder = CACHE / f"supervisor-{VERSION}"
    if not (folder / "bin" / "supervisord").exists():
        CACHE.mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "-q", f"supervisor=={VERSION}", "setuptools<81"], check=True)
    return str(folder / "bin")


class Supervisord(Side):
    """supervisord with its default policies."""

    name = "supervisord"

    def configure(self) -> list[str]:
        text = CONFIGURATION.format(folder=self.folder, files=1000 + _FILES_PER_UNIT * self.units.idle)
        if self.units.idle:
            autostart = str(self.units.idle_starts).lower()
            text += IDLE.format(command=IDLE_COMMAND, count=self.units.idle, autostart=autostart)
        for name, command in self.units.single:
            text += f"[program:{name}]\ncommand={command}\n"
        (self.folder / "supervisord.conf").write_text(text)
        return [f"{environment()}/supervisord", "-c", f"{self.folder}/supervisord.conf"]

    def ctl(self, *words: str) -> list[str]:
        return [f"{environment()}/supervisorctl", "-c", f"{self.folder}/supervisord.conf", *words]

    def unit(self, number: int) -> str:
        return f"idle:{number}"

    def count_running(self) -> int | None:
        done = subprocess.run(self.ctl("status"), capture_output=True, text=True, check=False)
        if done.returncode not in (0, 3):  # 3: some do not run
            return None
        return sum(line.split()[1:2] == ["RUNNING"] for line in done.stdout.splitlines())
