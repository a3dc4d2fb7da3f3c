"""Two stages, each for all tests of its kind: HAProxy sends its state with its checks, or only asks as an agent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.checks.stage import Stage
from tests.servers.fixtures import made
from tests.servers.haproxy import Haproxy


@pytest.fixture(scope="module", params=["state", "agent"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """All units up and at full weight."""
    servers: list[Haproxy] = []

    def start(**options: str) -> Haproxy:
        servers.append(made(Haproxy, **options))
        servers[0].start()
        return servers[0]

    try:
        stage_ = Stage(start, sends_state=request.param == "state")
        try:
            yield stage_
        finally:
            stage_.close()
    finally:
        for server in servers:
            server.close()
