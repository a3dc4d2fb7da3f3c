"""`fleet`: the group of commands that speak to the control center."""

from __future__ import annotations

import click

from .fleet_session import center_options, fleet_shared_options
from .lazy import LazyGroup

FLEET_COMMANDS = {  # command: its module; in the order of the help
    "status": "fleet_status",
    "services": "fleet_status",
    "nodes": "fleet_status",
    "gateways": "fleet_status",
    "restart": "fleet_orders",
    "drain": "fleet_orders",
    "undrain": "fleet_orders",
    "start": "fleet_orders",
    "stop": "fleet_orders",
    "warm": "fleet_orders",
    "weight": "fleet_orders",
    "signal": "fleet_orders",
    "apply": "fleet_orders",
    "ops": "fleet_operations",
    "pause": "fleet_operations",
    "resume": "fleet_operations",
    "abort": "fleet_operations",
    "decisions": "fleet_guards",
    "thaw": "fleet_guards",
    "clear": "fleet_guards",
    "mode": "fleet_guards",
    "events": "fleet_watch",
    "logs": "fleet_watch",
}


class FleetGroup(LazyGroup):
    """The commands of `unitctl fleet`."""

    modules = FLEET_COMMANDS
    prefix = "fleet_"


@click.group(
    "fleet",
    cls=FleetGroup,
    short_help="Command the units of many hosts, through the control center.",
    epilog="NAME is a service (cart) or a glob ('ca*'). "
    "Options -o -q -v --timeout --no-color work here too: see unitctl -h.",
)
def fleet_command() -> None:
    """Command the units of many hosts, through the control center.

    Commands wait until they are done; Ctrl-C stops the waiting, not what was ordered.
    """


fleet_command.params.extend([*center_options(listed=True), *fleet_shared_options()])
