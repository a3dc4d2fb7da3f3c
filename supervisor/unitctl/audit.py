"""`audit`: who has commanded what, from the file that unitd keeps."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from typing import Any

import click

from ..core.audit import Verified, verify
from ..errors import ConfigError
from .address import DEFAULT_CONFIG
from .codes import DONE, FAILED
from .session import Session, command
from .words import clean, counted

Record = dict[str, Any]


@command("audit")
@click.option(
    "-n", "--lines", "count", metavar="N", type=click.IntRange(0), default=20, help="The last N commands (20)."
)
@click.option("--verify", "look", is_flag=True, help="Look for lines that were changed, added or removed.")
@click.option("--file", "path", metavar="FILE", type=click.Path(), help="Another file, such as an older one.")
def audit_command(session: Session, count: int, look: bool, path: str | None) -> int:
    """Show the commands that unitd has accepted or refused, oldest first.

    Needs no running unitd: it reads the file that audit_log in the configuration names. Each line holds the hash of
    the one before it.

    Exit code 1: --verify has found something.
    """
    path = path or _configured(session)
    if look:
        return _verify(session, path)
    last = deque(_lines(path), count)
    records = [record for line in last if (record := _parsed(line)) is not None]
    if session.json:
        session.out_json({"file": path, "records": records})
    else:
        session.out("".join(f"{_text_of(record)}\n" for record in records))
    return DONE


def _configured(session: Session) -> str:
    from .. import config  # knows the files' format; few commands need it

    main = os.path.abspath(session.config or DEFAULT_CONFIG)
    path = config.load(main).daemon.audit_log
    if path is None:
        raise ConfigError('no commands are written down: audit_log is ""', path=main, key="daemon.audit_log")
    return path


def _lines(path: str) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            for line in file:
                yield line.rstrip(b"\n")
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", path=path) from error


def _parsed(line: bytes) -> Record | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _text_of(record: Record) -> str:
    """`AT  WHO (PEER)  ACTION TARGET: VERDICT (CODE: DETAIL); REASON; for ISSUER`, as one printable line."""
    what = " ".join(str(record[key]) for key in ("action", "target") if record.get(key))
    peer = f" ({record['peer']})" if record.get("peer") else ""
    more = ": ".join(str(record[key]) for key in ("code", "detail") if record.get(key))
    text = f"{record.get('at')}  {record.get('who')}{peer}  {what}: {record.get('verdict')}" + (
        f" ({more})" if more else ""
    )
    if record.get("reason"):
        text += f"; {record['reason']}"
    if record.get("issued_by"):
        text += f"; for {record['issued_by']}"
    return clean(text)


def _verify(session: Session, path: str) -> int:
    found = verify(_lines(path))
    if session.json:
        session.out_json(
            {
                "file": path,
                "lines": found.lines,
                "first": found.first,
                "last": found.mark.seq,
                "hash": found.mark.digest,
                "torn": found.torn,
                "faults": found.faults,
            }
        )
    else:
        session.out(f"{_sum_up(found)}\n")
        for fault in found.faults:
            session.err(f"unitctl: {path}: {fault}")
    return FAILED if found.faults else DONE


def _sum_up(found: Verified) -> str:
    if not found.lines:
        return "no lines"
    torn = f", {counted(found.torn, 'line')} torn by a crash" if found.torn else ""
    words = f"{counted(found.lines, 'line')}, numbers {found.first} to {found.mark.seq}{torn}"
    if found.faults:
        return f"{words}: {counted(len(found.faults), 'fault')}"
    return f"{words}: each follows the one before it; the hash of the last is {found.mark.digest}"
