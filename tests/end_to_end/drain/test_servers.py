"""The servers of docs/how-to/write-a-unit.md under the real daemon: whatever was asked before a restart is answered."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.drain.scene import Clients, Registry, ask, clients, step_names
from tests.end_to_end.host import ROOT, Host
from tests.end_to_end.machine import until

HERE = Path(__file__).parent
SLOW_SECONDS = 2.5  # as long as it may take, on a busy machine, until the flag is set
PATIENCE_SECONDS = 12.0
UVICORN = f"{sys.executable} -m uvicorn asgi_app:app --port {{port}} --log-level warning"
GUNICORN = f"{sys.executable} -m gunicorn wsgi_app:app --bind 127.0.0.1:{{port}} --workers 2 --worker-class gthread --threads 8"


def _start(host: Host, command: str, *, drain: str = "timeout = 60", settings: str = "") -> int:
    """The unit `cart` on that server: its port."""
    port = host.port()
    host.configure(
        f"""
        [unit.cart]
        command = "{command}"
        directory = "{HERE}"
        environment = {{ PYTHONPATH = "{ROOT}", ASKED = "{_asked(host)}" {settings} }}
        stopwaitsecs = 5
        [unit.cart.service]
        port = {port}
        ttl_seconds = 1
        [unit.cart.restart]
        removal = "deregister"
        settle_seconds = 0.1
        [unit.cart.readiness]
        http = "/-/health/ready"
        period = 0.3
        [unit.cart.liveness]
        http = "/-/health/live"
        period = 0.5
        timeout = 5
        [unit.cart.drain]
        notify = {{ http = "POST /-/drain" }}
        resume = {{ http = "POST /-/undrain" }}
        in_flight = {{ http = "/-/in-flight" }}
        {drain}
        """
    )
    host.run()
    host.until_registered("cart")
    return port


def _asked(host: Host) -> Path:
    """One byte for each request that takes time."""
    return host.folder / "asked"


def _under_way(host: Host, at_it: Clients, port: int, count: int) -> list[Future[str]]:
    asked = [at_it.ask(port, f"/?{SLOW_SECONDS}") for _ in range(count)]
    until("they are under way", lambda: _asked(host).exists() and _asked(host).stat().st_size == count)
    return asked


@pytest.mark.parametrize("command", [f"{UVICORN} --workers 2", GUNICORN], ids=["uvicorn", "gunicorn"])
def test_what_was_asked_before_a_restart_is_answered_and_what_comes_in_between_is_told_to_go_elsewhere(
    host: Host, command: str
) -> None:
    port = _start(host, command)

    with clients() as at_it, Registry(host, "cart") as registry:
        asked = _under_way(host, at_it, port, 8)
        [operation] = host.order("restart", "cart")
        until("it refuses new work", lambda: ask(port, "/") == "status 503")
        refused_at = registry.looks[-1].asked
        assert [answer.result() for answer in asked] == ["1"] * 8
        [operation] = host.finish([operation], PATIENCE_SECONDS)
        assert ask(port, "/") == "2", "the next generation begins without the flag"

    assert operation["state"] == "succeeded" and operation["cut"] is None
    assert registry.last_seen("cart", 1) <= refused_at, "it refuses only what nobody can send who asks the registry"


def test_a_drained_server_serves_again_when_it_is_taken_back(host: Host) -> None:
    port = _start(host, UVICORN)
    with clients() as at_it:
        asked = _under_way(host, at_it, port, 2)
        host.do("drain", "cart")
        assert [answer.result() for answer in asked] == ["1", "1"]
    assert ask(port, "/") == "status 503"
    assert host.unit("cart")["state"] == "DRAINED", "that it is not ready while it drains is no illness"

    [undrain] = host.do("undrain", "cart")

    assert step_names(undrain) == ["ready", "register"]
    assert ask(port, "/") == "1" and host.entry("cart", "cart")["status"] == "up"


@contextmanager
def _web_socket(port: int) -> Iterator[object]:
    client = pytest.importorskip("websockets.sync.client")
    with client.connect(f"ws://127.0.0.1:{port}/", proxy=None) as talk:
        talk.send("hello")
        assert talk.recv(timeout=5) == "hello"
        yield talk


def test_an_open_web_socket_counts_until_the_deadline(host: Host) -> None:
    port = _start(host, UVICORN, drain="timeout = 0.8")
    with _web_socket(port):
        [operation] = host.do("restart", "cart")
    assert operation["cut"] == 1


def test_an_open_web_socket_is_closed_by_a_unit_that_knows_how(host: Host) -> None:
    exceptions = pytest.importorskip("websockets.exceptions")
    port = _start(host, UVICORN, settings=', CLOSE_WEBSOCKETS = "1"')
    with _web_socket(port) as talk:
        begun = time.monotonic()
        [operation] = host.order("restart", "cart")
        with pytest.raises(exceptions.ConnectionClosed) as closed:
            talk.recv(timeout=PATIENCE_SECONDS)  # type: ignore[attr-defined]
        assert closed.value.rcvd.code == 1012, "service restart"
        [operation] = host.finish([operation], PATIENCE_SECONDS)
    assert operation["cut"] is None and time.monotonic() - begun < PATIENCE_SECONDS
    assert Counter(step_names(operation))["kill"] == 0
