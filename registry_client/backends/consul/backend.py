"""The backend for Consul, over the HTTP API of the agent on this host. entries.py says how an entry lies there.

Entries live at the agent that they were registered at: it runs their TTL timers and repeats them to the servers, so
what is deleted in the catalog alone comes back. All changes therefore go to the agent, all questions whether something
is there to the servers. An agent without servers takes changes all the same, so each is read back. Sources: Consul's
HTTP API (agent/service, agent/check, health, features/blocking, features/consistency), and 1.8.7 itself.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...backend import Capability, Inspection, check_ttl
from ...errors import BadOption, LeaseLost, RegistryError, RegistryRejected, RegistryUnavailable
from ...model import Entry, Grant, LeaseKey, Snapshot
from ...options import Secret, Tls
from ..connection import HttpAddress
from ..retry import after_failure, is_newer, pause
from . import entries as layout
from .agent import ConsulAgent, Settings, failure, is_done, quoted, read
from .entries import Reader, Record
from .renewals import Renewals, counted

LATENESS_SECONDS = 0.5  # between the agent's timer and the servers' knowledge; 6 ms on an idle host

_USUAL_URL = "http://127.0.0.1:8500"
_COALESCE_SECONDS, _COALESCE_ALL_SECONDS = 0.05, 0.25  # between two answers of a watch; changes in between are one
_IDLE_PAUSE_SECONDS = 1.0
_MAX_SECONDS = 30 * 86400.0
_WORD = re.compile(r"[a-z0-9_-]{1,63}")

_log = logging.getLogger("registry_client")


class ConsulBackend:
    """The Backend over a Consul agent, `http[s]://host[:port]` or `unix:///path/of.sock`.

    `prefix` is the tag of our services, and the start of their ids. `datacenter` is the one to read from; for who
    registers it must be the agent's. `deregister_after_seconds` is how long an expired entry stays in the catalog as
    critical; 60 is Consul's least. A token needs service:write for what is registered, service:read and node:read for
    what is read (the service `consul` included, whose servers are the epoch), and agent:read for `inspect`.
    """

    name = "consul"
    capabilities = frozenset(Capability) - {Capability.BATCH_RENEWAL}

    def __init__(
        self,
        url: str = _USUAL_URL,
        *,
        timeout_seconds: float = 2.0,
        token: str | Secret | None = None,
        tls: Tls | None = None,
        prefix: str = "unitd",
        datacenter: str | None = None,
        deregister_after_seconds: float = layout.MIN_REAPING_SECONDS,
        watch_wait_seconds: float = 15.0,
    ) -> None:
        self.check_options(
            {
                "url": url,
                "timeout_seconds": timeout_seconds,
                "prefix": prefix,
                "datacenter": datacenter,
                "deregister_after_seconds": deregister_after_seconds,
                "watch_wait_seconds": watch_wait_seconds,
            }
        )
        self.timeout_seconds, self._watch_wait_seconds = timeout_seconds, watch_wait_seconds
        self._settings = Settings(
            address=HttpAddress.parse_all(self.name, url)[0],
            timeout_seconds=timeout_seconds,
            token=Secret.of(token),
            tls=tls,
            prefix=prefix,
            datacenter=datacenter,
        )
        self._prefix, self._reaping_seconds, self._reader = prefix, deregister_after_seconds, Reader(prefix)
        self._right_datacenter = datacenter is None
        # Renewals have one more: they must not wait behind the registrations of a thousand units.
        self._holding, self._renewing, self._asking = (ConsulAgent(self._settings) for _ in range(3))
        self._agents = {self._holding, self._renewing, self._asking}
        self._renewals = Renewals(self._renewing, self._asking, prefix, timeout_seconds)
        self._closed = asyncio.Event()

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Raise BadOption for a value that cannot be used."""
        url = options.get("url", _USUAL_URL)
        if not isinstance(url, str):
            raise BadOption(cls.name, "url", "must be a string")
        if len(HttpAddress.parse_all(cls.name, url)) > 1:
            raise BadOption(cls.name, "url", "give one agent: entries live at the agent that they are registered at")
        for option in ("prefix", "datacenter"):
            value = options.get(option)
            if value is not None and not (isinstance(value, str) and _WORD.fullmatch(value)):
                raise BadOption(cls.name, option, "must be 1 to 63 of the characters a-z 0-9 _ -")
        for option in ("timeout_seconds", "deregister_after_seconds", "watch_wait_seconds"):
            value = options.get(option, 1)
            if type(value) not in (int, float) or not 0 < value <= _MAX_SECONDS:
                raise BadOption(cls.name, option, f"must be a number of seconds above 0, up to {_MAX_SECONDS:g}")

    # -- holders ---------------------------------------------------------------------------------------------------

    async def register(self, entry: Entry, ttl_seconds: float) -> Grant:
        """See `Backend.register`. The newer of two generations that race removes the older one, which is refused."""
        verb, identifier = f"register {entry.key}", layout.service_id(self._prefix, entry.key)
        ttl = _granted(ttl_seconds)
        with counted(False):
            await self._check_datacenter(verb)
            held, _ = await self._holding.held(verb, entry.key, self._reader)
            layout.refuse_older("register", entry.key, held)
        check = layout.lease_check(identifier, entry, ttl, self._reaping_seconds)
        body = layout.consul_service(self._prefix, identifier, entry, check)
        await self._holding.change(verb, "/v1/agent/service/register", body)
        with counted(True):
            before = layout.find(held, identifier)
            if before is not None and before.update is not None:
                await self._holding.change(verb, f"/v1/agent/check/deregister/entry:{identifier}", lenient=True)
            await self._move_out_or_in(verb, identifier, entry, before)
            return Grant(ttl, await self._settle(verb, identifier, entry.key))

    async def _settle(self, verb: str, identifier: str, key: LeaseKey) -> int:
        """See that a registration has arrived and is the newest; delete older ones. The index of that state."""
        held, index = await self._holding.held(verb, key, self._reader)
        try:
            layout.refuse_older("register", key, held)
        except RegistryRejected:
            await self._holding.remove(verb, identifier)
            raise
        own = layout.find(held, identifier)
        if own is None:
            raise RegistryUnavailable(f"cannot {verb}: the agent has not told the servers of it yet")
        if not own.is_there:  # an expired check stays so when it is registered again
            await self._holding.change(verb, f"/v1/agent/check/pass/{layout.lease_id(identifier)}")
        self._renewals.note(identifier, own.node)
        for record in held:
            if record.generation < key.generation:
                await self._holding.remove(verb, record.identifier)
        return index

    async def renew(self, keys: Sequence[LeaseKey]) -> frozenset[LeaseKey]:
        """See `Backend.renew`. `timeout_seconds` is for each of its requests, one for an entry.

        Lost is also what the agent has, but not the catalog, as after a loss of the servers' data.
        """
        return await self._renewals.renew(keys) if keys else frozenset()

    async def update(self, entry: Entry) -> None:
        """See `Backend.update`. Never prolongs."""
        verb, identifier = f"update {entry.key}", layout.service_id(self._prefix, entry.key)
        held, _ = await self._holding.held(verb, entry.key, self._reader)
        layout.refuse_older("update", entry.key, held)
        before = layout.find(held, identifier)
        if before is None or not before.is_there or not await self._attach(verb, identifier, entry):
            raise LeaseLost(f"cannot {verb}: it is not registered at this agent")
        body = layout.consul_service(self._prefix, identifier, entry, layout.entry_check(identifier, entry))
        await self._holding.change(verb, "/v1/agent/service/register", body)
        await self._move_out_or_in(verb, identifier, entry, before)
        held, _ = await self._holding.held(verb, entry.key, self._reader)
        if (after := layout.find(held, identifier)) is None or after.lease is None:
            await self._holding.remove(verb, identifier)  # it went meanwhile, and a part of it came back, out of sight
            raise LeaseLost(f"cannot {verb}: it was deleted meanwhile")

    async def _attach(self, verb: str, identifier: str, entry: Entry) -> bool:
        """Register the check that carries an update; False: the agent does not know the service."""
        check = layout.attached(layout.entry_check(identifier, entry), identifier)
        # Passed once, for an agent that is started again takes a check that never was for critical.
        for path, body in (("/v1/agent/check/register", check), (f"/v1/agent/check/pass/{check['ID']}", None)):
            answer = await self._holding.ask(verb, "PUT", path, body)
            if not is_done(answer):
                known = answer.status not in (400, 404, 500)
                if known or await self._holding.local(verb, "services", f'ID == "{identifier}"'):
                    raise failure(verb, answer)
                return False
        return True

    async def _move_out_or_in(self, verb: str, identifier: str, entry: Entry, before: Record | None) -> None:
        """See that other consumers get it exactly when it is to get traffic."""
        was_out = before is not None and before.is_out
        if layout.is_out(entry) and not was_out:
            await self._holding.change(verb, layout.maintenance_path(identifier, entry), lenient=True)
        elif was_out and not layout.is_out(entry):
            await self._holding.change(verb, layout.maintenance_path(identifier, None), lenient=True)

    async def deregister(self, key: LeaseKey) -> bool:
        """See `Backend.deregister`. RegistryRejected (`other_agent`): it was registered at another node's agent."""
        verb, pattern = f"deregister {key}", layout.id_pattern(self._prefix, key.service, key.instance)
        listed, _ = await self._asking.held(verb, key, self._reader)
        # What the agent holds will be in the catalog, even if it is not there yet, or no more.
        local = await self._asking.local(verb, "checks", f'ServiceID matches "{pattern}"')
        held = listed + read(verb, lambda: self._reader.records(local.values()))
        layout.refuse_older("deregister", key, held)
        for identifier in {record.identifier for record in held if record.generation <= key.generation}:
            await self._asking.remove(verb, identifier)
        if not any(record.is_there for record in held):
            return False
        held, _ = await self._asking.held(verb, key, self._reader)
        for record in held:
            if record.is_there and record.generation <= key.generation:
                await self._blame(verb, record)
        return True

    async def _blame(self, verb: str, record: Record) -> None:
        """Raise what says why a record is still there."""
        if (await self._asking.itself(verb)).get("NodeName") == record.node:
            raise RegistryUnavailable(f"cannot {verb}: the agent has not told the servers of it yet")
        raise RegistryRejected(
            f"cannot {verb}: it was registered at the agent of the node {record.node}, and can be deleted only there",
            code="other_agent",
        )

    async def _check_datacenter(self, verb: str) -> None:
        """An entry lands in the agent's datacenter: who looks for it in another would find it gone."""
        if not self._right_datacenter:
            datacenter = (await self._holding.itself(verb)).get("Datacenter")
            if datacenter != self._settings.datacenter:
                reason = f"the agent is in the datacenter {datacenter}, not in {self._settings.datacenter}"
                raise RegistryRejected(f"cannot {verb}: {reason}", code="bad_request")
            self._right_datacenter = True

    # -- readers ---------------------------------------------------------------------------------------------------

    async def get(self, service: str, instance: str) -> Entry | None:
        """See `Backend.get`. Not there means: neither healthy for the servers, nor held by this host's agent.

        For an agent repeats to the servers what it holds; so an entry of a node in maintenance is there, if it is
        this one, and not in a list.
        """
        verb, pattern = f"read {instance} of {service}", layout.id_pattern(self._prefix, service, instance)
        query = {"consistent": "", "filter": f'Service.ID matches "{pattern}"'}
        answer = await self._asking.query(verb, f"/v1/health/service/{quoted(service)}", query)
        found = read(verb, lambda: self._reader.entries(layout.checks_of(answer.value), service))
        if not found:
            held = await self._asking.local(verb, "checks", f'ServiceID matches "{pattern}"')
            found = read(verb, lambda: self._reader.entries(held.values(), service))
        return found[0] if found else None

    async def list(self, service: str | None = None) -> Snapshot:
        """See `Backend.list`."""
        return await self._snapshot(self._asking, service)

    async def watch(
        self, service: str | None = None, since: int = 0, epoch: str | None = None
    ) -> AsyncGenerator[Snapshot, None]:
        """See `Backend.watch`. A change of other services may wake it, and is not passed on."""
        agent, failures = self._new_agent("watch the registry"), 0
        last: Snapshot | None = None
        coalesce = _COALESCE_ALL_SECONDS if service is None else _COALESCE_SECONDS
        try:
            while not self._closed.is_set():
                asked_at = time.monotonic()
                try:
                    snapshot = await self._next_snapshot(agent, service, last, blocking=not failures)
                except RegistryError as error:
                    answered = last is not None
                    failures = await after_failure(error, self._closed, answered=answered, failures=failures)
                    continue
                if failures:
                    _log.info("the watch of %s goes on", self._settings.address.url)
                idle = last is not None and last.revision == snapshot.revision
                changed = is_newer(snapshot, since, epoch) if last is None else _differs(snapshot, last)
                failures, last = 0, snapshot
                if changed:
                    yield snapshot
                gap = _IDLE_PAUSE_SECONDS if idle else coalesce
                await pause(gap - (time.monotonic() - asked_at), self._closed)
        finally:
            agent.close()
            self._agents.discard(agent)

    async def _next_snapshot(
        self, agent: ConsulAgent, service: str | None, last: Snapshot | None, *, blocking: bool
    ) -> Snapshot:
        """What is there; `blocking`: as soon as something has happened after `last`, or after the longest wait."""
        snapshot = await self._snapshot(agent, service, last.revision if last is not None and blocking else None)
        if last is None or snapshot.epoch != last.epoch.partition("/")[0]:
            return snapshot
        if snapshot.revision < last.revision:  # set back to an older state, which is another life
            return replace(snapshot, epoch=f"{snapshot.epoch}/{last.revision}")
        return replace(snapshot, epoch=last.epoch)

    async def _snapshot(self, agent: ConsulAgent, service: str | None, after: int | None = None) -> Snapshot:
        if service is None:
            verb, path = "list all services", "/v1/health/state/any"
            query = {"filter": f'ServiceTags contains "{self._prefix}" or ServiceID == ""'}
        else:
            verb, path = f"list {service}", f"/v1/health/service/{quoted(service)}"
            query = {"filter": f'Service.Tags contains "{self._prefix}"'}
        limit = self.timeout_seconds
        if after is not None:
            query |= {"index": str(after), "wait": f"{self._watch_wait_seconds:.3f}s"}
            limit += self._watch_wait_seconds * 17 / 16  # Consul lets up to a sixteenth more pass
        # An index of another life may lie in the future: a new server would wait for it.
        answer = await agent.query(verb, path, query, limit, resend=after is None)
        checks = answer.value if service is None else layout.checks_of(answer.value)
        entries = read(verb, lambda: self._reader.entries(checks, service))
        return Snapshot(answer.index, await agent.epoch(verb), service, entries)

    async def inspect(self, ttl_seconds: float) -> Inspection:
        """See `Backend.inspect`."""
        verb, granted = "inspect the registry", _granted(ttl_seconds)
        answer = await self._asking.ask(verb, "GET", "/v1/status/leader")
        itself = await self._asking.told(verb, "/v1/agent/self")
        config: Mapping[str, Any] = read(verb, lambda: dict(itself["Config"]))
        debug = itself.get("DebugConfig")
        warnings = list(self._warnings(config, debug if isinstance(debug, dict) else {}))
        try:
            await self._asking.epoch(verb)
        except RegistryUnavailable as error:
            warnings.append(f"{error}.")
        return Inspection(granted, str(config.get("Version")), answer.date, 1.0, tuple(warnings))

    def _warnings(self, config: Mapping[str, Any], debug: Mapping[str, Any]) -> Iterator[str]:
        if self._reaping_seconds < layout.MIN_REAPING_SECONDS:
            yield (
                f"deregister_after_seconds is {self._reaping_seconds:g}, but Consul keeps an expired entry as critical "
                "for at least 60 s: set 60 or more."
            )
        if self._settings.datacenter not in (None, config.get("Datacenter")):
            yield (
                f"The agent is in the datacenter {config.get('Datacenter')}, not in {self._settings.datacenter}: "
                "name an agent of that datacenter, for nothing can be registered here."
            )
        if debug.get("CheckUpdateInterval") == "0s":
            yield "The agent tells the servers of every renewal: set its check_update_interval to 5m (no -dev agent)."

    def removal_bound(self, ttl_seconds: float) -> float:
        """See `Backend.removal_bound`. The agent's timer is exact; the half second is for telling the servers.

        So soon it is out of what is healthy; as critical it stays in the catalog for 60 to 90 s more.
        """
        return max(ttl_seconds, layout.MIN_TTL_SECONDS) + LATENESS_SECONDS

    async def close(self) -> None:
        """See `Backend.close`."""
        self._closed.set()
        for agent in self._agents:
            agent.close()
        await asyncio.sleep(0)  # lets the loop close the sockets

    def _new_agent(self, verb: str) -> ConsulAgent:
        if self._closed.is_set():
            raise RegistryRejected(f"cannot {verb}: this client of the registry is closed", code="closed")
        agent = ConsulAgent(self._settings)
        self._agents.add(agent)
        return agent


def _granted(ttl_seconds: float) -> float:
    return min(max(check_ttl(ttl_seconds), layout.MIN_TTL_SECONDS), _MAX_SECONDS)


def _differs(snapshot: Snapshot, last: Snapshot) -> bool:
    return snapshot.epoch != last.epoch or snapshot.entries != last.entries
