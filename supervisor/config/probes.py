"""The tables `startup`, `readiness` and `liveness` of one process: how often is asked, and by which kind of probe.

The kinds are plugins: what stands after a kind's key is the kind's own, and the kind itself says whether it is right.
"""

from __future__ import annotations

import json
from typing import Any

from ..core.model import ProbeSpec
from ..errors import PluginError
from ..plugin_api import OptionError
from ..plugin_registry import make_probe, printable, probe_kinds
from .document import Keys
from .fill import Filler
from .schema import PROBES
from .values import Invalid
from .words import PROBE_HINTS, nearest

Fault = tuple[str, str]  # key within the options ("": all of them), and reason


class Kinds:
    """The kinds of one configuration: equal options are tried once, however many processes have them."""

    __slots__ = ("_faults", "_names")

    def __init__(self) -> None:
        self._names: list[str] | None = None
        self._faults: dict[tuple[str, str], Fault | None] = {}

    def names(self) -> list[str]:
        """All that are installed, sorted."""
        if self._names is None:
            self._names = probe_kinds()
        return self._names

    def fault(self, kind: str, options: str) -> Fault | None:
        """Why a kind refuses these options (canonical JSON)."""
        key = kind, options
        if key not in self._faults:
            self._faults[key] = _fault(kind, options)
        return self._faults[key]


def _fault(kind: str, options: str) -> Fault | None:
    try:
        make_probe(kind, json.loads(options))
    except OptionError as error:
        return str(error.key or ""), printable(str(error.reason))
    except PluginError as error:
        return "", str(error)
    return None


def read_probe(fill: Filler, name: str, kinds: Kinds) -> ProbeSpec | None:
    """The probe of that name; None when there is no such table, or none that can be used."""
    if name not in fill.raw:
        return None
    written = fill.raw[name]
    others = tuple(key for key in written if key not in PROBES[name]) if isinstance(written, dict) else ()
    part = fill.part(name, PROBES[name], tables=others)
    if not isinstance(written, dict):
        return None
    kind = _kind(fill, name, others, kinds)
    options = _options(fill, (name, kind), written[kind]) if kind is not None else None
    if kind is None or options is None:
        return None
    if not fill.has_port and _asks_the_service(kind, written[kind]):
        fill.complain((name, kind), "needs a port: the unit has no service whose port could be meant")
    elif fault := kinds.fault(kind, options):
        fill.complain((name, kind, *filter(None, fault[0].split("."))), fault[1])
    return ProbeSpec(kind, options, **part)


def _kind(fill: Filler, name: str, others: tuple[str, ...], kinds: Kinds) -> str | None:
    """The one kind among the keys that are not every probe's; complains of what else they are."""
    found = [key for key in others if key in kinds.names()]
    for key in others:
        if key not in found:
            fill.complain((name, key), _unknown(key, name, kinds.names()))
    for key in found[1:]:
        fill.complain((name, key), f"a probe has one kind: {found[0]} is given already")
    if not others:
        fill.complain(name, f"missing: a probe needs a key for its kind, one of {', '.join(kinds.names())}")
    return found[0] if found else None


def _unknown(key: str, name: str, kinds: list[str]) -> str:
    if hint := PROBE_HINTS.get(key):
        return f"unknown key: {hint}"
    near = nearest(key, [*kinds, *PROBES[name]])
    meant = f"; did you mean {near}?" if near else f"; known here: {', '.join(PROBES[name])}"
    return f"unknown key{meant}; kinds of probes here: {', '.join(kinds)}"


def _options(fill: Filler, key: Keys, value: Any) -> str | None:
    """What stands after the kind's key, as canonical JSON."""
    try:
        return json.dumps(fill.everywhere(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    except Invalid as error:
        fill.complain((*key, *error.inside), str(error))
    except TypeError:
        fill.complain(key, "must not hold a date or time; write it as a string")
    except ValueError:
        fill.complain(key, "must not hold NaN or infinity")
    return None


def _asks_the_service(kind: str, options: Any) -> bool:
    """It would ask the service's port. Of kinds that did not come with unitd nothing is known."""
    given = options if isinstance(options, dict) else {}
    return given.get("queue") is True if kind == "kernel" else kind in ("http", "tcp") and "port" not in given
