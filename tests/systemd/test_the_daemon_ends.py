"""On a host with systemd, whatever ends the daemon: units go on, registered all the time, and no line is lost."""

from __future__ import annotations

import time

import pytest

from tests.systemd.conftest import Boot

pytestmark = [pytest.mark.real, pytest.mark.timeout(90)]


def test_units_do_not_notice_that_the_daemon_is_killed_restarted_or_stopped(boot: Boot) -> None:
    host = boot()
    pids = host.wait_serving()
    since, daemon = time.time(), host.daemon
    for ending in ("kill --kill-who=main --signal=KILL unitd", "restart unitd", "kill --signal=KILL unitd"):
        host.container.run("systemctl", *ending.split())
        daemon = host.wait_daemon_other_than(daemon)
        assert host.pids() == pids, host.journal()
    host.container.run("systemctl", "stop", "unitd")
    assert host.container.show("unitd", "ActiveState") == "inactive"
    host.container.run("systemctl", "start", "unitd")
    assert host.pids() == pids
    host.assert_served(since, pids)
    for unit, pid in pids.items():
        host.wait_lines(unit, pid, more_than=host.lines(unit)[pid][-1] + 50)
        assert list(host.lines(unit)) == [pid]
