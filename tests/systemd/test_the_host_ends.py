"""On a host that shuts down or reboots, units leave in order while the network is there; afterwards they are back."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.systemd.booted import UNITS, Booted
from tests.systemd.conftest import Boot
from tests.systemd.container import wait_for

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

_ASK = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=20)
connection.request("GET", "/slow")
answer = connection.getresponse()
print(answer.status, answer.read().decode(), flush=True)
"""


def _ask_slowly(host: Booted, folder: Path) -> Path:
    """Send each unit a request that it takes its time for; answers where its answers are to be read."""
    log = folder / "slow.txt"
    for port in (9080, 9081):
        host.container.start_outside([sys.executable, "-c", _ASK, str(port)], log)
    in_flight = "ss -Htn state established '( sport = :9080 or sport = :9081 )'"
    wait_for(lambda: len(host.container.run("sh", "-c", in_flight).splitlines()) >= 2, "requests in flight")
    return log


def _assert_left_in_order(host: Booted, since: float, pids: dict[str, int], answers: Path) -> None:
    expected = {f"200 {pid}" for pid in pids.values()}
    wait_for(lambda: len(answers.read_text().splitlines()) == len(pids), f"answers: {answers.read_text()}")
    assert set(answers.read_text().splitlines()) == expected
    gone_at = float((host.container.shared / "network-gone").read_text())
    looks = [look for look in host.looks() if since <= look.at < gone_at and not look.trouble]
    assert looks[-1].seen == {}, host.container.console()
    listed = [look for look in looks if look.seen]
    answered = [answer for look in listed for answer in look.seen.values()]
    assert set(answered) == {str(pid) for pid in pids.values()}  # whoever was listed answered, to the end


@pytest.mark.parametrize("verb", ["poweroff", "reboot"])
def test_units_are_drained_and_out_of_the_registry_before_the_network_goes(
    boot: Boot, tmp_path: Path, verb: str
) -> None:
    host = boot()
    pids = host.wait_serving()
    answers = _ask_slowly(host, tmp_path)
    since, first = time.time(), host.container.init
    host.container.run("systemctl", verb, check=False)
    mark = host.container.shared / "network-gone"
    wait_for(lambda: mark.exists() and mark.read_text(), f"the network's end: {host.container.console()}", 60)
    _assert_left_in_order(host, since, pids, answers)
    if verb == "poweroff":
        host.container.wait_off()
        return
    host.container.wait_booted(first)
    host.wait_serving()
    assert all(unit["generation"] == 2 for unit in host.statuses())
    for unit, pid in pids.items():
        numbers = host.lines(unit)[pid]
        assert numbers == list(range(1, len(numbers) + 1))


def test_shutdown_by_hand_stops_the_units_in_order_and_systemd_leaves_it_at_that(boot: Boot) -> None:
    host = boot()
    pids = host.wait_serving()
    since = time.time()
    host.container.run("/opt/unitd/bin/unitctl", "shutdown", seconds=60)
    wait_for(lambda: host.container.show("unitd", "ActiveState") == "inactive", host.journal())
    assert host.container.show("unitd", "Result") == "success"
    looks = host.wait_looked(time.time())
    assert looks[-1].seen == {}
    failed = [look for look in looks if look.at > since and any(not word.isdigit() for word in look.seen.values())]
    assert not failed
    assert not any(Path(f"/proc/{host.container.init}/root/proc/{pid}").exists() for pid in pids.values())
    host.container.run("systemctl", "start", "unitd")
    assert tuple(host.wait_serving()) == UNITS
