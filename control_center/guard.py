"""Whether reports about an instance are reason enough to restart it. Pure: facts in, verdict and reason out.

A report is evidence, not an order. The rules are asked in the order of RULES, and the first that has an answer decides;
where none has, the instance is restarted. Everything that a rule looked at is in the decision's evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from registry_client.model import Entry

from .guard_limits import Budgets, History, Limit
from .model import Decision, Mode, Verdict
from .moments import iso_of

ASK = "ask"  # the rule of a WAIT that ends as soon as the node has been asked

DOUBTED_VOICE = 0.5  # what a gateway counts that accuses too many


@dataclass(frozen=True, slots=True)
class GuardPolicy:
    """How much evidence a restart needs, and how many there may be."""

    quorum: int = 2  # gateways that must agree
    window_seconds: float = 15.0  # a report counts for so long, unless it is repeated
    service_per_minute: float = 2.0
    service_burst: int = 2
    node_per_minute: float = 6.0
    node_burst: int = 3
    fleet_per_minute: float = 30.0
    fleet_burst: int = 10
    max_unavailable_percent: float = 25.0  # of a service's instances, at least one
    self_preservation_percent: float = 50.0  # of a service reported dead by everybody: something else is at fault
    reporter_percent: float = 30.0  # of a gateway's backends accused by it: the gateway may be at fault
    min_interval_seconds: float = 60.0  # between two restarts of an instance
    backoff_initial: float = 10.0  # seconds; doubles with each restart
    backoff_max: float = 300.0
    fatal_restarts: int = 5
    fatal_window_seconds: float = 600.0

    def limit(self, scope: str) -> Limit:
        """The budget of "fleet", "service NAME" or "node NAME"."""
        kind = scope.partition(" ")[0]
        return Limit(scope, getattr(self, f"{kind}_per_minute"), getattr(self, f"{kind}_burst"))

    def limits(self, service: str, node: str) -> dict[str, Limit]:
        """Which budgets a restart is taken from: rule -> limit."""
        scopes = {"budget_service": f"service {service}", "budget_node": f"node {node}", "budget_fleet": "fleet"}
        return {rule: self.limit(scope) for rule, scope in scopes.items()}

    def needed(self, gateways: int) -> int:
        """How many of so many gateways must agree: the quorum, or more than half of them; one alone is never many."""
        return min(self.quorum, max(2, gateways // 2 + 1))


class Word(StrEnum):
    """What the node says of its unit."""

    NOT_ASKED = "not_asked"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    BUSY = "busy"  # it is not simply up: the node starts, stops or drains it already
    NEWER = "newer"  # it has been restarted since
    UNCLEAR = "unclear"  # the node answers, and cannot tell
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Voice:
    """One gateway's report, as it counts."""

    gateway: str
    generation: int
    symptom: str
    count: int
    seconds_ago: float
    detail: str = ""
    doubt: str = ""  # why it counts only half
    since_seconds: float = 0.0  # how long it has been saying so

    @property
    def weight(self) -> float:
        """What it counts."""
        return DOUBTED_VOICE if self.doubt else 1.0


@dataclass(frozen=True, slots=True)
class Case:
    """All that a decision is made from."""

    now: float  # unix time
    service: str
    instance: str
    mode: Mode
    entry: Entry | None  # as the registry has it, or had it
    voices: tuple[Voice, ...]  # of the last window, one for each gateway
    gateways: int = 0  # that are known to send to the service
    word: Word = Word.NOT_ASKED
    word_detail: str = ""
    operation: str | None = None  # that is open for the instance, or for its service
    operation_is_own: bool = False  # it is for this very instance
    preserved: str = ""  # why nothing of the service is restarted now
    has_left: bool = False  # the registry does not have it any more
    instances: int = 1  # of the service, those that have just gone included
    unavailable: int = 0  # of its other instances
    history: History = field(default_factory=History)
    budgets: Budgets = field(default_factory=Budgets)

    @property
    def generation(self) -> int:
        """That the decision is about."""
        return self.entry.generation if self.entry else max((voice.generation for voice in self.voices), default=0)

    @property
    def current(self) -> tuple[Voice, ...]:
        """The voices about what is in the registry now."""
        return tuple(voice for voice in self.voices if voice.generation == self.generation)

    @property
    def heard(self) -> float:
        """What these count together."""
        return sum(voice.weight for voice in self.current)


@dataclass(frozen=True, slots=True)
class _Answer:
    verdict: Verdict
    rule: str
    reason: str
    again_seconds: float | None = None  # when to look again, even if nothing changes


def decide(case: Case, policy: GuardPolicy) -> Decision:
    """The verdict on a case. Its evidence tells in `again_seconds` when to look again though nothing has changed.

    WAIT with the rule ASK: the node's word would decide, and it has not been asked.
    """
    answer = next((answer for rule in RULES if (answer := rule(case, policy))), None) or _restart(case, policy)
    return Decision(
        at=iso_of(case.now),
        service=case.service,
        instance=case.instance,
        generation=case.generation,
        verdict=answer.verdict,
        rule=answer.rule,
        reason=answer.reason,
        evidence=_evidence(case, policy) | {"again_seconds": answer.again_seconds},
    )


def unavailable_allowed(instances: int, percent: float) -> int:
    """How many of a service's instances may be away at the same time: a share, and always one."""
    return max(1, int(instances * percent / 100))


def _generation(case: Case, policy: GuardPolicy) -> _Answer | None:
    if case.entry is None:
        return _Answer(Verdict.REFUSE, "unknown_instance", f"{case.instance} is not in the registry")
    if case.current and case.word is not Word.NEWER:
        return None
    newest = max((voice.generation for voice in case.voices), default=0)
    if newest > case.generation:
        reason = f"the report is about generation {newest}, the registry shows {case.generation} so far"
        return _Answer(Verdict.WAIT, "generation", reason)
    now = f"the node has another: {case.word_detail}" if case.current else f"the registry has {case.generation}"
    return _Answer(Verdict.REFUSE, "generation", f"the report is about generation {newest}, {now}")


def _not_up(case: Case, policy: GuardPolicy) -> _Answer | None:
    """It leaves traffic, or has left it: only its node knows whether that is because it does not serve."""
    assert case.entry is not None
    if not case.has_left and case.entry.status != "draining":
        return None
    if case.word is Word.UNHEALTHY:
        return None
    if case.word is Word.NOT_ASKED:
        return _Answer(Verdict.WAIT, ASK, "the node has not been asked yet", 0.0)
    how = "has left the registry" if case.has_left else "is draining"
    return _Answer(Verdict.REFUSE, "not_up", f"{case.instance} {how}: nobody should send to it any more")


def _under_way(case: Case, policy: GuardPolicy) -> _Answer | None:
    if case.operation is not None and case.operation_is_own:
        return _Answer(Verdict.REFUSE, "under_way", f"already under way: operation {case.operation}")
    if case.word is Word.BUSY:
        return _Answer(Verdict.REFUSE, "under_way", f"already under way on its node: {case.word_detail}")
    if case.operation is not None:
        return _Answer(Verdict.WAIT, "under_way", f"{case.service} has the open operation {case.operation}")
    return None


def _reporter(case: Case, policy: GuardPolicy) -> _Answer | None:
    """Doubted voices alone never outvote a node that has been asked and does not agree."""
    doubted = [voice for voice in case.current if voice.doubt]
    if len(doubted) < len(case.current) or case.word in (Word.NOT_ASKED, Word.UNHEALTHY):
        return None
    reason = f"{doubted[0].gateway} {doubted[0].doubt}, so it may be at fault itself; the node says: {case.word_detail}"
    return _Answer(Verdict.REFUSE, "reporter", reason)


def _self_preservation(case: Case, policy: GuardPolicy) -> _Answer | None:
    return _Answer(Verdict.REFUSE, "self_preservation", case.preserved) if case.preserved else None


def _quorum(case: Case, policy: GuardPolicy) -> _Answer | None:
    if case.word is Word.NOT_ASKED:
        return _Answer(Verdict.WAIT, ASK, "the node has not been asked yet", 0.0)
    if case.word is Word.UNREACHABLE:
        reason = f"its node cannot be asked ({case.word_detail}), and so could not be told either"
        return _Answer(Verdict.WAIT, "node_unreachable", reason, policy.window_seconds / 3)
    if _basis(case, policy):
        return None
    many = "one gateway reports" if len(case.current) == 1 else f"{len(case.current)} gateways report"
    if case.word is Word.HEALTHY:
        reason = f"{many} {case.instance}, and its node finds it healthy: the path between them may be at fault"
        return _Answer(Verdict.REFUSE, "gateway_path_problem", reason)
    needed = policy.needed(case.gateways)
    reason = f"{many} {case.instance}, which counts {case.heard:g} of {needed}; {case.word_detail}"
    return _Answer(Verdict.WAIT, "quorum", reason)


def _basis(case: Case, policy: GuardPolicy) -> str:
    """What the evidence is sufficient by; "" if it is not."""
    if case.heard >= policy.needed(case.gateways):
        return "quorum"
    if case.word is Word.UNHEALTHY:
        return "node_agrees"
    if case.mode is Mode.FULL and case.heard >= 1 and case.word is Word.UNCLEAR:
        return "single_gateway"
    return ""


def _fatal(case: Case, policy: GuardPolicy) -> _Answer | None:
    many = case.history.within(policy.fatal_window_seconds, case.now)
    if case.history.fatal_since is None and many < policy.fatal_restarts:
        return None
    window = f"{policy.fatal_restarts} times within {policy.fatal_window_seconds:g} s"
    return _Answer(Verdict.FATAL, "fatal", f"restarted {window} and reported again: a person must look, and clear it")


def _interval(case: Case, policy: GuardPolicy) -> _Answer | None:
    assert case.entry is not None
    least = max(policy.min_interval_seconds, case.entry.warmup_seconds)
    wait = case.history.due(least, policy.backoff_initial, policy.backoff_max) - case.now
    if wait <= 0:
        return None
    ago = case.now - case.history.restarts[-1]
    return _Answer(Verdict.WAIT, "interval", f"restarted {ago:.0f} s ago; not again for {wait:.0f} s", wait)


def _max_unavailable(case: Case, policy: GuardPolicy) -> _Answer | None:
    allowed = unavailable_allowed(case.instances, policy.max_unavailable_percent)
    if case.unavailable < allowed:
        return None
    reason = f"{case.unavailable} of {case.instances} instances of {case.service} are away already, {allowed} may be"
    return _Answer(Verdict.WAIT, "max_unavailable", reason, policy.window_seconds / 3)


def _budgets(case: Case, policy: GuardPolicy) -> _Answer | None:
    assert case.entry is not None
    for rule, limit in policy.limits(case.service, case.entry.node).items():
        wait = case.budgets.wait_seconds(limit, case.now)
        if wait != 0:
            left = "and it is never refilled" if wait is None else f"the next restart is due in {wait:.0f} s"
            return _Answer(Verdict.WAIT, rule, f"the budget of {limit.scope} is spent; {left}", wait)
    return None


def _restart(case: Case, policy: GuardPolicy) -> _Answer:
    basis = _basis(case, policy)
    gateways = ", ".join(voice.gateway for voice in case.current)
    symptoms = ", ".join(sorted({voice.symptom for voice in case.current}))
    reason = f"{gateways} report{'s' if len(case.current) == 1 else ''} {symptoms}; {_BASES[basis]}"
    if case.mode is Mode.OBSERVE:
        return _Answer(Verdict.WOULD_RESTART, basis, f"{reason}; the mode is observe")
    return _Answer(Verdict.RESTART, basis, reason)


_BASES = {
    "quorum": "enough gateways agree",
    "node_agrees": "its node agrees",
    "single_gateway": "its node does not contradict",
}

Rule = Callable[[Case, GuardPolicy], "_Answer | None"]
RULES: tuple[Rule, ...] = (
    _generation, _not_up, _under_way, _reporter, _self_preservation, _quorum, _fatal, _interval, _max_unavailable,
    _budgets,
)  # fmt: skip


def _registered(entry: Entry) -> dict[str, Any]:
    return {"generation": entry.generation, "status": entry.status, "weight": entry.weight}


def _evidence(case: Case, policy: GuardPolicy) -> dict[str, Any]:
    entry = case.entry
    limits = policy.limits(case.service, entry.node if entry else case.instance.partition("/")[0])
    return {
        "mode": case.mode.value,
        "reports": [asdict(voice) | {"weight": voice.weight} for voice in case.voices],
        "heard": case.heard,
        "needed": policy.needed(case.gateways),
        "gateways": case.gateways,
        "node": {"word": case.word.value, "detail": case.word_detail},
        "registry": None if entry is None or case.has_left else _registered(entry),
        "operation": case.operation,
        "instances": case.instances,
        "unavailable": case.unavailable,
        "unavailable_allowed": unavailable_allowed(case.instances, policy.max_unavailable_percent),
        "restarts": case.history.within(policy.fatal_window_seconds, case.now),
        "last_restart_seconds_ago": case.now - case.history.restarts[-1] if case.history.restarts else None,
        "budgets": {limit.scope: round(case.budgets.tokens(limit, case.now), 3) for limit in limits.values()},
    }
