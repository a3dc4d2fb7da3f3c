"""Renewals at a Consul agent. They have a connection of their own, so that closing it is a fence.

A renewal is the pass of a check, and the agent does that without asking anybody. So there are two more questions:
which leases are over, for a pass would revive them; and, now and then, which are missing in the catalog although the
agent has them. That happens when the servers have lost their data, or somebody has deleted an entry there alone; the
agent would notice only after minutes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ...errors import RegistryError, RegistryUnavailable
from ...model import LeaseKey
from .agent import ConsulAgent, failure, is_done, quoted, read
from .entries import lease_id, service_id

LOOK_SECONDS = 5.0  # between two looks into the catalog


class Renewals:
    """The renewals of one client: `renewing` makes them, `asking` looks into the catalog."""

    def __init__(self, renewing: ConsulAgent, asking: ConsulAgent, prefix: str, timeout_seconds: float) -> None:
        self._renewing, self._asking, self._prefix = renewing, asking, prefix
        self._look_timeout_seconds = timeout_seconds / 4  # it must not keep the renewals waiting for long
        self._node = ""
        self._looked_at = -LOOK_SECONDS
        self._listed: set[str] | None = None  # lease checks in the catalog; None: not known

    def note(self, identifier: str, node: str) -> None:
        """It was seen in the catalog, at that node."""
        self._node = node
        if self._listed is not None:
            self._listed.add(lease_id(identifier))

    async def renew(self, keys: Sequence[LeaseKey]) -> frozenset[LeaseKey]:
        """The keys that are lost; the others are renewed. All on one connection, for more are not quicker."""
        verb = f"renew {len(keys)} lease" + "s" * (len(keys) != 1)
        ours = f'ServiceTags contains "{self._prefix}"'
        with counted(False):
            expired = await self._renewing.local(verb, "checks", f'Status != "passing" and {ours}')
        checks = {lease_id(service_id(self._prefix, key)): key for key in keys}
        lost: set[str] = set()
        known: Mapping[str, Any] | None = None  # asked for when the agent refuses: its words are not for programs
        for number, check in enumerate(checks):
            if check in expired or (known is not None and check not in known):
                lost.add(check)
                continue
            with counted(True if number else None):
                answer = await self._renewing.ask(verb, "PUT", f"/v1/agent/check/pass/{check}")
                if is_done(answer):
                    continue
                if answer.status not in (404, 500):
                    raise failure(verb, answer)
                known = await self._renewing.local(verb, "checks", ours) if known is None else known
            if check in known:
                raise failure(verb, answer)
            lost.add(check)
        lost |= await self._unlisted([check for check in checks if check not in lost])
        return frozenset(checks[check] for check in lost)

    async def _unlisted(self, checks: Sequence[str]) -> set[str]:
        """Those that are not in the catalog. None when that is not known: the agent's word stands."""
        due = time.monotonic() - self._looked_at >= LOOK_SECONDS
        if checks and (due or self._not_listed(checks)):  # who is not, may have been registered since by somebody else
            await self._look(checks[0])
        return self._not_listed(checks)

    def _not_listed(self, checks: Sequence[str]) -> set[str]:
        return set() if self._listed is None else {check for check in checks if check not in self._listed}

    async def _look(self, check: str) -> None:
        self._looked_at, self._listed = time.monotonic(), None
        verb = "look into the catalog"
        try:
            if not self._node:
                at_agent = await self._asking.local(verb, "checks", f'CheckID == "{check}"')
                self._node = next((str(item.get("Node")) for item in at_agent.values()), "")
            query = {"consistent": "", "filter": f'ServiceTags contains "{self._prefix}"'}
            path = f"/v1/health/node/{quoted(self._node)}"
            answer = await self._asking.query(verb, path, query, self._look_timeout_seconds)
            self._listed = read(verb, lambda: {str(item["CheckID"]) for item in answer.value})
        except RegistryError:
            return  # then they cannot be found missing


@contextmanager
def counted(counted: bool | None) -> Iterator[None]:
    """A failure inside has certainly prolonged nothing (False), may have (True), or knows itself (None)."""
    try:
        yield
    except RegistryUnavailable as error:
        if counted is not None:
            error.may_have_counted = counted
        raise
