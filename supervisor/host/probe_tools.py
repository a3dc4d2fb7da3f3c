"""What the daemon lends to probes: commands as the unit's user, and a look at its listening port."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..core.model import UnitSpec
from ..plugin_api import CommandResult, NotifyState, Target
from .command import Commands
from .port_owner import PortOwners

SECONDS_OLD = 0.2


class ProbeTools:
    """Serves the probes of all units, see `plugin_api.Tools`."""

    def __init__(self, commands: Commands, owners: PortOwners, spec_of: Callable[[str], UnitSpec | None]) -> None:
        self._commands, self._owners, self._spec_of = commands, owners, spec_of

    def target(self, spec: UnitSpec, attempt: int, pid: int, notify: NotifyState | None) -> Target:
        """The attempt as probes see it."""
        service = spec.service
        return Target(
            spec.name, attempt, pid, service.address if service else "127.0.0.1", service.port if service else None,
            spec.directory, dict(spec.environment), spec.user, spec.os_group, notify, self,
        )  # fmt: skip

    async def run(self, target: Target, argv: Sequence[str], timeout_seconds: float) -> CommandResult:
        """See `plugin_api.Tools.run`."""
        spec = self._spec_of(target.unit)
        if spec is None:
            raise OSError(0, "the unit was removed")
        return await self._commands.run(spec, target.attempt, argv, timeout_seconds)

    def listen_queue(self, port: int) -> int | None:
        """See `plugin_api.Tools.listen_queue`."""
        self._owners.refresh(SECONDS_OLD)
        return self._owners.queue(port)
