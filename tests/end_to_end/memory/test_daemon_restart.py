"""What a new daemon knows of the one before it: wishes of people, and generations."""

from __future__ import annotations

import os
import signal

from tests.end_to_end.host import SERVE, Host
from tests.end_to_end.machine import until

SLEEP = "/bin/sleep 1000"


def _units(host: Host) -> dict[str, str]:
    return {name: status["wanted"] for name, status in host.units().items()}


def test_what_people_started_stopped_enabled_and_disabled_holds_for_the_next_daemon(host: Host) -> None:
    autostart = {
        "started": False, "stopped": True, "enabled": False, "disabled": True, "up": True, "down": False,
    }  # fmt: skip
    tables = (
        f'unit.{name} = {{ command = "{SLEEP}", startsecs = 0.1, autostart = {str(up).lower()} }}'
        for name, up in autostart.items()
    )
    host.configure("\n".join(tables))
    host.run()
    host.do("start", "started")
    host.do("stop", "stopped")
    assert host.ask("POST", "/v1/units/enabled/enable").status == 200
    assert host.ask("POST", "/v1/units/disabled/disable").status == 200
    before = _units(host)
    assert (before["enabled"], before["disabled"]) == ("down", "up"), "they say nothing of now"

    host.stop()
    host.run()

    assert _units(host) == {
        "started": "up", "stopped": "down", "enabled": "up", "disabled": "down", "up": "up", "down": "down",
    }  # fmt: skip
    for name, wanted in _units(host).items():
        host.until_state(name, "RUNNING" if wanted == "up" else "STOPPED")


def test_generations_grow_over_a_restart_of_the_daemon(host: Host) -> None:
    port = host.port()
    host.configure(
        f"""
        [unit.web]
        command = "{SERVE} {{port}}"
        startsecs = 0.1
        service.port = {port}
        restart.removal = "deregister"
        """
    )
    host.run()
    assert host.until_registered("web")["generation"] == 1
    host.do("restart", "web")
    host.stop()
    host.run()

    assert host.until_registered("web")["generation"] == 3
    assert host.unit("web")["generation"] == 3


def test_generations_grow_over_the_sudden_death_of_the_daemon(host: Host) -> None:
    host.configure(f'unit.web = {{ command = "{SLEEP}", startsecs = 0.1 }}')
    host.run()
    old = host.until_state("web", "RUNNING")
    host.signal(signal.SIGKILL)
    assert host.wait() == -signal.SIGKILL
    os.kill(old["pid"], signal.SIGKILL)

    host.run()

    assert host.until_state("web", "RUNNING")["generation"] == 2


def test_a_unit_that_leaves_the_configuration_and_comes_back_goes_on_with_its_generations(host: Host) -> None:
    web = f'unit.web = {{ command = "{SLEEP}", startsecs = 0.1 }}\n'
    other = f'unit.other = {{ command = "{SLEEP}", startsecs = 0.1 }}\n'
    host.configure(web + other)
    host.run()
    host.until_state("web", "RUNNING")

    host.configure(other)
    assert host.ask("POST", "/v1/config/apply", {}).status == 202
    until("the unit is forgotten", lambda: "web" not in host.units())
    host.configure(web + other)
    assert host.ask("POST", "/v1/config/apply", {}).status == 202

    assert host.until_state("web", "RUNNING")["generation"] == 2
    assert host.unit("other")["generation"] == 1
