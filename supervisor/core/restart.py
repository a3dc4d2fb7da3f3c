"""What follows an exit that nobody asked for: restart after a delay, rest, or give up, each with its reason.

Facts in, verdict out. Two counters feed it: `Unit.failures` counts unasked exits in a row and is forgotten after
`stable_seconds` of readiness; `Unit.failed_starts` counts those among them that never became ready.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .model import Autorestart, Exit, RestartPolicy


@dataclass(frozen=True, slots=True)
class Verdict:
    """`follow` is "restart" (after `delay` seconds), "rest" (the policy is content) or "give up"."""

    follow: str
    delay: float
    reason: str


def judge(
    policy: RestartPolicy, exit_: Exit, *, failures: int, failed_starts: int, was_ready: bool, jitter: float
) -> Verdict:
    """The verdict on an exit. The counters already include it; `jitter` is random, 0 <= jitter < 1."""
    if not exit_.can_heal:
        return Verdict("give up", 0.0, f"{exit_.reason}; not retried until that changes")
    if was_ready and not _wants_restart(policy, exit_):
        return Verdict("rest", 0.0, exit_.reason)
    if failed_starts > policy.startretries:
        return Verdict("give up", 0.0, f"{exit_.reason}; gave up after {failed_starts} failed starts in a row")
    delay = backoff_delay(policy, failures, was_ready=was_ready, jitter=jitter)
    return Verdict("restart", delay, exit_.reason)


def _wants_restart(policy: RestartPolicy, exit_: Exit) -> bool:
    if policy.autorestart is Autorestart.UNEXPECTED:
        return exit_.code is None or exit_.code not in policy.exitcodes
    return policy.autorestart is Autorestart.ALWAYS


def backoff_delay(policy: RestartPolicy, failures: int, *, was_ready: bool, jitter: float) -> float:
    """Seconds until the next start after `failures` unasked exits in a row (1 or more).

    The first exit of a unit that had been ready is answered at once; all others wait exponentially longer, up to
    `backoff_max`, plus or minus the policy's share of jitter.
    """
    doublings = failures - (2 if was_ready else 1)
    if doublings < 0:
        return 0.0
    # Beyond 64 doublings the cap holds whatever the factor; without the bound the power overflows.
    delay = min(policy.backoff_max, policy.backoff_initial * policy.backoff_factor ** min(doublings, 64))
    return delay * (1 + policy.backoff_jitter * (2 * jitter - 1))


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """The host-wide budget of automatic restarts: `burst` at once, then `per_second`."""

    per_second: float
    burst: float
    tokens: float
    at: float  # monotonic instant that `tokens` is true for

    @classmethod
    def full(cls, per_minute: float, burst: float, now: float) -> TokenBucket:
        """A bucket with nothing taken out yet."""
        return cls(per_minute / 60, burst, burst, now)

    def take(self, now: float) -> tuple[TokenBucket, float]:
        """Take one token, if need be on credit: the bucket after it and the seconds until the token is earned."""
        tokens = min(self.burst, self.tokens + (now - self.at) * self.per_second) - 1
        wait = 0.0 if tokens >= 0 else -tokens / self.per_second
        return replace(self, tokens=tokens, at=now), wait
