"""What the page docs/how-to/haproxy.md shows is accepted, complete, and works."""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.settings.haproxy import read
from supervisor.config.document import Document
from supervisor.config.table import Problems
from tests.gateway.feeders.haproxy.origin import Origin
from tests.gateway.feeders.haproxy.scene import Clients, eventually, feeding, pool, ports, states
from tests.servers.fixtures import StartServer
from tests.servers.haproxy import Haproxy
from tests.servers.processes import free_port

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs/how-to/haproxy.md").read_text()
FEEDER, CHECKS = re.findall(r"^```haproxy\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
TABLE = next(text for text in re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if "haproxy" in text)


@pytest.mark.real
@pytest.mark.parametrize("config", [FEEDER, CHECKS], ids=["feeder", "checks"])
def test_haproxy_accepts_the_configuration(haproxy: Haproxy, tmp_path: Path, config: str) -> None:
    """As it stands on the page, and one with a mistake it does not."""
    path = tmp_path / "haproxy.cfg"
    path.write_text(config)
    assert haproxy.check_config(path) == ""
    path.write_text(config.replace("balance roundrobin", "balance fairly"))
    assert "roundrobin" in haproxy.check_config(path)


@pytest.mark.real
async def test_the_configuration_of_the_feeder_works(
    start_server: StartServer, origins: Callable[[int], list[Origin]]
) -> None:
    """With other paths and another port: a pool is fed, and a reload under requests fails nothing."""
    config = FEEDER.replace("{", "{{").replace("}", "}}")
    config = config.replace("/run/haproxy/admin.sock", "{socket}").replace("bind :80", "bind 127.0.0.1:{port}")
    config = config.replace("/var/lib/haproxy/servers.state", "{state_file}")
    haproxy = await asyncio.to_thread(start_server, Haproxy, config=config)
    two = origins(2)
    async with feeding(haproxy, state_file=str(haproxy.state_file)) as feeder:
        await feeder.apply(pool(*two))
        with Clients(haproxy) as clients:
            await clients.more()
            await asyncio.to_thread(haproxy.reload)
            await clients.more()
        assert ports(haproxy) == {each.port for each in two}
    assert not clients.failures
    assert clients.closed == 0


def test_the_table_of_the_feeder_is_read() -> None:
    """It fits to the configuration above it."""
    problems = Problems()
    spec = read(Document("/etc/unitd/unit-gateway.toml", TABLE.encode()), "edge", problems)
    assert not problems.errors
    assert f"stats socket {spec.socket} " in FEEDER
    assert f"server-state-file {spec.state_file}\n" in FEEDER
    assert f"backend {spec.services[0]}\n" in FEEDER


def test_the_checks_port_is_one_everywhere() -> None:
    """In unitd's table, in the checks and in the agent's."""
    listen = next(
        text for text in re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if "checks" in text
    )
    port = tomllib.loads(listen)["checks"]["listen"].rpartition(":")[2]
    assert set(re.findall(r"port (\d+)", CHECKS)) == {port}


@pytest.mark.parametrize("line", sorted(set(re.findall(r"^\| `([a-z-]+)[^|]*\|", PAGE, re.MULTILINE))))
def test_a_line_that_is_explained_is_there(line: str) -> None:
    """Whatever the tables explain stands in one of the configurations, or is a message or a command of ours."""
    ours = ("unit-gateway", "the", "what", "permission", "n")
    assert line in FEEDER + CHECKS or line in ours


class Node:
    """Answers checks as unitd does: every unit is warming up, at 40 %."""

    def __init__(self) -> None:
        self.asked: set[bytes] = set()
        self.states: set[str] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: the agent's, or a check's."""
        head = await reader.readline()
        if head.startswith(b"GET /check "):
            text = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            self.states |= {line.partition(": ")[2] for line in text.splitlines() if "server-state" in line}
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        else:
            self.asked.add(head)
            writer.write(b"ready up 40%\n")
        writer.close()


@pytest.mark.real
async def test_the_configuration_of_the_checks_asks_for_each_unit(start_server: StartServer) -> None:
    """Percentages become weights, and each check tells what this gateway, by its name, does with the server."""
    node, port = Node(), free_port()
    config = CHECKS.replace("{", "{{").replace("}", "}}").replace("9302", str(port)).replace("10.0.0.8", "127.0.0.2")
    config = config.replace("10.0.0.7", "127.0.0.1").replace("bind :80", "bind 127.0.0.1:{port}")
    config = config.replace("/run/haproxy/admin.sock", "{socket}").replace(
        "/var/lib/haproxy/servers.state", "{state_file}"
    )
    async with await asyncio.start_server(node.serve, ["127.0.0.1", "127.0.0.2"], port):
        haproxy = await asyncio.to_thread(start_server, Haproxy, config=config)
        forty = lambda: {row[2] for row in states(haproxy).values()} == {40}  # noqa: E731
        await eventually("all weights are 40", lambda: asyncio.to_thread(forty))
        await eventually("all have been checked", lambda: len(node.states) >= 3)
    assert node.asked == {b"cart:0\n", b"cart:1\n"}
    assert all("node=gw-1" in state and "scur=" in state for state in node.states)
