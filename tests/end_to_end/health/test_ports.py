"""Whose port it is: a unit is in the registry only while its own process listens where others will send."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.end_to_end.health.scene import LATE_SECONDS, RegistryLog, get, notes, patient, throughout, until_well
from tests.end_to_end.host import Host
from tests.end_to_end.machine import boottime, until

READINESS = """
    [unit.NAME.readiness]
    http = "/healthz"
    period = 0.2
    timeout = 0.5
    failure_threshold = 3
"""


class _Polite(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing."""


@contextmanager
def _stranger(port: int) -> Iterator[None]:
    """This process answers on the port, with 200 to everything."""

    def bind() -> ThreadingHTTPServer | None:
        try:
            return ThreadingHTTPServer(("127.0.0.1", port), _Polite)
        except OSError:
            return None

    server: ThreadingHTTPServer = until("the stranger has the port", bind)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_unit_whose_port_is_taken_over_is_withdrawn_although_its_probe_is_answered(host: Host) -> None:
    port, ttl = host.port(), 0.6
    host.configure(patient(host, "shop", port=port, ttl=ttl, tables=READINESS))
    host.run()
    before, pid = until_well(host, "shop")["generation"], host.unit("shop")["pid"]

    with RegistryLog(host, ["shop"], [pid]) as registry:
        get(port, "/do/close")
        with _stranger(port):
            taken = boottime()
            gone = registry.gone("shop", before)
            status = host.until_state("shop", "UNHEALTHY")
            assert f"port {port} is listened on by process {os.getpid()}" in status["why"], status
            assert status["pid"] == pid and notes(host, "shop", "term") == []
            throughout(1.2, lambda: host.entry("shop", "shop") is None)  # longer than a doubt is left alone
        assert gone - taken < ttl / 3 + LATE_SECONDS
        assert registry.signalled_early("shop", pid, before) == []
    host.do("restart", "shop")
    assert until_well(host, "shop", before)["generation"] == before + 1


def test_a_unit_whose_port_is_a_strangers_from_the_start_never_becomes_ready(host: Host) -> None:
    theirs, own = host.port(), host.port()
    text = patient(host, "shop", port=own, settings="start_timeout = 1.5\nstartretries = 0", tables=READINESS)
    host.configure(text.replace(f"port = {own},", f"port = {theirs},"))
    with _stranger(theirs):
        host.run()
        until("it listens", lambda: notes(host, "shop", "listens"))
        words = f"port {theirs} is listened on by process {os.getpid()}"
        until("it says whose port it is", lambda: words in host.unit("shop")["why"])
        assert host.unit("shop")["state"] == "STARTING"
        while host.unit("shop")["state"] == "STARTING":
            assert host.entry("shop", "shop") is None
        assert f"was not ready within 1.5 s: {words}" in host.until_state("shop", "FATAL")["why"]
    assert host.entry("shop", "shop") is None and len(notes(host, "shop", "begin")) == 1


def test_a_unit_behind_somebody_elses_socket_serves_where_that_is_allowed(host: Host) -> None:
    theirs, own, ttl = host.port(), host.port(), 0.6
    text = patient(host, "shop", port=own, ttl=ttl, tables=READINESS)
    host.configure(text.replace(f"port = {own},", f"port = {theirs}, own_port = false,"))
    with _stranger(theirs):
        host.run()
        until_well(host, "shop")
        throughout(2 * ttl, lambda: host.entry("shop", "shop")["status"] == "up")
        assert host.unit("shop")["why"] == "serving"
