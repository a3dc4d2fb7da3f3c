"""The output of units: their pipes are read here, and `writers.py` puts the lines into logs.

    pipes --reader thread--> Sink (bounded) --writer thread--> file, FIFO, terminal

The event loop only opens streams; it never sees a byte of them. The reader gives each pipe one bounded read a turn, so
a unit that shouts delays no other. Whatever happens to a target, pipes are read on: a unit that is faster than its
healthy target is held up by its full pipe, as with any logger, but one whose target hangs or fails loses lines, which
are counted, instead of time. A stream that says nothing costs a few hundred bytes and no thread's attention.
"""

from __future__ import annotations

import fcntl
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..core.model import LogFormat, LogSpec
from .follow import Follower
from .reads import FORMATTED_READ_BYTES, READ_BYTES, Reads, size_of
from .sink import Drops, Item, Sink, Source, Stream
from .spool import Left, Slot, Spool
from .writers import Writers

PIPE_BYTES = 64 * 1024  # what a pipe has when it is made; a read that fills it shows a unit that shouts
BIG_PIPE_BYTES = 1024 * 1024
PATIENCE_SECONDS = 1.0  # how long a target may stand still before units are not held up any more
CREEP_BYTES = 64 * 1024  # less in that time is standing still
NAP_SECONDS = 0.005
_NEWLINE = 10


class OutputPump:
    """Reads the pipes of all units and writes their logs. Its methods are for any thread and do not block.

    `report` gets one sentence when a target fails and when it works again, from a thread of the pump.
    """

    def __init__(
        self,
        report: Callable[[str], None] | None = None,
        spool: Spool | None = None,
        on_end: Callable[[int], None] | None = None,
    ) -> None:
        """`on_end` is told a pipe that was read to its end, from a thread of the pump, before it is closed."""
        self._on_end = on_end
        """What has been read and not written is in `spool`, where a later daemon may find it; None: in memory."""
        self._lock = threading.Lock()
        self._tell = report
        self.spool = spool or Spool()
        self._reads = Reads(self.spool)
        self._writers = Writers(self._lock, self._report, self.spool)
        self._writers.resume, self._writers.wait = self._resume, self._await_room
        self._writers.alarm = self._wake
        self._streams: dict[int, Stream] = {}
        self._rooms: dict[int, Sink] = {}  # by descriptor of a target that was full
        self._pauses: dict[Sink, tuple[float, int, int]] = {}  # until when; bytes written before: its, all
        self._ending: list[Stream] = []
        self._epoll: select.epoll | None = None
        self._thread: threading.Thread | None = None
        self._wakeup = -1
        self._turned, self._most = 0.0, 0  # when the last turn ended, the largest read of this one
        self._turn_seen, self._turn_at = 0, 0.0
        self._deadline: float | None = None
        self._finishing = self._leaves = False

    def open(
        self,
        unit: str,
        generation: int,
        stream: str,
        fd: int,
        target: str | None,
        log: LogSpec,
        *,
        resumed: bool = False,
        fifo: str | None = None,
        left: Sequence[Left] = (),
    ) -> Stream:
        """Read `fd`, a pipe's end that is ours from now on, to its end; None as `target` throws the bytes away.

        Streams with the same target share it and never tear each other's lines. No file is opened before a line
        comes. `resumed`: an earlier daemon read the beginning, so a log that ends in the midst of a line goes on there.
        `fifo` is the path of the pipe, which goes with the end of the stream. `left` is what the earlier daemon had
        read and not written. With -1 as `fd` that is all: the pipe has gone.
        """
        made = Stream(Source(unit, generation, stream, log.format, resumed), fd, target, log, fifo)
        with self._lock:
            epoll = self._start()
        self._take_up(made, left)
        if fd < 0:
            self._give_up(made)
            return made
        os.set_blocking(fd, False)
        with self._lock:
            self._streams[fd] = made
            epoll.register(fd, select.EPOLLIN)
        return made

    def _take_up(self, stream: Stream, left: Sequence[Left]) -> None:
        """Before anything is read of it: lines that are complete are written, and another one begins as it began."""
        for item in left:
            stream.seq = item.first
            if item.slot.data[-1] != _NEWLINE and item is left[-1]:
                self._reads.keep(stream, item.slot)
            elif stream.path is not None:
                self._admit(stream, stream.path, item.slot, item.wall)

    def overdue(self) -> str:
        """What it should be doing and is not, in a few words; "" if nothing."""
        thread = self._thread
        return "the thread that reads units' output has ended" if thread is not None and not thread.is_alive() else ""

    def end(self, stream: Stream) -> None:
        """Do not read the stream any more, as if it had ended: what it said so far is written."""
        with self._lock:
            self._ending.append(stream)
            self._wake()

    def reopen(self) -> None:
        """Open every log again by its name (USR2, after logrotate renamed them)."""
        with self._lock:
            for sink in self._writers.sinks.values():
                sink.reopen = True
                self._writers.schedule(sink)

    def counters(self) -> dict[tuple[str, str], Drops]:
        """What was lost, by unit and stream; only of those that lost anything."""
        with self._lock:
            drops = self._writers.drops.items()
            return {key: Drops(drop.lines, drop.bytes, drop.reason) for key, drop in drops}

    def follow(self, path: str, lines: int = 10) -> Follower:
        """The last `lines` of a log, then what is written to it from now on, rotated or not. Close it when done."""
        return self._follow(path, lines, stays=True)

    async def last(self, path: str, lines: int) -> bytes:
        """The last `lines` of a log. A disk that hangs keeps only the caller waiting; set a timeout."""
        async with self._follow(path, lines, stays=False) as follower:
            return b"".join([chunk async for chunk in follower])

    def _follow(self, path: str, lines: int, *, stays: bool) -> Follower:
        follower = Follower(self._unfollow)
        with self._lock:
            self._start()
            sink = self._sink(path, LogSpec())
            sink.joining = (*sink.joining, (follower, lines, stays))
            self._writers.schedule(sink)
        return follower

    def close(self, deadline_seconds: float, *, leave: bool = False) -> None:
        """Write what the pipes and buffers hold, and stop. Blocks, for little longer than the deadline at most.

        `leave`: a later daemon goes on, so lines that are not finished stay in the spool.
        """
        self._leaves = leave
        if self._epoll is None or self._thread is None:
            return
        until = time.monotonic() + deadline_seconds
        with self._lock:
            self._deadline, self._writers.closing = until, True
            self._wake()
        self._thread.join(deadline_seconds + 0.5)
        self._writers.stop(max(0.1, until - time.monotonic()))
        with self._lock:
            self._epoll.close()
            os.close(self._wakeup)
            self._epoll, self._thread, self._wakeup = None, None, -1

    def _start(self) -> select.epoll:
        if self._epoll is None:
            self._epoll = select.epoll()
            self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._epoll.register(self._wakeup, select.EPOLLIN)
        if self._thread is None:
            thread = threading.Thread(target=self._run, args=(self._epoll,), name="log-reader", daemon=True)
            with suppress(RuntimeError):  # no more threads on this host: the next stream tries again
                thread.start()
                self._thread = thread
        return self._epoll

    def _wake(self) -> None:
        if self._wakeup >= 0:
            os.eventfd_write(self._wakeup, 1)

    def _report(self, sentence: str) -> None:
        if self._tell is not None:
            with suppress(Exception):  # whoever listens must not end the writing of logs
                self._tell(sentence)

    def _unfollow(self, follower: Follower) -> None:
        with self._lock:
            for sink in self._writers.sinks.values():
                if follower in sink.followers or any(follower is one for one, *_ in sink.joining):
                    sink.followers = tuple(one for one in sink.followers if one is not follower)
                    sink.joining = tuple(pair for pair in sink.joining if pair[0] is not follower)
                    self._writers.schedule(sink)

    # The reader's thread.

    def _run(self, epoll: select.epoll) -> None:
        while not self._over():
            events = epoll.poll(self._timeout())
            if not events:
                self.spool.shrink()  # nobody shouts any more
            for fd, _ in events:
                try:
                    self._event(fd)
                except Exception as error:  # such as no memory; the other streams go on
                    self._report(f"cannot read descriptor {fd}: {error!r}")
                    time.sleep(NAP_SECONDS)
            if self._pauses or self._writers.failing or self._writers.waiting:
                self._look(time.monotonic())
            else:
                self._turn_at = 0.0
            self._nap()

    def _nap(self) -> None:
        """Let small writes gather, where units trickle: a turn costs the same for one line and for many."""
        now = time.monotonic()
        if self._most < READ_BYTES // 4 and now - self._turned < 2 * NAP_SECONDS:
            time.sleep(NAP_SECONDS)
            now += NAP_SECONDS
        self._turned, self._most = now, 0

    def _over(self) -> bool:
        if self._deadline is None:
            return False
        if not self._finishing:
            self._finish()
        return not self._writers.sinks or time.monotonic() >= self._deadline

    def _finish(self) -> None:
        """End all streams, and have every sink written once more."""
        self._finishing = True
        for stream in list(self._streams.values()):
            with suppress(Exception):
                self._drain(stream)
        with self._lock:
            for sink in self._writers.sinks.values():
                for follower in (*sink.followers, *(one for one, *_ in sink.joining)):
                    follower.end()
                sink.followers = sink.joining = ()
                self._writers.schedule(sink)

    def _timeout(self) -> float:
        """Seconds until something is due; -1: nothing is."""
        now = time.monotonic()
        due = [now + PATIENCE_SECONDS] if self._pauses or self._writers.waiting or self.spool.is_large else []
        if self._writers.failing:
            with self._lock:
                due += [sink.retry_at for sink in self._writers.failing]
        if self._deadline is not None:
            due.append(self._deadline)
        return max(0.0, min(due) - now) if due else -1

    def _event(self, fd: int) -> None:
        stream = self._streams.get(fd)
        if stream is not None:
            self._read(stream)
        elif fd == self._wakeup:
            os.eventfd_read(fd)
            with self._lock:
                ending, self._ending = self._ending, []
            for stream in ending:
                self._drain(stream)
        else:
            with self._lock:
                sink = self._rooms.pop(fd, None)
                if sink is not None:
                    self._writers.schedule(sink)

    def _look(self, now: float) -> None:
        """Timers: targets to be tried again, targets that stand still, writers that hang."""
        writers = self._writers
        with self._lock:
            for sink in [sink for sink in writers.failing if sink.retry_at <= now]:
                writers.schedule(sink)
            for sink, (until, own, total) in list(self._pauses.items()):
                if not sink.paused:
                    del self._pauses[sink]
                elif now >= until and self._moves(sink, own, total):
                    self._pauses[sink] = (now + PATIENCE_SECONDS, sink.taken, writers.taken)
                elif now >= until:
                    sink.stalled = "nobody reads it" if sink.blocked else "writing takes too long"
                    writers.relieve(sink)
            if writers.turns != self._turn_seen or not writers.waiting or not self._turn_at:
                self._turn_seen, self._turn_at = writers.turns, now
            elif now - self._turn_at >= PATIENCE_SECONDS:
                self._turn_at = now
                writers.start_one()

    def _moves(self, sink: Sink, own: int, total: int) -> bool:
        """Did enough become of what was written since, or does it only wait behind others that move?"""
        if sink.blocked or sink.busy:
            return sink.taken - own >= CREEP_BYTES
        return self._writers.taken - total >= CREEP_BYTES

    def _read(self, stream: Stream) -> int:
        """One read of a pipe; how many bytes it gave."""
        slot = None
        try:
            got, slot = self._reads.read(stream)
        except BlockingIOError:
            return 0
        except OSError:
            got = 0
        self._most = max(self._most, got)
        if not got:
            self._end(stream)
            if stream.fifo is not None:
                with suppress(OSError):
                    os.unlink(stream.fifo)
        elif slot is not None and stream.path is not None:
            self._admit(stream, stream.path, slot)
        if got >= min(size_of(stream), PIPE_BYTES) and not stream.grown:
            stream.grown = True
            with suppress(OSError):  # /proc/sys/fs/pipe-user-pages-soft
                fcntl.fcntl(stream.fd, fcntl.F_SETPIPE_SZ, BIG_PIPE_BYTES)
        return got

    def _admit(self, stream: Stream, path: str, slot: Slot, wall: float | None = None) -> None:
        """Give lines to the target's sink, or count them as dropped."""
        writers = self._writers
        item = Item(stream.source, wall or time.time(), stream.seq, slot)
        self.spool.stamp(slot, item.wall, item.first)
        if stream.source.shape is LogFormat.JSON:
            stream.seq += item.lines()
        with self._lock:
            sink = stream.sink or self._attach(stream, path)
            limit = sink.limit(writers.total)
            reason = sink.reason or sink.stalled
            if sink.gap or (reason and sink.held >= limit):
                writers.drop(sink, item, reason or (sink.gap[2] if sink.gap else ""))
                return
            sink.queue.append(item)
            sink.held += item.size
            writers.total += item.size
            if not reason and not sink.blocked:
                writers.schedule(sink)
            if not reason and sink.held >= limit:
                self._pause(stream, sink)

    def _pause(self, stream: Stream, sink: Sink) -> None:
        if stream.fd < 0 or self._epoll is None:
            return
        self._epoll.unregister(stream.fd)
        if not sink.paused:
            self._pauses[sink] = (time.monotonic() + PATIENCE_SECONDS, sink.taken, self._writers.taken)
        sink.paused.append(stream)

    def _resume(self, stream: Stream) -> None:
        if stream.fd >= 0 and self._epoll is not None:
            self._epoll.register(stream.fd, select.EPOLLIN)

    def _await_room(self, sink: Sink) -> None:
        """Have a turn for a sink when its target's descriptor is writable; from a writer's thread, with the lock."""
        fd, wanted = sink.target.fd, select.EPOLLOUT | select.EPOLLONESHOT
        if self._epoll is None:
            return
        self._rooms[fd] = sink
        try:
            self._epoll.register(fd, wanted)
        except FileExistsError:
            self._epoll.modify(fd, wanted)

    def _attach(self, stream: Stream, path: str) -> Sink:
        sink = self._sink(path, stream.log)
        sink.target.max_bytes, sink.target.backups = stream.log.max_bytes, stream.log.backups
        sink.users += 1
        stream.sink = sink
        return sink

    def _sink(self, path: str, log: LogSpec) -> Sink:
        sink = self._writers.sinks.get(path)
        if sink is None:
            sink = self._writers.sinks[path] = Sink(path, log)
        return sink

    def _drain(self, stream: Stream) -> None:
        """Read what the pipe holds now, and end the stream."""
        for _ in range(2 * BIG_PIPE_BYTES // FORMATTED_READ_BYTES):
            if stream.fd < 0 or not self._read(stream):
                break
        if stream.fd >= 0:
            self._end(stream)

    def _end(self, stream: Stream) -> None:
        fd = stream.fd
        if fd < 0:
            return
        with self._lock:
            del self._streams[fd]
            if self._epoll is not None:
                with suppress(OSError):  # it is held up
                    self._epoll.unregister(fd)
            stream.fd = -1
        if self._on_end is not None and not self._leaves:
            self._on_end(fd)
        os.close(fd)
        self._give_up(stream)

    def _give_up(self, stream: Stream) -> None:
        """Nothing more comes of it: what it has left without a newline is written, unless another daemon goes on."""
        carry = None if self._leaves else self._reads.give_up(stream)
        if carry is not None and stream.path is not None:
            self._admit(stream, stream.path, carry)
        with self._lock:
            if stream.sink is not None:
                stream.sink.users -= 1
                self._writers.schedule(stream.sink)
