"""What is printed once operations were ordered: their ids, or how they ended."""

from __future__ import annotations

from typing import Any

from ..errors import SupervisorError
from ..wire import Operation, UnitStatus
from . import decode
from .client import Client
from .codes import DONE, FAILED
from .render_operations import cut_line, did_something, failure_line, result_line, step_lines
from .session import Session
from .waiting import Waiting

_LONGEST_QUERY = 4000  # characters of unit names in a URL; beyond that all units are asked for

_TOLD_OF = ("start", "restart", "drain")  # verbs whose result tells more of the unit

Raw = dict[str, Any]


def conclude(session: Session, client: Client, raw: list[Raw], *, no_wait: bool = False, signal: str = "") -> int:
    """Wait for operations and print how they ended, or their ids with `no_wait`; the exit code."""
    if no_wait:
        return _print_ids(session, raw)
    ended = Waiting(session, client, raw).run()
    if session.json:
        session.out_json(ended)
    return report(session, client, decode.operations(ended), signal=signal)


def _print_ids(session: Session, raw: list[Raw]) -> int:
    if session.json:
        session.out_json(raw)
    else:
        session.out("".join(f"{operation.id}\n" for operation in decode.operations(raw)))
    return DONE


def report(session: Session, client: Client, operations: list[Operation], *, signal: str = "") -> int:
    """Print successes on stdout (not for JSON), warnings and failures on stderr; the exit code."""
    failed = [operation for operation in operations if operation.state != "succeeded"]
    if not session.json and not session.quiet:
        statuses = _statuses(client, operations)
        lines = []
        for operation in operations:
            if operation.state == "succeeded":
                lines.append(result_line(operation, statuses.get(operation.unit), signal))
                lines += step_lines(operation) if session.verbose else ()
        session.out("".join(f"{line}\n" for line in lines))
    warnings = [line for line in map(cut_line, operations) if line]
    if warnings and not session.quiet:
        session.err("\n".join(warnings))
    if failed:
        session.err("\n".join(failure_line(operation) for operation in failed))
    return FAILED if failed else DONE


def _statuses(client: Client, operations: list[Operation]) -> dict[str, UnitStatus]:
    """The units that were started or drained, as they are now; {} when they cannot be asked for: that is no failure."""
    names = [
        operation.unit
        for operation in operations
        if operation.verb in _TOLD_OF and operation.state == "succeeded" and did_something(operation)
    ]
    if not names:
        return {}
    joined = ",".join(names)
    try:
        answer = client.get("/v1/units", {"names": joined} if len(joined) < _LONGEST_QUERY else None)
        return {status.unit: status for status in decode.unit_statuses(decode.raw_list(answer, "units"))}
    except SupervisorError:
        return {}
