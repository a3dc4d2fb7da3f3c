"""The heartbeat agents: each registers one attempt of one unit and renews its lease, and nothing else.

An agent beats from `publish` to `withdraw`, so exactly while the lifecycle says that the unit serves, and only for a
process that can be vouched for: this very one, with its own port. Beats that are due at about the same time travel as
one call. A registry that is away never stops a unit: the beats are tried again.

`withdraw` fences first: no call that could prolong the entry is under way or will be made when the waiting for its
removal begins. Every registration prolongs, so one that only brings other values (a weight) obeys the same gate.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from registry_client import lease as leases
from registry_client.backend import Backend, Capability
from registry_client.errors import LeaseLost, RegistryError, RegistryRejected, RegistryUnavailable
from registry_client.lease import Lease
from registry_client.model import Entry, LeaseKey

from ..host.clock import chance, monotonic
from .herd import Herd
from .outage import Outage, counted

log = logging.getLogger("unitd.heartbeat")

ANNOUNCING = frozenset((Capability.STATUS, Capability.UPDATE_WITHOUT_RENEWAL))
TOGETHER = 0.05  # share of the ttl: beats due within it travel with the first one
# What is wrong with one entry, not with the registry: each unit is named.
OF_ONE_ENTRY = frozenset({"bad_entry", "bad_ttl", "stale_generation"})
REGISTRATIONS_AT_ONCE = 32  # as many as any registry answers within the time limit of one
RETRY = 0.1  # share of the ttl: pause after a beat without an answer, give or take half of it
LATE_SECONDS = 5.0  # a beat is at most a little late; with more the timer is lost


class Agent:
    """The heartbeat of one entry."""

    __slots__ = (
        "announced", "asked_ttl", "calls", "changed", "due_at", "entry", "fenced", "lease", "queued", "trouble",
    )  # fmt: skip

    def __init__(self, entry: Entry, ttl_seconds: float) -> None:
        self.entry = entry
        self.asked_ttl = ttl_seconds
        self.lease = Lease(ttl_seconds)
        self.changed = False  # its values have not been sent yet, or nobody knows whether they have arrived
        self.due_at = -math.inf
        self.fenced = False
        self.queued = False  # to be registered, when it is its turn
        self.announced = False  # that it leaves: the registry may still hold that word when the unit goes on
        self.calls: set[asyncio.Task[None]] = set()  # beats under way that include it
        self.trouble = ""  # why the last beat failed

    @property
    def is_held(self) -> bool:
        """Whether its entry is there as far as anybody knows, so that a renewal is enough."""
        return not self.lease.lost and self.lease.sent_at is not None

    @property
    def key(self) -> LeaseKey:
        """What renewals name it by."""
        return LeaseKey(self.entry.service, self.entry.instance, self.entry.generation)


class Heartbeats:
    """All heartbeat agents of the host in one registry. Agents are named by their unit."""

    def __init__(
        self,
        backend: Backend,
        on_confirmed: Callable[[str], None],
        *,
        vouch: Callable[[str], str] = lambda unit: "",
        on_doubt: Callable[[str, str], None] = lambda unit, reason: None,
        name: str = "",
    ) -> None:
        """`on_confirmed` is told when an entry was registered.

        `vouch` says why a unit's entry must not be renewed now ("": it may be); `on_doubt` is told what it said.
        `name` is the registry's, where a host has several.
        """
        self._name = f"registry {name}: " if name else ""
        self._outage = Outage(self._name)
        self._herd = Herd()
        self._registering = 0
        self._queue: dict[str, Agent] = {}  # those that wait for their turn to be registered
        # Renewals and registrations by what came of them, one for each entry.
        self.outcomes = dict.fromkeys(("confirmed", "unanswered", "lost", "rejected"), 0)
        self._granted: dict[float, float] = {}  # ttl that was asked for -> that was granted
        self._backend, self._on_confirmed = backend, on_confirmed
        self._vouch, self._on_doubt = vouch, on_doubt
        self._loop = asyncio.get_running_loop()
        self._agents: dict[str, Agent] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_planned = False
        self._tasks: set[asyncio.Task[None]] = set()

    def publish(self, unit: str, entry: Entry, ttl_seconds: float) -> None:
        """Register the entry and keep it; also after a withdrawal that was called off."""
        agent = self._agents.get(unit)
        if agent is None or agent.entry.generation != entry.generation:
            agent = self._agents[unit] = Agent(entry, ttl_seconds)
        agent.entry, agent.fenced = entry, False
        agent.lease = leases.resumed(agent.lease)
        self._ask(agent, ttl_seconds)
        self._register(unit, agent)

    def adopt(self, unit: str, entry: Entry, ttl_seconds: float) -> None:
        """An entry that an earlier daemon may have left in the registry: not renewed, to be withdrawn."""
        agent = self._agents[unit] = Agent(entry, ttl_seconds)
        agent.fenced = True
        # Nobody can have renewed it after that daemon's end.
        agent.lease = leases.unanswered(agent.lease, monotonic(), monotonic())

    def change(self, unit: str, entry: Entry, ttl_seconds: float) -> None:
        """Other values for an entry that is kept: they are in the registry with the next answer."""
        agent = self._agents.get(unit)
        if agent is None or agent.fenced:
            return
        agent.entry, agent.changed = entry, True
        self._ask(agent, ttl_seconds)
        if doubt := self._vouch(unit):
            self._withhold(unit, agent, doubt)
            self._plan_timer()
        elif not agent.lease.lost and not agent.calls:
            self._register(unit, agent)
        # Else it has its turn, with these values: two registrations at once could arrive in the wrong order.

    def _ask(self, agent: Agent, ttl_seconds: float) -> None:
        """Another ttl counts from its registration on; until that is answered, either may be the one that is kept."""
        if agent.asked_ttl != ttl_seconds:
            agent.asked_ttl = ttl_seconds
            longer = max(agent.lease.ttl_seconds, self._granted.get(ttl_seconds, ttl_seconds))
            agent.lease = replace(agent.lease, ttl_seconds=longer)

    def fence(self, unit: str) -> None:
        """Stop beating; what is under way is left to its end."""
        agent = self._agents[unit]
        agent.fenced, agent.due_at = True, math.inf
        self._outage.forget(unit)

    def keeps(self, unit: str) -> bool:
        """There is an agent that beats, or tries to."""
        agent = self._agents.get(unit)
        return agent is not None and not agent.fenced

    async def announce(self, unit: str) -> None:
        """Stop beating, and tell readers that it leaves, where the registry can say so; `withdraw` follows."""
        await self._leave(unit, self._agents[unit], delete=False)

    async def withdraw(self, unit: str, *, deregister: bool) -> Lease:
        """Stop beating, and say or do in the registry what it allows; the lease tells how long the entry can live.

        Never fails: what the registry did not answer is for whoever waits for the removal.
        """
        agent = self._agents[unit]
        await self._leave(unit, agent, delete=deregister and Capability.DEREGISTER in self._backend.capabilities)
        return agent.lease

    async def _leave(self, unit: str, agent: Agent, *, delete: bool) -> None:
        self.fence(unit)
        while agent.calls:  # answered or cut at the backend's time limit
            await asyncio.wait(agent.calls)
        agent.lease = leases.withdrawn(agent.lease)
        try:
            if delete:
                await self._backend.deregister(agent.key)
                agent.lease = leases.removed(agent.lease)
            else:
                await self._announce(agent)
        except LeaseLost:
            agent.lease = leases.removed(agent.lease)
        except RegistryError as error:
            if isinstance(error, RegistryRejected) and error.code == "stale_generation":  # a newer one is there
                agent.lease = leases.removed(agent.lease)
            else:
                level = logging.DEBUG if self._outage.lasts else logging.WARNING  # it was said already
                log.log(level, "%s: %scannot announce that it leaves: %s", unit, self._name, error)
        except Exception:
            log.exception("%s: cannot announce that it leaves: the registry backend failed", unit)

    async def _announce(self, agent: Agent) -> None:
        """Tell readers to send nothing more, without prolonging the entry."""
        if self._backend.capabilities >= ANNOUNCING:
            agent.announced = True
            await self._backend.update(replace(agent.entry, status="draining", weight=0))

    def forget(self, unit: str) -> None:
        """Its entry is gone."""
        agent = self._agents.pop(unit, None)
        self._outage.forget(unit)
        if agent is not None:
            agent.fenced = True

    def lease(self, unit: str) -> Lease | None:
        """What the agent knows of its lease; None: there is no agent."""
        agent = self._agents.get(unit)
        return None if agent is None else agent.lease

    def entry(self, unit: str) -> Entry | None:
        """The entry that the agent keeps in the registry."""
        agent = self._agents.get(unit)
        return None if agent is None else agent.entry

    def trouble(self, unit: str) -> str:
        """Why the last beat failed; "" if it did not."""
        agent = self._agents.get(unit)
        return "" if agent is None else agent.trouble

    async def close(self) -> None:
        """Stop beating at once; entries that are left expire."""
        for agent in self._agents.values():
            agent.fenced = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Beats.

    def _register(self, unit: str, agent: Agent) -> None:
        """Now, or when others were answered: a crowd inside of the backend would wait there until its time limit."""
        if self._registering >= REGISTRATIONS_AT_ONCE:
            self._queue[unit], agent.queued = agent, True
            self._plan(agent)
            return
        self._registering += 1
        self._start([agent], self._register_in_turn(unit, agent))

    async def _register_in_turn(self, unit: str, agent: Agent) -> None:
        try:
            await self._register_now(unit, agent)
        finally:
            self._registering -= 1
            self._register_next()

    def _register_next(self) -> None:
        while self._queue and self._registering < REGISTRATIONS_AT_ONCE:
            unit = next(iter(self._queue))
            agent = self._queue.pop(unit)
            agent.queued = False
            if agent.fenced or self._agents.get(unit) is not agent:
                continue
            if doubt := self._vouch(unit):
                self._withhold(unit, agent, doubt)
            else:
                self._register(unit, agent)

    def _start(self, agents: list[Agent], beat: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(beat)
        self._tasks.add(task)
        for agent in agents:
            agent.due_at = math.inf  # nothing is due while a beat is under way
            agent.calls.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            for agent in agents:
                agent.calls.discard(task)
                self._plan(agent)
            self._plan_timer()

        task.add_done_callback(done)

    async def _register_now(self, unit: str, agent: Agent) -> None:
        sent_at, asked = monotonic(), agent.asked_ttl
        agent.changed = False
        try:
            grant = await self._backend.register(agent.entry, asked)
        except RegistryRejected as error:
            agent.lease = leases.refused(agent.lease, sent_at)
            self._refused(unit, agent, error)
        except Exception as error:
            agent.changed = True
            self._unanswered({unit: agent}, sent_at, "not registered", error)
        else:
            self._answered(unit, agent, sent_at, grant.ttl_seconds)
            self._note_grant(asked, grant.ttl_seconds)
            if not agent.fenced:
                self._on_confirmed(unit)

    def _note_grant(self, asked: float, granted: float) -> None:
        """Said once for each ttl, not for each unit."""
        if self._granted.get(asked) != granted:
            self._granted[asked] = granted
            if abs(granted - asked) > 0.01:
                log.warning("%sgrants a ttl of %g s where %g s were asked for", self._name, granted, asked)

    def overdue(self) -> str:
        """Whose beat should have been sent long ago, though nothing is in its way; "" if nobody's."""
        now = monotonic()
        for unit, agent in self._agents.items():
            if not agent.fenced and agent.due_at < now - max(LATE_SECONDS, agent.lease.ttl_seconds):
                return f"{unit}: its heartbeat is {now - agent.due_at:.0f} s late"
        return ""

    async def _renew(self, agents: dict[str, Agent]) -> None:
        sent_at = monotonic()
        try:
            lost = await self._backend.renew([agent.key for agent in agents.values()])
        except Exception as error:
            self._unanswered(agents, sent_at, "unconfirmed", error)
            return
        gone = []
        for unit, agent in agents.items():
            if agent.key in lost:
                agent.lease = leases.refused(agent.lease, sent_at)
                gone.append(unit)
            else:
                self._answered(unit, agent, sent_at, agent.lease.ttl_seconds)
        self.outcomes["lost"] += len(gone)
        if gone:
            whose = "its entry" if len(gone) == 1 else "their entries"
            log.warning("%s: %sthe registry has lost %s; registering again", counted(gone), self._name, whose)

    def _answered(self, unit: str, agent: Agent, sent_at: float, ttl_seconds: float) -> None:
        now = monotonic()
        self.outcomes["confirmed"] += 1
        agent.lease = leases.confirmed(agent.lease, sent_at, now, ttl_seconds)
        agent.trouble = ""
        self._outage.answered(unit, now)

    def _unanswered(self, agents: dict[str, Agent], sent_at: float, what: str, error: Exception) -> None:
        """A beat may have counted. Backends are plugins: one that breaks its promise must not end the beating."""
        now = monotonic()
        self.outcomes["unanswered"] += len(agents)
        may_have_counted = error.may_have_counted if isinstance(error, RegistryUnavailable) else True
        known = isinstance(error, RegistryError)
        trouble = f"{what}: {error}" if known else f"{what}: the registry backend failed: {error!r}"
        for agent in agents.values():
            agent.lease = leases.unanswered(agent.lease, sent_at, now, may_have_counted=may_have_counted)
            agent.trouble = f"{self._name}{trouble}"
        self._outage.failed([unit for unit, agent in agents.items() if not agent.fenced], trouble, now)

    def _refused(self, unit: str, agent: Agent, error: RegistryRejected) -> None:
        self.outcomes["rejected"] += 1
        trouble = f"not registered: {error}"
        before, agent.trouble = agent.trouble, f"{self._name}{trouble}"
        if agent.fenced:
            return
        if error.code not in OF_ONE_ENTRY:
            self._outage.failed([unit], trouble, monotonic())
        elif agent.trouble != before:
            self._outage.forget(unit)
            log.warning("%s: %s; tried again", unit, agent.trouble)

    def _withhold(self, unit: str, agent: Agent, doubt: str) -> None:
        """No beat for what cannot be vouched for; it is looked at again when the next one would be due."""
        agent.trouble = f"not renewed: {doubt}"
        self._outage.forget(unit)
        agent.due_at = monotonic() + agent.lease.ttl_seconds / 3
        self._on_doubt(unit, doubt)

    def _plan(self, agent: Agent) -> None:
        """When its next beat is due; never while another is under way. Who waits for its turn is renewed meanwhile."""
        if agent.fenced or agent.calls or (agent.queued and not agent.is_held):
            agent.due_at = math.inf
        elif agent.trouble:
            retry_at = monotonic() + agent.lease.ttl_seconds * RETRY * (0.5 + chance())
            agent.due_at = self._herd.slot(retry_at) if agent.lease.lost else retry_at
        elif agent.lease.lost:
            agent.due_at = self._herd.slot(monotonic())
        elif agent.changed and not agent.queued:
            agent.due_at = monotonic()
        else:
            agent.due_at = leases.next_beat_at(agent.lease, 2 * chance() - 1)

    def _plan_timer(self) -> None:
        """Set the timer once for all answers of this turn of the loop."""
        if not self._timer_planned:
            self._timer_planned = True
            self._loop.call_soon(self._set_timer)

    def _set_timer(self) -> None:
        """One timer for all: the next beat that is due."""
        self._timer_planned = False
        due_at = min((agent.due_at for agent in self._agents.values()), default=math.inf)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due_at < math.inf:
            self._timer = self._loop.call_at(max(due_at, self._loop.time()), self._beat)

    def _beat(self) -> None:
        """Send what is due, and what is due soon along with it."""
        now = monotonic()
        renewals: dict[str, Agent] = {}
        for unit, agent in list(self._agents.items()):
            registers = not agent.queued and (not agent.is_held or agent.announced or agent.changed)
            early = 0.0 if registers else agent.lease.ttl_seconds * TOGETHER
            if agent.fenced or agent.due_at > now + early:
                continue
            if doubt := self._vouch(unit):
                self._withhold(unit, agent, doubt)
            elif registers:
                agent.announced = False  # that word may have been on its way, and come after the last registration
                self._register(unit, agent)
            else:
                renewals[unit] = agent
        if renewals:
            self._start(list(renewals.values()), self._renew(renewals))
        self._plan_timer()
