"""Health that is lost while something else happens to the unit, or to the registry."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.end_to_end.health.scene import RegistryLog, get, notes, patient, probe, throughout, until_well
from tests.end_to_end.host import Host
from tests.end_to_end.machine import boottime, until

READINESS = """
    [unit.NAME.readiness]
    http = "/healthz"
    period = 0.2
    timeout = 0.6
    failure_threshold = 2
"""
LIVENESS = READINESS.replace("readiness", "liveness")


@pytest.fixture
def registry() -> Iterator[Host]:
    """A second daemon, whose registry the first one uses."""
    made = Host()
    made.configure("")
    made.run()
    yield made
    made.close()


def test_a_restart_goes_on_when_readiness_is_lost_meanwhile(host: Host) -> None:
    answer = host.file("answer", "200")
    host.configure(
        patient(host, "shop", port=host.port(), ttl=1.2, removal="expire", options=f"answer={answer}", tables=READINESS)
    )
    host.run()
    before, pid = until_well(host, "shop")["generation"], host.unit("shop")["pid"]

    with RegistryLog(host, ["shop"], [pid]) as registry:
        operations = host.order("restart", "shop")
        answer.write_text("503")
        until("its probe has failed", lambda: probe(host.unit("shop"), "readiness")["ok"] is False)
        status = host.unit("shop")
        assert status["state"] == "EXPIRING" and status["operation"] == operations[0]["id"], status
        answer.write_text("200")
        [operation] = host.finish(operations)
        until_well(host, "shop", before)

    assert operation["state"] == "succeeded", operation
    assert host.unit("shop")["generation"] == before + 1
    assert registry.signalled_early("shop", pid, before) == [] and len(notes(host, "shop", "term")) == 1


def test_an_unready_unit_that_is_restarted_is_stopped_at_once_and_waited_for_until_it_is_ready(host: Host) -> None:
    answer = host.file("answer", "200")
    host.configure(patient(host, "shop", port=host.port(), options=f"answer={answer}", tables=READINESS))
    host.run()
    before = until_well(host, "shop")["generation"]
    answer.write_text("503")
    host.until_state("shop", "UNHEALTHY")
    until("it is gone", lambda: host.entry("shop", "shop") is None)

    operations = host.order("restart", "shop")
    until("another process runs", lambda: host.unit("shop")["generation"] == before + 1)
    throughout(0.5, lambda: host.entry("shop", "shop") is None)
    assert host.unit("shop")["state"] == "STARTING"
    answer.write_text("200")
    [operation] = host.finish(operations)

    assert operation["state"] == "succeeded", operation
    until_well(host, "shop", before)


def test_a_drain_goes_on_when_readiness_is_lost_meanwhile_and_is_not_taken_back_into_traffic(host: Host) -> None:
    port, answer = host.port(), host.file("answer", "200")
    tables = READINESS + "[unit.NAME.drain]\ntimeout = 5\n"
    host.configure(
        patient(host, "shop", port=port, ttl=1.2, removal="expire", options=f"answer={answer}", tables=tables)
    )
    host.run()
    before = until_well(host, "shop")["generation"]

    operations = host.order("drain", "shop")
    answer.write_text("503")
    until("its probe has failed", lambda: probe(host.unit("shop"), "readiness")["ok"] is False)
    [operation] = host.finish(operations)
    assert operation["state"] == "succeeded", operation
    assert host.unit("shop")["state"] == "DRAINED"
    operations = host.order("undrain", "shop")
    assert "answered 503" in host.until_state("shop", "UNHEALTHY")["why"]
    throughout(0.4, lambda: host.entry("shop", "shop") is None)
    answer.write_text("200")
    [operation] = host.finish(operations)

    assert operation["state"] == "succeeded", operation
    assert until_well(host, "shop")["generation"] == before
    assert notes(host, "shop", "term") == []


def test_a_unit_that_dies_inwardly_while_it_drains_is_not_waited_for(host: Host) -> None:
    port = host.port()
    tables = f"{LIVENESS}[unit.NAME.drain]\ntimeout = 30\n"
    host.configure(patient(host, "shop", port=port, tables=tables))
    host.run()
    before = until_well(host, "shop")["generation"]

    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /minute HTTP/1.1\r\n\r\n")
        until("it works on that", lambda: notes(host, "shop", "asked:/minute"))
        operations = host.order("restart", "shop")
        host.until_state("shop", "DRAINING")
        get(port, "/do/fail")
        [operation] = host.finish(operations)

    assert operation["state"] == "succeeded", operation
    assert until_well(host, "shop", before)["generation"] == before + 1


def test_a_drained_unit_that_dies_inwardly_is_restarted_and_stays_drained(host: Host) -> None:
    port = host.port()
    host.configure(patient(host, "shop", port=port, tables=LIVENESS))
    host.run()
    before = until_well(host, "shop")["generation"]
    host.do("drain", "shop", owner="the test")

    get(port, "/do/mute")
    until("another process runs", lambda: host.unit("shop")["generation"] == before + 1)
    status = host.until_state("shop", "DRAINED")

    assert status["maintenance"]["owner"] == "the test" and host.entry("shop", "shop") is None
    host.do("undrain", "shop")
    until_well(host, "shop", before)


def test_a_unit_that_is_ready_again_before_its_entry_has_expired_keeps_it(host: Host) -> None:
    answer, ttl = host.file("answer", "200"), 0.9
    host.configure(
        patient(host, "shop", port=host.port(), ttl=ttl, removal="expire", options=f"answer={answer}", tables=READINESS)
    )
    host.run()
    before, pid = until_well(host, "shop")["generation"], host.unit("shop")["pid"]

    with RegistryLog(host, ["shop"], [pid]) as registry:
        answer.write_text("503")
        registry.first("it leaves", lambda look: look.entries.get("shop", {}).get("status") == "draining")
        answer.write_text("200")
        host.until_state("shop", "RUNNING")
        until_well(host, "shop")
        throughout(1.5 * ttl, lambda: host.entry("shop", "shop")["status"] == "up")

    assert {look.entries["shop"]["generation"] for look in registry.looks} == {before}


def test_a_start_that_fails_for_want_of_readiness_says_at_which_step_and_what_was_answered(host: Host) -> None:
    answer = host.file("answer", "503")
    settings = "autostart = false\nstart_timeout = 0.8\nstartretries = 0"
    options = f"answer={answer}"
    host.configure(patient(host, "shop", port=host.port(), options=options, settings=settings, tables=READINESS))
    host.run()

    [operation] = host.finish(host.order("start", "shop"))

    assert operation["state"] == "failed" and "was not ready within 0.8 s" in operation["error"], operation
    assert "answered 503" in operation["error"], operation
    states = {step["name"]: step["state"] for step in operation["steps"]}
    assert states["spawn"] == "succeeded" and states["ready"] == "failed", operation


def test_a_dead_unit_whose_registry_is_away_is_restarted_after_the_bound_and_registered_when_it_is_back(
    registry: Host, host: Host
) -> None:
    port, ttl = host.port(), 0.6
    text = patient(host, "shop", port=port, ttl=ttl, removal="expire", tables=LIVENESS)
    host.configure(text, registry=f'backend = "http", url = "unix://{registry.socket}"')
    host.run()
    until("it is registered", lambda: registry.entry("shop", "shop"))
    before, pid = host.unit("shop")["generation"], host.unit("shop")["pid"]

    registry.stop()
    throughout(ttl, lambda: host.unit("shop")["pid"] == pid)  # a registry that is away stops no unit
    ill = boottime()
    get(port, "/do/mute")
    status = host.until_state("shop", "EXPIRING")
    until("another process runs", lambda: host.unit("shop")["generation"] == before + 1)
    host.until_state("shop", "RUNNING")
    print(f"restarted {notes(host, 'shop', 'begin')[-1].at - ill:.2f} s after it fell ill: {status['why']}")
    [term] = notes(host, "shop", "term")
    assert term.pid == pid and term.at - ill > ttl

    registry.run()
    entry = until("it is registered", lambda: registry.entry("shop", "shop"))
    assert entry["generation"] == before + 1
