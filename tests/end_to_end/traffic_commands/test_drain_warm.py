"""drain, undrain, warm and weight typed by people: what becomes of the unit, and what they read meanwhile."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.host import ROOT, SERVE, UNITCTL, Host
from tests.end_to_end.machine import until

HOLD = SERVE.replace("serve.py", "traffic_commands/hold.py")


def _run(host: Host, more: str = "", command: str = SERVE, numprocs: int = 1, drain_seconds: float = 1) -> int:
    """A service `web` that leaves and comes back quickly; its first port."""
    port = host.port(numprocs)
    host.configure(
        f"""
        unit.job = {{ command = "/bin/sleep 1000", startsecs = 0.1 }}
        [unit.web]
        command = "{command} {{port}}"
        numprocs = {numprocs}
        startsecs = 0.1
        service = {{ port = {port}, ttl_seconds = 1 }}
        restart = {{ removal = "deregister", settle_seconds = 0.1 }}
        drain = {{ timeout = {drain_seconds}, quiet = 0.1 }}
        {more}
        """
    )
    host.run()
    for name in host.units():
        if name != "job":
            host.until_registered(name)
    return port


def _says(host: Host, *arguments: str) -> str:
    """What a command that must succeed prints."""
    done = host.unitctl(*arguments)
    assert done.returncode == 0, done
    return done.stdout


@contextmanager
def _request(port: int) -> Iterator[None]:
    """A request that nobody answers."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        yield


# drain, undrain


def test_a_drained_unit_stays_out_of_traffic_through_its_restart_until_it_is_undrained(host: Host) -> None:
    _run(host)
    first = host.unit("web")

    drained = host.unitctl("drain", "web", "--owner", "ops", "--reason", "new disk")

    assert (drained.returncode, drained.stdout) == (0, "web: drained\n"), drained
    assert "web: stopping the heartbeat" in drained.stderr.splitlines()
    assert host.entries("web") == []
    status = host.unit("web")
    assert (status["state"], status["pid"], status["weight"]) == ("DRAINED", first["pid"], 0)
    assert (status["maintenance"]["owner"], status["maintenance"]["until"]) == ("ops", None)
    assert "kept out of traffic by ops: new disk; until it is undrained" in _says(host, "status", "web")
    why = _says(host, "why", "web")
    assert f"kept out of traffic by ops since {status['maintenance']['since']}, until it is undrained: new disk" in why
    assert "ordered: drain by " in why and "    withdraw succeeded" in why

    assert "still kept out of traffic" in _says(host, "restart", "web")

    status = host.unit("web")
    assert (status["state"], status["generation"]) == ("DRAINED", first["generation"] + 1)
    assert host.entries("web") == []
    assert host.unitctl("is-active", "web").returncode == 3
    assert _says(host, "undrain", "web") == "web: undrained\n"
    assert host.entry("web", "web")["generation"] == status["generation"]
    assert (host.unit("web")["state"], host.unit("web")["maintenance"]) == ("RUNNING", None)
    assert _says(host, "undrain", "web") == "web: it is not drained\n"


def test_a_drain_ends_by_itself_when_its_time_is_over(host: Host) -> None:
    _run(host)

    said = _says(host, "drain", "web", "--for", "5s")

    moment = host.unit("web")["maintenance"]["until"]
    assert said == f"web: drained until {moment}\n"
    assert f"until {moment}" in _says(host, "status", "web")
    until("it is in traffic again", lambda: host.entry("web", "web"))
    assert host.unit("web")["state"] == "RUNNING" and host.unit("web")["maintenance"] is None


def test_a_drain_says_what_it_waits_for_and_counts_what_it_could_not_wait_for(host: Host) -> None:
    port = _run(host, command=HOLD, drain_seconds=1.5)
    with _request(port):
        until("the request is seen", lambda: host.unit("web")["in_flight"] == 1)
        assert ", 1 in flight" in _says(host, "status", "web")

        done = host.unitctl("drain", "web")

        assert (done.returncode, done.stdout) == (0, "web: drained\n")
        told, warning = done.stderr.splitlines()[-2:]
        assert told.startswith("web: waiting for the work in flight: 1 request") and told.endswith(
            " s of at most 1.5 s"
        )
        assert warning == "web: warning: 1 request was still open when the time for draining was over"
        assert host.unit("web")["live"], "its process is left alone"
        [operation] = json.loads(_says(host, "ops", "-o", "json"))
        assert (operation["verb"], operation["state"], operation["cut"]) == ("drain", "succeeded", 1)
        names = [step["name"] for step in operation["steps"]]
        assert names == ["withdraw", "gone", "settle", "drain"], operation
        assert all(step["started"] <= step["finished"] for step in operation["steps"])
        assert "1 request was still open" in _says(host, "ops")
        told_all = _says(host, "ops", operation["id"])
        assert f"{operation['steps'][3]['started']}  drain     succeeded  1." in told_all

        shutdown = host.unitctl("shutdown")

        assert shutdown.returncode == 0
        assert "of 2 still to stop; web DRAINING: 1 request" in shutdown.stderr, shutdown.stderr
    assert host.wait() == 0


def test_ctrl_c_leaves_a_drain_of_a_group_alone_and_it_can_be_followed(host: Host) -> None:
    port = _run(host, command=HOLD, numprocs=2, drain_seconds=3)
    with _request(port):
        waiting = subprocess.Popen(
            [*UNITCTL, "--server", f"unix://{host.socket}", "drain", "we*"],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )  # fmt: skip
        until("it drains", lambda: host.unit("web:0")["state"] == "DRAINING")
        waiting.send_signal(signal.SIGINT)
        out, hint = waiting.communicate(timeout=15)

        assert (waiting.returncode, out) == (130, ""), hint
        follow = hint.partition("follow: unitctl ")[2].splitlines()[0].split()[2:]  # without -s URL
        followed = host.unitctl(*follow)
        assert followed.returncode == 0, (hint, followed)
        assert "web:0: drained\n" in followed.stdout
    assert [host.unit(f"web:{number}")["state"] for number in range(2)] == ["DRAINED", "DRAINED"]


# warm, weight


def test_a_fixed_weight_survives_a_restart_until_it_is_given_back(host: Host) -> None:
    _run(host)

    assert _says(host, "weight", "web", "40") == "web: fixed at 40 of 100\n"
    until("the registry has it", lambda: host.entry("web", "web")["weight"] == 40)
    line = _says(host, "status", "web")
    assert "RUNNING" in line and "weight 40/100" in line and line.endswith(", fixed at 40 of 100\n")
    _says(host, "restart", "web")
    assert host.entry("web", "web")["weight"] == 40
    assert (host.unit("web")["weight"], host.unit("web")["warmup"]) == (40, "fixed at 40 of 100")
    refused = host.unitctl("warm", "web")
    assert refused.returncode == 2 and "first give it back" in refused.stderr

    assert _says(host, "weight", "web", "auto") == "web: at its full weight of 100\n"

    until("the registry has it", lambda: host.entry("web", "web")["weight"] == 100)
    assert host.unit("web")["warmup"] is None


def test_a_ramp_can_be_paused_resumed_jumped_on_and_replaced(host: Host) -> None:
    _run(host, "warmup = { initial = 50, step = 25, period = 600 }")

    line = _says(host, "status", "web")
    assert "WARMING" in line and "weight 50/100" in line and "warming: 50 of 100, next step in " in line
    assert host.unitctl("is-active", "web").returncode == 0, "it serves"
    assert _says(host, "warm", "web", "--pause") == "web: paused at 50 of 100\n"
    assert "paused at 50 of 100" in _says(host, "why", "web")
    assert _says(host, "warm", "web", "--resume").startswith("web: warming: 50 of 100, next step in ")
    assert _says(host, "warm", "web", "--jump", "80").startswith("web: warming: 80 of 100, next step in ")
    until("the registry has it", lambda: host.entry("web", "web")["weight"] == 80)
    ramp = ("--initial", "5", "--step", "5", "--period", "3m")
    assert _says(host, "warm", "web", *ramp) == "web: warming: 5 of 100, next step in 180.0 s\n"
    assert _says(host, "warm", "web", "--jump", "100") == "web: at its full weight of 100\n"
    assert host.unit("web")["state"] == "RUNNING"
    assert _says(host, "warm", "web").startswith("web: warming: 50 of 100"), "the configured ramp again"


def test_a_rolling_restart_says_that_it_waits_for_the_full_weight_of_the_one_before(host: Host) -> None:
    _run(host, "warmup = { initial = 50, step = 50, period = 1.5 }", numprocs=2)

    done = host.unitctl("restart", "web")

    assert done.returncode == 0, done
    lines = done.stderr.splitlines()
    assert "web:1: waits for the restart of web:0" in lines
    told = [line for line in lines if line.startswith("web:1: waits for the full weight of web:0: warming: 50 of 100")]
    assert len(told) == 1, lines
    first, second = json.loads(_says(host, "ops", "-o", "json"))
    assert [step["name"] for step in second["steps"]][:2] == ["wait", "withdraw"]
    assert second["steps"][0]["detail"].startswith("waits for the full weight of web:0")
    assert second["steps"][1]["started"] > first["finished"]


# Wrong usage


@pytest.fixture
def shop(host: Host) -> Host:
    """A running one."""
    _run(host)
    return host


def test_what_cannot_be_done_is_refused_with_the_way_out_and_nothing_changes(shop: Host) -> None:
    for line, code, hint in (
        ("drain", 2, "drain all"),
        ("drain wbe", 4, "did you mean web?"),
        ("drain web wbe", 4, "did you mean web?"),
        ("drain job", 2, "it has neither a service nor a drain table"),
        ("drain web --for 1h --until 18:00", 2, "give one of them"),
        ("drain web --for 400d", 2, "not a length of time such as"),
        ("drain web --until 2020-01-01T00:00Z", 2, "that is past"),
        ("drain web --until soon", 2, "not a time such as 18:00"),
        ("warm job", 2, "it has no service"),
        ("warm web --pause --jump 5", 2, "choose a new ramp"),
        ("warm web --jump 0", 2, "1<=x<=100"),
        ("warm web --initial 1 --step 1 --period 3d", 2, "may take"),
        ("weight web", 2, "say for example"),
        ("weight web 0", 2, "to send it nothing, use drain"),
        ("weight web 101", 2, "from 1 to its full weight of 100"),
        ("weight job 5", 2, "it has no service"),
    ):
        done = shop.unitctl(*line.split())
        assert (done.returncode, done.stdout) == (code, ""), done
        assert hint in done.stderr, done
    status = shop.unit("web")
    assert (status["state"], status["weight"], status["maintenance"]) == ("RUNNING", 100, None)
    assert json.loads(_says(shop, "ops", "-o", "json")) == []


# What every order may say


def test_a_repeated_command_is_the_same_command_and_a_late_one_is_not_begun(shop: Host) -> None:
    first = _says(shop, "restart", "web", "--command-id", "deploy-1", "--reason", "build 7")
    again = _says(shop, "restart", "web", "--command-id", "deploy-1", "--reason", "build 7")

    other = shop.unitctl("stop", "web", "--command-id", "deploy-1")
    late = shop.unitctl("restart", "web", "--deadline", "2020-01-01T00:00Z")
    late_weight = shop.unitctl("weight", "web", "7", "--deadline", "2020-01-01T00:00Z")

    assert again == first and shop.unit("web")["generation"] == 2
    assert other.returncode == 2
    assert "the command deploy-1 asked for something else before; use another id" in other.stderr
    for done in (late, late_weight):
        assert done.returncode == 1 and "the deadline 2020-01-01T00:00:00.000Z has passed" in done.stderr, done
    assert (shop.unit("web")["generation"], shop.unit("web")["weight"]) == (2, 100)
    operations = json.loads(_says(shop, "ops", "-o", "json"))
    assert [(item["verb"], item["state"]) for item in operations] == [("restart", "succeeded")]
    assert (operations[0]["command_id"], operations[0]["reason"]) == ("deploy-1", "build 7")
    assert "command deploy-1, finished at " in _says(shop, "ops", operations[0]["id"])


# What else is shown


def test_a_unit_that_lost_its_readiness_is_shown_with_what_its_probe_says(host: Host) -> None:
    flag = host.file("ready", "")
    _run(host, f'readiness = {{ exec = ["/usr/bin/test", "-e", "{flag}"], period = 0.1, failure_threshold = 2 }}')
    Path(flag).unlink()
    status = host.until_state("web", "UNHEALTHY")

    line = host.unitctl("status", "web").stdout
    why = _says(host, "why", "web")

    assert "UNHEALTHY" in line and "weight 0/100" in line and "not serving; " in line
    [probe] = [probe for probe in status["probes"] if probe["role"] == "readiness"]
    assert (probe["kind"], probe["ok"]) == ("exec", False) and probe["streak"] <= -2
    assert "probe: readiness (exec): failed, " in why and " failures in a row, the last " in why


def test_events_are_numbered_on_over_a_restart_of_the_daemon(shop: Host) -> None:
    last = json.loads(_says(shop, "events", "-o", "json"))[-1]["seq"]
    assert _says(shop, "events", "--since", str(last)) == ""
    shop.stop()
    shop.run()
    shop.until_registered("web")

    events = json.loads(_says(shop, "events", "--since", str(last), "-o", "json"))

    assert events and all(event["seq"] > last for event in events)
    assert _says(shop, "events", "-v", "-n", "1").startswith(f"{events[-1]['seq']}  ")
