"""`status`, `is-active` and `why`: commands that look and change nothing."""

from __future__ import annotations

import click

from ..errors import WireError
from .client import unit_path
from .codes import DONE, NOT_RUNNING, UNKNOWN
from .decode import raw_list, unit_statuses
from .names import NAMES
from .render import NOT_RUNNING as NOT_RUNNING_STATES
from .render import status_text, why_text
from .session import Session, command


@command("status")
@click.argument("names", nargs=-1, type=NAMES, metavar="[NAME]...")
def status_command(session: Session, names: tuple[str, ...]) -> int:
    """Show units: all, or those named.

    Exit code 3: a unit is STOPPED, EXITED, FATAL or BACKOFF; 4: unknown unit, or unitd does not answer.
    """
    items = _units(session, names)
    units = unit_statuses(items)
    if session.json:
        session.out_json(items)
    else:
        session.out(status_text(units, color=session.color, verbose=session.verbose))
    if not units and not session.quiet:
        session.err("no units are configured")
    return NOT_RUNNING if any(unit.state in NOT_RUNNING_STATES for unit in units) else DONE


@command("is-active")
@click.argument("names", nargs=-1, type=NAMES, metavar="NAME...", required=True)
def is_active_command(session: Session, names: tuple[str, ...]) -> int:
    """Ask whether units serve, for scripts: RUNNING, or WARMING (on the way to the full weight).

    Prints the states (not with -q). Exit code 0: all do; 3: one does not; 4: unknown unit, or unitd does not answer.
    """
    items = _units(session, names)
    units = unit_statuses(items)
    if session.json:
        session.out_json(items)
    else:
        session.out("".join(f"{unit.state}\n" for unit in units))
    return DONE if all(unit.state in ("RUNNING", "WARMING") for unit in units) else NOT_RUNNING


def _units(session: Session, names: tuple[str, ...]) -> list[dict[str, object]]:
    session.unreachable_code = UNKNOWN
    query = {"names": ",".join(names)} if names else None
    return raw_list(session.client().get("/v1/units", query), "units")


@command("why")
@click.argument("unit", type=NAMES, metavar="UNIT")
def why_command(session: Session, unit: str) -> int:
    """Tell why a unit is as it is.

    What it waits for and until when, who keeps it out of traffic, what its probes say, how its last process ended,
    who ordered what and how far that is, its last lines on stderr.
    """
    answer = session.client().get(f"{unit_path(unit)}/why")
    if not isinstance(answer, dict) or not isinstance(answer.get("details"), list):
        raise WireError("cannot read the answer of unitd: it has no 'details'; do unitd and unitctl fit together?")
    if session.json:
        session.out_json(answer)
    else:
        session.out(why_text(str(answer.get("why") or ""), map(str, answer["details"])))
    return DONE
