"""Units that are in no registry because they are stopped, drained or failed: only their nodes know of them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from registry_client.errors import RegistryRejected
from registry_client.model import Entry, Snapshot

from .errors import CenterError
from .fleet import Fleet

log = logging.getLogger("unit-center.operations")

SURVEY_SECONDS = 6.0  # for all nodes together; who has not answered by then is left out
_STARTED = "1970-01-01T00:00:00Z"


class Asked(Protocol):
    """Whoever asks nodes."""

    async def get(self, node: str, path: str) -> Any:
        """A node's answer. Raises NodeUnreachable, NodeRefused."""


async def with_unseen(fleet: Fleet, channels: Asked) -> Fleet:
    """The fleet as it were if all units of services that its nodes have were registered; the others weigh nothing."""
    asking = {asyncio.ensure_future(channels.get(node, "/v1/units")): node for node in fleet.nodes}
    if not asking:
        return fleet
    answered, late = await asyncio.wait(asking, timeout=SURVEY_SECONDS)
    for task in late:
        task.cancel()
    there = {entry.instance for entry in fleet.all_entries()}
    unseen: list[Entry] = []
    silent = [asking[task] for task in late]
    for task in answered:
        node, error = asking[task], task.exception()
        if isinstance(error, CenterError):
            silent.append(node)
            continue
        unseen += _entries(node, task.result(), there)
    if silent:
        log.warning("what is stopped or drained on %s is not known: no answer", ", ".join(sorted(silent)[:10]))
    if not unseen:
        return fleet
    entries = (*fleet.nodes.values(), *fleet.all_entries(), *unseen)
    ordered = tuple(sorted(entries, key=lambda entry: (entry.service, entry.instance)))
    return Fleet(Snapshot(fleet.revision, fleet.epoch, None, ordered))


def _entries(node: str, body: Any, there: set[str]) -> list[Entry]:
    found = []
    for status in body.get("units") or () if isinstance(body, dict) else ():
        name, service = status.get("unit"), status.get("service")
        if not service or f"{node}/{name}" in there:
            continue
        try:
            found.append(_entry(node, status))
        except (RegistryRejected, TypeError):
            log.warning("%s tells of a unit that cannot be: %r", node, name)
    return found


def _entry(node: str, status: dict[str, Any]) -> Entry:
    return Entry(
        service=status["service"],
        instance=f"{node}/{status['unit']}",
        node=node,
        unit=status["unit"],
        address="0.0.0.0",  # nobody is told of it
        port=1,
        generation=status.get("generation") or 0,
        status="draining",
        weight=0,
        full_weight=status.get("full_weight") or 1,
        started_at=_STARTED,
    )
