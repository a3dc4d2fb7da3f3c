"""The node in one small answer: what the control center asks for as its heartbeat.

It is asked every few seconds by every control center, so nothing is looked up for it outside of this process.
"""

from __future__ import annotations

from ..host.clock import iso, monotonic, wall
from ..installation import version
from ..wire import NodeInfo
from .operations import Operations
from .orders import Orders


class Node:
    """Who this daemon is, since when, and how much it has to do."""

    def __init__(self, name: str, state_id: str, life: int, orders: Orders, operations: Operations) -> None:
        """`life` is how often a daemon has begun on the folder that `state_id` names, this time included."""
        self.name, self._state_id, self.life = name, state_id, life
        self._orders, self._operations = orders, operations
        self.began_at, self.began_wall = monotonic(), wall()

    @property
    def uptime_seconds(self) -> float:
        """Of this daemon."""
        return monotonic() - self.began_at

    def info(self) -> NodeInfo:
        """The node as it is now."""
        specs = self._orders.specs
        services = {spec.service.name for spec in specs.values() if spec.service is not None}
        return NodeInfo(
            node=self.name,
            version=version(),
            state_id=self._state_id,
            life=self.life,
            started_at=iso(self.began_wall),
            uptime_seconds=round(self.uptime_seconds, 3),
            units=len(specs),
            services=sorted(services),
            open_operations=self._operations.open_count,
            time=iso(),
        )
