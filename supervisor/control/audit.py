"""What the audit log says of commands."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

from ..core.audit import AuditRecord, Mark
from ..core.doctor import PROBLEM, Finding
from ..errors import WireError
from ..host.audit_file import AuditFile
from ..host.clock import iso
from ..host.http_message import Request
from ..host.journal import Journal
from ..wire import Command, decode_command

REPEATED = ("Command-Repeated", "true")  # a header of answers to commands that were known
_KIND, _LAST = "audit", "last"  # of the journal's fact


class Auditor:
    """Writes commands down: one line each, before the answer goes out."""

    def __init__(self, file: AuditFile | None) -> None:
        self._file = file

    def accepted(self, request: Request, who: str, parts: tuple[str, ...], *, repeated: bool) -> None:
        """It was carried out, or will be; or it was known and has got its answer once more."""
        self._write(request, who, parts, "repeated" if repeated else "accepted", None, "")

    def refused(self, request: Request, who: str, parts: tuple[str, ...], code: str, detail: str) -> None:
        """It was not."""
        self._write(request, who, parts, "refused", code, detail)

    def findings(self) -> list[Finding]:
        """What the doctor should say."""
        if self._file is None or not self._file.trouble:
            return []
        lost = f"; {self._file.lost} commands are missing in it" if self._file.lost else ""
        action = "make room, or give the file back; unitctl audit --verify looks at all of it"
        return [Finding(PROBLEM, "audit", "audit log", self._file.trouble + lost, action)]

    def _write(
        self, request: Request, who: str, parts: tuple[str, ...], verdict: str, code: str | None, detail: str
    ) -> None:
        if self._file is None:
            return
        command = _command_of(request.body)
        record = AuditRecord(iso(), who, request.peer.address, request.path.rpartition("/")[2])
        self._file.write(
            replace(
                record,
                target=parts[0] if parts else "",
                command_id=command.command_id,
                reason=command.reason,
                issued_by=command.issued_by,
                verdict=verdict,
                code=code,
                detail=detail,
            )
        )


def _command_of(body: bytes) -> Command:
    try:
        return decode_command(body)
    except WireError:
        return Command()


def open_audit(path: str | None, journal: Journal) -> AuditFile:
    """The audit log; the journal remembers how far it has come."""
    return AuditFile(path, _known(journal), lambda mark: journal.record_fact(_KIND, _LAST, json.dumps(asdict(mark))))


def _known(journal: Journal) -> Mark:
    try:
        value: Any = json.loads(journal.fact(_KIND, _LAST) or "{}")
        return Mark(int(value.get("seq", 0)), str(value.get("digest", "")))
    except (ValueError, TypeError, AttributeError):
        return Mark()
