"""What has happened to servers between one look and the next, from counters that only grow. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .envoy_admin import Cluster, Host
from .envoy_file import Place

Seen = Mapping[str, Mapping[str, Cluster]]  # admin -> service -> what it has


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one server: connections that failed, requests without an answer in time, other errors, good answers.

    Envoy counts a timeout as an error, too, and may be looked at between the two: an error counts (`sure`) when
    the next look still shows it.
    """

    connects: int = 0
    timeouts: int = 0
    errors: int = 0
    good: int = 0
    sure: int = 0

    def since(self, before: Counts) -> Counts:
        """The difference."""
        return Counts(
            self.connects - before.connects,
            self.timeouts - before.timeouts,
            self.errors - before.errors,
            self.good - before.good,
            self.sure - before.sure,
        )


class Counting:
    """The counts of all servers at the look before."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], dict[Place, Counts]] = {}

    def growth(self, admin: str, service: str, host: Host) -> Counts:
        """What is new of a server. Nothing is, at the first look at an Envoy's service: that is history."""
        return self._now(admin, service, host).since(self._before(admin, service, host))

    def remember(self, seen: Seen) -> None:
        """This look is the look before from now on. An Envoy that has not answered keeps its counts."""
        for admin, clusters in seen.items():
            for service, cluster in clusters.items():
                hosts = cluster.hosts.items()
                self._counts[admin, service] = {place: self._now(admin, service, host) for place, host in hosts}

    def _now(self, admin: str, service: str, host: Host) -> Counts:
        shown = _shown(host)
        before = self._before(admin, service, host)
        sure = max(before.sure, min(shown.errors, before.errors))
        return Counts(shown.connects, shown.timeouts, shown.errors, shown.good, sure)

    def _before(self, admin: str, service: str, host: Host) -> Counts:
        """All zero for a new server, and where a counter has fallen: with Envoy, or with the server, it began anew."""
        shown = _shown(host)
        known = self._counts.get((admin, service))
        if known is None:
            return Counts(shown.connects, shown.timeouts, shown.errors, shown.good, shown.errors)
        before = known.get(host.place, Counts())
        fell = shown.connects < before.connects or shown.timeouts < before.timeouts or shown.good < before.good
        return Counts() if fell else before


def _shown(host: Host) -> Counts:
    connects, timeouts = host.counters.get("cx_connect_fail", 0), host.counters.get("rq_timeout", 0)
    errors = max(0, host.counters.get("rq_error", 0) - timeouts - connects)
    return Counts(connects, timeouts, errors, host.counters.get("rq_success", 0))
