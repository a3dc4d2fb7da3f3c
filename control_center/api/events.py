"""Answers without an end: what happens, and what a unit writes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

from aiohttp import web

from supervisor.wire import encode

from ..errors import CenterError, NodeUnreachable
from ..model import Event
from ..store import EVENTS
from .call import Call
from .decoding import MAX_INTEGER, bad
from .fleet import logs_path
from .problems import RETRY_AFTER, Refusal

log = logging.getLogger("unit-center.api")

PING_SECONDS = 15.0
SLOW_SECONDS = 20.0  # who has not read what was sent to it by then is cut off
CALM_SECONDS = 0.05  # changes of so long go out together
PAGE = 200  # events that are read, and may wait for a reader, at a time
MAX_FOLLOWERS = 256
MAX_LOG_LINES = 10_000
FIRST_SECONDS = 1.0  # a log that has nothing new yet answers by then

FOLLOWERS: web.AppKey[set[asyncio.Task[Any]]] = web.AppKey("followers")


async def events(call: Call) -> web.StreamResponse:
    """GET /v1/events?since=&newest=&follow="""
    query = call.query()
    last = call.request.headers.get("Last-Event-ID")
    since, follow = query.integer("since", 0, 0, MAX_INTEGER), query.flag("follow", True)
    newest = query.maybe_integer("newest")
    query.finish()
    if newest is not None:
        since = max(since, await call.parts.store.last_event_seq() - newest)
    if last is not None:
        if not (last.isascii() and last.isdigit() and len(last) <= 15):
            raise bad("Last-Event-ID", f"must be the id of an event, not {last[:40]!r}")
        since = int(last)
    first = await call.parts.store.events(since, PAGE)  # a store that is away is a problem, not an empty stream
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return await _stream(call, _events(call, first, since, follow), headers)


async def _events(call: Call, page: list[Event], since: int, follow: bool) -> AsyncIterator[bytes]:
    store = call.parts.store
    yield b": events of this fleet\n\n"
    while True:
        seen = store.seen(EVENTS)
        for event in page:
            yield _encoded(event)
            since = event.seq
        if len(page) < PAGE:
            if not follow:
                return
            if await store.wait_changed(seen, PING_SECONDS, EVENTS) == seen:
                yield b": ping\n\n"
            await asyncio.sleep(CALM_SECONDS)
        page = await store.events(since, PAGE)


def _encoded(event: Event) -> bytes:
    body = encode({"seq": event.seq, "at": event.at, "type": event.type, "body": event.body})
    return b"id: %d\nevent: %s\ndata: %s\n" % (event.seq, event.type.encode(), body)


async def logs(call: Call) -> web.StreamResponse:
    """GET /v1/nodes/{node}/units/{unit}/logs?stream=&lines=&follow="""
    query = call.query()
    stream = query.text("stream", ("stdout", "stderr")) or "stdout"
    lines, follow = query.integer("lines", 10, 0, MAX_LOG_LINES), query.flag("follow", False)
    query.finish()
    node, unit = call.part("node"), call.part("unit")
    if call.parts.channels.via(node) == "pull":
        raise NodeUnreachable(node, "it fetches its commands, so it cannot be asked for logs")
    chunks = call.parts.channels.stream(node, logs_path(unit, stream, lines, follow))
    headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
    return await _stream(call, chunks, headers)


async def _stream(call: Call, chunks: AsyncIterator[bytes], headers: dict[str, str]) -> web.StreamResponse:
    """Send all of it, as it comes. What fails before the first of it is a problem; later, the connection is cut."""
    followers = call.request.app[FOLLOWERS]
    if len(followers) >= MAX_FOLLOWERS:
        detail = f"{len(followers)} callers follow something already; ask again later"
        raise Refusal(503, "busy", detail, RETRY_AFTER)
    task = asyncio.current_task()
    assert task is not None
    followers.add(task)
    response = web.StreamResponse(headers=headers)
    try:
        async with aclosing(_ahead(chunks)) as pieces:
            first = await anext(pieces, b"")
            await response.prepare(call.request)
            if call.request.method == "HEAD":
                return response
            await _send(call, response, first)
            async for piece in pieces:
                await _send(call, response, piece)
            await response.write_eof()
    except CenterError as error:
        if not response.prepared:
            raise
        log.info("%s ended for %s: %s", call.request.path, call.principal.name, error)
        _cut(call)
    except (ConnectionError, TimeoutError):
        _cut(call)
    finally:
        followers.discard(task)
    return response


async def _ahead(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The same pieces; an empty one first if nothing has come for a while, so that the headers can go out."""
    first = asyncio.ensure_future(anext(chunks, None))
    try:
        done, _ = await asyncio.wait((first,), timeout=FIRST_SECONDS)
        if not done:
            yield b""
        piece = await first
        while piece is not None:
            yield piece
            piece = await anext(chunks, None)
    finally:
        first.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await first
        if hasattr(chunks, "aclose"):
            await chunks.aclose()


async def _send(call: Call, response: web.StreamResponse, piece: bytes) -> None:
    if piece:
        async with asyncio.timeout(SLOW_SECONDS):
            await response.write(piece)


def _cut(call: Call) -> None:
    """End the connection, so that nobody takes what was sent for all there was."""
    if call.request.transport is not None:
        call.request.transport.abort()
