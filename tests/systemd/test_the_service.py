"""On a host with systemd: what `systemctl` shows of the service, and what it makes the daemon do."""

from __future__ import annotations

import time

import pytest

from tests.systemd.booted import SYSTEM, WEB
from tests.systemd.conftest import Boot
from tests.systemd.container import wait_for

pytestmark = [pytest.mark.real, pytest.mark.timeout(90)]

_FLEETING = """
[unit.fleeting]
command = "/bin/sh -c 'while ! test -e /shared/go; do sleep 0.05; done; seq 2000; echo end; : > /shared/gone'"
autorestart = false
"""


def test_units_have_control_groups_of_their_own_apart_from_the_daemons(boot: Boot) -> None:
    host = boot()
    pids = host.wait_serving()
    groups = {unit: host.container.read(f"/proc/{pid}/cgroup") for unit, pid in pids.items()}
    for unit, group in groups.items():
        assert "/system.slice/unitd-units.service/" in group
        assert group.strip().endswith(f"/{unit}-1")
    assert len(set(groups.values())) == len(pids)
    assert "/system.slice/unitd.service" in host.container.read(f"/proc/{host.daemon}/cgroup")
    for name in ("unitd", "unitd-units"):
        assert host.container.show(name, "Result") == "success"


def test_reload_applies_the_files_and_tells_of_mistakes(boot: Boot) -> None:
    host = boot()
    pids = host.wait_serving()
    host.container.write("/etc/unitd/units.d/other.toml", '[unit.other]\ncommand = "/bin/sleep 1000"\n')
    host.container.run("systemctl", "reload", "unitd")
    wait_for(lambda: host.pids().get("other"), "the unit that is new")
    host.container.write("/etc/unitd/units.d/other.toml", '[unit.other]\ncomand = "/bin/sleep 1000"\n')
    assert host.container.run("sh", "-c", "systemctl reload unitd; echo $?", check=True).split()[-1] != "0"
    assert "comand" in host.journal()
    assert host.is_active()
    found = host.pids()
    assert found.pop("other")
    assert found == pids


def test_what_a_unit_said_that_ended_while_no_daemon_was_there_is_written(boot: Boot) -> None:
    host = boot(WEB + _FLEETING)
    host.wait_serving()
    wait_for(lambda: host.pids().get("fleeting"), "the unit that ends")
    held = host.container.show("unitd", "NFileDescriptorStore")
    assert int(held) >= 3
    # Stopped in the midst of a restart: the store is kept for as long as somebody wants the service up again.
    host.container.run("mkdir", "-p", f"{SYSTEM}/unitd.service.d")
    host.container.write(f"{SYSTEM}/unitd.service.d/late.conf", "[Service]\nRestartSec=3\n")
    host.container.run("systemctl", "daemon-reload")
    daemon = host.daemon
    host.container.run("systemctl", "kill", "--signal=KILL", "unitd")
    (host.container.shared / "go").touch()
    wait_for((host.container.shared / "gone").exists, "the unit's end")
    assert host.daemon in (0, daemon)
    host.wait_daemon_other_than(daemon)
    expected = [*map(str, range(1, 2001)), "end"]
    log = "/var/log/unitd/fleeting.out.log"
    wait_for(lambda: "end" in host.container.read(log), f"its last words: {host.journal()}")
    assert host.container.read(log).split() == expected
    wait_for(lambda: int(host.container.show("unitd", "NFileDescriptorStore")) < int(held), "the store's entry to go")


def test_a_daemon_that_stands_still_is_replaced_and_units_do_not_notice(boot: Boot) -> None:
    drop_in = {f"{SYSTEM}/unitd.service.d/soon.conf": "[Service]\nWatchdogSec=2\nTimeoutAbortSec=2\n"}
    host = boot(**drop_in)
    pids = host.wait_serving()
    since, daemon = time.time(), host.daemon
    time.sleep(5)  # more than twice what it may be silent: as long as it works nobody ends it
    assert host.daemon == daemon, host.journal()
    host.container.run("kill", "-STOP", str(daemon))
    host.wait_daemon_other_than(daemon)
    assert "Watchdog timeout" in host.journal()
    assert host.pids() == pids
    host.assert_served(since, pids)
