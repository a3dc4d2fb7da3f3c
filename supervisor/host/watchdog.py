"""Beats for the service manager's watchdog (sd_watchdog_enabled(3)): given only while the daemon does its work.

A beat is a timer of the loop, so a loop that stands still gives none; before each, the daemon is asked what of its
work is overdue. Without beats the manager aborts the daemon, whose last words are the stacks of its threads, and
starts it anew; units do not notice.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
from collections.abc import Callable, Mapping

from .notify import tell_manager

log = logging.getLogger("unitd")

BEATS = 4  # in the time that the manager allows: some may come late, and one be lost


def watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    """How long the manager waits for a beat of this process; None: it does not wait for any."""
    meant_for = environ.get("WATCHDOG_PID", "")
    if meant_for and meant_for != str(pid):
        return None
    allowed = environ.get("WATCHDOG_USEC", "")
    return int(allowed) / 1_000_000 if allowed.isascii() and allowed.isdecimal() and int(allowed) else None


class Watchdog:
    """Gives the beats, from `start` to `close`."""

    def __init__(self, overdue: Callable[[], str]) -> None:
        """`overdue` answers in a few words what should have been done by now, "" if nothing."""
        self._overdue = overdue
        self._trouble = ""
        self._timer: asyncio.TimerHandle | None = None
        self._period = (watchdog_seconds(os.environ, os.getpid()) or 0.0) / BEATS

    def start(self) -> None:
        """From now on; nothing happens where nobody waits for beats. Needs a running loop."""
        if self._period and self._timer is None:
            try:
                faulthandler.enable()  # the watchdog's signal is SIGABRT
            except (OSError, ValueError, RuntimeError):
                log.debug("no stderr to write the stacks to")
            self._beat()

    def _beat(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._period, self._beat)
        trouble = self._look()
        if not trouble:
            tell_manager("WATCHDOG=1")
        if trouble != self._trouble:
            self._trouble = trouble
            self._tell(trouble)

    def _look(self) -> str:
        try:
            return self._overdue()
        except Exception as error:
            log.exception("cannot look at what is overdue")
            return f"cannot look: {error!r}"

    def _tell(self, trouble: str) -> None:
        if trouble:
            log.error("overdue: %s; without a change the watchdog ends unitd", trouble)
        else:
            log.warning("no longer overdue")
        tell_manager(f"STATUS={f'overdue: {trouble}' if trouble else ''}")

    def close(self) -> None:
        """No more beats."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
