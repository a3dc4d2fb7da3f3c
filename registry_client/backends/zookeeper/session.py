"""One ZooKeeper session, handed from kazoo's thread to asyncio, and the calls over it. Knows nothing of entries."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from kazoo.exceptions import (  # type: ignore[import-untyped]
    AuthFailedError,
    InvalidACLError,
    NoAuthError,
    NoChildrenForEphemeralsError,
    NotEmptyError,
)
from kazoo.protocol.serialization import (  # type: ignore[import-untyped]
    CloseInstance,
    Create2,
    Delete,
    SetData,
    Transaction,
)
from kazoo.protocol.states import KazooState  # type: ignore[import-untyped]

from ...errors import RegistryError, RegistryRejected, RegistryUnavailable
from ...options import Secret, Tls
from .client import Batch, Client, Handler, Slot

DEFAULT_SESSION_SECONDS = 10.0

_WRITES = (Create2, Delete, SetData, Transaction)
_DENIED = (NoAuthError, InvalidACLError, AuthFailedError)
_WRONG = (NotEmptyError, NoChildrenForEphemeralsError)  # somebody else's nodes are where ours should be
_POLL_SECONDS = 0.005


class Session:
    """The session of one backend, made at its first call and again when the server has forgotten it."""

    def __init__(
        self,
        hosts: str,
        *,
        timeout_seconds: float,
        user: str | None,
        password: Secret | None,
        tls: Tls | None,
        session_seconds: float | None,
    ) -> None:
        self.hosts, self.timeout_seconds = hosts, timeout_seconds
        self._user, self._password, self._tls = user, password, tls
        self._fixed = session_seconds is not None
        self.on_lost: Callable[[], None] = _nothing  # called in kazoo's thread: a session has ended, and all it owned
        self.asked_seconds = session_seconds or 0.0
        self._client: Client | None = None
        self._handler: Handler | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Future[None]] = set()  # for the connection
        self.closed = False

    @property
    def negotiated_seconds(self) -> float:
        """How long the server keeps the session without hearing of us; what was asked for until it has answered."""
        client = self._client
        return (client.negotiated_seconds if client else 0.0) or self.asked_seconds

    @property
    def peer(self) -> tuple[str, int] | None:
        """The address of the server that we are connected to."""
        try:
            name = self._client._connection._socket.getpeername()  # type: ignore[union-attr]
        except (AttributeError, OSError):
            return None
        return name[0], name[1]

    @property
    def trouble(self) -> str:
        """Why there is no connection."""
        return self._client.trouble if self._client is not None else ""

    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._client is not None and self._client.connected

    def want(self, seconds: float) -> None:
        """Ask for a session that lasts so long, unless it was fixed. The session goes on, on a new connection."""
        if self._fixed or seconds <= self.asked_seconds:
            return
        self.asked_seconds = seconds
        if self._client is not None:
            self._client._session_timeout = int(seconds * 1000)
            self.drop()

    def submit(self, requests: Sequence[Any], done: Callable[[Batch], None]) -> Batch | None:
        """Send requests as soon as there is a connection, in this order and after all that were submitted before.

        None: it was never connected, or is closed. May be called in any thread.
        """
        client = self._client
        if client is None or self.closed:
            return None
        batch = Batch(client, len(requests), done)
        client._queue.extend((request, Slot(batch, index)) for index, request in enumerate(requests))
        client.wake()
        return batch

    def drop(self) -> None:
        """Cut the connection; what waits for an answer is told so. The session goes on with the next connection."""
        if self._client is not None and (raw := self._client._connection._socket) is not None:
            with suppress(OSError):  # not connected any more
                socket.socket.shutdown(raw, socket.SHUT_RDWR)  # TLS's own is not safe from another thread

    async def connected(self) -> None:
        """Return when there is a connection."""
        self._start()
        while not self.is_connected():
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                if not self.is_connected():  # it came before the waiter was known
                    await waiter
            finally:
                self._waiting.discard(waiter)
            self.check_open("wait for the connection")

    def check_open(self, verb: str) -> None:
        """Raise RegistryRejected (`closed`)."""
        if self.closed:
            raise RegistryRejected(f"cannot {verb}: this client of the registry is closed", code="closed")

    async def close(self, *, gracefully: bool) -> None:
        """End the connection and its thread. `gracefully` ends the session too, and with it what it owns."""
        self.closed = True
        client, handler = self._client, self._handler
        self._wake()
        if client is None or handler is None:
            return
        client._stopped.set()
        if gracefully and client.connected:
            client._queue.append((CloseInstance, None))
            client.wake()
            await self._ended(client, self.timeout_seconds)
        handler.interrupt()
        self.drop()
        if await self._ended(client, self.timeout_seconds):
            client.close()

    async def _ended(self, client: Client, seconds: float) -> bool:
        thread, loop = client._connection._connection_routine, asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while thread.is_alive() and loop.time() < deadline:  # noqa: ASYNC110  # a thread tells nobody that it ends
            await asyncio.sleep(_POLL_SECONDS)
        return not thread.is_alive()

    def _start(self) -> None:
        if self._client is not None and self._client._connection._connection_routine.is_alive():
            return
        self._loop = asyncio.get_running_loop()
        self.asked_seconds = self.asked_seconds or DEFAULT_SESSION_SECONDS
        self._handler = Handler(self._connect)
        self._client = Client(self.hosts, self.asked_seconds, self._credentials, self._handler)
        self._client.add_listener(self._changed)
        self._client.start_async()

    def _changed(self, state: object) -> None:
        if state == KazooState.LOST:
            self.on_lost()
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    def _credentials(self) -> set[tuple[str, str]]:
        if self._user is None or self._password is None:
            return set()
        return {("digest", f"{self._user}:{self._password.read()}")}

    def _connect(self, address: tuple[str, int], hostname: str) -> socket.socket:
        connection = socket.create_connection(address, self.timeout_seconds)
        if self._tls is None:
            return connection
        try:
            context = self._tls.context("zookeeper")
            return context.wrap_socket(connection, server_hostname=self._tls.server_name or hostname)
        except BaseException:
            connection.close()
            raise


class Call:
    """One call of the backend: the requests that it makes, and whether it may have changed anything."""

    __slots__ = ("_session", "may_have_counted", "verb")

    def __init__(self, session: Session, verb: str) -> None:
        self._session, self.verb, self.may_have_counted = session, verb, False

    async def ask(self, *requests: Any) -> Batch:
        """The answers. What only reads is asked again when the connection was cut. Raises RegistryUnavailable."""
        writes = any(isinstance(request, _WRITES) for request in requests)
        while True:
            self._session.check_open(self.verb)
            await self._session.connected()
            batch = await self._once(requests, writes)
            if not batch.is_cut:
                self.may_have_counted = self.may_have_counted or writes
                return batch
            self._session.check_open(self.verb)
            if writes and batch.begun:
                self.may_have_counted = True
                raise self.unavailable("the connection was lost before the answer")
            await asyncio.sleep(_POLL_SECONDS)

    async def _once(self, requests: Sequence[Any], writes: bool) -> Batch:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Batch] = loop.create_future()

        def done(batch: Batch) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_resolve, future, batch)

        batch = self._session.submit(requests, done)
        if batch is None:
            raise self.unavailable("there is no connection")
        try:
            return await future
        except asyncio.CancelledError:  # or too late
            batch.withdraw()
            if batch.begun and writes:
                self.may_have_counted = True
                self._session.drop()
            raise

    def failure(self, error: Exception) -> RegistryError:
        """The error for the caller, for an answer that is one of ZooKeeper's errors."""
        name = type(error).__name__.removesuffix("Error")
        if isinstance(error, _DENIED):
            return RegistryRejected(f"cannot {self.verb}: ZooKeeper denies it ({name})", code="permission_denied")
        if isinstance(error, _WRONG):
            return RegistryRejected(f"cannot {self.verb}: ZooKeeper refuses it ({name})", code="bad_request")
        return self.unavailable(f"it answered {name}")

    def unavailable(self, reason: str) -> RegistryUnavailable:
        """The error for the caller."""
        trouble = self._session.trouble
        reason += f": {trouble}" if trouble else ""
        return RegistryUnavailable(
            f"cannot {self.verb}: ZooKeeper at {self._session.hosts} does not answer ({reason})",
            may_have_counted=self.may_have_counted,
        )


def _resolve(future: asyncio.Future[Batch], batch: Batch) -> None:
    if not future.done():
        future.set_result(batch)


def _nothing() -> None:
    pass
