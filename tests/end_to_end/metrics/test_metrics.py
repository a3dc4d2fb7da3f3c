"""What a real daemon tells Prometheus: all that is documented, with the values that are true."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.docs.metric_names import documented
from tests.end_to_end.conftest import RequiresProgram
from tests.end_to_end.host import ROOT, SERVE, Host
from tests.end_to_end.machine import until

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def scraped() -> Iterator[Host]:
    """A host on which some things have happened."""
    host = Host()
    port = host.port(2)
    host.configure(
        f"""
[unit.web]
command = "{SERVE} {{port}}"
numprocs = 2
service.port = {port}
service.ttl_seconds = 20
restart.settle_seconds = 0
restart.removal = "deregister"

[unit.job]
command = "/bin/sleep 1000"
startsecs = 0
autorestart = true
restart.backoff_initial = 0
"""
    )
    host.run()
    until("all are up", lambda: all(unit["ready"] for unit in host.units().values()))
    pid = host.unit("job")["pid"]
    assert all(item["state"] == "succeeded" for item in host.finish(host.order("restart", "web:0")))
    subprocess.run(["kill", "-KILL", str(pid)], check=True)
    until("it has a new process", lambda: host.unit("job")["pid"] not in (None, pid))
    assert host.ask("GET", "/no/such/path").status == 404
    yield host
    host.close()


def _scrape(host: Host) -> str:
    answer = host.ask("GET", "/metrics")
    assert answer.status == 200
    return answer.body.decode()


def _samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _value(samples: Samples, name: str, **labels: str) -> float:
    """The only sample that has these labels, whatever else it has."""
    found = [value for (other, own), value in samples.items() if other == name and labels.items() <= dict(own).items()]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def test_it_tells_what_the_page_describes_and_nothing_else(scraped: Host) -> None:
    """Names, types and labels."""
    text, described = _scrape(scraped), documented("unitd")
    told = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert told == {name: kind for name, (kind, _) in described.items()}
    for (name, labels), _ in _samples(text).items():
        family = re.sub(r"_(bucket|sum|count)$", "", name) if name not in described else name
        assert {key for key, _ in labels} - {"le"} == set(described[family][1]), name


def test_units_and_their_leases_are_as_the_api_says(scraped: Host) -> None:
    samples = _samples(_scrape(scraped))
    assert _value(samples, "unitd_units") == 3
    assert _value(samples, "unitd_ready") == 1
    for unit in "web:0", "web:1", "job":
        assert _value(samples, "unitd_unit_up", unit=unit) == 1
        assert _value(samples, "unitd_unit_state", unit=unit, state="RUNNING") == 1
    assert (
        _value(samples, "unitd_unit_weight", unit="web:1")
        == _value(samples, "unitd_unit_full_weight", unit="web:1")
        == 100
    )
    assert _value(samples, "unitd_lease_state", unit="web:1", service="web", registry="main", state="held") == 1
    assert _value(samples, "unitd_lease_ttl_seconds", unit="web:1") == 20
    assert 0 <= _value(samples, "unitd_lease_age_seconds", unit="web:1") <= 20
    assert ("unitd_unit_weight", frozenset({("unit", "job"), ("service", "")})) not in samples, "it has no service"


def test_what_has_happened_was_counted(scraped: Host) -> None:
    samples = _samples(_scrape(scraped))
    assert _value(samples, "unitd_unit_restarts_total", unit="web:0", cause="command") == 1
    assert _value(samples, "unitd_unit_restarts_total", unit="job", cause="crash") == 1
    assert _value(samples, "unitd_unit_automatic_restarts_total", unit="job") == 1
    assert _value(samples, "unitd_unit_requests_cut_total", unit="web:0") == 0
    assert _value(samples, "unitd_operation_duration_seconds_count", verb="restart", outcome="succeeded") == 1
    assert _value(samples, "unitd_command_latency_seconds_count", verb="restart") == 1
    for step in "withdraw", "gone", "drain", "terminate", "spawn", "ready", "register":
        assert _value(samples, "unitd_operation_step_seconds_count", step=step) == 1, step
    assert _value(samples, "unitd_removal_wait_seconds_count", outcome="gone") == 1
    assert _value(samples, "unitd_removal_wait_ratio_count") == 1
    assert _value(samples, "unitd_removal_wait_ratio_bucket", le="1") == 1, "it was in time"
    assert _value(samples, "unitd_drain_seconds_count", service="web", outcome="quiet") == 1
    assert _value(samples, "unitd_lease_renewals_total", outcome="confirmed") >= 3
    assert (
        _value(samples, "unitd_http_requests_total", method="POST", route="/v1/units/{unit}/restart", status="202") == 1
    )
    assert _value(samples, "unitd_http_requests_total", route="other", status="404") == 1


def test_the_daemon_tells_of_itself(scraped: Host) -> None:
    _scrape(scraped)  # an answer is counted when it has been given
    first, second = _samples(_scrape(scraped)), _samples(_scrape(scraped))
    assert _value(second, "unitd_uptime_seconds") > _value(first, "unitd_uptime_seconds") > 0
    for name in "cpu_seconds_total", "resident_memory_bytes", "virtual_memory_bytes", "open_fds", "start_time_seconds":
        assert _value(first, f"process_{name}") > 0, name
    assert _value(first, "process_open_fds") < _value(first, "process_max_fds")
    assert _value(first, "unitd_journal_bytes") > 0
    asked = "unitd_http_requests_total", {"method": "GET", "route": "/metrics", "status": "200"}
    assert _value(second, asked[0], **asked[1]) == _value(first, asked[0], **asked[1]) + 1


def test_nothing_is_loaded_for_whoever_does_not_ask() -> None:
    """A daemon that is neither scraped nor asked for its description is as small as one that cannot be."""
    script = "import sys; import supervisor.daemon; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    loaded = set(ended.stdout.split())
    assert "supervisor.control.api" in loaded
    assert not {name for name in loaded if name.startswith(("prometheus_client", "supervisor.openapi"))}
    assert not {"supervisor.agents.metrics", "supervisor.core.exposition", "supervisor.agents.lag"} & loaded


def test_the_node_in_one_answer(scraped: Host) -> None:
    node = scraped.ask("GET", "/v1/node").json
    assert (node["node"], node["units"], node["services"], node["open_operations"]) == ("here", 3, ["web"], 0)
    assert node["life"] == 1 and node["state_id"] and node["uptime_seconds"] > 0
    assert node["started_at"] < node["time"]
    operations = scraped.order("restart", "web")
    assert scraped.ask("GET", "/v1/node").json["open_operations"] == 2
    scraped.finish(operations)


def test_another_life_of_the_daemon_is_told_from_the_first(host: Host) -> None:
    host.configure("")
    host.run()
    first = host.ask("GET", "/v1/node").json
    host.signal(signal.SIGTERM)
    host.wait()
    host.run()
    second = host.ask("GET", "/v1/node").json
    assert second["state_id"] == first["state_id"]
    assert (first["life"], second["life"]) == (1, 2)


@pytest.mark.real
def test_prometheus_finds_nothing_to_complain_of(scraped: Host, requires_program: RequiresProgram) -> None:
    promtool = requires_program("promtool", "prometheus")
    ended = subprocess.run(
        [promtool, "check", "metrics"], input=_scrape(scraped), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
