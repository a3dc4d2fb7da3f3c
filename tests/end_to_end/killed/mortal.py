"""unitd, but it dies of SIGKILL before or after the n-th record of its journal, counted from when a plan appears.

The plan is JSON: [a name of its own, n, "before" or "after"].

It also writes down what became of registry entries in the journal, and when, and tells the registry when each request was
sent: how long that was on its way depends on the load of the machine. Both files are named in the environment.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from registry_client.backends.connection import HttpConnection
from supervisor.boot import main as run_unitd
from supervisor.host.journal import Journal

PLAN, TRACE = "MORTAL_PLAN", "MORTAL_TRACE"
SENT_AT = "x-sent-at"  # a header: CLOCK_BOOTTIME
MORTAL = (sys.executable, "-W", "error", "-c",
          "import sys; from tests.end_to_end.killed.mortal import main; sys.exit(main())")  # fmt: skip


def main() -> int:
    """Run unitd so; its exit code."""
    plan, trace = Path(os.environ[PLAN]), os.environ[TRACE]
    write, own_headers, known, count = Journal._write, HttpConnection._own_headers, "", 0

    def note(statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        line = json.dumps([_now(), statement, [str(row) for row in rows]]) + "\n"
        descriptor = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(descriptor, line.encode())
        os.close(descriptor)

    def counted(journal: Journal, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        nonlocal count, known
        name, number, side = json.loads(plan.read_text()) if plan.exists() else ("", 0, "")
        count = count + 1 if name == known else 1
        known = name
        if count == number and side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if statement.startswith("INSERT OR REPLACE INTO entry"):  # what it allows may follow at once
            note(statement, rows)
        write(journal, statement, rows)
        if not statement.startswith("INSERT OR REPLACE INTO entry"):
            note(statement, rows)
        if count == number and side == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    def dated(connection: HttpConnection) -> list[tuple[str, str]]:
        return [*own_headers(connection), (SENT_AT, str(_now()))]

    Journal._write = counted  # type: ignore[method-assign]
    HttpConnection._own_headers = dated  # type: ignore[method-assign]
    return run_unitd()


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
