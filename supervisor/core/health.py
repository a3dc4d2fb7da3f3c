"""What answers of a probe add up to: it holds, it does not, or nothing can be said yet; and the probes nobody wrote.

The words are Kubernetes': so many answers in a row make a probe hold, so many failures in a row make it fail.
"""

from __future__ import annotations

from dataclasses import dataclass

from .model import ProbeSpec, ServiceSpec, UnitSpec

# What a registered unit without a liveness probe gets: for a minute it was frozen, or accepted no connection.
IMPLICIT_LIVENESS = ProbeSpec("kernel", period=10.0, timeout=1.0, failure_threshold=6)
IMPLICIT_READINESS_SHARE = 1 / 3  # of the ttl: the period of the readiness probe that nobody wrote
IMPLICIT_READINESS_FAILURES = 2


@dataclass(frozen=True, slots=True)
class Hysteresis:
    """What is known by the answers so far. An edge is an answer that changes `holds`."""

    holds: bool | None = None  # None: neither threshold has been reached yet
    streak: int = 0  # answers of the same kind in a row: successes count up from 1, failures down from -1

    @property
    def failures(self) -> int:
        """Failures in a row."""
        return max(0, -self.streak)


@dataclass(frozen=True, slots=True)
class ProbeStatus:
    """One probe of a unit and its last answer."""

    role: str  # "startup", "readiness" or "liveness"
    kind: str
    implicit: bool  # nobody wrote it
    holds: bool | None  # None: neither threshold has been reached yet
    streak: int  # successes in a row, or failures in a row below 0
    detail: str
    at: float | None  # monotonic; None: it has not answered yet


@dataclass(frozen=True, slots=True)
class HealthStatus:
    """What is known of one attempt's health."""

    attempt: int
    started: bool  # its startup probe has succeeded, or it has none
    ready: bool
    live: bool
    since: float  # monotonic: when `ready` last changed, else when the attempt began
    why: str  # what it waits for before it is ready, why it is not ready, or what is suspected; "" when all is well
    held: bool  # it would be out, if not so many others were
    probes: tuple[ProbeStatus, ...]


def observe(state: Hysteresis, ok: bool, spec: ProbeSpec, *, due: bool = True) -> Hysteresis:
    """What is known after one more answer.

    An answer that came between two due ones counts only where it turns the row: however often a unit is asked while
    it starts, its failures add up at the pace of the period, and a success is one at once.
    """
    turns = state.streak <= 0 if ok else state.streak > 0
    if not due and not turns:
        return state
    step = 1 if ok else -1
    streak = step if turns else state.streak + step
    if streak >= spec.success_threshold:
        return Hysteresis(True, streak)
    if -streak >= spec.failure_threshold:
        return Hysteresis(False, streak)
    return Hysteresis(state.holds, streak)


def implicit_readiness(service: ServiceSpec) -> ProbeSpec:
    """The readiness probe of a registered unit that has none: a frozen or deaf process leaves the registry."""
    period = service.ttl_seconds * IMPLICIT_READINESS_SHARE
    return ProbeSpec("kernel", period=period, timeout=1.0, failure_threshold=IMPLICIT_READINESS_FAILURES)


def readiness_of(spec: UnitSpec) -> ProbeSpec | None:
    """The readiness probe of a unit that has been ready once, written or implicit; None: its word holds."""
    if spec.readiness is None and spec.service is not None:
        return implicit_readiness(spec.service)
    return spec.readiness


def liveness_of(spec: UnitSpec) -> ProbeSpec | None:
    """The liveness probe of a unit that has been ready once, written or implicit; None: it lives while it runs."""
    if spec.liveness is None and spec.service is not None:
        return IMPLICIT_LIVENESS
    return spec.liveness
