"""One target's way: from the command that is written down to its end, which the registry must show.

What the network does to a command on its way makes no difference: it is sent again under the same id until the node
has answered, and a node answers a known id as it did at first. So each step here may happen twice, and nothing that
it orders does.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import monotonic, time
from typing import Any
from urllib.parse import quote

from supervisor.wire import FINISHED

from .channels import Channels, NodeCommand
from .errors import NodeRefused, NodeUnreachable, Superseded
from .fleet import Fleet
from .following import Following
from .model import Operation, Target, TargetState
from .moments import iso, wall_of
from .rollout import confirmed, limit_of

log = logging.getLogger("unit-center.delivery")

RETRY_SECONDS = 0.5  # doubled with each try, the sleep drawn from all of it
MAX_RETRY_SECONDS = 30.0
WAIT_SECONDS = 25.0  # of a long poll, while few are followed
FEW = 16
POLLS_PER_SECOND = 200.0  # together, when many are followed
LOOK_SECONDS = 0.1  # what the registry shows of targets is looked for at most so often,
LOOK_TOGETHER = 1000  # and by so much again less often for each so many of them

_SHOWN = ("restart", "start", "undrain", "stop")  # whose end is in the registry, and nothing before it looks like it
_NOT_LET_IN = (401, 403)  # says nothing of a command that may be there: a token may be on its way to being replaced

Progress = Callable[[Target], None]


class Delivery:
    """Carries targets to their end, any number at a time."""

    def __init__(
        self,
        channels: Channels,
        following: Following,
        center: str,
        on_accepted: Callable[[str, float], None] = lambda verb, seconds: None,
    ) -> None:
        """`center` is the store's id, `on_accepted` learns verb and seconds from sending to a node's 202."""
        self.channels, self.following, self.on_accepted = channels, following, on_accepted
        self.followed = 0
        self._center = center
        self._confirming: dict[str, _Way] = {}
        self._napping: dict[str, _Way] = {}  # followed, and not to be asked for yet
        self._look_planned = False

    async def carry(self, operation: Operation, target: Target, epoch: int, on_progress: Progress) -> None:
        """Until the target has ended. Raises Superseded when its node knows a center that leads after us.

        How long that may take is the rollout's to say: whoever calls this cancels it.
        """
        way = _Way(self, operation, target, epoch, on_progress)
        try:
            while not target.state.done:
                await way.go_on()
        finally:
            self._confirming.pop(target.command_id, None)

    def command_of(self, operation: Operation, target: Target, epoch: int | None = None) -> NodeCommand:
        """The same object whichever way it goes, but for the epoch (None: the one that it was last sent with)."""
        # What has failed here for being late must not begin there later.
        deadline = min(datetime.fromisoformat(operation.deadline), limit_of(operation, target))
        body = {
            "command_id": target.command_id,
            "deadline": iso(deadline),
            "reason": operation.reason,
            "issued_by": operation.issued_by,
            "parameters": operation.parameters,
            "expected_generation": target.generation if operation.checks_generation else None,
            "center": self._center,
            "epoch": operation.epoch if epoch is None else epoch,
        }
        path = "/v1/config/apply"
        if operation.verb != "apply":
            path = f"/v1/units/{quote(target.unit, safe=':')}/{operation.verb}"
        return NodeCommand(target.command_id, "POST", path, body, target.seq)

    def fleet_changed(self) -> None:
        """The registry shows something new: look soon whether it is what somebody waits for."""
        count = len(self._confirming) + len(self._napping)
        if count and not self._look_planned:
            self._look_planned = True
            asyncio.get_running_loop().call_later(LOOK_SECONDS * (1 + count / LOOK_TOGETHER), self._look)

    async def wait_for_node(self, node: str, seconds: float) -> None:
        """Until the time is over, or the node's entry is another one: its daemon has begun anew, or is back."""
        before, until = self.following.node_entry(node), monotonic() + seconds
        while (left := until - monotonic()) > 0 and self.following.node_entry(node) == before:
            await self.following.changed(left)

    def confirm_later(self, way: _Way) -> None:
        """Have it looked at when the registry shows something new."""
        self._confirming[way.target.command_id] = way

    def _look(self) -> None:
        self._look_planned = False
        for way in list(self._confirming.values()):
            way.look()
        if self._napping and (fleet := self.following.certain()) is not None:
            for way in self._napping.values():
                way.wake(fleet)

    async def nap(self, way: _Way, seconds: float) -> None:
        """Until it is a followed target's turn to be asked for; earlier once the registry shows its end."""
        self._napping[way.target.command_id] = way
        self.fleet_changed()  # it may have come while the node was asked
        try:
            async with asyncio.timeout(seconds):
                await way.woken()
        except TimeoutError:
            pass
        finally:
            self._napping.pop(way.target.command_id, None)


class _Way:
    """Where one target is on its way."""

    __slots__ = ("_delivery", "_done", "_epoch", "_naps", "_on_progress", "_waking", "operation", "target")

    def __init__(
        self, delivery: Delivery, operation: Operation, target: Target, epoch: int, on_progress: Progress
    ) -> None:
        self._delivery, self.operation, self.target = delivery, operation, target
        self._epoch, self._on_progress = epoch, on_progress
        self._done: asyncio.Future[None] | None = None
        self._waking: asyncio.Future[None] | None = None
        self._naps: int | None = None  # since the registry has shown its end; None: it has not

    async def go_on(self) -> None:
        """The step that its state calls for."""
        if self.target.state is TargetState.SENT:
            await self._send()
        elif self.target.state is TargetState.RUNNING:
            await self._follow()
        else:
            await self._confirm()

    def end(self, state: TargetState, detail: str) -> None:
        """Nothing more happens to it."""
        target = self.target
        target.state, target.detail, target.steps = state, detail, ""
        target.finished = iso(datetime.now(UTC))
        self._on_progress(target)

    # Sending.

    async def _send(self) -> None:
        target = self.target
        command = self._delivery.command_of(self.operation, target, self._epoch)
        began, tries, may_be_there = monotonic(), 0, target.attempts > 0
        while True:
            target.attempts += 1
            try:
                answer = await self._delivery.channels.send(target.node, command)
            except NodeRefused as error:
                if may_be_there and error.status in _NOT_LET_IN:
                    await self._pause(tries, NodeUnreachable(target.node, error.detail))
                    tries += 1
                    continue
                self._refused(error)
                return
            except NodeUnreachable as error:
                may_be_there = may_be_there or error.may_have_counted
                if time() > wall_of(self.operation.deadline) and not may_be_there:
                    self.end(TargetState.EXPIRED, f"its deadline passed; the node was never reached: {error.reason}")
                    return
                await self._pause(tries, error)
                tries += 1
            else:
                self._delivery.on_accepted(self.operation.verb, monotonic() - began)
                self._accepted(answer.body.get("operations") or [])
                return

    def _refused(self, error: NodeRefused) -> None:
        if error.code == "stale_epoch":
            raise Superseded(self._epoch, self._epoch + 1)
        state = TargetState.EXPIRED if error.code == "deadline_passed" else TargetState.FAILED
        self.end(state, f"{self.target.node}: {error.detail}")

    def _accepted(self, operations: Sequence[dict[str, Any]]) -> None:
        target = self.target
        target.node_operations = tuple(str(item.get("id")) for item in operations)
        target.state, target.detail = TargetState.RUNNING, ""
        self._take(operations)
        self._on_progress(target)

    # Following.

    async def _follow(self) -> None:
        tries, delivery = 0, self._delivery
        delivery.followed += 1
        try:
            while self.target.state is TargetState.RUNNING:
                if crowd := delivery.followed > FEW:
                    await delivery.nap(self, self._pace())
                wait_seconds = 0.0 if crowd else WAIT_SECONDS
                try:
                    found = await delivery.channels.operations(self.target.node, self.target.command_id, wait_seconds)
                except NodeRefused as error:
                    if error.status not in _NOT_LET_IN:
                        self._not_followed(error)
                        return
                    await self._pause(tries, NodeUnreachable(self.target.node, error.detail))
                    tries += 1
                    continue
                except NodeUnreachable as error:
                    await self._pause(tries, error)
                    tries += 1
                    continue
                tries = 0
                self._take(found)
        finally:
            delivery.followed -= 1

    def _pace(self) -> float:
        """Seconds until it is asked for in any case."""
        turn = max(RETRY_SECONDS, self._delivery.followed / POLLS_PER_SECOND)
        if self._naps is None:
            return turn
        self._naps += 1  # its node was not through, but nearly
        return float(min(turn, RETRY_SECONDS * 2 ** min(self._naps, 10)))

    async def woken(self) -> None:
        """Until `wake` has found its end in the registry."""
        self._waking = asyncio.get_running_loop().create_future()
        await self._waking

    def wake(self, fleet: Fleet) -> None:
        """Ask its node soon if the registry shows its end already, and did not do so before."""
        if self._naps is None and self._waking is not None and self._shows_end(fleet):
            self._naps = 0
            if not self._waking.done():
                self._waking.set_result(None)

    def _shows_end(self, fleet: Fleet) -> bool:
        target, verb = self.target, self.operation.verb
        if target.service is None or verb not in _SHOWN:
            return False
        entry = fleet.entry(target.instance, target.service)
        return entry is None if verb == "stop" else confirmed(target, verb, entry) is True

    def _not_followed(self, error: NodeRefused) -> None:
        if error.status == 404:  # it has lost its memory: the command is new to it
            self.target.state = TargetState.SENT
            return
        self.end(TargetState.FAILED, f"{self.target.node}: {error.detail}")

    def _take(self, operations: Sequence[dict[str, Any]]) -> None:
        """What the node tells of its operations for this command."""
        target = self.target
        if all(item.get("state") in FINISHED for item in operations):
            failed = [item for item in operations if item.get("state") in ("failed", "aborted")]
            if failed:
                self.end(TargetState.FAILED, _why(target, failed[0]))
            elif any(item.get("state") == "expired" for item in operations):
                self.end(TargetState.EXPIRED, "its deadline passed before the node could begin")
            else:
                target.state, target.detail = TargetState.CONFIRMING, _sum_up(operations)
                self.look()
            return
        steps = _steps(operations)
        if steps != target.steps or target.detail:
            target.steps, target.detail = steps, ""
            self._on_progress(target)

    # Confirming.

    async def _confirm(self) -> None:
        self._done = asyncio.get_running_loop().create_future()
        self._delivery.confirm_later(self)
        self.look()
        await self._done

    def look(self) -> None:
        """Whether the registry shows what was ordered."""
        missing = "" if self.target.state.done else self._missing()
        if not missing and not self.target.state.done:
            self.end(TargetState.SUCCEEDED, self.target.detail)
        elif missing != self.target.steps and not self.target.state.done:
            self.target.steps = missing
            self._on_progress(self.target)
        if self.target.state.done and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _missing(self) -> str:
        target, following = self.target, self._delivery.following
        if target.service is None or self.operation.verb == "apply":
            return ""  # the node's word is all there is
        fleet = following.certain()
        if fleet is None:
            return f"done on {target.node}; {following.doubt()}"
        answer = confirmed(target, self.operation.verb, fleet.entry(target.instance, target.service))
        return "" if answer is True else answer

    # All of them.

    async def _pause(self, tries: int, error: NodeUnreachable) -> None:
        detail = f"{error.reason}; trying again"
        if detail != self.target.detail:
            self.target.detail = detail
            self._on_progress(self.target)
        if tries == 0:
            log.info("%s of %s: %s", self.operation.verb, self.target.instance, error)
        seconds = random.uniform(0, min(RETRY_SECONDS * 2 ** min(tries, 10), MAX_RETRY_SECONDS))
        await self._delivery.wait_for_node(self.target.node, seconds)


def _why(target: Target, item: dict[str, Any]) -> str:
    error = item.get("error") or item.get("state")
    unit = item.get("unit")
    return str(error) if unit == target.unit else f"{unit}: {error}"


def _steps(operations: Sequence[dict[str, Any]]) -> str:
    """What the node does for a command now."""
    for item in operations:
        for step in reversed(item.get("steps") or []):
            if step.get("state") == "running":
                return f"{step['name']}: {step['detail']}" if step.get("detail") else str(step["name"])
    return ""


def _sum_up(operations: Sequence[dict[str, Any]]) -> str:
    """What is worth keeping of what went well."""
    cut = sum(item.get("cut") or 0 for item in operations)
    return f"{cut} requests were still open when the time for draining was over" if cut else ""
