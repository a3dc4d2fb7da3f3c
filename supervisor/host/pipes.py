"""The pipes between a unit's process and the output pump; they outlive the daemon.

Each is a FIFO (fifo(7)) in the daemon's folder that the unit holds open for both reading and writing. So it never
writes to a pipe that nobody reads: while no daemon is there it waits when the pipe is full, and the next daemon opens
the FIFO by its name and reads on where the last one ended.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
from collections.abc import Container, Mapping
from contextlib import suppress
from functools import partial
from urllib.parse import quote, unquote

from ..core.model import LogFormat, UnitSpec
from ..errors import SpawnError
from .fd_store import FdStore
from .identity import resolve
from .output import OutputPump
from .spool import Left
from .spooled import Place, settle

log = logging.getLogger("unitd.output")

STREAMS = ("stdout", "stderr")


class Pipes:
    """Makes the pipes of each attempt; what a unit throws away gets none."""

    def __init__(self, pump: OutputPump, folder: str, store: FdStore) -> None:
        """`folder` is made if need be. Raises OSError."""
        self._store = store
        self._pump, self._folder = pump, folder
        self._left: dict[str, list[Left]] = {}
        os.makedirs(folder, mode=0o700, exist_ok=True)

    def open(self, spec: UnitSpec, attempt: int) -> tuple[int | None, int | None]:
        """The units' ends for stdout and stderr (None: /dev/null), to be closed by the caller. Raises OSError."""
        logs = spec.logs
        stdout = self._pipe(spec, attempt, "stdout", logs.stdout)
        if logs.redirect_stderr:
            return stdout, stdout
        try:
            return stdout, self._pipe(spec, attempt, "stderr", logs.stderr)
        except OSError:
            if stdout is not None:
                os.close(stdout)
            raise

    def settle(self, specs: Mapping[str, UnitSpec]) -> None:
        """See what an earlier daemon has read of pipes and not written to logs; `specs` by unit say where those are."""
        self._left = settle(self._pump.spool, partial(_place, specs))

    def finish(self, specs: Mapping[str, UnitSpec]) -> None:
        """Write what is left of attempts that have ended."""
        for name, left in self._left.items():
            unit, attempt, stream = _parts(name)
            place = _place(specs, name)
            if place is None:
                log.warning("%s: what it said last is lost: it has no log any more", unit or name)
                continue
            logs = specs[unit].logs
            self._pump.open(unit, attempt, stream, -1, place.path, logs, resumed=True, left=left)
        self._left = {}

    def resume(self, spec: UnitSpec, attempt: int) -> None:
        """Read on what an attempt says that an earlier daemon has started."""
        for stream, target in zip(STREAMS, (spec.logs.stdout, spec.logs.stderr), strict=True):
            path = self._path(spec.name, attempt, stream)
            with suppress(FileNotFoundError):
                reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                # Whoever opens a FIFO after its last writer has gone is never told of an end: there was one since.
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
                self._store.keep(reading)
                left = self._left.pop(f"{spec.name}@{attempt}.{stream}", ())
                self._pump.open(
                    spec.name, attempt, stream, reading, target, spec.logs, resumed=True, fifo=path, left=left
                )

    def sweep(self, kept: Container[tuple[str, int]]) -> None:
        """Remove what attempts have left that nothing lives of; `kept` are unit and attempt of the others."""
        for name in os.listdir(self._folder):
            unit, attempt, stream = _parts(unquote(name))
            if not stream or (unit, attempt) not in kept:
                path = f"{self._folder}/{name}"
                if stat.S_ISFIFO(os.lstat(path).st_mode):
                    os.unlink(path)

    def _path(self, unit: str, attempt: int, stream: str) -> str:
        return f"{self._folder}/{quote(unit, safe=':')}@{attempt}.{stream}"

    def _pipe(self, spec: UnitSpec, attempt: int, stream: str, target: str | None) -> int | None:
        if target is None:
            return None
        path = self._path(spec.name, attempt, stream)
        _make(path, spec)
        reading = writing = -1
        try:
            reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            writing = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            if spec.logs.pipe_bytes:
                with suppress(OSError):  # /proc/sys/fs/pipe-max-size, pipe-user-pages-soft
                    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, spec.logs.pipe_bytes)
        except OSError:
            for descriptor in (reading, writing):
                if descriptor >= 0:
                    os.close(descriptor)
            os.unlink(path)
            raise
        self._store.keep(reading)
        self._pump.open(spec.name, attempt, stream, reading, target, spec.logs, fifo=path)
        return writing


def _parts(name: str) -> tuple[str, int, str]:
    """Unit, attempt and stream by the name of a stream; the last is empty if that is no such name."""
    unit, _, rest = name.rpartition("@")
    attempt, _, stream = rest.partition(".")
    known = attempt.isdecimal() and stream in STREAMS
    return (unit, int(attempt), stream) if known else (unit, 0, "")


def _place(specs: Mapping[str, UnitSpec], name: str) -> Place | None:
    """The log of a stream, if it has one."""
    unit, _, stream = _parts(name)
    if unit not in specs or not stream:
        return None
    logs = specs[unit].logs
    path = logs.stdout if stream == "stdout" else logs.stderr
    return None if path is None else Place(path, logs.format is LogFormat.RAW)


def _make(path: str, spec: UnitSpec) -> None:
    """The FIFO, of the unit's user, so that its program may open /dev/stdout. Raises OSError."""
    with suppress(FileNotFoundError):  # of an attempt of this number that was never started
        os.unlink(path)
    os.mkfifo(path, 0o600)
    try:
        identity = resolve(spec.user, spec.os_group)
    except SpawnError:
        return  # which the start will say
    if identity is not None and os.geteuid() == 0:
        try:
            os.chown(path, identity.uid, identity.gid)
        except OSError as error:
            if error.errno != errno.EPERM:  # a file system without owners
                raise
