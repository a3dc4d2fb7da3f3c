"""Four units for each module of tests, an Envoy and a feeder for each test."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.servers.envoy import Envoy
from tests.servers.fixtures import start_server
from tests.servers.processes import free_port

from .scene import UNITS, Fed, Unit

__all__ = ["start_server"]


class Feed(Protocol):
    """What the fixture `feed` is."""

    def __call__(self, *envoys: Envoy, **options: object) -> Fed:
        """A feeder of these Envoys that read the first one's files."""


@pytest.fixture(scope="module")
def four_units(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Unit]]:
    """The same for all tests of a module."""
    folder: Path = tmp_path_factory.mktemp("units")
    units = [Unit(folder) for _ in range(UNITS)]
    yield units
    for unit in units:
        unit.kill()


@pytest.fixture
def units(four_units: list[Unit]) -> Iterator[list[Unit]]:
    """All four serve, whatever was done to them before."""
    for unit in four_units:
        unit.launch()
    for unit in four_units:
        unit.wait()
    yield four_units


@pytest.fixture
def start_envoy(start_server: Callable[..., Envoy]) -> Callable[..., Envoy]:
    """An Envoy with the options that are given."""

    def start(**options: object) -> Envoy:
        return start_server(Envoy, **options)

    return start


@pytest.fixture
def envoy(start_envoy: Callable[..., Envoy]) -> Envoy:
    """An Envoy that is set up as the documentation says."""
    return start_envoy()


@pytest.fixture
def feed() -> Iterator[Feed]:
    """Make a feeder; it is closed after the test."""
    fed: list[Fed] = []

    def make(*envoys: Envoy, **options: object) -> Fed:
        fed.append(Fed(*envoys, **options))
        return fed[-1]

    yield make
    for each in fed:
        each.close()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port whose queue of connections is full: the kernel answers no further attempt."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", free_port()))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        while True:
            client = stack.enter_context(socket.socket())
            client.settimeout(0.2)
            try:
                client.connect(("127.0.0.1", port))
            except TimeoutError:
                break
        yield port
