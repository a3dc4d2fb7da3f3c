"""The audit log on the disk: lines are appended and never changed. What a line is, `core.audit` knows.

A disk that is full or broken refuses no command: the line is lost, which is said in the log, in `unitctl doctor`, and
in the audit log itself once it can be written again.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable

from ..core.audit import AuditRecord, Mark, audit_line, mark_of
from .clock import iso

log = logging.getLogger("unitd.audit")

TAIL_BYTES = 256 * 1024  # more than two lines can be long


class AuditFile:
    """Appends to one file; without a path it keeps nothing."""

    __slots__ = ("_file", "_keep", "_mark", "_path", "lost", "trouble")

    def __init__(self, path: str | None, known: Mark, keep: Callable[[Mark], None]) -> None:
        """`known` is the mark that was kept last; `keep` is told of each new one."""
        self._path, self._mark, self._keep = path, known, keep
        self._file: int | None = None
        self.trouble = ""  # what is wrong with it, for people; "": nothing
        self.lost = 0  # records that could not be written, lately
        if path is not None:
            self._open_or_complain(path)

    def write(self, record: AuditRecord) -> None:
        """Append it, if that is possible."""
        if self._path is None:
            return
        try:
            if self._file is None or os.fstat(self._file).st_nlink == 0:
                self._close()
                self._open(self._path)
            if self.lost:
                self._append(self._note("lost", f"{self.lost} lines could not be written: {self.trouble}"))
                self.lost, self.trouble = 0, ""
            self._append(record)
        except OSError as error:
            self.lost += 1
            self._complain(f"cannot write {self._path}: {error.strerror or error}")

    def reopen(self) -> None:
        """Somebody may have moved it away: go on in a new one, whose first line follows the last one of the old."""
        if self._path is not None:
            self._close()
            self._open_or_complain(self._path)

    def _open_or_complain(self, path: str) -> None:
        try:
            self._open(path)
        except OSError as error:
            self._complain(f"cannot write {path}: {error.strerror or error}")

    def _complain(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            log.error("%s; commands are not written down there meanwhile", trouble)

    def _open(self, path: str) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        file = os.open(path, flags, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError("it is not a regular file")
            self._join(file, path)
        except BaseException:
            os.close(file)
            raise

    def _join(self, file: int, path: str) -> None:
        """Take up the chain where the file ends."""
        size = os.fstat(file).st_size
        tail = os.pread(file, TAIL_BYTES, max(0, size - TAIL_BYTES))
        lines = tail.split(b"\n")
        torn = lines.pop()
        found = Mark()
        for line in lines[-2:]:
            found = mark_of(line, found)
        if size:
            self._compare(found, path)
        self._file = file
        if torn:
            self._mark = mark_of(torn, self._mark)
            self._put(b"\n")
            self._append(self._note("mended", "the line before this one was cut off in the middle"))

    def _compare(self, found: Mark, path: str) -> None:
        known = self._mark
        if found.seq > known.seq or found == known:
            self._mark = found
            return
        if found.seq < known.seq:
            what = f"{known.seq - found.seq} lines are missing at its end"
        else:
            what = "its last line was changed"
        self.trouble = f"{path} is not as it was left: {what}"
        log.error("%s", self.trouble)

    def _append(self, record: AuditRecord) -> None:
        line, mark = audit_line(record, self._mark)
        self._put(line)
        self._mark = mark
        self._keep(mark)

    def _put(self, data: bytes) -> None:
        assert self._file is not None
        written = os.write(self._file, data)
        if written < len(data):
            size = os.fstat(self._file).st_size
            os.ftruncate(self._file, size - written)
            raise OSError(28, "No space left on device")

    def _note(self, action: str, detail: str) -> AuditRecord:
        return AuditRecord(iso(), "unitd", "", action, verdict="noted", detail=detail)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    close = _close
