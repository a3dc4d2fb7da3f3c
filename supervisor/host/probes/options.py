"""Reading the options of a probe kind: converted values, or OptionError with the key and the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...config.values import Converter, Invalid, describe, integer
from ...config.words import unknown
from ...plugin_api import OptionError, Target


def read_options(options: Any, known: Mapping[str, Converter]) -> dict[str, Any]:
    """What was given, converted, by key; `true` is the same as an empty table. Raises OptionError."""
    if options is True:
        return {}
    if not isinstance(options, dict):
        raise OptionError("", f"must be true or a table, not {describe(options)}")
    read = {}
    for key, value in options.items():
        if key not in known:
            raise OptionError(key, unknown(key, known))
        try:
            read[key] = known[key](value)
        except Invalid as error:
            raise OptionError(".".join((key, *error.inside)), str(error)) from None
    return read


def port(value: Any) -> int:
    """A port, also in quotes: that is what "{port}" becomes."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6:
        value = int(value)
    return int(integer(1, 65535)(value))


def port_of(target: Target, given: int | None) -> int | None:
    """The port to ask: the one in the options, else the service's."""
    return target.port if given is None else given


NO_PORT = "the probe needs a port: the unit has no service that names one"
