"""What the control center keeps: operations, reports, decisions, events, audit; in SQLite or PostgreSQL.

Every method may raise StoreError with one plain sentence. Nothing is cached: several centers share one store.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import delete, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from ..errors import StoreError
from ..model import Mode
from . import tables
from .changes import Changes
from .database import Backend, Database
from .evidence import EvidenceStore
from .lock import LeaderLock
from .nodes import NodeStore, beats
from .operations import OperationStore
from .records import RecordStore
from .sqlite import SqliteBackend
from .tables import prepare
from .transaction import Transaction

LEADER, MODE = "leader", "mode"  # topics
_MODE = "mode"


class Store(OperationStore, NodeStore, EvidenceStore, RecordStore):
    """All that is kept. Made by `open` only."""

    def __init__(self, backend: Backend, database: Database, store_id: str) -> None:
        self._backend, self._database, self._id = backend, database, store_id
        self._beats = beats(database)

    @classmethod
    async def open(cls, url: str, password: str | None = None) -> Store:
        """Open it, and make it if it is not there.

        `url` is `sqlite:////absolute/path` or `postgresql://user@host:5432/database`. Raises StoreError.
        """
        changes = Changes()
        backend = await _backend(url, password, changes)
        database = Database(backend, changes)
        try:
            store_id = await database.write(lambda transaction: prepare(transaction.begin_set_up()))
        except BaseException:
            await database.close()
            raise
        return cls(backend, database, store_id)

    @property
    def id(self) -> str:
        """The store's own id, made once."""
        return self._id

    async def close(self) -> None:
        """Wait for the writes that have begun, then give everything back."""
        await self._database.close()

    # Waiting for changes.

    def seen(self, topic: str = "") -> int:
        """How often something (of a topic) has changed until now; only good for `wait_changed`."""
        return self._database.changes.count(topic)

    async def wait_changed(self, seen: int, seconds: float, topic: str = "") -> int:
        """Wait until something (of a topic) has changed since the count `seen`, or the time is over: the count now.

        Changes of this center are seen at once, those of others when the database tells, or (if it was away) later:
        wait in a loop. Heartbeats, facts and the audit log are not told of.
        """
        return await self._database.changes.wait(seen, seconds, topic)

    # Leading.

    def leader_lock(self) -> LeaderLock:
        """A lock that one center at a time has; for leadership.py."""
        return self._backend.leader_lock(self._id)

    async def lead(self, name: str) -> int:
        """Record a new leader, who must hold the lock; its epoch. Writes with a lower one are refused from now on."""
        row = tables.leading.c

        def work(transaction: Transaction) -> int:
            statement = update(tables.leading).values(name=name, epoch=row.epoch + 1).returning(row.epoch)
            transaction.topics.add(LEADER)
            return int(transaction.value(statement))

        return await self._database.write(work)

    async def leader(self) -> tuple[str | None, int]:
        """(name, epoch) of the one that leads, or led last; (None, 0): nobody ever did."""
        row = await self._database.read(lambda transaction: transaction.first(select(tables.leading)))
        assert row is not None  # made with the tables
        return row["name"], row["epoch"]

    async def mode(self) -> Mode:
        """What the center may do by itself."""
        column = tables.facts_of_store.c
        query = select(column.value).where(column.name == _MODE)
        value = await self._database.read(lambda transaction: transaction.value(query))
        return Mode.ASSIST if value is None else Mode(value)

    async def set_mode(self, mode: Mode, *, unless_set: bool = False) -> Mode:
        """Change the mode, or (`unless_set`) only set it for the first time; the mode then."""
        column = tables.facts_of_store.c

        def work(transaction: Transaction) -> Mode:
            present = transaction.value(select(column.value).where(column.name == _MODE))
            if present is not None and unless_set:
                return Mode(present)
            transaction.put(tables.facts_of_store, {"name": _MODE, "value": mode.value})
            transaction.topics.add(MODE)
            return mode

        return await self._database.write(work)

    async def prune(self, finished_before_wall: float) -> None:
        """Forget operations that ended before, and decisions, results, reports and heartbeats from before."""
        old = select(tables.operations.c.id).where(
            tables.operations.c.done, tables.operations.c.finished_wall < finished_before_wall
        )

        def work(transaction: Transaction) -> None:
            for table in (tables.targets, tables.holds):
                transaction.run(delete(table).where(table.c.operation.in_(old)))
            transaction.run(delete(tables.operations).where(tables.operations.c.id.in_(old)))
            for table, column in _AGES.items():
                transaction.run(delete(table).where(table.c[column] < finished_before_wall))

        await self._database.write(work)


_AGES = {
    tables.decisions: "at_wall",
    tables.results: "at_wall",
    tables.reports: "last_wall",
    tables.heartbeats: "at_wall",
}


async def _backend(text: str, password: str | None, changes: Changes) -> Backend:
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise StoreError(f"cannot open the store: {text!r} is no url such as {_EXAMPLES}") from error
    if url.drivername == "sqlite":
        if not url.database or not Path(url.database).is_absolute():
            raise StoreError(f"cannot open the store: {text!r} names no absolute path; write sqlite:////path/to/file")
        return SqliteBackend(Path(url.database))
    if url.drivername in ("postgresql", "postgres"):
        try:
            from .postgresql import open_postgresql  # its driver is an extra
        except ImportError as error:
            raise StoreError("cannot open the store: install unitd with the extra postgresql for it") from error
        return await open_postgresql(url, password, changes)
    raise StoreError(f"cannot open the store: {url.drivername} is not known here; write {_EXAMPLES}")


_EXAMPLES = "sqlite:////var/lib/unit-center/center.sqlite or postgresql://user@host:5432/database"
