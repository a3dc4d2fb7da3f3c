"""Which parameters a verb takes, and of which type. Pure.

What their values mean is checked by whoever carries them out.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import WireError

_ANY = object
# `warm` and `weight` are not here: they are refused with more words, for each unit (agents/warmup.py).
_KNOWN: dict[str, dict[str, type]] = {
    "start": {},
    "stop": {"force": bool},
    "restart": {"force": bool, "no_drain": bool},
    "signal": {"signal": _ANY},
    "drain": {"owner": str, "for_seconds": _ANY, "until": str},
    "undrain": {},
}
_WORDS: dict[type, str] = {bool: "true or false", str: "a string"}


def check_parameters(verb: str, parameters: Mapping[str, object]) -> None:
    """Raise WireError for a parameter that the verb does not know, or that is of another type; null is absent."""
    known = _KNOWN.get(verb)
    if known is None:
        return
    for name, value in parameters.items():
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise WireError(f"cannot {verb}: unknown parameter {name!r}; {takes}")
        if value is not None and not isinstance(value, known[name]):
            raise WireError(f"cannot {verb}: {name} must be {_WORDS[known[name]]}, not {value!r}")
