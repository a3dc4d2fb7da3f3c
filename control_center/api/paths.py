"""What the description of the API says of each route."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.core.access import Right

from .call import MAX_WAIT_SECONDS
from .decoding import MAX_INTEGER
from .schema import Schema, answer, anything, boolean, integer, listing, mapping, number, ref, text, words

Content = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Described:
    """One route in words and schemas."""

    tag: str
    summary: str
    right: Right | None
    answers: Mapping[int, tuple[str, Content]]  # what it answers when all is well
    parameters: tuple[dict[str, Any], ...] = ()
    body: str | None = None  # name of a schema
    body_required: bool = False
    problems: tuple[int, ...] = ()  # besides those of every route
    details: str = ""
    also: frozenset[Right] = frozenset()  # any of these rights suffices too


def _json(schema: Schema) -> Content:
    return {"application/json": {"schema": schema}}


def _ok(schema: Schema, description: str = "So it is.") -> dict[int, tuple[str, Content]]:
    return {200: (description, _json(schema))}


def _plain(*kinds: str) -> Content:
    return {kind: {"schema": {"type": "string"}} for kind in kinds}


def _query(name: str, schema: Schema) -> dict[str, Any]:
    description = schema.pop("description", "")
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _limit(default: int, maximum: int) -> dict[str, Any]:
    return _query("limit", integer(f"at most so many; default {default}", minimum=1, maximum=maximum))


def _flag(name: str, description: str) -> dict[str, Any]:
    return _query(name, words(("0", "1", "false", "true"), description))


def _wait(description: str) -> dict[str, Any]:
    return _query("wait", number(f"{description}; seconds, {MAX_WAIT_SECONDS:g} are enough", minimum=0))


def _name(name: str, description: str) -> dict[str, Any]:
    return _query(name, text(description, minLength=1))


def _seq(name: str, description: str) -> dict[str, Any]:
    return _query(name, integer(description, maximum=MAX_INTEGER))


_CENTER = {
    ("GET", "/v1/center"): Described("center", "The center, its leader, the caller", Right.READ, _ok(ref("Center"))),
    ("PUT", "/v1/center/mode"): Described(
        "center", "What the center may do by itself", Right.ADMIN, _ok(ref("Center")),
        body="NewMode", body_required=True,
        details="`observe`: decide and show; `assist`: act on a quorum of gateways, or one and the node's own probe; "
        "`full`: one gateway suffices where the node does not contradict.",
    ),
    ("GET", "/v1/audit"): Described(
        "center", "Who commanded what, newest first", Right.ADMIN,
        _ok(answer({"records": listing(ref("AuditRecord"))})),
        (_limit(50, 1000), _seq("before", "only those with a lower seq")),
    ),
}  # fmt: skip

_FLEET = {
    ("GET", "/v1/nodes"): Described("fleet", "All nodes", Right.READ, _ok(answer({"nodes": listing(ref("Node"))}))),
    ("GET", "/v1/nodes/{node}"): Described(
        "fleet", "One node with its instances", Right.READ, _ok(ref("NodeWithInstances")), problems=(404,)
    ),
    ("GET", "/v1/nodes/{node}/units"): Described(
        "fleet", "A node's units", Right.READ, _ok(anything("`units`, as the node's own `GET /v1/units` answers")),
        problems=(404, 409, 502),
        details="Asked now; of a node that fetches its commands, what it said last, with `as_of`.",
    ),
    ("GET", "/v1/nodes/{node}/units/{unit}/logs"): Described(
        "fleet", "What a unit writes", Right.READ, {200: ("Text as it comes.", _plain("text/plain"))},
        (
            _query("stream", words(("stdout", "stderr"), "default stdout")),
            _query("lines", integer("how many of the last lines to begin with; default 10", maximum=10_000)),
            _flag("follow", "go on with what is written"),
        ),
        problems=(404, 409, 502),
    ),
    ("GET", "/v1/services"): Described(
        "fleet", "All services", Right.READ,
        _ok(answer({"revision": integer("of the registry"), "services": listing(ref("Service"))})),
    ),
    ("GET", "/v1/services/{service}"): Described(
        "fleet", "One service with its instances", Right.READ, _ok(ref("ServiceWithEntries")), problems=(404,)
    ),
    ("GET", "/v1/gateways"): Described(
        "fleet", "What gateways say whom they send to, for each service", Right.READ,
        _ok(answer({"revision": integer("of the registry"), "gateways": listing(ref("Gateway"))})),
    ),
}  # fmt: skip

_OPERATION = _ok(ref("Operation"))
_OPERATIONS = {
    ("GET", "/v1/operations"): Described(
        "operations", "Operations without their targets, newest first", Right.READ,
        _ok(answer({"operations": listing(ref("ListedOperation"))})),
        (
            _flag("open", "only those that have not ended"),
            _name("service", "only those that hold or held it"),
            _limit(50, 500),
            _name("before", "only those that are older than the one of this id"),
        ),
    ),
    ("POST", "/v1/operations"): Described(
        "operations", "Begin an operation, or (`dry_run`) see its plan", Right.OPERATE,
        {
            202: ("It is written down, and goes on whatever happens to this center.", _json(ref("Operation"))),
            200: ("The plan of a `dry_run`: nothing was kept or begun.", _json(ref("Operation"))),
        },
        body="NewOperation", body_required=True, problems=(409, 410, 422),
        details="409 `busy`: a service has an open operation, named in `operation`. 422 `replayed`: the command id was "
        "used for something else; `nothing_selected`; `floor`: so much can never be kept, and why.",
    ),
    ("GET", "/v1/operations/{id}"): Described(
        "operations", "One operation", Right.READ, _OPERATION,
        (
            _wait("answer when it is newer than `version` (left out: than now) or has ended, at the latest then"),
            _seq("version", "the one that is known already"),
        ),
        problems=(404,),
    ),
    **{
        ("POST", f"/v1/operations/{{id}}/{verb}"): Described(
            "operations", words_, Right.OPERATE, _OPERATION, body="Reason", problems=(404, 409), details=details
        )
        for verb, words_, details in (
            ("pause", "Begin no more of an operation's targets", "Those under way go on. 409 `done`: it has ended."),
            ("resume", "Go on with a paused operation", "409 `done`: it has ended."),
            ("abort", "End an operation", "Those under way go on to their end. 409 `done`: it has ended."),
        )
    },
}  # fmt: skip

_EVENT = answer({"id": text("its seq"), "event": text("its type"), "data": text("the event, as JSON")})
_GUARD = {
    ("POST", "/v1/reports"): Described(
        "guard", "Evidence of a gateway against instances", Right.REPORT,
        {202: (
            "It is weighed; `decisions` are those made at once.",
            _json(answer({"accepted": integer(), "decisions": listing(ref("Decision"))})),
        )},
        body="Reports", body_required=True,
    ),
    ("GET", "/v1/decisions"): Described(
        "guard", "What became of reports, newest first", Right.READ,
        _ok(answer({"decisions": listing(ref("Decision"))})),
        (
            _limit(50, 500), _seq("before", "only those with a lower id"),
            _name("service", "only those about it"), _name("instance", "only those about it"),
        ),
    ),
    ("GET", "/v1/decisions/{id}"): Described(
        "guard", "One decision with its evidence", Right.READ, _ok(ref("Decision")), problems=(404,)
    ),
    ("POST", "/v1/services/{service}/thaw"): Described(
        "guard", "Restart a service's instances automatically again", Right.OPERATE,
        _ok(answer({"service": text(), "cleared": boolean()})), body="Reason", problems=(404, 409),
    ),
    ("POST", "/v1/instances/{node}/{unit}/clear"): Described(
        "guard", "Forget how often an instance was restarted, and that it is given up", Right.OPERATE,
        _ok(answer({"instance": text(), "cleared": boolean()})), body="Reason", problems=(404, 409),
    ),
    ("GET", "/v1/events"): Described(
        "events", "What happens, as server-sent events", Right.READ,
        {200: (
            "`id` is the event's seq, `event` its type, `data` the event; a comment every 15 s without one.",
            {"text/event-stream": {"schema": _EVENT}},
        )},
        (
            _seq("since", "only later ones; default: all that are kept (10 000)"),
            _seq("newest", "at most so many of the past"),
            _flag("follow", "0: end after what there is"),
            {
                "name": "Last-Event-ID", "in": "header", "description": "the same as `since`, which browsers send",
                "schema": {"type": "string", "pattern": "^[0-9]{1,15}$"},
            },
        ),
    ),
}  # fmt: skip

_NODES = {
    ("GET", "/v1/nodes/{node}/commands"): Described(
        "nodes", "A node's open commands, oldest first", Right.NODE,
        _ok(answer({"commands": listing(ref("NodeCommand")), "seq": integer("for `after`, the next time")})),
        (_seq("after", "only those with a higher seq"), _wait("if there are none, wait for one")),
    ),
    ("POST", "/v1/nodes/{node}/results"): Described(
        "nodes", "What a node answered to its commands", Right.NODE,
        _ok(answer({"known": listing(text(), "ids of its open commands, on which it should go on reporting")})),
        body="Results", body_required=True,
    ),
    ("POST", "/v1/nodes/{node}/heartbeat"): Described(
        "nodes", "A node lives", Right.NODE,
        _ok(answer({"heartbeat_seconds": number("when the next one is expected")})),
        body="Heartbeat", body_required=True,
    ),
}  # fmt: skip

_CHANGED = answer({"epoch": text(), "revision": integer()})
_ELSEWHERE = "404 where the registry is not hosted here."
_ALL = frozenset((Right.NODE, Right.REPORT))
_GATEWAYS = frozenset((Right.REPORT,))
_REGISTRY = {
    ("GET", "/v1/registry/services"): Described(
        "registry", "The hosted registry's entries", Right.READ, _ok(ref("Snapshot")),
        (
            _query("since", integer("with `wait`: answer when there is a later revision")),
            _query("epoch", text("of that revision")),
            _wait("how long"),
        ),
        problems=(404, 405), details=_ELSEWHERE, also=_ALL,
    ),
    ("GET", "/v1/registry/services/{service}"): Described(
        "registry", "The hosted registry's entries of a service", Right.READ, _ok(ref("Snapshot")),
        (
            _query("since", integer("with `wait`: answer when there is a later revision")),
            _query("epoch", text("of that revision")),
            _wait("how long"),
        ),
        problems=(404, 405), details=_ELSEWHERE, also=_ALL,
    ),
    ("GET", "/v1/registry/services/{service}/{instance}"): Described(
        "registry", "One entry", Right.READ, _ok(ref("Entry")), problems=(404, 405), details=_ELSEWHERE, also=_ALL
    ),
    ("PUT", "/v1/registry/services/{service}/{instance}"): Described(
        "registry", "Register an entry", Right.NODE,
        _ok(answer({"ttl_seconds": number(), "epoch": text(), "revision": integer()})),
        body="Registration", body_required=True, problems=(404, 405, 409), details=_ELSEWHERE, also=_GATEWAYS,
    ),
    ("PATCH", "/v1/registry/services/{service}/{instance}"): Described(
        "registry", "Change an entry; its lease stays as it is", Right.NODE, _ok(_CHANGED),
        body="Registration", body_required=True, problems=(404, 405, 409), details=_ELSEWHERE, also=_GATEWAYS,
    ),
    ("DELETE", "/v1/registry/services/{service}/{instance}"): Described(
        "registry", "Remove an entry", Right.NODE,
        _ok(answer({"removed": boolean(), "epoch": text(), "revision": integer()})),
        ({**_query("generation", integer("of the entry that is meant")), "required": True},),
        problems=(404, 405, 408, 409, 413), details=_ELSEWHERE, also=_GATEWAYS,
    ),
    ("POST", "/v1/registry/renew"): Described(
        "registry", "Renew leases", Right.NODE,
        _ok(answer({"lost": listing(anything("a lease that is not there")), "epoch": text(), "revision": integer()})),
        body="Renewal", body_required=True, problems=(404, 413), details=_ELSEWHERE, also=_GATEWAYS,
    ),
}  # fmt: skip

_FILES = (
    "text/html", "text/javascript", "text/css", "text/plain", "image/svg+xml", "image/png", "image/x-icon",
    "application/json", "application/manifest+json", "font/woff2",
)  # fmt: skip
_TEXT = {200: ("So it is.", _plain("text/plain"))}
_OPEN = {
    ("GET", "/healthz"): Described("itself", "It runs", None, _TEXT),
    ("GET", "/readyz"): Described("itself", "It has started, and is not ending", None, _TEXT),
    ("GET", "/metrics"): Described("itself", "Metrics for Prometheus", Right.READ, _TEXT),
    ("GET", "/openapi.json"): Described("itself", "This document", None, _ok(mapping({}, "OpenAPI 3.1"))),
    ("GET", "/"): Described(
        "itself", "The page", None, {200: ("The page.", _plain("text/html")), 304: ("It has not changed.", {})},
        problems=(404,),
    ),
    ("GET", "/static/{file}"): Described(
        "itself", "What the page needs", None, {200: ("The file.", _plain(*_FILES)), 304: ("It has not changed.", {})},
        problems=(404,),
    ),
}  # fmt: skip

PATHS: dict[tuple[str, str], Described] = {
    **_CENTER, **_FLEET, **_OPERATIONS, **_GUARD, **_NODES, **_REGISTRY, **_OPEN,
}  # fmt: skip
