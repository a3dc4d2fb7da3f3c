"""What may happen to a unit (events) and what may be done about it (actions): facts and orders, no behaviour.

Events that speak of an attempt, a withdrawal or a timer carry its number, so that a late one can be told.
"""

from __future__ import annotations

from dataclasses import dataclass

from .model import Exit, Unit


class Event:
    """Something that happened. Events that speak of an attempt, withdrawal or timer carry its number."""

    __slots__ = ()

    def is_stale(self, unit: Unit) -> bool:
        """It speaks of another attempt, another withdrawal or a timer that was replaced."""
        return (
            getattr(self, "attempt", unit.attempt) != unit.attempt
            or getattr(self, "withdrawal", unit.withdrawal) != unit.withdrawal
            or getattr(self, "timer", unit.timer) != unit.timer
        )


@dataclass(frozen=True, slots=True)
class StartRequested(Event):
    """Somebody wants it up. `waits_for` names what it depends on that is not ready ("" when all is)."""

    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class StopRequested(Event):
    """Somebody wants it down; `force`: even if the registry cannot confirm that the entry is gone."""

    force: bool = False


@dataclass(frozen=True, slots=True)
class RestartRequested(Event):
    """Somebody wants a new attempt; a unit that is down is started. `no_drain`: what it has in flight is given up."""

    force: bool = False
    waits_for: str = ""
    no_drain: bool = False


@dataclass(frozen=True, slots=True)
class DrainRequested(Event):
    """Somebody wants it out of traffic, with its process alive, until an UndrainRequested."""


@dataclass(frozen=True, slots=True)
class UndrainRequested(Event):
    """It may be in traffic again."""


@dataclass(frozen=True, slots=True)
class CancelRequested(Event):
    """Whoever asked for what is under way has changed their mind; answered only before anything was signalled."""


@dataclass(frozen=True, slots=True)
class DependenciesReady(Event):
    """All units that it depends on are ready."""


@dataclass(frozen=True, slots=True)
class Spawned(Event):
    """exec succeeded."""

    attempt: int
    pid: int


@dataclass(frozen=True, slots=True)
class Ready(Event):
    """It can serve; `at` is monotonic."""

    attempt: int
    at: float


@dataclass(frozen=True, slots=True)
class Prewarmed(Event):
    """The requests that come before all others were answered, or their time is over."""

    attempt: int


@dataclass(frozen=True, slots=True)
class ReadinessLost(Event):
    """It was ready and cannot serve now, says a probe or the kernel."""

    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReadinessRegained(Event):
    """It can serve again; `at` is monotonic."""

    attempt: int
    at: float


@dataclass(frozen=True, slots=True)
class LivenessLost(Event):
    """It does not deserve to run on: its startup or liveness probe has failed for good."""

    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class Exited(Event):
    """Its process ended, or could not be spawned. `leftovers`: other processes of its tree live on."""

    attempt: int
    exit: Exit
    at: float
    jitter: float
    leftovers: bool = False


@dataclass(frozen=True, slots=True)
class TreeEmpty(Event):
    """After an exit with leftovers: the last of them has ended."""

    attempt: int
    at: float
    jitter: float


@dataclass(frozen=True, slots=True)
class Gone(Event):
    """Its entry was looked for and is not in the registry.

    `settled`: everybody who is known to have sent to it has said that they do no more.
    """

    attempt: int
    withdrawal: int
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Unconfirmed(Event):
    """The entry's removal could not be confirmed, though its ttl has long passed."""

    attempt: int
    withdrawal: int
    reason: str


@dataclass(frozen=True, slots=True)
class Drained(Event):
    """Nothing that it was asked is unanswered, or the time for that is over; `cut` is what was still open."""

    attempt: int
    cut: int = 0


@dataclass(frozen=True, slots=True)
class TimerFired(Event):
    """The timer that was armed under this id is over."""

    timer: int
    awaited: str = ""  # what did not come about meanwhile, where that is known


EVENTS: tuple[type[Event], ...] = (
    StartRequested, StopRequested, RestartRequested, DrainRequested, UndrainRequested, CancelRequested,
    DependenciesReady, Spawned, Ready, Prewarmed, ReadinessLost, ReadinessRegained, LivenessLost, Exited, TreeEmpty,
    Gone, Unconfirmed, Drained, TimerFired,
)  # fmt: skip


class Action:
    """Something to be done; whoever does it answers with events."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Spawn(Action):
    """Start a process -> Spawned, then Ready; or Exited."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Prewarm(Action):
    """Send it the requests that come before all others -> Prewarmed."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Publish(Action):
    """Register the attempt and keep its lease."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Withdraw(Action):
    """Stop the heartbeat, remove the entry and wait until it is gone -> Gone or Unconfirmed."""

    attempt: int
    withdrawal: int


@dataclass(frozen=True, slots=True)
class Drain(Action):
    """Wait until the unit has finished what it has -> Drained.

    `notify`: tell it first to refuse new work; without that it would go on if it were published again.
    """

    attempt: int
    notify: bool = True


@dataclass(frozen=True, slots=True)
class Resume(Action):
    """Tell a unit that was told to refuse new work to take it again."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Terminate(Action):
    """Send the stop signal to the whole tree -> Exited, TreeEmpty."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Kill(Action):
    """Send SIGKILL to the whole tree -> Exited, TreeEmpty."""

    attempt: int


@dataclass(frozen=True, slots=True)
class ArmTimer(Action):
    """-> TimerFired. An `automatic` restart also pays from the host's restart budget, which may prolong it."""

    timer: int
    seconds: float
    automatic: bool = False
