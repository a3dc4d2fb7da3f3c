"""Lists of entries in etcd, and watches: a list, and what the events of etcd's stream make of it.

An epoch is the value of a key that is made by who misses it first, so it goes with the data. Without the right to make
it, a reader takes the cluster's own number, which is the same again when a cluster is made anew at the same place.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from base64 import b64decode
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

from ...errors import RegistryError, RegistryRejected, RegistryUnavailable
from ...model import Snapshot
from ..retry import after_failure
from .entries import Held, Layout, base64, pairs_in, revision_in
from .gateway import Call, Gateway, read

_COALESCE_SECONDS = 0.05  # between the first change and the snapshot; changes in between come as one

_log = logging.getLogger("registry_client")


class Listing:
    """All entries of a service at one revision, by their keys; `apply` makes it later ones."""

    def __init__(self, revision: int, epoch: str, entries: dict[str, Held]) -> None:
        self.revision, self.epoch, self._entries = revision, epoch, entries

    def apply(self, event: Mapping[str, Any], layout: Layout) -> None:
        """Take in a change; one that is in already changes nothing."""
        pair = event["kv"]
        revision = int(pair["mod_revision"])
        if revision < self.revision:
            return
        self.revision = revision
        if event.get("type") == "DELETE":
            self._entries.pop(pair["key"], None)
        else:
            self._entries[pair["key"]] = layout.held(pair)

    def snapshot(self, service: str | None) -> Snapshot:
        """As readers see it."""
        entries = [held.entry for held in self._entries.values() if held.entry is not None]
        entries.sort(key=lambda entry: (entry.service, entry.instance))
        return Snapshot(self.revision, self.epoch, service, tuple(entries))


class Reader:
    """Reads lists, and makes the epoch where it is missing."""

    def __init__(self, gateway: Gateway, layout: Layout) -> None:
        self.gateway, self.layout = gateway, layout

    async def listing(self, service: str | None) -> Listing:
        """A linearizable read."""
        verb = "list all services" if service is None else f"list {service}"
        ranges: Sequence[Mapping[str, object]] = [{"key": self.layout.epoch}, self.layout.span(service)]
        async with self.gateway.call(verb) as call:
            answer = await self._ask(call, ranges)
            if not read(verb, lambda: pairs_in(answer["responses"][0])):
                await self.begin_epoch(call)
                answer = await self._ask(call, ranges)
        pairs = read(verb, lambda: pairs_in(answer["responses"][1]))
        entries = read(verb, lambda: {pair["key"]: self.layout.held(pair) for pair in pairs})
        return Listing(read(verb, lambda: revision_in(answer)), read(verb, lambda: _epoch_in(answer)), entries)

    async def position(self) -> tuple[int, str]:
        """The revision of the store, and its epoch."""
        async with self.gateway.call("watch the registry") as call:
            answer = await self._ask(call, [{"key": self.layout.epoch}])
            return read(call.verb, lambda: revision_in(answer)), read(call.verb, lambda: _epoch_in(answer))

    async def begin_epoch(self, call: Call, instead_of: str | None = None) -> None:
        """Make the epoch if there is none (or still this one). Without the right to do so, nothing happens."""
        put = {"request_put": {"key": self.layout.epoch, "value": base64(os.urandom(8).hex().encode())}}
        compare: Mapping[str, object] = {
            "key": self.layout.epoch,
            "target": "VERSION",
            "result": "EQUAL",
            "version": "0",
        }
        if instead_of is not None:
            value = base64(instead_of.encode())
            compare = {"key": self.layout.epoch, "target": "VALUE", "result": "EQUAL", "value": value}
        with suppress(RegistryRejected):
            await call.ask("/v3/kv/txn", {"compare": [compare], "success": [put]})

    async def _ask(self, call: Call, ranges: Sequence[Mapping[str, object]]) -> Any:
        return await call.ask("/v3/kv/txn", {"success": [{"request_range": item} for item in ranges]})


class Watch:
    """One watch, for as long as it is read."""

    def __init__(self, reader: Reader, service: str | None, since: int, epoch: str | None, wait_seconds: float) -> None:
        self._reader, self._gateway, self._service, self._wait_seconds = reader, reader.gateway, service, wait_seconds
        self._since, self._epoch = since, epoch  # what its user has seen before
        self._listing: Listing | None = None
        self._last: Snapshot | None = None  # that was given
        self._position = 0  # the revision up to which all events are known
        self._failures = 0

    async def snapshots(self) -> AsyncGenerator[Snapshot, None]:
        """See `Backend.watch`."""
        self._gateway.check_open("watch the registry")
        while not self._gateway.closed.is_set():
            try:
                async with aclosing(self._follow()) as following:
                    async for snapshot in following:
                        yield snapshot
            except RegistryError as error:
                answered = self._listing is not None or self._last is not None
                closed = self._gateway.closed
                self._failures = await after_failure(error, closed, answered=answered, failures=self._failures)

    async def _follow(self) -> AsyncGenerator[Snapshot, None]:
        """Snapshots until the stream of events is over, for whatever reason."""
        listing = self._listing
        if listing is None:
            listing = await self._begin()
            if news := self._news(listing):
                yield news
            elif self._last is None:
                self._position = self._since  # to learn whether anything has changed since
        async with aclosing(self._stream()) as stream, aclosing(self._batches(stream)) as batches:
            alive = False
            async for batch in batches:
                alive = alive or await self._is_alive(listing)
                if not alive:
                    self._listing = None
                elif self._take(batch, listing) and (news := self._news(listing)):
                    yield news
                if self._listing is None:
                    return

    async def _begin(self) -> Listing:
        listing = await self._reader.listing(self._service)
        last = self._last
        if last is not None and listing.epoch == last.epoch and listing.revision < last.revision:
            async with self._gateway.call("watch the registry") as call:  # it was set back to a copy of earlier
                await self._reader.begin_epoch(call, listing.epoch)
            listing = await self._reader.listing(self._service)
        self._listing, self._position = listing, listing.revision
        return listing

    async def _is_alive(self, listing: Listing) -> bool:
        """Whether the events after our position are those of the same data.

        To be asked when the stream has begun, for it ends with the server: data that was lost before would else be
        waited for, because the revisions of the new data are smaller.
        """
        revision, epoch = await self._reader.position()
        return epoch == listing.epoch and revision >= self._position

    def _news(self, listing: Listing) -> Snapshot | None:
        """What is to be given; None: its user knows it."""
        last, snapshot = self._last, listing.snapshot(self._service)
        if last is not None:
            is_known = (snapshot.epoch, snapshot.entries) == (last.epoch, last.entries)
        else:
            is_known = 0 < self._since <= snapshot.revision and self._epoch in (None, snapshot.epoch)
        if is_known:
            return None
        self._last = snapshot
        return snapshot

    def _take(self, batch: list[Any], listing: Listing) -> bool:
        """Take in what the stream says; answers whether there were changes."""
        events = False
        for message in batch:
            if message.get("canceled"):
                self._give_up(message)
                break
            if self._failures:
                _log.info("the watch of etcd goes on")
            self._failures = 0
            events |= read("watch the registry", partial(self._apply, message, listing))
        if events:
            self._since = 0
        return events

    def _apply(self, message: Mapping[str, Any], listing: Listing) -> bool:
        changes = message.get("events", [])
        for change in changes:
            listing.apply(change, self._reader.layout)
            self._position = int(change["kv"]["mod_revision"])
        if not changes and not message.get("created"):
            self._position = revision_in(message)  # all before it was sent; with changes, more of them may follow
        return bool(changes)

    def _give_up(self, message: Mapping[str, Any]) -> None:
        """The server has ended the stream; begin anew with a list if it has forgotten the events."""
        if not int(message.get("compact_revision", 0)):
            self._gateway.forget_login(None)  # it may have expired, which a stream takes for missing rights
            raise RegistryUnavailable(f"cannot watch the registry: {message.get('cancel_reason', 'etcd ends it')}")
        self._listing, self._since = None, 0

    def _stream(self) -> AsyncGenerator[Any, None]:
        first = {"start_revision": str(self._position + 1), "progress_notify": True}
        request = {"create_request": {**self._reader.layout.span(self._service), **first}}
        return self._gateway.stream("watch the registry", "/v3/watch", request)

    async def _batches(self, stream: AsyncGenerator[Any, None]) -> AsyncGenerator[list[Any], None]:
        """What comes within a moment together; ends when nothing has come for long, for the server may be gone.

        What comes first is that the stream has begun; without that, it is a failure.
        """
        batch: list[Any] = []
        task: asyncio.Future[Any] | None = None
        not_before, silence = 0.0, self._gateway.timeout_seconds + self._wait_seconds
        try:
            while True:
                task = task or asyncio.ensure_future(anext(stream, None))
                wait = max(0.0, not_before - time.monotonic()) if batch else silence
                done, _ = await asyncio.wait({task}, timeout=wait)
                if done:
                    message, task = task.result(), None
                    if message is None:
                        raise RegistryUnavailable("cannot watch the registry: the server has ended the stream")
                    batch.append(message)
                elif batch:
                    yield batch
                    batch, not_before = [], time.monotonic() + _COALESCE_SECONDS
                    silence = self._wait_seconds
                elif not_before:
                    return
                else:
                    raise RegistryUnavailable("cannot watch the registry: the server does not begin")
        finally:
            if task is not None:
                task.cancel()
                await asyncio.wait({task})


def _epoch_in(answer: Mapping[str, Any]) -> str:
    """The epoch, which is the first range of the answer."""
    pairs = pairs_in(answer["responses"][0])
    return b64decode(pairs[0]["value"]).decode() if pairs else f"cluster {answer['header']['cluster_id']}"
