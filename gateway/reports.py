"""What gateways see of dead and recovered servers, and what of it the control center should be told. Pure.

A server is *dead* when a gateway has taken it out itself (`Failure.down`), or after several failures in a short time;
that is said again and again as long as it is true. It is *cleared*, and that is said until somebody has heard it, when
it is not down and nothing has failed for a while: a gateway that sees it well again does not by itself end the count,
for every other answer of a server that is half dead is a good one. Of a server that has left the pools, or is there in
another generation, nothing more is said; of one that drains nothing as long as it drains.

Instants are monotonic seconds, `wall` is unix time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from .model import Failure, Finding, Pool, Standing

MAX_DETAIL = 1000  # characters that the control center takes

Report = dict[str, Any]  # one of the objects that the control center takes
_Life = tuple[str, str, int]  # service, instance, generation


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPolicy:
    """When a server counts as dead, how often that is said, and when it counts as well again."""

    failures: int = 3
    within_seconds: float = 5.0
    repeat_seconds: float = 5.0
    clear_seconds: float = 10.0


class _State(Enum):
    SUSPECT = "suspect"  # something has failed, not often enough
    DEAD = "dead"
    CLEARED = "cleared"  # it was dead, and somebody may still believe so


class _Case:
    """What goes wrong with one server. `recent`: failures (when, how many, wall) that do not make it dead yet."""

    __slots__ = ("count", "down", "first_wall", "is_told", "last", "last_at", "recent", "sent_at", "state")

    def __init__(self, failure: Failure) -> None:
        self.state = _State.SUSPECT
        self.recent: list[tuple[float, int, float]] = []
        self.count, self.first_wall, self.last_at, self.last = 0, 0.0, -math.inf, failure
        self.down: set[str] = set()  # the gateways that have taken it out
        self.is_told = False
        self.sent_at = -math.inf

    def fail(self, failure: Failure, source: str, now: float, wall: float, policy: ReportPolicy) -> None:
        """It has happened again."""
        self.last, self.last_at = failure, now
        if failure.down:
            self.down.add(source)
        if self.state is _State.DEAD:
            self.count += failure.count
            return
        recent = [each for each in self.recent if each[0] > now - policy.within_seconds]
        recent.append((now, failure.count, wall))
        count = sum(count for _, count, _ in recent)
        if self.down or count >= policy.failures:
            self.state, self.count, self.first_wall, self.sent_at = _State.DEAD, count, recent[0][2], -math.inf
            recent = []
        self.recent = recent

    def pass_time(self, now: float, policy: ReportPolicy) -> bool:
        """Whether it is still a case, now that time has passed."""
        if self.state is _State.DEAD and not self.down and now - self.last_at >= policy.clear_seconds:
            self.state = _State.CLEARED if self.is_told else _State.SUSPECT
        is_quiet = now - self.last_at >= policy.within_seconds
        return not (self.state is _State.SUSPECT and is_quiet and not self.down)

    def is_due(self, now: float, policy: ReportPolicy) -> bool:
        """Whether the control center is to be told now."""
        repeats = self.state is _State.DEAD and now - self.sent_at >= policy.repeat_seconds
        return repeats or self.state is _State.CLEARED


class Reports:
    """All cases. `note` what gateways find, send what is `due`, and `confirm` what the control center has taken."""

    def __init__(self, policy: ReportPolicy) -> None:
        self._policy = policy
        self._cases: dict[_Life, _Case] = {}

    @property
    def is_idle(self) -> bool:
        """Nothing can become due before the next finding."""
        return not self._cases

    def note(self, finding: Finding, source: str, now: float, wall: float) -> None:
        """The gateway `source` has found something."""
        life = finding.service, finding.instance, finding.generation
        case = self._cases.get(life)
        if isinstance(finding, Failure):
            if case is None:
                case = self._cases[life] = _Case(finding)
            case.fail(finding, source, now, wall, self._policy)
        elif case is not None:
            case.down.discard(source)

    def lose(self, source: str) -> None:
        """That gateway cannot be looked at any more: nothing is down because it once said so."""
        for case in self._cases.values():
            case.down.discard(source)

    def due(self, pools: Mapping[str, Pool], now: float) -> list[Report]:
        """What is to be sent now, and the same again until it is confirmed. `pools`: whom gateways send to."""
        if not self._cases:
            return []
        standings = _standings(pools, {service for service, _, _ in self._cases})
        due = []
        for life, case in list(self._cases.items()):
            if life not in standings or not case.pass_time(now, self._policy):
                del self._cases[life]
            elif standings[life] is Standing.SERVING and case.is_due(now, self._policy):
                case.is_told = True  # what is sent may arrive though nobody hears of that
                due.append(life)
        return self._spelled(due, pools)

    def confirm(self, reports: Sequence[Report], now: float) -> None:
        """The control center has these."""
        for report in reports:
            life = report["service"], report["instance"], report["generation"]
            case = self._cases.get(life)
            if case is None or case.state.value != report["state"]:
                continue  # things have changed on the way: it will be told
            if case.state is _State.DEAD:
                case.sent_at = now
            else:
                case.state, case.is_told = _State.SUSPECT, False

    def current(self, pools: Mapping[str, Pool]) -> list[Report]:
        """The servers that count as dead, whether or not that was sent."""
        return self._spelled([life for life, case in self._cases.items() if case.state is _State.DEAD], pools)

    def _spelled(self, lives: Sequence[_Life], pools: Mapping[str, Pool]) -> list[Report]:
        if not lives:
            return []
        serving = {service: len(pool.serving) for service, pool in pools.items()}
        everywhere = sum(serving.values())
        return [_spelled(life, self._cases[life], everywhere, serving.get(life[0], 0)) for life in lives]


def _standings(pools: Mapping[str, Pool], services: set[str]) -> dict[_Life, Standing]:
    found = (pools[service] for service in services if service in pools)
    return {(pool.service, *server.key): server.standing for pool in found for server in pool.servers}


def _spelled(life: _Life, case: _Case, backends: int, service_backends: int) -> Report:
    service, instance, generation = life
    return {
        "service": service,
        "instance": instance,
        "generation": generation,
        "symptom": case.last.symptom.value,
        "count": max(case.count, 1),
        "first_seen": _iso(case.first_wall),
        "state": case.state.value,
        "detail": case.last.detail.encode(errors="replace").decode().replace("\0", "?")[:MAX_DETAIL],
        "backends": backends,
        "service_backends": service_backends,
    }


def _iso(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
