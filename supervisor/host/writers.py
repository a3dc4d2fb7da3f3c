"""The threads that write what sinks hold.

    pipes --reader thread (output.py)--> Sink --writer thread--> Target

One writer serves all sinks, one turn each; it starts with the first line. When its turn hangs in the kernel (a dead
NFS server, a dying disk), a spare writer is started, at most `MAX_WRITERS` in all, so that one bad target holds up
nobody else. A sink is served by one writer at a time, and only that writer touches its target.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from . import lines
from .follow import Follower
from .logfile import Buffer, tail
from .sink import MAX_RETRY_SECONDS, RETRY_SECONDS, Drops, Item, Sink, Source, Stream
from .spool import Spool

MAX_WRITERS = 4


class Writers:
    """All sinks by path, and their threads. `lock` is the pump's.

    `resume`, `wait` (tell me when the target is writable) and `alarm` (`failing` or `sinks` changed) are the pump's
    and called with the lock held.
    """

    def __init__(self, lock: threading.Lock, report: Callable[[str], None], spool: Spool) -> None:
        self._lock, self._report, self._spool = lock, report, spool
        self._line: queue.SimpleQueue[Sink | None] = queue.SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self.sinks: dict[str, Sink] = {}
        self.failing: set[Sink] = set()
        self.drops: dict[tuple[str, str], Drops] = {}
        self.total = 0  # bytes held by all sinks
        self.taken = 0  # bytes written, ever
        self.turns = 0  # begun, ever
        self.closing = self.closed = False
        self.resume: Callable[[Stream], None] = lambda _: None
        self.wait: Callable[[Sink], None] = lambda _: None
        self.alarm: Callable[[], None] = lambda: None

    @property
    def waiting(self) -> bool:
        """A sink waits for a writer."""
        return not self._line.empty()

    def schedule(self, sink: Sink) -> None:
        """Have a turn for the sink soon. Call with the lock."""
        if sink.scheduled:
            return
        sink.scheduled = True
        self.failing.discard(sink)
        self._line.put(sink)
        if not self._threads:
            self.start_one()

    def start_one(self) -> None:
        """Start another writer, if there may be one. Call with the lock."""
        if len(self._threads) >= MAX_WRITERS:
            return
        thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        with suppress(RuntimeError):  # no more threads on this host: the next line tries again
            thread.start()
            self._threads.add(thread)

    def stop(self, seconds: float) -> None:
        """End the threads that do not hang, and count what could not be written."""
        threads = list(self._threads)
        for _ in threads:
            self._line.put(None)
        until = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        with self._lock:
            self.closed = True
            for sink in self.sinks.values():
                self.discard(sink, sink.reason or "the daemon ended")

    def drop(self, sink: Sink, item: Item, reason: str) -> None:
        """Count an item as lost behind what the sink holds. Call with the lock."""
        number, size = item.lines(), item.size
        self.count(item.source, number, size, reason)
        gap = sink.gap or (0, 0, "", item.source)
        sink.gap = (gap[0] + number, gap[1] + size, reason, item.source)
        self.recycle([item])

    def count(self, source: Source, number: int, size: int, reason: str) -> None:
        """Add to the drops of a stream. Call with the lock."""
        drops = self.drops.setdefault((source.unit, source.stream), Drops())
        drops.lines, drops.bytes, drops.reason = drops.lines + number, drops.bytes + size, reason

    def discard(self, sink: Sink, reason: str) -> None:
        """Give up what the sink holds; it is counted. Call with the lock."""
        for item in sink.queue:
            self.count(item.source, item.lines(), item.size, reason)
        if sink.rest and sink.source:
            self.count(sink.source, lines.count(bytes(sink.rest)), len(sink.rest), reason)
        self.total -= sink.held
        sink.queue, sink.rest, sink.gap, sink.held = [], b"", None, 0

    def recycle(self, items: list[Item]) -> None:
        """They are written, or given up."""
        for item in items:
            self._spool.free(item.slot)

    def relieve(self, sink: Sink) -> None:
        """Read the held-up streams again. Call with the lock."""
        paused, sink.paused = sink.paused, []
        for stream in paused:
            self.resume(stream)

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._idle:  # a spare is not needed any more
                    self._threads.discard(threading.current_thread())
                    return
                self._idle += 1
            sink = self._line.get()
            with self._lock:
                self._idle -= 1
                self.turns += 1
            if sink is None:
                return
            try:
                self._serve(sink)
            except Exception as error:  # a fault here must not end the writing of all other logs
                self._lose(sink, error)

    def _serve(self, sink: Sink) -> None:
        with self._lock:
            sink.busy = True
            joining, sink.joining = sink.joining, ()
            reopen, sink.reopen = sink.reopen, False
            items = sink.batch()
        if reopen:
            sink.target.reopen()
        for follower, number, stays in joining:
            self._join(sink, follower, number, stays)
        raw = len(sink.rest) + sum(item.size for item in items)
        parts = sink.render(items)
        turn = sink.target.turn = self._spool.begin((item.slot for item in items), sink.ahead) if items else None
        taken = sink.target.write(parts) if parts else 0
        rest: Buffer = b""
        if parts and (sink.followers or taken < sum(map(len, parts))):
            data = b"".join(parts)
            rest = data[taken:]
            for follower in sink.followers if taken else ():
                follower.feed(data[:taken])
        del parts
        self.recycle(items)
        if turn is not None:
            self._spool.end(turn)
        self._settle(sink, raw, rest, taken)

    def _join(self, sink: Sink, follower: Follower, number: int, stays: bool) -> None:
        last = tail(sink.target.path, number)
        if last:
            follower.feed(last)
        if not stays:
            follower.end()
        with self._lock:
            if not follower.ended:
                sink.followers = (*sink.followers, follower)

    def _settle(self, sink: Sink, raw: int, rest: Buffer, taken: int) -> None:
        """The turn is over."""
        said = ""
        with self._lock:
            if self.closed:  # it hung until now, and what it wrote was counted as lost
                sink.target.close()
                return
            sink.rest = rest
            self._hold(sink, len(rest) - raw)
            sink.taken += taken
            self.taken += taken
            sink.busy = sink.scheduled = sink.blocked = False
            if sink.target.error is not None and rest:
                said = self._fail(sink, lines.reason_of(sink.target.error))
            elif rest:
                sink.blocked = True
                self.wait(sink)
            else:
                said = self._works(sink)
            closed = self._remove_if_over(sink)
        if closed:
            sink.target.close()
        if said:
            self._report(said)

    def _hold(self, sink: Sink, change: int) -> None:
        sink.held += change
        self.total += change

    def _fail(self, sink: Sink, reason: str) -> str:
        known, sink.reason = sink.reason, reason
        self.relieve(sink)
        if self.closing:
            self.discard(sink, reason)
        else:
            sink.retry_at = time.monotonic() + sink.delay
            sink.delay = min(sink.delay * 2, MAX_RETRY_SECONDS)
            self.failing.add(sink)
            self.alarm()
            if sink.joining or sink.reopen:
                self.schedule(sink)
        if known == reason:
            return ""
        return f"cannot write {sink.target.path}: {reason}; lines are dropped and counted until it works again"

    def _works(self, sink: Sink) -> str:
        known, sink.reason, sink.delay = sink.reason, "", RETRY_SECONDS
        if sink.gap and not sink.queue:
            self._tell_gap(sink)
        if sink.held < sink.limit(self.total) // 2:
            sink.stalled = ""
            self.relieve(sink)
        if sink.queue or sink.rest or sink.joining or sink.reopen:
            self.schedule(sink)
        return f"{sink.target.path} can be written again" if known else ""

    def _tell_gap(self, sink: Sink) -> None:
        """What was held is written, so the notice goes next, and new lines behind it."""
        assert sink.gap is not None
        number, size, reason, source = sink.gap
        sink.gap = None
        text = lines.notice(number, size, reason)
        said = lines.render(source.shape, source.unit, source.generation, "unitd", text, time.time(), 0)
        sink.rest = b"".join((b"\n" if sink.unfinished else b"", *said))
        sink.unfinished, sink.source = False, source
        self._hold(sink, len(sink.rest))

    def _remove_if_over(self, sink: Sink) -> bool:
        if sink.scheduled or not sink.over:
            return False
        self.failing.discard(sink)
        self.sinks.pop(sink.target.path, None)
        if self.closing:
            self.alarm()
        return True

    def _lose(self, sink: Sink, error: Exception) -> None:
        """A turn ended in a fault of ours (or without memory): what it had in its hands is gone."""
        with self._lock:
            gone = sink.held - sum(item.size for item in sink.queue)
            if sink.source:
                self.count(sink.source, 0, gone, repr(error))
            sink.rest = b""
            self._hold(sink, -gone)
            sink.busy = sink.scheduled = False
            if sink.queue or sink.gap:
                self.schedule(sink)
            self.relieve(sink)
        self._report(f"cannot write {sink.target.path}: {error!r}; {gone} bytes are lost")
