"""What was read from units' pipes and is not in their logs yet, kept where the death of the daemon does not lose it.

    pipe --read(2)--> a slot of a shared mapping --write(2)--> log; then the slot is free

The mapping is of a file, best in memory (tmpfs), that the next daemon finds. It tells at any moment where bytes are:

- Before a read its size is asked for (FIONREAD) and noted, and the place is filled with bytes that no text has. So
  whoever comes later sees whether the read has happened: nobody else reads the pipe, and the read gives just so much.
- Before a write it is noted which slots go behind which byte of which file. So whoever comes later sees how much of
  them has been written: what the file has gained.

No system call is made for any of that but the two that ask for sizes. When there is no slot, bytes are in plain memory,
as they are when there is no file.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from typing import NamedTuple

from .tree import boot_id

log = logging.getLogger("unitd.output")

SMALL_BYTES, SMALL_SLOTS = 4096, 2048
BIG_BYTES, BIG_SLOTS = 256 * 1024 + 8192, 64
HEADER_BYTES = 192
TURNS = 4  # writes at the same time

_MAGIC = b"unitd-spool-1\n"
_FILE = struct.Struct("<16s36s")
_TURN = struct.Struct("<IIIIQQQQ")  # state, lines before, lines ahead, -, number, device, inode, offset
_TURN_PLACE = struct.Struct("<QQQ")  # the last three
_TURN_AT, _TURN_BYTES = 128, 128
_SLOT = struct.Struct(
    "<IIIIQQdIIQH"
)  # state, begin, end, asked, order, turn, wall, first, at, origin, length of the name
_SPAN = struct.Struct("<IIII")
_STAMP = struct.Struct("<dI")
_NUMBER = struct.Struct("<Q")
_WORD = struct.Struct("<I")
_FREE, _HELD, _READING = 0, 1, 2
_UNLIKELY = b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8"
_FIONREAD = 0x541B
_PAGE = mmap.PAGESIZE
_SIZE = _PAGE + SMALL_SLOTS * SMALL_BYTES + BIG_SLOTS * BIG_BYTES


class Slot:
    """A place for bytes of one stream: `buffer[base + begin : base + end]`."""

    __slots__ = ("base", "begin", "buffer", "end", "offset", "order", "room")

    def __init__(self, buffer: mmap.mmap | bytearray, offset: int, base: int, room: int, order: int = 0) -> None:
        self.buffer, self.offset, self.base, self.room = buffer, offset, base, room
        self.begin = self.end = 0
        self.order = order  # grows from slot to slot; `offset` is -1 in plain memory

    @property
    def size(self) -> int:
        """How many bytes it holds."""
        return self.end - self.begin

    @property
    def data(self) -> memoryview:
        """Its bytes, as long as it is not freed."""
        return memoryview(self.buffer)[self.base + self.begin : self.base + self.end]

    def line_end(self, begin: int) -> int:
        """Where the last line that ends behind `begin` ends; 0: none does."""
        found = self.buffer.rfind(b"\n", self.base + begin, self.base + self.end)
        return found + 1 - self.base if found >= 0 else 0


class Left(NamedTuple):
    """A slot as an earlier daemon has left it, with what is written about it."""

    slot: Slot
    name: str
    state: int
    asked: int
    turn: int
    wall: float
    first: int
    at: int
    origin: int


class Turn:
    """One write that may be under way: of which slots, and behind which byte of which file."""

    __slots__ = ("_map", "_offset", "lines")

    def __init__(self, mapping: mmap.mmap, offset: int) -> None:
        self._map, self._offset = mapping, offset
        self.lines = 0  # written before, in files that were full

    def begin(self, number: int, ahead: int) -> None:
        """It will be; `ahead` lines of it are in no slot."""
        self.lines = 0
        _TURN.pack_into(self._map, self._offset, 1, 0, ahead, 0, number, 0, 0, 0)

    def note(self, fd: int) -> None:
        """The next bytes go to the end of this file; `lines` went elsewhere before. Raises OSError."""
        facts = os.fstat(fd)
        _WORD.pack_into(self._map, self._offset + 4, self.lines)
        _TURN_PLACE.pack_into(self._map, self._offset + 24, facts.st_dev, facts.st_ino, facts.st_size)

    def end(self) -> None:
        """All of it was written, or given up."""
        _WORD.pack_into(self._map, self._offset, 0)


class OpenTurn(NamedTuple):
    """A write that an earlier daemon was in the midst of."""

    number: int
    lines: int
    ahead: int
    device: int
    inode: int
    offset: int


class Spool:
    """All slots. One thread takes them, any may free them."""

    def __init__(self, path: str | None = None) -> None:
        """Use the file, and what an earlier daemon of this boot has left in it; None: memory. Raises OSError."""
        self._path = path
        self._map, fresh = (mmap.mmap(-1, _SIZE), True) if path is None else _open(path)
        self._orders, self._numbers = count(1), count(1)
        self.left: list[Left] = [] if fresh else list(self._scan())
        if self.left:
            self._orders = count(max(item.slot.order for item in self.left) + 1)
        self.open_turns = [] if fresh else self._scan_turns()
        if self.open_turns:
            self._numbers = count(max(turn.number for turn in self.open_turns) + 1)
        used = {item.slot.offset for item in self.left}
        small = range(_PAGE, _PAGE + SMALL_SLOTS * SMALL_BYTES, SMALL_BYTES)
        big = range(small.stop, _SIZE, BIG_BYTES)
        self._small = deque(offset for offset in reversed(small) if offset not in used)
        self._big = deque(offset for offset in reversed(big) if offset not in used)
        self._dirty: set[int] = set()  # offsets of large slots that were used
        places = range(_TURN_AT, _TURN_AT + TURNS * _TURN_BYTES, _TURN_BYTES)
        self._turns = deque(Turn(self._map, place) for place in places)

    @property
    def is_large(self) -> bool:
        """It has taken memory that it could give back."""
        return bool(self._dirty)

    # Slots.

    def take(self, name: str, size: int) -> Slot:
        """A slot with room for so many bytes of a stream, or for as many as there may be in one."""
        try:
            if size <= SMALL_BYTES - HEADER_BYTES:
                offset, room = self._small.pop(), SMALL_BYTES - HEADER_BYTES
            else:
                offset, room = self._big.pop(), BIG_BYTES - HEADER_BYTES
                self._dirty.add(offset)
        except IndexError:
            room = min(size, BIG_BYTES - HEADER_BYTES)
            return Slot(bytearray(room), -1, 0, room)
        slot = Slot(self._map, offset, offset + HEADER_BYTES, room, next(self._orders))
        if room >= SMALL_BYTES:
            slot.begin = slot.end = _PAGE - HEADER_BYTES  # what is read into it is copied faster so
        self._describe(slot, name, 0, 0)
        return slot

    def _describe(self, slot: Slot, name: str, at: int, origin: int) -> None:
        text = name.encode()[: HEADER_BYTES - _SLOT.size]
        offset = slot.offset + _SLOT.size
        self._map[offset : offset + len(text)] = text
        _SLOT.pack_into(
            self._map, slot.offset, _HELD, slot.begin, slot.end, 0, slot.order, 0, 0.0, 1, at, origin, len(text)
        )

    def read(self, slot: Slot, fd: int, size: int) -> int:
        """Read so many bytes behind what the slot holds; how many came. Raises OSError: then it is as it was."""
        place = slot.base + slot.end
        view = memoryview(slot.buffer)[place : place + size]
        if slot.offset < 0:
            got = os.readv(fd, [view])
            slot.end += got
            return got
        view[: len(_UNLIKELY)] = _UNLIKELY[:size]
        _SPAN.pack_into(self._map, slot.offset, _READING, slot.begin, slot.end, size)
        got = 0
        try:
            got = os.readv(fd, [view])
        finally:
            slot.end += got
            _SPAN.pack_into(self._map, slot.offset, _HELD, slot.begin, slot.end, 0)
        return got

    def stamp(self, slot: Slot, wall: float, first: int) -> None:
        """When it was read, and the number of its first line."""
        if slot.offset >= 0:
            _STAMP.pack_into(self._map, slot.offset + 32, wall, first)

    def part(self, slot: Slot, at: int, name: str, size: int) -> Slot:
        """What the slot holds from `at` on, in another one with room for `size` bytes."""
        end = slot.end
        made = self.take(name, size)
        if made.room >= SMALL_BYTES and made.offset >= 0:
            made.begin = (at - end - HEADER_BYTES) % _PAGE  # so that it ends where a page does
        made.end = made.begin + end - at
        place = made.base + made.begin
        made.buffer[place : made.base + made.end] = slot.buffer[slot.base + at : slot.base + end]
        if made.offset >= 0:
            self._describe(made, name, at, slot.order)
        slot.end = at
        self.note(slot)
        return made

    def note(self, slot: Slot) -> None:
        """Its `begin` or `end` was changed."""
        if slot.offset >= 0:
            _SPAN.pack_into(self._map, slot.offset, _HELD, slot.begin, slot.end, 0)

    def free(self, slot: Slot) -> None:
        """Its bytes are written, or given up."""
        if slot.offset < 0:
            return
        _WORD.pack_into(self._map, slot.offset, _FREE)
        (self._small if slot.room < SMALL_BYTES else self._big).append(slot.offset)

    def shrink(self) -> None:
        """Give memory back that nothing is in."""
        idle = self._dirty.intersection(self._big)
        self._dirty -= idle
        for offset in idle:
            with suppress(OSError):  # not every file system makes holes
                self._map.madvise(mmap.MADV_REMOVE, offset, BIG_BYTES)

    # Writes.

    def begin(self, slots: Iterable[Slot], ahead: int) -> Turn | None:
        """Note that these are about to be written, behind `ahead` other lines; None: so many writes are under way."""
        try:
            turn = self._turns.pop()
        except IndexError:
            return None
        number = next(self._numbers)
        turn.begin(number, ahead)
        for slot in slots:
            if slot.offset >= 0:
                _NUMBER.pack_into(self._map, slot.offset + 24, number)
        return turn

    def end(self, turn: Turn) -> None:
        """Its slots are free."""
        turn.end()
        self._turns.append(turn)

    def forget_turns(self) -> None:
        """What an earlier daemon was in the midst of is done."""
        for place in range(_TURN_AT, _TURN_AT + TURNS * _TURN_BYTES, _TURN_BYTES):
            _WORD.pack_into(self._map, place, 0)
        for item in self.left:
            _NUMBER.pack_into(self._map, item.slot.offset + 24, 0)
        self.left, self.open_turns = [], []

    def remove(self) -> None:
        """Nothing is left that another daemon could need."""
        if self._path is not None:
            with suppress(OSError):
                os.unlink(self._path)

    # What an earlier daemon has left.

    def _scan(self) -> Iterator[Left]:
        small = range(_PAGE, _PAGE + SMALL_SLOTS * SMALL_BYTES, SMALL_BYTES)
        for offsets, size in ((small, SMALL_BYTES), (range(small.stop, _SIZE, BIG_BYTES), BIG_BYTES)):
            for offset in offsets:
                left = self._read_slot(offset, size)
                if left is not None:
                    yield left

    def _read_slot(self, offset: int, size: int) -> Left | None:
        state, begin, end, asked, order, turn, wall, first, at, origin, length = _SLOT.unpack_from(self._map, offset)
        if state not in (_HELD, _READING):
            return None
        slot = Slot(self._map, offset, offset + HEADER_BYTES, size - HEADER_BYTES, order)
        slot.begin, slot.end = begin, end
        if state == _READING:
            place, few = slot.base + end, min(asked, len(_UNLIKELY))
            slot.end += asked if self._map[place : place + few] != _UNLIKELY[:few] else 0
        if not begin <= slot.end <= slot.room:
            return None  # no daemon has written this
        name = self._map[offset + _SLOT.size : offset + _SLOT.size + length].decode(errors="replace")
        return Left(slot, name, state, asked, turn, wall, first, at, origin)

    def _scan_turns(self) -> list[OpenTurn]:
        found = []
        for place in range(_TURN_AT, _TURN_AT + TURNS * _TURN_BYTES, _TURN_BYTES):
            state, lines, ahead, _, number, device, inode, offset = _TURN.unpack_from(self._map, place)
            if state == 1:
                found.append(OpenTurn(number, lines, ahead, device, inode, offset))
        return found


def open_spool(path: str) -> Spool:
    """The spool in that file; in memory, and a word in the log, where that cannot be."""
    try:
        return Spool(path)
    except OSError as error:
        log.warning(
            "cannot use %s: %s; lines that are being written when unitd is killed are lost", path, error.strerror
        )
        return Spool()


def waiting_bytes(fd: int) -> int:
    """How many bytes a pipe holds; 0 also if it cannot say."""
    try:
        return int.from_bytes(fcntl.ioctl(fd, _FIONREAD, b"\0\0\0\0"), "little")
    except OSError:
        return 0


def _open(path: str) -> tuple[mmap.mmap, bool]:
    """The file as a mapping, and whether it is a fresh one."""
    wanted = _FILE.pack(_MAGIC, boot_id().encode())
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        facts = os.fstat(descriptor)
        known = facts.st_size == _SIZE and os.pread(descriptor, _FILE.size, 0) == wanted
        if not known:
            os.ftruncate(descriptor, 0)
            os.ftruncate(descriptor, _SIZE)
            os.pwrite(descriptor, wanted, 0)
        return mmap.mmap(descriptor, _SIZE), not known
    finally:
        os.close(descriptor)
