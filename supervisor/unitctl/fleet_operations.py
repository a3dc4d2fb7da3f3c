"""`fleet ops`, `pause`, `resume` and `abort`: fleet operations that were ordered before."""

from __future__ import annotations

from typing import Any

import click

from .codes import DONE, FAILED
from .decode import raw_list
from .fleet_center import Center, path_of
from .fleet_look import look_of
from .fleet_names import OPEN_OPERATIONS, OPERATIONS, SERVICES
from .fleet_render_operations import operation_text, operations_text
from .fleet_session import Fleet, fleet_command
from .fleet_waiting import Waiting, as_operation, report
from .orders import reason_option
from .words import counted

Raw = dict[str, Any]

_DONE_WORDS = {"pause": "pauses after what is under way", "resume": "goes on", "abort": "called off"}


@fleet_command("ops")
@click.argument("ids", nargs=-1, type=OPERATIONS, metavar="[ID]...")
@click.option("-f", "--follow", is_flag=True, help="Wait until they are done, with progress; the exit code tells.")
@click.option("--open", "open_only", is_flag=True, help="Only those that have not ended.")
@click.option("--service", type=SERVICES, metavar="NAME", help="Only those of this service.")
@click.option("-n", "--limit", type=click.IntRange(1, 500), default=20, show_default=True, metavar="N", help="So many.")
@click.option("--before", metavar="ID", help="Only those older than this one.")
def fleet_ops_command(
    fleet: Fleet,
    ids: tuple[str, ...],
    follow: bool,
    open_only: bool,
    service: str | None,
    limit: int,
    before: str | None,
) -> int:
    """List fleet operations, newest first, or tell all about some."""
    center = fleet.center()
    if follow:
        return _follow(fleet, center, ids)
    if ids:
        return _tell(fleet, [_operation(center, id_) for id_ in ids])
    query = {"limit": limit, "open": "1" if open_only else None, "service": service, "before": before}
    answer = center.get("/v1/operations", {key: value for key, value in query.items() if value is not None})
    found = raw_list(answer, "operations")
    if fleet.session.json:
        fleet.session.out_json(found)
    else:
        fleet.session.out(operations_text(found, look_of(fleet)))
    return DONE


def _operation(center: Center, id_: str) -> Raw:
    return as_operation(center.get(path_of("operations", id_)))


def _tell(fleet: Fleet, found: list[Raw]) -> int:
    if fleet.session.json:
        fleet.session.out_json(found)
    else:
        fleet.session.out("\n".join(operation_text(each, look_of(fleet)) for each in found))
    return DONE


def _follow(fleet: Fleet, center: Center, ids: tuple[str, ...]) -> int:
    """One after another; those that end meanwhile are told of when it is their turn."""
    if not ids:
        raise click.UsageError("name the operations to follow")
    ended = [Waiting(fleet, center, _operation(center, id_)).run() for id_ in ids]
    if fleet.session.json:
        fleet.session.out_json(ended)
    codes = [report(fleet, operation) for operation in ended]
    return FAILED if any(codes) else DONE


def _wish(fleet: Fleet, verb: str, ids: tuple[str, ...], reason: str) -> int:
    if not ids:
        raise click.UsageError(f"name the operations to {verb}; {fleet.line('ops --open')} lists them")
    center = fleet.center()
    answers = [as_operation(center.post(path_of("operations", id_, verb), {"reason": reason})) for id_ in ids]
    if fleet.session.json:
        fleet.session.out_json(answers)
    else:
        fleet.session.out("".join(f"{each['id']}: {_DONE_WORDS[verb]}{_still_busy(each)}\n" for each in answers))
    return DONE


def _still_busy(operation: Raw) -> str:
    counts = operation.get("counts") or {}
    busy = sum(int(counts.get(state) or 0) for state in ("sent", "running", "confirming"))
    return f" ({counted(busy, 'unit')} under way)" if busy else ""


@fleet_command("pause", short_help="Let operations begin no further unit.")
@click.argument("ids", nargs=-1, type=OPEN_OPERATIONS, metavar="[ID]...")
@reason_option
def fleet_pause_command(fleet: Fleet, ids: tuple[str, ...], reason: str) -> int:
    """Let operations begin no further unit, until they are resumed. What is under way ends."""
    return _wish(fleet, "pause", ids, reason)


@fleet_command("resume")
@click.argument("ids", nargs=-1, type=OPEN_OPERATIONS, metavar="[ID]...")
@reason_option
def fleet_resume_command(fleet: Fleet, ids: tuple[str, ...], reason: str) -> int:
    """Let paused operations go on."""
    return _wish(fleet, "resume", ids, reason)


@fleet_command("abort")
@click.argument("ids", nargs=-1, type=OPEN_OPERATIONS, metavar="[ID]...")
@reason_option
def fleet_abort_command(fleet: Fleet, ids: tuple[str, ...], reason: str) -> int:
    """Call operations off. What they have done so far is not undone."""
    return _wish(fleet, "abort", ids, reason)
