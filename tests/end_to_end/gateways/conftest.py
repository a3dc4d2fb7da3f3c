"""Stages, one of each kind for all tests of a module; they leave it with all units at full weight."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.end_to_end.gateways.kinds import KINDS
from tests.end_to_end.gateways.stage import Settings, Stage
from tests.servers.server import MissingProgram


@contextmanager
def opened(kind: type[Stage], settings: Settings | None = None, registry_url: str | None = None) -> Iterator[Stage]:
    """A stage that is started; without its gateway's program the test is skipped, and fails in CI."""
    try:
        stage = kind(settings, registry_url)
    except MissingProgram as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    try:
        stage.start()
        yield stage
    finally:
        stage.close()


@pytest.fixture(scope="module", params=KINDS)
def any_stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Each kind, one after the other."""
    with opened(KINDS[request.param]) as stage:
        yield stage


@pytest.fixture(scope="module", params=["haproxy", "nginx"])
def reloadable(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The kinds that can be reloaded."""
    with opened(KINDS[request.param]) as stage:
        yield stage
