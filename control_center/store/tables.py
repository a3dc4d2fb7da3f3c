"""The tables of the store, the same on SQLite and PostgreSQL, and how an older store becomes like them.

What is searched for has a column of its own, the rest is JSON text. Everything that people page through is numbered
from the table `counters`: a counter's row stays locked until its transaction ends, so that numbers become visible in
their order. A sequence of the database would let a reader see 6 before 5, and never look for 5 again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    inspect,
    select,
    true,
    update,
)

from ..errors import StoreError

metadata = MetaData()
_Number = BigInteger().with_variant(Integer(), "sqlite")  # there, an INTEGER key is the row's own number

facts_of_store = Table("store", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))
counters = Table("counters", metadata, Column("name", Text, primary_key=True), Column("value", _Number, nullable=False))
leading = Table(
    "leading",  # one row
    metadata,
    Column("only", Integer, primary_key=True, autoincrement=False),
    Column("name", Text),
    Column("epoch", _Number, nullable=False),
)
operations = Table(
    "operations",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False, unique=True),
    Column("command_id", Text, nullable=False, unique=True),
    Column("request", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("done", Boolean, nullable=False),
    Column("wish", Text, nullable=False),
    Column("wish_by", Text),
    Column("wish_reason", Text),
    Column("version", _Number, nullable=False),
    Column("finished_wall", Double),
    Column("body", Text, nullable=False),  # what was asked for
    Column("course", Text, nullable=False),  # how far it is
    Index("operations_open", "done", "number"),
)
holds = Table(
    "holds",
    metadata,
    Column("operation", Text, primary_key=True),
    Column("service", Text, primary_key=True),
    Column("open", Boolean, nullable=False),
)
Index("holds_open", holds.c.service, unique=True, sqlite_where=holds.c.open == true(), postgresql_where=holds.c.open)
Index("holds_service", holds.c.service)
targets = Table(
    "targets",
    metadata,
    Column("operation", Text, primary_key=True),
    Column("instance", Text, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("node", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("seq", _Number, nullable=False),
    Column("body", Text, nullable=False),
    Index("targets_node", "node", "seq"),
)
results = Table(
    "results",
    metadata,
    Column("command_id", Text, primary_key=True),
    Column("node", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("at_wall", Double, nullable=False),
)
heartbeats = Table(
    "heartbeats",
    metadata,
    Column("node", Text, primary_key=True),
    Column("at_wall", Double, nullable=False),
    Column("body", Text, nullable=False),
)
reports = Table(
    "reports",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("service", Text, primary_key=True),
    Column("instance", Text, primary_key=True),
    Column("generation", _Number, nullable=False),
    Column("first_wall", Double, nullable=False),
    Column("last_wall", Double, nullable=False),
    Column("body", Text, nullable=False),
)
decisions = Table(
    "decisions",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=False),
    Column("at_wall", Double, nullable=False),
    Column("service", Text, nullable=False),
    Column("instance", Text, nullable=False),
    Column("body", Text, nullable=False),
    Index("decisions_instance", "instance", "id"),
    Index("decisions_service", "service", "id"),
)
facts = Table("facts", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))
events = Table(
    "events",
    metadata,
    Column("seq", _Number, primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("body", Text, nullable=False),
)
audit = Table(
    "audit",
    metadata,
    Column("seq", _Number, primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("body", Text, nullable=False),
)

COUNTERS = ("operations", "seqs", "decisions", "events", "audit")
_REFUSAL = "the audit log can only be appended to"
_TRIGGERS = {
    "sqlite": tuple(
        f"CREATE TRIGGER audit_no_{verb} BEFORE {verb} ON audit BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
        for verb in ("update", "delete")
    ),
    "postgresql": (
        "CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$",
        "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit "
        "FOR EACH ROW EXECUTE FUNCTION audit_append_only()",
        "CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only()",
    ),
}

Step = Callable[[Connection], None]
STEPS: Sequence[Step] = ()  # from version 1 to 2, from 2 to 3, ...
_VERSION = "schema_version"


def prepare(connection: Connection, steps: Sequence[Step] = STEPS) -> str:
    """Make the tables, or bring older ones up to date; the store's id. Raises StoreError for a newer store."""
    newest = len(steps) + 1
    if not inspect(connection).has_table(facts_of_store.name):
        _create(connection, newest)
    version = int(_fact(connection, _VERSION))
    if version > newest:
        raise StoreError(
            f"cannot open the store: a newer unit-center has written it (its schema is {version}, "
            f"this program knows up to {newest}); use that version, or a store of your own"
        )
    for step in steps[version - 1 :]:
        step(connection)
    if version < newest:
        connection.execute(update(facts_of_store).where(facts_of_store.c.name == _VERSION).values(value=str(newest)))
    return _fact(connection, "id")


def _create(connection: Connection, version: int) -> None:
    metadata.create_all(connection)
    for statement in _TRIGGERS[connection.dialect.name]:
        connection.exec_driver_sql(statement)
    rows = [{"name": _VERSION, "value": str(version)}, {"name": "id", "value": secrets.token_hex(8)}]
    connection.execute(facts_of_store.insert(), rows)
    connection.execute(counters.insert(), [{"name": name, "value": 0} for name in COUNTERS])
    connection.execute(leading.insert().values(only=1, name=None, epoch=0))


def _fact(connection: Connection, name: str) -> str:
    value = connection.execute(select(facts_of_store.c.value).where(facts_of_store.c.name == name)).scalar()
    if value is None:
        raise StoreError(f"cannot open the store: its table `store` lacks {name}; it is no store of unit-center")
    return str(value)
