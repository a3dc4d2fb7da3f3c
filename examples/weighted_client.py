"""A client of an HTTP service that follows the service registry: weighted, without asking the registry per request.

    python examples/weighted_client.py http://127.0.0.1:9301 addToCart /healthz

It watches the service, sends each request to an instance chosen by weight, and goes on to another instance when one
does not answer. A line is printed for each request: the instance, the status, and how many instances were tried before.
Ctrl-C ends it. What it can do without: the registry (the last snapshot stays in use while that is away), and any single
instance (one that was killed stays registered until its ttl is over; whoever met it avoids it for a while).

Only `registry_client` and the standard library are used.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from dataclasses import dataclass

from registry_client import Backend, Entry, LeaseKey, RegistryRejected, Snapshot, open_backend, select

AVOID_SECONDS = 5.0  # about a ttl: by then the registry has dropped who is dead
ANSWER_SECONDS = 2.0


@dataclass(frozen=True)
class Answer:
    """What an instance answered, and how many others were tried before it."""

    instance: str
    status: int
    body: bytes
    tried_before: int


class NobodyAnswers(Exception):
    """Every instance was tried, or there is none that takes traffic."""


class WeightedClient:
    """Requests to whoever serves `service` now. An async context manager; entering it waits for the first snapshot."""

    def __init__(self, backend: Backend, service: str) -> None:
        self._backend, self._service = backend, service
        self._snapshot: Snapshot | None = None
        self._known = asyncio.Event()
        self._avoided_until: dict[LeaseKey, float] = {}
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> WeightedClient:
        self._following = asyncio.create_task(self._follow())
        known = asyncio.create_task(self._known.wait())
        await asyncio.wait((self._following, known), return_when=asyncio.FIRST_COMPLETED)
        known.cancel()
        if self._following.done():
            await self._backend.close()
            self._following.result()  # raises what the watch could not live with
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        await self._backend.close()

    async def _follow(self) -> None:
        """Keep the last snapshot. The watch itself goes on through outages, restarts and losses of the registry."""
        async with contextlib.aclosing(self._backend.watch(self._service)) as snapshots:
            async for snapshot in snapshots:
                self._snapshot = snapshot
                self._known.set()

    async def get(self, path: str) -> Answer:
        """GET, from as many instances as it takes. Raises NobodyAnswers.

        Each is asked once. A GET may be repeated although the first instance has worked on it; for requests that
        must not happen twice, repeat only when connecting failed.
        """
        tried: set[LeaseKey] = set()
        while (entry := self._choose(tried)) is not None:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    status, body = await http_get(entry.address, entry.port, path)
            except (OSError, ValueError):  # TimeoutError is an OSError
                self._avoided_until[entry.key] = time.monotonic() + AVOID_SECONDS
                tried.add(entry.key)
            else:
                return Answer(entry.instance, status, body, len(tried))
        raise NobodyAnswers(f"no instance of {self._service} answers; tried {len(tried)}")

    def _choose(self, tried: set[LeaseKey]) -> Entry | None:
        """By weight from those not tried yet; from those that failed of late only if there are no others."""
        now = time.monotonic()
        self._avoided_until = {key: until for key, until in self._avoided_until.items() if until > now}
        left = [entry for entry in (self._snapshot.entries if self._snapshot else ()) if entry.key not in tried]
        trusted = [entry for entry in left if entry.key not in self._avoided_until]
        return select(trusted, random.random()) or select(left, random.random())


async def http_get(host: str, port: int, path: str) -> tuple[int, bytes]:
    """Status and body. Raises OSError, and ValueError for an answer that is no HTTP."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
        answer = await reader.read(-1)  # HTTP/1.0: until the server closes
    finally:
        writer.close()
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator or not head.startswith(b"HTTP/1."):
        raise ValueError(f"{host}:{port} answers with something that is no HTTP")
    return int(head.split()[1]), body


async def main(url: str, service: str, path: str) -> None:
    """A request after the other, until Ctrl-C."""
    async with WeightedClient(open_backend("http", url=url), service) as client:
        while True:
            try:
                answer = await client.get(path)
                print(answer.instance, answer.status, answer.tried_before, flush=True)
            except NobodyAnswers as error:
                print(error, file=sys.stderr, flush=True)
            await asyncio.sleep(0.01)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"usage: {sys.argv[0]} REGISTRY-URL SERVICE PATH")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
    except RegistryRejected as error:  # the registry answers, but not to this
        sys.exit(str(error))
