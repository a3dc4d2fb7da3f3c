"""What a registered unit must show before it is ready: its port accepts connections, and is its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from ..core.events import Ready
from ..core.model import ServiceSpec, UnitSpec
from ..plugin_api import ProbeResult, Target
from .clock import monotonic
from .connect import connect, reason_of
from .process import Post

FIRST_RETRY_SECONDS = 0.05
LAST_RETRY_SECONDS = 1.0
CONNECT_SECONDS = 1.0

Vouch = Callable[[str], str]  # unit -> "", or why its process or its port cannot be vouched for


class Door:
    """The probe of a registered unit that has met all other conditions."""

    def __init__(self, vouch: Vouch) -> None:
        self._vouch = vouch

    async def check(self, target: Target, timeout_seconds: float) -> ProbeResult:
        """Connect to the port of its service. Whose port it is, is asked after it was seen to accept."""
        if target.port is None:
            return ProbeResult(False, "it has no port")
        try:
            async with asyncio.timeout(timeout_seconds):
                (await connect(target.address, target.port)).close()
        except OSError as error:  # TimeoutError among them
            reason = reason_of(error) if error.errno else f"no answer within {timeout_seconds:g} s"
            return ProbeResult(False, f"port {target.port} does not accept connections: {reason}")
        reason = self._vouch(target.unit)
        return ProbeResult(not reason, reason or f"port {target.port} accepts connections")


class Readiness:
    """Watches units that are starting; knows nothing of those that are up."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._loop = asyncio.get_running_loop()
        self._watched: dict[str, asyncio.TimerHandle | asyncio.Task[None]] = {}

    def watch(self, spec: UnitSpec, attempt: int) -> None:
        """A process of the unit has just been started -> Ready."""
        self.forget(spec.name)
        if spec.startsecs <= 0:
            self._alive(spec, attempt)
            return
        self._watched[spec.name] = self._loop.call_later(spec.startsecs, self._alive, spec, attempt)

    def forget(self, unit: str) -> None:
        """It is not starting any more."""
        watched = self._watched.pop(unit, None)
        if watched is not None:
            watched.cancel()

    def _alive(self, spec: UnitSpec, attempt: int) -> None:
        self._watched.pop(spec.name, None)
        if spec.service is None:
            self._post(spec.name, Ready(attempt, monotonic()))
        else:
            self._watched[spec.name] = self._loop.create_task(self._accepts(spec, spec.service, attempt))

    async def _accepts(self, spec: UnitSpec, service: ServiceSpec, attempt: int) -> None:
        """Try its port until it accepts; the lifecycle's start timeout ends this."""
        pause = FIRST_RETRY_SECONDS
        while not await self._connects(service):
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LAST_RETRY_SECONDS)
        self._watched.pop(spec.name, None)
        self._post(spec.name, Ready(attempt, monotonic()))

    async def _connects(self, service: ServiceSpec) -> bool:
        family = socket.AF_INET6 if ":" in service.address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
                connection.setblocking(False)
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._loop.sock_connect(connection, (service.address, service.port))
                # The kernel may choose that very port for our end, and then we have reached ourselves.
                return bool(connection.getsockname() != connection.getpeername())
        except OSError:  # TimeoutError among them
            return False
