"""The client for programs without an event loop: the same calls, each of which waits for its answer.

One daemon thread runs a loop for the client; leases are renewed there while the program does something else.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, TypeVar

from .backend import Backend, Inspection
from .client import DEFAULT_TTL_SECONDS, HeldLease, RegistryClient
from .errors import RegistryError, RegistryRejected
from .lease import LeaseState
from .model import Entry, LeaseKey, Snapshot

_T = TypeVar("_T")


class _LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="registry-client", daemon=True)
        self._thread.start()
        self._loop, self._stopping = self._started.result()

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._thread.is_alive()

    def call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run it there and wait; an exception here (Ctrl-C) cancels it there."""
        if not self.is_alive:
            coroutine.close()
            raise RegistryRejected("cannot use the registry: this client of it is closed", code="closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def finish(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it there and wait, but for a garbage collection that happens to run in that thread: it cannot wait."""
        if threading.current_thread() is self._thread:
            asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        else:
            self.call(coroutine)

    def stop(self) -> None:
        """End the loop and the thread; calls under way are cancelled."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    async def _run(self) -> None:
        stopping = asyncio.Event()
        self._started.set_result((asyncio.get_running_loop(), stopping))
        await stopping.wait()


class BlockingLease:
    """A registered entry that is renewed in the background until `close`; see `client.HeldLease`."""

    def __init__(self, thread: _LoopThread, lease: HeldLease) -> None:
        self._thread, self._lease = thread, lease

    @property
    def entry(self) -> Entry:
        """What is registered."""
        return self._lease.entry

    @property
    def state(self) -> LeaseState:
        """How sure it is that the entry is in the registry, at this moment; `ABSENT` once its client is closed."""
        return self._thread.call(self._state()) if self._thread.is_alive else LeaseState.ABSENT

    async def _state(self) -> LeaseState:
        return self._lease.state

    @property
    def error(self) -> RegistryError | None:
        """What the last beat failed with, or None."""
        return self._lease.error

    @property
    def is_running(self) -> bool:
        """Whether it is still renewed: until `close`, or until a newer generation of the instance was registered."""
        return self._lease.is_running

    def update(self, **changes: Any) -> None:
        """Change fields of the entry, such as `weight=50`; see `client.HeldLease.update`."""
        self._thread.call(self._lease.update(**changes))

    def close(self) -> bool:
        """Stop renewing and delete the entry; False: it will expire by itself. May be called twice."""
        if not self._thread.is_alive:  # its client has closed it
            return self._lease.lease.last_possible_at is None
        return self._thread.call(self._lease.close())

    def __enter__(self) -> BlockingLease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BlockingRegistryClient:
    """`client.RegistryClient` without async. Safe to use from several threads; a context manager.

    The backend must be used by nobody else: `BlockingRegistryClient(open_backend("http", url=...))`.
    """

    def __init__(self, backend: Backend) -> None:
        self._client = RegistryClient(backend)
        self._thread = _LoopThread()
        self._closed = False

    def register(self, entry: Entry, ttl_seconds: float = DEFAULT_TTL_SECONDS) -> BlockingLease:
        """Register the entry and keep it registered."""
        return BlockingLease(self._thread, self._thread.call(self._client.register(entry, ttl_seconds)))

    def deregister(self, key: LeaseKey) -> bool:
        """Delete somebody's entry; False: it was not there."""
        return self._thread.call(self._client.deregister(key))

    def get(self, service: str, instance: str) -> Entry | None:
        """The entry as it is now; None: it is not there."""
        return self._thread.call(self._client.get(service, instance))

    def list(self, service: str | None = None) -> Snapshot:
        """All entries of a service, or of all."""
        return self._thread.call(self._client.list(service))

    def inspect(self, ttl_seconds: float = DEFAULT_TTL_SECONDS) -> Inspection:
        """What the registry says about itself, and what an entry of that ttl would really get."""
        return self._thread.call(self._client.inspect(ttl_seconds))

    def select(self, service: str) -> Entry | None:
        """One entry of the service by weight; None: nobody takes traffic."""
        return self._thread.call(self._client.select(service))

    def watch(self, service: str | None = None, since: int = 0, epoch: str | None = None) -> Iterator[Snapshot]:
        """Complete snapshots, one after each change; waits for the next one. Ends at `close`."""
        watch = _Watch(self._client.watch(service, since, epoch))
        try:
            while (snapshot := self._thread.call(watch.next())) is not None:
                yield snapshot
        except CancelledError:
            if not self._closed:
                raise
        finally:
            if not self._closed:
                self._thread.finish(watch.end())

    def close(self) -> None:
        """Close the leases that are still held, the backend and the thread. May be called twice."""
        if not self._closed:
            self._closed = True
            try:
                self._thread.call(self._client.close())
            finally:
                self._thread.stop()

    def __enter__(self) -> BlockingRegistryClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Watch:
    """A watch in the loop's thread: one wait at a time, which the end cuts off."""

    def __init__(self, snapshots: AsyncGenerator[Snapshot, None]) -> None:
        self._snapshots, self._turn = snapshots, asyncio.Lock()
        self._waiting: asyncio.Task[Any] | None = None

    async def next(self) -> Snapshot | None:
        """The next snapshot; None: there are no more."""
        async with self._turn:
            self._waiting = asyncio.current_task()
            try:
                return await anext(self._snapshots, None)
            finally:
                self._waiting = None

    async def end(self) -> None:
        """Close it. Ctrl-C may have come before its caller could cancel the wait; one that was cancelled tidies up."""
        if self._waiting is not None and not self._waiting.cancelling():
            self._waiting.cancel()
        async with self._turn:
            await self._snapshots.aclose()
