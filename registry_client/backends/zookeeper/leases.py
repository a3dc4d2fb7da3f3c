"""The ttl of each entry of our session: ZooKeeper knows only the session's end, so who is not renewed is deleted here.

One thread of its own sleeps until an entry's time is over, so it works when the event loop hangs. It deletes in two
steps, each of them sent under the lock that renewals take too: first it asks whether the node is still our session's,
then it deletes that version. Since a session's requests are executed in the order in which they were sent, a deletion
can only hit what was there before a later registration; and a node that another session has taken over has another
owner and another version (see `replacement` in nodes.py).
"""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kazoo.exceptions import NoNodeError  # type: ignore[import-untyped]
from kazoo.protocol.serialization import Delete, Exists  # type: ignore[import-untyped]

from .client import Batch

AGAIN_SECONDS = 0.5  # after a deletion without an answer

Submit = Callable[[Sequence[Any], Callable[[Batch], None]], Batch | None]


class Mark:
    """A watcher that remembers that it was called: then what was read is not sure any more."""

    __slots__ = ("fired",)

    def __init__(self) -> None:
        self.fired = False

    def __call__(self, event: object) -> None:
        self.fired = True


class Record:
    """What is known of one entry that we registered."""

    __slots__ = ("busy", "expires_at", "expiring", "generation", "mark", "path", "queued_at", "ttl_seconds")

    def __init__(self, path: str, generation: int, ttl_seconds: float) -> None:
        self.path, self.generation, self.ttl_seconds = path, generation, ttl_seconds
        self.expires_at = self.queued_at = math.inf
        self.expiring = False  # its time was over, and its deletion has begun
        self.busy = 0  # registrations under way: it does not expire meanwhile
        self.mark: Mark | None = None  # not fired: the node is as we left it

    @property
    def is_sure(self) -> bool:
        """Whether nothing has happened to the node and to our connection since we saw it."""
        return self.mark is not None and not self.mark.fired


class Leases:
    """The records of our session by path, and the thread that lets them expire. Safe in any thread."""

    def __init__(self, submit: Submit) -> None:
        self._submit = submit
        self._records: dict[str, Record] = {}
        self._heap: list[tuple[float, str]] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._records)

    def get(self, path: str, generation: int) -> Record | None:
        """The record of that generation, unless its time is over."""
        record = self._records.get(path)
        return None if record is None or record.expiring or record.generation != generation else record

    def begin(self, path: str, generation: int, ttl_seconds: float) -> Record:
        """A registration begins: it ends with `granted`, or with `failed`."""
        with self._changed:
            record = self._records.get(path)
            if record is None:
                record = self._records[path] = Record(path, generation, ttl_seconds)
            record.busy += 1
            record.expiring = False
            return record

    def granted(self, record: Record, generation: int, ttl_seconds: float, mark: Mark | None = None) -> None:
        """It is registered: its time runs from now on."""
        with self._changed:
            record.busy -= 1
            record.generation, record.ttl_seconds, record.mark = generation, ttl_seconds, mark
            record.expires_at = time.monotonic() + ttl_seconds
            self._records[record.path] = record
            self._queue(record, record.expires_at)

    def failed(self, record: Record, *, may_have_counted: bool) -> None:
        """It is not known to be registered. What may be there nevertheless expires as if it were."""
        with self._changed:
            record.busy -= 1
            if may_have_counted:
                record.mark = None
                record.expires_at = time.monotonic() + record.ttl_seconds
                self._records[record.path] = record
            elif record.expires_at == math.inf and not record.busy:
                self._forget(record)
                return
            self._queue(record, record.expires_at)

    def renew(self, records: Iterable[Record]) -> list[Record]:
        """Start their time anew; answers those that are over, or replaced, meanwhile."""
        over = []
        with self._changed:
            now = time.monotonic()
            for record in records:
                if record.expiring or self._records.get(record.path) is not record:
                    over.append(record)
                else:
                    record.expires_at = now + record.ttl_seconds
        return over

    def forget(self, path: str, generation: int) -> None:
        """It is not there in this generation or in an older one."""
        with self._changed:
            record = self._records.get(path)
            if record is not None and record.generation <= generation and not record.busy:
                self._forget(record)

    def session_lost(self) -> None:
        """The session has ended, and its nodes with it."""
        with self._changed:
            for record in list(self._records.values()):
                if not record.busy:
                    self._forget(record)

    def close(self) -> None:
        """End the thread; nothing is deleted any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    # -- under the lock ------------------------------------------------------------------------------------------

    def _forget(self, record: Record) -> None:
        if self._records.get(record.path) is record:
            del self._records[record.path]

    def _queue(self, record: Record, at: float) -> None:
        """Have the thread look at it then; it may look earlier."""
        if at >= record.queued_at or self._closed:
            return
        record.queued_at = at
        heapq.heappush(self._heap, (at, record.path))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="unitd zookeeper ttl", daemon=True)
            self._thread.start()
        elif self._heap[0][0] == at:
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                if due := self._take_due(now):
                    self._ask(due)
                self._changed.wait(self._heap[0][0] - now if self._heap else None)

    def _take_due(self, now: float) -> list[Record]:
        due = []
        while self._heap and self._heap[0][0] <= now:
            at, path = heapq.heappop(self._heap)
            record = self._records.get(path)
            if record is None or record.queued_at != at:
                continue
            record.queued_at = math.inf
            if record.busy:
                continue  # queued again at its end
            if record.expires_at > now:
                self._queue(record, record.expires_at)
                continue
            record.expiring = True
            self._queue(record, now + AGAIN_SECONDS)
            due.append(record)
        return due

    # -- the deletion, in two steps ------------------------------------------------------------------------------

    def _ask(self, due: list[Record]) -> None:
        self._submit([Exists(record.path, None) for record in due], lambda batch: self._seen(due, batch))

    def _seen(self, due: list[Record], batch: Batch) -> None:
        """In kazoo's thread: delete what is still ours and still over."""
        with self._changed:
            ours = []
            for record, stat in zip(due, batch.results, strict=True):
                if not self._is_over(record) or isinstance(stat, Exception):
                    continue  # registered again; or no answer: the thread tries again
                if stat is None or stat.ephemeralOwner != batch.session_id:
                    self._forget(record)
                else:
                    ours.append((record, Delete(record.path, stat.version)))
            if ours and not self._closed:
                self._submit([delete for _, delete in ours], lambda batch: self._deleted(ours, batch))

    def _deleted(self, ours: list[tuple[Record, Any]], batch: Batch) -> None:
        with self._changed:
            for (record, _), result in zip(ours, batch.results, strict=True):
                if self._is_over(record) and (result is True or isinstance(result, NoNodeError)):
                    self._forget(record)

    def _is_over(self, record: Record) -> bool:
        return record.expiring and self._records.get(record.path) is record
