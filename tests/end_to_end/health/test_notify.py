"""Units that say themselves how they are, as under systemd."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException

from tests.end_to_end.health.scene import RegistryLog, get, notes, patient, probe, throughout, unit, until_well
from tests.end_to_end.host import Host
from tests.end_to_end.machine import until

READINESS = """
    [unit.NAME.readiness]
    notify = true
    period = 0.2
    failure_threshold = 2
"""
WATCHDOG = """
    [unit.NAME.liveness]
    notify = { watchdog = true }
    period = 0.4
    failure_threshold = 2
"""


def test_a_unit_is_in_the_registry_while_it_says_that_it_is_ready(host: Host) -> None:
    port = host.port()
    host.configure(patient(host, "shop", port=port, tables=READINESS))
    host.run()
    until("it listens", lambda: notes(host, "shop", "listens"))
    throughout(0.4, lambda: host.entry("shop", "shop") is None)
    status = host.unit("shop")
    assert status["state"] == "STARTING" and "has not said READY=1" in status["why"], status

    get(port, "/say/READY=1")
    generation = until_well(host, "shop")["generation"]
    get(port, "/say/RELOADING=1")
    status = host.until_state("shop", "UNHEALTHY")
    assert "has not said READY=1, or has taken it back" in status["why"], status
    until("it is gone", lambda: host.entry("shop", "shop") is None)
    get(port, "/say/READY=1")
    until_well(host, "shop")
    get(port, "/say/STOPPING=1")
    assert "it said STOPPING=1" in host.until_state("shop", "UNHEALTHY")["why"]
    until("it is gone", lambda: host.entry("shop", "shop") is None)

    assert host.unit("shop")["generation"] == generation and notes(host, "shop", "term") == []


def test_a_unit_whose_watchdog_falls_silent_is_taken_out_and_restarted(host: Host) -> None:
    _ends_and_comes_back(host, lambda port: get(port, "/do/silent"), "no WATCHDOG=1 since the last check")


def test_a_unit_that_asks_for_its_end_is_taken_out_and_restarted(host: Host) -> None:
    def ask_for_it(port: int) -> None:
        with suppress(OSError, HTTPException):  # it may have been granted before the answer
            get(port, "/say/WATCHDOG=trigger")

    _ends_and_comes_back(host, ask_for_it, "it said WATCHDOG=trigger")


def _ends_and_comes_back(host: Host, harm: Callable[[int], object], why: str) -> None:
    port = host.port()
    host.configure(patient(host, "shop", port=port, options="watchdog=0.1", tables=WATCHDOG))
    host.run()
    before, pid = until_well(host, "shop")["generation"], host.unit("shop")["pid"]
    until("its watchdog is heard", lambda: (probe(host.unit("shop"), "liveness")["streak"]) >= 3)

    with RegistryLog(host, ["shop"], [pid]) as registry:
        harm(port)
        gone = registry.gone("shop", before)
        registry.came("shop", before)

    assert registry.signalled_early("shop", pid, before) == []
    [term] = notes(host, "shop", "term")
    assert term.pid == pid and term.at > gone - 0.1
    after = host.unit("shop")
    assert after["generation"] == before + 1 and why in after["last_exit"]["reason"], after


def test_a_shell_script_can_say_that_it_is_ready(host: Host, requires_program: Callable[[str, str], str]) -> None:
    client = requires_program("systemd-notify", "systemd")
    go = host.folder / "go"
    script = f'while ! test -e {go}; do sleep 0.05; done\n{client} --ready --status="all is well"\nexec sleep 1000\n'
    path = host.file("unit.sh", f"#!/bin/sh\n{script}", 0o755)
    host.configure(unit("script", str(path), tables=READINESS))
    host.run()
    throughout(0.4, lambda: host.unit("script")["state"] == "STARTING")

    go.touch()
    status = host.until_state("script", "RUNNING")

    assert "all is well" in probe(status, "readiness")["detail"], status
