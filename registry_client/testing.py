"""A registry for the tests of programs that use this package: in memory, and with faults on demand."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence

from .backend import Inspection
from .backends.embedded import EmbeddedBackend, EmbeddedRegistry
from .errors import RegistryError, RegistryUnavailable
from .model import Entry, Grant, LeaseKey, Snapshot


class FakeBackend(EmbeddedBackend):
    """A real embedded registry that can be told to fail, to hang and to forget.

    Faults hit every call but `watch` and `close`. `calls` lists the calls as (method, argument), failed ones too.
    With a `clock` of your own, entries expire when it says so and somebody reads.
    """

    name = "fake"

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, timeout_seconds: float = 2.0) -> None:
        self._store = EmbeddedRegistry(clock=clock)
        super().__init__(self._store, timeout_seconds=timeout_seconds)
        self.calls: list[tuple[str, object]] = []
        self._failures: deque[RegistryError] = deque()
        self._released = asyncio.Event()
        self._released.set()

    def fail_next(self, count: int = 1, error: RegistryError | None = None) -> None:
        """Let the next `count` calls raise `error` (default: RegistryUnavailable) and change nothing."""
        fault = error if error is not None else RegistryUnavailable("cannot reach the registry: told to fail")
        self._failures.extend([fault] * count)

    def hang(self) -> None:
        """Let calls wait until `release`; after `timeout_seconds` they raise RegistryUnavailable."""
        self._released.clear()

    def release(self) -> None:
        """Let hanging calls go on, and later ones not hang."""
        self._released.set()

    def forget(self) -> None:
        """Lose every entry and begin a new epoch, like a registry without a disk that was restarted."""
        self._store.forget()

    async def register(self, entry: Entry, ttl_seconds: float) -> Grant:
        """See `Backend.register`."""
        await self._before("register", entry)
        return await super().register(entry, ttl_seconds)

    async def renew(self, keys: Sequence[LeaseKey]) -> frozenset[LeaseKey]:
        """See `Backend.renew`."""
        await self._before("renew", tuple(keys))
        return await super().renew(keys)

    async def update(self, entry: Entry) -> None:
        """See `Backend.update`."""
        await self._before("update", entry)
        await super().update(entry)

    async def deregister(self, key: LeaseKey) -> bool:
        """See `Backend.deregister`."""
        await self._before("deregister", key)
        return await super().deregister(key)

    async def get(self, service: str, instance: str) -> Entry | None:
        """See `Backend.get`."""
        await self._before("get", (service, instance))
        return await super().get(service, instance)

    async def list(self, service: str | None = None) -> Snapshot:
        """See `Backend.list`."""
        await self._before("list", service)
        return await super().list(service)

    async def inspect(self, ttl_seconds: float) -> Inspection:
        """See `Backend.inspect`."""
        await self._before("inspect", ttl_seconds)
        return await super().inspect(ttl_seconds)

    def watch(
        self, service: str | None = None, since: int = 0, epoch: str | None = None
    ) -> AsyncGenerator[Snapshot, None]:
        """See `Backend.watch`."""
        self.calls.append(("watch", service))
        return super().watch(service, since, epoch)

    async def close(self) -> None:
        """See `Backend.close`."""
        self.release()
        await super().close()
        self._store.close()

    async def _before(self, method: str, argument: object) -> None:
        self.calls.append((method, argument))
        if self._failures:
            raise self._failures.popleft()
        try:
            async with asyncio.timeout(self.timeout_seconds):
                await self._released.wait()
        except TimeoutError as error:
            reason = f"no answer within {self.timeout_seconds:g} s"
            raise RegistryUnavailable(f"cannot {method}: {reason}", may_have_counted=False) from error
