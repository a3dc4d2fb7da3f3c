"""All registries of the host at once: an entry is in each of them, and has gone when it has gone from all.

Most hosts have one. Several serve a migration: readers of the old registry and of the new one find the same units, and
none of them is stopped before nobody finds it any more. Each registry has heartbeat agents of its own, so one that is
away does not disturb the leases in the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from registry_client import lease as leases
from registry_client.backend import Backend
from registry_client.errors import RegistryError, RegistryRejected
from registry_client.lease import Lease, LeaseState
from registry_client.model import Entry

from ..host.clock import monotonic
from .heartbeat import ANNOUNCING, Heartbeats

log = logging.getLogger("unitd.registry")

INSPECT_RETRY_SECONDS = 5.0
_LOOK_SECONDS = 0.01

_WORST_FIRST = (LeaseState.LOST, LeaseState.SUSPENDED, LeaseState.ABSENT, LeaseState.HELD)


@dataclass(frozen=True, slots=True)
class Registry:
    """One registry of the host. `ttl_seconds` is None where that of each service counts."""

    name: str
    backend: Backend
    heartbeats: Heartbeats
    ttl_seconds: float | None = None
    url: str = ""
    is_one_of_many: bool = False  # messages name it then

    def ttl(self, service_ttl: float) -> float:
        """The ttl to ask for."""
        return service_ttl if self.ttl_seconds is None else self.ttl_seconds


class Registries:
    """What a unit's entry is, everywhere. Answers like one registry's `Heartbeats`."""

    def __init__(
        self,
        on_confirmed: Callable[[str], None],
        before_register: Callable[[str, Entry, float], None] = lambda unit, entry, ttl_seconds: None,
    ) -> None:
        """`on_confirmed` is told when all registries have a unit's entry, `before_register` before one may have it."""
        self._before_register = before_register
        self.all: list[Registry] = []
        self._on_confirmed = on_confirmed
        self._missing: dict[str, set[str]] = {}  # unit -> registries that have not confirmed its entry yet
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, registry: Registry) -> None:
        """One more, before anything is published."""
        self.all.append(registry)

    def confirmed(self, registry: str, unit: str) -> None:
        """A registry has (once more) confirmed the entry of a unit."""
        missing = self._missing.get(unit)
        if missing is None:
            self._on_confirmed(unit)
            return
        missing.discard(registry)
        if not missing:
            del self._missing[unit]
            self._on_confirmed(unit)

    def publish(self, unit: str, entry: Entry, ttl_seconds: float) -> None:
        """Register the entry everywhere and keep it."""
        self._missing[unit] = {registry.name for registry in self.all}
        self._before_register(unit, entry, max(registry.ttl(ttl_seconds) for registry in self.all))
        for registry in self.all:
            registry.heartbeats.publish(unit, entry, registry.ttl(ttl_seconds))

    def overdue(self) -> str:
        """What the heartbeat agents should have done by now, in a few words; "" if nothing."""
        return next(filter(None, (registry.heartbeats.overdue() for registry in self.all)), "")

    async def until_confirmed(self, units: Iterable[str], seconds: float) -> None:
        """Wait until every registry has confirmed the entries that were published of these, or the time is over."""
        until = monotonic() + seconds
        while monotonic() < until and not self._missing.keys().isdisjoint(units):  # noqa: ASYNC110  # once in a life
            await asyncio.sleep(_LOOK_SECONDS)

    def adopt(self, unit: str, entry: Entry, ttl_seconds: float) -> None:
        """An entry that an earlier daemon may have left: not renewed, to be withdrawn."""
        for registry in self.all:
            registry.heartbeats.adopt(unit, entry, registry.ttl(ttl_seconds))

    def change(self, unit: str, entry: Entry, ttl_seconds: float) -> None:
        """Other values for an entry that is kept."""
        for registry in self.all:
            registry.heartbeats.change(unit, entry, registry.ttl(ttl_seconds))

    def fence(self, unit: str) -> None:
        """No renewal of its entry begins from now on; `withdraw` follows."""
        for registry in self.all:
            registry.heartbeats.fence(unit)

    @property
    def can_announce(self) -> bool:
        """Each can say of an entry that is there that it leaves."""
        return all(registry.backend.capabilities >= ANNOUNCING for registry in self.all)

    async def announce(self, unit: str) -> None:
        """Tell the readers of all registries that it leaves, as far as those can say so; `withdraw` follows."""
        await asyncio.gather(*(registry.heartbeats.announce(unit) for registry in self.all))

    def keeps(self, unit: str) -> bool:
        """Its entry is renewed, or tried to be registered, somewhere."""
        return any(registry.heartbeats.keeps(unit) for registry in self.all)

    async def withdraw(self, unit: str, *, deregister: bool) -> Mapping[str, Lease]:
        """Stop all its heartbeats; by registry, what is known of how long the entry can live there."""
        self._missing.pop(unit, None)
        calls = [registry.heartbeats.withdraw(unit, deregister=deregister) for registry in self.all]
        found = await asyncio.gather(*calls)
        return {registry.name: lease for registry, lease in zip(self.all, found, strict=True)}

    def forget(self, unit: str) -> None:
        """Its entry is gone."""
        self._missing.pop(unit, None)
        for registry in self.all:
            registry.heartbeats.forget(unit)

    def entry(self, unit: str) -> Entry | None:
        """The entry that is kept in the registries."""
        found = (registry.heartbeats.entry(unit) for registry in self.all)
        return next((entry for entry in found if entry is not None), None)

    def leases(self, unit: str) -> dict[str, Lease]:
        """What is known of a unit's leases, by registry."""
        found = {registry.name: registry.heartbeats.lease(unit) for registry in self.all}
        return {name: lease for name, lease in found.items() if lease is not None}

    def lease(self, unit: str) -> Lease | None:
        """The lease that is worst off; None: there is none."""
        now = monotonic()
        known = self.leases(unit).values()
        return min(known, key=lambda lease: _WORST_FIRST.index(leases.state_at(lease, now)), default=None)

    def trouble(self, unit: str) -> str:
        """Why the last beats failed; "" if they did not."""
        return "; ".join(filter(None, (registry.heartbeats.trouble(unit) for registry in self.all)))

    def inspect(self, ttl_seconds: float) -> None:
        """Ask each registry, as soon as it answers, what cannot work as it is configured, and log that."""
        for registry in self.all:
            task = asyncio.get_running_loop().create_task(self._inspect(registry, registry.ttl(ttl_seconds)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _inspect(self, registry: Registry, ttl_seconds: float) -> None:
        while True:
            try:
                inspection = await registry.backend.inspect(ttl_seconds)
            except RegistryRejected as error:  # asking again would change nothing, and fill the registry's log
                log.warning("registry %s: %s", registry.name, error)
                return
            except RegistryError as error:
                log.debug("registry %s: cannot be inspected yet: %s", registry.name, error)
                await asyncio.sleep(INSPECT_RETRY_SECONDS)
            except Exception as error:  # backends are plugins
                log.warning("registry %s: cannot be inspected: its backend failed: %r", registry.name, error)
                return
            else:
                for warning in inspection.warnings:
                    log.warning("registry %s: %s", registry.name, warning)
                return

    async def close(self) -> None:
        """Stop all heartbeats and close the backends; entries that are left expire."""
        for task in self._tasks:
            task.cancel()
        for registry in self.all:
            await registry.heartbeats.close()
            await registry.backend.close()
