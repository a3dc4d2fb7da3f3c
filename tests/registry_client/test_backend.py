"""backend.py, and what importing the package costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import registry_client
from registry_client import Capability, Unsupported
from registry_client.backend import require
from registry_client.testing import FakeBackend


def test_a_missing_capability_is_refused_by_name() -> None:
    backend = FakeBackend()
    require(backend, Capability.WATCH, Capability.DEREGISTER)
    backend.capabilities = frozenset((Capability.WATCH,))
    with pytest.raises(Unsupported, match="fake: it lacks deregister"):
        require(backend, Capability.WATCH, Capability.DEREGISTER)


def test_every_public_name_can_be_had() -> None:
    for name in registry_client.__all__:
        assert getattr(registry_client, name).__name__ == name
    assert set(registry_client.__all__) <= set(dir(registry_client))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = registry_client.nothing


@pytest.mark.parametrize(
    ("imports", "absent"),
    [
        (
            "registry_client, registry_client.model, registry_client.lease, registry_client.selection",
            "asyncio typing",
        ),
        ("registry_client.backend", "asyncio"),
        ("registry_client.server, registry_client.client", "h11 importlib.metadata http.client requests"),
        (
            "registry_client.backends.http, registry_client.testing, registry_client.blocking",
            "requests psutil",
        ),
    ],
)
def test_importing_a_module_does_not_import_more_than_it_needs(imports: str, absent: str) -> None:
    code = f"import sys, {imports}; print(*sorted(set({absent.split()}) & set(sys.modules)))"
    code += "; print(*(name for name in sys.modules if name.split('.')[0] in ('supervisor', 'plugins')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
