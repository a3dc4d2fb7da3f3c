"""An operation, the registry and a clock, for the tests of what is next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from control_center.fleet import Fleet
from control_center.model import Operation, Selection, Strategy, Target, TargetState
from control_center.rollout import Finish, Start, Step, Wait, advance, baseline, plan, record
from registry_client.model import Entry
from tests.control_center.entries import entry, fleet_of, target_of

BEGIN = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
PLAIN = Strategy(batch="1", canary=0, bake_seconds=0, floor_percent=0, by_zone=False)


def iso(seconds: float) -> str:
    """So many seconds after the beginning."""
    return (BEGIN + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class World:
    """What surrounds one operation. Its deadline is 1000 s after the beginning."""

    def __init__(
        self, entries: Iterable[Entry], strategy: Strategy | None = PLAIN, verb: str = "restart", **more: Any
    ) -> None:
        self.entries = {each.instance: each for each in entries}
        self.now, self.is_away, self.doubts = 0.0, False, frozenset[str]()
        targets = more.pop("targets", None) or [target_of(each) for each in self.entries.values()]
        batches, targets = plan(verb, targets, strategy, self.fleet)
        values: dict[str, Any] = {"created": iso(0), "deadline": iso(1000), "baseline": baseline(targets, self.fleet)}
        values |= {"parameters": {}, "reason": "", "issued_by": "ann", "selection": Selection()} | more
        self.operation = Operation("fo-1", "c-1", verb, strategy=strategy, batches=batches, targets=targets, **values)

    @property
    def fleet(self) -> Fleet:
        """What the registry shows."""
        return fleet_of(*self.entries.values())

    def target(self, instance: str) -> Target:
        """One of the operation's."""
        return next(target for target in self.operation.targets if target.instance == instance)

    def states(self) -> str:
        """The states of all targets, in their order, a word each."""
        return " ".join(target.state.value for target in self.operation.targets)

    def batch_states(self) -> str:
        """Those of all batches."""
        return " ".join(batch.state for batch in self.operation.batches)

    def look(self) -> Step:
        """What is next now; nothing of it is carried out."""
        moment = BEGIN + timedelta(seconds=self.now)
        return advance(self.operation, None if self.is_away else self.fleet, moment, self.doubts)

    def step(self) -> Step:
        """What is next now, recorded."""
        step = self.look()
        record(self.operation, step, BEGIN + timedelta(seconds=self.now))
        return step

    def starts(self) -> list[str]:
        """Who is sent now; what is next must be that."""
        step = self.step()
        assert isinstance(step, Start), step
        return [target.instance for target in step.targets]

    def waits(self) -> str:
        """Why nothing happens now; what is next must be that."""
        step = self.step()
        assert isinstance(step, Wait), step
        assert step.seconds > 0
        return step.reason

    def finishes(self) -> tuple[str, str | None]:
        """How it ends; what is next must be that."""
        step = self.step()
        assert isinstance(step, Finish), step
        return step.state.value, step.error

    def end(self, instance: str, state: TargetState = TargetState.SUCCEEDED, detail: str = "") -> None:
        """The target ends now; one that went well is back in the registry, at full weight."""
        target = self.target(instance)
        target.state, target.detail, target.finished = state, detail, iso(self.now)
        if state is TargetState.SUCCEEDED and instance in self.entries:
            self.show(instance, generation=self.entries[instance].generation + 1, status="up", weight=100)

    def show(self, instance: str, **changes: Any) -> None:
        """The registry shows something else of an instance."""
        self.entries[instance] = replace(self.entries[instance], **changes)


def carts(count: int, **more: Any) -> list[Entry]:
    """Instances of one service on web-1, web-2, ..."""
    return [entry(f"web-{number + 1}", **more) for number in range(count)]
