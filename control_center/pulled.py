"""Nodes that nobody can connect to: they fetch their commands, and what they answer is found in the store."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, time
from typing import Any
from urllib.parse import unquote

from supervisor.wire import FINISHED

from .errors import NodeRefused, NodeUnreachable
from .moments import iso_of
from .store import Store, result_topic

LOOK_SECONDS = 5.0  # at the latest: what another center has stored may be told late

Result = tuple[int, dict[str, Any]]  # the node's status and body


class Pulled:
    """Reads what nodes have posted."""

    def __init__(self, store: Store, fresh_seconds: float) -> None:
        """`fresh_seconds`: what a node said of itself longer ago tells nothing of now."""
        self._store, self._fresh_seconds = store, fresh_seconds

    async def result(
        self, command_id: str, seconds: float, enough: Callable[[dict[str, Any]], bool] = lambda body: True
    ) -> Result | None:
        """What the node has answered to a command, as soon as it is `enough` or the time is over; None: nothing."""
        topic, until = result_topic(command_id), monotonic() + seconds
        while True:
            seen = self._store.seen(topic)
            found = await self._store.result(command_id)
            left = until - monotonic()
            if _is_enough(found, enough) or left <= 0:
                return found
            await self._store.wait_changed(seen, min(left, LOOK_SECONDS), topic)

    async def heartbeat(self, node: str) -> dict[str, Any]:
        """The last word of the node about itself, with `as_of`. Raises NodeUnreachable when that is too long ago."""
        known = (await self._store.heartbeats(time() - self._fresh_seconds)).get(node)
        if known is None:
            reason = f"it fetches its commands, and has not been heard of for {self._fresh_seconds:g} s"
            raise NodeUnreachable(node, reason, may_have_counted=False)
        wall, body = known
        return {**body, "as_of": iso_of(wall)}

    async def get(self, node: str, path: str) -> Any:
        """What the node would have answered when it was last heard of. Raises NodeUnreachable, NodeRefused."""
        path = path.partition("?")[0]
        unit = unquote(path.removeprefix("/v1/units/")) if path.startswith("/v1/units/") else None
        if path not in ("/v1/node", "/v1/units") and (unit is None or "/" in path.removeprefix("/v1/units/")):
            raise NodeUnreachable(node, f"it fetches its commands, and tells no {path}", may_have_counted=False)
        body = await self.heartbeat(node)
        statuses = body.pop("statuses", None) or []
        if path == "/v1/node":
            return body
        if unit is None:
            return {"units": statuses, "as_of": body["as_of"]}
        for status in statuses:
            if status.get("unit") == unit:
                return {**status, "as_of": body["as_of"]}
        raise NodeRefused(node, 404, "unknown_unit", f"no unit is called {unit}")


def _is_enough(found: Result | None, enough: Callable[[dict[str, Any]], bool]) -> bool:
    return found is not None and (found[0] >= 300 or enough(found[1]))


def all_finished(body: dict[str, Any]) -> bool:
    """Every operation of an answer has ended."""
    return all(item.get("state") in FINISHED for item in body.get("operations") or ())
