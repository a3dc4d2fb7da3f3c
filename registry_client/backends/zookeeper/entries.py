"""Entries in ZooKeeper, by compare-and-set: nothing is overwritten or deleted but what was read before.

Every method is part of one call, and raises its errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kazoo.exceptions import (  # type: ignore[import-untyped]
    BadVersionError,
    KazooException,
    NodeExistsError,
    NoNodeError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.protocol.serialization import Delete, GetData, SetData, Sync  # type: ignore[import-untyped]

from ...backend import stale_generation
from ...errors import LeaseLost
from ...model import Entry, Grant, LeaseKey
from .client import Batch
from .leases import Leases, Mark, Record
from .nodes import Held, Layout, value
from .session import Call, Session

MIN_TTL_SECONDS = 0.5

_ATTEMPTS = 50  # of a compare-and-set: each one lost means that somebody else has won
_CHANGED = (BadVersionError, NodeExistsError, NoNodeError, RolledBackError, RuntimeInconsistency)
_CONTENDED = "others kept changing the entry"


class Entries:
    """The entries below one root node; those that are registered here belong to our session."""

    def __init__(self, session: Session, layout: Layout, leases: Leases) -> None:
        self._session, self._layout, self._leases = session, layout, leases

    def granted(self, ttl_seconds: float) -> float:
        """The ttl that an entry gets: when we are gone, it does not live longer than our session."""
        return min(max(ttl_seconds, MIN_TTL_SECONDS), self._session.negotiated_seconds or ttl_seconds)

    async def read(self, call: Call, path: str, mark: Mark | None = None) -> tuple[Batch, Held | None]:
        """What is there now: the server that we are connected to catches up with the others first."""
        batch = await call.ask(Sync(path), GetData(path, mark))
        return batch, self._held(call, path, batch.results[1])

    def _held(self, call: Call, path: str, answer: Any) -> Held | None:
        if isinstance(answer, NoNodeError):
            return None
        if isinstance(answer, Exception):
            raise call.failure(answer)
        return self._layout.read(path, *answer)

    async def make(self, call: Call, creations: list[Any]) -> None:
        """Make nodes that are to be there; they may be already."""
        for error in (await call.ask(*creations)).results:
            if isinstance(error, KazooException) and not isinstance(error, NodeExistsError | NoNodeError):
                raise call.failure(error)

    # -- registering ---------------------------------------------------------------------------------------------

    async def put(self, call: Call, entry: Entry, path: str, ttl_seconds: float) -> Grant:
        """Have the entry there as a node of ours, unless a newer generation is; its ttl begins anew."""
        with self._registering(call, path, entry.generation, ttl_seconds) as record:
            for _ in range(_ATTEMPTS):
                mark = Mark()
                batch, held = await self.read(call, path, mark)
                if held is not None and held.generation > entry.generation:
                    raise stale_generation("register", entry.key, held.generation)
                granted = self.granted(ttl_seconds)
                data = value(entry, granted)
                same = held is not None and (held.owner, held.data) == (batch.session_id, data)
                if not same:
                    batch = await call.ask(self._writing(path, data, held, batch.session_id))
                    if await self._was_overtaken(call, entry.service, batch):
                        continue
                self._leases.granted(record, entry.generation, granted, mark if same else None)
                return Grant(granted, batch.zxid)
            raise call.unavailable(_CONTENDED)

    @contextmanager
    def _registering(self, call: Call, path: str, generation: int, ttl_seconds: float) -> Iterator[Record]:
        """Between `begin` and `granted`; what fails may have been registered, and has to expire then."""
        record = self._leases.begin(path, generation, max(ttl_seconds, MIN_TTL_SECONDS))
        try:
            yield record
        except BaseException:
            self._leases.failed(record, may_have_counted=call.may_have_counted)
            raise

    def _writing(self, path: str, data: bytes, held: Held | None, session_id: int) -> Any:
        if held is None:
            return self._layout.creation(path, data)
        if held.owner == session_id:
            return SetData(path, data, held.version)
        return self._layout.replacement(path, data, held.version)

    async def _was_overtaken(self, call: Call, service: str, batch: Batch) -> bool:
        """Whether a write has to be tried again, because it found something else than what was read."""
        if not _has_failed(call, batch):
            return False
        if isinstance(_error(batch), NoNodeError):
            await self.make(call, self._layout.parents(service))
        return True

    # -- renewing ------------------------------------------------------------------------------------------------

    async def renew(self, call: Call, paths: Mapping[LeaseKey, str]) -> set[LeaseKey]:
        """Begin the ttl of all keys anew that are there; answers the others.

        What was seen before, with a watch that has not fired since, is there: only that ZooKeeper answers has to be
        proved, once for all. What is not sure is read.
        """
        lost: set[LeaseKey] = set()
        for _ in range(_ATTEMPTS):
            known = {key: self._leases.get(path, key.generation) for key, path in paths.items() if key not in lost}
            unsure = [key for key, record in known.items() if record is None or not record.is_sure]
            marks = [Mark() for _ in unsure]
            requests = [GetData(paths[key], mark) for key, mark in zip(unsure, marks, strict=True)]
            batch = await call.ask(Sync(self._layout.root), *requests)
            for key, mark, answer in zip(unsure, marks, batch.results[1:], strict=True):
                held = self._held(call, paths[key], answer)
                if held is None or held.entry is None or held.generation != key.generation:
                    lost.add(key)
                    self._leases.forget(paths[key], key.generation if held is None else held.generation - 1)
                elif (record := known[key]) is not None and held.owner == batch.session_id:
                    record.mark = mark
                else:
                    await self._adopt(call, key, paths[key], held, batch.session_id)
            sure = {key: record for key, record in known.items() if record is not None and record.is_sure}
            if len(sure) + len(lost.intersection(paths)) == len(paths):
                over = set(self._leases.renew(sure.values()))
                return lost | {key for key, record in sure.items() if record in over}
        raise call.unavailable(_CONTENDED)

    async def _adopt(self, call: Call, key: LeaseKey, path: str, held: Held, session_id: int) -> None:
        """Make another session's entry ours, as it is. It has to be read again after that."""
        ttl_seconds = self.granted(held.ttl_seconds or self._session.asked_seconds)
        with self._registering(call, path, key.generation, ttl_seconds) as record:
            if held.owner != session_id:
                batch = await call.ask(self._layout.replacement(path, held.data, held.version))
                if _has_failed(call, batch):
                    self._leases.failed(record, may_have_counted=False)
                    return
            self._leases.granted(record, key.generation, ttl_seconds)

    # -- changing and deleting -----------------------------------------------------------------------------------

    async def update(self, call: Call, entry: Entry, path: str) -> None:
        """Replace the value of the same generation, and nothing else."""
        for _ in range(_ATTEMPTS):
            _, held = await self.read(call, path)
            if held is None or held.generation < entry.generation:
                raise LeaseLost(f"cannot update {entry.key}: it is not registered")
            if held.generation > entry.generation:
                raise stale_generation("update", entry.key, held.generation)
            data = value(entry, held.ttl_seconds or self._session.asked_seconds)
            if data == held.data or not _has_failed(call, await call.ask(SetData(path, data, held.version))):
                return
        raise call.unavailable(_CONTENDED)

    async def delete(self, call: Call, key: LeaseKey, path: str) -> bool:
        """Delete the entry of this generation or of an older one; False: there is none."""
        for _ in range(_ATTEMPTS):
            _, held = await self.read(call, path)
            if held is not None and held.generation > key.generation:
                raise stale_generation("deregister", key, held.generation)
            there = held is not None and held.entry is not None
            if held is None or not there or not _has_failed(call, await call.ask(Delete(path, held.version))):
                self._leases.forget(path, key.generation)
                return there
        raise call.unavailable(_CONTENDED)


def _has_failed(call: Call, batch: Batch) -> bool:
    """Whether a write found something else than what was read. Raises for other failures."""
    error = _error(batch)
    if error is not None and not isinstance(error, _CHANGED):
        raise call.failure(error)
    return error is not None


def _error(batch: Batch) -> Exception | None:
    """What a write failed with: for a transaction, the first error that says why."""
    answer = batch.results[0]
    errors = [item for item in (answer if isinstance(answer, list) else [answer]) if isinstance(item, Exception)]
    telling = [error for error in errors if not isinstance(error, RolledBackError | RuntimeInconsistency)]
    return next(iter((*telling, *errors)), None)
