"""What has been spent: budgets of automatic restarts, and each instance's own history. Pure, and plain values to keep.

Times are unix seconds, since they must mean the same to the next center. A clock that is set back earns nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from supervisor.core.restart import TokenBucket

HEALTHY_SECONDS = 600.0  # without restart and accusation: what was before is forgotten
_KEPT_RESTARTS = 50


@dataclass(frozen=True, slots=True)
class Limit:
    """One budget: `burst` restarts at once, and `per_minute` over time (0: never more)."""

    scope: str  # fleet | service NAME | node NAME
    per_minute: float
    burst: int


class Budgets:
    """A token bucket for the fleet, for each service and for each node."""

    def __init__(self) -> None:
        self._buckets: dict[str, TokenBucket] = {}

    @property
    def scopes(self) -> tuple[str, ...]:
        """Of which anything was ever taken."""
        return tuple(self._buckets)

    def tokens(self, limit: Limit, now: float) -> float:
        """How many restarts are left now."""
        bucket = self._bucket(limit, now)
        return min(bucket.burst, bucket.tokens + (now - bucket.at) * bucket.per_second)

    def wait_seconds(self, limit: Limit, now: float) -> float | None:
        """Until a restart may be taken; 0: now, None: never."""
        missing = 1 - self.tokens(limit, now)
        if missing <= 0:
            return 0.0
        bucket = self._bucket(limit, now)
        return missing / bucket.per_second if bucket.per_second > 0 and bucket.burst >= 1 else None

    def take(self, limit: Limit, now: float) -> None:
        """One restart; only where `wait_seconds` is 0."""
        bucket = self._bucket(limit, now)
        self._buckets[limit.scope] = replace(bucket, tokens=self.tokens(limit, now) - 1, at=now)

    def give_back(self, limit: Limit, now: float) -> None:
        """A restart that was taken has not happened."""
        bucket = self._bucket(limit, now)
        self._buckets[limit.scope] = replace(bucket, tokens=self.tokens(limit, now) + 1, at=now)

    def to_json(self, scope: str) -> dict[str, float] | None:
        """One bucket as plain values; None: nothing was ever taken."""
        bucket = self._buckets.get(scope)
        return {"tokens": bucket.tokens, "at": bucket.at} if bucket else None

    def load(self, scope: str, value: Mapping[str, Any]) -> None:
        """What `to_json` gave, before or in another center."""
        self._buckets[scope] = TokenBucket(0.0, 0.0, float(value["tokens"]), float(value["at"]))

    def _bucket(self, limit: Limit, now: float) -> TokenBucket:
        """As the policy is today, whatever it was when the bucket was kept."""
        per_second = limit.per_minute / 60
        bucket = self._buckets.get(limit.scope)
        if bucket is None:
            return TokenBucket(per_second, limit.burst, limit.burst, now)
        tokens, at = min(bucket.tokens, limit.burst), min(bucket.at, now)
        return TokenBucket(per_second, limit.burst, tokens, at)


@dataclass(frozen=True, slots=True)
class History:
    """What the guard has done to one instance."""

    restarts: tuple[float, ...] = ()  # when, oldest first
    fatal_since: float | None = None  # until a person clears it
    blamed: float = 0.0  # when it was last reported

    def at(self, now: float) -> History:
        """As it counts now: long healthy, and the restarts are forgotten. A person's part is not."""
        quiet = now - max(self.blamed, self.restarts[-1] if self.restarts else 0.0)
        return replace(self, restarts=()) if self.restarts and quiet >= HEALTHY_SECONDS else self

    def within(self, seconds: float, now: float) -> int:
        """How many restarts there were in the last so many seconds."""
        return sum(1 for each in self.restarts if each > now - seconds)

    def restarted(self, now: float) -> History:
        """With one more restart."""
        return replace(self, restarts=(*self.restarts, now)[-_KEPT_RESTARTS:])

    def blamed_at(self, now: float) -> History:
        """Reported once more."""
        return replace(self, blamed=now)

    def due(self, least_seconds: float, initial: float, most: float) -> float:
        """When the next restart may be: after the last one `least_seconds`, or the doubling delay if that is longer."""
        if not self.restarts:
            return 0.0
        doublings = min(len(self.restarts) - 1, 64)  # beyond, the cap holds, and the power would overflow
        return self.restarts[-1] + max(least_seconds, min(most, initial * 2.0**doublings))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"restarts": list(self.restarts), "fatal_since": self.fatal_since}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> History:
        """What `to_json` gave."""
        fatal_since = value.get("fatal_since")
        restarts = tuple(float(each) for each in value.get("restarts", ()))
        return cls(restarts, None if fatal_since is None else float(fatal_since))
