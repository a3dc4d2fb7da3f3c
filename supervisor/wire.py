"""The messages of the control API (the unix socket's and HTTP's are the same), and how they are encoded.

Absent is null in JSON, never a missing key. Times named `at`, `started`, `finished` and `deadline` are ISO 8601 in UTC.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from .errors import WireError

VERBS = ("start", "stop", "restart", "signal", "drain", "undrain", "warm", "weight")
OPERATION_STATES = ("pending", "running", "succeeded", "failed", "aborted", "expired")
FINISHED = frozenset(("succeeded", "failed", "aborted", "expired"))
MAX_NUMBER = 2**53 - 1  # what every reader of JSON takes for a whole number
MAX_BODY_BYTES = 1024 * 1024  # as many renewals as a registry takes in one call


@dataclass(slots=True)
class LeaseStatus:
    """The unit's lease as its heartbeat agent sees it."""

    state: str  # held | suspended | absent | lost
    ttl_seconds: float
    renewed_seconds_ago: float | None
    registry: str | None = None  # where the host has several; None: the one that is worst off


@dataclass(slots=True)
class ExitStatus:
    """How the last attempt ended."""

    code: int | None
    signal: str | None  # "SIGKILL"
    at: str
    reason: str


@dataclass(slots=True)
class ProbeStatus:
    """What one probe of a unit says."""

    role: str  # startup | readiness | liveness
    kind: str
    ok: bool | None  # None: it has not answered yet
    streak: int  # good answers in a row; below 0: failures in a row
    detail: str
    seconds_ago: float | None


@dataclass(slots=True)
class MaintenanceStatus:
    """Why a unit is kept out of traffic, and until when."""

    owner: str
    reason: str
    since: str
    until: str | None  # None: until somebody takes it back


@dataclass(slots=True)
class UnitStatus:
    """One unit, as `GET /v1/units` and `unitctl status -o json` show it."""

    unit: str
    service: str | None
    state: str  # the word people see: RUNNING, BACKOFF, ...
    wanted: str  # up | down
    phase: str
    ready: bool
    live: bool  # its process exists
    pid: int | None
    generation: int
    uptime_seconds: float | None
    weight: int | None
    full_weight: int | None
    lease: LeaseStatus | None
    in_flight: int | None
    restarts: int
    last_exit: ExitStatus | None
    operation: str | None
    why: str
    warmup: str | None = None  # how its weight grows, in words; None: it does not
    probes: list[ProbeStatus] = field(default_factory=list)
    maintenance: MaintenanceStatus | None = None
    leases: list[LeaseStatus] = field(default_factory=list)  # by registry, where there are several


@dataclass(slots=True)
class NodeInfo:
    """The daemon itself, as `GET /v1/node` shows it."""

    node: str
    version: str
    state_id: str  # of its state_dir: another one is another daemon, though the node has the same name
    life: int  # how often a daemon has begun there
    started_at: str
    uptime_seconds: float
    units: int
    services: list[str]
    open_operations: int
    time: str  # its clock


@dataclass(slots=True)
class Step:
    """One step of an operation."""

    # wait | resume | withdraw | gone | gateways | settle | drain | terminate | kill | backoff | spawn | ready |
    # prewarm | register | none
    name: str
    state: str  # pending | running | succeeded | failed | skipped
    started: str | None = None
    finished: str | None = None
    detail: str = ""


@dataclass(slots=True)
class Operation:
    """A command on its way."""

    id: str
    command_id: str
    unit: str
    verb: str
    state: str
    steps: list[Step] = field(default_factory=list)
    error: str | None = None
    reason: str = ""
    issued_by: str = ""
    created: str = ""
    finished: str | None = None
    deadline: str | None = None  # not begun after it
    cut: int | None = None  # requests that were still open when the time for draining was over

    @property
    def done(self) -> bool:
        """Nothing more will happen to it."""
        return self.state in FINISHED


@dataclass(frozen=True, slots=True)
class Command:
    """The body of a command; every field may be left out."""

    command_id: str | None = None  # the same id again gives the same operation
    deadline: str | None = None  # not started after it
    reason: str = ""
    issued_by: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    expected_generation: int | None = None  # refused when the unit has another by now; for one unit only
    center: str | None = None  # the id of the control center's store that it comes from, with
    epoch: int | None = None  # how often the lead has changed there: a lower one than before is refused


@dataclass(frozen=True, slots=True)
class PlanItem:
    """What applying the configuration would do to one unit."""

    unit: str
    effect: str  # none | live | reregister | restart | new | removed
    keys: tuple[str, ...] = ()  # what changed


def to_json(message: Any) -> dict[str, Any]:
    """A message as plain values: dict[field name, value]. (`asdict` copies deeply and takes ten times as long.)"""
    return {name: _plain(getattr(message, name)) for name in message.__slots__}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | bool | dict):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return to_json(value)


def encode(value: Any) -> bytes:
    """JSON, one line, with a newline at its end."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # A lone surrogate, which somebody's JSON can spell, becomes its escape again.
    return text.encode(errors="backslashreplace") + b"\n"


def decode(body: bytes) -> Any:
    """The JSON value of a body. Raises WireError."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WireError(f"cannot read the body: it is not JSON ({error})") from error


_COMMAND_FIELDS: dict[str, type] = {
    "command_id": str, "deadline": str, "reason": str, "issued_by": str, "parameters": dict,
    "expected_generation": int, "center": str, "epoch": int,
}  # fmt: skip
_JSON_WORDS = {str: "string", dict: "object", int: f"whole number from 0 to {MAX_NUMBER}"}


def decode_command(body: bytes) -> Command:
    """A command's body; empty means a command with nothing said. Raises WireError."""
    if not body.strip():
        return Command()
    value = decode(body)
    if not isinstance(value, dict):
        raise WireError("cannot read the command: its body must be a JSON object")
    for key, item in value.items():
        wanted = _COMMAND_FIELDS.get(key)
        if wanted is None:
            raise WireError(f"cannot read the command: unknown key {key!r}; known: {', '.join(_COMMAND_FIELDS)}")
        if item is not None and not _is_a(item, wanted):
            raise WireError(f"cannot read the command: {key!r} must be a JSON {_JSON_WORDS[wanted]}")
    command = Command(**{key: item for key, item in value.items() if item is not None})
    if (command.center is None) != (command.epoch is None):
        raise WireError("cannot read the command: 'center' and 'epoch' mean something only together")
    return command


def _is_a(item: object, wanted: type) -> bool:
    if wanted is int:
        return isinstance(item, int) and not isinstance(item, bool) and 0 <= item <= MAX_NUMBER
    return isinstance(item, wanted)


def same_request(verb: str, target: str, command: Command) -> str:
    """All that a command asks for, to compare it with itself when it comes again: not until when, nor in whose lead."""
    parts = [
        verb, target, command.parameters, command.reason, command.issued_by,
        command.expected_generation, command.center,
    ]  # fmt: skip
    return json.dumps(parts, sort_keys=True, separators=(",", ":"))


PROBLEMS = {  # code, the member of a problem that programs look at: HTTP's status and title
    "bad_request": (400, "Bad Request"),
    "unauthenticated": (401, "Unauthorized"),
    "forbidden": (403, "Forbidden"),
    "not_found": (404, "Not Found"),
    "unknown_unit": (404, "Not Found"),
    "method_not_allowed": (405, "Method Not Allowed"),
    "request_timeout": (408, "Request Timeout"),
    "busy": (409, "Conflict"),
    "stale_epoch": (409, "Conflict"),
    "deadline_passed": (410, "Gone"),
    "generation_moved": (412, "Precondition Failed"),
    "too_large": (413, "Content Too Large"),
    "replayed": (422, "Unprocessable Content"),
    "bad_config": (422, "Unprocessable Content"),
    "headers_too_large": (431, "Request Header Fields Too Large"),
    "internal_error": (500, "Internal Server Error"),
    "not_implemented": (501, "Not Implemented"),
    "overloaded": (503, "Service Unavailable"),
    "shutting_down": (503, "Service Unavailable"),
}


def coded(code: str, detail: str, **more: Any) -> dict[str, Any]:
    """The problem of that code."""
    status, title = PROBLEMS[code]
    return problem(status, title, detail, code=code, **more)


def problem(status: int, title: str, detail: str, **more: Any) -> dict[str, Any]:
    """An RFC 9457 problem body; `detail` says what to do."""
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
