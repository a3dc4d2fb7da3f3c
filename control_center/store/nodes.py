"""What nodes that fetch their commands have said."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import select

from . import tables
from .batching import Batching
from .database import Database
from .rows import pack, unpack
from .transaction import Transaction

RESULTS = "results"  # topic


def result_topic(command_id: str) -> str:
    """The topic of one command's result."""
    return f"result {command_id}"


class NodeStore:
    """The part of the store for nodes."""

    _database: Database
    _beats: Batching[str, dict[str, Any]]

    async def put_result(self, node: str, command_id: str, status: int, body: Any) -> None:
        """Keep a node's newest answer to a command; another node's answer to it does not count."""
        values = {"command_id": command_id, "node": node, "status": status, "body": pack(body), "at_wall": time.time()}

        def work(transaction: Transaction) -> None:
            insertion = transaction.insertion(tables.results).values(values)
            changed = {name: insertion.excluded[name] for name in ("status", "body", "at_wall")}
            same = tables.results.c.node == insertion.excluded.node
            transaction.run(insertion.on_conflict_do_update(index_elements=["command_id"], set_=changed, where=same))
            transaction.topics.update((RESULTS, result_topic(command_id)))

        await self._database.write(work)

    async def result(self, command_id: str) -> tuple[int, Any] | None:
        """(status, body) of a node's newest answer; None: there is none yet."""
        column = tables.results.c
        query = select(column.status, column.body).where(column.command_id == command_id)
        row = await self._database.read(lambda transaction: transaction.first(query))
        return None if row is None else (row["status"], unpack(row["body"]))

    async def put_heartbeat(self, node: str, body: Any, at_wall: float) -> None:
        """Keep a node's newest heartbeat; those that come together are saved together."""
        await self._beats.put(node, {"node": node, "at_wall": at_wall, "body": pack(body)})

    async def heartbeats(self, newer_than_wall: float) -> dict[str, tuple[float, Any]]:
        """Node -> (wall time, body) of its newest heartbeat."""
        query = select(tables.heartbeats).where(tables.heartbeats.c.at_wall > newer_than_wall)
        rows = await self._database.read(lambda transaction: transaction.all(query))
        return {row["node"]: (row["at_wall"], unpack(row["body"])) for row in rows}


def beats(database: Database) -> Batching[str, dict[str, Any]]:
    """Saves heartbeats; many nodes send them, and each commit waits for the disk."""

    async def save(rows: list[dict[str, Any]]) -> None:
        ordered = sorted(rows, key=lambda row: row["node"])  # two centers lock rows in one order
        await database.write(lambda transaction: transaction.put(tables.heartbeats, ordered))

    return Batching(save)
