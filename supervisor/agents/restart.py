"""The restart agents: each takes one unit out of the registry and waits until nobody can find it there any more.

The waiting is sleep *and* look: past the ttl, then reading the entry back until it is not there. "Not there" is said by
a strongly consistent read alone; an error is no answer. What follows (settle, drain, terminate, spawn) is the
lifecycle's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from registry_client import lease as leases
from registry_client.backend import Backend
from registry_client.errors import RegistryError
from registry_client.lease import Lease

from ..core.events import Gone, Unconfirmed
from ..core.model import Removal, UnitSpec
from ..host.clock import monotonic
from ..host.process import Post
from .heartbeat import Heartbeats

log = logging.getLogger("unitd.restart")

FIRST_LOOK_SECONDS = 0.02  # after the entry should be gone; then longer and longer
LAST_LOOK_SECONDS = 1.0
MARGIN_SECONDS = 2.0  # beyond the bound within which the registry promises to remove an entry


class Waiting:
    """One withdrawal under way, for people to look at."""

    __slots__ = ("expected_at", "since", "task", "what")

    def __init__(self) -> None:
        self.since = monotonic()
        self.expected_at: float | None = None
        self.what = "stopping the heartbeat"
        self.task: asyncio.Task[None] | None = None


class RestartAgents:
    """All restart agents of the host. A unit has at most one withdrawal under way."""

    def __init__(
        self, backend: Backend, heartbeats: Heartbeats, post: Post, on_step: Callable[[str, str], None]
    ) -> None:
        """`on_step` is told (unit, "gone") when the withdrawal is done and the waiting begins."""
        self._recovered: set[str] = set()  # units whose entry an earlier daemon has left
        self._backend, self._heartbeats, self._post, self._on_step = backend, heartbeats, post, on_step
        self._waiting: dict[str, Waiting] = {}

    def take_out(self, spec: UnitSpec, attempt: int, withdrawal: int) -> None:
        """Stop the unit's heartbeat and wait for the entry's end -> Gone or Unconfirmed."""
        waiting = self._waiting[spec.name] = Waiting()
        waiting.task = asyncio.get_running_loop().create_task(self._take_out(waiting, spec, attempt, withdrawal))

    def adopt(self, unit: str) -> None:
        """Its entry is of an earlier daemon, and may have gone long ago: the next withdrawal looks before it waits."""
        self._recovered.add(unit)

    def call_off(self, unit: str) -> None:
        """The unit goes on serving: forget the withdrawal."""
        waiting = self._waiting.pop(unit, None)
        if waiting is not None and waiting.task is not None:
            waiting.task.cancel()

    def describe(self, unit: str) -> str:
        """What a withdrawal waits for, with its time; "" if there is none."""
        waiting = self._waiting.get(unit)
        if waiting is None:
            return ""
        passed = monotonic() - waiting.since
        if waiting.expected_at is None:
            return waiting.what
        return f"{waiting.what}: {passed:.1f} s of {max(waiting.expected_at - waiting.since, 0):.1f} s"

    async def close(self) -> None:
        """Stop waiting."""
        tasks = [waiting.task for waiting in self._waiting.values() if waiting.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_out(self, waiting: Waiting, spec: UnitSpec, attempt: int, withdrawal: int) -> None:
        entry = self._heartbeats.entry(spec.name)
        if entry is None:  # it could not even be tried to register it
            self._waiting.pop(spec.name, None)
            self._post(spec.name, Gone(attempt, withdrawal))
            return
        deregister = spec.restart.removal is Removal.DEREGISTER
        lease = await self._heartbeats.withdraw(spec.name, deregister=deregister)
        waiting.what = "waiting for the registry entry to go"
        waiting.expected_at = leases.expires_at(lease) or monotonic()
        self._on_step(spec.name, "gone")
        first = spec.name in self._recovered
        self._recovered.discard(spec.name)
        if first and await self._look(entry.service, entry.instance, attempt) is None:
            problem = None
        else:
            problem = await self._wait_gone(entry.service, entry.instance, attempt, lease)
        self._waiting.pop(spec.name, None)
        if problem is None:
            self._heartbeats.forget(spec.name)
            self._post(spec.name, Gone(attempt, withdrawal))
        else:
            log.warning("%s: %s", spec.name, problem)
            self._post(spec.name, Unconfirmed(attempt, withdrawal, problem))

    async def _wait_gone(self, service: str, instance: str, attempt: int, lease: Lease) -> str | None:
        """None when the entry is gone; else, once it should be, why that cannot be said."""
        expires_at = leases.expires_at(lease)
        if expires_at is not None:
            await asyncio.sleep(max(0.0, expires_at - monotonic()))
        bound_at = monotonic() + MARGIN_SECONDS
        if lease.last_possible_at is not None:
            bound_at += max(0.0, lease.last_possible_at + self._backend.removal_bound(lease.ttl_seconds) - monotonic())
        pause = FIRST_LOOK_SECONDS
        while True:
            problem = await self._look(service, instance, attempt)
            if problem is None or monotonic() > bound_at:
                return problem
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LAST_LOOK_SECONDS)

    async def _look(self, service: str, instance: str, attempt: int) -> str | None:
        try:
            entry = await self._backend.get(service, instance)
        except RegistryError as error:
            return f"the registry cannot say whether the entry is gone ({error})"
        except Exception as error:  # backends are plugins: a mistake in one must not leave the unit waiting for ever
            return f"the registry cannot say whether the entry is gone (its backend failed: {error!r})"
        if entry is None or entry.generation != attempt:
            return None
        return "the registry still lists the entry, although its ttl is over"
