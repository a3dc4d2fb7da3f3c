"""One read of a pipe, cut into whole lines and what is left for the next one. It knows no targets and no threads."""

from __future__ import annotations

import os

from ..core.model import LogFormat
from .sink import Stream
from .spool import BIG_BYTES, HEADER_BYTES, SMALL_BYTES, Slot, Spool, waiting_bytes

READ_BYTES = 256 * 1024
FORMATTED_READ_BYTES = 48 * 1024  # what becomes of it should stay below what malloc maps anew each time
LINE_BYTES = 256 * 1024  # kept of an unfinished line; then it is written as a part
CARRY_BYTES = 32 * 1024 * 1024  # kept of all unfinished lines; then parts are small
SMALL_LINE_BYTES = 4 * 1024
_BIG_ROOM = BIG_BYTES - HEADER_BYTES  # more than LINE_BYTES


class Reads:
    """Reads streams into slots of the spool."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self._carried = 0
        self._waste = bytearray()

    def read(self, stream: Stream) -> tuple[int, Slot | None]:
        """How many bytes came, and the whole lines that are complete now. Raises OSError."""
        size = size_of(stream)
        if stream.path is None:
            self._waste = self._waste or bytearray(READ_BYTES)
            return os.readv(stream.fd, [self._waste]), None
        waiting = max(1, min(waiting_bytes(stream.fd), size))  # 1: it may have ended
        slot = self._room_for(stream, waiting)
        before, kept, got = slot.end, slot.size, 0
        try:
            got = self.spool.read(slot, stream.fd, min(waiting, slot.room - slot.end))
        finally:
            if not got and slot is not stream.carry:
                self.spool.free(slot)
        return got, self._cut(stream, slot, before, kept) if got else None

    def _room_for(self, stream: Stream, size: int) -> Slot:
        """Where the next bytes go: behind what is kept of an unfinished line."""
        carry = stream.carry
        if carry is None:
            return self.spool.take(stream.name, size)
        if carry.end + size > carry.room and (carry.room < _BIG_ROOM or carry.begin >= SMALL_BYTES):
            stream.carry = self.spool.part(carry, carry.begin, stream.name, carry.size + size)
            self.spool.free(carry)
            return stream.carry
        return carry

    def _cut(self, stream: Stream, slot: Slot, before: int, kept: int) -> Slot | None:
        end = slot.line_end(before)
        if not end:
            limit = LINE_BYTES if self._carried < CARRY_BYTES else SMALL_LINE_BYTES
            if slot.size < limit:
                stream.carry = slot
                self._carried += slot.end - before
                return None
            end = slot.end
        left = slot.end - end
        stream.carry = self.spool.part(slot, end, stream.name, left + 1) if left else None
        self._carried += left - kept
        return slot

    def keep(self, stream: Stream, slot: Slot) -> None:
        """An earlier daemon has read the beginning of a line."""
        stream.carry = slot
        self._carried += slot.size

    def give_up(self, stream: Stream) -> Slot | None:
        """What is left of a stream that has ended."""
        carry, stream.carry = stream.carry, None
        if carry is not None:
            self._carried -= carry.size
        return carry


def size_of(stream: Stream) -> int:
    """How much is read of it at once."""
    return READ_BYTES if stream.log.format is LogFormat.RAW else FORMATTED_READ_BYTES
