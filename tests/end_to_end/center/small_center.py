"""What a node that fetches its commands needs of a control center, on a port of its own; it keeps all that it hears."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web

from tests.end_to_end.machine import free_ports

Json = Any
HEARTBEAT_SECONDS = 0.2


class SmallCenter:
    """Runs in a thread of its own; a context manager. What it knows outlives `stop` and a new `start`."""

    def __init__(self, node: str = "here", *, token: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.port = free_ports(1)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.commands: list[Json] = []
        self.results: dict[str, list[tuple[int, Json]]] = {}
        self.heartbeats: list[Json] = []
        self.fetches: list[int] = []  # what was asked for: commands after this one
        self.refused = 0
        self.done: set[str] = set()  # commands that it wants to hear no more of
        self.before_results: Callable[[], None] = lambda: None
        self.after_commands: Callable[[], None] = lambda: None
        self._node, self._token, self._tls = node, token, tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None
        self._changed = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def start(self) -> None:
        """Listen."""
        self._do(self._start())

    def stop(self) -> None:
        """Cut all connections, as if it had been killed."""
        self._do(self._stop())

    def give(self, command_id: str, path: str, method: str = "POST", **body: Json) -> None:
        """One more command."""
        command = {"seq": len(self.commands) + 1, "method": method, "path": path}
        self.commands.append({**command, "body": {"command_id": command_id, **body}})
        self._loop.call_soon_threadsafe(self._changed.set)

    def last(self, command_id: str) -> tuple[int, Json] | None:
        """The newest word of the node about a command."""
        return self.results[command_id][-1] if command_id in self.results else None

    def ended(self, command_id: str) -> list[Json] | None:
        """The operations of a command, once they have ended."""
        found = self.last(command_id)
        operations = found[1].get("operations") if found else None
        return operations if operations and all(item["finished"] for item in operations) else None

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> None:
        app = web.Application(client_max_size=2**23, middlewares=[self._authenticated])
        base = f"/v1/nodes/{self._node}"
        app.add_routes([web.get(f"{base}/commands", self._commands), web.post(f"{base}/results", self._take_results),
                        web.post(f"{base}/heartbeat", self._take_heartbeat)])  # fmt: skip
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01, handler_cancellation=True)
        await self._runner.setup()
        self._listening = socket.create_server(("127.0.0.1", self.port))
        await web.SockSite(self._runner, self._listening, ssl_context=self._tls).start()

    async def _stop(self) -> None:
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        # asyncio loses a connection that it has accepted and not set up when its server is closed.
        self._loop.remove_reader(self._listening)
        while any("_accept_connection2" in repr(task.get_coro()) for task in asyncio.all_tasks()):
            await asyncio.sleep(0.001)
        await runner.cleanup()
        while left := [each for each in self._loop._transports.values() if each._sock is not None]:  # type: ignore[attr-defined]
            for transport in left:  # over TLS, their ends would be told politely, later
                transport.abort()
            await asyncio.sleep(0.001)

    @web.middleware
    async def _authenticated(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self._token is not None and request.headers.get("Authorization") != f"Bearer {self._token}":
            self.refused += 1
            return web.json_response({"detail": "no token, or a wrong one", "code": "unauthenticated"}, status=401)
        response: web.StreamResponse = await handler(request)
        return response

    async def _commands(self, request: web.Request) -> web.StreamResponse:
        after = int(request.query["after"])
        self.fetches.append(after)
        loop = asyncio.get_running_loop()
        until = loop.time() + float(request.query["wait"])
        while not (found := self._open(after)) and (left := until - loop.time()) > 0:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                continue
        response = web.json_response({"commands": found, "seq": max([after, *(item["seq"] for item in found)])})
        await response.prepare(request)
        await response.write_eof()
        self.after_commands()
        return response

    def _open(self, after: int) -> list[Json]:
        return [item for item in self.commands if item["seq"] > after and item["body"]["command_id"] not in self.done]

    async def _take_results(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.before_results()
        for item in body["results"]:
            if item["body"].get("poison"):
                return web.json_response({"detail": "that is nonsense", "code": "bad_request"}, status=400)
        for item in body["results"]:
            self.results.setdefault(item["command_id"], []).append((item["status"], item["body"]))
        return web.json_response({"known": [item["body"]["command_id"] for item in self._open(0)]})

    async def _take_heartbeat(self, request: web.Request) -> web.Response:
        self.heartbeats.append(await request.json())
        return web.json_response({"heartbeat_seconds": HEARTBEAT_SECONDS})
