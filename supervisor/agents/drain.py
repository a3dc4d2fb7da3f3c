"""The drain agents: each tells one unit to finish, and waits until nothing that it was asked is unanswered.

What a unit still works on is known, best first, from itself (`in_flight = { http = ... }`), from whoever else can
count it (`sources`, such as a gateway's own counters), or from the kernel, of the connections to its port, which needs
no help of the unit. Where nobody can tell, the drain takes its whole time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..core.events import Drained
from ..core.measures import Measures
from ..core.model import DrainSpec, Hook, HttpCall, InFlight, ServiceSpec, UnitSpec
from ..core.traffic import Connection, count
from ..host.clock import monotonic
from ..host.http_client import HttpAnswer, HttpFailed
from ..host.process import Post
from ..host.signals import signal_name

log = logging.getLogger("unitd.drain")

LOOK_SECONDS = 0.1
SEEN_SECONDS = 0.2  # so long a look at many counts
QUIET_LOOKS = 2  # in a row: an answer may be between two of the unit's processes

Request = Callable[..., Awaitable[HttpAnswer]]


@dataclass(frozen=True, slots=True)
class Load:
    """What a unit still has to do: `in_flight` was asked and is not answered; None: nobody can tell."""

    in_flight: int | None
    quiet: bool  # nothing at all goes on
    detail: str = ""
    talking: int = 0  # connections that were answered a moment ago: at the end of a long wait, streams


class Source(Protocol):
    """Somebody who knows what a unit has in flight, such as a gateway that sends to it."""

    async def load(self, spec: UnitSpec) -> Load | None:
        """None: not about this unit, or not at this moment."""


class Counts(Protocol):
    """The kernel's sockets."""

    def connections(self, address: str, port: int) -> list[Connection]:
        """All to a local port. Raises OSError."""

    def connections_of(self, places: Collection[tuple[str, int]]) -> dict[tuple[str, int], list[Connection]]:
        """The same for many (address, port) in one look. Raises OSError."""


class Draining:
    """One drain under way, for people to look at."""

    __slots__ = ("deadline", "load", "since", "spec", "task", "what")

    def __init__(self, spec: UnitSpec, seconds: float) -> None:
        self.spec = spec
        self.since = monotonic()
        self.deadline = self.since + seconds
        self.load: Load | None = None
        self.what = "telling the unit to finish"
        self.task: asyncio.Task[None] | None = None


class Drains:
    """All drain agents of the host. A unit has at most one drain under way."""

    def __init__(
        self,
        post: Post,
        *,
        request: Request,
        run: Callable[[UnitSpec, int, Sequence[str], float], Awaitable[bool]],
        signal: Callable[[str, int], bool],
        sockets: Counts,
        ignored: Container[tuple[str, int]] = (),
        sources: Sequence[Source] = (),
        measures: Measures | None = None,
    ) -> None:
        """`request` is `http_client.request`; `run` runs a command of a unit, `signal` signals its leader.

        `ignored` holds the local ends of the connections that are our own.
        """
        self._post, self._request, self._run, self._signal = post, request, run, signal
        self._sockets, self._ignored, self._sources = sockets, ignored, sources
        self._measures = measures or Measures()
        self._seen: dict[tuple[str, int], list[Connection]] = {}  # by (address, port), at the last look at many
        self._seen_at = -math.inf
        self._draining: dict[str, Draining] = {}
        self._resuming: dict[str, asyncio.Task[None]] = {}  # units that are being told to take new work again

    def drain(self, spec: UnitSpec, attempt: int, *, notify: bool) -> None:
        """Let the unit finish what it has -> Drained."""
        self.call_off(spec.name)
        how = spec.drain or DrainSpec()
        draining = self._draining[spec.name] = Draining(spec, how.timeout)
        draining.task = asyncio.get_running_loop().create_task(self._drain(draining, spec, attempt, how, notify))

    def resume(self, spec: UnitSpec, attempt: int) -> None:
        """Tell a unit that it may take new work again."""
        if spec.drain is None or spec.drain.resume is None:
            return
        before = self._resuming.get(spec.name)
        if before is not None:
            before.cancel()
        task = asyncio.get_running_loop().create_task(self._tell(spec, attempt, spec.drain.resume, "resume"))
        self._resuming[spec.name] = task

        def forget(task: asyncio.Task[None]) -> None:
            if self._resuming.get(spec.name) is task:
                del self._resuming[spec.name]

        task.add_done_callback(forget)

    def when_resumed(self, unit: str, call: Callable[[], None]) -> None:
        """Call it when the unit has been told to take new work again, or its time to hear that is over; else now."""
        task = self._resuming.get(unit)
        if task is None:
            call()
        else:
            task.add_done_callback(lambda task: None if task.cancelled() else call())

    def call_off(self, unit: str) -> None:
        """Nobody waits for that drain any more."""
        draining = self._draining.pop(unit, None)
        if draining is not None and draining.task is not None:
            draining.task.cancel()

    def in_flight(self, spec: UnitSpec) -> int | None:
        """What the kernel sees in flight at this moment, or what was last seen; None: it cannot be seen."""
        draining = self._draining.get(spec.name)
        if draining is not None and draining.load is not None:
            return draining.load.in_flight
        how = spec.drain or DrainSpec()
        if spec.service is None or how.in_flight is InFlight.NONE:
            return None
        seen = self._seen.get((spec.service.address, spec.service.port))
        if seen is not None and monotonic() - self._seen_at < SEEN_SECONDS:
            return self._judged(seen, how).in_flight
        return self._seen_by_kernel(spec, how).in_flight

    def look(self, specs: Iterable[UnitSpec]) -> None:
        """Look at the connections of many units at once, for `in_flight` in this moment."""
        places = {(spec.service.address, spec.service.port) for spec in specs if spec.service is not None}
        try:
            self._seen = self._sockets.connections_of(places)
        except OSError:
            self._seen = {}
        self._seen_at = monotonic()

    def describe(self, unit: str) -> str:
        """What a drain waits for, with its time; "" if there is none."""
        draining = self._draining.get(unit)
        if draining is None:
            return ""
        now = monotonic()
        return f"{draining.what}: {now - draining.since:.1f} s of at most {draining.deadline - draining.since:.1f} s"

    async def close(self) -> None:
        """Stop waiting."""
        tasks = [draining.task for draining in self._draining.values() if draining.task is not None]
        tasks += self._resuming.values()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drain(self, draining: Draining, spec: UnitSpec, attempt: int, how: DrainSpec, notify: bool) -> None:
        try:
            if notify and how.notify is not None:
                if (resuming := self._resuming.get(spec.name)) is not None:
                    await asyncio.wait((resuming,))  # the last word must be the one that counts
                await self._tell(spec, attempt, how.notify, "drain")
                draining.deadline = monotonic() + how.timeout
            await self._wait(draining, spec, how)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("%s: cannot tell what it has in flight; it is stopped without waiting", spec.name)
        if self._draining.get(spec.name) is draining:
            del self._draining[spec.name]
        load = draining.load
        self._measures.drains.add(monotonic() - draining.since, _service_of(spec), _outcome(load))
        cut = 0 if load is None or load.quiet else (load.in_flight or 0) + load.talking
        if cut and load is not None:
            log.warning("%s: after %g s there was still this: %s", spec.name, how.timeout, load.detail)
        self._post(spec.name, Drained(attempt, cut))

    async def _wait(self, draining: Draining, spec: UnitSpec, how: DrainSpec) -> None:
        if spec.service is None and how.in_flight is InFlight.CONNECTIONS:
            return  # told, and there is no port whose traffic could be seen
        quiet = 0
        while True:
            load = draining.load = await self._load(spec, how)
            draining.what = load.detail
            quiet = quiet + 1 if load.quiet else 0
            left = draining.deadline - monotonic()
            if quiet >= QUIET_LOOKS or left <= 0:
                return
            await asyncio.sleep(min(LOOK_SECONDS, left))

    async def _load(self, spec: UnitSpec, how: DrainSpec) -> Load:
        """What the best of those who know says."""
        if how.in_flight is InFlight.NONE:
            return Load(None, quiet=False, detail="work in flight gets its time, for nobody can tell when it is over")
        if how.in_flight is InFlight.HTTP and how.in_flight_call is not None:
            load = await self._asked(spec, how.in_flight_call)
            if load is not None:
                return load
        for source in self._sources:
            load = await source.load(spec)
            if load is not None:
                return load
        return self._seen_by_kernel(spec, how)

    async def _asked(self, spec: UnitSpec, call: HttpCall) -> Load | None:
        """The unit's own word: a number, or a JSON object with `in_flight`."""
        try:
            answer = await self._call(spec, call, 1.0)
            value = json.loads(answer.body)
            number = value.get("in_flight") if isinstance(value, dict) else value
        except (HttpFailed, ValueError):
            return None
        if answer.status >= 300 or type(number) is not int or number < 0:
            return None
        return Load(number, quiet=number == 0, detail=f"{_counted(number, 'request')} in flight, says the unit")

    def _seen_by_kernel(self, spec: UnitSpec, how: DrainSpec) -> Load:
        service = spec.service
        if service is None:
            return Load(None, quiet=False, detail="nobody can tell what is in flight")
        try:
            connections = self._connections(service)
        except OSError as error:
            return Load(None, quiet=False, detail=f"cannot see what is in flight ({error.strerror}): it gets its time")
        return self._judged(connections, how)

    def _connections(self, service: ServiceSpec) -> list[Connection]:
        """When many drain at once, each look is one at all of them, for it costs a millisecond. Raises OSError."""
        if len(self._draining) < 2:
            return self._sockets.connections(service.address, service.port)
        place = service.address, service.port
        if monotonic() - self._seen_at > LOOK_SECONDS / 2 or place not in self._seen:
            others = [draining.spec.service for draining in self._draining.values()]
            places = {(item.address, item.port) for item in (*others, service) if item is not None}
            self._seen, self._seen_at = self._sockets.connections_of(places), monotonic()
        return self._seen[place]

    def _judged(self, connections: list[Connection], how: DrainSpec) -> Load:
        traffic = count(connections, quiet_seconds=how.quiet, ignored=self._ignored)
        number = traffic.in_flight + traffic.unaccepted
        detail = f"{_counted(number, 'request')} in flight"
        if traffic.trailing:
            detail += f", {_counted(traffic.trailing, 'connection')} just answered"
        return Load(number, quiet=traffic.quiet, detail=detail, talking=traffic.trailing)

    # Words to the unit.

    async def _tell(self, spec: UnitSpec, attempt: int, hook: Hook, what: str) -> None:
        """Never fails: a unit that does not listen is taken out all the same."""
        problem = ""
        try:
            problem = await self._told(spec, attempt, hook)
        except (HttpFailed, OSError) as error:
            problem = str(error)
        if problem:
            log.warning("%s: its %s hook failed: %s", spec.name, what, problem)

    async def _told(self, spec: UnitSpec, attempt: int, hook: Hook) -> str:
        if hook.http is not None:
            answer = await self._call(spec, hook.http, hook.timeout)
            return "" if answer.status < 400 else f"{hook.http.method} {hook.http.path} was answered {answer.status}"
        if hook.signal is not None:
            sent = self._signal(spec.name, hook.signal)
            return "" if sent else f"cannot send {signal_name(hook.signal)}: it has no running process"
        assert hook.argv is not None
        return "" if await self._run(spec, attempt, hook.argv, hook.timeout) else f"{hook.argv[0]} failed"

    async def _call(self, spec: UnitSpec, call: HttpCall, timeout_seconds: float) -> HttpAnswer:
        service = spec.service
        address = service.address if service is not None else "127.0.0.1"
        port = call.port or (service.port if service is not None else 0)
        return await self._request(
            address, port, call.method, call.path, headers=call.headers, timeout_seconds=timeout_seconds
        )


def _service_of(spec: UnitSpec) -> str:
    return spec.service.name if spec.service is not None else ""


def _outcome(load: Load | None) -> str:
    """How a drain has ended: nothing was left, its time was over, or nobody could tell."""
    if load is None or load.quiet:
        return "quiet"
    return "unseen" if load.in_flight is None else "timeout"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
