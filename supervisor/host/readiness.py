"""When a started unit is ready: alive for `startsecs` and, if it is registered, its port accepts connections."""

from __future__ import annotations

import asyncio
import socket

from ..core.events import Ready
from ..core.model import ServiceSpec, UnitSpec
from .clock import monotonic
from .process import Post

FIRST_RETRY_SECONDS = 0.05
LAST_RETRY_SECONDS = 1.0
CONNECT_SECONDS = 1.0


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
