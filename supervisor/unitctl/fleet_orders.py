"""`fleet restart`, `stop`, `start`, `drain`, `undrain`, `warm`, `weight`, `signal`, `apply`: commands to many units."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import click

from .codes import DONE, INTERRUPTED, ExitWith
from .fleet_center import Center, CenterRefused, CenterUnreachable, path_of
from .fleet_names import NODES, SERVICES
from .fleet_render_operations import most_at_once, plan_text
from .fleet_selection import (
    Chosen,
    Order,
    fleet_order_options,
    rolling_options,
    selection_options,
    services_argument,
)
from .fleet_session import Fleet, fleet_command
from .fleet_waiting import as_operation, conclude
from .moments import Moment
from .orders import SignalName, user
from .session import Seconds
from .traffic import Weight, check_warm, given

Raw = dict[str, Any]

PATIENCE_SECONDS = 10.0  # for a control center that hung up before it had answered
_RETRY_SECONDS = 0.5
_PERCENT = click.IntRange(1, 100)
_force_option = click.option("--force", is_flag=True, help="Stop units even if the registry does not answer.")


@fleet_command("restart", short_help="Give units a new process, in batches.")
@services_argument
@selection_options
@rolling_options
@_force_option
@fleet_order_options
def fleet_restart_command(
    fleet: Fleet, services: tuple[str, ...], chosen: Chosen, rolling: Raw, force: bool, order: Order
) -> int:
    """Give units a new process, in batches; a batch waits until the one before is at full weight.

    It begins with a canary, keeps a floor of each service's weight in the registry, and stops when units fail.
    """
    return give(fleet, "restart", chosen.selection(services), order, _force(force), rolling)


@fleet_command("stop", short_help="Stop units, when nobody sends to them any more.")
@services_argument
@selection_options
@rolling_options
@_force_option
@fleet_order_options
def fleet_stop_command(
    fleet: Fleet, services: tuple[str, ...], chosen: Chosen, rolling: Raw, force: bool, order: Order
) -> int:
    """Stop units, after they have left the registry and finished what they were asked.

    All at once, unless an option asks for batches or a floor.
    """
    return give(fleet, "stop", chosen.selection(services), order, _force(force), rolling)


@fleet_command("start")
@services_argument
@selection_options
@fleet_order_options
def fleet_start_command(fleet: Fleet, services: tuple[str, ...], chosen: Chosen, order: Order) -> int:
    """Start units.

    A stopped unit is in no registry: name its node and unit (--node web-7 --unit cart:0).
    """
    return give(fleet, "start", chosen.selection(services), order)


@fleet_command("drain", short_help="Keep units out of traffic, with their processes alive.")
@services_argument
@selection_options
@click.option("--for", "for_", type=Seconds(), metavar="DURATION", help="Undrain them after this time (90s, 2h, 3d).")
@click.option("--until", type=Moment(), metavar="TIME", help="Undrain them then (18:00, 2026-11-24T18:00Z).")
@click.option("--owner", metavar="NAME", help="Who keeps them out; you, if not given.")
@rolling_options
@fleet_order_options
def fleet_drain_command(
    fleet: Fleet,
    services: tuple[str, ...],
    chosen: Chosen,
    for_: float | None,
    until: str | None,
    owner: str | None,
    rolling: Raw,
    order: Order,
) -> int:
    """Keep units out of traffic, with their processes alive; `--node web-7` empties a host.

    All at once, unless an option asks for batches or a floor.
    """
    if for_ is not None and until is not None:
        raise click.UsageError("--for and --until exclude each other: give one of them, or none to drain until undrain")
    if for_ == 0:
        raise click.UsageError("--for 0 would drain nothing: give a time such as 90s, or none to drain until undrain")
    parameters = given(for_seconds=for_, until=until, owner=owner)
    return give(fleet, "drain", chosen.selection(services), order, parameters, rolling)


@fleet_command("undrain", short_help="Let drained units into traffic again.")
@services_argument
@selection_options
@fleet_order_options
def fleet_undrain_command(fleet: Fleet, services: tuple[str, ...], chosen: Chosen, order: Order) -> int:
    """Let drained units into traffic again; their weight grows from the start.

    A drained unit is in no registry: name its node and unit (--node web-7 --unit 'cart:*').
    """
    return give(fleet, "undrain", chosen.selection(services), order)


@fleet_command("warm", short_help="Let the weight of units grow from the start.")
@services_argument
@selection_options
@click.option("--initial", type=_PERCENT, metavar="N", help="Begin with N percent of the full weight.")
@click.option("--step", type=_PERCENT, metavar="N", help="Add N percent after each period.")
@click.option("--period", type=Seconds(), metavar="DURATION", help="The time between two steps (10s, 2m).")
@click.option("--pause", is_flag=True, help="Stay at the present weight.")
@click.option("--resume", is_flag=True, help="Go on growing.")
@click.option("--jump", type=_PERCENT, metavar="PERCENT", help="Go to that percentage at once, and on from there.")
@fleet_order_options
def fleet_warm_command(fleet: Fleet, services: tuple[str, ...], chosen: Chosen, order: Order, **wishes: Any) -> int:
    """Let the weight of units grow from the start, or change how it grows."""
    parameters = given(**{key: value for key, value in wishes.items() if value is not False})
    check_warm(parameters)
    return give(fleet, "warm", chosen.selection(services), order, parameters)


@fleet_command("weight")
@click.argument("services", nargs=-1, type=SERVICES, metavar="[NAME]...")
@click.argument("weight", type=Weight(), metavar="N|auto")
@selection_options
@fleet_order_options
def fleet_weight_command(
    fleet: Fleet, services: tuple[str, ...], weight: int | str, chosen: Chosen, order: Order
) -> int:
    """Fix the weight of units at N, or give it back (auto)."""
    return give(fleet, "weight", chosen.selection(services), order, {"weight": weight})


@fleet_command("signal")
@click.argument("signal", type=SignalName(), metavar="SIGNAL")
@services_argument
@selection_options
@fleet_order_options
def fleet_signal_command(fleet: Fleet, signal: str, services: tuple[str, ...], chosen: Chosen, order: Order) -> int:
    """Send a signal to the main process of units.

    SIGNAL is a name or a number: HUP, SIGUSR1, 15.
    """
    return give(fleet, "signal", chosen.selection(services), order, {"signal": signal})


@fleet_command("apply", short_help="Let nodes apply their changed configuration.")
@click.argument("names", nargs=-1, type=NODES, metavar="[NODE]...")
@selection_options
@rolling_options
@fleet_order_options
def fleet_apply_command(fleet: Fleet, names: tuple[str, ...], chosen: Chosen, rolling: Raw, order: Order) -> int:
    """Let nodes read their configuration again and do what has changed.

    NODE is a node (web-7) or a glob ('web-*').
    """
    return give(fleet, "apply", chosen.selection((), names), order, None, rolling)


def _force(force: bool) -> Raw:
    return {"force": True} if force else {}


def give(
    fleet: Fleet, verb: str, selection: Raw, order: Order, parameters: Raw | None = None, rolling: Raw | None = None
) -> int:
    """Order it, wait for it unless told otherwise, and print how it ended; the exit code."""
    center = fleet.center()
    request = {
        "command_id": order.command_id or uuid4().hex,
        "verb": verb,
        "selection": selection,
        "parameters": parameters or {},
        "issued_by": user(),
        **order.members(),
        **(rolling or {}),
    }
    if order.dry_run:
        return _show_plan(fleet, center, _preview(center, request))
    _confirm(fleet, center, request, order)
    operation = _send(fleet, center, request)
    if order.no_wait:
        if fleet.session.json:
            fleet.session.out_json(operation)
        else:
            fleet.session.out(f"{operation['id']}\n")
        return DONE
    return conclude(fleet, center, operation)


def _preview(center: Center, request: Raw) -> Raw:
    return as_operation(center.post("/v1/operations", {**request, "dry_run": True}))


def _show_plan(fleet: Fleet, center: Center, plan: Raw) -> int:
    if fleet.session.json:
        fleet.session.out_json(plan)
    else:
        fleet.session.out(_plan_text(center, plan))
    return DONE


def _plan_text(center: Center, plan: Raw) -> str:
    services = {str(target["service"]) for target in plan.get("targets") or () if target.get("service")}
    return plan_text(
        plan, {name: found for name in sorted(services) if (found := _service(center, name))}, datetime.now(UTC)
    )


def _service(center: Center, name: str) -> Raw | None:
    """A service as it is now; None if it has gone meanwhile."""
    try:
        found = center.get(path_of("services", name))
    except CenterRefused:
        return None
    return found if isinstance(found, dict) else None


def _confirm(fleet: Fleet, center: Center, request: Raw, order: Order) -> None:
    """Show a person what would be done, and ask, if that is more than one unit at once."""
    if order.yes or not _has_person():
        return
    plan = _preview(center, request)
    if most_at_once(plan) < 2:
        return
    fleet.session.terminal.raw_err(_plan_text(center, plan))
    try:
        click.confirm("Do it?", abort=True, err=True)
    except click.Abort:
        raise ExitWith(INTERRUPTED, "nothing was ordered") from None


def _has_person() -> bool:
    """Whether somebody at a terminal can see a question and answer it."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def _send(fleet: Fleet, center: Center, request: Raw) -> Raw:
    """Order it; again under the same id, where the answer was lost: it is done once."""
    seconds = PATIENCE_SECONDS if fleet.session.timeout is None else min(fleet.session.timeout, PATIENCE_SECONDS)
    deadline = time.monotonic() + seconds
    sent = False
    try:
        while True:
            try:
                return as_operation(center.post("/v1/operations", request))
            except CenterUnreachable as error:
                sent = sent or error.may_have_counted
                if not sent or not error.may_pass:
                    raise
                if time.monotonic() > deadline:
                    raise ExitWith(error.code, f"{error}; {_repeat(request)}") from error
                time.sleep(_RETRY_SECONDS)
    except KeyboardInterrupt:
        message = f"interrupted before the control center had answered; {_repeat(request)}"
        raise ExitWith(INTERRUPTED, message) from None


def _repeat(request: Raw) -> str:
    from shlex import quote

    return (
        "it may have been taken: the same command again tells, and does it only once, with\n"
        f"    --command-id {quote(request['command_id'])}"
    )
