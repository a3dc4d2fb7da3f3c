"""`fleet decisions`, `thaw`, `clear`, `mode`: what the control center decides by itself, and what people say to it."""

from __future__ import annotations

from typing import Any

import click

from .codes import DONE
from .decode import raw_list
from .fleet_center import path_of
from .fleet_look import look_of
from .fleet_names import INSTANCES, SERVICES
from .fleet_render import decision_text, decisions_text
from .fleet_session import Fleet, fleet_command
from .orders import reason_option
from .session import TextType
from .words import clean

Raw = dict[str, Any]


@fleet_command("decisions", short_help="List what was decided on reports of dead units.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--service", type=SERVICES, metavar="NAME", help="Only those about this service.")
@click.option("--instance", type=INSTANCES, metavar="NODE/UNIT", help="Only those about this instance.")
@click.option("-n", "--limit", type=click.IntRange(1, 500), default=20, show_default=True, metavar="N", help="So many.")
@click.option("--before", type=click.IntRange(1), metavar="ID", help="Only those older than this one.")
def fleet_decisions_command(
    fleet: Fleet, ids: tuple[str, ...], service: str | None, instance: str | None, limit: int, before: int | None
) -> int:
    """List what was decided on reports of dead units, newest first, or tell all about some.

    With -v, and of those that are named, with the evidence.
    """
    center = fleet.center()
    if ids:
        found = [center.get(path_of("decisions", id_)) for id_ in ids]
    else:
        query = {"limit": limit, "before": before, "service": service, "instance": instance}
        answer = center.get("/v1/decisions", {key: value for key, value in query.items() if value is not None})
        found = raw_list(answer, "decisions")
    if fleet.session.json:
        fleet.session.out_json(found)
    elif ids or fleet.session.verbose:
        fleet.session.out("\n".join(decision_text(each, look_of(fleet)) for each in found))
    else:
        fleet.session.out(decisions_text(found, look_of(fleet)))
    return DONE


@fleet_command("thaw", short_help="Allow automatic restarts of a service again.")
@click.argument("service", type=SERVICES, metavar="SERVICE")
@reason_option
def fleet_thaw_command(fleet: Fleet, service: str, reason: str) -> int:
    """Allow automatic restarts of a service again, of which too many units looked dead at once."""
    answer = fleet.center().post(path_of("services", service, "thaw"), {"reason": reason})
    return _told(fleet, answer, f"{clean(service)}: automatic restarts are allowed again")


class InstanceName(TextType):
    """`web-7/cart:0`."""

    name = "instance"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Node and unit."""
        node, slash, unit = str(value).partition("/")
        if not (node and slash and unit):
            self.fail(f"{value!r} is not an instance such as web-7/cart:0", param, ctx)
        return node, unit

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """The instances that begin so."""
        return INSTANCES.shell_complete(ctx, param, incomplete)


@fleet_command("clear", short_help="Forget how often an instance was restarted.")
@click.argument("instance", type=InstanceName(), metavar="NODE/UNIT")
@reason_option
def fleet_clear_command(fleet: Fleet, instance: tuple[str, str], reason: str) -> int:
    """Forget how often an instance was restarted, so that it may be restarted automatically again."""
    node, unit = instance
    answer = fleet.center().post(path_of("instances", node, unit, "clear"), {"reason": reason})
    return _told(fleet, answer, f"{clean(node)}/{clean(unit)}: its restarts are forgotten")


@fleet_command("mode", short_help="Show or set what the control center does by itself.")
@click.argument("mode", required=False, type=click.Choice(["observe", "assist", "full"]))
@reason_option
def fleet_mode_command(fleet: Fleet, mode: str | None, reason: str) -> int:
    """Show or set what the control center may do by itself when gateways report dead units.

    observe: decide and show, do nothing. assist: restart what two gateways, or one and the node itself, call dead.
    full: one gateway is enough where the node does not contradict.
    """
    center = fleet.center()
    if mode is None:
        answer = center.get("/v1/center")
    else:
        answer = center.put("/v1/center/mode", {"mode": mode, "reason": reason})
    return _told(fleet, answer, clean(str(answer.get("mode"))))


def _told(fleet: Fleet, answer: Raw, words: str) -> int:
    if fleet.session.json:
        fleet.session.out_json(answer)
    else:
        fleet.session.out(f"{words}\n")
    return DONE
