"""What the control center counts, for Prometheus. One object per center, with a registry of its own."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from datetime import datetime

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from supervisor.installation import version

from .model import Decision, NodeStatus, Operation, OperationState

NODE_STATES = ("up", "suspect", "dead", "unknown", "gone", "refused")
_OPERATION_SECONDS = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400)
_LATENCY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters that parts of the center add to, and gauges that are read when somebody asks."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)
        self._leader = Gauge("unit_center_leader", "Whether this center leads", registry=registry)
        self._epoch = Gauge(
            "unit_center_epoch", "The epoch of the leading center, as far as known here", registry=registry
        )
        self._nodes = Gauge("unit_center_nodes", "Nodes by state", ["state"], registry=registry)
        self._phi = Gauge(
            "unit_center_node_phi", "How unlikely a node's silence is: 8 is one in 10^8", ["node"], registry=registry
        )
        self._operations = Gauge("unit_center_operations", "Open operations by state", ["state"], registry=registry)
        self._durations = Histogram(
            "unit_center_operation_duration_seconds", "From the beginning of an operation to its end",
            ["verb", "outcome"], buckets=_OPERATION_SECONDS, registry=registry,
        )  # fmt: skip
        self._latencies = Histogram(
            "unit_center_command_latency_seconds", "From the sending of a command to the node's acceptance",
            ["verb"], buckets=_LATENCY_SECONDS, registry=registry,
        )  # fmt: skip
        self._targets = Counter(
            "unit_center_targets_total", "Units that operations have ended with", ["verb", "outcome"], registry=registry
        )
        self._decisions = Counter(
            "unit_center_decisions_total", "Decisions of the guard", ["verdict", "rule"], registry=registry
        )
        self._reports = Counter("unit_center_reports_total", "Reports of gateways", ["symptom"], registry=registry)
        self._budgets = Gauge(
            "unit_center_budget_tokens", "Automatic restarts that may begin at once", ["scope"], registry=registry
        )
        self._registry_age = Gauge(
            "unit_center_registry_age_seconds", "Since the registry last answered; NaN: it never has", registry=registry
        )
        self._requests = Counter(
            "unit_center_http_requests_total", "Requests to the API", ["route", "status"], registry=registry
        )
        Gauge("unit_center_build_info", "Always 1", ["version"], registry=registry).labels(version()).set(1)

    def operation_ended(self, operation: Operation) -> None:
        """Count an operation that is done, with its targets."""
        begun, ended = operation.started or operation.created, operation.finished or operation.created
        seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds()
        self._durations.labels(operation.verb, operation.state.value).observe(max(seconds, 0.0))
        for state, count in operation.counts().items():
            self._targets.labels(operation.verb, state).inc(count)

    def command_accepted(self, verb: str, seconds: float) -> None:
        """Count a node's acceptance of a command."""
        self._latencies.labels(verb).observe(seconds)

    def decision(self, decision: Decision) -> None:
        """Count a decision."""
        self._decisions.labels(decision.verdict.value, decision.rule).inc()

    def report(self, symptom: str) -> None:
        """Count a gateway's report."""
        self._reports.labels(symptom).inc()

    def request(self, route: str, status: int) -> None:
        """Count a request; `route` is its pattern, not its path."""
        self._requests.labels(route, str(status)).inc()

    def render(
        self,
        *,
        is_leader: bool,
        epoch: int,
        nodes: Iterable[NodeStatus],
        operations: Iterable[OperationState],
        registry_age: float | None,
        budgets: Mapping[str, float],
    ) -> bytes:
        """All of it in Prometheus' text format.

        `operations` are the states of the open ones; `budgets` are scope ("fleet", "service cart", ...) -> tokens left.
        """
        self._leader.set(is_leader)
        self._epoch.set(epoch)
        self._registry_age.set(float("nan") if registry_age is None else registry_age)
        self._show_nodes(list(nodes))
        self._budgets.clear()
        for scope, left in budgets.items():
            self._budgets.labels(scope).set(left)
        open_now = Tally(operations)
        for state in OperationState:
            if not state.done:
                self._operations.labels(state.value).set(open_now[state])
        return generate_latest(self.registry)

    def _show_nodes(self, nodes: list[NodeStatus]) -> None:
        by_state = Tally(status.state for status in nodes)
        for state in NODE_STATES:
            self._nodes.labels(state).set(by_state[state])
        self._phi.clear()  # nodes that are gone must not be shown for ever
        for status in nodes:
            if status.phi is not None:
                self._phi.labels(status.node).set(status.phi)
