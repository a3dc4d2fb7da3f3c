"""All that the API answers to, as data: method, path, the right that it takes, and who answers."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.core.access import Right
from supervisor.wire import MAX_BODY_BYTES

from . import center, decisions, events, fleet, nodes, open_routes, operations, registry
from .call import Handler

ANSWER_SECONDS = 30.0
LONG_SECONDS = 90.0  # of answers that may be waited for


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path."""

    method: str
    path: str
    right: Right | None  # None: nobody has to say who they are
    handler: Handler
    action: str = ""  # what the audit log calls it
    seconds: float | None = ANSWER_SECONDS  # None: it goes on as long as somebody listens
    max_body_bytes: int = MAX_BODY_BYTES
    also: frozenset[Right] = frozenset()  # any of these suffices too


# Whoever has a role needs to know where services are: nodes see their entries go, gateways follow them.
_ALL = frozenset((Right.NODE, Right.REPORT))
_GATEWAYS = frozenset((Right.REPORT,))  # which keep entries of their own
_LOUD = 4 * MAX_BODY_BYTES  # a node with many units tells of all of them

ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/center", Right.READ, center.show),
    Route("PUT", "/v1/center/mode", Right.ADMIN, center.set_mode, "mode"),
    Route("GET", "/v1/audit", Right.ADMIN, center.audit),
    Route("GET", "/v1/nodes", Right.READ, fleet.all_nodes),
    Route("GET", "/v1/nodes/{node}", Right.READ, fleet.node),
    Route("GET", "/v1/nodes/{node}/units", Right.READ, fleet.node_units),
    Route("GET", "/v1/nodes/{node}/units/{unit}/logs", Right.READ, events.logs, seconds=None),
    Route("GET", "/v1/services", Right.READ, fleet.all_services),
    Route("GET", "/v1/services/{service}", Right.READ, fleet.service),
    Route("GET", "/v1/gateways", Right.READ, fleet.all_gateways),
    Route("POST", "/v1/services/{service}/thaw", Right.OPERATE, decisions.thaw, "thaw"),
    Route("POST", "/v1/instances/{node}/{unit}/clear", Right.OPERATE, decisions.clear, "clear"),
    Route("GET", "/v1/operations", Right.READ, operations.all_operations),
    Route("POST", "/v1/operations", Right.OPERATE, operations.begin, "operation"),
    Route("GET", "/v1/operations/{id}", Right.READ, operations.operation, seconds=LONG_SECONDS),
    Route("POST", "/v1/operations/{id}/pause", Right.OPERATE, operations.pause, "pause"),
    Route("POST", "/v1/operations/{id}/resume", Right.OPERATE, operations.resume, "resume"),
    Route("POST", "/v1/operations/{id}/abort", Right.OPERATE, operations.abort, "abort"),
    Route("POST", "/v1/reports", Right.REPORT, decisions.report),
    Route("GET", "/v1/decisions", Right.READ, decisions.all_decisions),
    Route("GET", "/v1/decisions/{id}", Right.READ, decisions.decision),
    Route("GET", "/v1/events", Right.READ, events.events, seconds=None),
    Route("GET", "/v1/nodes/{node}/commands", Right.NODE, nodes.commands, seconds=LONG_SECONDS),
    Route("POST", "/v1/nodes/{node}/results", Right.NODE, nodes.results, max_body_bytes=_LOUD),
    Route("POST", "/v1/nodes/{node}/heartbeat", Right.NODE, nodes.heartbeat, max_body_bytes=_LOUD),
    Route("GET", "/v1/registry/services", Right.READ, registry.answer, seconds=LONG_SECONDS, also=_ALL),
    Route("GET", "/v1/registry/services/{service}", Right.READ, registry.answer, seconds=LONG_SECONDS, also=_ALL),
    Route("GET", "/v1/registry/services/{service}/{instance:.+}", Right.READ, registry.answer, also=_ALL),
    Route("PUT", "/v1/registry/services/{service}/{instance:.+}", Right.NODE, registry.write, also=_GATEWAYS),
    Route("PATCH", "/v1/registry/services/{service}/{instance:.+}", Right.NODE, registry.write, also=_GATEWAYS),
    Route("DELETE", "/v1/registry/services/{service}/{instance:.+}", Right.NODE, registry.write, also=_GATEWAYS),
    Route("POST", "/v1/registry/renew", Right.NODE, registry.renew, also=_GATEWAYS),
    Route("GET", "/healthz", None, open_routes.healthy),
    Route("GET", "/readyz", None, open_routes.ready),
    Route("GET", "/metrics", Right.READ, open_routes.metrics),
    Route("GET", "/openapi.json", None, open_routes.openapi),
    Route("GET", "/", None, open_routes.page),
    Route("GET", "/static/{file:.+}", None, open_routes.static),
)
