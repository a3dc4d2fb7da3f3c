"""The bootstrap in docs/how-to/envoy.md is one that Envoy takes, and that the feeder can work with."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.model import Health
from gateway.settings.envoy import KEYS, read
from supervisor.config.document import Document
from supervisor.config.table import Problems
from tests.end_to_end.machine import until
from tests.servers.envoy import Envoy

from .conftest import Feed
from .scene import Load, Unit, server

PAGE = (Path(__file__).parents[4] / "docs" / "how-to" / "envoy.md").read_text()


def _block(language: str, containing: str) -> str:
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return next(block for block in blocks if containing in block)


class Documented(Envoy):
    """An Envoy with the bootstrap of the page, its ports and paths replaced."""

    def command(self) -> list[str]:
        """Seeded as the page says."""
        self.eds.mkdir(exist_ok=True)
        if not self.eds_file.exists():
            self.eds_file.write_text(_block("json", "ClusterLoadAssignment"))
        text = _block("yaml", "static_resources")
        for old, new in (
            ("/var/lib/envoy/eds", str(self.eds)),
            ("/var/log/envoy/ejections.log", str(self.event_log)),
            ("port_value: 9901", f"port_value: {self.ports['admin']}"),
            ("address: 0.0.0.0, port_value: 8080", f"address: 127.0.0.1, port_value: {self.port}"),
        ):
            assert old in text
            text = text.replace(old, new)
        bootstrap = self.folder / "bootstrap.yaml"
        bootstrap.write_text(text)
        return [self._program, "-c", str(bootstrap), "--concurrency", "1", "--disable-hot-restart"]


@pytest.mark.real
def test_envoy_runs_with_the_bootstrap_of_the_page(
    start_server: Callable[..., Documented], units: list[Unit], feed: Feed
) -> None:
    """A server that is killed there costs no request that may be repeated, and half of the servers may drain."""
    envoy = start_server(Documented, service="cart")
    assert "deprecated" not in envoy.log.lower()
    fed = feed(envoy)
    servers = [replace(server(unit), service="cart") for unit in units]
    fed.apply(*servers)
    until("all are checked", lambda: [view.health for view in fed.look().views] == [Health.UP] * 4)
    with Load(envoy.port, clients=1) as load:  # the first client sends GET only
        until("all serve", lambda: len(load.by_port) == 4)
        units[0].kill()
        load.goes_on()
        fed.apply(*(replace(server(unit, draining=unit is units[1]), service="cart") for unit in units[1:]))
        before = units[1].count
        load.goes_on()
        assert units[1].count == before
    assert set(load.statuses) == {200}


def test_the_configuration_of_the_page_is_one() -> None:
    """Of unit-gateway, and the page explains the settings of Envoy that it shows."""
    problems = Problems()
    document = Document("/etc/unitd/unit-gateway.toml", _block("toml", "[envoy.mesh]").encode())
    spec = read(document, "mesh", problems)
    assert problems.errors == []
    assert spec.services == ("cart",)
    assert set(document.tables["envoy"]["mesh"]) <= set(KEYS)
