"""Asks probes on a schedule: when, how often, for how long at most, and how many at once. What answers mean is not its.

An idle probe costs one timer and no task. Timers of due checks fall on a common grid, so that one wake-up of the loop
serves all that are due at about the same time; the first checks are spread over a period, so that a thousand units
that were started together are not asked together for ever.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections import deque
from collections.abc import Callable

from ..core.model import ProbeSpec
from ..plugin_api import Probe, ProbeKind, ProbeResult, Target
from .clock import chance

log = logging.getLogger("unitd.probe")

Kinds = Callable[[str], ProbeKind]  # by name
Report = Callable[[ProbeResult, bool], None]  # the answer, and whether it was due (else it came in between)

AT_ONCE = 100  # checks under way on a host
GRID_SECONDS = 0.05
SLACK_SECONDS = 0.1  # what a check gets beyond its timeout, to say itself what it missed
FIRST_PAUSE_SECONDS = 0.1  # between checks of a unit that is starting ...
LAST_PAUSE_SECONDS = 1.0
PAUSE_FACTOR = 1.5
MAX_DETAIL = 200  # characters


class Prober:
    """All probes of the host."""

    def __init__(self, kinds: Kinds, *, at_once: int = AT_ONCE) -> None:
        self._kinds, self._at_once = kinds, at_once
        self._running = 0  # checks that are under way and not late
        self._waiting: deque[Asking] = deque()
        self._tasks: set[asyncio.Task[ProbeResult]] = set()
        self._blamed: set[tuple[str, str]] = set()  # (unit, kind) whose exceptions were logged

    def ask(
        self, spec: ProbeSpec, target: Target, report: Report, *, eager: bool = False, probe: Probe | None = None
    ) -> Asking:
        """Ask from now on, until the answer's `close`.

        The first check comes `initial_delay` and a random part of a period from now, the next ones every period. Of
        those that are due while another one is under way, one follows at once and the others are skipped. `eager`:
        without the random part, and until the first success again and again after short pauses. `probe` is asked
        instead of a new one of the spec's kind.
        """
        return Asking(self, spec, target, report, probe or self._make(spec), eager=eager)

    async def close(self) -> None:
        """End what is under way. Whatever is asked must have been closed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _make(self, spec: ProbeSpec) -> Probe:
        """The configuration was checked, but a plugin may have gone or changed since: such a probe always fails."""
        try:
            return self._kinds(spec.kind)(json.loads(spec.options))
        except Exception as error:
            return _Broken(error)

    # For `Asking` only.

    def enter(self, asking: Asking) -> bool:
        """Whether it may start its check now; else it is started when it is its turn."""
        if self._running >= self._at_once:
            self._waiting.append(asking)
            return False
        self._running += 1
        return True

    def leave(self) -> None:
        """A check has ended, or is late and not waited for any more."""
        self._running -= 1
        while self._waiting and self._running < self._at_once:
            asking = self._waiting.popleft()
            if not asking.closed:
                self._running += 1
                asking.start()

    def keep(self, task: asyncio.Task[ProbeResult]) -> None:
        """The loop itself does not keep tasks from being collected."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def blame(self, unit: str, kind: str, error: BaseException) -> None:
        """Log an exception of a probe, once for each unit and kind."""
        if (unit, kind) not in self._blamed:
            self._blamed.add((unit, kind))
            log.error("%s: its %s probe has failed by itself; said only once", unit, kind, exc_info=error)


class Asking:
    """One probe of one attempt. It has one timer at most: of the next check, or of the end of the one under way."""

    __slots__ = (
        "_again", "_due", "_is_due", "_is_late", "_loop", "_pause", "_probe", "_prober", "_report", "_task", "_timer",
        "closed", "spec", "target",
    )  # fmt: skip

    def __init__(
        self, prober: Prober, spec: ProbeSpec, target: Target, report: Report, probe: Probe, *, eager: bool
    ) -> None:
        self.spec, self.target, self.closed = spec, target, False
        self._prober, self._report, self._probe = prober, report, probe
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[ProbeResult] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._again = self._is_due = self._is_late = False
        self._pause = min(spec.period, FIRST_PAUSE_SECONDS) if eager else 0.0
        first = self._loop.time() + spec.initial_delay
        self._due = first + spec.period if eager else _on_grid(first + spec.period * chance())
        self._arm(first if eager else self._due)

    def poke(self) -> None:
        """Ask now; what is under way may have looked too early and is followed by one more check."""
        if self.closed:
            return
        if self._timer is None:
            return  # it waits for its turn already
        if self._task is not None:
            self._again = not self._is_late
        else:
            self._fire()

    def close(self) -> None:
        """Never report again."""
        self.closed = True
        self._disarm()
        if self._task is not None:
            self._task.cancel()
            if not self._is_late:
                self._is_late = True
                self._prober.leave()

    def start(self) -> None:
        """It is its turn: check."""
        self._begin(self._loop.time())
        self._task = self._loop.create_task(self._ask())
        self._prober.keep(self._task)
        self._task.add_done_callback(self._done)
        self._timer = self._loop.call_later(self.spec.timeout + SLACK_SECONDS, self._cut)

    def _begin(self, now: float) -> None:
        self._is_due = now + GRID_SECONDS >= self._due
        if self._is_due:  # it stands for all that have been due until now
            self._due += self.spec.period * max(1, math.floor((now - self._due) / self.spec.period) + 1)

    async def _ask(self) -> ProbeResult:
        try:
            return await self._probe.check(self.target, self.spec.timeout)
        except SystemExit as error:  # which asyncio would let through, and which would end the daemon
            raise RuntimeError("it called exit") from error

    def _arm(self, at: float) -> None:
        self._timer = self._loop.call_at(at, self._fire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        """It is time for a check."""
        self._disarm()
        if self._task is not None:  # late, and still not ended although it was cancelled
            self._begin(self._loop.time())
            self._answer(ProbeResult(False, "its last check has not ended yet"))
        elif self._prober.enter(self):
            self.start()

    def _cut(self) -> None:
        """Its time is over. Whether it heeds the cancellation does not matter to what is reported."""
        assert self._task is not None and self._timer is not None
        if self._loop.time() > self._timer.when() + SLACK_SECONDS:
            # The loop itself was away, so the answer may have come and only not been looked at.
            self._timer = self._loop.call_later(SLACK_SECONDS, self._cut)
            return
        self._is_late = True
        self._task.cancel()
        self._answer(ProbeResult(False, f"no answer within {self.spec.timeout:g} s"))
        self._prober.leave()

    def _done(self, task: asyncio.Task[ProbeResult]) -> None:
        error = None if task.cancelled() else task.exception()  # fetched even if late, else asyncio complains
        was_late, self._is_late, self._task = self._is_late, False, None
        if was_late:
            return
        self._answer(self._result(task, error))
        self._prober.leave()

    def _result(self, task: asyncio.Task[ProbeResult], error: BaseException | None) -> ProbeResult:
        if task.cancelled():
            return ProbeResult(False, f"its {self.spec.kind} probe was cancelled")
        if error is None and not isinstance(task.result(), ProbeResult):
            error = TypeError(f"it answered {task.result()!r}, which is no ProbeResult")
        if error is not None:
            self._prober.blame(self.target.unit, self.spec.kind, error)
            return ProbeResult(False, _one_line(f"its {self.spec.kind} probe raised {type(error).__name__}: {error}"))
        result = task.result()
        return result if _is_short(result.detail) else ProbeResult(result.ok, _one_line(result.detail))

    def _answer(self, result: ProbeResult) -> None:
        """Arm the next check, then tell: whoever is told may close this."""
        self._disarm()
        now = self._loop.time()
        if now > self._due:  # of those that were due while this one was under way, one follows at once
            self._due += self.spec.period * math.floor((now - self._due) / self.spec.period)
        if result.ok and self._pause:
            self._pause = 0.0
            self._due = _on_grid(now + self.spec.period * (1 - chance()))
        at = self._next_check(now)
        self._arm(max(at, now + GRID_SECONDS) if self._is_late else at)  # what was cut off gets a moment to end
        self._report(result, self._is_due)

    def _next_check(self, now: float) -> float:
        if self._again:
            self._again = False
            return now
        if not self._pause:
            return self._due
        at = min(self._due, now + self._pause)
        self._pause = min(self._pause * PAUSE_FACTOR, LAST_PAUSE_SECONDS, self.spec.period)
        return at


class _Broken:
    """A probe that could not be made."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def check(self, target: Target, timeout_seconds: float) -> ProbeResult:
        raise self._error


def _on_grid(at: float) -> float:
    # The subtrahend keeps what is on the grid already from being moved to its next line by a rounding error.
    return math.ceil(at / GRID_SECONDS - 0.001) * GRID_SECONDS


def _is_short(detail: str) -> bool:
    return len(detail) <= MAX_DETAIL and detail.isprintable()


def _one_line(detail: str) -> str:
    return " ".join(detail.split())[:MAX_DETAIL]
