"""Finds plugins by their entry points, and makes probes; only what is asked for is ever imported.

Knows nothing of units.
"""

from __future__ import annotations

import re
from importlib import import_module, invalidate_caches
from typing import Any

from registry_client.entry_points import EntryPoint, entry_points

from .errors import PluginError
from .plugin_api import PROBES, OptionError, Probe, ProbeKind

REGISTRY_BACKENDS = "unitd.registry_backends"  # registry_client loads them
MAX_REASON = 300  # characters of what a plugin says of itself


_kinds: dict[str, ProbeKind] = {}  # those that were loaded


def probe_kinds() -> list[str]:
    """The names of all kinds that are installed, sorted. Nothing is imported."""
    return sorted({entry.name for entry in entry_points(PROBES)})


def registry_backends() -> list[str]:
    """The names of all registry backends that are installed, sorted. Nothing is imported."""
    return sorted({"embedded", "http", *(entry.name for entry in entry_points(REGISTRY_BACKENDS))})


def probe_kind(name: str) -> ProbeKind:
    """The kind of that name, imported when it is asked for the first time.

    Raises LookupError when none is installed, PluginError when it cannot be imported or two distributions offer it.
    """
    if (kind := _kinds.get(name)) is None:
        kind = _kinds[name] = _load(_entry_point(name))
    return kind


def make_probe(name: str, options: Any) -> Probe:
    """A new probe of that kind with these options, plain JSON values.

    Raises what `probe_kind` does, OptionError, and PluginError when the kind raises anything else.
    """
    kind = probe_kind(name)
    try:
        return kind(options)
    except OptionError:
        raise
    except Exception as error:
        raise PluginError(name, _entry_point(name).distribution, f"it raised {_told(error)}") from error


def _entry_point(name: str) -> EntryPoint:
    found = [entry for entry in entry_points(PROBES) if entry.name == name]
    if not found:
        raise LookupError(f"no probe kind is called {name}")
    if len({entry.value for entry in found}) > 1:
        other = next(entry for entry in found if entry.value != found[0].value)
        raise PluginError(name, found[0].distribution, f"{other.distribution} has one of that name too; remove one")
    return found[0]


_VALUE = re.compile(r"([\w.]+)\s*:\s*([\w.]+)\s*(?:\[.*\])?")


def _load(entry: EntryPoint) -> ProbeKind:
    match = _VALUE.fullmatch(entry.value)
    if match is None:
        raise PluginError(entry.name, entry.distribution, f"its entry point {entry.value!r} is not module:class")
    invalidate_caches()  # it may have been installed while we run
    try:
        kind: Any = import_module(match[1])
        for part in match[2].split("."):
            kind = getattr(kind, part)
    except (Exception, SystemExit) as error:
        reason = f"{entry.value} cannot be imported: {_told(error)}"
        raise PluginError(entry.name, entry.distribution, reason) from error
    if not callable(kind):
        raise PluginError(entry.name, entry.distribution, f"{entry.value} is no class")
    return kind  # type: ignore[no-any-return]


def _told(error: BaseException) -> str:
    """An exception on one line."""
    return printable(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def printable(text: str) -> str:
    """What a plugin said, fit for one line of a log."""
    one_line = " ".join(text[: MAX_REASON * 4].split())
    safe = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in one_line)
    return safe if len(safe) <= MAX_REASON else safe[:MAX_REASON] + "..."
