"""One gateway that is fed: it gets the newest pool of each service that it wants, again and again until it has it.

Services hold up each other as little as gateways do. Looks at the gateway are `looking`'s; here it is only decided
what they mean for feeding: a gateway that was away and is back is told everything anew.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from .errors import GatewayRefused, GatewayUnreachable
from .feeder import Feeder
from .looking import OnFinding, Sight, contained
from .model import Applied, Key, Pool

log = logging.getLogger("unit-gateway.feeding")


class Acknowledging(Protocol):
    """Who tells the registry what gateways have taken over."""

    def applying(self, feeder: str, pool: Pool) -> None:
        """The gateway is about to be told this, and may act on it from now on."""

    def applied(self, feeder: str, kind: str, applied: Applied) -> None:
        """The gateway acts on this."""

    def busy(self, feeder: str, service: str, in_flight: Mapping[Key, int]) -> None:
        """What is still open at servers that get nothing new, seen since the last `applied`."""

    def unreachable(self, feeder: str) -> None:
        """The gateway does not answer."""

    def reachable(self, feeder: str) -> None:
        """It does (again)."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things may take and when they are tried again, in seconds."""

    resync: float = 60.0
    retry_first: float = 0.2  # of a gateway that is away, doubled each time
    retry_most: float = 5.0
    refused_first: float = 1.0  # of one that refuses, or of a mistake of ours
    refused_most: float = 30.0
    linger_first: float = 0.5  # of one that may still send to somebody else than it should: is that over?
    linger_most: float = 2.0
    apply: float = 120.0  # for one service
    start: float = 30.0
    look: float = 30.0
    last: float = 5.0  # what is being applied at the end gets so long
    close: float = 60.0  # a gateway of our own lets requests finish


@dataclass(frozen=True, slots=True)
class FeederState:
    """How things are with one gateway. `reachable` is None as long as nobody knows."""

    name: str
    kind: str
    reachable: bool | None
    error: str
    services: int  # that it has to do with
    behind: int  # of these, how many it has not got the newest pool of


@dataclass(frozen=True, slots=True)
class Hearers:
    """Who wants to hear of what happens besides, each with the feeder's name first.

    `on_applied` hears every outcome ("applied", "unreachable", "refused" or "failed") and its seconds; `on_lost`: what
    the gateway has said of its servers is not known any more.
    """

    on_finding: OnFinding = lambda feeder, finding: None
    on_applied: Callable[[str, str, float], None] = lambda feeder, outcome, seconds: None
    on_lost: Callable[[str], None] = lambda feeder: None


class Fed:
    """One gateway with its services, each in a lane of its own."""

    def __init__(self, feeder: Feeder, acknowledgements: Acknowledging, hearers: Hearers, timing: Timing) -> None:
        self.feeder, self.acknowledgements, self.hearers, self.timing = feeder, acknowledgements, hearers, timing
        self.sight = Sight(feeder, hearers.on_finding, timing.look, self._seen)
        self.lanes: dict[str, Lane] = {}
        self.is_open = False  # between start and close: only then it may be told anything
        self._away = ""  # why no look succeeds
        self._lanes_away = 0  # that were not taken for the gateway's absence, though looks succeed
        self._counts = False  # it has told how much is open at a server, and so can tell that nothing is
        self._reachable: bool | None = None
        self._mistakes: set[str] = set()  # kinds of those that were logged

    @property
    def state(self) -> FeederState:
        """How things are with it."""
        behind = sum(lane.applied is not lane.wanted for lane in self.lanes.values())
        error = self._away or next((lane.error for lane in self.lanes.values() if lane.error), "")
        return FeederState(self.feeder.name, self.feeder.kind, self._reachable, error, len(self.lanes), behind)

    @property
    def is_ready(self) -> bool:
        """It has taken over each service that it wants at least once."""
        return self.is_open and all(lane.applied is not None for lane in self.lanes.values())

    # Its life.

    async def start(self) -> None:
        """Begin. Raises GatewayRefused."""
        try:
            await contained(self.feeder.start(), self.timing.start)
        except GatewayRefused:
            raise
        except Exception as error:  # a mistake in one feeder must not end the others
            self.judge(error, "start")

    async def run(self) -> None:
        """For ever."""
        self.is_open = True
        for lane in self.lanes.values():
            lane.wake()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.sight.run())
            group.create_task(self._resync())

    async def _resync(self) -> None:
        """Now and then nothing is believed of what the gateway was told: somebody else may have changed it."""
        while True:
            await asyncio.sleep(self.timing.resync * random.uniform(0.9, 1.1))
            self._tell_all_anew()

    def _tell_all_anew(self) -> None:
        for lane in self.lanes.values():
            lane.is_full = True
            lane.wake()

    def offer(self, pools: Mapping[str, Pool]) -> None:
        """These are the pools from now on, by service."""
        for service, pool in pools.items():
            lane = self.lanes.get(service)
            if lane is None:
                if not self.feeder.wants(service):
                    continue
                lane = self.lanes[service] = Lane(self, pool)
            elif lane.wanted is pool:
                continue
            lane.offer(pool)

    async def attempted(self) -> None:
        """Until it has been tried with each of its services once."""
        while missing := [lane.first for lane in self.lanes.values() if not lane.first.done()]:
            await asyncio.wait(missing)

    async def close(self) -> None:
        """Let what is being applied end, and let go of the gateway."""
        self.is_open = False
        for lane in self.lanes.values():
            lane.nudge()  # whoever waits for the next try finds that there is none
        tasks = [lane.task for lane in self.lanes.values() if lane.task is not None]
        if tasks:
            await self._end(tasks)
        try:
            await contained(self.feeder.close(), self.timing.close)
        except Exception as error:
            if self.judge(error, "close") != "failed":
                log.warning("cannot let go of %s: %s", self.feeder.name, str(error) or type(error).__name__)

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        _, late = await asyncio.wait(tasks, timeout=self.timing.last)
        if late:
            log.warning("%s: %d service(s) were still being applied at the end", self.feeder.name, len(late))
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1.0)

    # What calls have shown.

    def judge(self, error: Exception, verb: str) -> str:
        """The outcome of a call that failed, in a word. Mistakes are logged, once a kind: all is tried again."""
        if isinstance(error, (GatewayUnreachable, TimeoutError)):
            return "unreachable"
        if isinstance(error, GatewayRefused):
            return "refused"
        kind = f"{verb} {type(error).__name__}"
        if kind not in self._mistakes:
            self._mistakes.add(kind)
            log.error("cannot %s %s: a mistake in its feeder; trying on", verb, self.feeder.name, exc_info=error)
        return "failed"

    @property
    def is_away(self) -> bool:
        """No look succeeds. As soon as one does, all lanes are nudged."""
        return bool(self._away)

    def lane_was(self, away: bool, *, before: bool) -> None:
        """A service could not be applied because the gateway is away, or it could be again."""
        self._lanes_away += away - before
        self._note_reachable()

    def _seen(self, error: Exception | None, began: float) -> None:
        """A look that began then has ended."""
        if error is not None:
            self.judge(error, "look at")
            self._away = str(error) or f"cannot look at {self.feeder.name}: {type(error).__name__}"
            self._note_reachable()
            return
        was_away, self._away = bool(self._away), ""
        self._note_reachable()
        if was_away:  # perhaps it was started anew and knows nothing
            self._tell_all_anew()
            for lane in self.lanes.values():
                lane.nudge()
        self._counts = self._counts or self.sight.counts
        if self._counts:
            self._tell_busy(began)

    def _note_reachable(self) -> None:
        """Say so when it has changed whether the gateway can be reached."""
        now, before = not self._away and not self._lanes_away, self._reachable
        if now is before:
            return
        self._reachable, name = now, self.feeder.name
        if now:
            self.acknowledgements.reachable(name)
            log.log(logging.INFO if before is False else logging.DEBUG, "the gateway %s answers", name)
            return
        self.acknowledgements.unreachable(name)
        self.hearers.on_lost(name)
        log.warning("the gateway %s is away, and keeps what it has: %s", name, self.state.error)

    def _tell_busy(self, began: float) -> None:
        """What is open at servers that get nothing new, of each service where that has changed or must be said."""
        for service, lane in self.lanes.items():
            if lane.applied_at > began or lane.applied is None:  # that look may have been at what was before
                if lane.has_left:
                    self.sight.hurry()
                continue
            in_flight = lane.busy()
            if in_flight or lane.owes_busy:
                self.acknowledgements.busy(self.feeder.name, service, in_flight)
            lane.owes_busy, lane.has_left = bool(in_flight), False


class Lane:
    """One service of one gateway: the newest pool wins, and there is one call at a time."""

    __slots__ = (
        "_is_away", "_lingers", "_may_change", "_said", "_serving", "_sleeper", "_wanted_serving", "applied",
        "applied_at", "error", "fed", "first", "has_left", "is_full", "owes_busy", "task", "wanted",
    )  # fmt: skip

    def __init__(self, fed: Fed, pool: Pool) -> None:
        self.fed, self.wanted = fed, pool
        self.applied: Pool | None = None  # what the gateway has
        self.is_full = True  # nothing is known of what it has
        self.error = ""
        self.applied_at = 0.0
        self.owes_busy = False  # what is open must be said after the next look, also when it is nothing
        self.has_left = False  # somebody waits for what is open at a server to end
        self.task: asyncio.Task[None] | None = None
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # the first try has ended
        self._serving: frozenset[Key] = frozenset()  # whom the gateway may send to, as it has said
        self._wanted_serving = frozenset(server.key for server in pool.serving)
        self._lingers = False  # the gateway may still send to others than it should
        self._is_away = False
        self._said = ""  # the refusal that was logged
        self._sleeper: asyncio.Future[None] | None = None  # between two tries
        self._may_change = False  # another pool may be taken where this one was not

    @property
    def is_done(self) -> bool:
        """The gateway has the newest pool, and acts on nothing else."""
        return self.applied is self.wanted and not self.is_full and not self._lingers

    def offer(self, pool: Pool) -> None:
        """This one is wanted from now on."""
        self.wanted = pool
        self._wanted_serving = frozenset(server.key for server in pool.serving)
        if self._may_change:
            self.nudge()
        self.wake()

    def wake(self) -> None:
        """See to it that the gateway gets what is wanted; a task exists only for so long."""
        if self.task is None and self.fed.is_open and not self.is_done:
            name = f"{self.fed.feeder.name}: {self.wanted.service}"
            self.task = asyncio.get_running_loop().create_task(self._feed(), name=name)

    def nudge(self) -> None:
        """Try now, instead of when it would have been tried."""
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    def busy(self) -> dict[Key, int]:
        """What is open at servers that get nothing new, by what was seen last."""
        views = self.fed.sight.of(self.wanted.service)
        return {
            key: view.in_flight for key, view in views.items() if view.in_flight and key not in self._wanted_serving
        }

    async def _feed(self) -> None:
        failures = 0
        try:
            while self.fed.is_open and not self.is_done:
                tried = self.wanted
                outcome = await self._try(tried)
                failures = 0 if outcome == "applied" and not self._lingers else failures + 1
                self._may_change = outcome != "unreachable"
                if failures and self.fed.is_open and not (self._may_change and self.wanted is not tried):
                    await self._pause(outcome, failures)
        finally:
            self.task = None

    async def _try(self, pool: Pool) -> str:
        """One call of the gateway, and what came of it."""
        fed, began, is_full = self.fed, monotonic(), self.is_full
        self.is_full = False
        fed.acknowledgements.applying(fed.feeder.name, pool)
        try:
            applied = await contained(fed.feeder.apply(pool, full=is_full), fed.timing.apply)
        except Exception as error:  # a mistake in a feeder must not end the others
            outcome = self._failed(error)
        else:
            self.applied, self.error, self._said, outcome = pool, "", "", "applied"
            self._acknowledge(applied)
        before, self._is_away = self._is_away, outcome == "unreachable"
        fed.lane_was(self._is_away, before=before)
        if not self.first.done():
            self.first.set_result(None)
        fed.hearers.on_applied(fed.feeder.name, outcome, monotonic() - began)
        return outcome

    def _failed(self, error: Exception) -> str:
        self.is_full = True
        self.error = str(error) or f"cannot apply {self.wanted.service}: {type(error).__name__}"
        outcome = self.fed.judge(error, "apply to")
        if outcome == "refused" and self._said != self.error:
            self._said = self.error
            log.error("%s refuses %s: %s", self.fed.feeder.name, self.wanted.service, error)
        return outcome

    def _acknowledge(self, applied: Applied) -> None:
        fed, self.applied_at, self.owes_busy = self.fed, monotonic(), True
        fed.acknowledgements.applied(fed.feeder.name, fed.feeder.kind, applied)
        if self._serving - applied.serving:
            self.has_left = True
            fed.sight.hurry()
        self._serving = applied.serving
        self._lingers = not applied.serving <= self._wanted_serving

    async def _pause(self, outcome: str, failures: int) -> None:
        """Until the next try. Who refuses one pool may take the next one; who is away may be back."""
        timing = self.fed.timing
        first, most = timing.refused_first, timing.refused_most
        if outcome == "applied":
            first, most = timing.linger_first, timing.linger_most
        elif outcome == "unreachable" and not self.fed.is_away:  # else a thousand lanes would knock all the time
            first, most = timing.retry_first, timing.retry_most
        seconds = min(most, first * 2.0 ** min(failures - 1, 20)) * random.uniform(0.8, 1.2)
        self._sleeper = asyncio.get_running_loop().create_future()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._sleeper
        self._sleeper = None
