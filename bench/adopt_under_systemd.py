"""kill -9 of the daemon at random moments on a host with systemd: every second time the main process alone, else all of
the service's control group.

A host is booted in a container (as `tests/systemd` does; needs root and Debian's systemd-container). From outside,
somebody follows the registry and asks each registered process who it is, twenty times a second.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # hosts are booted as tests boot them

from report import show, spread

from tests.systemd.booted import Booted, files
from tests.systemd.container import missing

MOST_SECONDS = 1.5  # between a new daemon and its death


def kill_again_and_again(host: Booted, kills: int, seed: int) -> dict[str, object]:
    """What somebody outside saw meanwhile, and what the units' logs say."""
    chance, back = random.Random(seed), []
    pids, since, daemon = host.wait_serving(), time.time(), host.daemon
    for number in range(kills):
        time.sleep(chance.uniform(0.0, MOST_SECONDS))
        began = time.monotonic()
        whom = ["--kill-who=main"] if number % 2 else []
        host.container.run("systemctl", "kill", "--signal=KILL", *whom, "unitd")
        daemon = host.wait_daemon_other_than(daemon)
        back.append(time.monotonic() - began)
    expected = {unit: str(pid) for unit, pid in pids.items()}
    looks = [look for look in host.wait_looked(time.time()) if look.at >= since]
    for unit, pid in pids.items():
        host.wait_lines(unit, pid, more_than=host.lines(unit)[pid][-1])
    return {
        "kills": kills,
        "looks": len(looks),
        "that saw something else": sum(look.seen != expected for look in looks),
        "other processes": sum(host.pids()[unit] != pid for unit, pid in pids.items()),
        "log lines, none missing": sum(len(host.lines(unit)[pid]) for unit, pid in pids.items()),
        "s until another daemon, median": spread(back)["median"],
        "at most": max(back),
    }


def main() -> int:
    """Boot, kill, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="so many deaths (default: 50)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: 1)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    chosen = parser.parse_args()
    if reason := missing():
        print(f"cannot boot a host: {reason}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="adopt-", dir="/var/tmp") as folder:
        host = Booted(Path(folder), files())
        try:
            row = kill_again_and_again(host, chosen.kills, chosen.seed)
        finally:
            host.close()
    show("kill -9 of unitd under systemd", [row], as_json=chosen.json)
    return int(bool(row["that saw something else"] or row["other processes"]))


if __name__ == "__main__":
    sys.exit(main())
