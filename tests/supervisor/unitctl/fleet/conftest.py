"""A control center of a test, and `unitctl` that is led to it."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest

from supervisor.unitctl.fleet_session import VARIABLES
from supervisor.unitctl.main import run
from tests.supervisor.unitctl.fleet.fake_center import FakeCenter


@pytest.fixture
def center() -> Iterator[FakeCenter]:
    """A control center of an empty fleet."""
    fake = FakeCenter()
    fake.start()
    yield fake
    fake.stop()


class FleetUnitctl:
    """Runs `unitctl`: in this process, which is fast, and as a process of its own where a test needs one."""

    def __init__(self, unitctl: Any) -> None:
        self._unitctl = unitctl
        self.environment, self.processes = unitctl.environment, unitctl.processes
        self.begin, self.interrupt = unitctl.begin, unitctl.interrupt

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run one command line to its end; with `environment` as a process of its own."""
        if environment:
            done: subprocess.CompletedProcess[str] = self._unitctl(*arguments, **environment)
            return done
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name in ("UNITCTL_SERVER", *VARIABLES.values()):
                patch.delenv(name, raising=False)
            for name in set(VARIABLES.values()) & set(self.environment):
                patch.setenv(name, self.environment[name])
            patch.setattr("sys.stdin", io.StringIO())
            code = run(arguments)
        texts = (stream.buffer.getvalue().decode() for stream in (out, err))
        return subprocess.CompletedProcess(arguments, code, *texts)


@pytest.fixture
def fleet(center: FakeCenter, unitctl: Any) -> FleetUnitctl:
    """`unitctl`, led to the control center by UNITCTL_CENTER."""
    unitctl.environment["UNITCTL_CENTER"] = center.url
    return FleetUnitctl(unitctl)


@pytest.fixture
def cart(center: FakeCenter) -> FakeCenter:
    """A control center of four instances of cart, in two zones."""
    for number in range(1, 5):
        center.add(f"web-{number}/cart:0", zone="a" if number < 3 else "b")
    return center
