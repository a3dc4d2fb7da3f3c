"""A new configuration becomes the running one: only units whose spec has changed are touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ..core.events import Event
from ..core.model import Phase, Unit, UnitSpec
from ..core.plan import Change, Effect, plan
from ..host.runner import Runner, Runners
from ..wire import Command, Operation
from .operations import Operations
from .orders import Orders


class Applier:
    """Carries out plans. `reregister` is told of units whose spec has changed while their process stays."""

    def __init__(
        self,
        runners: Runners,
        orders: Orders,
        operations: Operations,
        attempts: Mapping[str, int],
        reregister: Callable[[str], None],
        *,
        is_drained: Callable[[str], bool] = lambda name: False,
        on_removed: Callable[[str], None] = lambda name: None,
    ) -> None:
        """`attempts` are the generations that units which are not there now had when they were.

        `is_drained` says whether a new unit is to stay out of traffic; `on_removed` is told of one that is no unit any
        more.
        """
        self._is_drained, self._on_removed = is_drained, on_removed
        self._runners, self._orders, self._operations = runners, orders, operations
        self._attempts, self._reregister = dict(attempts), reregister
        self._leaving: set[str] = set()
        runners.observe(self._on_change)

    def apply(self, specs: Mapping[str, UnitSpec], command: Command) -> tuple[tuple[Change, ...], list[Operation]]:
        """Make `specs` what is wanted; answers what that meant, and the operations that carry it out."""
        current = {name: spec for name, spec in self._orders.specs.items() if name not in self._leaving}
        changes = plan(current, specs)
        by_effect: dict[Effect, list[str]] = {effect: [] for effect in Effect}
        for change in changes:
            by_effect[change.effect].append(change.unit)
        stops = self._remove(by_effect[Effect.REMOVED], command)
        for name in (*by_effect[Effect.LIVE], *by_effect[Effect.REREGISTER]):
            self._replace(name, specs[name])
            self._reregister(name)
        operations = [*stops, *self._restart(by_effect[Effect.RESTART], specs, command)]
        operations += self._add(by_effect[Effect.NEW], specs, command, stops)
        operations += self._retry(by_effect, command)
        self._orders.reconsider()
        return changes, operations

    def catch_up(self, specs: Mapping[str, UnitSpec]) -> None:
        """Apply what was changed in the configuration while no daemon was there."""
        current = {name: spec for name, spec in self._orders.specs.items() if name not in self._leaving}
        if any(change.effect is not Effect.NONE for change in plan(current, specs)):
            self.apply(specs, Command(reason="the configuration was changed meanwhile", issued_by="unitd"))

    def leave(self, names: Iterable[str]) -> None:
        """Units that are not in the configuration and still live: forgotten when they are down."""
        self._leaving.update(names)

    def _replace(self, name: str, spec: UnitSpec) -> None:
        runner = self._runners.by_name[name]
        if runner.next_spec is not None:
            runner.next_spec = spec
        else:
            runner.spec = spec

    def _remove(self, names: list[str], command: Command) -> list[Operation]:
        if not names:
            return []
        self._leaving.update(names)
        operations = self._orders.stop(names, command, remember=False, only=True)
        for name in names:
            self._forget_if_down(name)
        return operations

    def _restart(self, names: list[str], specs: Mapping[str, UnitSpec], command: Command) -> list[Operation]:
        """Units that are up get their new spec with their next process, the others at once."""
        up = []
        for name in names:
            runner = self._runners.by_name[name]
            if runner.unit.phase in (Phase.STOPPED, Phase.FATAL, Phase.WAITING) or not runner.unit.wanted:
                runner.spec, runner.next_spec = specs[name], None
                if runner.unit.phase is Phase.FATAL:
                    up.append(name)  # what could not heal may have been healed by this change
            else:
                runner.next_spec = specs[name]
                up.append(name)
        return self._orders.restart(up, command) if up else []

    def _add(
        self, names: list[str], specs: Mapping[str, UnitSpec], command: Command, stops: list[Operation]
    ) -> list[Operation]:
        """New units; they start when the removed ones have stopped, whose ports or files they may use."""
        for name in names:
            if name in self._leaving:  # removed a moment ago, and not down yet
                self._leaving.discard(name)
                self._runners.by_name[name].next_spec = specs[name]
            else:
                self._runners.add(specs[name], self._attempts.get(name, 0), drained=self._is_drained(name))
        started = [name for name in names if specs[name].autostart]
        after = [operation.id for operation in stops if not operation.done]
        return self._orders.start(started, command, remember=False, after=after) if started else []

    def _retry(self, by_effect: Mapping[Effect, list[str]], command: Command) -> list[Operation]:
        """Units that were given up because of something outside of the configuration, which may be mended by now."""
        untouched = by_effect[Effect.NONE] + by_effect[Effect.LIVE] + by_effect[Effect.REREGISTER]
        given_up = [name for name in untouched if _cannot_heal(self._runners.by_name[name])]
        return self._orders.start(given_up, command, remember=False) if given_up else []

    def _on_change(self, runner: Runner, before: Unit, event: Event) -> None:
        if runner.spec.name in self._leaving:
            self._forget_if_down(runner.spec.name)

    def _forget_if_down(self, name: str) -> None:
        runner = self._runners.by_name.get(name)  # None: the order to stop has taken it down at once
        if runner is not None and runner.unit.phase is Phase.STOPPED:
            self._leaving.discard(name)
            self._attempts[name] = runner.unit.attempt
            self._runners.remove(name)
            self._on_removed(name)


def _cannot_heal(runner: Runner) -> bool:
    exit_ = runner.unit.last_exit
    return runner.unit.phase is Phase.FATAL and exit_ is not None and not exit_.can_heal
