"""What all registry servers of the tests have in common: one process, its folder, its ports, its faults.

Synchronous on purpose, and without pytest: benches use it too. From a test of asyncio, call what waits (`start`, `restart`,
`lose_everything`, `wait_ready`) through `asyncio.to_thread`; `kill`, `freeze` and `thaw` return at once.
"""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

from .certificates import Certificates, write_certificates
from .processes import Process, forget_folder, free_port, guard_folder

START_SECONDS = 15.0
STOP_SECONDS = 3.0
POLL_SECONDS = 0.01


class MissingProgram(Exception):
    """The program of a server is not installed; the message says what to install."""


class NotReady(Exception):
    """A server did not answer in time, or ended; the message has the end of its log."""


class Server(ABC):
    """One server on 127.0.0.1. Its ports and its data stay the same until `stop`.

    A context manager: started on the way in, stopped (and its folder removed) on the way out. `MissingProgram` is raised by
    the constructor, everything else by `start`.
    """

    #: What a person has to install, for the message of `MissingProgram`.
    install_hint: ClassVar[str]
    #: What the server prints when one of its ports was taken by somebody else in the meantime.
    port_taken: ClassVar[str] = "address already in use"

    def __init__(self, port_names: tuple[str, ...], *, tls: bool = False) -> None:
        self.ports: dict[str, int] = {name: free_port() for name in port_names}
        self.tls = tls
        self.certificates: Certificates | None = None  # with `tls`, from the start on
        self.folder = Path()
        self._process: Process | None = None

    # What a kind of server says about itself.

    @property
    @abstractmethod
    def url(self) -> str:
        """What a client is given."""

    @property
    @abstractmethod
    def port(self) -> int:
        """The port that clients use."""

    @property
    @abstractmethod
    def version(self) -> str:
        """The version, as the running server tells it."""

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments; configuration files are written here."""

    @abstractmethod
    def answers(self) -> bool:
        """Ask once whether clients are served; False or OSError means not yet."""

    def initialise(self) -> None:  # noqa: B027 - most have nothing to set up
        """Set up users, tokens and rights, through the server; called with each new data folder."""

    # What tests do with it.

    @property
    def data(self) -> Path:
        """The folder of what the server keeps."""
        return self.folder / "data"

    @property
    def pid(self) -> int | None:
        """The pid of the server while its process exists."""
        return self._process.pid if self._process is not None and self._process.lives() else None

    @property
    def log(self) -> str:
        """All that the server has printed since the folder was made."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start the server and return when it serves clients. Does nothing to one that runs."""
        if self.pid is not None:
            return
        self._end()
        new = self._make_folder()
        self._spawn()
        self._wait_or_move(new)
        if new:
            self.initialise()

    def launch(self) -> None:
        """Start the server and return at once; users and tokens are not set up."""
        if self.pid is None:
            self._end()
            self._make_folder()
            self._spawn()

    def wait_ready(self, within_seconds: float = START_SECONDS) -> None:
        """Return when the server answers; `NotReady` when it does not in time or has ended."""
        deadline = time.monotonic() + within_seconds
        while not self._answers_now():
            if self.pid is None:
                raise NotReady(f"{type(self).__name__} has ended: {self.log[-2000:]}")
            if time.monotonic() > deadline:
                raise NotReady(f"{type(self).__name__} does not answer after {within_seconds} s: {self.log[-2000:]}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End the server at once and remove its folder. Does nothing to one that is stopped."""
        self._end()
        if self.folder != Path():
            shutil.rmtree(self.folder, ignore_errors=True)
            forget_folder(self.folder)
            self.folder = Path()

    def kill(self) -> None:
        """SIGKILL: the data stays; `start` brings it back at the same port."""
        self._end()

    def terminate(self) -> None:
        """SIGTERM, and SIGKILL when that takes too long: the data stays; `start` brings it back at the same port."""
        self._end(STOP_SECONDS)

    def restart(self) -> None:
        """`terminate`, then start again at the same port with the same data."""
        self.terminate()
        self.start()

    def lose_everything(self) -> None:
        """SIGKILL, then start at the same port with nothing but the users and tokens that were there at first."""
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, and nothing is answered."""
        if self._process is not None:
            self._process.signal(signal.SIGSTOP)
            self._process.wait_stopped()  # a thread on another processor may answer a moment longer

    def thaw(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            self._process.signal(signal.SIGCONT)

    def heal(self) -> None:
        """Thawed, running and answering, whatever was done to it."""
        self.thaw()
        self.start()
        self.wait_ready()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # How it is done.

    def move(self) -> None:
        """Take other ports, for the next start."""
        self.ports = {name: free_port() for name in self.ports}

    def client_context(self) -> ssl.SSLContext | None:
        """What a client with a certificate needs; None without `tls`."""
        return self.certificates.client_context() if self.certificates else None

    def environment(self) -> dict[str, str]:
        """The environment of the process: nothing of ours but the PATH and a home of its own."""
        return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(self.folder), "LANG": "C.UTF-8"}

    def _make_folder(self) -> bool:
        """Make the folders that are not there; True when the server starts without data."""
        if self.folder == Path():
            self.folder = Path(tempfile.mkdtemp(prefix=f"unitd-{type(self).__name__.lower()}-"))
            guard_folder(self.folder)
            self.certificates = write_certificates(self.folder / "certificates") if self.tls else None
        new = not self.data.exists()
        self.data.mkdir(exist_ok=True)
        return new

    def _spawn(self) -> None:
        self._process = Process(self.command(), self.folder / "log", self.environment())

    def _wait_or_move(self, new: bool) -> None:
        """Wait until it serves. One that was never seen by a client may move when somebody took a port of it."""
        for attempt in range(5):
            try:
                self.wait_ready()
                return
            except NotReady:
                taken = self.pid is None and self.port_taken in self.log.lower()
                self._end()
                if attempt == 4 or not (new and taken):
                    raise
            self.move()
            self._spawn()

    def _answers_now(self) -> bool:
        """It answers, and not somebody else who has its port."""
        try:
            return self.answers() and self._process is not None and self._process.listens_on(self.port)
        except OSError:
            return False

    def _end(self, patience_seconds: float = 0.0) -> None:
        if self._process is not None:
            self._process.end(patience_seconds)
            self._process = None


def find_program(name: str, hint: str, *candidates: str) -> str:
    """The path of a program: from the PATH, or the first of `candidates` that is there."""
    for candidate in (name, *candidates):
        found = shutil.which(candidate)
        if found is not None:
            return found
    raise MissingProgram(f"{name} is not installed: {hint}")
