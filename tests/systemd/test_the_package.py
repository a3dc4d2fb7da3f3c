"""The Debian package on a host with systemd: installed, upgraded and removed, as units and their callers see it.

It needs what `make deb` has built, for this machine's own Debian: the container has this machine's files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.systemd.booted import SYSTEM, Booted, files
from tests.systemd.conftest import Boot
from tests.systemd.container import PROJECT, wait_for

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]
INSTALL = ("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--force-confold", "--install")
INSTALL_SECONDS = 60.0


@pytest.fixture
def packages(tmp_path: Path) -> tuple[Path, Path]:
    """What was built, and the same with a later version number."""
    built = sorted((PROJECT / "dist").glob("unitd_*.deb"), key=os.path.getmtime)
    if not built or shutil.which("dpkg-deb") is None:
        pytest.skip("there is no package: make deb")
    tree, later = tmp_path / "package", tmp_path / "later.deb"
    subprocess.run(["dpkg-deb", "--raw-extract", built[-1], tree], check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(control.read_text().replace("\nVersion: ", "\nVersion: 9:"))
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, later], check=True, capture_output=True
    )
    shutil.rmtree(tree)
    return built[-1], later


def without_unitd() -> dict[str, str]:
    """The files of a host that has the configuration of its units, and no unitd yet."""
    ours = ("/opt/unitd/", "/usr/lib/", f"{SYSTEM}/unit", f"{SYSTEM}/multi-user.target.wants/unitd")
    found = {path: text for path, text in files().items() if not path.startswith(ours)}
    return found | {
        "/usr/sbin/policy-rc.d": "#!/bin/sh\nexit 0\n"
    }  # this machine's may forbid packages to start anything


def install(host: Booted, package: Path) -> str:
    shutil.copy(package, host.container.shared)
    return host.container.run(*INSTALL, f"/shared/{package.name}", seconds=INSTALL_SECONDS)


def test_a_package_is_installed_upgraded_and_removed_and_units_notice_only_the_last(
    boot: Boot, packages: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.systemd.conftest.files", without_unitd)
    host = boot()
    first, later = packages

    install(host, first)
    pids = host.wait_serving()
    assert host.container.run("systemctl", "is-enabled", "unitd").strip() == "enabled"
    assert not host.container.run("systemctl", "is-active", "-q", "unit-center", "unit-gateway", check=False)

    since, daemon = time.time(), host.daemon
    said = install(host, later)
    assert "restarted; its units went on meanwhile" in said, said
    host.wait_daemon_other_than(daemon)
    assert host.pids() == pids
    host.assert_served(since, pids)

    daemon = host.daemon
    host.container.write("/etc/unitd/units.d/web.toml", host.container.read("/etc/unitd/units.d/web.toml").replace(
        'numprocs = 2', 'numprocs = 2\nenvironment = { X = "1" }'))  # fmt: skip
    said = install(host, later)
    assert "not restarted, for units would notice" in said and "environment" in said, said
    assert (host.daemon, host.pids()) == (daemon, pids)

    host.container.run("dpkg", "--remove", "unitd", seconds=INSTALL_SECONDS)
    looks = host.wait_looked(time.time())
    assert not looks[-1].seen, "nobody is registered any more"
    wait_for(lambda: not host.container.run("pgrep", "-f", "tests/systemd/serve.py", check=False), "the units' end")
    assert host.container.show("unitd", "ActiveState") == "inactive"
    assert "web" in host.container.read("/etc/unitd/units.d/web.toml")
    host.container.run("dpkg", "--purge", "unitd", seconds=INSTALL_SECONDS)
    assert host.container.run("find", "/opt/unitd", "/var/lib/unitd", "/var/log/unitd", check=False) == ""


def test_an_upgrade_of_a_daemon_that_would_stop_its_units_restarts_nothing_and_says_why(
    boot: Boot, packages: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    main = "/etc/unitd/unitd.toml"
    given = without_unitd()
    given[main] = given[main].replace('sigterm = "leave"', 'sigterm = "stop"')
    monkeypatch.setattr("tests.systemd.conftest.files", lambda: given)
    host = boot()
    first, later = packages
    install(host, first)
    pids, daemon = host.wait_serving(), host.daemon

    said = install(host, later)

    assert "not restarted, for units would notice" in said and "stops all units at SIGTERM" in said, said
    assert (host.daemon, host.pids()) == (daemon, pids)
    assert "unitd" in said and "systemctl restart unitd" in said
