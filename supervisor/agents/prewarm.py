"""The first requests of an attempt: ours, before its entry is in the registry.

They are sent one after another, each once, and their answers are not looked at beyond the status. A request that
fails is a warning, not a failure of the unit: its probes say whether it can serve. It is not tried again, for
somebody's warm-up that always fails must not keep each attempt out of traffic for the whole time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import Protocol

from ..core.events import Prewarmed
from ..core.model import HttpCall, ServiceSpec, UnitSpec, WarmupSpec
from ..host.clock import monotonic
from ..host.http_client import HttpFailed
from ..host.process import Post

log = logging.getLogger("unitd.warmup")

MARK = ("X-Warmup", "1")  # a header of each of them, so that the unit can tell them from its users'
NAMED_FAILURES = 3  # so many are told of one by one


class Answer(Protocol):
    """What is read of an answer."""

    @property
    def status(self) -> int:
        """Its HTTP status."""


class Request(Protocol):
    """How a request is sent. Raises HttpFailed."""

    def __call__(
        self,
        address: str,
        port: int,
        method: str,
        target: str,
        /,
        *,
        headers: Sequence[tuple[str, str]],
        timeout_seconds: float,
    ) -> Awaitable[Answer]:
        """The final answer to one request."""


class Prewarms:
    """The first requests to all units that get some, by unit name."""

    def __init__(self, post: Post, request: Request) -> None:
        self._post, self._request = post, request
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._troubles: dict[str, str] = {}

    def send(self, spec: UnitSpec, attempt: int) -> None:
        """Send them -> Prewarmed, whatever comes of it, unless they are cancelled."""
        self.forget(spec.name)
        if spec.warmup is None or spec.service is None or not spec.warmup.requests:
            self._post(spec.name, Prewarmed(attempt))
            return
        task = asyncio.get_running_loop().create_task(self._run(spec.name, attempt, spec.warmup, spec.service))
        self._tasks[spec.name] = task

    def cancel(self, unit: str) -> None:
        """Its attempt has ended, or is to end: send it nothing more, and post nothing."""
        task = self._tasks.pop(unit, None)
        if task is not None:
            task.cancel()

    def trouble(self, unit: str) -> str:
        """Which of its attempt's first requests failed, and how; "" if none did."""
        return self._troubles.get(unit, "")

    def forget(self, unit: str) -> None:
        """Nothing is known of it."""
        self.cancel(unit)
        self._troubles.pop(unit, None)

    async def close(self) -> None:
        """Send nothing more to anybody."""
        tasks = list(self._tasks.values())
        for unit in list(self._tasks):
            self.cancel(unit)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, unit: str, attempt: int, warmup: WarmupSpec, service: ServiceSpec) -> None:
        failures = await self._send_all(unit, warmup, service)
        self._tasks.pop(unit, None)
        if failures:
            self._troubles[unit] = trouble = _sum_up(failures)
            log.warning("%s: %s", unit, trouble)
        self._post(unit, Prewarmed(attempt))

    async def _send_all(self, unit: str, warmup: WarmupSpec, service: ServiceSpec) -> list[str]:
        """Their failures, one sentence each."""
        failures: list[str] = []
        until = monotonic() + warmup.requests_timeout
        begun = 0
        try:
            async with asyncio.timeout(warmup.requests_timeout):
                for call in warmup.requests:
                    begun += 1
                    failure = await self._send(unit, call, service, until - monotonic())
                    if failure:
                        failures.append(f"{call.method} {call.path}: {failure}")
        except TimeoutError:
            failures.append(_cut(warmup, begun))
        return failures

    async def _send(self, unit: str, call: HttpCall, service: ServiceSpec, seconds: float) -> str:
        """What is wrong with the answer; "" if nothing."""
        marked = any(name.lower() == MARK[0].lower() for name, _ in call.headers)
        headers = call.headers if marked else (*call.headers, MARK)
        port = service.port if call.port is None else call.port
        seconds += 1.0  # the time for all of them ends it before that
        try:
            answer = await self._request(
                service.address, port, call.method, call.path, headers=headers, timeout_seconds=seconds
            )
        except HttpFailed as error:
            return error.reason
        except TimeoutError as error:
            return str(error) or "no answer in time"
        except Exception as error:  # a mistake of ours must not keep a unit out of traffic
            log.exception("%s: cannot send %s %s", unit, call.method, call.path)
            return repr(error)
        return f"it answered {answer.status}" if answer.status >= 400 else ""


def _cut(warmup: WarmupSpec, begun: int) -> str:
    """What was left when the time was over: the request under way, and those behind it."""
    call, unsent = warmup.requests[begun - 1], len(warmup.requests) - begun
    rest = f", and {unsent} more not sent" if unsent else ""
    return f"{call.method} {call.path}: not answered when the {warmup.requests_timeout:g} s for all were over{rest}"


def _sum_up(failures: Sequence[str]) -> str:
    named = "; ".join(failures[:NAMED_FAILURES])
    more = len(failures) - NAMED_FAILURES
    return f"warm-up requests failed: {named}" + (f"; and {more} more" if more > 0 else "")
