"""`notify = true`: the unit says itself how it is, over its notify socket (sd_notify(3))."""

from __future__ import annotations

from typing import Any

from ...config.values import boolean
from ...plugin_api import NotifyState, ProbeResult, Target
from ..clock import monotonic
from .options import read_options


class NotifyProbe:
    """Whether it has said READY=1; with `watchdog`, whether it goes on to say WATCHDOG=1.

    Without `watchdog`, STOPPING=1 and RELOADING=1 take READY=1 back. With it, READY=1 does not matter: there must
    have been a WATCHDOG=1 since the check before, so the unit has to send it at least twice in each `period`.
    """

    __slots__ = ("_checked_at", "_heard_at", "_watchdog")

    def __init__(self, options: Any) -> None:
        """`watchdog`, a boolean. Raises OptionError."""
        self._watchdog: bool = read_options(options, {"watchdog": boolean}).get("watchdog", False)
        self._checked_at: float | None = None
        self._heard_at: float | None = None

    async def check(self, target: Target, timeout_seconds: float) -> ProbeResult:
        """Looks at what it has said so far; waits for nothing."""
        if target.notify is None:
            return ProbeResult(False, "it was given no notify socket")
        return self._alive(target.notify) if self._watchdog else _ready(target.notify)

    def _alive(self, state: NotifyState) -> ProbeResult:
        if state.trigger:
            return ProbeResult(False, "it has said WATCHDOG=trigger: it wants to be restarted")
        before, heard, now = self._checked_at, self._heard_at, monotonic()
        self._checked_at, self._heard_at = now, state.watchdog_at
        if before is None:
            return ProbeResult(True, "the first check: from now on WATCHDOG=1 is expected")
        if state.watchdog_at == heard:
            return ProbeResult(False, f"no WATCHDOG=1 since the last check, {now - before:.1f} s ago")
        return ProbeResult(True, "it has said WATCHDOG=1")


def _ready(state: NotifyState) -> ProbeResult:
    if state.stopping:
        return ProbeResult(False, "it has said STOPPING=1")
    status = f" (its status: {state.status})" if state.status else ""
    if not state.ready:
        return ProbeResult(False, f"it has not said READY=1, or has taken it back{status}")
    return ProbeResult(True, f"it has said READY=1{status}")
