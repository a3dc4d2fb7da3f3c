"""Plugins for tests: distributions with entry points in a folder that is put on `sys.path`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor import plugin_registry

GOOD = """
class Kind:
    def __init__(self, options):
        self.options = options

    async def check(self, target, timeout_seconds):
        raise NotImplementedError
"""


def installer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that installs a distribution: its name, its probe kinds, and the sources of its modules by name."""
    monkeypatch.syspath_prepend(folder)
    # As in a process that has loaded nothing yet; what a test loads is forgotten after it.
    monkeypatch.setattr(plugin_registry, "_kinds", {})

    def install(distribution: str, kinds: dict[str, str], **sources: str) -> None:
        metadata = folder / f"{distribution}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = (f"{name} = {value}" for name, value in kinds.items())
        (metadata / "entry_points.txt").write_text("\n".join(["[console_scripts]", "[unitd.probes]", *lines, ""]))
        for module, source in sources.items():
            monkeypatch.delitem(sys.modules, module, raising=False)
            (folder / f"{module}.py").write_text(source)

    return install
