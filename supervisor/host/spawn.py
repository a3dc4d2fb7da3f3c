"""One process is started: everything between "run this" and a pid, or the stage that failed and why.

A plain process goes through `subprocess` alone, which uses vfork and so costs the same however large the daemon is
(0.6 ms where fork takes 2). Only what it cannot say (limits, niceness, oom score, another user) runs as Python code in
a forked child; that child calls nothing but system calls prepared before the fork, takes no lock and imports nothing.
"""

from __future__ import annotations

import os
import resource
import signal
import stat as filemodes
import subprocess
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from errno import (
    E2BIG,
    EACCES,
    EAGAIN,
    EINVAL,
    ELOOP,
    EMFILE,
    ENAMETOOLONG,
    ENFILE,
    ENOENT,
    ENOEXEC,
    ENOMEM,
    ENOTDIR,
)

from ..core.model import UnitSpec
from ..errors import SpawnError
from .identity import Identity, resolve

_MARKS = ("UNITD_STATE", "UNITD_COMMAND")  # see tree.py
CAN_HEAL = frozenset((EAGAIN, ENOMEM, EMFILE, ENFILE))  # shortages; all else needs a change of files or configuration


@dataclass(frozen=True, slots=True)
class Streams:
    """Descriptors that become the child's stdin, stdout and stderr."""

    stdin: int
    stdout: int
    stderr: int


def environment_of(
    spec: UnitSpec, attempt: int, base: Mapping[str, str], identity: Identity | None, extra: Mapping[str, str]
) -> dict[str, str]:
    """What the process finds in its environment: the daemon's own, the user's, what the unit says, and last ours."""
    service = spec.service
    own = {
        "UNITD_UNIT": spec.name,
        "UNITD_GROUP": spec.group,
        "UNITD_NUMBER": str(spec.number),
        "UNITD_GENERATION": str(attempt),
        "SUPERVISOR_ENABLED": "1",  # programs written for supervisord look for these three
        "SUPERVISOR_PROCESS_NAME": spec.name,
        "SUPERVISOR_GROUP_NAME": spec.group,
    }
    if service is not None:
        own["UNITD_PORT"] = str(service.port)
    found = {**base, **dict(identity.environment if identity else ()), **dict(spec.environment)}
    for mark in _MARKS:  # a unit that sets one would not be found, or be taken for another's
        found.pop(mark, None)
    return {**found, **own, **extra}


def daemons_variables(spec: UnitSpec, notify_path: str | None, state_id: str) -> dict[str, str]:
    """What a process needs to know of its daemon: how to speak to it, if it may (sd_notify(3),
    sd_watchdog_enabled(3)), and whose it is, if that has a name.

    There is no WATCHDOG_PID: not only the process that is started may speak, but any of its tree.
    """
    found = {"UNITD_STATE": state_id} if state_id else {}
    if notify_path is not None:
        found["NOTIFY_SOCKET"] = notify_path
        if spec.liveness is not None and spec.liveness.kind == "notify":
            found["WATCHDOG_USEC"] = str(round(spec.liveness.period * 1_000_000))
    return found


def start(
    spec: UnitSpec,
    attempt: int,
    streams: Streams,
    base: Mapping[str, str],
    nofile: int | None,
    extra: Mapping[str, str] | None = None,
) -> int:
    """The pid of the new process, whose exec has succeeded. Raises SpawnError.

    `nofile` is the soft limit of open files to restore, where the daemon raised its own; `extra` are variables that
    nothing else in its environment replaces.
    """
    identity = resolve(spec.user, spec.os_group)
    _check_directory(spec.directory)
    setup, report = _child_setup(spec, identity)
    try:
        pid = _popen(spec, environment_of(spec, attempt, base, identity, extra or {}), streams, setup)
    except OSError as error:
        raise _spawn_error(spec, error) from error
    except ValueError as error:  # what no program can be given, such as a NUL in an argument
        raise SpawnError("exec", EINVAL, f"cannot execute {spec.argv[0]!r}: {error}") from error
    except subprocess.SubprocessError as error:
        raise report(spec) from error
    finally:
        report.close()
    if nofile is not None and not any(name == "NOFILE" for name, _, _ in spec.limits.rlimits):
        _restore_nofile(pid, nofile)
    return pid


def _popen(spec: UnitSpec, environment: dict[str, str], streams: Streams, setup: Callable[[], None] | None) -> int:
    with warnings.catch_warnings():
        # From Python 3.12 on a fork beside threads warns. The child's code is written for that, see above.
        warnings.simplefilter("ignore", DeprecationWarning)
        # A child inherits what is blocked, and must not find its own children's signal blocked.
        blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        try:
            process = _start_process(spec, environment, streams, setup)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    # Its end is watched by pidfd; without this the object would complain, when dropped, that nobody waited.
    process.returncode = 0
    return process.pid


def _start_process(
    spec: UnitSpec, environment: dict[str, str], streams: Streams, setup: Callable[[], None] | None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        spec.argv,
        stdin=streams.stdin,
        stdout=streams.stdout,
        stderr=streams.stderr,
        env=environment,
        cwd=spec.directory,
        umask=spec.umask,
        start_new_session=True,
        close_fds=False,  # all of ours are close-on-exec; asking the kernel costs more the more units there are
        preexec_fn=setup,  # noqa: PLW1509 - see the module's docstring
    )


def _restore_nofile(pid: int, soft: int) -> None:
    try:
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(soft, hard) if hard >= 0 else soft, hard))
    except (OSError, ValueError):
        return  # it has ended already


class _Report:
    """How the forked child tells which stage failed: one line through a pipe that exec closes."""

    def __init__(self, wanted: bool) -> None:
        self.read_end, self.write_end = os.pipe2(os.O_CLOEXEC) if wanted else (-1, -1)

    def __call__(self, spec: UnitSpec) -> SpawnError:
        os.close(self.write_end)
        self.write_end = -1
        stage, _, number = os.read(self.read_end, 100).decode().rpartition(" ")
        code = int(number or 0)
        if stage == "directory" and spec.directory is not None:
            return _directory_error(spec.directory, code)
        return SpawnError(stage or "setup", code, f"cannot set its {stage or 'environment up'}: {os.strerror(code)}")

    def close(self) -> None:
        for descriptor in (self.read_end, self.write_end):
            if descriptor >= 0:
                os.close(descriptor)


def _child_setup(spec: UnitSpec, identity: Identity | None) -> tuple[Callable[[], None] | None, _Report]:
    limits = spec.limits
    calls: list[tuple[str, Callable[[], object]]] = []
    if limits.oom_score_adj is not None:
        score = str(limits.oom_score_adj).encode()
        calls.append(("oom_score_adj", lambda: _write("/proc/self/oom_score_adj", score)))
    if (nice := limits.nice) is not None:
        calls.append(("nice", lambda: os.setpriority(os.PRIO_PROCESS, 0, nice)))
    for name, soft, hard in limits.rlimits:
        number = getattr(resource, f"RLIMIT_{name}")
        calls.append((f"limit {name.lower()}", lambda n=number, v=(soft, hard): resource.setrlimit(n, v)))  # type: ignore[misc]
    if identity is not None and os.geteuid() == 0:
        calls.append(("supplementary groups", lambda: os.setgroups(identity.groups)))
        calls.append(("group", lambda: os.setresgid(identity.gid, identity.gid, identity.gid)))
        calls.append(("user", lambda: os.setresuid(identity.uid, identity.uid, identity.uid)))
    report = _Report(wanted=bool(calls))
    if not calls:
        return None, report
    write_end, directory = report.write_end, spec.directory

    def setup() -> None:
        stage = ""
        try:
            for stage, call in calls:  # noqa: B007 - the handlers below name the one that failed
                call()
            if directory is not None and identity is not None:
                stage = "directory"
                os.chdir(directory)  # once more, as the user that it will run as
        except OSError as error:
            os.write(write_end, b"%s %d" % (stage.encode(), error.errno or 0))
            raise
        except ValueError:  # a limit above the hard one
            os.write(write_end, b"%s %d" % (stage.encode(), EINVAL))
            raise

    return setup, report


def _write(path: str, value: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value)
    finally:
        os.close(descriptor)


def _check_directory(directory: str | None) -> None:
    if directory is None:
        return
    try:
        mode = os.stat(directory).st_mode
    except OSError as error:
        raise _directory_error(directory, error.errno or 0) from error
    if not filemodes.S_ISDIR(mode):
        raise _directory_error(directory, ENOTDIR)


def _directory_error(directory: str, number: int) -> SpawnError:
    words = {
        ENOENT: f"no such directory: {directory}",
        ENOTDIR: f"not a directory: {directory}",
        EACCES: f"no permission to enter the directory {directory}",
    }
    return SpawnError("directory", number, words.get(number, f"cannot enter {directory}: {os.strerror(number)}"))


def _spawn_error(spec: UnitSpec, error: OSError) -> SpawnError:
    """`subprocess` names the directory in the error where chdir failed, the program where exec did."""
    number, program = error.errno or 0, spec.argv[0]
    if spec.directory is not None and error.filename == spec.directory:
        return _directory_error(spec.directory, number)
    if error.filename is None:
        return SpawnError("fork", number, f"cannot make a process: {os.strerror(number)}")
    words = {
        ENOENT: _missing_words(program),
        EACCES: f"no permission to execute {program}",
        ENOEXEC: f"{program} is neither a binary for this machine nor a script with a first line #!",
        ENOTDIR: f"no such file: {program} (a part of the path is not a directory)",
        ELOOP: f"cannot follow {program}: too many symbolic links",
        E2BIG: "the command and its environment are too long",
        ENAMETOOLONG: f"the path is too long: {program[:100]}...",
    }
    return SpawnError("exec", number, words.get(number, f"cannot execute {program}: {os.strerror(number)}"))


def _missing_words(program: str) -> str:
    """exec says "no such file" of a script, too, whose interpreter is missing."""
    if "/" not in program:
        return f"no such file: {program} is not in any folder of PATH"
    try:
        with open(program, "rb") as file:
            first = file.readline(256)
    except OSError:
        return f"no such file: {program}"
    if first.startswith(b"#!"):
        return f"no such file: {first[2:].strip().decode(errors='replace')}, the interpreter of {program}"
    return f"no such file: a library or the loader that {program} needs"
