"""The restart agents: each takes one unit out of the registry and waits until nobody can find it there any more.

The waiting is sleep *and* look: past the ttl, then reading the entry back until it is not there. "Not there" is said by
a strongly consistent read alone; an error is no answer. Gateways that are known to have sent to the unit are then given
some time to say that they do no more; before an entry is deleted, they are given it first. What follows (settle, drain,
terminate, spawn) is the lifecycle's.

A registry may still say "there" after the time within which it promised to remove the entry: its ttl began anew with a
new leader, or the entry has lost its ttl. The entry is deleted then (only this generation's), and looked for again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from registry_client import lease as leases
from registry_client.errors import RegistryError
from registry_client.lease import Lease
from registry_client.model import Entry, LeaseKey

from ..core.events import Gone, Unconfirmed
from ..core.measures import Measures
from ..core.model import Removal, UnitSpec
from ..host.clock import monotonic
from ..host.process import Post
from .acknowledgements import Acknowledgements, Senders, named
from .registries import Registries, Registry

log = logging.getLogger("unitd.restart")

FIRST_LOOK_SECONDS = 0.02  # after the entry should be gone; then longer and longer
LAST_LOOK_SECONDS = 1.0
UNREACHABLE_SECONDS = 5.0  # without any answer, so that the election of a leader is no reason to give up
MARGIN_SECONDS = 2.0  # beyond the bound within which the registry promises to remove an entry


_STILL_THERE = "the registry still lists the entry, although its ttl is over"


class Waiting:
    """One withdrawal under way, for people to look at."""

    __slots__ = ("bound_at", "counted", "expected_at", "heard_seconds", "senders", "since", "task", "what")

    def __init__(self) -> None:
        self.since = monotonic()
        self.expected_at: float | None = None
        self.bound_at = 0.0
        self.what = "stopping the heartbeat"
        self.senders: Senders | None = None  # whose word is, or will be, waited for
        self.heard_seconds = 0.0  # how long it was
        self.counted = False  # as a removal
        self.task: asyncio.Task[None] | None = None


class RestartAgents:
    """All restart agents of the host. A unit has at most one withdrawal under way."""

    def __init__(
        self,
        registries: Registries,
        post: Post,
        on_step: Callable[[str, str], None],
        measures: Measures | None = None,
        *,
        gateways: Acknowledgements | None = None,
        serves: Callable[[str], bool] = lambda unit: True,
        on_detail: Callable[[str, str, str], None] = lambda unit, step, detail: None,
    ) -> None:
        """`on_step` is told (unit, "gone") when the withdrawal is done and the waiting begins.

        `gateways` know who sends to a unit; without them nobody is waited for when its entry is gone. (unit,
        "gateways") is told when that waiting begins, to `on_detail` what came of it if somebody did not answer. Nobody
        is waited for while `serves` says of a unit that it could not answer anyhow.
        """
        self._measures = measures or Measures()
        self._gateways, self._serves, self._on_detail = gateways, serves, on_detail
        self._recovered: set[str] = set()  # units whose entry an earlier daemon has left
        self._registries, self._post, self._on_step = registries, post, on_step
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
            self._count(waiting, "called_off")
        if self._gateways is not None:
            self._gateways.forget(unit)

    def describe(self, unit: str) -> str:
        """What a withdrawal waits for, with its time; "" if there is none."""
        waiting = self._waiting.get(unit)
        if waiting is None:
            return ""
        if waiting.senders is not None and (words := waiting.senders.describe()):
            return words
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
        entry = self._registries.entry(spec.name)
        if entry is None:  # it could not even be tried to register it
            self._waiting.pop(spec.name, None)
            self._post(spec.name, Gone(attempt, withdrawal))
            return
        deregister = spec.restart.removal is Removal.DEREGISTER
        self._registries.fence(spec.name)  # whatever gateways are asked now does not prolong the entry
        waiting.senders = senders = await self._look_for_senders(spec, entry)
        if deregister and senders is not None and senders.expects and self._registries.can_announce:
            # To who follows the registry, an entry that only vanishes looks like one whose heartbeat was lost.
            await self._registries.announce(spec.name)
            await self._hear(waiting, spec)
        known = await self._registries.withdraw(spec.name, deregister=deregister)
        problem = await self._search(waiting, entry, attempt, known)
        self._count(waiting, "unconfirmed" if problem else "gone")
        if not problem:
            await self._hear(waiting, spec)
        self._waiting.pop(spec.name, None)
        if not problem:
            self._registries.forget(spec.name)
            self._post(spec.name, Gone(attempt, withdrawal, senders is not None and senders.settled))
        else:
            log.warning("%s: %s", spec.name, problem)
            self._post(spec.name, Unconfirmed(attempt, withdrawal, problem))

    async def _search(self, waiting: Waiting, entry: Entry, attempt: int, known: Mapping[str, Lease]) -> str:
        """ "" when the entry has gone from all registries; else why that cannot be said. `known`: its lease in each."""
        waiting.what = "waiting for the registry entry to go"
        now = monotonic()
        waiting.expected_at = max(leases.expires_at(lease) or now for lease in known.values())
        self._on_step(entry.unit, "gone")
        recovered = entry.unit in self._recovered
        self._recovered.discard(entry.unit)
        waiting.bound_at = max(bound_of(registry, known[registry.name]) for registry in self._registries.all)
        searches = [
            Search(registry, entry.service, entry.instance, attempt, known[registry.name]).run(look_first=recovered)
            for registry in self._registries.all
        ]
        return "; ".join(filter(None, await asyncio.gather(*searches)))

    async def _look_for_senders(self, spec: UnitSpec, entry: Entry) -> Senders | None:
        if self._gateways is None or not self._serves(spec.name):
            return None
        try:
            return await self._gateways.begin(spec, entry)
        except Exception:
            log.exception("%s: cannot tell who sends to it", spec.name)
            return None

    async def _hear(self, waiting: Waiting, spec: UnitSpec) -> None:
        """Wait until gateways send nothing more, once for each withdrawal."""
        senders = waiting.senders
        if self._gateways is None or senders is None:
            return
        unit, seconds, began = spec.name, spec.restart.gateway_seconds, monotonic()
        try:
            await self._gateways.wait(
                senders, seconds, lambda: self._serves(unit), lambda: self._on_step(unit, "gateways")
            )
        except Exception:
            log.exception("%s: cannot tell whether gateways still send to it", unit)
        waiting.senders, waiting.heard_seconds = None, monotonic() - began
        if senders.known or senders.pending:
            outcome = senders.outcome if self._serves(unit) else "ended"
            self._measures.gateways.add(waiting.heard_seconds, senders.service, outcome)
        if senders.pending and self._serves(unit):
            verb = "has" if len(senders.pending) == 1 else "have"
            words = f"{named(senders.pending)} {verb} not said within {seconds:g} s to send to it no more"
            log.warning("%s: %s; it goes on", unit, words)
            self._on_detail(unit, "gateways", words)

    def _count(self, waiting: Waiting, outcome: str) -> None:
        if waiting.counted:
            return
        waiting.counted = True
        began = waiting.since + waiting.heard_seconds  # gateways are no registry's fault
        self._measures.removals.add(monotonic() - began, outcome)
        if outcome != "called_off" and waiting.bound_at > began:
            self._measures.removal_ratios.add((monotonic() - began) / (waiting.bound_at - began))


def bound_of(registry: Registry, lease: Lease) -> float:
    """By when the registry promises to have removed an entry that is renewed no more, with a margin."""
    bound_at = monotonic() + MARGIN_SECONDS
    if lease.last_possible_at is not None:
        bound = lease.last_possible_at + registry.backend.removal_bound(lease.ttl_seconds)
        bound_at += max(0.0, bound - monotonic())
    return bound_at


class Search:
    """The search for one withdrawn entry in one registry, until it is not there."""

    __slots__ = ("_answered_at", "_attempt", "_deleted", "_instance", "_lease", "_registry", "_service")

    def __init__(self, registry: Registry, service: str, instance: str, attempt: int, lease: Lease) -> None:
        self._registry, self._service, self._instance = registry, service, instance
        self._attempt, self._lease = attempt, lease
        self._deleted = False  # it was tried
        self._answered_at = monotonic()  # when the registry last said whether the entry is there

    async def run(self, *, look_first: bool) -> str:
        """ "" when the entry is gone; else, once it should be, why that cannot be said."""
        if look_first and not await self._look():
            return ""
        expires_at = leases.expires_at(self._lease)
        if expires_at is not None:
            await asyncio.sleep(max(0.0, expires_at - monotonic()))
        bound_at, pause = bound_of(self._registry, self._lease), FIRST_LOOK_SECONDS
        give_up_at = bound_at + self._registry.backend.removal_bound(self._lease.ttl_seconds) + UNREACHABLE_SECONDS
        while problem := await self._look():
            now = monotonic()
            silent = problem != _STILL_THERE and now - self._answered_at > UNREACHABLE_SECONDS
            if now > give_up_at or (now > bound_at and silent):
                return self._named(problem)
            if now > bound_at and problem == _STILL_THERE:
                await self._delete()
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LAST_LOOK_SECONDS)
        return ""

    async def _look(self) -> str:
        """ "" when the registry says that the entry is not there."""
        try:
            entry = await self._registry.backend.get(self._service, self._instance)
        except RegistryError as error:
            return f"the registry cannot say whether the entry is gone ({error})"
        except Exception as error:  # backends are plugins: a mistake in one must not leave the unit waiting for ever
            return f"the registry cannot say whether the entry is gone (its backend failed: {error!r})"
        self._answered_at = monotonic()
        if entry is None or entry.generation != self._attempt:
            return ""
        return _STILL_THERE

    async def _delete(self) -> None:
        """It should be gone: nobody renews it, so nothing is taken from anybody."""
        key = LeaseKey(self._service, self._instance, self._attempt)
        try:
            await self._registry.backend.deregister(key)
        except Exception as error:
            outcome = f"it cannot be deleted either ({error})"
        else:
            outcome = "it was deleted"
        if not self._deleted:
            log.warning("%s", self._named(f"the registry still listed {key} after its ttl: {outcome}"))
        self._deleted = True

    def _named(self, problem: str) -> str:
        """The problem, with the registry's name where there are several."""
        return f"registry {self._registry.name}: {problem}" if self._registry.is_one_of_many else problem
