"""The vocabulary of the control center: values that its parts, its store and its API share. Pure.

Times named `at`, `created`, `started`, `finished`, `deadline` are ISO 8601 in UTC; in JSON, absent is null, never a
missing key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

NODE_SERVICE = "unitd"  # under which the daemons themselves are registered
VERBS = ("start", "stop", "restart", "drain", "undrain", "warm", "weight", "signal", "apply")
ROLLING_VERBS = ("restart", "stop", "drain", "apply")  # what takes capacity away, and so may need batches


class Mode(StrEnum):
    """What the center may do by itself."""

    OBSERVE = "observe"  # decide and show, never act
    ASSIST = "assist"  # act on a quorum of gateways, or on a gateway and the node's own probe
    FULL = "full"  # one gateway suffices where the node does not contradict


class OperationState(StrEnum):
    """How far a fleet operation is."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABORTED = "aborted"
    EXPIRED = "expired"

    @property
    def done(self) -> bool:
        """Nothing more will happen to it."""
        return self in _DONE


_DONE = frozenset((OperationState.SUCCEEDED, OperationState.FAILED, OperationState.ABORTED, OperationState.EXPIRED))


class TargetState(StrEnum):
    """How far the command to one unit is."""

    PENDING = "pending"
    SENT = "sent"  # written down, on its way, perhaps delivered
    RUNNING = "running"  # the node has it in its journal
    CONFIRMING = "confirming"  # the node is done; the registry does not show it yet
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"  # never sent
    EXPIRED = "expired"  # its deadline came before the node began

    @property
    def done(self) -> bool:
        """Nothing more will happen to it."""
        return self in _TARGET_DONE

    @property
    def busy(self) -> bool:
        """It was sent, and has not ended."""
        return self in (TargetState.SENT, TargetState.RUNNING, TargetState.CONFIRMING)


_TARGET_DONE = frozenset((TargetState.SUCCEEDED, TargetState.FAILED, TargetState.SKIPPED, TargetState.EXPIRED))


class Wish(StrEnum):
    """What people want of an open operation."""

    RUN = "run"
    PAUSE = "pause"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which units a command is for; what is given must all hold. Globs but for labels; empty means any.

    `labels` are compared with an entry's metadata, and `zone` and `version` with its own fields. `units` are unit
    names on their node; a selection with `nodes` and `units` alone may name units that are in no registry.
    """

    services: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """It says nothing, so it would mean everything."""
        return not (self.services or self.nodes or self.units or self.instances or self.labels)


@dataclass(frozen=True, slots=True)
class Strategy:
    """How a rolling operation goes through its targets. None of it: all at once (Operation.strategy is None)."""

    batch: str = "25%"  # a number ("2") or a share ("25%") of each service's targets; at least one
    canary: int = 1  # targets of the first batch; 0: none
    bake_seconds: float = 30.0  # how long the canary must be well before the rest follows
    floor_percent: float = 75.0  # of a service's weight must stay in the registry, warm and not draining
    max_failures: int = 0  # as many targets may fail
    by_zone: bool = True  # one zone after another
    target_seconds: float = 900.0  # how long one target may take until it is back at full weight


@dataclass(slots=True)
class Target:
    """One unit (or, for `apply`, one node) that an operation has a command for."""

    node: str
    unit: str  # "" for apply
    instance: str  # `<node>/<unit>`; the node's name for apply
    service: str | None = None
    zone: str | None = None
    generation: int | None = None  # as the registry had it when the command was planned
    weight: int = 0  # full weight, then
    batch: int = 0  # number of its batch, from 0
    state: TargetState = TargetState.PENDING
    command_id: str = ""
    seq: int = 0  # grows with each command that is sent to anybody
    attempts: int = 0  # deliveries tried
    node_operations: tuple[str, ...] = ()
    steps: str = ""  # what it does now, in words, as the node tells
    detail: str = ""  # how it ended, or what the last try said
    started: str | None = None
    finished: str | None = None
    generation_after: int | None = None  # of a canary, as the registry had it when it was done


@dataclass(slots=True)
class Batch:
    """A part of an operation's targets that go together."""

    number: int
    name: str  # "canary", "zone a 1/3", ...
    state: str = "pending"  # pending | running | baking | succeeded | failed | skipped
    started: str | None = None
    finished: str | None = None


@dataclass(slots=True)
class Operation:
    """A command to a fleet on its way."""

    id: str
    command_id: str
    verb: str
    selection: Selection
    strategy: Strategy | None
    parameters: dict[str, Any]
    reason: str
    issued_by: str
    created: str
    deadline: str  # no node begins it later
    state: OperationState = OperationState.PENDING
    wish: Wish = Wish.RUN
    cause: str = "person"  # person | guard
    checks_generation: bool = False  # a target that is of another generation by then is refused by its node
    services: tuple[str, ...] = ()  # that it holds; each has at most one open operation
    baseline: dict[str, int] = field(default_factory=dict)  # service -> full weight of its instances at the beginning
    epoch: int = 0  # of the center that acts for it
    version: int = 0  # grows with each change
    started: str | None = None
    finished: str | None = None
    waiting_for: str = ""  # one sentence, while it waits
    error: str | None = None
    batches: list[Batch] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Target state -> how many."""
        counts: dict[str, int] = {}
        for target in self.targets:
            counts[target.state.value] = counts.get(target.state.value, 0) + 1
        return counts


@dataclass(frozen=True, slots=True)
class Report:
    """What a gateway says of one instance: evidence, not an order."""

    gateway: str
    service: str
    instance: str
    generation: int
    symptom: str  # connect_refused | connect_timeout | response_timeout | error_answers | check_failed
    count: int
    first_seen: str
    state: str = "dead"  # dead | cleared
    detail: str = ""
    backends: int = 0  # how many instances of all services this gateway sends to
    service_backends: int = 0  # and of this one


class Verdict(StrEnum):
    """What became of reports about an instance."""

    RESTART = "restart"  # ordered
    WOULD_RESTART = "would_restart"  # mode observe
    WAIT = "wait"  # not enough evidence yet, or no budget yet: looked at again
    REFUSE = "refuse"  # no, and why
    FATAL = "fatal"  # restarted too often: a person must look


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer to reports, with all that it was made from."""

    at: str
    service: str
    instance: str
    generation: int
    verdict: Verdict
    rule: str  # the guard that decided: generation, quorum, reporter, budget_service, ...
    reason: str  # one sentence
    evidence: dict[str, Any] = field(default_factory=dict)
    operation: str | None = None
    id: int = 0  # the store's


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for whoever follows. `type`: operation | decision | gateway | node | service | mode."""

    seq: int
    at: str
    type: str
    body: dict[str, Any]


@dataclass(slots=True)
class NodeStatus:
    """A node as this center sees it."""

    node: str
    address: str
    port: int
    scheme: str  # http | https
    via: str  # push | pull
    state: str = "unknown"  # up | suspect | dead | unknown | gone (no entry any more) | refused (it does not let us in)
    phi: float | None = None
    seen_seconds_ago: float | None = None
    interval_seconds: float | None = None  # mean time between heartbeats
    version: str | None = None
    units: int | None = None
    open_operations: int | None = None
    life: int = 0  # grows with each start of its daemon
    services: tuple[str, ...] = ()
    detail: str = ""


def to_json(value: Any) -> Any:
    """Any of these as plain values."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)  # enums become their text
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return {each.name: to_json(getattr(value, each.name)) for each in fields(value)}


def fingerprint(verb: str, selection: Selection, strategy: Strategy | None, rest: Mapping[str, Any]) -> str:
    """All that a command asks for, for comparison with itself when it comes again."""
    parts = [verb, to_json(selection), to_json(strategy), to_json(rest)]
    return json.dumps(parts, sort_keys=True, separators=(",", ":"))
