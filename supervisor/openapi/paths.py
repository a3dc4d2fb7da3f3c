"""The routes: what each takes, and every answer that it has."""

from __future__ import annotations

from typing import Any

from ..wire import VERBS
from .commands import NEEDED, PARAMETERS, body
from .words import Schema, items, number, or_null, record, reference, text, whole

Operation = dict[str, Any]

_MAX_WAIT_SECONDS = 60
_MAX_LINES = 10_000
# Every request can be misunderstood, unwelcome, too large or too slow, or come at a bad time. The last one is for
# how a body is sent.
_ALWAYS = (400, 403, 408, 413, 431, 501, 503)

_UNITS = {
    "name": "unit", "in": "path", "required": True,
    "description": "Units: names, groups, `group:*`, globs, `all`; several are separated by commas.",
    "schema": {"type": "string", "minLength": 1},
}  # fmt: skip
_UNIT = {**_UNITS, "description": "One unit: its name, or that of a group of one process."}
_ID = {"name": "id", "in": "path", "required": True, "description": "The operation's id.",
       "schema": {"type": "string", "minLength": 1}}  # fmt: skip
_VERB_WORDS = {
    "start": "Bring units up, and first what they depend on",
    "stop": "Take units down, and first what depends on them",
    "restart": "Give units a new process, those of one service one after another",
    "signal": "Send a signal to units' leading processes",
    "drain": "Take units out of traffic; their processes stay",
    "undrain": "Let units into traffic again",
    "warm": "Let units' weights grow from the start, or change how they grow",
    "weight": "Fix units' weights",
}


def query(name: str, schema: Schema) -> dict[str, Any]:
    """A parameter of the query."""
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _wait() -> dict[str, Any]:
    return query("wait", number("Seconds to wait for the end.", minimum=0, maximum=_MAX_WAIT_SECONDS, default=0))


def _json(description: str, schema: Schema) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _text(description: str, kind: str = "text/plain") -> dict[str, Any]:
    return {"description": description, "content": {kind: {"schema": {"type": "string"}}}}


def problems(*statuses: int) -> dict[str, Any]:
    """Refusals by status."""
    return {str(status): {"$ref": "#/components/responses/Problem"} for status in sorted(statuses)}


def operation(
    name: str,
    summary: str,
    right: str | None,
    answers: dict[int, dict[str, Any]],
    *refusals: int,
    parameters: tuple[dict[str, Any], ...] = (),
    body: dict[str, Any] | None = None,
) -> Operation:
    """One method of a path. `right` is what a caller's role must give them; None: anybody may."""
    some = (*_ALWAYS, 401) if right is not None else _ALWAYS
    made: Operation = {"operationId": name, "summary": summary}
    if parameters:
        made["parameters"] = list(parameters)
    if body is not None:
        made["requestBody"] = body
    refused = problems(*(set(some) | set(refusals)) - set(answers))
    made["responses"] = {**{str(status): answer for status, answer in answers.items()}, **refused}
    if right is None:
        made["security"] = []
    else:
        made["x-right"] = right
    return made


_OPERATIONS = record("Operations.", operations=items("Oldest first.", reference("Operation")))
_ITEMS = items("What it means for each unit.", reference("PlanItem"))
_ACCEPTED = {
    "description": "What is done now. For a single unit, the operation's own members are at the top, too.",
    "headers": {
        "Location": {"description": "Where to ask for them.", "required": True, "schema": {"type": "string"}},
        "Command-Repeated": {"description": "`true`: the command was known.", "schema": {"const": "true"}},
    },
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"operations": items("One for each unit.", reference("Operation"))},
                "required": ["operations"],
            }
        }
    },
}


def _of_units() -> dict[str, dict[str, Operation]]:
    listed = record("Units.", units=items("In the order of the configuration.", reference("UnitStatus")))
    why = record(
        "Why a unit is where it is.",
        unit=text("Its name."),
        why=text("One sentence."),
        details=items("Lines for people.", {"type": "string"}),
    )
    logs = (
        _UNIT,
        query("stream", {"type": "string", "enum": ["stdout", "stderr"], "default": "stdout"}),
        query("lines", whole("From its end.", maximum=_MAX_LINES, default=10)),
        query("follow", {"type": "string", "enum": ["0", "1"], "default": "0"}),
    )
    names = query("names", text("Which, as in a path; without it all."))
    unit = _json("The unit.", reference("UnitStatus"))
    said = _text("The end of its output; with `follow`, also what comes.")
    return {
        "/v1/units": {
            "get": operation("units", "Units", "read", {200: _json("Units.", listed)}, 404, parameters=(names,))
        },
        "/v1/units/{unit}": {"get": operation("unit", "One unit", "read", {200: unit}, 404, parameters=(_UNIT,))},
        "/v1/units/{unit}/why": {
            "get": operation(
                "why", "Why a unit is where it is", "read", {200: _json("Why.", why)}, 404, parameters=(_UNIT,)
            )
        },
        "/v1/units/{unit}/logs": {
            "get": operation("logs", "The output of a unit", "read", {200: said}, 404, parameters=logs)
        },
    }


def _of_commands() -> dict[str, dict[str, Operation]]:
    remembered = _json("The units.", record("Units.", units=items("Names.", {"type": "string"})))
    paths = {}
    for verb in VERBS:
        paths[f"/v1/units/{{unit}}/{verb}"] = {
            "post": operation(
                verb, _VERB_WORDS[verb], "operate", {202: _ACCEPTED}, 404, 409, 410, 412, 422,
                parameters=(_UNITS,), body=body(PARAMETERS[verb], required=verb in NEEDED),
            )
        }  # fmt: skip
    for verb, words in ("enable", "Let units come up with the daemon"), ("disable", "Let units stay down at its start"):
        paths[f"/v1/units/{{unit}}/{verb}"] = {
            "post": operation(verb, words, "operate", {200: remembered}, 404, parameters=(_UNITS,))
        }
    return paths


def _of_operations() -> dict[str, dict[str, Operation]]:
    command_id = query("command_id", text("Only those that this command has made."))
    one = _json("The operation.", reference("Operation"))
    since = query("since", whole("Only events after this one.", maximum=2**53))
    follow = query("follow", {"type": "string", "enum": ["0", "1"], "default": "1"})
    last = {"name": "Last-Event-ID", "in": "header", "required": False, "schema": since["schema"]}
    data = text("An Event.", contentMediaType="application/json", contentSchema=reference("Event"))
    event = {"type": "object", "properties": {"id": {"type": "string"}, "event": {"type": "string"}, "data": data}}
    events = {"description": "Server-sent events.", "content": {"text/event-stream": {"schema": event}}}
    return {
        "/v1/operations": {
            "get": operation(
                "operations", "The newest operations, or those of a command", "read",
                {200: _json("Operations.", _OPERATIONS)}, 404, parameters=(command_id, _wait()),
            )
        },
        "/v1/operations/{id}": {
            "get": operation("operation", "One operation", "read", {200: one}, 404, parameters=(_ID, _wait()))
        },
        "/v1/operations/{id}/abort": {
            "post": operation("abort", "Call an operation off", "operate", {200: one}, 404, 409, parameters=(_ID,))
        },
        "/v1/events": {
            "get": operation("events", "What happens", "read", {200: events}, parameters=(since, follow, last))
        },
    }  # fmt: skip


def _of_daemon() -> dict[str, dict[str, Operation]]:
    plan = record("What would be done, or why nothing can.", items=_ITEMS,
                  errors=items("Mistakes.", reference("Mistake")))  # fmt: skip
    applied = record("What is done now.", items=_ITEMS, operations=items("By unit.", reference("Operation")))
    said = record("It has begun.", detail=text("What happens now."))
    doctor = record(
        "What the doctor has found.",
        version=text("Of unitd."),
        findings=items("One for each check.", reference("Finding")),
        may_not_command=or_null(text("Why who asks may not command.")),
        wall=number("The daemon's clock, unix time."),
        units=whole("How many it has."),
        manager_unit=or_null(text("The systemd unit that it runs in.")),
        way_out_seconds=number("How long a shutdown may take.", minimum=0),
        way_out_groups=items("The units that take so long.", {"type": "string"}),
    )
    paths = {
        "/v1/config/plan": {
            "post": operation("plan", "What applying the files would do", "read", {200: _json("The plan.", plan)})
        },
        "/v1/config/apply": {
            "post": operation(
                "apply", "Apply the files", "admin", {202: _json("What is done.", applied)}, 409, 410, 422,
                body=body({"type": "object", "description": "None."}),
            )
        },
        "/v1/doctor": {"get": operation("doctor", "What cannot work", "read", {200: _json("Findings.", doctor)})},
        "/v1/shutdown": {
            "post": operation(
                "shutdown", "Stop all units, then end", "admin", {202: _json("It ends.", said)}, 409, 410,
                body=body({"type": "object", "description": "None."}),
            )
        },
    }  # fmt: skip
    return paths | _of_machines()


def _of_machines() -> dict[str, dict[str, Operation]]:
    """What programs ask again and again."""
    node = _json("The node.", reference("NodeInfo"))
    described = _json("This document.", {"type": "object"})
    ready, not_ready = _text("It is."), _text("It starts, or shuts down; or there are too many connections.")
    not_ready["content"]["application/problem+json"] = {"schema": reference("Problem")}
    return {
        "/v1/node": {"get": operation("node", "The daemon itself", "read", {200: node})},
        "/metrics": {"get": operation("metrics", "Metrics, for Prometheus", "read", {200: _text("Metrics.")})},
        "/openapi.json": {"get": operation("openapi", "This document", None, {200: described})},
        "/healthz": {"get": operation("healthz", "Whether the daemon answers", None, {200: _text("It does.")})},
        "/readyz": {
            "get": operation("readyz", "Whether all was started", None, {200: ready, 503: not_ready})
        },
    }  # fmt: skip


def snapshot() -> Schema:
    """All entries at one revision."""
    return record(
        "Entries at one revision.",
        epoch=text("One life of the registry."),
        revision=whole("Grows within an epoch."),
        service=or_null(text("Null: of all services.")),
        entries=items("Sorted.", reference("Entry")),
    )


def _of_registry() -> dict[str, dict[str, Operation]]:
    done = {"epoch": text("One life of the registry."), "revision": whole("Afterwards.")}
    service = {"name": "service", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    instance = {**service, "name": "instance", "description": "Its slashes may be percent-encoded."}
    waiting = (query("since", whole("Wait for a change after this revision.", maximum=10**18)),
               query("epoch", text("Of that revision.")),
               query("wait", number("At most so many seconds.", minimum=0)))  # fmt: skip
    generation = query("generation", whole("The one that is meant.", maximum=2**53 - 1)) | {"required": True}
    member = {"entry": reference("Entry")}
    entry = {"type": "object", "properties": member, "required": ["entry"]}
    registered = {
        **entry,
        "properties": {**member, "ttl_seconds": number("Asked for.", exclusiveMinimum=0, maximum=86400)},
        "required": ["entry", "ttl_seconds"],
    }
    renewed = {"type": "object", "required": ["leases"],
               "properties": {"leases": items("At most 5000.", reference("LeaseKey"), maxItems=5000)}}  # fmt: skip
    lost = items("Those that are not there.", reference("LeaseKey"))
    both = (service, instance)
    granted = record("Registered.", ttl_seconds=number("That is kept."), **done)
    removed = record("Deleted.", removed={"type": "boolean"}, **done)
    found = _json("Entries.", snapshot())
    return {
        "/v1/registry/services": {
            "get": operation("entries", "All entries", "read", {200: found}, 404, parameters=waiting)
        },
        "/v1/registry/services/{service}": {
            "get": operation(
                "entries_of", "The entries of a service", "read", {200: found}, 404, parameters=(service, *waiting)
            )
        },
        "/v1/registry/services/{service}/{instance}": {
            "get": operation(
                "entry", "One entry", "read", {200: _json("It.", reference("Entry"))}, 404, parameters=both
            ),
            "put": operation(
                "register", "Register an entry", "node", {200: _json("Done.", granted)}, 404, 409, parameters=both,
                body=_sent(registered),
            ),
            "patch": operation(
                "update", "Change an entry; its lease is not prolonged", "node",
                {200: _json("Done.", record("Changed.", **done))}, 404, 409, parameters=both, body=_sent(entry),
            ),
            "delete": operation(
                "deregister", "Delete an entry", "node", {200: _json("Done.", removed)}, 404, 409,
                parameters=(*both, generation),
            ),
        },
        "/v1/registry/renew": {
            "post": operation(
                "renew", "Renew leases", "node", {200: _json("Done.", record("Renewed.", lost=lost, **done))}, 404,
                body=_sent(renewed),
            )
        },
    }  # fmt: skip


def _sent(schema: Schema) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def paths() -> dict[str, dict[str, Operation]]:
    """All of them."""
    return _of_units() | _of_commands() | _of_operations() | _of_daemon() | _of_registry()
