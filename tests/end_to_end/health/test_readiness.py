"""Readiness lost and regained: who is in the registry, and what people read of it."""

from __future__ import annotations

import os
import signal
import socket

from tests.end_to_end.health.scene import (
    LATE_SECONDS,
    RegistryLog,
    get,
    notes,
    patient,
    probe,
    throughout,
    until_well,
)
from tests.end_to_end.host import Host
from tests.end_to_end.machine import boottime, is_alive, until

READINESS = """
    [unit.NAME.readiness]
    http = "/healthz"
    period = 0.2
    timeout = 1
    failure_threshold = 2
"""


def test_a_frozen_unit_without_any_probe_leaves_the_registry_and_comes_back_when_it_goes_on(host: Host) -> None:
    port, ttl = host.port(), 0.9
    host.configure(patient(host, "shop", port=port, ttl=ttl))
    host.run()
    before, pid = until_well(host, "shop")["generation"], host.unit("shop")["pid"]

    with RegistryLog(host, ["shop"], [pid]) as registry:
        frozen = boottime()
        os.kill(pid, signal.SIGSTOP)
        gone = registry.gone("shop", before)
        status = host.until_state("shop", "UNHEALTHY")
        assert "is stopped" in status["why"], status
        assert host.entry("shop", "shop") is None
        os.kill(pid, signal.SIGCONT)
        went_on = boottime()
        entry = until_well(host, "shop")
        back = boottime()

    print(f"frozen: gone after {gone - frozen:.2f} s, back {back - went_on:.2f} s after it went on")
    assert gone - frozen < ttl / 3 + 2 * ttl / 3 + 1 + LATE_SECONDS
    assert entry["generation"] == before and host.unit("shop")["pid"] == pid and is_alive(pid)
    assert notes(host, "shop", "term") == []


def test_a_unit_without_any_probe_that_accepts_no_connection_leaves_the_registry(host: Host) -> None:
    port = host.port()
    host.configure(patient(host, "shop", port=port, ttl=0.9, tables="[unit.NAME.drain]\ntimeout = 0.5"))
    host.run()
    until_well(host, "shop")

    get(port, "/do/busy")
    until("it is busy", lambda: notes(host, "shop", "busy"))
    with socket.create_connection(("127.0.0.1", port)):  # nobody accepts it
        status = host.until_state("shop", "UNHEALTHY")
        until("it is gone", lambda: host.entry("shop", "shop") is None)

    assert "to be accepted" in status["why"], status


def test_a_unit_that_is_not_ready_for_a_while_is_out_of_the_registry_and_comes_back_warming(host: Host) -> None:
    port, answer = host.port(), host.file("answer", "200")
    warmup = "[unit.NAME.warmup]\ninitial = 40\nstep = 20\nperiod = 0.2\n"
    host.configure(
        patient(host, "shop", port=port, removal="expire", options=f"answer={answer}", tables=READINESS + warmup)
    )
    host.run()
    generation, pid = until_well(host, "shop")["generation"], host.unit("shop")["pid"]
    host.until_state("shop", "RUNNING")

    answer.write_text("503")
    status = host.until_state("shop", "UNHEALTHY")
    assert status["ready"] is False and status["pid"] == pid and status["weight"] == 0, status
    assert "answered 503" in status["why"] and probe(status, "readiness")["ok"] is False, status
    until("its entry expires", lambda: host.entry("shop", "shop") is None)
    throughout(0.5, lambda: host.entry("shop", "shop") is None)
    answer.write_text("200")
    with RegistryLog(host, ["shop"], [pid]) as registry:
        host.until_state("shop", "WARMING")
        host.until_state("shop", "RUNNING")
        registry.first("its full weight", lambda look: look.entries and look.entries["shop"]["weight"] == 100)

    weights = [look.entries["shop"]["weight"] for look in registry.looks if look.entries]
    assert weights == sorted(weights) and weights[0] <= 60 and weights[-1] == 100, weights
    assert (host.unit("shop")["generation"], host.unit("shop")["pid"]) == (generation, pid)
    assert notes(host, "shop", "term") == []


def test_fewer_failures_in_a_row_than_the_threshold_change_nothing(host: Host) -> None:
    port, answer = host.port(), host.file("answer", "200")
    tables = READINESS.replace("failure_threshold = 2", "failure_threshold = 3").replace("period = 0.2", "period = 0.3")
    liveness = tables.replace("readiness", "liveness")
    host.configure(patient(host, "shop", port=port, options=f"answer={answer}", tables=tables + liveness))
    host.run()
    until_well(host, "shop")
    before = host.unit("shop")

    with RegistryLog(host, ["shop"], [before["pid"]]) as registry:
        for _ in range(2):
            answer.write_text("503")
            until("it has failed", lambda: probe(host.unit("shop"), "readiness")["streak"] < 0)
            answer.write_text("200")
            until("it holds", lambda: probe(host.unit("shop"), "readiness")["streak"] > 0)

    assert {look.entries["shop"]["status"] for look in registry.looks} == {"up"}
    after = host.unit("shop")
    assert (after["state"], after["pid"], after["generation"]) == ("RUNNING", before["pid"], before["generation"])


def test_a_unit_whose_probe_is_slow_delays_no_other(host: Host) -> None:
    slow, quick = host.port(), host.port()
    probe_of = READINESS.replace("period = 0.2", "period = 0.1")
    host.configure(
        patient(
            host,
            "slow",
            port=slow,
            tables=probe_of.replace("/healthz", "/second").replace("timeout = 1", "timeout = 5"),
        )
        + patient(host, "quick", port=quick, tables=probe_of)
    )
    host.run()
    until_well(host, "quick")
    until_well(host, "slow")

    asked = len(notes(host, "quick", "asked:/healthz"))
    begun = boottime()
    until("it was asked eight times more", lambda: len(notes(host, "quick", "asked:/healthz")) >= asked + 8)

    assert boottime() - begun < 1 + LATE_SECONDS
    assert {status["state"] for status in host.units().values()} == {"RUNNING"}


def test_when_one_probe_target_that_many_share_goes_bad_only_some_leave_and_the_others_say_why(host: Host) -> None:
    shared, answer = host.port(), host.file("answer", "200")
    names = [f"web{number}" for number in range(6)]
    probe_of = READINESS.replace('"/healthz"', f'{{ path = "/healthz", port = {shared} }}')
    host.configure(
        patient(host, "target", port=shared, options=f"answer={answer}")
        + "".join(patient(host, name, port=host.port(), ttl=0.5, tables=probe_of) for name in names)
    )
    host.run()
    for name in names:
        until_well(host, name)

    answer.write_text("503")
    until("three have left", lambda: sum(host.entry(name, name) is None for name in names) == 3)
    until("all have failed twice", lambda: all(probe(host.unit(name), "readiness")["streak"] <= -2 for name in names))
    throughout(0.6, lambda: sum(host.entry(name, name) is None for name in names) == 3)
    states = {name: host.unit(name)["state"] for name in names}
    held = [name for name in names if states[name] == "RUNNING"]
    assert sorted(states.values()) == ["RUNNING"] * 3 + ["UNHEALTHY"] * 3
    for name in held:
        assert "more than 50 % of this host's units would be out" in host.unit(name)["why"]
        assert "answered 503" in host.unit(name)["why"]

    answer.write_text("200")
    for name in names:
        until_well(host, name)
        host.until_state(name, "RUNNING")
        until("nothing is suspected any more", lambda name=name: "would be out" not in host.unit(name)["why"])
    assert all(notes(host, name, "term") == [] for name in names)


def test_when_the_liveness_of_many_hangs_on_one_bad_target_not_all_are_restarted_in_turn(host: Host) -> None:
    shared, answer = host.port(), host.file("answer", "200")
    names = [f"web{number}" for number in range(6)]
    probe_of = READINESS.replace("readiness", "liveness").replace("timeout = 1", "timeout = 2")
    probe_of = probe_of.replace('"/healthz"', f'{{ path = "/healthz", port = {shared} }}')
    host.configure(
        patient(host, "target", port=shared, options=f"answer={answer}")
        + "".join(patient(host, name, port=host.port(), tables=probe_of) for name in names)
    )
    host.run()
    for name in names:
        until_well(host, name)
    before = {name: host.unit(name)["generation"] for name in names}

    answer.write_text("503")
    until("one was restarted twice", lambda: any(host.unit(name)["generation"] >= before[name] + 2 for name in names))
    throughout(0.6, lambda: sum(host.entry(name, name) is not None for name in names) >= 3)
    untouched = [name for name in names if host.unit(name)["generation"] == before[name]]
    assert len(untouched) >= 3
    for name in untouched:
        assert "not restarted: more than 50 % of this host's units would be out" in host.unit(name)["why"]

    answer.write_text("200")
    for name in names:
        until_well(host, name)


def test_a_probe_can_be_changed_while_the_unit_serves(host: Host) -> None:
    port, answer = host.port(), host.file("answer", "200")

    def configure(path: str) -> None:
        tables = READINESS.replace("/healthz", path)
        host.configure(patient(host, "shop", port=port, options=f"answer={answer}", tables=tables))

    configure("/healthz")
    host.run()
    until_well(host, "shop")
    pid = host.unit("shop")["pid"]

    configure("/other")
    assert host.unitctl("apply").returncode == 0
    until("the new one is asked", lambda: notes(host, "shop", "asked:/other"))
    answer.write_text("503")  # which only the old probe would see
    throughout(0.6, lambda: host.entry("shop", "shop")["status"] == "up")
    configure("/healthz")
    assert host.unitctl("apply").returncode == 0
    assert "answered 503" in host.until_state("shop", "UNHEALTHY")["why"]
    configure("/other")
    assert host.unitctl("apply").returncode == 0
    host.until_state("shop", "RUNNING")
    until_well(host, "shop")
    assert host.unit("shop")["pid"] == pid
