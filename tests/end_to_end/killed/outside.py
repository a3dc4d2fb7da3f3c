"""A registry outside of the daemon that is killed, and all that it was asked, with the time."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

from registry_client.backends.embedded import EmbeddedRegistry
from registry_client.server import RegistryApi
from supervisor.host.http import HttpServer
from supervisor.host.http_message import Request, Response
from tests.end_to_end.killed.mortal import SENT_AT
from tests.end_to_end.machine import boottime

T = TypeVar("T")


class Beat(NamedTuple):
    """A registration or a renewal."""

    sent_at: float  # CLOCK_BOOTTIME
    arrived_at: float
    unit: str
    generation: int
    weight: int | None  # None: a renewal, which says nothing of it


class OutsideRegistry:
    """The embedded registry over HTTP, in a thread of its own."""

    def __init__(self) -> None:
        self.url = ""
        self.away = False  # it answers that it cannot
        self.beats: list[Beat] = []
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def start(self) -> None:
        """Begin to answer on `url`."""
        self._thread.start()
        self._started.wait()

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._finished.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._finished = asyncio.get_running_loop(), asyncio.Event()
        self._registry = EmbeddedRegistry()
        self._api = RegistryApi(self._registry)
        server = HttpServer(self._handle, max_body_bytes=1 << 20)
        await server.listen_tcp("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.addresses[0][1]}"
        self._started.set()
        await self._finished.wait()
        await server.close(0.0)

    async def _handle(self, request: Request) -> Response:
        if self.away:
            return Response(503, b"away", "text/plain")
        self._note(request)
        answer = await self._api.handle(request.method, request.path, request.query, request.body)
        return Response(answer.status, answer.body, answer.content_type, answer.headers)

    def _note(self, request: Request) -> None:
        if request.method == "POST":
            named = json.loads(request.body)["leases"]
        elif request.method == "PUT":
            named = [json.loads(request.body)["entry"]]
        else:
            return
        sent_at = float(request.headers[SENT_AT])
        for item in named:
            unit = unquote(item["instance"]).partition("/")[2]
            self.beats.append(Beat(sent_at, boottime(), unit, item["generation"], item.get("weight")))

    def entries(self, service: str) -> list[dict[str, Any]]:
        """All entries of a service, now."""
        return self._ask(lambda: [entry.to_json() for entry in self._registry.list(service).entries])

    def _ask(self, question: Callable[[], T]) -> T:
        async def ask() -> T:
            return question()

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result(10)
