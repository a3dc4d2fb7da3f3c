"""Schemas of what the API takes, by name. What they cannot say is said in words, and checked by `bodies`."""

from __future__ import annotations

from ..model import VERBS, Mode
from .bodies import (
    DEADLINE_SECONDS,
    MAX_DEADLINE_SECONDS,
    MAX_LABELS,
    MAX_REASON,
    MAX_REPORTS,
    MAX_RESULTS,
    MAX_SELECTED,
    SYMPTOMS,
)
from .decoding import MAX_INTEGER, MAX_NAME, MAX_TEXT
from .schema import Schema, answer, anything, body, boolean, integer, listing, mapping, moment, number, text, words

_NAME = text(minLength=1, maxLength=MAX_NAME)
_INSTANCE = text(minLength=1, maxLength=2 * MAX_NAME)
_ID = text(minLength=1, maxLength=128)
_COUNT: Schema = {"minimum": 0, "maximum": MAX_INTEGER}
_WEEK = 7 * 86400


def _reason(description: str = "why; kept and shown") -> Schema:
    return text(description, maxLength=MAX_REASON)


def _names(description: str) -> Schema:
    return listing(_NAME, description, maxItems=MAX_SELECTED)


_SELECTED: dict[str, Schema] = {
    "services": _names("globs"),
    "nodes": _names("globs"),
    "units": _names("globs of the units' names on their nodes"),
    "instances": listing(_INSTANCE, "globs of `NODE/UNIT`", maxItems=MAX_SELECTED),
    "labels": mapping(
        text(maxLength=MAX_TEXT),
        "must equal the entry's metadata; `zone` and `version` its own",
        maxProperties=MAX_LABELS,
        propertyNames={"minLength": 1, "maxLength": MAX_NAME},
    ),
}
_STRATEGY: dict[str, Schema] = {
    "batch": text(
        'a number ("2") or a share ("25%") of each service\'s targets', pattern="^([1-9][0-9]{0,5}|(100|[1-9][0-9]?)%)$"
    ),
    "canary": integer("targets of the first batch; 0: none", maximum=1_000_000),
    "bake_seconds": number("how long the canary must be well before the rest follows", minimum=0, maximum=_WEEK),
    "floor_percent": number("of a service's weight that must stay, warm and not draining", minimum=0, maximum=100),
    "max_failures": integer("as many targets may fail", maximum=1_000_000),
    "by_zone": boolean("one zone after another"),
    "target_seconds": number("how long one target may take until it is back at full weight", minimum=1, maximum=_WEEK),
}
_PARAMETERS = anything(
    "`stop`, `restart`: `force`; `drain`: `owner`, `for_seconds` or `until`; `warm`: `initial`, `step`, `period`, or "
    'one of `pause`, `resume`, `jump`; `weight`: `weight` (a number or "auto"); `signal`: `signal`'
)
_OPERATION: dict[str, Schema] = {
    "command_id": text(
        "names this command: the same id again gives the same answer and does nothing", minLength=1, maxLength=128
    ),
    "verb": words(VERBS),
    "selection": body(_SELECTED, description="what is given must all hold; it must say something"),
    "strategy": body(
        _STRATEGY,
        description="null: all at once; left out: the center's own where capacity is taken away, else all at once. "
        "A member that is left out is the center's own.",
    ),
    "parameters": _PARAMETERS,
    "deadline": moment(f"no node begins later; at most {MAX_DEADLINE_SECONDS / 86400:g} days from now"),
    "deadline_seconds": number(
        f"the same from now on; not both; default {DEADLINE_SECONDS:g}", minimum=0.001, maximum=MAX_DEADLINE_SECONDS
    ),
    "reason": _reason(),
    "issued_by": text("who is shown, besides the caller", minLength=1, maxLength=MAX_NAME),
    "expected_generation": integer("of the one unit that it means: another one is refused", maximum=MAX_INTEGER),
    "dry_run": boolean("only the plan: nothing is kept or begun"),
}
_REPORT: dict[str, Schema] = {
    "service": _NAME,
    "instance": _INSTANCE,
    "generation": integer("of its entry when the gateway read it", maximum=MAX_INTEGER),
    "symptom": words(SYMPTOMS),
    "count": integer("how often", minimum=1, maximum=MAX_INTEGER),
    "first_seen": {**moment(), "maxLength": MAX_NAME},
    "state": words(("dead", "cleared")),
    "detail": text("in words", maxLength=MAX_REASON),
    "backends": integer("instances of all services that this gateway sends to", maximum=MAX_INTEGER),
    "service_backends": integer("and of this service", maximum=MAX_INTEGER),
}
_RESULT: dict[str, Schema] = {
    "command_id": _ID,
    "status": integer("what the node answered, or would have", minimum=100, maximum=599),
    "body": anything(),
}
_LEASE = answer({"service": text(), "instance": text(), "generation": integer()})

ASKED: dict[str, Schema] = {
    "NewOperation": body(_OPERATION, ("verb", "selection")),
    "Reason": body({"reason": _reason()}),
    "NewMode": body({"mode": words([mode.value for mode in Mode]), "reason": _reason()}, ("mode",)),
    "Reports": body(
        {
            "gateway": {**_NAME, "description": "the caller's own name, unless its role is admin"},
            "reports": listing(
                body(_REPORT, ("service", "instance", "generation", "symptom", "first_seen")), maxItems=MAX_REPORTS
            ),
        },
        ("gateway", "reports"),
    ),
    "Results": body(
        {"results": listing(body(_RESULT, ("command_id", "status", "body")), maxItems=MAX_RESULTS)}, ("results",)
    ),
    "Heartbeat": {
        "type": "object",
        "description": "what the node answers to `GET /v1/node`; `statuses`: its units as `GET /v1/units` shows them",
        "properties": {"node": {**_NAME, "description": "the one in the path"}},
        "required": ["node"],
    },
    "Selection": answer(
        {
            "services": listing(text()), "nodes": listing(text()), "units": listing(text()),
            "instances": listing(text()), "labels": mapping(text()),
        }
    ),
    "Strategy": answer(_STRATEGY),
    "Registration": body({"entry": anything("as it is listed"), "ttl_seconds": number()}, ("entry",)),
    "Renewal": body({"leases": listing(_LEASE, "at most 5000")}, ("leases",)),
}  # fmt: skip
