"""What answers consist of. The names are those of the classes in `wire.py`, where there is one."""

from __future__ import annotations

from ..wire import OPERATION_STATES, PROBLEMS, VERBS
from .words import Schema, flag, items, moment, number, or_null, record, reference, text, whole, word

STATES = (
    "STOPPED", "STARTING", "RUNNING", "WARMING", "UNHEALTHY", "DRAINED", "EXPIRING", "DRAINING", "STOPPING", "BACKOFF",
    "EXITED", "FATAL",
)  # fmt: skip
PHASES = (
    "stopped", "waiting", "backoff", "starting", "prewarming", "running", "expiring", "settling", "draining",
    "stopping", "killing", "fatal",
)  # fmt: skip
STEPS = (
    "wait", "resume", "withdraw", "gone", "gateways", "settle", "drain", "terminate", "kill", "backoff", "spawn",
    "ready", "prewarm", "register", "none",
)  # fmt: skip
EFFECTS = ("none", "live", "reregister", "restart", "new", "removed")

LEASE = record(
    "A lease as the unit's heartbeat agent sees it.",
    state=word("`suspended`: the registry does not answer, and the entry may be there still.",
               "held", "suspended", "absent", "lost"),
    ttl_seconds=number("How long the entry lives without a renewal."),
    renewed_seconds_ago=or_null(number("Since the last renewal that was confirmed.")),
    registry=or_null(text("The registry, where there are several.")),
)  # fmt: skip
EXIT = record(
    "How the last attempt ended.",
    code=or_null({"type": "integer", "description": "The exit code."}),
    signal=or_null(text("The signal that killed it, such as SIGKILL.")),
    at=moment("When."),
    reason=text("The same in words."),
)
PROBE = record(
    "What one probe of a unit says.",
    role=word("What it decides.", "startup", "readiness", "liveness"),
    kind=text("http, tcp, exec, notify, kernel, or a plugin's."),
    ok=or_null(flag("Whether it holds, by its thresholds.")),
    streak={"type": "integer", "description": "Good answers in a row; below 0: failures in a row."},
    detail=text("The last answer in words."),
    seconds_ago=or_null(number("Its age.")),
)
MAINTENANCE = record(
    "Why a unit is kept out of traffic, and until when.",
    owner=text("Who does that."),
    reason=text("Why."),
    since=moment("Since when."),
    until=or_null(moment("When it is undrained by itself.")),
)
UNIT = record(
    "One unit.",
    unit=text("Its name."),
    service=or_null(text("The service that it is registered under.")),
    state=word("What people see.", *STATES),
    wanted=word("Whether it is to be up.", "up", "down"),
    phase=word("The finer state.", *PHASES),
    ready=flag("It has become ready, and its readiness holds."),
    live=flag("Its process exists."),
    pid=or_null(whole("Its main process.", minimum=1)),
    generation=whole("How often it has been started."),
    uptime_seconds=or_null(number("Of its process.")),
    weight=or_null(whole("Its weight in the registry now.")),
    full_weight=or_null(whole("The configured one.")),
    lease=or_null(reference("LeaseStatus")),
    in_flight=or_null(whole("What it was asked and has not answered.")),
    restarts=whole("Automatic ones."),
    last_exit=or_null(reference("ExitStatus")),
    operation=or_null(text("The id of its oldest unfinished operation.")),
    why=text("One sentence: where it stands, what it waits for, until when."),
    warmup=or_null(text("How its weight grows, is held or is fixed, in words.")),
    probes=items("Empty while it has no process that is watched.", reference("ProbeStatus")),
    maintenance=or_null(reference("MaintenanceStatus")),
    leases=items("The lease in each registry, where there are several.", reference("LeaseStatus")),
)
STEP = record(
    "One step of an operation.",
    name=word("What happens.", *STEPS),
    state=word("How far it is.", "pending", "running", "succeeded", "failed", "skipped"),
    started=or_null(moment("When it began.")),
    finished=or_null(moment("When it ended.")),
    detail=text("What is waited for and until when, or what has come of it."),
)
OPERATION = record(
    "A command on its way, for one unit.",
    id=text("Its name."),
    command_id=text("The command that has made it; many operations may have the same."),
    unit=text("The unit."),
    verb=word("What was ordered.", *VERBS),
    state=word("How far it is.", *OPERATION_STATES),
    steps=items("Those that it has gone through, and the present one.", reference("Step")),
    error=or_null(text("Why it has not succeeded.")),
    reason=text("Of the command."),
    issued_by=text("Of the command."),
    created=moment("When it was ordered."),
    finished=or_null(moment("When it ended.")),
    deadline=or_null(text("Of the command.")),
    cut=or_null(whole("Requests and streams that were still open when the time for draining was over.")),
)
PLAN_ITEM = record(
    "What applying the configuration means for one unit, or (`unitd`) for the daemon itself.",
    unit=text("Its name."),
    effect=word("What would be done.", *EFFECTS),
    keys=items("What has changed.", {"type": "string"}),
)
NODE = record(
    "The daemon itself.",
    node=text("Its name."),
    version=text("Of unitd."),
    state_id=text("Of its state_dir: another one is another daemon, though the node has the same name."),
    life=whole("How often a daemon has begun there.", minimum=1),
    started_at=moment("When this one began."),
    uptime_seconds=number("Since then.", minimum=0),
    units=whole("How many it has."),
    services=items("Those that its units are registered under.", {"type": "string"}),
    open_operations=whole("How many have not ended."),
    time=moment("Its clock."),
)
EVENT = record(
    "`data` of one server-sent event.",
    seq=whole("Grows from event to event; also the event's `id`."),
    at=moment("When."),
    unit=text("The unit."),
    type=text("A state in lower case, or what was reported; also the event's `event`."),
    text=text("The same in words."),
)
MISTAKE = record(
    "A mistake in the configuration.",
    path=or_null(text("The file.")),
    line=whole("Counted from 1; 0: unknown."),
    key=text("The dotted key, or an empty string."),
    reason=text("What is wrong."),
)
FINDING = record(
    "The outcome of one check of one thing.",
    outcome=word("How it is.", "ok", "warning", "problem", "unknown"),
    check=text("Which check."),
    subject=text("What it looked at."),
    message=text("What was found."),
    action=text("What to do, or an empty string."),
)
ENTRY: Schema = {
    "type": "object",
    "description": "One instance of a service, as the registry knows it.",
    "properties": {
        "schema": {"const": 1, "description": "The version of this form."},
        "service": text("The service; no slash.", minLength=1, maxLength=255),
        "instance": text("Names it within the service.", minLength=1, maxLength=255),
        "node": text("Its host.", minLength=1, maxLength=255),
        "unit": text("Its unit.", minLength=1, maxLength=255),
        "address": text("Where to connect to.", minLength=1, maxLength=255),
        "port": whole("And the port.", minimum=1, maximum=65535),
        "generation": whole("An older one never overwrites a newer one.", maximum=2**53 - 1),
        "status": word("Whether to send to it.", "up", "warming", "draining"),
        "weight": whole("Its share of traffic now.", maximum=65535),
        "full_weight": whole("The one after its warm-up.", maximum=65535),
        "started_at": text("When its process began.", pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$"),
        "warmup_seconds": number("How long the way to full weight takes.", minimum=0, maximum=7 * 86400),
        "version": or_null(text("Of the unit.", minLength=1, maxLength=255)),
        "zone": or_null(text("Of the unit.", minLength=1, maxLength=255)),
        "metadata": {"type": "object", "description": "Free.", "maxProperties": 64,
                     "additionalProperties": {"type": "string", "maxLength": 512}},
    },
    "required": ["schema", "service", "instance", "node", "unit", "address", "port", "generation", "status", "weight",
                 "full_weight", "started_at"],
}  # fmt: skip
LEASE_KEY = {
    "type": "object",
    "description": "One registration, in exactly this generation.",
    "properties": {
        "service": text("The service.", minLength=1, maxLength=255),
        "instance": text("The instance.", minLength=1, maxLength=255),
        "generation": whole("Its generation.", maximum=2**53 - 1),
    },
    "required": ["service", "instance", "generation"],
}
PROBLEM: Schema = {
    "type": "object",
    "description": "Why a request was refused, and what to do (RFC 9457). Some have more members.",
    "properties": {
        "type": {"const": "about:blank"},
        "title": text("The status in words."),
        "status": whole("HTTP's.", minimum=400, maximum=599),
        "detail": text("What to do."),
        "code": text("The cause, for programs. Of this API: " + ", ".join(PROBLEMS) + "."),
        "nearest": or_null(text("`unknown_unit`: the name that was perhaps meant.")),
        "generation": whole("`generation_moved`: the one that the unit has."),
        "epoch": whole("`stale_epoch`: the one that leads."),
        "errors": items("`bad_config`: every mistake.", reference("Mistake")),
    },
    "required": ["type", "title", "status", "detail", "code"],
}

SCHEMAS: dict[str, Schema] = {
    "UnitStatus": UNIT, "LeaseStatus": LEASE, "ExitStatus": EXIT, "ProbeStatus": PROBE,
    "MaintenanceStatus": MAINTENANCE, "Operation": OPERATION, "Step": STEP, "PlanItem": PLAN_ITEM, "NodeInfo": NODE,
    "Event": EVENT, "Mistake": MISTAKE, "Finding": FINDING, "Entry": ENTRY, "LeaseKey": LEASE_KEY, "Problem": PROBLEM,
}  # fmt: skip
