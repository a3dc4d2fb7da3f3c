"""What waits to be written to one target: values and limits, no threads.

A sink holds lines while its target fails or is not writable, up to a limit. Then lines are dropped until everything
held has been written, and one notice takes the place of what is missing. Who may touch what: all fields are under the
pump's lock, except those of which the comments say that the serving writer owns them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..core.model import LogFormat, LogSpec
from . import lines
from .follow import Follower
from .logfile import Buffer, Target, ends_within_line
from .spool import Slot

SINK_BYTES = 2 * 1024 * 1024  # held for a file that works; with more, what is written has left the cache
BAD_SINK_BYTES = 256 * 1024  # for one that fails, and for FIFOs and terminals
TIGHT_SINK_BYTES = 64 * 1024  # for each, when all together hold too much
TOTAL_BYTES = 64 * 1024 * 1024
FORMATTED_TURN_BYTES = 128 * 1024  # formatting makes lines longer, empty ones a hundred times
RETRY_SECONDS = 1.0  # first wait after a failure; doubles
MAX_RETRY_SECONDS = 10.0


@dataclass(slots=True)
class Drops:
    """What was lost of one stream since the daemon started."""

    lines: int = 0
    bytes: int = 0
    reason: str = ""  # of the last loss


class Source(NamedTuple):
    """Whose lines they are."""

    unit: str
    generation: int
    stream: str  # stdout | stderr
    shape: LogFormat
    resumed: bool = False  # an earlier daemon read the beginning, perhaps up to the midst of a line


class Item(NamedTuple):
    """One chunk of whole lines, or a part of a long one."""

    source: Source
    wall: float
    first: int  # number of its first line
    slot: Slot

    @property
    def size(self) -> int:
        """Bytes as they came from the pipe."""
        return self.slot.size

    @property
    def finished(self) -> bool:
        """It ends where a line ends."""
        return self.slot.data[-1] == 10

    def lines(self) -> int:
        """How many it holds; an unfinished last one counts."""
        return lines.count(bytes(self.slot.data))


class Stream:
    """One pipe of one attempt. Small: most units say nothing most of the time."""

    __slots__ = ("carry", "fd", "fifo", "grown", "log", "path", "seq", "sink", "source")

    def __init__(self, source: Source, fd: int, path: str | None, log: LogSpec, fifo: str | None = None) -> None:
        self.source, self.fd, self.path, self.log = source, fd, path, log
        self.fifo = fifo  # the pipe's path, if it has one
        self.sink: Sink | None = None  # with the first line
        self.carry: Slot | None = None  # the line that is not finished
        self.seq = 1  # of the next line, for JSON; dropped lines count
        self.grown = False  # asked for a larger pipe

    @property
    def name(self) -> str:
        """The same in every daemon."""
        return f"{self.source.unit}@{self.source.generation}.{self.source.stream}"


class Sink:
    """One target's queue."""

    __slots__ = (
        "ahead", "blocked", "busy", "delay", "followers", "gap", "held", "joining", "paused", "queue", "reason",
        "reopen", "rest", "retry_at", "scheduled", "source", "stalled", "taken", "target", "unfinished", "users",
    )  # fmt: skip

    def __init__(self, path: str, log: LogSpec) -> None:
        self.target = Target(path, log.max_bytes, log.backups)  # the serving writer's
        self.queue: list[Item] = []
        self.rest: Buffer = b""  # formatted, goes first; the serving writer's
        self.source: Source | None = None  # whose line was written last; the serving writer's
        self.unfinished = False  # and it has no newline yet; the serving writer's
        self.ahead = 0  # newlines before the items of this turn; the serving writer's
        self.held = 0  # bytes in `queue`, in `rest` and being written
        self.taken = 0  # bytes written, ever
        self.users = 0  # streams not at their end
        self.gap: tuple[int, int, str, Source] | None = None  # dropped behind what is held
        self.reason = ""  # why the target fails
        self.stalled = ""  # why it is too slow: drop, do not hold units up
        self.blocked = False  # until its descriptor is writable
        self.busy = False  # being served
        self.scheduled = False  # busy, or in the line for a writer
        self.reopen = False
        self.retry_at = 0.0
        self.delay = RETRY_SECONDS
        self.paused: list[Stream] = []  # not read for the moment
        self.followers: tuple[Follower, ...] = ()
        self.joining: tuple[tuple[Follower, int, bool], ...] = ()  # with the number of lines, and whether to stay

    def limit(self, total: int) -> int:
        """How much it may hold while all sinks together hold `total`."""
        if total >= TOTAL_BYTES:
            return TIGHT_SINK_BYTES
        return SINK_BYTES if self.target.regular and not self.reason else BAD_SINK_BYTES

    @property
    def over(self) -> bool:
        """Nobody needs it any more."""
        return not (self.users or self.held or self.gap or self.followers or self.joining)

    def batch(self) -> list[Item]:
        """Take out what one turn may write."""
        if not self.queue or self.queue[0].source.shape is LogFormat.RAW:
            items, self.queue = self.queue, []
            return items
        size = number = 0
        while number < len(self.queue) and size < FORMATTED_TURN_BYTES:
            size += self.queue[number].size
            number += 1
        items, self.queue = self.queue[:number], self.queue[number:]
        return items

    def render(self, items: list[Item]) -> list[Buffer]:
        """What is to be written: the rest, then the items, each from the beginning of a line or of its own."""
        parts: list[Buffer] = [self.rest] if self.rest else []
        self.ahead = bytes(self.rest).count(b"\n")
        for item in items:
            source = item.source
            if self.source is None:
                self.unfinished = not source.resumed and ends_within_line(self.target.path)
            if self.unfinished and source is not self.source:
                parts.append(b"\n")
                self.ahead += item is items[0]
            if source.shape is LogFormat.RAW:
                parts.append(item.slot.data)
                self.unfinished = not item.finished
            else:
                data = bytes(item.slot.data)
                shape, unit, generation, name = source.shape, source.unit, source.generation, source.stream
                parts.extend(lines.render(shape, unit, generation, name, data, item.wall, item.first))
                self.unfinished = False
            self.source = source
        return parts
