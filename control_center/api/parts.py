"""What the API needs of the rest of the control center, and what it hands over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from registry_client.server import RegistryApi
from supervisor.core.access import Principal

from ..asking import NewOperation, Permit, forbidden, permit_all
from ..model import Decision, NodeStatus, Operation, Report, Target, Wish

if TYPE_CHECKING:  # only their shapes are needed here
    from ..channels import NodeCommand
    from ..config import CenterConfig
    from ..fleet import Fleet
    from ..metrics import Metrics
    from ..store import Store

__all__ = [
    "ApiParts", "ClosedLoop", "Executor", "Heartbeats", "Leader", "NewOperation", "NodeChannels", "Permit",
    "RegistryState", "forbidden", "permit_all",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class RegistryState:
    """How the registry looks from here."""

    backend: str
    state: str = "away"  # ok | away
    seconds_ago: float | None = None  # since it was last heard of; None: never yet
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Leader:
    """Who acts for the fleet."""

    is_us: bool
    name: str | None
    epoch: int


class Executor(Protocol):
    """Begins operations and changes what is wanted of them; any center may, the leading one carries them out."""

    async def begin(self, request: NewOperation) -> Operation:
        """Plan and store it; the stored one where the command is known.

        Raises BadRequest (`nothing_selected`, `floor`, `forbidden`, ...), ServiceBusy, CommandDiffers.
        """

    async def preview(self, request: NewOperation) -> Operation:
        """The plan, with id "", of what `begin` would do now. Raises the same."""

    async def wish(self, id_: str, wish: Wish, who: str, reason: str) -> Operation | None:
        """Pause, resume or abort; None: it is unknown. Raises BadRequest (409, `done`) if it has ended."""


class ClosedLoop(Protocol):
    """Weighs reports."""

    async def take(self, reports: Sequence[Report]) -> list[Decision]:
        """Keep reports as evidence; what was decided at once (nothing where another center leads)."""

    async def clear(self, kind: str, name: str, who: str) -> None:
        """Forget why a "service" is frozen or what an "instance" did. Raises BadRequest if there is nothing such."""

    async def frozen(self) -> Mapping[str, str]:
        """Service -> why nothing of it is restarted automatically."""

    def budgets(self) -> Mapping[str, float]:
        """Scope -> automatic restarts left, where any were taken; nothing where another center leads."""


class Heartbeats(Protocol):
    """Watches nodes."""

    @property
    def interval_seconds(self) -> float:
        """How often nodes that send heartbeats should do so."""

    def statuses(self) -> list[NodeStatus]:
        """All nodes, by name."""


class NodeChannels(Protocol):
    """Asks nodes; raises NodeUnreachable, NodeRefused."""

    async def get(self, node: str, path: str) -> Any:
        """Any of a node's answers, from JSON."""

    def stream(self, node: str, path: str) -> AsyncIterator[bytes]:
        """An answer without an end."""

    def via(self, node: str) -> str:
        """push | pull"""


@dataclass(slots=True)
class ApiParts:
    """All that the API stands on."""

    config: CenterConfig
    store: Store
    fleet: Callable[[], Fleet | None]  # None: the registry has not been seen yet
    registry: Callable[[], RegistryState]
    leader: Callable[[], Leader]
    heartbeats: Heartbeats
    channels: NodeChannels
    executor: Executor
    closed_loop: ClosedLoop
    command_of: Callable[[Operation, Target], NodeCommand]  # what a node that fetches its commands is given
    metrics: Metrics
    started_at: str  # ISO 8601 in UTC
    registry_api: RegistryApi | None = None  # where the embedded registry is hosted here
    is_ready: Callable[[], bool] = lambda: True

    @property
    def principals(self) -> tuple[Principal, ...]:
        """Who may use the API; empty: loopback decides by user."""
        return self.config.http.principals
