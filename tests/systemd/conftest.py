"""Hosts that boot for a test, on machines where they can."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.systemd.booted import Booted, files
from tests.systemd.container import missing

Boot = Callable[..., Booted]


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Boot]:
    """Boots a host with these files besides those of an installation."""
    if reason := missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    made: list[Booted] = []

    def make(units: str | None = None, **more: str) -> Booted:
        given = files(**more) if units is None else files(units, **more)
        made.append(Booted(tmp_path, given))
        return made[-1]

    yield make
    for host in made:
        host.close()
