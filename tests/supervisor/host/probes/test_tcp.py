"""The probe kind `tcp`."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from supervisor.host.probes.tcp import TcpProbe
from supervisor.plugin_api import ProbeResult
from tests.supervisor.host.answering import closed_port, listening, open_sockets
from tests.supervisor.host.probes.probing import check, refusal, target
from tests.supervisor.running import run, until


@pytest.mark.parametrize("options", [True, {}])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_that_accepts_is_well(options: Any, host: str) -> None:
    with listening(host=host) as listener:
        port, before = listener.getsockname()[1], open_sockets()
        assert check(TcpProbe(options), target(port, address=host)) == ProbeResult(
            True, f"port {port} accepts connections"
        )
        assert open_sockets() == before
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(1) == b"", "it hangs up at once"


@pytest.mark.parametrize("as_text", [False, True])
def test_another_port_and_host_can_be_asked(as_text: bool) -> None:
    with listening(host="::1") as listener:
        port = listener.getsockname()[1]
        assert check(TcpProbe({"port": str(port) if as_text else port, "host": "::1"}), target(None)).ok


def test_a_port_where_nobody_listens() -> None:
    port = closed_port()
    assert check(TcpProbe(True), target(port)) == ProbeResult(False, f"port {port}: connection refused")


def test_a_full_backlog_is_not_waited_for_for_ever() -> None:
    with listening(backlog=0) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            result = check(TcpProbe(True), target(port), 0.2)
            assert result == ProbeResult(False, f"port {port}: no connection within 0.2 s")


def test_a_cancelled_check_leaves_nothing_open() -> None:
    async def scenario() -> None:
        with listening(backlog=0) as listener:
            port = listener.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)):
                before = open_sockets()
                checking = asyncio.create_task(TcpProbe(True).check(target(port), 100))
                await until(lambda: open_sockets() > before)
                checking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await checking
                assert open_sockets() == before

    run(scenario())


def test_a_unit_without_a_port_cannot_be_asked() -> None:
    result = check(TcpProbe(True), target(None))
    assert not result.ok and "port" in result.detail


@pytest.mark.parametrize(
    ("options", "key", "words"),
    [
        (False, "", "must be true or a table, not false"),
        ("8080", "", "must be true or a table"),
        ({"prt": 1}, "prt", "did you mean port?"),
        ({"port": 70000}, "port", "from 1 to 65535"),
        ({"host": ""}, "host", "a host name"),
    ],
)
def test_options_that_cannot_be_used_are_refused_by_their_key(options: Any, key: str, words: str) -> None:
    found, reason = refusal(TcpProbe, options)
    assert found == key and words in reason
