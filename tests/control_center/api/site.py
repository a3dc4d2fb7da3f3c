"""A control center's API over a real store, registry, executor and guard; only nodes are made up."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from control_center.api.app import make_app
from control_center.api.parts import ApiParts, Leader, RegistryState
from control_center.api.serving import Serving, serve
from control_center.channels import Channels
from control_center.closed_loop import ClosedLoop
from control_center.config import CenterConfig, NodesSpec
from control_center.delivery import Delivery
from control_center.errors import NodeUnreachable
from control_center.executor import Executor
from control_center.following import Following
from control_center.metrics import Metrics
from control_center.model import NodeStatus
from control_center.store import Store
from registry_client.backends.embedded import EmbeddedBackend, EmbeddedRegistry
from registry_client.model import Entry
from registry_client.server import RegistryApi
from supervisor.core.access import Principal, Role, token_hash
from supervisor.core.model import HttpSpec, ServerTlsSpec

STARTED = "2026-11-24T08:00:00.000Z"
ROLES = {
    Role.READ: "reader", Role.REPORT: "gateway-1", Role.NODE: "web-1", Role.OPERATE: "operator", Role.ADMIN: "chief"
}  # fmt: skip
TOKENS = {role: f"token-of-{name}" for role, name in ROLES.items()}


def principals() -> tuple[Principal, ...]:
    """One of each role; the node may speak for web-1 only, the operator may command cart and pay."""
    made = []
    for role, name in ROLES.items():
        services = ("cart", "pay*") if role is Role.OPERATE else ("*",)
        nodes = ("web-1",) if role is Role.NODE else ("*",)
        made.append(Principal(name, role, services, nodes, (token_hash(TOKENS[role]),), (f"{name}.example",)))
    return tuple(made)


def entry(service: str, node: str, unit: str | None = None, **more: Any) -> Entry:
    """A registered instance."""
    unit = unit or f"{service}:0"
    values: dict[str, Any] = {"address": "10.0.0.1", "port": 9080, "generation": 1, "started_at": STARTED, **more}
    return Entry(service=service, instance=f"{node}/{unit}", node=node, unit=unit, **values)


class MadeUpNodes:
    """Channels to nodes that are scripted: what they answer, and what they write."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Any] = {}
        self.pulling: set[str] = set()
        self.written: dict[str, asyncio.Queue[bytes | Exception | None]] = {}
        self.asked: list[str] = []
        self.listening = 0

    def via(self, node: str) -> str:
        return "pull" if node in self.pulling else "push"

    async def get(self, node: str, path: str) -> Any:
        found = self.answers.get((node, path))
        if isinstance(found, Exception):
            raise found
        if found is None:
            raise NodeUnreachable(node, "connection refused")
        return found

    async def stream(self, node: str, path: str) -> AsyncIterator[bytes]:
        self.asked.append(path)
        queue = self.written.get(node)
        if queue is None:
            raise NodeUnreachable(node, "connection refused")
        self.listening += 1
        try:
            while (chunk := await queue.get()) is not None:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
        finally:
            self.listening -= 1


class MadeUpHeartbeats:
    """Nodes' states as a test wants them."""

    def __init__(self) -> None:
        self.nodes: list[NodeStatus] = []

    interval_seconds = 3.0

    def statuses(self) -> list[NodeStatus]:
        return self.nodes


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of a problem."""
        assert self.headers["Content-Type"] == "application/problem+json", self.body
        return str(self.json["code"])


@dataclass
class Site:
    """A running center, and a client of it."""

    store: Store
    registry: EmbeddedRegistry
    following: Following
    parts: ApiParts
    nodes: MadeUpNodes
    heartbeats: MadeUpHeartbeats
    executor: Executor
    closed_loop: ClosedLoop
    serving: Serving
    session: aiohttp.ClientSession
    leader: list[Leader] = field(default_factory=lambda: [Leader(True, "center-1", 1)])

    @property
    def url(self) -> str:
        return self.serving.url

    async def ask(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, **headers: str
    ) -> Answer:
        """One request; `body` is JSON, or bytes or a file as they are."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        data = io.BytesIO(json.dumps(body).encode()) if isinstance(body, dict | list) else body
        async with self.session.request(method, self.url + path, data=data, headers=sent) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, *, token: str | None = None, **headers: str) -> Answer:
        return await self.ask("GET", path, token=token, **headers)

    async def post(self, path: str, body: Any = None, *, token: str | None = None, **headers: str) -> Answer:
        return await self.ask("POST", path, body, token=token, **headers)

    async def register(self, *entries: Entry) -> None:
        """Put entries into the registry, and wait until the center has seen them."""
        for each in entries:
            self.registry.register(each, 3600)
        await until(lambda: self.following.revision == self.registry.revision)


async def until(condition: Any, seconds: float = 10.0) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def center(
    folder: Path,
    access: Sequence[Principal] = (),
    tls: ServerTlsSpec | None = None,
    *,
    port: int = 0,
    hosts_registry: bool = True,
) -> AsyncIterator[Site]:
    """A center in a folder; it does not lead, so that what is begun stays as it was begun."""
    http = HttpSpec(("127.0.0.1", port), tls, tuple(access))
    config = CenterConfig("center-1", state_dir=str(folder), http=http, nodes=NodesSpec(heartbeat_seconds=3.0))
    store = await Store.open(f"sqlite:///{folder}/center.sqlite")
    registry = EmbeddedRegistry()
    backend = EmbeddedBackend(registry)
    following = Following(backend, 0.0, lambda: None)
    channels = Channels(config.nodes, store, following.node_entry)
    delivery = Delivery(channels, following, store.id)
    nodes, heartbeats = MadeUpNodes(), MadeUpHeartbeats()
    executor = Executor(store, following, nodes, delivery, config.rollout, name="center-1", doubts=frozenset)
    closed_loop = ClosedLoop(store, channels, following.certain, config.guard, executor.order)
    leader = [Leader(True, "center-1", 1)]
    parts = ApiParts(
        config=config,
        store=store,
        fleet=lambda: following.fleet,
        registry=lambda: RegistryState("embedded", "ok", following.age_seconds, following.revision),
        leader=lambda: leader[0],
        heartbeats=heartbeats,
        channels=nodes,
        executor=executor,
        closed_loop=closed_loop,
        command_of=delivery.command_of,
        metrics=Metrics(),
        started_at=STARTED,
        registry_api=RegistryApi(registry) if hosts_registry else None,
    )
    watching = asyncio.create_task(following.run())
    serving = await serve(make_app(parts), http)
    async with aiohttp.ClientSession() as session:
        site = Site(
            store, registry, following, parts, nodes, heartbeats, executor, closed_loop, serving, session, leader
        )
        try:
            await until(lambda: following.fleet is not None)
            yield site
        finally:
            await serving.close()
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            await executor.close()
            await channels.close()
            await backend.close()
            await store.close()
