"""The control center on a host with systemd, as a user of its own that sees and may do little."""

from __future__ import annotations

import pytest

from tests.systemd.booted import PROJECT, SYSTEM
from tests.systemd.conftest import Boot
from tests.systemd.container import PACKAGES, SOURCE, wait_for

pytestmark = [pytest.mark.real, pytest.mark.timeout(90)]

_SCRIPT = f"""#!/usr/bin/python3 -P
import sys
sys.path[:0] = ["{SOURCE}", "{PACKAGES}"]
from control_center.boot import main
sys.exit(main())
"""


@pytest.mark.usefixtures("system_python")
def test_the_control_center_works_in_its_sandbox(boot: Boot) -> None:
    host = boot(
        **{
            "/opt/unitd/bin/unit-center": _SCRIPT,
            "/etc/unitd/unit-center.toml": (PROJECT / "etc/unit-center.toml").read_text(),
            f"{SYSTEM}/multi-user.target.wants/unit-center.service": f"-> {SYSTEM}/unit-center.service",
        }
    )
    container = host.container
    wait_for(
        lambda: container.show("unit-center", "ActiveState") == "active",
        f"the center: {container.run('journalctl', '--no-pager', '-u', 'unit-center', '-o', 'cat', check=False)}",
    )
    pid = container.show("unit-center", "MainPID")
    status = dict(line.split(":\t", 1) for line in container.read(f"/proc/{pid}/status").splitlines() if ":\t" in line)
    assert status["Uid"].split()[0] != "0"
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    asked = container.run(
        "python3", "-c", "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9300/healthz').status)"
    )
    assert asked.strip() == "200"
    assert container.run("stat", "-c", "%U %a", "/var/lib/unit-center").strip() == "unit-center 750"
    assert container.run("stat", "-c", "%G %a", "/etc/unitd/unit-center.toml").strip() == "unit-center 640"
    container.run("systemctl", "stop", "unit-center")
    assert container.show("unit-center", "Result") == "success"
