"""What unit-gateway counts, for Prometheus. One object per unit-gateway, with a registry of its own."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from supervisor.installation import version

from .feeder import Feeder
from .model import Failure, Finding, Pool, Standing

Labels = tuple[tuple[str, str], ...]
OUTCOMES = ("applied", "unreachable", "refused", "failed")
_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters that parts of unit-gateway add to, and gauges that are read when somebody asks."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, feeders: Sequence[Feeder] = ()) -> None:
        """A feeder may have a method `counts() -> Mapping[(name, ((label, value), ...)), number]` of its own."""
        self.registry = registry = CollectorRegistry(auto_describe=True)
        self._servers = Gauge(
            "unit_gateway_servers", "Servers in the pools", ["service", "standing"], registry=registry
        )
        self._held = Gauge(
            "unit_gateway_held_servers", "Servers that are kept although the registry does not list them",
            ["service"], registry=registry,
        )  # fmt: skip
        self._reachable = Gauge(
            "unit_gateway_reachable", "Whether the gateway answers", ["gateway", "kind"], registry=registry
        )
        self._behind = Gauge(
            "unit_gateway_services_behind", "Services of which the gateway has not got the newest pool",
            ["gateway"], registry=registry,
        )  # fmt: skip
        self._applies = Counter(
            "unit_gateway_applies_total", "Calls that told a gateway a pool", ["gateway", "outcome"], registry=registry
        )
        self._durations = Histogram(
            "unit_gateway_apply_seconds", "How long the gateway took to act on a pool", ["gateway"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._failures = Counter(
            "unit_gateway_failures_total", "Failures of servers that gateways have seen", ["gateway", "symptom"],
            registry=registry,
        )  # fmt: skip
        self._registry_age = Gauge(
            "unit_gateway_registry_age_seconds", "Since the registry last answered; NaN: it never has",
            registry=registry,
        )  # fmt: skip
        Gauge("unit_gateway_build_info", "Always 1", ["version"], registry=registry).labels(version()).set(1)
        registry.register(_FeedersOwn(feeders))

    def applied(self, gateway: str, outcome: str, seconds: float) -> None:
        """Count one call of a gateway; only those that it took over have a duration."""
        self._applies.labels(gateway, outcome).inc()
        if outcome == "applied":
            self._durations.labels(gateway).observe(seconds)

    def finding(self, gateway: str, finding: Finding) -> None:
        """Count what a gateway has seen."""
        if isinstance(finding, Failure):
            self._failures.labels(gateway, finding.symptom.value).inc(finding.count)

    def render(
        self, *, pools: Iterable[Pool], gateways: Iterable[tuple[str, str, bool, int]], registry_age: float | None
    ) -> bytes:
        """All of it in Prometheus' text format. `gateways`: name, kind, whether it answers, services behind."""
        self._registry_age.set(float("nan") if registry_age is None else registry_age)
        self._servers.clear()
        self._held.clear()
        for pool in pools:
            self._show(pool)
        for name, kind, reachable, behind in gateways:
            self._reachable.labels(name, kind).set(reachable)
            self._behind.labels(name).set(behind)
        return generate_latest(self.registry)

    def _show(self, pool: Pool) -> None:
        standings = Tally(server.standing for server in pool.servers)
        for standing in Standing:
            self._servers.labels(pool.service, standing.value).set(standings[standing])
        self._held.labels(pool.service).set(sum(bool(server.held) for server in pool.servers))


class _FeedersOwn(Collector):
    """What single gateways count themselves; only the embedded one does."""

    def __init__(self, feeders: Sequence[Feeder]) -> None:
        self._feeders = feeders

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for feeder in self._feeders:
            counts: Mapping[tuple[str, Labels], float] = getattr(feeder, "counts", dict)()
            for (name, labels), number in sorted(counts.items()):
                family = families.get(name) or families.setdefault(name, _family(name, labels))
                family.add_metric([feeder.name, *(value for _, value in labels)], number)
        yield from families.values()


def _family(name: str, labels: Labels) -> CounterMetricFamily | GaugeMetricFamily:
    names = ["gateway", *(label for label, _ in labels)]
    maker = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    return maker(f"unit_gateway_{name}", "Counted by the gateway itself", labels=names)
