"""Nodes and services as the registry and the heartbeats show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time
from typing import Any
from urllib.parse import quote

from aiohttp import web

from registry_client.model import Entry

from ..fleet import Fleet
from ..model import NodeStatus, to_json
from ..moments import iso
from .call import Call, answer
from .decoding import nearest
from .problems import Refusal, not_found

REPORT_SECONDS = 60.0  # what gateways complained of within it is shown with an instance
PULLED_SECONDS = 300.0  # an older word of a node that cannot be asked is no answer


async def all_nodes(call: Call) -> web.Response:
    """GET /v1/nodes"""
    call.query().finish()
    return answer({"nodes": to_json(call.parts.heartbeats.statuses())})


async def node(call: Call) -> web.Response:
    """GET /v1/nodes/{node}"""
    call.query().finish()
    status = _status(call, call.part("node"))
    fleet, marks = call.parts.fleet(), await _marks(call)
    entries = fleet.on_node(status.node) if fleet is not None else ()
    return answer({**to_json(status), "instances": [marks.instance(entry) for entry in entries]})


async def node_units(call: Call) -> web.Response:
    """GET /v1/nodes/{node}/units"""
    call.query().finish()
    status = _status(call, call.part("node"))
    if status.via == "pull":
        return answer(await _last_word(call, status.node))
    return answer(await call.parts.channels.get(status.node, "/v1/units"))


async def _last_word(call: Call, name: str) -> dict[str, Any]:
    known = (await call.parts.store.heartbeats(time() - PULLED_SECONDS)).get(name)
    if known is None:
        detail = f"cannot ask {name}: it fetches its commands, and has not come for {PULLED_SECONDS:g} s"
        raise Refusal(502, "node_unreachable", detail, more={"node": name})
    wall, body = known
    return {"units": body.get("statuses") or [], "as_of": iso(datetime.fromtimestamp(wall, UTC))}


def _status(call: Call, name: str) -> NodeStatus:
    statuses = {status.node: status for status in call.parts.heartbeats.statuses()}
    if name not in statuses:
        raise not_found(f"node {name}", nearest(name, statuses))
    return statuses[name]


async def all_services(call: Call) -> web.Response:
    """GET /v1/services"""
    call.query().finish()
    fleet, marks = call.parts.fleet(), await _marks(call, instances=False)
    services = [marks.service(fleet, name) for name in fleet.services] if fleet is not None else []
    return answer({"revision": call.parts.registry().revision, "services": services})


async def service(call: Call) -> web.Response:
    """GET /v1/services/{service}"""
    call.query().finish()
    name, fleet = call.part("service"), call.parts.fleet()
    known = list(fleet.services) if fleet is not None else []
    if fleet is None or name not in known:
        raise not_found(f"service {name}", nearest(name, known))
    marks = await _marks(call)
    entries = [marks.instance(entry) for entry in fleet.entries(name)]
    return answer({**marks.service(fleet, name), "entries": entries})


async def all_gateways(call: Call) -> web.Response:
    """GET /v1/gateways"""
    call.query().finish()
    fleet = call.parts.fleet()
    found = fleet.gateways() if fleet is not None else []
    return answer({"revision": call.parts.registry().revision, "gateways": found})


@dataclass(frozen=True, slots=True)
class _Marks:
    """What the store knows besides of services and instances."""

    operations: Mapping[str, str]  # service -> its open operation
    busy: Mapping[str, str]  # instance -> the operation that works on it, or will
    frozen: Mapping[str, str]  # service -> why
    reports: Mapping[str, int]  # instance -> how many gateways complain

    def service(self, fleet: Fleet, name: str) -> dict[str, Any]:
        """A service's JSON."""
        value = fleet.service_json(name)
        return {**value, "operation": self.operations.get(name), "frozen": self.frozen.get(name)}

    def instance(self, entry: Entry) -> dict[str, Any]:
        """An instance's JSON."""
        operation, reports = self.busy.get(entry.instance), self.reports.get(entry.instance, 0)
        return {**entry.to_json(), "operation": operation, "reports": reports}


async def _marks(call: Call, *, instances: bool = True) -> _Marks:
    """`instances`: of each of them too, for which the targets of all open operations are read."""
    store = call.parts.store
    opened = await store.open_operations() if instances else []
    reports: dict[str, int] = {}
    for report, _, _ in await store.reports(time() - REPORT_SECONDS):
        if report.state == "dead":
            reports[report.instance] = reports.get(report.instance, 0) + 1
    return _Marks(
        operations=await store.holders(),
        busy={
            target.instance: operation.id
            for operation in opened
            for target in operation.targets
            if not target.state.done
        },
        frozen=await call.parts.closed_loop.frozen(),
        reports=reports,
    )


def logs_path(unit: str, stream: str, lines: int, follow: bool) -> str:
    """Where a node has a unit's output."""
    return f"/v1/units/{quote(unit, safe='')}/logs?stream={stream}&lines={lines}&follow={int(follow)}"
