"""The entry points of what is installed, read from the files `entry_points.txt` that installers leave beside it.

Their format: https://packaging.python.org/en/latest/specifications/entry-points/. `importlib.metadata` can do the same
and much more, for 3.5 MB in each process, which is too much for a few lines. Nothing is imported here.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """One line of a group: `value` is "module:attribute", `distribution` who offers it."""

    name: str
    value: str
    distribution: str


def entry_points(group: str) -> Iterator[EntryPoint]:
    """Those of a group; of a distribution that is there twice, the one that imports would find."""
    seen: set[str] = set()
    for folder in sys.path:
        for name, path in _distributions(folder or "."):
            if name.lower() not in seen:
                seen.add(name.lower())
                yield from (EntryPoint(key, value, name) for key, value in _section(path, group))


_METADATA = re.compile(r"([A-Za-z0-9][A-Za-z0-9._]*)(?:-[^/]*)?\.(?:dist|egg)-info")


def _distributions(folder: str) -> Iterator[tuple[str, str]]:
    """(name, path of its entry points, which need not exist) of each distribution in a folder of sys.path."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:  # a zip file, or nothing: sys.path may name what is not there
        return
    for name in names:
        if match := _METADATA.fullmatch(name):
            yield match[1], os.path.join(folder, name, "entry_points.txt")


def _section(path: str, group: str) -> Iterator[tuple[str, str]]:
    """(name, value) of the lines of a group."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            rows = [row.strip() for row in file]
    except OSError:  # most distributions have none
        return
    inside = False
    for row in rows:
        if row.startswith("["):
            inside = row == f"[{group}]"
        elif inside and row and row[0] not in "#;":
            name, _, value = row.partition("=")
            yield name.strip(), value.strip()
