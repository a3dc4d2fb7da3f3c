"""Starting one process: each stage that can fail says so in words, and what succeeds is as it was asked for."""

from __future__ import annotations

import errno
import os
import pwd
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.core.model import Limits, ProbeSpec, ServiceSpec, UnitSpec
from supervisor.errors import SpawnError
from supervisor.host import spawn
from supervisor.host.setup import default_signals
from tests.supervisor.host.trees import python, shell, unit

BASE = {"PATH": os.environ["PATH"], "LANG": "C"}
ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="only root can switch to another user")
NOBODY = pwd.getpwnam("nobody")


class Started:
    """Runs units to their end, with their output in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pids = folder, list[int]()

    def __call__(
        self,
        spec: UnitSpec,
        base: Mapping[str, str] = BASE,
        nofile: int | None = None,
        attempt: int = 7,
        extra: Mapping[str, str] | None = None,
    ) -> tuple[int, str]:
        """Its exit code (minus the signal) and what it said on both streams."""
        out = self.folder / f"out{len(self.pids)}"
        writing = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        silent = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            pid = spawn.start(spec, attempt, spawn.Streams(silent, writing, writing), base, nofile, extra)
        finally:
            os.close(writing)
            os.close(silent)
        self.pids.append(pid)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status), out.read_text()

    def refused(self, spec: UnitSpec) -> SpawnError:
        """The error; nothing was started."""
        before = sorted(os.listdir("/proc/self/fd"))
        with pytest.raises(SpawnError) as caught:
            self(spec)
        assert sorted(os.listdir("/proc/self/fd")) == before
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        return caught.value


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    tmp_path.chmod(0o755)
    default_signals()
    yield Started(tmp_path)


# What was asked for.


def test_the_program_runs_with_its_arguments_as_they_are(started: Started) -> None:
    assert started(unit("printf", "%s|", "a b", "$HOME", "*", "")) == (0, "a b|$HOME|*||")


def test_the_environment_is_the_daemons_then_ours_then_what_the_unit_says(started: Started) -> None:
    spec = replace(
        unit("env"), name="cart:1", group="cart", number=1,
        service=ServiceSpec("shop", "127.0.0.1", 9081),
        environment=(("LANG", "C.UTF-8"), ("EMPTY", ""), ("UNITD_UNIT", "somebody else")),
    )  # fmt: skip
    _, out = started(spec)
    assert dict(line.split("=", 1) for line in out.splitlines()) == {
        "PATH": BASE["PATH"], "LANG": "C.UTF-8", "EMPTY": "", "UNITD_UNIT": "cart:1", "UNITD_GROUP": "cart",
        "UNITD_NUMBER": "1", "UNITD_GENERATION": "7", "UNITD_PORT": "9081", "SUPERVISOR_ENABLED": "1",
        "SUPERVISOR_PROCESS_NAME": "cart:1", "SUPERVISOR_GROUP_NAME": "cart",
    }  # fmt: skip


def test_the_daemons_own_variables_are_not_the_units_to_say(started: Started) -> None:
    said = tuple((key, "mine") for key in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "UNITD_STATE", "UNITD_COMMAND"))
    spec = unit("env", environment=said, liveness=ProbeSpec("notify", period=2.5))
    without = variables(started(spec)[1])
    assert (without["NOTIFY_SOCKET"], without["WATCHDOG_USEC"]) == ("mine", "mine"), "there is no other one"
    assert not {"UNITD_STATE", "UNITD_COMMAND"} & set(without)
    extra = spawn.daemons_variables(spec, "/run/x", "f00")
    found = variables(started(spec, extra=extra)[1])
    assert (found["NOTIFY_SOCKET"], found["WATCHDOG_USEC"], found["UNITD_STATE"]) == ("/run/x", "2500000", "f00")
    assert "WATCHDOG_PID" not in found and "UNITD_COMMAND" not in found


def test_a_watchdog_is_named_only_where_somebody_listens() -> None:
    listened = unit(readiness=ProbeSpec("notify"), liveness=ProbeSpec("tcp"))
    assert spawn.daemons_variables(listened, "/run/x", "") == {"NOTIFY_SOCKET": "/run/x"}
    assert spawn.daemons_variables(unit(liveness=ProbeSpec("notify")), None, "") == {}


def variables(out: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in out.splitlines())


def test_a_unit_without_a_service_has_no_port(started: Started) -> None:
    assert "UNITD_PORT" not in started(unit("env"))[1]


def test_the_program_is_looked_for_in_the_path_that_the_unit_gets(started: Started, tmp_path: Path) -> None:
    script(tmp_path / "bin" / "only-here", "#!/bin/sh\necho found\n")
    assert started(unit("only-here", environment=(("PATH", f"{tmp_path}/bin:/bin"),))) == (0, "found\n")


def test_the_umask_and_the_directory_are_the_units(started: Started, tmp_path: Path) -> None:
    before = os.umask(0o022)
    os.umask(before)
    _, out = started(shell("umask; pwd", umask=0o027, directory=str(tmp_path)))
    assert out.split() == ["0027", str(tmp_path)]
    assert os.umask(before) == before, "the daemon keeps its own"


def test_it_leads_a_session_with_no_signal_ignored_or_blocked(started: Started) -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        _, out = started(shell("ps -o pid=,pgid=,sid= $$; exec grep -E 'Sig(Blk|Ign)' /proc/self/status"))
        assert signal.SIGCHLD in signal.pthread_sigmask(signal.SIG_BLOCK, ()), "ours stays blocked"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    pid, pgid, sid, *masks = out.split()
    assert pid == pgid == sid == str(started.pids[-1])
    libc_signals = 3 << 31  # 32 and 33: the C library keeps them to itself, nobody can set them
    assert [int(mask, 16) & ~libc_signals for mask in masks[1::2]] == [0, 0]


@pytest.mark.parametrize("limits", [Limits(), Limits(nice=3)], ids=["plain", "prepared"])
def test_the_soft_limit_of_open_files_is_what_the_daemon_had_before(started: Started, limits: Limits) -> None:
    # The limit is set from outside once the program runs: it may look only a moment later.
    code = "import resource, time\ntime.sleep(0.1)\nprint(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        assert started(python(code, limits=limits), nofile=321)[1] == "321\n"
        asked = replace(limits, rlimits=(("NOFILE", 100, 200),))
        assert started(python(code, limits=asked), nofile=321)[1] == "100\n"
        assert started(python(code, limits=limits), nofile=None)[1] == f"{hard}\n"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_limits_niceness_and_oom_score_are_set(started: Started) -> None:
    limits = Limits(rlimits=(("CORE", 0, 0), ("NOFILE", 64, 128)), nice=5, oom_score_adj=500)
    _, out = started(shell("ulimit -Sn; ulimit -Hn; ulimit -c; nice; cat /proc/self/oom_score_adj", limits=limits))
    assert out.split() == ["64", "128", "0", str(os.nice(0) + 5), "500"]


@as_root
def test_it_runs_as_its_user_with_that_users_groups_and_home(started: Started) -> None:
    _, out = started(shell("id -u; id -g; id -G; echo $HOME $USER $LOGNAME", user="nobody"))
    groups = {str(gid) for gid in os.getgrouplist("nobody", NOBODY.pw_gid)}
    uid, gid, *others = out.split()
    assert (uid, gid) == (str(NOBODY.pw_uid), str(NOBODY.pw_gid))
    assert set(others[:-3]) == groups
    assert others[-3:] == [NOBODY.pw_dir, "nobody", "nobody"]


@as_root
def test_a_user_cannot_get_back_to_root(started: Started) -> None:
    code = "import os\ntry:\n    os.setuid(0)\nexcept PermissionError:\n    print('no way back')"
    assert started(unit("/usr/bin/python3", "-c", code, user="nobody"))[1] == "no way back\n"


@as_root
def test_a_group_of_its_own_replaces_the_users(started: Started) -> None:
    assert started(shell("id -u; id -g; id -G", user="nobody", os_group="daemon"))[1].split()[:2] == [
        str(NOBODY.pw_uid), "1",
    ]  # fmt: skip
    assert started(shell("id -u; id -g; id -G", os_group="daemon"))[1].split() == ["0", "1", "1"]


def test_what_the_unit_says_goes_before_what_its_user_has(started: Started) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    assert started(shell("echo $HOME", user=me, environment=(("HOME", "/srv"),)))[1] == "/srv\n"


# What fails.


def script(path: Path, text: str, mode: int = 0o755) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return str(path)


Case = tuple[Callable[[Path], UnitSpec], str, int, str]

CASES: dict[str, Case] = {
    "no such file": (lambda at: unit("/no/such/program"), "exec", errno.ENOENT, "no such file: /no/such/program"),
    "not in PATH": (
        lambda at: unit("no-such-program-anywhere"), "exec", errno.ENOENT,
        "no such file: no-such-program-anywhere is not in any folder of PATH",
    ),
    "a script without its interpreter": (
        lambda at: unit(script(at / "s", "#!/no/such/python -u\n")), "exec", errno.ENOENT,
        "no such file: /no/such/python -u, the interpreter of {at}/s",
    ),
    "not executable": (
        lambda at: unit(script(at / "s", "#!/bin/sh\n", 0o644)), "exec", errno.EACCES, "no permission to execute {at}/s",
    ),
    "a folder": (lambda at: unit(str(at)), "exec", errno.EACCES, "no permission to execute {at}"),
    "not a binary": (
        lambda at: unit(script(at / "s", "echo no first line\n")), "exec", errno.ENOEXEC,
        "{at}/s is neither a binary for this machine nor a script with a first line #!",
    ),
    "a file as a folder": (
        lambda at: unit(script(at / "s", "") + "/program"), "exec", errno.ENOTDIR,
        "no such file: {at}/s/program (a part of the path is not a directory)",
    ),
    "links in a circle": (
        lambda at: unit(link_to_itself(at / "loop")), "exec", errno.ELOOP,
        "cannot follow {at}/loop: too many symbolic links",
    ),
    "a name that is too long": (
        lambda at: unit("/" + "x" * 300), "exec", errno.ENAMETOOLONG, "the path is too long: /" + "x" * 99 + "...",
    ),
    "too many arguments": (
        lambda at: unit("true", "x" * 3_000_000), "exec", errno.E2BIG, "the command and its environment are too long",
    ),
    "a NUL in an argument": (
        lambda at: unit("true", "a\0b"), "exec", errno.EINVAL, "cannot execute 'true': embedded null byte",
    ),
    "no such directory": (
        lambda at: unit("true", directory="/no/such/folder"), "directory", errno.ENOENT, "no such directory: /no/such/folder",
    ),
    "a file as the directory": (
        lambda at: unit("true", directory=script(at / "s", "")), "directory", errno.ENOTDIR, "not a directory: {at}/s",
    ),
    "no such user": (lambda at: unit("true", user="no-such-user"), "user", 0, "no such user: no-such-user"),
    "no such group": (lambda at: unit("true", os_group="no-such-group"), "group", 0, "no such group: no-such-group"),
    "a limit whose soft part is above the hard one": (
        lambda at: unit("true", limits=Limits(rlimits=(("NOFILE", 20, 10),))), "limit nofile", errno.EINVAL,
        "cannot set its limit nofile: Invalid argument",
    ),
    "an oom score that there is not": (
        lambda at: unit("true", limits=Limits(oom_score_adj=5000)), "oom_score_adj", errno.EINVAL,
        "cannot set its oom_score_adj: Invalid argument",
    ),
}  # fmt: skip


def link_to_itself(path: Path) -> str:
    path.symlink_to(path)
    return str(path)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_start_that_fails_says_at_which_stage_and_why(started: Started, tmp_path: Path, case: Case) -> None:
    make, stage, number, words = case
    error = started.refused(make(tmp_path))
    assert (error.stage, error.errno, str(error)) == (stage, number, words.format(at=tmp_path))
    assert number not in spawn.CAN_HEAL


@as_root
def test_a_limit_above_the_hard_one_is_refused_with_its_name(started: Started) -> None:
    """Even to root: no process may have more open files than /proc/sys/fs/nr_open says (getrlimit(2))."""
    error = started.refused(unit("true", limits=Limits(rlimits=(("CORE", 0, 0), ("NOFILE", 10**10, 10**10)))))
    assert (error.stage, error.errno) in (("limit nofile", errno.EPERM), ("limit nofile", errno.EINVAL))
    assert str(error).startswith("cannot set its limit nofile: ")


@as_root
def test_a_directory_that_only_root_may_enter_is_refused_to_the_user(started: Started, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    error = started.refused(unit("/bin/true", user="nobody", directory=str(private)))
    assert (error.stage, error.errno) == ("directory", errno.EACCES)
    assert str(error) == f"no permission to enter the directory {private}"


@as_root
def test_a_program_that_only_root_may_execute_is_refused_to_the_user(started: Started, tmp_path: Path) -> None:
    program = script(tmp_path / "s", "#!/bin/sh\n", 0o700)
    error = started.refused(unit(program, user="nobody"))
    assert str(error) == f"no permission to execute {program}"


@as_root
def test_without_root_another_user_is_refused(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 1000)
    for spec, who in (
        (unit("true", user="nobody"), "nobody"),
        (unit("true", os_group="daemon"), "group daemon"),
    ):
        error = started.refused(spec)
        assert (error.stage, error.errno) == ("user", errno.EPERM)
        assert str(error) == f"no permission to run as {who}: unitd itself does not run as root"


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
def test_a_host_without_room_for_a_process_is_a_failure_that_can_heal(
    started: Started, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    error = started.refused(unit("true"))
    assert (error.stage, error.errno) == ("fork", number)
    assert str(error) == f"cannot make a process: {os.strerror(number)}"
    assert number in spawn.CAN_HEAL


@as_root
def test_a_user_with_too_many_processes_gets_no_more_and_that_can_heal(started: Started, tmp_path: Path) -> None:
    """For a user that is not root the kernel says so when the program is executed (RLIMIT_NPROC, execve(2))."""
    with subprocess.Popen(["sleep", "1000"], user="nobody") as other:
        try:
            limits = Limits(rlimits=(("NPROC", 0, 0),))
            with pytest.raises(SpawnError) as caught:
                started(unit("/bin/true", user="nobody", limits=limits))
        finally:
            other.kill()
    assert (caught.value.stage, caught.value.errno) == ("exec", errno.EAGAIN)
    assert caught.value.errno in spawn.CAN_HEAL
