"""What all scenarios need: a private host, and programs that not every machine has."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.end_to_end.host import Host
from tests.end_to_end.machine import CGROUPS

RequiresProgram = Callable[[str, str], str]


@pytest.fixture
def host() -> Iterator[Host]:
    """A host whose units are held together by process groups; it is checked for leftovers afterwards."""
    made = Host()
    yield made
    made.close()


@pytest.fixture
def cgroup_host() -> Iterator[Host]:
    """A host whose units have cgroups."""
    if os.geteuid() != 0 or CGROUPS is None:
        pytest.skip("a delegated cgroup v2 needs root and a kernel that has it")
    made = Host("auto")
    yield made
    made.close()


@pytest.fixture(params=["host", "cgroup_host"], ids=["groups", "cgroups"])
def any_host(request: pytest.FixtureRequest) -> Host:
    """Both hosts, one after the other: what is said of a unit's processes holds on each."""
    made: Host = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def requires_program() -> RequiresProgram:
    """The path of a program; without it the test is skipped on a user's machine and fails in CI."""

    def find(name: str, package: str) -> str:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
        if path is not None:
            return path
        reason = f"{name} is not installed (Debian package {package})"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)

    return find
