"""The store in a file of this host: one center, one writer."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from pathlib import Path
from typing import Any

from sqlalchemy import URL, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ..errors import StoreError
from .lock import NoLock
from .transaction import Transaction

_READERS = 4


class SqliteBackend:
    """WAL, so that readers never wait for the writer; each commit is on the disk before it is answered."""

    one_writer = True

    def __init__(self, path: Path) -> None:
        """Raises StoreError: another center has the file, or it cannot be made."""
        self._lock = _locked(path)
        self.writer = _engine(path, 1, "BEGIN IMMEDIATE")
        self.reader = _engine(path, _READERS, "BEGIN")

    def told(self, transaction: Transaction) -> None:
        """There is no other center on a file."""

    def leader_lock(self, store_id: str) -> NoLock:
        """Who has the file leads."""
        return NoLock()

    def words(self, error: BaseException) -> str:
        """SQLite's own, without the statement."""
        return str(error.orig if isinstance(error, DBAPIError) else error)

    async def close(self) -> None:
        """The write-ahead log is folded into the file by the last connection."""
        await self.reader.dispose()
        await self.writer.dispose()
        os.close(self._lock)


def _engine(path: Path, size: int, begin: str) -> AsyncEngine:
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)), pool_size=size, max_overflow=0, pool_timeout=60
    )

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver would begin and commit by itself
        cursor = connection.cursor()
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 10000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin_really(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _locked(path: Path) -> int:
    """An open file beside it whose lock dies with this process; it says who holds it."""
    beside = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # it holds what people do: not for everybody's eyes
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        lock = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"cannot open the store {path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock, 200).decode(errors="replace").strip() or "another process"
        os.close(lock)
        raise StoreError(
            f"cannot open the store {path}: {holder} uses it; several control centers need a store on PostgreSQL"
        ) from error
    os.ftruncate(lock, 0)
    os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return lock
