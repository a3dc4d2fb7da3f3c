"""Reports of gateways, decisions about them, and the facts that guards remember."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from sqlalchemy import case, delete, insert, select, update

from ..model import Decision, Report
from . import tables
from .database import Database
from .rows import decision_of, pack, report_of, unpack
from .transaction import Transaction

REPORTS, DECISIONS = "reports", "decisions"  # topics


class EvidenceStore:
    """The part of the store for the closed loop."""

    _database: Database

    async def put_report(self, report: Report, at_wall: float) -> None:
        """Keep a gateway's newest report of an instance; since when it reports this generation stays known."""
        await self.put_reports([report], at_wall)

    async def put_reports(self, reports: list[Report], at_wall: float) -> None:
        """`put_report` for many, all or none."""
        rows = {(each.gateway, each.service, each.instance): _report_row(each, at_wall) for each in reports}

        def work(transaction: Transaction) -> None:
            for key in sorted(rows):  # two centers lock rows in one order
                _put_report(transaction, rows[key])
            transaction.topics.add(REPORTS)

        if rows:
            await self._database.write(work)

    async def reports(self, newer_than_wall: float) -> list[tuple[Report, float, float]]:
        """(report, wall time of the first, of the last one) of each gateway and instance, oldest first."""
        column = tables.reports.c
        query = select(tables.reports).where(column.last_wall > newer_than_wall).order_by(column.first_wall)
        rows = await self._database.read(lambda transaction: transaction.all(query))
        return [(report_of(row["body"]), row["first_wall"], row["last_wall"]) for row in rows]

    async def clear_reports(self, service: str, instance: str, gateway: str | None = None) -> None:
        """Forget what gateways (or one of them) have said of an instance."""
        column = tables.reports.c
        statement = delete(tables.reports).where(column.service == service, column.instance == instance)
        if gateway is not None:
            statement = statement.where(column.gateway == gateway)

        def work(transaction: Transaction) -> None:
            if transaction.run(statement):
                transaction.topics.add(REPORTS)

        await self._database.write(work)

    async def add_decision(self, decision: Decision, *, epoch: int | None) -> Decision:
        """Keep a decision; the same one with its id. Raises Superseded."""

        def work(transaction: Transaction) -> Decision:
            transaction.fence(epoch)
            kept = dataclasses.replace(decision, id=transaction.numbers("decisions").start)
            transaction.run(
                insert(tables.decisions).values(
                    id=kept.id,
                    at_wall=time.time(),
                    service=kept.service,
                    instance=kept.instance,
                    body=pack(kept),
                )
            )
            transaction.topics.add(DECISIONS)
            return kept

        return await self._database.write(work, harmless_twice=False)

    async def put_ordered(self, decision_id: int, operation: str, *, epoch: int | None) -> None:
        """The operation that a decision has become. Raises Superseded."""
        column = tables.decisions.c

        def work(transaction: Transaction) -> None:
            transaction.fence(epoch)
            body = transaction.value(select(column.body).where(column.id == decision_id))
            if body is not None:
                kept = dataclasses.replace(decision_of(decision_id, body), operation=operation)
                transaction.run(update(tables.decisions).where(column.id == decision_id).values(body=pack(kept)))
                transaction.topics.add(DECISIONS)

        await self._database.write(work)

    async def decisions(
        self, limit: int = 50, before: int | None = None, service: str | None = None, instance: str | None = None
    ) -> list[Decision]:
        """Newest first; `before` is an id."""
        column = tables.decisions.c
        query = select(column.id, column.body).order_by(column.id.desc()).limit(limit)
        if before is not None:
            query = query.where(column.id < before)
        if service is not None:
            query = query.where(column.service == service)
        if instance is not None:
            query = query.where(column.instance == instance)
        rows = await self._database.read(lambda transaction: transaction.all(query))
        return [decision_of(row["id"], row["body"]) for row in rows]

    async def decision(self, decision_id: int) -> Decision | None:
        """One decision; None: unknown."""
        query = select(tables.decisions.c.body).where(tables.decisions.c.id == decision_id)
        body = await self._database.read(lambda transaction: transaction.value(query))
        return None if body is None else decision_of(decision_id, body)

    async def facts(self, prefix: str = "") -> dict[str, Any]:
        """Name -> value (JSON) of the facts whose names begin like that."""
        column = tables.facts.c
        query = select(tables.facts).where(column.name.startswith(prefix, autoescape=True)).order_by(column.name)
        rows = await self._database.read(lambda transaction: transaction.all(query))
        return {row["name"]: unpack(row["value"]) for row in rows}

    async def put_fact(self, name: str, value: Any, *, epoch: int | None) -> None:
        """Remember a fact; None forgets it. Raises Superseded."""

        def work(transaction: Transaction) -> None:
            transaction.fence(epoch)
            if value is None:
                transaction.run(delete(tables.facts).where(tables.facts.c.name == name))
            else:
                transaction.put(tables.facts, {"name": name, "value": pack(value)})

        await self._database.write(work)


def _report_row(report: Report, at_wall: float) -> dict[str, Any]:
    return {
        "gateway": report.gateway,
        "service": report.service,
        "instance": report.instance,
        "generation": report.generation,
        "first_wall": at_wall,
        "last_wall": at_wall,
        "body": pack(report),
    }


def _put_report(transaction: Transaction, row: dict[str, Any]) -> None:
    insertion = transaction.insertion(tables.reports).values(row)
    column, new = tables.reports.c, insertion.excluded
    first = case((column.generation == new.generation, column.first_wall), else_=new.first_wall)
    changed = {
        "generation": new.generation, "first_wall": first, "last_wall": new.last_wall, "body": new.body,
    }  # fmt: skip
    keys = [each.name for each in tables.reports.primary_key]
    transaction.run(insertion.on_conflict_do_update(index_elements=keys, set_=changed))
