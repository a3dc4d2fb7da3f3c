"""nginx's logs: followed in small steps, through rotation and truncation, and read line by line.

The error log must be of level `warn`. Of its lines, what comes before `, client:` is nginx's own, and so is
`upstream:`; what clients sent stands between and after. The access log holds nothing of clients:

    log_format unitd '$msec $status $request_time | $upstream_addr | $upstream_status | $upstream_response_time';
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from time import monotonic

from ..model import Symptom

STEP_BYTES = 64 * 1024
BEHIND_BYTES = 4 * 1024 * 1024  # who is further behind goes on at the end: it is evidence, not bookkeeping
ROTATED_SECONDS = 10.0  # nginx writes to the file that was moved away until it is told to open its logs again
_LINE_BYTES = 64 * 1024
_REMEMBERED = 100  # bytes at the beginning, where a time stands, which tell whether it was truncated and written anew


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a line of the error log says."""

    name: str  # of a place, or of an upstream
    symptom: Symptom | None  # None: there were no live upstreams
    disabled: bool  # nginx sends nothing to it for a while
    words: str


_CAUSES = (
    ("connect() failed (110", Symptom.CONNECT_TIMEOUT),
    ("connect() failed", Symptom.CONNECT_REFUSED),
    ("upstream prematurely closed", Symptom.ERROR_ANSWERS),
    ("upstream sent", Symptom.ERROR_ANSWERS),  # something that is no HTTP
    ("recv() failed", Symptom.ERROR_ANSWERS),
    ("writev() failed", Symptom.ERROR_ANSWERS),
    ("send() failed", Symptom.ERROR_ANSWERS),
)
_ERROR = re.compile(
    r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[(?:error|warn|crit)\] \d+#\d+: (?:\*\d+ )?(?P<words>.*?), client: "
    r'.*?, upstream: "[a-z]+://(?P<name>[^/"]+)'
)


def trouble(line: str) -> Trouble | None:
    """What a line of the error log says of an upstream server; None: nothing."""
    match = _ERROR.match(line)
    if match is None:
        return None
    words, name = match["words"], match["name"]
    if words.startswith("no live upstreams"):
        return Trouble(name, None, False, words)
    symptom = _symptom(words)
    if symptom is None:
        return None
    return Trouble(name, symptom, words.startswith("upstream server temporarily disabled"), words)


def _symptom(words: str) -> Symptom | None:
    connecting = "while connecting to upstream" in words
    if words.startswith("upstream timed out"):
        return Symptom.CONNECT_TIMEOUT if connecting else Symptom.RESPONSE_TIMEOUT
    if words.startswith("upstream server temporarily disabled"):
        return Symptom.CONNECT_REFUSED if connecting else Symptom.RESPONSE_TIMEOUT
    return next((symptom for start, symptom in _CAUSES if words.startswith(start)), None)


_ACCESS = re.compile(r"\d+\.\d+ \d{3} [\d.]+ \| (?P<places>[^|]+) \| (?P<statuses>[\d, :-]+) \| [\d., :-]+")


def attempts(line: str) -> list[tuple[str, int]]:
    """(place, status) of each server that a request was sent to, in their order; 0: there was no answer."""
    match = _ACCESS.fullmatch(line)
    if match is None or match["places"] == "-":
        return []
    places, statuses = (_several(match[name]) for name in ("places", "statuses"))
    return [(place, int(status) if status.isdigit() else 0) for place, status in zip(places, statuses, strict=False)]


def _several(text: str) -> list[str]:
    """nginx separates servers with a comma, and groups of them (after an internal redirect) with a colon."""
    return [word for word in re.split(r", | : ", text) if word]


class Tail:
    """What is written to a log from now on."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._files: list[_File] = []  # the last one is the present one
        self.skipped_bytes = 0
        self.complaint = ""  # why it cannot be read
        self._is_closed = False

    def begin(self) -> None:
        """From here on; a file that is there later is read from its beginning."""
        self._follow()
        for file in self._files:
            file.seek_end()

    def step(self) -> list[str] | None:
        """The next whole lines; None: there are no more now."""
        if self._is_closed:
            return None
        self._follow()
        for file in self._files:
            self.skipped_bytes += file.catch_up()
            lines = file.step()
            if lines is not None:
                return lines
        return None

    def close(self) -> None:
        """There are no more lines. May be called twice."""
        self._is_closed = True
        while self._files:
            self._files.pop().close()

    def _follow(self) -> None:
        """Open the file that now has the name, and close what has been rotated away for long enough."""
        now = monotonic()
        while len(self._files) > 1 and (now - self._files[1].since > ROTATED_SECONDS or len(self._files) > 3):
            self._files.pop(0).close()
        try:
            found = os.stat(self.path)
            if self._files and self._files[-1].is_same(found):
                return
            if not stat.S_ISREG(found.st_mode):
                self.complaint = "it is no regular file"
                return
            self._files.append(_File(self.path, now))
            self.complaint = ""
        except FileNotFoundError:
            self.complaint = ""
        except OSError as error:
            self.complaint = error.strerror or str(error)


class _File:
    """One file, which may have lost its name."""

    __slots__ = ("_descriptor", "_head", "_identity", "_offset", "_rest", "since")

    def __init__(self, path: str, now: float) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        found = os.fstat(self._descriptor)
        self._identity = found.st_dev, found.st_ino
        self._offset, self._head = 0, b""
        self._rest: bytes | None = b""  # the line that has begun; None: it is passed over
        self.since = now

    def is_same(self, found: os.stat_result) -> bool:
        return self._identity == (found.st_dev, found.st_ino)

    def seek_end(self) -> None:
        """Pass over what there is; in the middle of a line, also over the rest of it."""
        self._offset = os.fstat(self._descriptor).st_size
        self._remember()
        last = os.pread(self._descriptor, 1, max(0, self._offset - 1))
        self._rest = b"" if last in (b"\n", b"") else None

    def catch_up(self) -> int:
        """Begin anew when it was truncated, and pass over what is too much. Returns the bytes passed over."""
        if self._was_truncated():
            self._offset, self._head, self._rest = 0, b"", b""
        size = os.fstat(self._descriptor).st_size
        behind = size - self._offset
        if behind <= BEHIND_BYTES:
            return 0
        self._offset, self._rest = size - STEP_BYTES, None
        self._remember()
        return behind - STEP_BYTES

    def step(self) -> list[str] | None:
        part = os.pread(self._descriptor, STEP_BYTES, self._offset)
        if not part:
            return None
        self._offset += len(part)
        self._remember()
        first, *more = part.split(b"\n")
        if not more:
            self._keep(first)
            return []
        lines = [] if self._rest is None else [self._rest + first]
        self._rest = b""
        self._keep(more.pop())
        return [line.decode(errors="replace") for line in (*lines, *more)]

    def close(self) -> None:
        os.close(self._descriptor)

    def _keep(self, begun: bytes) -> None:
        if self._rest is not None:
            self._rest = self._rest + begun if len(self._rest) + len(begun) <= _LINE_BYTES else None

    def _remember(self) -> None:
        if len(self._head) < _REMEMBERED:
            self._head = os.pread(self._descriptor, min(_REMEMBERED, self._offset), 0)

    def _was_truncated(self) -> bool:
        """Even when it has grown to the same size since."""
        size = os.fstat(self._descriptor).st_size
        return size < self._offset or os.pread(self._descriptor, len(self._head), 0) != self._head
