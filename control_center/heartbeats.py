"""Listens to the nodes: asks those that can be asked, reads what the others have sent, and suspects who is silent.

Silence is an alarm, never a reason to restart anything: units of a node that cannot be heard may serve all the same.
Only silence that was listened to counts: what was asked late because this center was stopped, stalled or busy is
forgiven (`Detector.forgive`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from registry_client.model import Entry

from .channels import Channels
from .detector import Detector, DetectorPolicy
from .errors import CenterError, NodeRefused, NodeUnreachable
from .model import NodeStatus
from .store import Store

log = logging.getLogger("unit-center.nodes")

PER_SECOND = 100  # nodes that are asked; with more of them each is asked less often
FAILURES = 2  # questions in a row without an answer: from there on waiting for our turn is silence, too
TOGETHER_SECONDS = 0.05  # who is due within that is asked at once
LOOK_SECONDS = 1.0  # silence is judged so often
TICK_SECONDS = 0.5  # our own timer
STALL_SECONDS = 0.5  # later than that, it shows that we did not listen
GONE_SECONDS = 3600.0  # a node that has left the registry is shown for so long
SKEW_SECONDS = 3.0  # the clocks of two centers that write what nodes have sent may differ by so much
CHANGED_SHARE = 0.25  # of the interval between questions: from there on old intervals are no measure
_GOLDEN = 0.6180339887498949  # multiples of it are spread evenly over the unit circle, however many there are


class _Node:
    """One node, and what is known of it."""

    __slots__ = (
        "asking", "at_wall", "body", "detail", "detector", "due", "entry", "failed", "gone_at", "heard", "is_old",
        "life", "phase", "refused", "state",
    )  # fmt: skip

    def __init__(self, entry: Entry, detector: Detector, phase: float, due: float, *, is_old: bool) -> None:
        """`is_old`: it was there before us, so that it is up is no news."""
        self.entry, self.detector, self.phase, self.due, self.is_old = entry, detector, phase, due, is_old
        detector.begin_anew(detector.mean_seconds, due)  # silence counts from the first question on
        self.at_wall = 0.0  # when what was sent last was sent
        self.asking = self.refused = self.heard = False
        self.failed = 0  # questions in a row without an answer
        self.gone_at: float | None = None
        self.life = 0
        self.state, self.detail = "unknown", ""
        self.body: Mapping[str, Any] = {}

    @property
    def is_asked(self) -> bool:
        """The next question may be put to it, when it is due."""
        return not (self.asking or self.pulls or self.gone_at is not None)

    @property
    def pulls(self) -> bool:
        """It cannot be asked: it sends heartbeats by itself."""
        return self.entry.metadata.get("via") == "pull"


class Heartbeats:
    """All nodes, how they are, and since when they are silent."""

    def __init__(
        self,
        nodes: Callable[[], Mapping[str, Entry] | None],
        channels: Channels,
        store: Store,
        policy: DetectorPolicy,
        heartbeat_seconds: float,
        leads: Callable[[], bool],
        *,
        parallel: int = 64,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`nodes` gives node -> entry of its daemon (None: the registry was never seen); only who `leads` tells.

        `parallel` questions at a time: one half for nodes that have answered the last one, so that those that hang
        do not hold them up, and one for those that have not.
        """
        self._entries, self._channels, self._store, self._policy = nodes, channels, store, policy
        self._heartbeat_seconds, self._leads, self._clock, self._wall = heartbeat_seconds, leads, clock, wall
        self._nodes: dict[str, _Node] = {}
        self._interval = heartbeat_seconds
        self._met = 0
        self._judge_at = 0.0
        self._read_until = wall() - GONE_SECONDS  # of what nodes have sent
        self._freed = asyncio.Event()  # there is a place for a question that had to wait
        self._held_up = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._half = max(1, parallel // 2)
        self._late = 0  # questions under way to nodes that did not answer the last one
        self._news: list[dict[str, Any]] = []

    @property
    def interval_seconds(self) -> float:
        """How often each node is asked, and how often the others should send."""
        return self._interval

    def statuses(self) -> list[NodeStatus]:
        """All nodes, by name."""
        now = self._clock()
        return [self._status(name, node, now) for name, node in sorted(self._nodes.items())]

    async def run(self) -> None:
        """For ever."""
        ticks = _Ticks(self._clock, self.stalled)
        try:
            while True:
                seconds = await self.turn()
                self._freed.clear()
                try:
                    async with asyncio.timeout(seconds):
                        await self._freed.wait()
                except TimeoutError:
                    pass
        finally:
            ticks.cancel()
            for task in self._tasks:
                task.cancel()

    async def turn(self) -> float:
        """Ask those who are due, and now and then judge silence; the seconds until there is something to do again."""
        if self._clock() >= self._judge_at:
            self._follow(self._clock())
            await self._read()
            self._judge_at = self._clock() + min(LOOK_SECONDS, self._interval / 4)
            for name, node in self._nodes.items():
                self._judge(name, node, self._clock())
            await self._tell()
        self._ask_those_due(self._clock())
        return max(TOGETHER_SECONDS, self._next() - self._clock())

    def stalled(self, seconds: float) -> None:
        """For so long this process did not run, or its loop was busy: nobody was listened to."""
        log.warning("nodes were not listened to for %.1f s: this process did not run", seconds)
        for node in self._nodes.values():
            node.detector.forgive(seconds)
            node.due += seconds  # spread as they were

    # Whom to listen to.

    def _follow(self, now: float) -> None:
        """Nodes come and go as the registry says."""
        entries = self._entries()
        if entries is None:
            return
        is_old, place = not self._nodes, 0
        for name, entry in entries.items():
            node = self._nodes.get(name)
            if node is not None and node.gone_at is None:
                node.entry = entry
            else:
                self._nodes[name] = self._meet(entry, node, now + place / PER_SECOND, is_old=is_old)
                place += 1
        for name, node in list(self._nodes.items()):
            if name not in entries and node.gone_at is None:
                node.gone_at = now
            if node.gone_at is not None and now - node.gone_at > GONE_SECONDS:
                del self._nodes[name]
        asked = sum(1 for node in self._nodes.values() if node.gone_at is None and not node.pulls)
        self._pace(max(self._heartbeat_seconds, asked / PER_SECOND))

    def _meet(self, entry: Entry, before: _Node | None, due: float, *, is_old: bool) -> _Node:
        self._met += 1
        node = _Node(entry, Detector(self._policy, self._interval), self._met * _GOLDEN % 1, due, is_old=is_old)
        if before is not None:  # it is back
            node.state, node.life = before.state, before.life
        return node

    def _pace(self, interval: float) -> None:
        """How often they are asked; the old intervals are no measure where that has changed much."""
        if abs(interval - self._interval) > CHANGED_SHARE * self._interval:
            self._interval = interval
            for node in self._nodes.values():
                node.detector.begin_anew(interval)

    # Asking.

    def _ask_those_due(self, now: float) -> None:
        """Who failed least often first: one that only missed one question need not wait for many that are dead."""
        due = [name for name, node in self._nodes.items() if node.due <= now + TOGETHER_SECONDS and node.is_asked]
        due.sort(key=lambda name: (self._nodes[name].failed, self._nodes[name].due))
        self._held_up = False
        for name in due:
            node = self._nodes[name]
            if (self._late if node.failed else len(self._tasks) - self._late) < self._half:
                self._ask(name, node, now)
            else:
                self._held_up = True

    def _ask(self, name: str, node: _Node, now: float) -> None:
        late = now - node.due
        if late > 0 and node.failed < FAILURES:  # that was our silence
            node.detector.forgive(late)
        # The first questions come in a row, all others evenly spread: by then each has its own phase.
        share = 1.0 if node.heard or node.failed else 0.5 + node.phase
        node.due = max(node.due, now) + self._interval * share
        node.asking = True
        self._late += node.failed > 0
        task = asyncio.get_running_loop().create_task(self._answer(name, node, node.failed > 0))
        self._tasks.add(task)
        task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._held_up:
            self._freed.set()

    async def _answer(self, name: str, node: _Node, was_late: bool) -> None:
        try:
            body = await self._channels.heartbeat(name)
        except NodeRefused as error:
            node.detector.heartbeat(self._clock())  # a no is a sign of life
            node.refused, node.failed, node.heard, node.detail = True, 0, True, error.detail
        except NodeUnreachable as error:
            node.failed, node.detail = node.failed + 1, error.reason
        except Exception as error:
            log.exception("cannot ask %s", name)
            node.failed, node.detail = node.failed + 1, f"the control center failed: {error}"
        else:
            self._hear(node, body, self._clock())
        finally:
            node.asking = False
            self._late -= was_late

    def _hear(self, node: _Node, body: Mapping[str, Any], at: float) -> None:
        before, life = node.life, body.get("life")
        node.life = life if isinstance(life, int) else before
        if node.life != before or not node.heard:  # another daemon: how the old one went says nothing of it
            node.detector.begin_anew(self._interval, at)
        else:
            node.detector.heartbeat(at)
        node.body, node.detail, node.failed, node.refused, node.heard = body, "", 0, False, True

    # Reading what was sent.

    async def _read(self) -> None:
        senders = {name: node for name, node in self._nodes.items() if node.pulls and node.gone_at is None}
        if not senders:
            return
        try:
            beats = await self._store.heartbeats(self._read_until - SKEW_SECONDS)
        except CenterError as error:
            log.error("cannot read heartbeats: %s", error)
            for node in senders.values():  # what cannot be read was not listened to
                node.detector.forgive(min(LOOK_SECONDS, self._interval / 4))
            return
        now, wall = self._clock(), self._wall()
        self._read_until = max([self._read_until, *(at_wall for at_wall, _ in beats.values() if at_wall <= wall)])
        for name in beats.keys() & senders.keys():
            at_wall, body = beats[name]
            node = senders[name]
            if at_wall != node.at_wall:
                node.at_wall = at_wall
                self._hear(node, body, min(now, now - (wall - at_wall)))

    # Judging.

    def _judge(self, name: str, node: _Node, now: float) -> None:
        state = self._state(node, now)
        if state == node.state:
            return
        before, node.state = node.state, state
        level = logging.WARNING if state in ("suspect", "dead", "refused") else logging.INFO
        log.log(level, "node %s is %s (was %s)%s", name, state, before, f": {node.detail}" if node.detail else "")
        if state == "unknown" or (before == "unknown" and state == "up" and node.is_old):
            return
        status = self._status(name, node, now)
        self._news.append(
            {
                "node": name,
                "state": state,
                "before": before,
                "phi": status.phi,
                "seen_seconds_ago": status.seen_seconds_ago,
                "detail": node.detail,
            }
        )

    def _state(self, node: _Node, now: float) -> str:
        if node.gone_at is not None:
            return "gone"
        state = node.detector.state(self._heard_until(node, now))
        if state != "up":
            return state
        if node.refused:
            return "refused"
        return "up" if node.heard else "unknown"

    def _heard_until(self, node: _Node, now: float) -> float:
        """Until when its silence was listened to: a question that is due and not yet asked is our own delay."""
        return now if node.pulls or node.asking or node.failed >= FAILURES else min(now, node.due)

    async def _tell(self) -> None:
        news, self._news = self._news, []
        if not self._leads():
            return
        for position, each in enumerate(news):
            try:
                await self._store.add_event("node", each)
            except CenterError as error:
                log.error("cannot tell of nodes: %s", error)
                self._news = news[position:][:PER_SECOND]
                return

    def _next(self) -> float:
        """When to go on: with the next question, or to judge silence. Who is held up is told of a free place."""
        soonest, together = self._judge_at, self._clock() + TOGETHER_SECONDS
        for node in self._nodes.values():
            if together < node.due < soonest and node.is_asked:
                soonest = node.due
        return soonest

    def _status(self, name: str, node: _Node, now: float) -> NodeStatus:
        body, last = node.body, node.detector.last
        is_gone = node.gone_at is not None
        return NodeStatus(
            node=name,
            address=node.entry.address,
            port=node.entry.port,
            scheme=node.entry.metadata.get("scheme", "http"),
            via="pull" if node.pulls else "push",
            state="gone" if is_gone else self._state(node, now),
            phi=None if is_gone or last is None else node.detector.phi(self._heard_until(node, now)),
            seen_seconds_ago=max(0.0, now - last) if node.heard and last is not None else None,
            interval_seconds=node.detector.mean_seconds if node.heard else None,
            version=body.get("version"),
            units=body.get("units"),
            open_operations=body.get("open_operations"),
            life=node.life,
            services=tuple(body.get("services") or ()),
            detail=node.detail,
        )


class _Ticks:
    """Notices that the loop did not run: a timer of its own that is late. It runs before what waits for answers."""

    def __init__(self, clock: Callable[[], float], on_stall: Callable[[float], None]) -> None:
        self._clock, self._on_stall = clock, on_stall
        self._again()

    def cancel(self) -> None:
        """No more ticks."""
        self._timer.cancel()

    def _again(self) -> None:
        self._wanted = self._clock() + TICK_SECONDS
        self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        late = self._clock() - self._wanted
        if late > STALL_SECONDS:
            self._on_stall(late)
        self._again()
