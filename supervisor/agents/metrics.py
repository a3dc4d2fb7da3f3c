"""`GET /metrics`: what is counted anyway, and what is looked up when somebody asks, as Prometheus reads it.

It is imported at the first scrape, and built in slices: a host of a thousand units goes on with its work in between.
What each metric means is in docs/reference/metrics.md. Processes' memory and CPU are not among them: they would take a
walk over /proc for each scrape, and what runs in cgroups is measured by others already.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass

from registry_client import lease as leases

from ..core.exposition import CONTENT_TYPE, Family, labels
from ..core.lifecycle import state_word
from ..core.measures import Measures
from ..core.model import Phase
from ..host.clock import monotonic
from ..host.output import OutputPump
from ..host.resources import OwnUse, own_use
from ..host.runner import Runner, Runners
from ..installation import version
from .lag import LagMeter
from .node import Node
from .operations import Operations
from .publisher import Publisher
from .registries import Registries, Registry

SLICE = 50  # units between two looks at everything else


@dataclass(frozen=True, slots=True)
class Sources:
    """All that is looked at."""

    node: Node
    runners: Runners
    registries: Registries
    publisher: Publisher
    operations: Operations
    measures: Measures
    pump: OutputPump
    is_ready: Callable[[], bool]
    journal_bytes: Callable[[], int]


class Metrics:
    """Makes the text; keeps nothing between scrapes but the lag of the loop."""

    def __init__(self, sources: Sources) -> None:
        self._from = sources
        self._lag = LagMeter()

    async def scrape(self) -> tuple[str, bytes]:
        """The media type, and everything as it is now."""
        lag = await self._lag.worst()
        families = [*self._of_daemon(lag), *self._of_process(own_use()), *self._counted(), *await self._of_units()]
        return CONTENT_TYPE, "".join([family.text() for family in families]).encode()

    def _of_daemon(self, lag_seconds: float) -> list[Family]:
        node, operations = self._from.node, self._from.operations
        build = Family("unitd_build_info", "gauge", "Which unitd this is; always 1.")
        python = ".".join(map(str, sys.version_info[:3]))
        build.add(1, labels(("node", "version", "python"), (node.name, version(), python)))
        opened = Family("unitd_operations_open", "gauge", "Operations that have not ended.")
        oldest = Family("unitd_operation_oldest_open_seconds", "gauge", "Age of the oldest operation that is open.")
        for verb, (count, age) in operations.oldest_open().items():
            opened.add(count, labels(("verb",), (verb,)))
            oldest.add(age, labels(("verb",), (verb,)))
        return [
            build,
            _gauge("unitd_ready", "1 once everything was started, until the shutdown begins.", self._from.is_ready()),
            _gauge("unitd_uptime_seconds", "Since this daemon began.", node.uptime_seconds),
            _gauge("unitd_units", "Units of the configuration.", len(self._from.runners.by_name)),
            _gauge("unitd_event_loop_lag_seconds", "Worst lateness of a timer since the last scrape.", lag_seconds),
            _gauge("unitd_journal_bytes", "Size of the journal's files.", self._from.journal_bytes()),
            opened,
            oldest,
        ]

    def _of_process(self, use: OwnUse) -> list[Family]:
        """Under the names that Prometheus' own libraries use."""
        cpu = Family("process_cpu_seconds_total", "counter", "CPU time of the daemon, user and system.")
        cpu.add(use.cpu_seconds)
        return [
            cpu,
            _gauge("process_resident_memory_bytes", "Resident memory of the daemon.", use.resident_bytes),
            _gauge("process_virtual_memory_bytes", "Virtual memory of the daemon.", use.virtual_bytes),
            _gauge("process_open_fds", "Open descriptors of the daemon.", use.open_fds),
            _gauge("process_max_fds", "Descriptors that it may have open.", use.max_fds),
            _gauge("process_start_time_seconds", "Unix time at which the daemon began.", self._from.node.began_wall),
        ]

    def _counted(self) -> list[Family]:
        measures = self._from.measures
        families, ended = [], ("verb", "outcome")
        for name, text, names, histograms in (
            ("unitd_operation_duration_seconds", "From acceptance to the end.", ended, measures.operations),
            ("unitd_command_latency_seconds", "From acceptance to the beginning.", ("verb",), measures.latencies),
            ("unitd_operation_step_seconds", "One step of an operation.", ("step",), measures.steps),
            ("unitd_removal_wait_seconds", "Until an entry had gone everywhere.", ("outcome",), measures.removals),
            ("unitd_removal_wait_ratio", "The same, by the time that was promised.", (), measures.removal_ratios),
            ("unitd_gateway_wait_seconds", "Until gateways sent no more.", ("service", "outcome"), measures.gateways),
            ("unitd_drain_seconds", "Until work in flight had ended.", ("service", "outcome"), measures.drains),
        ):  # fmt: skip
            family = Family(name, "histogram", text)
            family.add_histograms(names, histograms)
            families.append(family)
        restarts = Family("unitd_unit_restarts_total", "counter", "New processes in place of old ones, by cause.")
        restarts.add_counts(("unit", "cause"), measures.restarts)
        requests = Family("unitd_http_requests_total", "counter", "Answers of the daemon's own API.")
        requests.add_counts(("method", "route", "status"), measures.requests)
        return [*families, restarts, requests, self._renewals(), self._dropped()]

    def _renewals(self) -> Family:
        family = Family("unitd_lease_renewals_total", "counter", "Registrations and renewals of entries.")
        for registry in self._from.registries.all:
            for outcome, count in registry.heartbeats.outcomes.items():
                family.add(count, labels(("registry", "outcome"), (registry.name, outcome)))
        return family

    def _dropped(self) -> Family:
        family = Family("unitd_log_lines_dropped_total", "counter", "Lines of output that were not written.")
        for (unit, stream), drop in self._from.pump.counters().items():
            family.add(drop.lines, labels(("unit", "stream"), (unit, stream)))
        return family

    async def _of_units(self) -> list[Family]:
        table = _UnitFamilies()
        registries = [(registry, labels(("registry",), (registry.name,))) for registry in self._from.registries.all]
        for index, (name, runner) in enumerate(list(self._from.runners.by_name.items())):
            if index % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            self._add_unit(table, name, runner, registries)
        return table.all

    def _add_unit(
        self, table: _UnitFamilies, name: str, runner: Runner, registries: list[tuple[Registry, str]]
    ) -> None:
        unit, service = runner.unit, runner.spec.service
        own = labels(("unit", "service"), (name, service.name if service else ""))
        warming = bool(self._from.publisher.warming(name))
        table.state.add(1, f'{own},state="{state_word(unit, warming=warming)}"')
        table.up.add(unit.phase is Phase.RUNNING and unit.healthy, own)
        table.wanted.add(unit.wanted, own)
        table.automatic.add(unit.restarts, own)
        if unit.pid is not None:
            table.started.add(round(runner.started_wall, 3), own)
        if service is None:
            return
        table.weight.add(self._from.publisher.weight(runner) or 0, own)
        table.full_weight.add(service.weight, own)
        table.cut.add(self._from.measures.requests_cut.values.get((name,), 0), own)
        for registry, word in registries:
            self._add_lease(table, f"{own},{word}", registry, name)

    def _add_lease(self, table: _UnitFamilies, own: str, registry: Registry, name: str) -> None:
        lease, now = registry.heartbeats.lease(name), monotonic()
        state = leases.LeaseState.ABSENT if lease is None else leases.state_at(lease, now)
        table.lease_state.add(1, f'{own},state="{state.value}"')
        if lease is None:
            return
        table.lease_ttl.add(lease.ttl_seconds, own)
        if lease.sent_at is not None:
            table.lease_age.add(round(now - lease.sent_at, 3), own)


class _UnitFamilies:
    """What is told of every unit; filled unit by unit, written metric by metric."""

    def __init__(self) -> None:
        self.state = Family("unitd_unit_state", "gauge", "1 for the state that the unit is in.")
        self.up = Family("unitd_unit_up", "gauge", "1 while the unit is ready.")
        self.wanted = Family("unitd_unit_wanted", "gauge", "1 if the unit is to be up.")
        self.automatic = Family("unitd_unit_automatic_restarts_total", "counter", "Restarts that nobody asked for.")
        self.started = Family("unitd_unit_start_time_seconds", "gauge", "Unix time at which its process began.")
        self.weight = Family("unitd_unit_weight", "gauge", "Its weight in the registry.")
        self.full_weight = Family("unitd_unit_full_weight", "gauge", "The configured weight.")
        self.cut = Family("unitd_unit_requests_cut_total", "counter", "Requests still open when draining was over.")
        self.lease_state = Family("unitd_lease_state", "gauge", "1 for the state that the lease is in.")
        self.lease_age = Family("unitd_lease_age_seconds", "gauge", "Since the last renewal that was confirmed.")
        self.lease_ttl = Family("unitd_lease_ttl_seconds", "gauge", "How long the entry lives without a renewal.")

    @property
    def all(self) -> list[Family]:
        """In the order in which they were made."""
        return list(vars(self).values())


def _gauge(name: str, text: str, value: float) -> Family:
    family = Family(name, "gauge", text)
    family.add(value)
    return family
