"""What an earlier daemon had read and not written: which of it is in the logs all the same is found out here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .spool import Left, OpenTurn, Spool

MAX_TURN_BYTES = 64 * 1024 * 1024  # more is not written at once


class Place(NamedTuple):
    """Where a stream's lines go; `raw`: as they came."""

    path: str
    raw: bool


def settle(spool: Spool, place_of: Callable[[str], Place | None]) -> dict[str, list[Left]]:
    """By the name of a stream: what of it is still to be written, in order. `place_of` tells a stream's log."""
    left = sorted(spool.left, key=lambda item: item.slot.order)
    _cut_what_is_elsewhere(spool, left)
    for turn in spool.open_turns:
        members = [item for item in left if item.turn == turn.number]
        place = place_of(members[0].name) if members else None
        if place is not None:
            _skip_written(spool, members, turn, place)
    spool.forget_turns()
    found: dict[str, list[Left]] = {}
    for item in left:
        if item.slot.size:
            found.setdefault(item.name, []).append(item)
        else:
            spool.free(item.slot)
    return found


def _cut_what_is_elsewhere(spool: Spool, left: Iterable[Left]) -> None:
    """The end of one slot was copied to the next, and the first may not have been cut any more."""
    by_order = {item.slot.order: item.slot for item in left}
    for item in left:
        origin = by_order.get(item.origin)
        if origin is not None and origin.end > item.at:
            origin.end = max(origin.begin, item.at)
            spool.note(origin)
        spool.note(item.slot)


def _skip_written(spool: Spool, members: Iterable[Left], turn: OpenTurn, place: Place) -> None:
    """Move past what the log has got of a write: whole lines, and where lines go as they came, a part of one."""
    written = _gained(place, turn)
    lines = max(0, turn.lines + written.count(b"\n") - turn.ahead)
    rest = len(written) - (written.rfind(b"\n") + 1)
    for item in members:
        slot = item.slot
        data = bytes(slot.data)
        gone = _behind(data, lines)
        lines -= data.count(b"\n", 0, gone)
        if gone < len(data):
            gone = len(data) if lines else min(len(data), gone + rest)
            lines = rest = 0
        slot.begin += gone
        spool.note(slot)


def _behind(data: bytes, lines: int) -> int:
    """Where so many lines end; what has fewer ends itself, or before its unfinished last one."""
    if data.count(b"\n") <= lines:
        return data.rfind(b"\n") + 1
    end = 0
    for _ in range(lines):
        end = data.index(b"\n", end) + 1
    return end


def _gained(place: Place, turn: OpenTurn) -> bytes:
    """What a file has got since the write began; of lines that were changed, whole ones."""
    fd = _find(place.path, turn)
    if fd < 0:
        return b""
    try:
        written = os.pread(fd, MAX_TURN_BYTES, turn.offset)
        whole = written.rfind(b"\n") + 1
        if not place.raw and whole < len(written):
            os.ftruncate(fd, turn.offset + whole)
            return written[:whole]
        return written
    except OSError:
        return b""
    finally:
        os.close(fd)


def _find(path: str, turn: OpenTurn) -> int:
    """A descriptor of the file, which may have been renamed meanwhile; -1: there is none."""
    number = 0
    while turn.inode:
        try:
            fd = os.open(f"{path}.{number}" if number else path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            if number:
                break
        else:
            facts = os.fstat(fd)
            if (facts.st_dev, facts.st_ino) == (turn.device, turn.inode):
                return fd
            os.close(fd)
        number += 1
    return -1
