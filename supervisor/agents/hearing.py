"""What units say of themselves over their notify sockets (sd_notify(3)); nothing is made before a unit wants one."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..core.model import Unit, UnitSpec
from ..errors import SpawnError
from ..host.clock import monotonic
from ..host.notify_sockets import NotifySockets, wants_socket
from ..plugin_api import NotifyState

log = logging.getLogger("unitd.process")


class Hearing:
    """The notify sockets of all units."""

    def __init__(self, folder: str, on_word: Callable[[str], None]) -> None:
        """`folder` holds the sockets, and is made with the first; `on_word` is told which unit has said something."""
        self._folder, self._on_word = folder, on_word
        self._sockets: NotifySockets | None = None

    @property
    def paths(self) -> frozenset[str]:
        """Where the sockets are."""
        return self._sockets.paths if self._sockets is not None else frozenset()

    def offer(self, spec: UnitSpec, attempt: int) -> str | None:
        """The path of the attempt's socket; None: it wants none. Raises OSError."""
        if not wants_socket(spec):
            return None
        if self._sockets is None:
            self._sockets = NotifySockets(self._folder, lambda unit, attempt: self._on_word(unit))
        return self._sockets.offer(spec, attempt)

    def offer_again(self, spec: UnitSpec, unit: Unit) -> NotifyState | None:
        """Hear an attempt of an earlier daemon, at the same path; what it has said, as far as that is known."""
        try:
            self.offer(spec, unit.attempt)
        except (OSError, SpawnError) as error:
            log.warning("%s: cannot hear what it says: %s", spec.name, error)
        said = self.said(spec.name)
        if said is not None and unit.ready_at is not None:
            said.ready, said.watchdog_at = True, monotonic()
        return said

    def said(self, unit: str) -> NotifyState | None:
        """What the present attempt has said; None: it has no socket."""
        return self._sockets.state(unit) if self._sockets is not None else None

    def close(self, unit: str) -> None:
        """Its attempt has ended."""
        if self._sockets is not None:
            self._sockets.close(unit)

    def close_all(self) -> None:
        """Remove what is left."""
        if self._sockets is not None:
            self._sockets.close_all()
