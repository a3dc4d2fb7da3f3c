"""How lines look in a log. Pure: whole chunks of lines in, bytes out; no files, no clock.

A chunk is what one read of a pipe gave, cut behind its last newline, so its lines share one time. Working on
chunks instead of lines is what keeps a unit that shouts cheap.
"""

from __future__ import annotations

import errno
import os
import time
from json.encoder import encode_basestring  # the C one; text stays readable, it is not turned into \uXXXX

from ..core.model import LogFormat


def stamp(wall: float) -> str:
    """Unix time as `2026-11-24T03:41:46.123Z`."""
    seconds, milliseconds = divmod(int(wall * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z"


def count(data: bytes | bytearray) -> int:
    """How many lines `data` holds; an unfinished last one counts."""
    return data.count(b"\n") + (0 if not data or data.endswith(b"\n") else 1)


def prefixed(data: bytes, prefix: bytes) -> tuple[bytes | memoryview, ...]:
    """`data` with `prefix` before every line and a newline at its end, in parts: large ones are not copied again."""
    ahead = b"\n" + prefix
    if data.endswith(b"\n"):
        return prefix, memoryview(data.replace(b"\n", ahead))[: -len(prefix)]
    return prefix, data.replace(b"\n", ahead), b"\n"


def as_json(data: bytes, head: str, first: int) -> bytes:
    """Every line as an object: `head`, its number counted from `first`, and the text with bad UTF-8 replaced."""
    texts = data.decode("utf-8", "replace").split("\n")
    if not texts[-1]:
        texts.pop()
    quote = encode_basestring
    rows = [f'{head}{seq},"message":{quote(text)}}}\n' for seq, text in enumerate(texts, first)]
    return "".join(rows).encode()


def render(
    shape: LogFormat, unit: str, generation: int, stream: str, data: bytes, wall: float, first: int
) -> tuple[bytes | memoryview, ...]:
    """One stream's chunk as it is written, in parts. `stream` is stdout, stderr, or unitd for what we say ourselves."""
    if shape is LogFormat.RAW:
        return (data,)
    if shape is LogFormat.PREFIX:
        mark = " (stderr)" if stream == "stderr" else ""
        return prefixed(data, f"{stamp(wall)} {unit}{mark} ".encode())
    head = (
        f'{{"time":"{stamp(wall)}","unit":{encode_basestring(unit)},"generation":{generation}'
        f',"stream":"{stream}","seq":'
    )
    return (as_json(data, head, first),)


def notice(lines: int, size: int, reason: str) -> bytes:
    """What stands in a log where lines are missing."""
    return f"unitd: {lines} lines ({size} bytes) dropped: {reason}\n".encode()


def reason_of(error: OSError) -> str:
    """The cause in lower case, as our messages have it."""
    if error.errno == errno.ENXIO:
        return "nobody reads it"
    text = os.strerror(error.errno) if error.errno else str(error)
    return text[:1].lower() + text[1:]
