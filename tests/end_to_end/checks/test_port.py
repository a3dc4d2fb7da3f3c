"""The checks port of a daemon that cannot have it, and of one that ends."""

from __future__ import annotations

import socket

from tests.end_to_end.host import SERVE, Host
from tests.servers.asking import ask


def test_a_port_that_somebody_has_is_told_before_any_unit_is_started(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        host.configure(f"checks.listen = '127.0.0.1:{port}'\n[unit.shop]\ncommand = 'sleep 1000'")
        host.run(wait=False)
        assert host.wait() == 2
    assert f"checks.listen: cannot listen on 127.0.0.1:{port}: Address already in use" in host.said()
    assert host.processes() == set()


def test_until_its_units_have_ended_a_daemon_answers_for_them(host: Host) -> None:
    port, checks = host.port(), host.port()
    host.configure(f"""
    checks.listen = "127.0.0.1:{checks}"
    [unit.shop]
    command = "{SERVE} {port} /dev/null 0 1"
    startsecs = 0.05
    service = {{ port = {port} }}
    restart = {{ removal = "deregister", settle_seconds = 0.1 }}
    """)
    host.run()
    host.until_state("shop", "RUNNING")
    assert ask(checks, "GET", "/check/shop") == (200, "ready up 100%\n")
    host.do("drain", "shop")
    assert ask(checks, "GET", "/check/shop") == (404, "drain\n")
    host.signal(15)
    host.until_state("shop", "STOPPING")
    status, said = ask(checks, "GET", "/check/shop")
    assert status == 503 and said.startswith("down # stopping")
    assert host.wait() == 0
