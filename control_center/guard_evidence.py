"""What all reports together say of gateways and services, before a single instance is judged. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from registry_client.model import Entry

from .guard import GuardPolicy, Voice
from .model import Report

MIN_ACCUSED = 3  # backends: below, a share of all of a gateway's says nothing
MIN_OF_SERVICE = 2  # instances: the only one of a service may well be dead

Kept = tuple[Report, float, float]  # a report, when it came first and last (unix time)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Reports of the last window, weighed."""

    voices: Mapping[tuple[str, str], tuple[Voice, ...]]  # (service, instance) -> what is said of it
    doubts: Mapping[str, str] = field(default_factory=dict)  # gateway -> why its voice counts half
    preserved: Mapping[str, str] = field(default_factory=dict)  # service -> why nothing of it should be restarted


def weigh(
    reports: Iterable[Kept],
    entries: Mapping[tuple[str, str], Entry],
    gateways: Mapping[str, int],
    policy: GuardPolicy,
    now: float,
) -> Evidence:
    """Weigh what was said within the window.

    `entries` are those of all reported services by (service, instance), `gateways` how many are known for a service.
    """
    fresh = [kept for kept in reports if kept[0].state == "dead" and now - kept[2] <= policy.window_seconds]
    accused = _accusations(fresh, entries)
    sizes: dict[str, int] = {}
    for service, _ in entries:
        sizes[service] = sizes.get(service, 0) + 1
    doubts = _doubts(accused, sizes, policy)
    voices: dict[tuple[str, str], list[Voice]] = {}
    for report, first, last in fresh:
        ago, since = (round(max(0.0, now - at), 3) for at in (last, first))
        voice = Voice(
            report.gateway, report.generation, report.symptom, report.count, ago, report.detail,
            doubts.get(report.gateway, ""), since,
        )  # fmt: skip
        voices.setdefault((report.service, report.instance), []).append(voice)
    return Evidence(
        {key: tuple(sorted(said, key=lambda voice: voice.gateway)) for key, said in voices.items()},
        doubts,
        _preserved(accused, sizes, gateways, policy),
    )


def _accusations(fresh: Iterable[Kept], entries: Mapping[tuple[str, str], Entry]) -> list[Report]:
    """Those about what others are still sent to: old news of a host that has gone says nothing of its reporter."""
    accusations = []
    for report, _, _ in fresh:
        entry = entries.get((report.service, report.instance))
        if entry is not None and entry.status != "draining" and report.generation >= entry.generation:
            accusations.append(report)
    return accusations


def _doubts(accused: Iterable[Report], sizes: Mapping[str, int], policy: GuardPolicy) -> dict[str, str]:
    """Gateways that accuse more than is likely to be dead."""
    by_gateway: dict[str, dict[str, list[Report]]] = {}
    for report in accused:
        by_gateway.setdefault(report.gateway, {}).setdefault(report.service, []).append(report)
    doubts = {}
    for gateway, services in by_gateway.items():
        doubt = _doubt(services, sizes, policy)
        if doubt:
            doubts[gateway] = doubt
    return doubts


def _doubt(services: Mapping[str, list[Report]], sizes: Mapping[str, int], policy: GuardPolicy) -> str:
    """Where a gateway does not say how many backends it has, it has those that are registered."""
    every = [report for reports in services.values() for report in reports]
    known = sum(sizes[service] for service in services)
    total = max(report.backends for report in every) or known
    if len(every) >= MIN_ACCUSED and len(every) * 100 > policy.reporter_percent * total:
        return f"accuses {len(every)} of {total} backends"
    for service, reports in services.items():
        size = min(max(report.service_backends for report in reports) or sizes[service], sizes[service])
        if len(reports) >= MIN_OF_SERVICE and len(reports) * 2 > size:
            return f"accuses {len(reports)} of {size} instances of {service}"
    return ""


def _preserved(
    accused: Iterable[Report], sizes: Mapping[str, int], gateways: Mapping[str, int], policy: GuardPolicy
) -> dict[str, str]:
    """Services that most gateways find mostly dead: something else is, and restarts would only add to it."""
    accusers: dict[str, dict[str, set[str]]] = {}
    for report in accused:
        accusers.setdefault(report.service, {}).setdefault(report.instance, set()).add(report.gateway)
    preserved = {}
    for service, instances in accusers.items():
        known = max(gateways.get(service, 0), 1)
        dead = sum(1 for names in instances.values() if len(names) * 2 > known)
        if dead >= MIN_OF_SERVICE and dead * 100 > policy.self_preservation_percent * sizes[service]:
            preserved[service] = (
                f"{dead} of {sizes[service]} instances of {service} look dead to most gateways: something that they "
                f"depend on may be at fault; no automatic restarts until that is over, or a person says so"
            )
    return preserved
