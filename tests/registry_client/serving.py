"""A registry over HTTP in a thread of its own, for tests whose clients are other processes."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import h11

from registry_client import Entry
from registry_client.backends.embedded import EmbeddedRegistry
from registry_client.server import RegistryApi


@contextmanager
def heeding_ctrl_c() -> Iterator[None]:
    """For this process and what it starts: a shell lets what runs in the background ignore it, the tests included."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def make_entry(instance: str = "n/1", service: str = "s", **changes: Any) -> Entry:
    """An entry of which a test says only what matters to it."""
    values: dict[str, Any] = {"node": "n", "unit": "u", "address": "127.0.0.1", "port": 1, "generation": 1}
    values |= {"started_at": "2026-11-23T06:29:10.123Z"} | changes
    return Entry(service=service, instance=instance, **values)


class ServedRegistry:
    """A context manager. `listen` and `deafen` begin and end an outage at the same address."""

    def __init__(self) -> None:
        self.port = 0
        self.requests = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._registry: EmbeddedRegistry
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> ServedRegistry:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def register(self, entry: Entry, ttl_seconds: float = 60.0) -> None:
        self._run(self._call("register", entry, ttl_seconds))

    def deregister(self, entry: Entry) -> None:
        self._run(self._call("deregister", entry.key))

    def get(self, entry: Entry) -> Entry | None:
        found: Entry | None = self._run(self._call("get", entry.service, entry.instance))
        return found

    def forget(self) -> None:
        self._run(self._call("forget"))

    def listen(self) -> None:
        self._run(self._listen())

    def deafen(self) -> None:
        self._run(self._deafen())

    def _run(self, coroutine: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(10)

    async def _start(self) -> None:
        self._registry = EmbeddedRegistry()
        await self._listen()

    async def _stop(self) -> None:
        await self._deafen()
        self._registry.close()

    async def _call(self, method: str, *arguments: Any) -> Any:
        return getattr(self._registry, method)(*arguments)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _deafen(self) -> None:
        if self._server is not None:
            self._server.close()
            for task in self._serving:
                task.cancel()
            if self._serving:
                await asyncio.wait(self._serving)
            await self._server.wait_closed()
            self._server = None

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A request a connection: clients have to live with that, too."""
        try:
            await self._answer(h11.Connection(h11.SERVER), reader, writer)
        except OSError:
            pass
        finally:
            writer.close()

    async def _answer(self, state: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request, body = None, b""
        while not isinstance(event := state.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                state.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            else:
                return
        assert request is not None
        self.requests += 1
        target = urlsplit(request.target.decode())
        api, method, query = RegistryApi(self._registry), request.method.decode(), dict(parse_qsl(target.query))
        response = await api.handle(method, target.path, query, body)
        length = str(len(response.body))
        headers = [("Content-Length", length), ("Connection", "close"), *response.headers]
        parts = (h11.Response(status_code=response.status, headers=headers), h11.Data(data=response.body))
        writer.write(b"".join(state.send(part) or b"" for part in (*parts, h11.EndOfMessage())))
        await writer.drain()
