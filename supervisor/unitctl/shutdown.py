"""`shutdown`: the daemon stops all units and ends."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from ..wire import Command, UnitStatus
from . import decode
from .client import Client, Refused, Unreachable
from .codes import DONE, INTERRUPTED, STILL_GOING, ExitWith
from .orders import new_command, no_wait_option, reason_option
from .progress import Progress
from .session import Session, command
from .words import clean, counted

_REFRESH_SECONDS = 0.5


@command("shutdown", short_help="Stop all units in order, and then unitd itself.")
@no_wait_option
@reason_option
def shutdown_command(session: Session, no_wait: bool, reason: str) -> int:
    """Stop all units in order, and then unitd itself.

    Units are stopped as with `stop all`. To replace unitd while units keep running, restart its service instead.
    """
    client = session.client(least_seconds=1.0)
    answer = client.post("/v1/shutdown", new_command(Command(reason=reason)))
    if no_wait:
        session.out("unitd is shutting down\n")
        return DONE
    _wait(session, client)
    if session.json:
        session.out_json(answer)
    else:
        session.out("unitd has ended\n")
    return DONE


def _wait(session: Session, client: Client) -> None:
    progress = Progress(session.terminal, quiet=session.quiet)
    deadline = math.inf if session.timeout is None else time.monotonic() + session.timeout
    try:
        while _goes_on(client, progress):
            left = deadline - time.monotonic()
            if left <= 0:
                raise ExitWith(STILL_GOING, f"not done within {session.timeout:g} s: unitd goes on stopping its units")
            if client.wait_closed(min(left, _REFRESH_SECONDS)):
                return
    except KeyboardInterrupt:
        raise ExitWith(INTERRUPTED, "no longer waiting: unitd goes on stopping its units") from None
    finally:
        progress.clear()


def _goes_on(client: Client, progress: Progress) -> bool:
    """Whether the daemon is still there; tells how many units it has still to stop."""
    try:
        units = decode.unit_statuses(decode.raw_list(client.get("/v1/units"), "units"))
    except Unreachable as error:
        if error.has_ended:
            return False
        raise
    except Refused:  # it no longer answers such questions
        return True
    _show(units, progress)
    return True


def _show(units: Sequence[UnitStatus], progress: Progress) -> None:
    """How many have still to stop, and what one of them waits for."""
    live = [unit for unit in units if unit.live]
    if not live:
        progress.say("waiting for unitd to end")
        return
    shown = next((unit for unit in live if unit.state != "RUNNING"), live[0])
    line = f"{counted(len(live), 'unit')} of {len(units)} still to stop"
    if shown.state != "RUNNING":
        line += f"; {clean(shown.unit)} {shown.state}: {clean(shown.why)}"
    progress.state((len(live), shown.unit, shown.phase), line)
