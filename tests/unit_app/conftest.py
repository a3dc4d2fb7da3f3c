"""Servers that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit_app.serving import Server


@pytest.fixture(autouse=True)
def _own_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UNITD_UNIT", "UNITD_STATE", "UNITD_GENERATION", "UNIT_APP_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UNIT_APP_DIR", str(tmp_path / "board"))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start a server of one kind, with variables for its environment."""
    made: list[Server] = []

    def start(kind: str, **environment: str) -> Server:
        made.append(Server(kind, tmp_path, **environment))
        return made[-1]

    yield start
    for server in made:
        server.stop()


@pytest.fixture(params=["uvicorn", "uvicorn-2", "sync-4", "gthread-4"])
def server(request: pytest.FixtureRequest, serve: Callable[..., Server]) -> Server:
    """Each kind of server."""
    return serve(request.param)
