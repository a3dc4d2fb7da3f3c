"""What a unit finds when it starts: user, directory, environment, limits, descriptors, as it sees them itself."""

from __future__ import annotations

import grp
import json
import os
import pwd
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.host import Host
from tests.end_to_end.machine import until

DESCRIBE = Path(__file__).with_name("describe.py")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch users")

LIBC_SIGNALS = 3 << 31  # 32 and 33: the C library keeps them to itself, nobody can set them


def _described(host: Host, table: str, name: str = "web", **environment: str) -> dict[str, Any]:
    """Run a unit with these settings: what it says of itself."""
    script = shutil.copy(DESCRIBE, host.folder)
    host.configure(f'[unit.web]\ncommand = "{_python()} -S -E {script}"\nstartsecs = 0.1\n{table}')
    host.run(environment=environment)
    log = host.folder / f"log/{name}.out.log"
    until("the unit has described itself", lambda: log.exists() and log.read_text().endswith("\n"))
    described: dict[str, Any] = json.loads(log.read_text())
    return described


def _python() -> str:
    """A Python that every user may execute."""
    candidates = (os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3")
    found = next((path for path in candidates if _for_all(Path(path))), None)
    if found is None:
        pytest.skip("there is no Python that every user may execute")
    return found


def _for_all(path: Path) -> bool:
    return path.exists() and all(each.stat().st_mode & 0o001 for each in (path, *path.parents))


@needs_root
def test_a_user_with_its_groups_and_its_home(any_host: Host) -> None:
    seen = _described(any_host, 'user = "www-data"\nenvironment = { LANG = "C.UTF-8" }', HOME="/root", USER="root")

    user = pwd.getpwnam("www-data")
    assert seen["uid"] == [user.pw_uid] * 3 and seen["gid"] == [user.pw_gid] * 3
    assert seen["groups"] == sorted(set(os.getgrouplist("www-data", user.pw_gid)))
    environment = seen["environment"]
    assert {key: environment[key] for key in ("HOME", "USER", "LOGNAME", "SHELL", "LANG")} == {
        "HOME": user.pw_dir, "USER": "www-data", "LOGNAME": "www-data", "SHELL": user.pw_shell, "LANG": "C.UTF-8",
    }  # fmt: skip


@needs_root
def test_a_user_with_several_supplementary_groups(host: Host) -> None:
    several = [user for user in pwd.getpwall() if len(os.getgrouplist(user.pw_name, user.pw_gid)) > 1]
    if not several:
        pytest.skip("no user of this machine is in more than one group")
    user = several[0]

    seen = _described(host, f'user = "{user.pw_name}"')

    assert seen["groups"] == sorted(set(os.getgrouplist(user.pw_name, user.pw_gid)))


@needs_root
def test_another_group_than_the_users_own(host: Host) -> None:
    seen = _described(host, 'user = "nobody"\ngroup = "daemon"')

    gid = grp.getgrnam("daemon").gr_gid
    assert seen["uid"] == [pwd.getpwnam("nobody").pw_uid] * 3
    assert seen["gid"] == [gid] * 3
    assert gid in seen["groups"] and 0 not in seen["groups"]


@needs_root
def test_the_environments_own_words_win_over_the_users(host: Host) -> None:
    seen = _described(host, 'user = 65534\nenvironment = { HOME = "/srv", USER = "cart" }')

    assert (seen["environment"]["HOME"], seen["environment"]["USER"]) == ("/srv", "cart")


def test_directory_umask_niceness_oom_score_and_limits(any_host: Host) -> None:
    table = """
        directory = "/usr/share"
        umask = "027"
        limits = { nofile = [500, 600], core = 0, nice = 5, oom_score_adj = 300 }
    """
    seen = _described(any_host, table)

    assert (seen["directory"], seen["umask"]) == ("/usr/share", 0o027)
    assert (seen["nice"], seen["oom_score_adj"]) == (5, 300)
    assert (seen["nofile"], seen["core"]) == ([500, 600], [0, 0])


def test_a_unit_with_no_settings_has_the_daemons_own_and_the_usual_umask(host: Host) -> None:
    seen = _described(host, "")

    assert seen["umask"] == 0o022 and seen["nice"] == os.nice(0)
    assert seen["nofile"] == list(resource.getrlimit(resource.RLIMIT_NOFILE)), "not what the daemon raised for itself"
    assert seen["uid"] == [os.geteuid()] * 3


def test_the_environment_comes_from_the_daemon_the_file_and_the_table_in_this_order(host: Host) -> None:
    host.file("env", "# comment\nexport A=file\nB='two words'\nC=file\n")
    table = 'envfile = "env"\nenvironment = { C = "table", D = "{number}-{unit}", UNITD_UNIT = "forged" }'

    seen = _described(host, table, A="daemon", E="daemon", NOTIFY_SOCKET="", UNITCTL_SERVER="unix:///elsewhere")

    environment = seen["environment"]
    assert [environment[key] for key in "ABCDE"] == ["file", "two words", "table", "0-web", "daemon"]
    assert environment["UNITD_UNIT"] == "web" and environment["UNITD_GENERATION"] == "1"
    assert environment["SUPERVISOR_PROCESS_NAME"] == "web"
    assert "NOTIFY_SOCKET" not in environment and "UNITCTL_SERVER" not in environment


@pytest.mark.parametrize("limits", ["", "limits = { nice = 1 }"], ids=["plain", "with limits"])
def test_only_the_three_standard_descriptors_are_open(any_host: Host, limits: str) -> None:
    seen = _described(any_host, limits)

    assert seen["descriptors"] == [0, 1, 2]
    pipes = any_host.folder / "state" / "pipes"
    expected = "/dev/null", f"{pipes}/web@1.stdout", f"{pipes}/web@1.stderr"
    assert (seen["stdin"], seen["stdout"], seen["stderr"]) == expected


def test_descriptors_that_the_daemon_was_started_with_are_not_passed_on(host: Host) -> None:
    leaked = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        host.configure(
            f'unit.web = {{ command = "{_python()} -S -E {shutil.copy(DESCRIBE, host.folder)}", startsecs = 0.1 }}'
        )
        host.run(before_exec=lambda: os.dup2(leaked, 9))
    finally:
        os.close(leaked)
    log = host.folder / "log/web.out.log"
    until("the unit has described itself", lambda: log.exists() and log.read_text().endswith("\n"))
    assert json.loads(log.read_text())["descriptors"] == [0, 1, 2]


def test_a_unit_leads_its_own_session_and_has_no_signals_ignored_or_blocked(host: Host) -> None:
    seen = _described(host, "")

    assert seen["session"] == seen["group"] == seen["pid"] == host.unit("web")["pid"]
    # Python itself ignores PIPE and XFSZ.
    assert int(seen["ignored"], 16) & ~(1 << 12 | 1 << 24 | LIBC_SIGNALS) == 0
    assert int(seen["blocked"], 16) == 0


def test_the_shell_of_a_unit_has_no_signals_ignored(host: Host) -> None:
    host.configure(
        """
        [unit.web]
        command = ["/bin/sh", "-c", "grep SigIgn /proc/self/status; exec sleep 1000"]
        startsecs = 0.1
        """
    )
    host.run()
    log = host.folder / "log/web.out.log"
    until("the unit has written", lambda: log.exists() and log.read_text().endswith("\n"))
    assert int(log.read_text().split()[1], 16) & ~LIBC_SIGNALS == 0, "a pipeline must end when its reader does"
