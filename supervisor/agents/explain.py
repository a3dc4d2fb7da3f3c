"""What a unit's state rests on, in lines for people. Pure: from messages to text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..wire import MaintenanceStatus, Operation, ProbeStatus, UnitStatus

SHOWN = 3  # so many operations, the newest


def details(status: UnitStatus, operations: Sequence[Operation]) -> list[str]:
    """The facts behind `why`: state, maintenance, warm-up, probes, last exit, and the newest of the unit's operations.

    `operations` are the unit's, oldest first. The newest one and those that go on come with their steps.
    """
    return list(_details(status, operations[-SHOWN:]))


def _details(status: UnitStatus, operations: Sequence[Operation]) -> Iterator[str]:
    yield f"state: {status.state}, wanted {status.wanted}, generation {status.generation}"
    if status.maintenance is not None:
        yield f"maintenance: {_maintenance(status.maintenance)}"
    if status.warmup is not None:
        yield f"weight: {status.warmup}"
    for probe in status.probes:
        yield f"probe: {probe.role} ({probe.kind}): {_probe(probe)}"
    if status.last_exit is not None:
        yield f"last exit: {status.last_exit.reason} (at {status.last_exit.at})"
    for operation in operations:
        yield from _operation(operation, steps=operation is operations[-1] or not operation.done)


def _maintenance(maintenance: MaintenanceStatus) -> str:
    by = f" by {maintenance.owner}" if maintenance.owner else ""
    until = f"until {maintenance.until}" if maintenance.until is not None else "until it is undrained"
    reason = f": {maintenance.reason}" if maintenance.reason else ""
    return f"kept out of traffic{by} since {maintenance.since}, {until}{reason}"


def _probe(probe: ProbeStatus) -> str:
    verdict = {True: "ok", False: "failed", None: "undecided"}[probe.ok]
    if probe.seconds_ago is None:
        return f"{verdict}, not answered yet"
    count = abs(probe.streak)
    noun = ("success" if count == 1 else "successes") if probe.streak > 0 else ("failure" if count == 1 else "failures")
    detail = f": {probe.detail}" if probe.detail else ""
    return f"{verdict}, {count} {noun} in a row, the last {probe.seconds_ago:.1f} s ago{detail}"


def _operation(operation: Operation, *, steps: bool) -> Iterator[str]:
    by = f" by {operation.issued_by}" if operation.issued_by else ""
    yield f"ordered: {operation.verb}{by} at {operation.created}: {operation.error or operation.state}"
    for step in operation.steps if steps else ():
        detail = f": {step.detail}" if step.detail else ""
        yield f"  {step.name} {step.state}{detail}"
