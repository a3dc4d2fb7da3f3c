"""A PostgreSQL server that keeps its data across a restart, with a fresh database for each who asks."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path

from .server import POLL_SECONDS, STOP_SECONDS, MissingProgram, Server

PASSWORD = "of-the-tests"
USER = "center"
_RUNNER = "postgres"  # it refuses to run as root


class Postgres(Server):
    """`durable`: it waits for the disk, as it does everywhere else."""

    install_hint = "apt-get install postgresql"
    port_taken = "could not bind"

    def __init__(self, *, durable: bool = False) -> None:
        self._programs = _find_programs(self.install_hint)
        super().__init__(("postgres",))
        self._durable = durable
        self._user = _RUNNER if os.geteuid() == 0 else None

    @property
    def port(self) -> int:
        """The port of clients."""
        return self.ports["postgres"]

    @property
    def url(self) -> str:
        """The address of the database `postgres`; the password is PASSWORD."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """The address of a database."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    @property
    def version(self) -> str:
        """As the running server tells it."""
        return self.ask("SHOW server_version")

    def new_database(self) -> str:
        """Make an empty database; its url."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self.ask(f"CREATE DATABASE {name}")
        return self.url_of(name)

    def drop_database(self, url: str) -> None:
        """Remove a database, whoever is connected: each has 7 MB from the beginning."""
        self.ask(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def ask(self, query: str, database: str = "postgres", timeout_seconds: float = 10.0) -> str:
        """One statement through psql; its rows as text."""
        return self._run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", query, database, seconds=timeout_seconds)

    def answers(self) -> bool:
        """It takes statements, which it does not while it recovers."""
        return self.ask("SELECT 1", timeout_seconds=2.0) == "1"

    def command(self) -> list[str]:
        """Make the data folder if it is new, and name the program with its settings."""
        if not (self.data / "PG_VERSION").exists():
            self._make_data()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "on" if self._durable else "off",
            "full_page_writes": "on" if self._durable else "off",
            "shared_buffers": "32MB",
            "max_connections": 60,
            "autovacuum": "off",
            "log_line_prefix": "",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [*self._as_user(), self._programs["postgres"], "-D", str(self.data), *options]

    # Each of its processes is at the head of a session of its own, so that a signal to one group reaches only the first.

    def freeze(self) -> None:
        """SIGSTOP to all its processes: connections stay open, and nothing is answered."""
        super().freeze()
        _signal(self._children(), signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT to all its processes."""
        _signal(self._children(), signal.SIGCONT)
        super().thaw()

    def _end(self, patience_seconds: float = 0.0) -> None:
        if not patience_seconds and self.pid is not None:
            os.kill(self.pid, signal.SIGSTOP)  # so that it gets no more children
        children = self._children()  # with patience they end by themselves, but for those whose clients stay
        super()._end(patience_seconds)
        _signal(children, signal.SIGKILL)
        for child in children:  # they hold its shared memory, and it would not start again
            _wait_until_gone(child)

    def _children(self) -> list[int]:
        pid = self.pid
        if pid is None:
            return []
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def _make_data(self) -> None:
        self.folder.chmod(0o711)
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if self._user:
            shutil.chown(self.data, self._user)
            shutil.chown(secret, self._user)
        options = ["-U", USER, "--pwfile", str(secret), "-A", "scram-sha-256", "-E", "UTF8", "--locale", "C", "-N"]
        self._execute([*self._as_user(), self._programs["initdb"], "-D", str(self.data), *options], 30)

    def _as_user(self) -> list[str]:
        if self._user is None:
            return []
        entry = pwd.getpwnam(self._user)
        return [self._programs["setpriv"], f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]

    def _run(self, program: str, *arguments: str, seconds: float) -> str:
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER]
        return self._execute([self._programs[program], *where, *arguments], seconds)

    def _execute(self, command: list[str], seconds: float) -> str:
        environment = {**os.environ, "PGPASSWORD": PASSWORD, "PGCONNECT_TIMEOUT": "2"}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, check=False, env=environment, cwd="/"
            )
        except subprocess.TimeoutExpired as error:
            raise OSError(f"{command[0]} does not end") from error
        if done.returncode != 0:
            raise OSError(done.stderr.strip())
        return done.stdout.strip()


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(POLL_SECONDS)


def _find_programs(hint: str) -> dict[str, str]:
    """The programs of the newest version; Debian puts them where no PATH leads."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_number, reverse=True)
    path = os.pathsep.join([*map(str, versions), os.environ.get("PATH", "")])
    found = {name: shutil.which(name, path=path) for name in ("postgres", "initdb", "psql", "setpriv")}
    missing = [name for name, place in found.items() if place is None]
    if os.geteuid() == 0 and not missing:
        try:
            pwd.getpwnam(_RUNNER)
        except KeyError:
            missing.append(f"the user {_RUNNER}")
    if missing:
        raise MissingProgram(f"{', '.join(missing)} not found: {hint}")
    return {name: place for name, place in found.items() if place is not None}


def _number(folder: Path) -> int:
    match = re.search(r"/(\d+)/bin$", str(folder))
    return int(match[1]) if match else 0
