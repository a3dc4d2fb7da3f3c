"""Whether a unit's entry may be kept: this very process lives, and the port that the entry names is its own."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..core.model import UnitSpec
from .port_owner import PortOwners
from .process import Processes

log = logging.getLogger("unitd.heartbeat")

SECONDS_OLD = 0.5  # the list of listeners that serves all units that are asked about at about the same time


class Voucher:
    """Asked before each renewal. Another process with its pid is never taken for it: a pidfd names one for ever."""

    def __init__(self, processes: Processes, owners: PortOwners, spec_of: Callable[[str], UnitSpec | None]) -> None:
        self._processes, self._owners, self._spec_of = processes, owners, spec_of
        self._blind = False

    def __call__(self, unit: str) -> str:
        """Why its entry must not be renewed now; "" if it may be."""
        spec = self._spec_of(unit)
        if spec is None or spec.service is None:
            return ""
        pid = self._processes.living(unit)
        if pid is None:
            return "its process has ended"
        if not spec.service.own_port:
            return ""
        try:
            self._owners.refresh(SECONDS_OLD)
            return self._owners.doubt(pid, spec.service.address, spec.service.port)
        except OSError as error:  # it cannot be seen: that says nothing against the unit
            if not self._blind:
                log.warning("cannot see who listens on which port: %s; units' ports are not checked", error.strerror)
            self._blind = True
            return ""
