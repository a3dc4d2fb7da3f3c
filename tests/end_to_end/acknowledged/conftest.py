"""A scene with one registry outside of the daemon, or with two."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.acknowledged.scene import Scene
from tests.end_to_end.host import Host
from tests.servers.unitd import Unitd


@pytest.fixture(scope="module")
def registries() -> Iterator[list[Unitd]]:
    """Two, for all tests of a module."""
    with Unitd() as one, Unitd() as other:
        yield [one, other]


@pytest.fixture
def scene(host: Host, registries: list[Unitd]) -> Iterator[Scene]:
    """Not started yet; one registry."""
    made = Scene(host, registries[:1])
    yield made
    made.main.vanish("gw-1.edge")
    made.main.vanish("gw-2.edge")


@pytest.fixture
def migrating(host: Host, registries: list[Unitd]) -> Iterator[Scene]:
    """Not started yet; two registries."""
    made = Scene(host, registries)
    yield made
    for gateways in (made.main, *made.also):
        gateways.vanish("gw-1.edge")
        gateways.vanish("gw-2.edge")
