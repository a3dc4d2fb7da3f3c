"""One transaction: what its statements share. Runs inside SQLAlchemy's bridge, so it is not async."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Executable, RowMapping, Table, select, update
from sqlalchemy.dialects import postgresql, sqlite

from ..errors import Superseded
from . import tables

_SET_UP = 7_310_583_104_219_264  # of no meaning: a number that nobody else locks


class Transaction:
    """A connection inside a transaction, and the topics that it changes."""

    __slots__ = ("_connection", "topics")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.topics: set[str] = set()

    @property
    def on_postgresql(self) -> bool:
        """Several centers may write at the same time."""
        return self._connection.dialect.name == "postgresql"

    def begin_set_up(self) -> Connection:
        """The connection, for making tables; of several centers that start, one does it."""
        if self.on_postgresql:
            self._connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SET_UP})")
        return self._connection

    def run(self, statement: Executable, rows: Sequence[Mapping[str, Any]] | None = None) -> int:
        """Execute it, once or for each of the rows; how many rows it touched, where the database tells."""
        return self._connection.execute(statement, rows).rowcount

    def all(self, statement: Executable) -> Sequence[RowMapping]:
        """The rows of a query."""
        return self._connection.execute(statement).mappings().all()

    def first(self, statement: Executable) -> RowMapping | None:
        """The first row of a query."""
        return self._connection.execute(statement).mappings().first()

    def value(self, statement: Executable) -> Any:
        """The first column of the first row; None without one."""
        return self._connection.execute(statement).scalar()

    def numbers(self, counter: str, count: int = 1) -> range:
        """The next numbers of a counter, visible to others in their order."""
        row = tables.counters.c
        statement = update(tables.counters).where(row.name == counter).values(value=row.value + count)
        last = int(self.value(statement.returning(row.value)))
        return range(last - count + 1, last + 1)

    def fence(self, epoch: int | None) -> None:
        """Raise Superseded when a higher epoch leads; the next leader waits until this transaction has ended."""
        if epoch is None:
            return
        theirs = int(self.value(select(tables.leading.c.epoch).with_for_update(read=True)))
        if theirs > epoch:
            raise Superseded(epoch, theirs)

    def insertion(self, table: Table) -> Any:
        """An INSERT that knows `on_conflict_do_update`, which both databases have and SQL has not."""
        return postgresql.insert(table) if self.on_postgresql else sqlite.insert(table)

    def put(self, table: Table, values: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Insert rows, or replace those with the same key."""
        statement = self.insertion(table)
        keys = [column.name for column in table.primary_key]
        changed = {column.name: statement.excluded[column.name] for column in table.columns if column.name not in keys}
        self._connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), values)
