"""Operations, their targets, and the services that they hold."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Select, bindparam, func, insert, select, update

from ..errors import CommandDiffers, ServiceBusy, StoreError
from ..model import Operation, Target, TargetState, Wish
from . import tables
from .database import Database
from .rows import asked, course, operation_of, target_of, target_row
from .transaction import Transaction

OPERATIONS = "operations"  # topic: headers and targets
_BUSY = tuple(state.value for state in TargetState if state.busy)
_SAVE_TARGET = (
    update(tables.targets)
    .where(
        tables.targets.c.operation == bindparam("its_operation"),
        tables.targets.c.instance == bindparam("its_instance"),
    )
    .values(state=bindparam("state"), seq=bindparam("seq"), body=bindparam("body"))
)


def commands_topic(node: str) -> str:
    """The topic of new commands for a node."""
    return f"commands {node}"


class OperationStore:
    """The part of the store for operations."""

    _database: Database

    async def add_operation(self, operation: Operation, request: str, *, epoch: int | None = None) -> Operation:
        """Keep a new operation with its targets, and hold its services; the kept one, numbered from version 1.

        The same command id and `request` again: the operation as it is now. Raises CommandDiffers (the same id for
        another request), ServiceBusy, Superseded.
        """

        def work(transaction: Transaction) -> Operation:
            transaction.fence(epoch)
            number = transaction.numbers("operations").start  # from here on, one center at a time
            known = _first(transaction, select(tables.operations).where(_column.command_id == operation.command_id))
            if known is not None:
                return _again(transaction, known, request)
            _check_free(transaction, operation.services)
            _insert(transaction, number, operation, request)
            transaction.topics.add(OPERATIONS)
            return operation

        kept = await self._database.write(work)
        if kept is operation:
            operation.version = 1
        return kept

    async def operation(self, operation_id: str, *, targets: bool = True) -> Operation | None:
        """One operation; None: unknown."""
        return await self._one(select(tables.operations).where(_column.id == operation_id), targets)

    async def operation_of_command(self, command_id: str) -> Operation | None:
        """The operation, with targets, that a command began; None: unknown."""
        return await self._one(select(tables.operations).where(_column.command_id == command_id), True)

    async def operations(
        self, *, open_only: bool = False, service: str | None = None, limit: int = 50, before: str | None = None
    ) -> list[Operation]:
        """Newest first, without targets; `before` is the id of the last one seen (unknown: none are older)."""
        query = select(tables.operations).order_by(_column.number.desc()).limit(limit)
        if open_only:
            query = query.where(_column.done.is_(False))
        if service is not None:
            query = query.where(
                _column.id.in_(select(tables.holds.c.operation).where(tables.holds.c.service == service))
            )
        if before is not None:
            query = query.where(_column.number < select(_column.number).where(_column.id == before).scalar_subquery())
        return await self._database.read(lambda transaction: [operation_of(row) for row in transaction.all(query)])

    async def open_operations(self) -> list[Operation]:
        """All that have not ended, with targets, oldest first."""
        query = select(tables.operations).where(_column.done.is_(False)).order_by(_column.number)

        def work(transaction: Transaction) -> list[Operation]:
            return [_with_targets(transaction, operation_of(row)) for row in transaction.all(query)]

        return await self._database.read(work)

    async def counts(self, operation_ids: Iterable[str]) -> dict[str, dict[str, int]]:
        """Operation id -> target state -> how many: Operation.counts() for those that were read without targets."""
        column = tables.targets.c
        query = (
            select(column.operation, column.state, func.count().label("count"))
            .where(column.operation.in_(list(operation_ids)))
            .group_by(column.operation, column.state)
        )
        found: dict[str, dict[str, int]] = {}
        for row in await self._database.read(lambda transaction: transaction.all(query)):
            found.setdefault(row["operation"], {})[row["state"]] = row["count"]
        return found

    async def holders(self) -> dict[str, str]:
        """Service -> id of the open operation that holds it."""
        query = select(tables.holds.c.service, tables.holds.c.operation).where(tables.holds.c.open)
        rows = await self._database.read(lambda transaction: transaction.all(query))
        return {row["service"]: row["operation"] for row in rows}

    async def save(self, operation: Operation, targets: Sequence[Target] = (), *, epoch: int) -> None:
        """Keep how far an operation and these of its targets are; its services are free when it is done.

        Its `version` becomes the next one. What people wish of it is not touched. A target that is SENT and has no
        `seq` yet gets the next one, in the same transaction: whoever fetches commands sees them in their order.
        Raises Superseded.
        """

        header = _header_row(operation)
        rows = [target_row(target) for target in targets]  # as they are now: others go on changing them
        new = [number for number, target in enumerate(targets) if target.state is TargetState.SENT and not target.seq]

        def work(transaction: Transaction) -> int:
            transaction.fence(epoch)
            version = _save_header(transaction, operation.id, header)
            _number(transaction, rows, new)
            if rows:
                transaction.run(_SAVE_TARGET, [_marked(operation.id, row) for row in rows])
            if header["done"]:
                _free(transaction, operation.id)
            transaction.topics.add(OPERATIONS)
            transaction.topics.update(commands_topic(row["node"]) for row in rows if row["state"] == TargetState.SENT)
            return version

        operation.version = await self._database.write(work)
        for number in new:
            targets[number].seq = rows[number]["seq"]

    async def wish(self, operation_id: str, wish: Wish, who: str, reason: str) -> Operation | None:
        """Keep what somebody wants of an open operation: the operation with targets then, None when it is unknown.

        Nothing changes when it is done, or to be aborted already.
        """

        def work(transaction: Transaction) -> Operation | None:
            change = (
                update(tables.operations)
                .where(_column.id == operation_id, _column.done.is_(False))
                .where(_column.wish.not_in((Wish.ABORT.value, wish.value)))
                .values(wish=wish.value, wish_by=who, wish_reason=reason, version=_column.version + 1)
            )
            if transaction.run(change):
                transaction.topics.add(OPERATIONS)
            found = _first(transaction, select(tables.operations).where(_column.id == operation_id))
            return None if found is None else _with_targets(transaction, operation_of(found))

        return await self._database.write(work)

    async def versions(self, operation_ids: Iterable[str]) -> dict[str, tuple[int, str]]:
        """Operation id -> (version, state), without reading the rest."""
        query = select(_column.id, _column.version, _column.state).where(_column.id.in_(list(operation_ids)))
        rows = await self._database.read(lambda transaction: transaction.all(query))
        return {row["id"]: (row["version"], row["state"]) for row in rows}

    async def commands_for(self, node: str, after: int) -> list[tuple[Operation, Target]]:
        """The busy targets on a node with a higher seq, each with its open operation (without targets), by seq."""
        column = tables.targets.c
        query = (
            select(tables.operations, column.body.label("target"), column.seq)
            .join(tables.targets, column.operation == _column.id)
            .where(column.node == node, column.seq > after, column.state.in_(_BUSY), _column.done.is_(False))
            .order_by(column.seq)
        )

        def work(transaction: Transaction) -> list[tuple[Operation, Target]]:
            return [(operation_of(row), target_of(row["target"], row["seq"])) for row in transaction.all(query)]

        return await self._database.read(work)

    async def _one(self, query: Select[Any], targets: bool) -> Operation | None:
        def work(transaction: Transaction) -> Operation | None:
            row = _first(transaction, query)
            if row is None:
                return None
            return _with_targets(transaction, operation_of(row)) if targets else operation_of(row)

        return await self._database.read(work)


_column = tables.operations.c


def _first(transaction: Transaction, query: Select[Any]) -> Any:
    return transaction.first(query)


def _again(transaction: Transaction, row: Any, request: str) -> Operation:
    if row["request"] != request:
        raise CommandDiffers(row["command_id"])
    return _with_targets(transaction, operation_of(row))


def _with_targets(transaction: Transaction, operation: Operation) -> Operation:
    column = tables.targets.c
    query = select(column.body, column.seq).where(column.operation == operation.id).order_by(column.position)
    operation.targets = [target_of(row["body"], row["seq"]) for row in transaction.all(query)]
    return operation


def _check_free(transaction: Transaction, services: Sequence[str]) -> None:
    column = tables.holds.c
    query = select(column.service, column.operation).where(column.open, column.service.in_(services))
    taken = transaction.first(query.order_by(column.service))
    if taken is not None:
        raise ServiceBusy(taken["service"], taken["operation"])


def _insert(transaction: Transaction, number: int, operation: Operation, request: str) -> None:
    transaction.run(
        insert(tables.operations).values(
            number=number,
            id=operation.id,
            command_id=operation.command_id,
            request=request,
            state=operation.state.value,
            done=operation.state.done,
            wish=operation.wish.value,
            version=1,
            body=asked(operation),
            course=course(operation),
        )
    )
    services = sorted(set(operation.services))  # in one order, so that two centers do not wait for each other
    if services:
        rows = [{"operation": operation.id, "service": each, "open": not operation.state.done} for each in services]
        transaction.run(insert(tables.holds), rows)
    if operation.targets:
        numbered = enumerate(operation.targets)
        marks = [{"operation": operation.id, "position": number, **target_row(each)} for number, each in numbered]
        transaction.run(insert(tables.targets), marks)


def _header_row(operation: Operation) -> dict[str, Any]:
    done = operation.state.done
    return {
        "state": operation.state.value,
        "done": done,
        "course": course(operation),
        "finished_wall": time.time() if done else None,
    }


def _save_header(transaction: Transaction, operation_id: str, header: dict[str, Any]) -> int:
    change = update(tables.operations).where(_column.id == operation_id)
    version = transaction.value(change.values(version=_column.version + 1, **header).returning(_column.version))
    if version is None:
        raise StoreError(f"cannot save the operation {operation_id}: the store does not know it")
    return int(version)


def _number(transaction: Transaction, rows: list[dict[str, Any]], new: list[int]) -> None:
    if new:
        for number, seq in zip(new, transaction.numbers("seqs", len(new)), strict=True):
            rows[number]["seq"] = seq


def _marked(operation_id: str, row: dict[str, Any]) -> dict[str, Any]:
    """The parameters of _SAVE_TARGET."""
    changed = {name: row[name] for name in ("state", "seq", "body")}
    return {**changed, "its_operation": operation_id, "its_instance": row["instance"]}


def _free(transaction: Transaction, operation_id: str) -> None:
    transaction.run(update(tables.holds).where(tables.holds.c.operation == operation_id).values(open=False))
