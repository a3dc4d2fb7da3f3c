"""Signals by name or number."""

from __future__ import annotations

import signal

from ..errors import WireError


def signal_number(value: object) -> int:
    """15 for "TERM", "SIGTERM", "15" or 15. Raises WireError."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 64:
        return value
    if isinstance(value, str):
        if value.isascii() and value.isdigit() and len(value) <= 2 and 1 <= int(value) <= 64:
            return int(value)
        name = value.upper().removeprefix("SIG")
        found = getattr(signal.Signals, f"SIG{name}", None)
        if found is not None:
            return int(found)
    raise WireError(f"cannot send {value!r}: it is no signal; use a name such as HUP, or a number from 1 to 64")


def signal_name(number: int) -> str:
    """SIGTERM for 15; "signal 40" where there is no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
