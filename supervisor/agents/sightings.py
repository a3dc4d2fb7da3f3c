"""What load balancers show of themselves when they check units: who sends to which unit, and what is open there.

A gateway that sends its state along with its checks says it itself. One that only asks as an agent is known by its
address, and does what it is told at once; but several may have one address, so it counts as obeying only when it was
told twice, and it never proves that nobody else sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..host.clock import monotonic

if TYPE_CHECKING:  # the checks port is loaded where there is one
    from ..core.checking import View

MAX_GATEWAYS = 64  # for one unit; beyond them the one that was silent for longest is forgotten
FRESH_INTERVALS, FRESH_SECONDS = 3.0, 3.0  # so old may the last word be, whichever is longer
_TOLD = 2  # polls in a row


class Sighting:
    """One gateway and one unit, as of the last check."""

    __slots__ = ("at", "gateway", "in_flight", "interval", "peer", "proves", "sends", "told")

    def __init__(self, gateway: str, peer: str, *, proves: bool) -> None:
        self.gateway, self.peer, self.proves = gateway, peer, proves
        self.sends = True
        self.in_flight: int | None = None
        self.at, self.interval = -1.0, 0.0
        self.told = 0  # how often in a row it was told to send nothing

    def seen(self, now: float) -> None:
        """It has just checked."""
        if self.at >= 0:
            self.interval = now - self.at
        self.at = now

    def is_fresh(self, now: float) -> bool:
        """It would have checked again by now, if it were still there."""
        return now - self.at <= max(FRESH_INTERVALS * self.interval, FRESH_SECONDS)


class Sightings:
    """All that is known of gateways by their checks, by unit."""

    def __init__(self) -> None:
        self._by_unit: dict[str, dict[tuple[str, str], Sighting]] = {}

    def state(self, unit: str, view: View, peer: str) -> None:
        """A gateway has sent its state with a check."""
        sighting = self._of(unit, view.node, view.name, peer, proves=True)
        sighting.sends, sighting.in_flight = view.sends, view.in_flight

    def poll(self, unit: str, peer: str, *, ready: bool) -> None:
        """Somebody has asked as an agent, and was told whether to send."""
        sighting = self._of(unit, f"at {peer}", "", peer, proves=False)
        sighting.told = 0 if ready else sighting.told + 1
        sighting.sends = sighting.told < _TOLD

    def of(self, unit: str) -> list[Sighting]:
        """The gateways that are there, each once."""
        found = self._by_unit.get(unit)
        if not found:
            return []
        now = monotonic()
        fresh = [sighting for sighting in found.values() if sighting.is_fresh(now)]
        known = {sighting.peer for sighting in fresh if sighting.proves}
        return [sighting for sighting in fresh if sighting.proves or sighting.peer not in known]

    def forget(self, unit: str) -> None:
        """It is no unit any more."""
        self._by_unit.pop(unit, None)

    def _of(self, unit: str, gateway: str, name: str, peer: str, *, proves: bool) -> Sighting:
        known = self._by_unit.setdefault(unit, {})
        sighting = known.get((gateway, name))
        if sighting is None:
            if len(known) >= MAX_GATEWAYS:
                del known[min(known, key=lambda key: known[key].at)]
            sighting = known[gateway, name] = Sighting(gateway, peer, proves=proves)
        sighting.peer = peer
        sighting.seen(monotonic())
        return sighting
