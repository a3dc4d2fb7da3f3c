"""Schemas of what the API sends, by name."""

from __future__ import annotations

from registry_client.model import SCHEMA, STATUSES
from supervisor.core.access import Role

from ..metrics import NODE_STATES
from ..model import VERBS, Mode, OperationState, TargetState, Verdict, Wish
from .bodies import SYMPTOMS
from .schema import (
    Schema,
    answer,
    anything,
    boolean,
    integer,
    listing,
    mapping,
    maybe,
    moment,
    number,
    ref,
    text,
    words,
)

_ENTRY: dict[str, Schema] = {
    "schema": integer("the version of this form", const=SCHEMA),
    "service": text("its name"),
    "instance": text("`NODE/UNIT`"),
    "node": text(),
    "unit": text("its name on the node"),
    "address": text("where it listens"),
    "port": integer(),
    "generation": integer("grows with each start"),
    "status": words(STATUSES),
    "weight": integer("its share of traffic now"),
    "full_weight": integer("the one after warm-up"),
    "started_at": moment(),
    "warmup_seconds": number("how long the way to full weight takes", minimum=0),
    "version": maybe(text()),
    "zone": maybe(text()),
    "metadata": mapping(text(), "labels"),
}
_SERVICE: dict[str, Schema] = {
    "service": text("its name"),
    "instances": integer("that are registered"),
    "up": integer("of them"),
    "warming": integer("of them: their weight still grows"),
    "draining": integer("of them: they finish what they have"),
    "weight": integer("sum of the weights now; who drains counts 0"),
    "full_weight": integer("sum of the full weights"),
    "capacity_percent": number("weight of full_weight"),
    "zones": mapping(integer(), 'zone ("" for none) and how many instances'),
    "nodes": integer("that it runs on"),
    "operation": maybe(text("id of the open operation that holds it")),
    "frozen": maybe(text("why nothing of it is restarted automatically")),
}
_INSTANCE = {
    **_ENTRY,
    "operation": maybe(text("id of the open operation that works on it, or will")),
    "reports": integer("gateways that complain of it now"),
}
_NODE: dict[str, Schema] = {
    "node": text("its name"),
    "address": text("where its API listens"),
    "port": integer(),
    "scheme": words(("http", "https")),
    "via": words(("push", "pull"), "whether it is asked, or fetches its commands"),
    "state": words(
        NODE_STATES,
        "`suspect`, `dead`: it has been silent for longer than it ever is; `gone`: its entry has left the registry; "
        "`refused`: it does not accept the center's credential",
    ),
    "phi": maybe(number("how unlikely its silence is: 8 is one in 10^8")),
    "seen_seconds_ago": maybe(number()),
    "interval_seconds": maybe(number("mean time between its heartbeats")),
    "version": maybe(text("of its unitd")),
    "units": maybe(integer("how many")),
    "open_operations": maybe(integer()),
    "life": integer("grows with each start of its daemon"),
    "services": listing(text()),
    "detail": text("what is wrong, in words"),
}
_GATEWAY: dict[str, Schema] = {
    "gateway": text("its name"),
    "kind": words(("haproxy", "nginx", "envoy", "embedded")),
    "service": text("that this is about"),
    "revision": integer("of the registry, which it acts on"),
    "serving": integer("listed instances to which it sends new requests"),
    "listed": integer("instances that the registry lists for new requests"),
    "lacks": listing(text(), "listed instances to which it does not send"),
    "stale": integer("lives of instances that it still sends to, and that the registry does not list for new requests"),
    "finishing": integer("requests open at instances that get no new ones"),
}
_TARGET: dict[str, Schema] = {
    "node": text(),
    "unit": text('"" for `apply`'),
    "instance": text("`NODE/UNIT`; the node's name for `apply`"),
    "service": maybe(text()),
    "zone": maybe(text()),
    "generation": maybe(integer("as the registry had it when the command was sent")),
    "weight": integer("its full weight then"),
    "batch": integer("number of its batch, from 0"),
    "state": words([state.value for state in TargetState]),
    "command_id": text("of the command to its node"),
    "seq": integer("grows with each command that is sent to anybody; 0: not sent"),
    "attempts": integer("deliveries tried"),
    "node_operations": listing(text(), "ids of the node's own operations"),
    "steps": text("what it does now, in words"),
    "detail": text("how it ended, or what the last try said"),
    "started": maybe(moment()),
    "finished": maybe(moment()),
    "generation_after": maybe(integer("of a canary, as the registry had it when it was done")),
}
_BATCH: dict[str, Schema] = {
    "number": integer("from 0"),
    "name": text("such as `canary`, `zone a 1/3`"),
    "state": words(("pending", "running", "baking", "succeeded", "failed", "skipped")),
    "started": maybe(moment()),
    "finished": maybe(moment()),
}
_LISTED: dict[str, Schema] = {
    "id": text('"" in a plan'),
    "command_id": text("the same id again is the same operation"),
    "verb": words(VERBS),
    "selection": ref("Selection"),
    "strategy": maybe(ref("Strategy")),
    "parameters": anything("as they were given"),
    "reason": text(),
    "issued_by": text(),
    "created": moment(),
    "deadline": moment("no node begins later"),
    "state": words([state.value for state in OperationState]),
    "wish": words([wish.value for wish in Wish], "what people want of it"),
    "cause": words(("person", "guard")),
    "checks_generation": boolean("a unit that has been started anew meanwhile is left alone"),
    "services": listing(text(), "that it holds: each has at most one open operation"),
    "baseline": mapping(integer(), "service and the weight of its instances at the beginning"),
    "epoch": integer("of the center that acts for it"),
    "version": integer("grows with each change"),
    "started": maybe(moment()),
    "finished": maybe(moment()),
    "waiting_for": text("one sentence, while it waits"),
    "error": maybe(text()),
    "batches": listing(ref("Batch")),
    "counts": mapping(integer(), "target state and how many"),
}
_DECISION: dict[str, Schema] = {
    "at": moment(),
    "service": text(),
    "instance": text(),
    "generation": integer("that was reported"),
    "verdict": words([verdict.value for verdict in Verdict]),
    "rule": text("the guard that decided, such as `quorum`"),
    "reason": text("one sentence"),
    "evidence": anything("all that it was made from"),
    "operation": maybe(text("id of the operation that was begun")),
    "id": integer(),
}
_REPORT: dict[str, Schema] = {
    "gateway": text(),
    "service": text(),
    "instance": text(),
    "generation": integer(),
    "symptom": words(SYMPTOMS),
    "count": integer(),
    "first_seen": moment(),
    "state": words(("dead", "cleared")),
    "detail": text(),
    "backends": integer(),
    "service_backends": integer(),
}
_CENTER: dict[str, Schema] = {
    "id": text("of the store, which centers that work together share"),
    "name": text("of this center"),
    "leader": boolean("this one acts for the fleet"),
    "leader_name": maybe(text()),
    "epoch": integer("grows with each change of the leader"),
    "mode": words([mode.value for mode in Mode]),
    "version": text(),
    "started_at": moment(),
    "registry": answer(
        {
            "backend": text(),
            "state": words(("ok", "away")),
            "seconds_ago": maybe(number("since its last answer; null: it has never answered")),
        }
    ),
    "principal": answer(
        {
            "name": text(),
            "role": words([role.value for role in Role]),
            "services": listing(text(), "globs of what may be commanded"),
        },
        "the caller",
    ),
}
_PROBLEM: Schema = {
    "type": "object",
    "description": "RFC 9457",
    "properties": {
        "type": text(),
        "title": text(),
        "status": integer(),
        "detail": text("what is wrong and what to do, for people"),
        "code": text("what is wrong, for programs"),
    },
    "required": ["type", "title", "status", "detail", "code"],
    "additionalProperties": True,
}

ANSWERS: dict[str, Schema] = {
    "Center": answer(_CENTER),
    "Service": answer(_SERVICE),
    "ServiceWithEntries": answer({**_SERVICE, "entries": listing(ref("Instance"))}),
    "Entry": answer(_ENTRY, "an instance in the registry"),
    "Instance": answer(_INSTANCE, "an entry of the registry, and what the center knows besides"),
    "Node": answer(_NODE),
    "NodeWithInstances": answer({**_NODE, "instances": listing(ref("Instance"))}),
    "Gateway": answer(_GATEWAY, "what one gateway says of one service"),
    "Operation": answer({**_LISTED, "targets": listing(ref("Target"))}),
    "ListedOperation": answer(_LISTED, "an operation without its targets"),
    "Batch": answer(_BATCH, "targets that go together"),
    "Target": answer(_TARGET, "one unit (for `apply`: one node) that an operation has a command for"),
    "Decision": answer(_DECISION),
    "Report": answer(_REPORT, "a gateway's report as it is kept in a decision's evidence"),
    "Event": answer(
        {
            "seq": integer(),
            "at": moment(),
            "type": text("`operation`, `decision`, `node`, `service`, `mode`"),
            "body": anything(),
        }
    ),
    "AuditRecord": answer(
        {
            "seq": integer(),
            "at": moment(),
            "who": text("the access entry, or the user on loopback"),
            "action": text("`operation`, `pause`, `resume`, `abort`, `mode`, `thaw`, `clear`, `authentication`"),
            "body": anything(
                "`verdict` (`accepted` or a problem's code), `peer`, `request_id`, and what was asked for"
            ),
        }
    ),
    "NodeCommand": answer(
        {"seq": integer(), "method": words(("POST",)), "path": text(), "body": anything("the command's envelope")}
    ),
    "Snapshot": answer(
        {"epoch": text(), "revision": integer(), "service": maybe(text()), "entries": listing(ref("Entry"))}
    ),
    "Problem": _PROBLEM,
}
