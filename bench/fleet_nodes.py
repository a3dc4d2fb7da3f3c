"""Many nodes in one process, for benches of the control center: real HTTP and real registrations, no units.

Each node listens on an address and a port of its own, and behaves as a daemon does: it answers a command with 202 and
an operation, the same one when the command comes again; its entry goes to draining, away, and comes back with a new
generation. A restart takes `--seconds`, of which four tenths are for draining; nothing is forked. Nodes share
`--registrars` clients of the registry, which renew the leases of all their nodes together.

It obeys lines on stdin (`stats`, `reset`), each answered with a line of JSON, and ends when stdin does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))

from registry_client import Entry, LeaseKey, open_backend
from registry_client.errors import RegistryUnavailable
from supervisor.wire import NodeInfo, Operation, Step, coded, encode, to_json

DRAIN_SHARE = 0.4  # of the time that a restart takes
JITTER = 0.25  # by which restarts differ from each other
PATIENCE_SECONDS = 120.0  # for the registry, which all nodes ask at the same moment
NODES_A_NET = 250  # addresses taken of each 127.x.y.0/24
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)")
_COMMAND = re.compile(r"/v1/units/([^/]+)/(\w+)")
_REASONS = {200: "OK", 202: "Accepted", 404: "Not Found", 422: "Unprocessable Content"}

Answer = Callable[[int, Any], None]


def now() -> str:
    """ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Tally:
    """What has happened since the last `reset`; moments are of the machine's monotonic clock."""

    def __init__(self) -> None:
        self.acknowledged = self.repeated = self.restarted = self.heartbeats = self.polls = self.lost = 0
        self.last_acknowledged: float | None = None

    def acknowledge(self) -> None:
        """A command has come that was not known."""
        self.acknowledged += 1
        self.last_acknowledged = monotonic()


class Registrar:
    """Registers, changes and renews the entries of its nodes."""

    def __init__(self, url: str, ttl_seconds: float, tally: Tally) -> None:
        self._ttl_seconds, self._tally = ttl_seconds, tally
        # Renewals do not wait behind hundreds of changes, as in a daemon they never must.
        self._changes = open_backend("http", url=url, timeout_seconds=PATIENCE_SECONDS)
        self._renewals = open_backend("http", url=url, timeout_seconds=ttl_seconds / 3)
        self._held: dict[LeaseKey, Entry] = {}

    async def register(self, entry: Entry) -> None:
        """Until it is there."""
        await self._changes.register(entry, self._ttl_seconds)
        self._held[entry.key] = entry

    async def update(self, entry: Entry) -> None:
        """Change what it says."""
        await self._changes.update(entry)
        self._held[entry.key] = entry

    async def deregister(self, entry: Entry) -> None:
        """Take it away."""
        self._held.pop(entry.key, None)
        await self._changes.deregister(entry.key)

    async def keep(self) -> None:
        """Renew all of them for ever, every third of the ttl."""
        await asyncio.sleep(random.uniform(0, self._ttl_seconds / 3))
        while True:
            began = monotonic()
            try:
                for key in await self._renewals.renew(list(self._held)):
                    if (entry := self._held.get(key)) is not None:
                        self._tally.lost += 1
                        await self.register(entry)
            except RegistryUnavailable as error:
                print(error, file=sys.stderr, flush=True)
            await asyncio.sleep(max(0.0, began + self._ttl_seconds / 3 - monotonic()))


class Node:
    """One node: its own entry, its units' entries, and what it was told."""

    def __init__(self, name: str, registrar: Registrar, fleet: Fleet) -> None:
        self.name, self._registrar, self._fleet = name, registrar, fleet
        self._units: dict[str, Entry] = {}
        self._operations: dict[str, Operation] = {}  # by command id
        self._wishes: dict[str, str] = {}  # command id -> what it asked for
        self._ended: dict[str, asyncio.Event] = {}
        self._began, self._started_at = monotonic(), now()

    async def register(self, address: str, port: int, services: int) -> None:
        """Its own entry, and one instance of each service."""
        common: dict[str, Any] = {"node": self.name, "address": address, "generation": 1, "started_at": now()}
        own = Entry(
            service="unitd", instance=self.name, unit="unitd", port=port, metadata={"scheme": "http", "via": "push"},
            **common,
        )  # fmt: skip
        await self._registrar.register(own)
        for number in range(services):
            unit = f"unit-{number}"
            entry = Entry(
                service=f"service-{number}", instance=f"{self.name}/{unit}", unit=unit, port=20_000 + number, **common
            )
            await self._registrar.register(entry)
            self._units[unit] = entry

    def answer(self, method: str, target: str, body: bytes, answer: Answer) -> None:
        """Answer one request, now or when a long poll is over."""
        parts = urlsplit(target)
        if method == "GET" and parts.path == "/v1/node":
            self._fleet.tally.heartbeats += 1
            answer(200, self._info())
        elif method == "GET" and parts.path == "/v1/operations":
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            self._tell(query.get("command_id", ""), float(query.get("wait", 0)), answer)
        elif method == "POST" and (found := _COMMAND.fullmatch(parts.path)):
            self._command(unquote(found[1]), found[2], json.loads(body), answer)
        else:
            answer(404, coded("not_found", f"there is no {parts.path}"))

    def _info(self) -> dict[str, Any]:
        open_operations = sum(not operation.done for operation in self._operations.values())
        info = NodeInfo(
            node=self.name, version="0.1.0", state_id=self.name, life=1, started_at=self._started_at,
            uptime_seconds=monotonic() - self._began, units=len(self._units),
            services=[entry.service for entry in self._units.values()], open_operations=open_operations, time=now(),
        )  # fmt: skip
        return to_json(info)

    def _tell(self, command_id: str, wait_seconds: float, answer: Answer) -> None:
        self._fleet.tally.polls += 1
        operation = self._operations.get(command_id)
        if operation is None:
            answer(404, coded("not_found", f"no operation of the command {command_id}"))
        elif operation.done or wait_seconds <= 0:
            answer(200, {"operations": [to_json(operation)]})
        else:
            self._fleet.run(self._tell_later(operation, wait_seconds, answer))

    async def _tell_later(self, operation: Operation, wait_seconds: float, answer: Answer) -> None:
        try:
            async with asyncio.timeout(wait_seconds):
                await self._ended[operation.command_id].wait()
        except TimeoutError:
            pass
        answer(200, {"operations": [to_json(operation)]})

    def _command(self, unit: str, verb: str, body: dict[str, Any], answer: Answer) -> None:
        entry, command_id = self._units.get(unit), body["command_id"]
        wish = json.dumps([unit, verb, body["parameters"], body["reason"], body["issued_by"]])
        if command_id in self._operations:
            self._fleet.tally.repeated += 1
            if wish != self._wishes[command_id]:
                answer(422, coded("replayed", f"{command_id} was another command"))
                return
        elif entry is None or verb != "restart":
            answer(404, coded("unknown_unit", f"{self.name} cannot {verb} {unit}"))
            return
        else:
            self._fleet.tally.acknowledge()
            self._begin(entry, Operation(f"{self.name}-{len(self._operations)}", command_id, unit, verb, "running"))
            self._wishes[command_id] = wish
        answer(202, {"operations": [to_json(self._operations[command_id])]})

    def _begin(self, entry: Entry, operation: Operation) -> None:
        operation.created = now()
        self._operations[operation.command_id] = operation
        self._ended[operation.command_id] = asyncio.Event()
        self._fleet.run(self._restart(entry, operation))

    async def _restart(self, entry: Entry, operation: Operation) -> None:
        seconds = self._fleet.restart_seconds * random.uniform(1 - JITTER, 1 + JITTER)
        operation.steps = [Step(name, "pending") for name in ("drain", "terminate", "spawn", "register")]
        drain, terminate, spawn, register = operation.steps
        drain.state = "running"
        await self._registrar.update(replace(entry, status="draining"))
        await asyncio.sleep(DRAIN_SHARE * seconds)
        drain.state, terminate.state = "succeeded", "running"
        await self._registrar.deregister(entry)
        terminate.state, spawn.state = "succeeded", "running"
        await asyncio.sleep((1 - DRAIN_SHARE) * seconds)
        spawn.state, register.state = "succeeded", "running"
        again = replace(entry, generation=entry.generation + 1, started_at=now())
        await self._registrar.register(again)
        self._units[entry.unit] = again
        register.state = operation.state = "succeeded"
        operation.finished = now()
        self._fleet.tally.restarted += 1
        self._ended.pop(operation.command_id).set()


class Fleet:
    """All nodes of this process."""

    def __init__(self, restart_seconds: float) -> None:
        self.restart_seconds, self.tally = restart_seconds, Tally()
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self.failure: BaseException | None = None

    def run(self, work: Any) -> None:
        """Do something in the background; what fails is told with the next `stats`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.failure = task.exception()

    async def begin(self, url: str, chosen: argparse.Namespace) -> None:
        """Listen, and register everything."""
        count = min(chosen.registrars, chosen.nodes)
        registrars = [Registrar(url, chosen.ttl, self.tally) for _ in range(count)]
        for registrar in registrars:
            self.run(registrar.keep())
        nodes = [Node(f"node-{number:04}", registrars[number % count], self) for number in range(chosen.nodes)]
        async with asyncio.TaskGroup() as group:
            for first in range(count):
                group.create_task(self._add(nodes, range(first, chosen.nodes, count), chosen.services))

    async def _add(self, nodes: list[Node], numbers: range, services: int) -> None:
        loop = asyncio.get_running_loop()
        for number in numbers:
            address = f"127.1.{number // NODES_A_NET}.{number % NODES_A_NET + 1}"
            node = nodes[number]
            server = await loop.create_server(lambda node=node: _Connection(node), address, 0)  # type: ignore[misc]
            self._servers.append(server)
            await node.register(address, server.sockets[0].getsockname()[1], services)


class _Connection(asyncio.Protocol):
    """HTTP/1.1, kept alive, one request at a time; as much of it as the control center speaks."""

    def __init__(self, node: Node) -> None:
        self._node, self._buffer = node, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end]
        found = _LENGTH.search(head)
        whole = end + 4 + (int(found[1]) if found else 0)
        if len(self._buffer) < whole:
            return
        body, self._buffer = self._buffer[end + 4 : whole], self._buffer[whole:]
        method, target, _ = head[: head.find(b"\r\n")].decode().split(" ")
        self._node.answer(method, target, body, self._answer)

    def _answer(self, status: int, value: Any) -> None:
        body = encode(value)
        kind = "application/json" if status < 400 else "application/problem+json"
        head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)  # type: ignore[attr-defined]


async def obey(fleet: Fleet) -> None:
    """Answer each line of stdin."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().strip():
        if line == "reset":
            vars(fleet.tally).update(vars(Tally()))
        elif fleet.failure is not None:
            raise fleet.failure
        print(json.dumps(vars(fleet.tally)), flush=True)


async def serve(chosen: argparse.Namespace) -> None:
    """Be all the nodes until stdin ends."""
    fleet = Fleet(chosen.seconds)
    await fleet.begin(chosen.url, chosen)
    print(json.dumps(vars(fleet.tally)), flush=True)
    await obey(fleet)


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of the control center, which hosts the registry")
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--services", type=int, default=3, help="of which each node has one instance")
    parser.add_argument("--seconds", type=float, default=1.0, help="that a restart takes")
    parser.add_argument("--ttl", type=float, default=15.0)
    parser.add_argument("--registrars", type=int, default=64)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
