"""`fleet status`, `services`, `nodes` and `gateways`: commands that look and change nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import click

from .codes import DONE, UNKNOWN, ExitWith
from .decode import raw_list
from .fleet_center import Center, CenterRefused, path_of
from .fleet_look import look_of
from .fleet_names import NODES, SERVICES, SERVICES_OR_NODES
from .fleet_render import center_line, gateways_text, node_text, nodes_text, service_text, services_text
from .fleet_render_operations import operations_text
from .fleet_session import Fleet, fleet_command
from .words import counted

Raw = dict[str, Any]


@fleet_command("status", short_help="Show the fleet, or services and nodes in detail.")
@click.argument("names", nargs=-1, type=SERVICES_OR_NODES, metavar="[SERVICE|NODE]...")
def fleet_status_command(fleet: Fleet, names: tuple[str, ...]) -> int:
    """Show the fleet in short, or services and nodes with all their instances.

    Names may be globs.
    """
    center = fleet.center()
    return _details(fleet, center, names) if names else _overview(fleet, center)


def _overview(fleet: Fleet, center: Center) -> int:
    itself = center.get("/v1/center")
    services = raw_list(center.get("/v1/services"), "services")
    nodes = raw_list(center.get("/v1/nodes"), "nodes")
    operations = raw_list(center.get("/v1/operations", {"open": "1"}), "operations")
    if fleet.session.json:
        fleet.session.out_json({"center": itself, "services": services, "nodes": nodes, "operations": operations})
        return DONE
    look = look_of(fleet)
    unwell = [node for node in nodes if node.get("state") != "up"]
    parts = [
        f"{center_line(itself)}; {counted(len(nodes), 'node')}, {len(nodes) - len(unwell)} of them up\n",
        services_text(services, look),
        nodes_text(unwell, look),
        operations_text(operations, look),
    ]
    fleet.session.out("\n".join(filter(None, parts)))
    return DONE


def _details(fleet: Fleet, center: Center, names: tuple[str, ...]) -> int:
    known_services = _names(center.get("/v1/services"), "services", "service")
    known_nodes = _names(center.get("/v1/nodes"), "nodes", "node")
    for name in names:
        if not _matching(known_services + known_nodes, (name,)):
            raise ExitWith(
                UNKNOWN, f"no service and no node is called {name}{_hint(name, known_services + known_nodes)}"
            )
    services = _each(center, "services", _matching(known_services, names))
    nodes = _each(center, "nodes", _matching(known_nodes, names))
    if fleet.session.json:
        fleet.session.out_json({"services": services, "nodes": nodes})
        return DONE
    look, now = look_of(fleet), datetime.now(UTC)
    texts = [service_text(each, now, look) for each in services] + [node_text(each, now, look) for each in nodes]
    fleet.session.out("\n".join(texts))
    return DONE


def _names(answer: Any, key: str, name: str) -> list[str]:
    return [str(item.get(name)) for item in raw_list(answer, key)]


def _matching(known: list[str], patterns: tuple[str, ...]) -> list[str]:
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _each(center: Center, kind: str, names: list[str]) -> list[Raw]:
    """All about each; without those that have gone since they were listed."""
    found = []
    for name in names:
        try:
            found.append(center.get(path_of(kind, name)))
        except CenterRefused as refusal:
            if refusal.status != 404:
                raise
    return found


def _hint(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    nearest = get_close_matches(name, known, n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""


@fleet_command("services", short_help="List services with their capacity.")
@click.argument("names", nargs=-1, type=SERVICES, metavar="[SERVICE]...")
def fleet_services_command(fleet: Fleet, names: tuple[str, ...]) -> int:
    """List services with their capacity: the weight of their instances now, as a share of the full one."""
    found = _listed(fleet, "services", "service", names)
    if not fleet.session.json:
        fleet.session.out(services_text(found, look_of(fleet)))
    return DONE


@fleet_command("nodes")
@click.argument("names", nargs=-1, type=NODES, metavar="[NODE]...")
def fleet_nodes_command(fleet: Fleet, names: tuple[str, ...]) -> int:
    """List nodes with what the control center thinks of them.

    phi says how unlikely a node's silence is: 1 is one in ten, 8 one in a hundred million.
    """
    found = _listed(fleet, "nodes", "node", names)
    if not fleet.session.json:
        fleet.session.out(nodes_text(found, look_of(fleet)))
    return DONE


@fleet_command("gateways", short_help="List gateways with whom they send to.")
@click.argument("names", nargs=-1, metavar="[GATEWAY]...")
def fleet_gateways_command(fleet: Fleet, names: tuple[str, ...]) -> int:
    """List gateways with whom they send to, for each service, beside what the registry lists."""
    found = _listed(fleet, "gateways", "gateway", names)
    if not fleet.session.json:
        fleet.session.out(gateways_text(found, look_of(fleet)))
    return DONE


def _listed(fleet: Fleet, kind: str, key: str, names: tuple[str, ...]) -> list[Raw]:
    """All, or those that are named; with `-o json` they are printed."""
    items = raw_list(fleet.center().get(f"/v1/{kind}"), kind)
    known = [str(item.get(key)) for item in items]
    for name in names:
        if not _matching(known, (name,)):
            raise ExitWith(UNKNOWN, f"no {key} is called {name}{_hint(name, known)}")
    shown = [item for item in items if not names or _matching([str(item.get(key))], names)]
    if fleet.session.json:
        fleet.session.out_json(shown)
    elif not shown and not fleet.session.quiet:
        fleet.session.err(f"there are no {kind} in the registry")
    return shown
