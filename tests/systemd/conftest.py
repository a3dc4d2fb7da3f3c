"""Hosts that boot for a test, on machines where they can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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


@pytest.fixture
def system_python() -> None:
    """The interpreter that runs the tests may be in a home, which the service does not see."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    program = shutil.which("python3", path="/usr/bin")
    say = "import sys; print('%d.%d' % sys.version_info[:2], end='')"
    if (
        program is None
        or subprocess.run([program, "-c", say], capture_output=True, text=True, check=False).stdout != version
    ):
        pytest.skip(f"/usr/bin/python3 is not Python {version}")
