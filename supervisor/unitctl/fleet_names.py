"""Names of services, nodes and operations as arguments: on the TAB key the control center is asked for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ..errors import SupervisorError
from .session import TextType

if TYPE_CHECKING:
    from .fleet_center import Center

_ANSWER_SECONDS = 1.0  # nobody waits longer for a TAB, unless --timeout on the line says so

Candidates = Callable[["Center"], dict[str, str]]


class FleetNames(TextType):
    """Names that a function finds out, with a word on each."""

    name = "name"

    def __init__(self, candidates: Candidates) -> None:
        self._candidates = candidates

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """The names that begin so; [] when the control center does not answer."""
        from click.shell_completion import CompletionItem  # only on the TAB key

        found = _ask(ctx, self._candidates)
        return [CompletionItem(name, help=text) for name, text in found.items() if name.startswith(incomplete)]


def _ask(ctx: click.Context, candidates: Candidates) -> dict[str, str]:
    from .fleet_session import open_fleet

    try:
        fleet = open_fleet(ctx)
        fleet.session.timeout = _ANSWER_SECONDS if fleet.session.timeout is None else fleet.session.timeout
        return candidates(fleet.center())
    except (SupervisorError, click.ClickException, OSError, KeyError, TypeError):
        return {}


def _services(center: Center) -> dict[str, str]:
    items = center.get("/v1/services")["services"]
    return {str(item["service"]): f"{item['instances']} instances" for item in items}


def _nodes(center: Center) -> dict[str, str]:
    return {str(item["node"]): str(item["state"]) for item in center.get("/v1/nodes")["nodes"]}


def _both(center: Center) -> dict[str, str]:
    return {**_services(center), **_nodes(center)}


def _instances(center: Center) -> dict[str, str]:
    from .fleet_center import path_of

    return {
        str(entry["instance"]): str(entry["status"])
        for service in _services(center)
        for entry in center.get(path_of("services", service))["entries"]
    }


def _open_operations(center: Center) -> dict[str, str]:
    items = center.get("/v1/operations", {"open": "1"})["operations"]
    return {str(item["id"]): f"{item['verb']}: {item['state']}" for item in items}


def _operations(center: Center) -> dict[str, str]:
    items = center.get("/v1/operations")["operations"]
    return {str(item["id"]): f"{item['verb']}: {item['state']}" for item in items}


SERVICES, NODES, SERVICES_OR_NODES = FleetNames(_services), FleetNames(_nodes), FleetNames(_both)
INSTANCES, OPERATIONS, OPEN_OPERATIONS = FleetNames(_instances), FleetNames(_operations), FleetNames(_open_operations)
