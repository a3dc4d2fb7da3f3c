"""Events for whoever follows, and the audit log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, insert, select

from ..model import Event, to_json
from ..moments import iso
from . import tables
from .database import Database
from .rows import pack, unpack
from .transaction import Transaction

EVENTS = "events"  # topic
KEPT_EVENTS = 10_000
_SWEEP = 100  # the oldest go by so many


class RecordStore:
    """The part of the store for events and the audit log."""

    _database: Database

    async def add_event(self, event_type: str, body: dict[str, Any]) -> Event:
        """Keep an event; the newest KEPT_EVENTS are kept. Readers never see a later seq before an earlier one."""
        at, plain = now(), to_json(body)

        def work(transaction: Transaction) -> Event:
            seq = transaction.numbers("events").start
            transaction.run(insert(tables.events).values(seq=seq, at=at, type=event_type, body=pack(plain)))
            if seq % _SWEEP == 0:
                transaction.run(delete(tables.events).where(tables.events.c.seq <= seq - KEPT_EVENTS))
            transaction.topics.add(EVENTS)
            return Event(seq, at, event_type, plain)

        return await self._database.write(work, harmless_twice=False)

    async def events(self, since_seq: int, limit: int = 1000) -> list[Event]:
        """Those with a higher seq, oldest first."""
        column = tables.events.c
        query = select(tables.events).where(column.seq > since_seq).order_by(column.seq).limit(limit)
        rows = await self._database.read(lambda transaction: transaction.all(query))
        return [Event(row["seq"], row["at"], row["type"], unpack(row["body"])) for row in rows]

    async def last_event_seq(self) -> int:
        """The seq of the newest event; 0: there was none."""
        column = tables.counters.c
        query = select(column.value).where(column.name == "events")
        return int(await self._database.read(lambda transaction: transaction.value(query)))

    async def audit(self, who: str, action: str, body: Any) -> None:
        """Keep who did what. The database refuses to change or to forget it."""
        at, text = now(), pack(body)

        def work(transaction: Transaction) -> None:
            seq = transaction.numbers("audit").start
            transaction.run(insert(tables.audit).values(seq=seq, at=at, who=who, action=action, body=text))

        await self._database.write(work, harmless_twice=False)

    async def audit_records(self, limit: int = 50, before: int | None = None) -> list[dict[str, Any]]:
        """{"seq", "at", "who", "action", "body"}, newest first; `before` is a seq."""
        column = tables.audit.c
        query = select(tables.audit).order_by(column.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(column.seq < before)
        rows = await self._database.read(lambda transaction: transaction.all(query))
        return [{**row, "body": unpack(row["body"])} for row in rows]


def now() -> str:
    """The time as everything in the store is stamped."""
    return iso(datetime.now(UTC))
