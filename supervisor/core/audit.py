"""The audit log as text: one command is one line of JSON that holds the hash of the line before it. Pure.

A line that was changed, taken out or put in does not fit to its neighbours any more. Lines that were cut off at the end
leave no trace in the rest: whoever keeps the log remembers the last `Mark` elsewhere. A line that was torn when the
machine died is part of the chain like any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from .digest import sha256_hex

MAX_TEXT = 1000  # characters of one value: somebody's reason must not fill the disk


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a log has come: the number of its last line, and that line's hash."""

    seq: int = 0
    digest: str = ""  # "": there was none


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One command, accepted or refused. It never holds a credential."""

    at: str
    who: str  # the principal, or the uid that the kernel tells
    peer: str  # where it came from
    action: str  # restart, apply, shutdown, ...
    target: str = ""  # the units as they were named, or an operation's id
    command_id: str | None = None
    reason: str = ""
    issued_by: str = ""
    verdict: str = "accepted"  # accepted | repeated | refused
    code: str | None = None  # the problem's, of what was refused
    detail: str = ""


@dataclass(slots=True)
class Verified:
    """What came out of looking at every line."""

    lines: int = 0
    first: int | None = None  # number of the first one: above 1 if the log was moved away before
    mark: Mark = field(default_factory=Mark)
    torn: int = 0  # lines that are none, where the log goes on as it should
    faults: list[str] = field(default_factory=list)


def audit_line(record: AuditRecord, before: Mark) -> tuple[bytes, Mark]:
    """The line to write, with its newline, and the mark after it."""
    seq = before.seq + 1
    value = {"seq": seq, **{name: _short(getattr(record, name)) for name in record.__slots__}, "before": before.digest}
    line = json.dumps(value, separators=(",", ":")).encode()
    return line + b"\n", Mark(seq, sha256_hex(line))


def _short(value: str | None) -> str | None:
    return value if value is None or len(value) <= MAX_TEXT else value[:MAX_TEXT] + "..."


def mark_of(line: bytes, before: Mark) -> Mark:
    """The mark after that line (without its newline); a torn one counts with the number of the one before."""
    seq = _parsed(line)[0]
    return Mark(before.seq if seq is None else seq, sha256_hex(line))


def _parsed(line: bytes) -> tuple[int | None, str]:
    """(seq, before) of a line; (None, "") if it is no record."""
    try:
        value = json.loads(line)
        seq, before = value["seq"], value["before"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None, ""
    if not isinstance(seq, int) or isinstance(seq, bool) or not isinstance(before, str):
        return None, ""
    return seq, before


def verify(lines: Iterable[bytes], known: Mark | None = None) -> Verified:
    """Look at every line (without newlines). `known` is the last mark that somebody else has kept."""
    result, before, gap = Verified(), Mark(), ""
    for number, line in enumerate(lines, 1):
        seq, claimed = _parsed(line)
        if seq is None:
            gap = f"line {number} is no record"
            result.torn += 1
        elif result.first is None:
            result.first = seq
            if seq == 1 and claimed and not gap:
                result.faults.append(f"line {number} is numbered 1 and follows another one that is not there")
            gap = ""
        elif claimed != before.digest:
            result.faults.append(f"line {number} does not follow the one before it" + (f": {gap}" if gap else ""))
            gap = ""
        elif seq != before.seq + 1:
            result.faults.append(f"line {number} has the number {seq} after {before.seq}")
            gap = ""
        else:
            gap = ""
        before = mark_of(line, before)
        result.lines = number
    if gap:
        result.faults.append(f"{gap}, and nothing follows it")
    result.mark = before
    _compare(result, known)
    return result


def _compare(result: Verified, known: Mark | None) -> None:
    if known is None or not known.seq:
        return
    if result.mark.seq < known.seq:
        missing = known.seq - result.mark.seq
        result.faults.append(f"{missing} lines are missing at the end: {known.seq} were written")
    elif result.mark.seq == known.seq and result.mark.digest != known.digest:
        result.faults.append(f"the last line is not the one that was written as number {known.seq}")
