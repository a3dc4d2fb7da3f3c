"""What the control center counts."""

from __future__ import annotations

from typing import Any

from control_center.metrics import Metrics
from control_center.model import (
    Decision,
    NodeStatus,
    Operation,
    OperationState,
    Selection,
    Target,
    TargetState,
    Verdict,
)

AT = "2026-11-24T08:00:00.000Z"


def shown(metrics: Metrics, **changed: Any) -> dict[str, float]:
    """Sample -> value, of everything that is shown."""
    values: dict[str, Any] = {
        "is_leader": True, "epoch": 3, "nodes": [], "operations": [], "registry_age": 1.5, "budgets": {}, **changed
    }  # fmt: skip
    lines = metrics.render(**values).decode().splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
    }


def node(name: str, state: str, phi: float | None = None) -> NodeStatus:
    return NodeStatus(name, "10.0.0.1", 9301, "http", "push", state, phi)


def ended(state: OperationState, *targets: TargetState) -> Operation:
    return Operation(
        "fo-1", "c1", "restart", Selection(("cart",)), None, {}, "", "root", AT, AT, state,
        started=AT, finished="2026-11-24T08:00:20.000Z",
        targets=[Target("web-1", f"cart:{number}", f"web-1/cart:{number}", state=each) for number, each in enumerate(targets)],
    )  # fmt: skip


def test_leader_epoch_and_the_registrys_age_are_those_of_the_moment() -> None:
    metrics = Metrics()
    samples = shown(metrics)
    assert (samples["unit_center_leader"], samples["unit_center_epoch"]) == (1, 3)
    assert samples["unit_center_registry_age_seconds"] == 1.5
    samples = shown(metrics, is_leader=False, registry_age=None)
    assert samples["unit_center_leader"] == 0
    assert samples["unit_center_registry_age_seconds"] != samples["unit_center_registry_age_seconds"]  # NaN


def test_nodes_are_counted_by_state_and_forgotten_when_they_are_gone() -> None:
    metrics = Metrics()
    samples = shown(metrics, nodes=[node("a", "up", 0.25), node("b", "up"), node("c", "dead", 40.0)])
    assert samples['unit_center_nodes{state="up"}'] == 2 and samples['unit_center_nodes{state="dead"}'] == 1
    assert samples['unit_center_node_phi{node="a"}'] == 0.25 and 'unit_center_node_phi{node="b"}' not in samples
    samples = shown(metrics, nodes=[node("b", "up", 0.5)])
    assert samples['unit_center_nodes{state="dead"}'] == 0
    assert [name for name in samples if "phi" in name] == ['unit_center_node_phi{node="b"}']


def test_open_operations_are_shown_by_state() -> None:
    samples = shown(Metrics(), operations=[OperationState.RUNNING, OperationState.RUNNING, OperationState.PAUSED])
    assert samples['unit_center_operations{state="running"}'] == 2
    assert samples['unit_center_operations{state="paused"}'] == 1
    assert samples['unit_center_operations{state="pending"}'] == 0
    assert not any("succeeded" in name for name in samples)


def test_operations_that_have_ended_are_counted_with_their_targets() -> None:
    metrics = Metrics()
    metrics.operation_ended(ended(OperationState.FAILED, TargetState.SUCCEEDED, TargetState.FAILED, TargetState.FAILED))
    samples = shown(metrics)
    labels = 'outcome="failed",verb="restart"'
    assert samples[f"unit_center_operation_duration_seconds_sum{{{labels}}}"] == 20
    assert samples[f'unit_center_operation_duration_seconds_bucket{{le="15.0",{labels}}}'] == 0
    assert samples[f'unit_center_operation_duration_seconds_bucket{{le="30.0",{labels}}}'] == 1
    assert samples['unit_center_targets_total{outcome="failed",verb="restart"}'] == 2
    assert samples['unit_center_targets_total{outcome="succeeded",verb="restart"}'] == 1


def test_commands_decisions_reports_and_requests_are_counted() -> None:
    metrics = Metrics()
    metrics.command_accepted("stop", 0.02)
    metrics.decision(Decision(AT, "cart", "web-1/cart:0", 1, Verdict.WAIT, "quorum", "one voice"))
    metrics.report("connect_refused")
    metrics.request("/v1/nodes/{node}", 404)
    metrics.request("/v1/nodes/{node}", 404)
    samples = shown(metrics)
    assert samples['unit_center_command_latency_seconds_count{verb="stop"}'] == 1
    assert samples['unit_center_decisions_total{rule="quorum",verdict="wait"}'] == 1
    assert samples['unit_center_reports_total{symptom="connect_refused"}'] == 1
    assert samples['unit_center_http_requests_total{route="/v1/nodes/{node}",status="404"}'] == 2


def test_budgets_are_those_of_the_moment() -> None:
    metrics = Metrics()
    assert shown(metrics, budgets={"fleet": 9.5, "node web-1": 0})['unit_center_budget_tokens{scope="fleet"}'] == 9.5
    assert not any("budget_tokens{" in name for name in shown(metrics))


def test_each_center_counts_for_itself() -> None:
    first, second = Metrics(), Metrics()
    first.report("check_failed")
    assert not any("reports_total{" in name for name in shown(second))
