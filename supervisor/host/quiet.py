"""Warnings about others that must not fill the log, however often they give reason."""

from __future__ import annotations

import logging

from .clock import monotonic

log = logging.getLogger("unitd.access")

QUIET_SECONDS = 60.0  # so often one address is complained about
_ADDRESSES = 256  # that are remembered at a time


class Quiet:
    """One warning per address in QUIET_SECONDS; the next one says how many there would have been."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, int]] = {}  # address -> when it was last told, and how many came since

    def warn(self, address: str, sentence: str, *values: object) -> bool:
        """One more reason; answers whether it was told."""
        now = monotonic()
        last, count = self._last.pop(address, (now - QUIET_SECONDS, 0))
        if now - last < QUIET_SECONDS:
            self._last[address] = last, count + 1
            return False
        more = f" ({count} more like this since the last time)" if count else ""
        log.warning(sentence + "%s", *values, more)
        while len(self._last) >= _ADDRESSES:
            del self._last[next(iter(self._last))]
        self._last[address] = now, 0
        return True
