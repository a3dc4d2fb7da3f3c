"""Probes of every kind, asked by the real daemon of real processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
import trustme

from tests.end_to_end.health.scene import notes, patient, probe, throughout, unit, until_well
from tests.end_to_end.host import Host
from tests.end_to_end.machine import until


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch users")
def test_a_command_that_asks_is_run_as_the_units_user(host: Host) -> None:
    answer = host.file("answer", "yes")
    tables = f"""
    [unit.NAME.readiness]
    exec = ["/bin/sh", "-c", "id -un; grep -q yes {answer}"]
    period = 0.2
    failure_threshold = 2
    """
    host.configure(unit("plain", "/bin/sleep 1000", settings='user = "nobody"', tables=tables))
    host.run()
    status = host.until_state("plain", "RUNNING")
    assert probe(status, "readiness")["detail"] == "ended with code 0: nobody"

    answer.write_text("no")
    assert "ended with code 1: nobody" in host.until_state("plain", "UNHEALTHY")["why"]
    answer.write_text("yes")
    assert host.until_state("plain", "RUNNING")["pid"] == status["pid"]


STARTUP = """
    [unit.NAME.startup]
    exec = ["/usr/bin/test", "-e", "FILE"]
    period = 0.2
    failure_threshold = TIMES
    [unit.NAME.readiness]
    http = "/healthz"
    period = 0.2
"""


def test_nothing_else_is_asked_before_the_startup_probe_has_succeeded(host: Host) -> None:
    file = host.folder / "warm"
    tables = STARTUP.replace("FILE", str(file)).replace("TIMES", "100")
    host.configure(patient(host, "shop", port=host.port(), tables=tables))
    host.run()
    until("it listens", lambda: notes(host, "shop", "listens"))
    throughout(0.5, lambda: host.entry("shop", "shop") is None)
    status = host.unit("shop")
    assert status["state"] == "STARTING" and "startup probe" in status["why"], status
    assert notes(host, "shop", "asked:/healthz") == []

    file.touch()
    entry = until_well(host, "shop")

    assert entry["generation"] == 1 and notes(host, "shop", "asked:/healthz")


def test_a_unit_whose_startup_probe_fails_is_tried_again_and_given_up(host: Host) -> None:
    tables = STARTUP.replace("FILE", "/nowhere").replace("TIMES", "2")
    host.configure(patient(host, "shop", port=host.port(), settings="startretries = 1", tables=tables))
    host.run()

    status = host.until_state("shop", "FATAL")

    assert status["generation"] == 2 and "startup probe has failed 2 times" in status["why"], status
    assert host.entry("shop", "shop") is None and notes(host, "shop", "asked:/healthz") == []


def test_a_unit_that_speaks_tls_with_a_certificate_of_its_own_can_be_asked(host: Host) -> None:
    authority = trustme.CA()
    ca, cert = host.folder / "ca.pem", host.folder / "cert.pem"
    authority.cert_pem.write_to_path(str(ca))
    authority.issue_cert("127.0.0.1", "shop.example").private_key_and_cert_chain_pem.write_to_path(str(cert))
    ways = {
        "lenient": "{}",
        "strict": f'{{ verify = true, ca = "{ca}" }}',
        "named": f'{{ verify = true, ca = "{ca}", server_name = "shop.example" }}',
        "wrong": f'{{ verify = true, ca = "{ca}", server_name = "other.example" }}',
        "suspicious": "{ verify = true }",
    }
    text = ""
    for name, tls in ways.items():
        table = f"""
        [unit.NAME.readiness]
        http = {{ path = "/healthz", scheme = "https", tls = {tls} }}
        period = 0.3
        timeout = 2
        """
        text += patient(host, name, port=host.port(), options=f"cert={cert}", tables=table)
    host.configure(text)
    host.run()

    for name in ("lenient", "strict", "named"):
        until_well(host, name)
    for name in ("wrong", "suspicious"):
        until("it says why", lambda name=name: "certificate" in host.unit(name)["why"].lower())
        assert host.entry(name, name) is None and host.unit(name)["state"] == "STARTING"


def test_a_real_redis_is_asked_by_the_plugin(host: Host, requires_program: Callable[[str, str], str]) -> None:
    port, server = host.port(), requires_program("redis-server", "redis-server")
    tables = """
    [unit.NAME.readiness]
    redis = { password = "a secret" }
    period = 0.2
    timeout = 0.3
    failure_threshold = 2
    """
    command = f"{server} --port {{port}} --bind 127.0.0.1 --save '' --requirepass 'a secret'"
    settings = f'service = {{ port = {port}, ttl_seconds = 0.6 }}\ndirectory = "{host.folder}"'
    host.configure(unit("cache", command, settings=settings, tables=tables))
    host.run()
    generation, pid = until_well(host, "cache")["generation"], host.unit("cache")["pid"]
    assert probe(host.unit("cache"), "readiness")["detail"] == "answered PONG"

    os.kill(pid, signal.SIGSTOP)
    status = host.until_state("cache", "UNHEALTHY")
    assert "no answer within 0.3 s" in status["why"], status
    until("it is gone", lambda: host.entry("cache", "cache") is None)
    os.kill(pid, signal.SIGCONT)
    assert until_well(host, "cache")["generation"] == generation
