"""The machine as the daemon sees it: real limits of this process, and of processes with others."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.model import Limits, UnitSpec
from supervisor.host import doctor
from supervisor.host.cgroup import own_cgroup
from supervisor.host.traffic import Sockets

LIMITED = {"a": UnitSpec("a", "a", 0, ("true",), limits=Limits(memory_max=1 << 20))}


def elsewhere(expression: str, *, uid: int | None = None, before: str = "", **limits: tuple[int, int]) -> Any:
    """What an expression says in a process of its own, with limits, as another user."""
    lines = [f"resource.setrlimit(resource.RLIMIT_{name}, {value})" for name, value in limits.items()]
    user = f"os.setgroups([]); os.setuid({uid})" if uid is not None else ""
    script = "\n".join(
        ["import json, os, resource", "from supervisor.host import doctor", "from supervisor.host.traffic import Sockets",
         *lines, before, user, f"print(json.dumps({expression}))"]
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_open_files_of_this_process_suffice_for_a_unit_and_not_for_a_million() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 10_000), hard))
    try:
        assert doctor.look_at_descriptors(1).outcome == "ok"
        found = doctor.look_at_descriptors(1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found.outcome == "problem" and "LimitNOFILE" in found.action


def test_a_low_limit_of_open_files_is_a_problem() -> None:
    assert elsewhere("doctor.look_at_descriptors(50).outcome", NOFILE=(64, 64)) == "problem"


def test_this_machine_has_room_for_a_process_and_not_for_a_billion() -> None:
    assert [item.outcome for item in doctor.look_at_processes(1)] == ["ok"]
    assert "problem" in [item.outcome for item in doctor.look_at_processes(1_000_000_000)]


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_the_users_limit_of_processes_counts_for_all_but_root() -> None:
    expression = "[item.message for item in doctor.look_at_processes(50) if item.outcome == 'problem']"
    limits = {"NPROC": (20, 20)}
    assert elsewhere(expression, **limits) == []
    (found,) = elsewhere(expression, uid=65534, **limits)
    assert found.startswith("RLIMIT_NPROC: ")


def test_limits_of_cgroups_are_read_from_the_folders_above_as_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    for folder, limit in ((tmp_path, "100"), (inner, "max")):
        (folder / "pids.max").write_text(f"{limit}\n")
        (folder / "pids.current").write_text("60\n")
    monkeypatch.setattr(doctor, "own_cgroup", lambda: inner)
    (found,) = doctor.look_at_processes(50)
    assert found.outcome == "problem" and f"pids.max of {tmp_path}: 60 in use, 100 allowed" in found.message


def test_units_without_cgroups_lose_their_limits(tmp_path: Path) -> None:
    assert doctor.look_at_cgroups("auto", None, {}).outcome == "warning"
    assert doctor.look_at_cgroups("auto", None, LIMITED).outcome == "problem"
    (tmp_path / "cgroup.subtree_control").write_text("cpu\n")
    assert doctor.look_at_cgroups("auto", tmp_path, LIMITED).outcome == "problem"
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids\n")
    assert doctor.look_at_cgroups("auto", tmp_path, LIMITED).outcome == "ok"


def test_connections_and_owners_of_ports_can_be_seen_here() -> None:
    sockets = Sockets()
    found = doctor.look_at_sight(sockets, {"web": os.getpid(), "gone": 2**22 + 1})
    sockets.close()
    assert [item.outcome for item in found] == ["ok", "ok"]


class Blind(Sockets):
    """A kernel that has no sock_diag."""

    def connections(self, address: str, port: int) -> Any:
        raise OSError(2, "No such file or directory")


def test_a_kernel_that_does_not_list_connections_is_told() -> None:
    found = doctor.look_at_sight(Blind(), {})
    assert (found[0].outcome, found[0].subject) == ("warning", "connections")
    assert "No such file" in found[0].message and found[0].action


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_user_that_may_not_see_what_units_hold_is_told() -> None:
    other = subprocess.Popen(["sleep", "100"])
    try:
        found = elsewhere(f"doctor.look_at_sight(Sockets(), {{'web': {other.pid}}})[1].message", uid=65534)
    finally:
        other.kill()
        other.wait()
    assert found.startswith("web: ") and "stranger" in found


def test_the_service_that_the_daemon_is_has_the_name_of_its_cgroup(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Path("/sys/fs/cgroup/system.slice/unitd.service/unitd-7/daemon")
    monkeypatch.setattr(doctor, "own_cgroup", lambda: group)
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    assert doctor.manager_unit() is None, "a login's service is not ours"
    monkeypatch.setenv("INVOCATION_ID", "0" * 32)
    assert doctor.manager_unit() == "unitd.service"
    monkeypatch.setattr(doctor, "own_cgroup", lambda: None)
    assert doctor.manager_unit() is None


def test_our_own_cgroup_is_a_folder_if_there_is_one() -> None:
    own = own_cgroup()
    assert own is None or own.is_dir()
