"""Transactions on either database: begun, repeated when they certainly failed, and their errors in plain words.

Knows no table. A write that has begun ends even when its caller is cancelled: half of one is never left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from ..errors import BadRequest, StoreError
from .changes import Changes
from .lock import LeaderLock
from .transaction import Transaction

Result = TypeVar("Result")
Work = Callable[[Transaction], Result]

_PATIENCE_SECONDS = 3.0  # a server that restarts is back by then
_PAUSE_SECONDS = 0.05  # doubled with each try
_COLLISIONS = ("40001", "40P01", "55P03")  # serialization failure, deadlock, lock not available
_AWAY = ("08", "53", "57")  # connection lost, resources short, server shuts down or starts (classes of SQLSTATE)
_BAD_VALUE = "22"  # class of SQLSTATE: NUL in text, a number out of range, ...


class Backend(Protocol):
    """What differs between the databases."""

    writer: AsyncEngine
    reader: AsyncEngine
    one_writer: bool

    def told(self, transaction: Transaction) -> None:
        """The last statement of a transaction that changes something: tell other centers."""

    def words(self, error: BaseException) -> str:
        """The reason of an error for people."""

    def leader_lock(self, store_id: str) -> LeaderLock:
        """The lock of the leading center."""

    async def close(self) -> None:
        """Give everything back."""


class Database:
    """Reads and writes on one backend."""

    def __init__(self, backend: Backend, changes: Changes) -> None:
        self._backend, self.changes = backend, changes
        self._turn = asyncio.Lock() if backend.one_writer else None
        self._writes: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def close(self) -> None:
        """Wait for the writes that have begun, then close; nothing may be asked after it."""
        if self._closed:
            return
        self._closed = True
        if self._writes:
            await asyncio.wait(tuple(self._writes))
        await self._backend.close()

    async def read(self, work: Work[Result]) -> Result:
        """What `work` finds, all of it at one point in time."""
        return await self._repeat(lambda: self._read(work), "read")

    async def write(self, work: Work[Result], *, harmless_twice: bool = True) -> Result:
        """What `work` answers after its transaction is committed.

        A connection may be lost while the commit is on its way, and nobody knows whether it counts: such work is
        done again when that is harmless, else it raises StoreError.
        """
        return await self._whole(lambda: self._write(work, harmless_twice), "write")

    async def _whole(self, step: Callable[[], Awaitable[Result]], verb: str) -> Result:
        self._check_open()
        task = asyncio.get_running_loop().create_task(self._repeat(step, verb))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        return await asyncio.shield(task)

    async def _read(self, work: Work[Result]) -> Result:
        async with self._backend.reader.connect() as connection, connection.begin():
            return await connection.run_sync(lambda bridge: work(Transaction(bridge)))

    async def _write(self, work: Work[Result], harmless_twice: bool) -> Result:
        if self._turn is None:
            return await self._commit(work, harmless_twice)
        async with self._turn:
            return await self._commit(work, harmless_twice)

    async def _commit(self, work: Work[Result], harmless_twice: bool) -> Result:
        def inside(bridge: Any) -> tuple[Result, set[str]]:
            transaction = Transaction(bridge)
            result = work(transaction)
            if transaction.topics:
                self._backend.told(transaction)
            return result, transaction.topics

        async with self._backend.writer.connect() as connection:
            begun = await connection.begin()
            result, topics = await connection.run_sync(inside)
            try:
                await begun.commit()
            except Exception as error:
                if not harmless_twice and _is_away(error):
                    raise StoreError(f"the connection was lost while a change was saved: {error}") from error
                raise
        self.changes.tell(topics)
        return result

    async def _repeat(self, step: Callable[[], Awaitable[Result]], verb: str) -> Result:
        self._check_open()
        patience = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
        pause = _PAUSE_SECONDS
        while True:
            try:
                return await step()
            except (UnicodeEncodeError, OverflowError) as error:
                raise BadRequest(f"this cannot be kept in the store: {error}") from error
            except Exception as error:
                if not _is_of_the_database(error):
                    raise
                if asyncio.get_running_loop().time() > patience or not _may_go_well_again(error):
                    raise self._translated(error, verb) from error
            await asyncio.sleep(pause)
            pause *= 2

    def _translated(self, error: BaseException, verb: str) -> Exception:
        if _state(error).startswith(_BAD_VALUE):
            return BadRequest(f"this cannot be kept in the store: {self._backend.words(error)}")
        return StoreError(f"cannot {verb} the store: {self._backend.words(error)}")

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")


def _state(error: BaseException) -> str:
    """The SQLSTATE of an error, "" without one."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlstate", None) or ""


def _is_of_the_database(error: BaseException) -> bool:
    """The database is to blame; what its driver raises while it connects is not SQLAlchemy's, and has a SQLSTATE."""
    return isinstance(error, SQLAlchemyError | OSError | TimeoutError) or hasattr(error, "sqlstate")


def _is_away(error: BaseException) -> bool:
    """The database could not be reached, or went."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, OSError | TimeoutError) or _state(error).startswith(_AWAY)


def _may_go_well_again(error: BaseException) -> bool:
    """Two centers met, or a connection was lost: the same work may succeed."""
    return isinstance(error, IntegrityError) or _state(error) in _COLLISIONS or _is_away(error)
