"""`unitctl doctor` on a real daemon: in order, with a registry that is away, with entries that are nobody's."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.end_to_end.host import SERVE, UNITCTL, Host
from tests.end_to_end.machine import until

UNIT = """
[unit.web]
command = "{serve} {{port}}"
startsecs = 0
service = {{ port = {port} }}
restart = {{ removal = "deregister" }}
drain = {{ quiet = 0.1 }}
"""


def unit(host: Host) -> str:
    return UNIT.format(serve=SERVE, port=host.port())


def examine(host: Host, code: int = 0) -> list[dict[str, Any]]:
    done = host.unitctl("doctor", "-o", "json")
    assert done.returncode == code, (done.stdout, done.stderr)
    return list(json.loads(done.stdout)["findings"])


def bad(findings: list[dict[str, Any]]) -> dict[str, str]:
    """What is neither well nor about this machine's disks and limits: dict[check, message]."""
    own = ("state_dir", "log_dir", "socket_dir", "descriptors", "processes", "cgroup")
    return {item["check"]: item["message"] for item in findings if item["outcome"] != "ok" and item["check"] not in own}


def test_a_daemon_in_order_is_found_in_order(any_host: Host) -> None:
    any_host.configure(unit(any_host))
    any_host.run()
    any_host.until_registered("web")
    findings = examine(any_host)
    assert bad(findings) == {}
    assert {item["check"] for item in findings} >= {
        "daemon", "rights", "socket_rights", "configuration", "registry", "ttl", "settle", "clock", "entries", "missing",
        "cgroup", "descriptors", "processes", "sight", "state_dir", "log_dir", "socket_dir", "journal", "sockets", "stop_limit",
    }  # fmt: skip
    (cgroup,) = [item for item in findings if item["check"] == "cgroup"]
    assert ("below" in cgroup["message"]) is (any_host.cgroup == "auto")
    any_host.stop()


def test_entries_that_no_unit_holds_are_told(host: Host) -> None:
    host.configure(unit(host))
    host.run()
    entry = host.until_registered("web")
    stale = {**entry, "instance": "here/gone", "unit": "gone", "generation": 4}
    answer = host.ask("PUT", "/v1/registry/services/web/here/gone", {"entry": stale, "ttl_seconds": 3600})
    assert answer.status < 300, answer
    assert "here/gone of web (generation 4)" in bad(examine(host))["entries"]
    host.stop()


def test_a_registry_that_is_away_is_a_problem(host: Host) -> None:
    url = f"http://127.0.0.1:{host.port()}"
    host.configure("", registry=f'backend = "http", url = "{url}", ttl_seconds = 1')
    host.run()
    findings = examine(host, code=1)
    assert url in bad(findings)["registry"]
    host.stop()


def test_files_that_have_changed_are_told(host: Host) -> None:
    text = unit(host)
    host.configure(text)
    host.run()
    host.until_registered("web")
    host.configure(text + "stopwaitsecs = 3\n")
    assert "not applied" in bad(examine(host))["configuration"]
    host.configure(text + "stopwaitsec = 3\n")
    assert "unknown key" in bad(examine(host, code=1))["configuration"]
    host.stop()


def test_a_daemon_that_was_killed_is_69_with_what_can_be_seen(host: Host) -> None:
    host.configure("")
    host.run()
    assert host.daemon is not None
    host.daemon.kill()
    host.daemon.wait()
    done = subprocess.run([*UNITCTL, "-c", str(host.config), "doctor", "-o", "json"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 69, done
    told = {item["check"]: item["outcome"] for item in json.loads(done.stdout)["findings"]}
    assert (told["sockets"], told["journal"], told["configuration"]) == ("warning", "ok", "ok")
    host.run()
    host.stop()


def test_it_is_asked_again_and_again_without_leaving_descriptors_open(host: Host) -> None:
    host.configure(unit(host))
    host.run()
    host.until_registered("web")

    def in_use() -> int:
        (found,) = [item for item in host.ask("GET", "/v1/doctor").json["findings"] if item["check"] == "descriptors"]
        return int(found["message"].split()[0])

    first = in_use()
    numbers = [in_use() for _ in range(20)]
    assert max(numbers) <= first + 1, numbers
    until("the daemon is well", lambda: host.ask("GET", "/readyz").status == 200)
    host.stop()


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_it_only_answers_questions(host: Host, method: str) -> None:
    host.configure("")
    host.run()
    assert host.ask(method, "/v1/doctor").status == 405
    host.stop()
