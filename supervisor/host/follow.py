"""Somebody reading a log as it grows (`unitctl logs -f`).

Owns what was written and not yet fetched. Lines come from the writing thread and are fetched in the event loop; a
reader that is too slow loses whole chunks and is told how many lines that was. Waiting costs nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from . import lines

LIMIT_BYTES = 1024 * 1024


class Follower:
    """Async iterator over chunks of whole lines, and an async context manager that ends it."""

    __slots__ = ("_bytes", "_chunks", "_detach", "_ended", "_lock", "_loop", "_lost", "_ready", "_told")

    def __init__(self, detach: Callable[[Follower], None]) -> None:
        self._loop, self._ready = asyncio.get_running_loop(), asyncio.Event()
        self._lock, self._detach = threading.Lock(), detach
        self._chunks: list[bytes] = []
        self._bytes = 0
        self._lost = [0, 0]  # lines, bytes
        self._told = self._ended = False

    def feed(self, data: bytes) -> None:
        """Another chunk; from any thread. Never blocks."""
        with self._lock:
            if self._ended:
                return
            room = 0 if self._lost[0] else LIMIT_BYTES - self._bytes
            kept = data if len(data) <= room else data[: data.rfind(b"\n", 0, max(room, 0)) + 1]
            if kept:
                self._chunks.append(kept)
                self._bytes += len(kept)
            if len(kept) < len(data):
                lost = data[len(kept) :]
                self._lost = [self._lost[0] + lines.count(lost), self._lost[1] + len(lost)]
            self._tell()

    def end(self) -> None:
        """Nothing more will come; from any thread."""
        with self._lock:
            self._ended = True
            self._tell()

    def close(self) -> None:
        """Stop following; what was not fetched is forgotten."""
        with self._lock:
            self._ended, self._chunks, self._lost = True, [], [0, 0]
            self._tell()
        self._detach(self)

    @property
    def ended(self) -> bool:
        """It takes nothing any more."""
        return self._ended

    def _tell(self) -> None:
        if self._told:
            return
        try:
            self._loop.call_soon_threadsafe(self._ready.set)
            self._told = True
        except RuntimeError:  # the loop is closed: nobody will fetch anything
            self._ended, self._chunks = True, []

    def _fetch(self) -> tuple[bytes, bool]:
        with self._lock:
            data, (lost, size) = b"".join(self._chunks), self._lost
            self._chunks, self._bytes, self._lost, self._told = [], 0, [0, 0], False
            ended = self._ended
            self._ready.clear()
        if lost:
            data += lines.notice(lost, size, "this reader is too slow")
        return data, ended

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> bytes:
        while True:
            data, ended = self._fetch()
            if data:
                return data
            if ended:
                raise StopAsyncIteration
            await self._ready.wait()

    async def __aenter__(self) -> Follower:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
